"""The Dockerfile, as far as it can be checked without a daemon: what it promises, by its text."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from rowwise.cli import app as cli

ROOT = Path(__file__).parents[1]
FILE = ROOT / "Dockerfile"


@pytest.fixture(scope="module")
def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each stage, comments gone and lines joined."""
    lines = [line for line in FILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    found: list[list[tuple[str, str]]] = []
    for line in filter(str.strip, joined.splitlines()):
        word, _, rest = line.strip().partition(" ")
        assert re.fullmatch("[A-Z]+", word), line
        if word == "FROM":
            found.append([])
        found[-1].append((word, " ".join(rest.split())))
    return found


def values(stage: list[tuple[str, str]], word: str) -> list[str]:
    return [rest for name, rest in stage if name == word]


def test_it_is_built_in_one_stage_and_run_in_another(stages):
    build, run = stages
    assert values(build, "FROM")[0].endswith(" AS build")
    assert values(run, "FROM") == ["python:3.13-slim"]
    assert values(run, "COPY") == ["--from=build /srv/rowwise /srv/rowwise"]
    assert not [line for line in values(run, "RUN") if "install" in line]


def test_what_it_installs_is_pinned_and_has_all_that_serving_needs(stages):
    installs = [part for line in values(stages[0], "RUN") for part in line.split("&&")
                if " pip install" in part]  # fmt: skip
    assert len(installs) == 2
    for one in installs:
        assert "-c constraints.txt" in one
    assert "rowwise[serve] @" in installs[-1]


def test_it_runs_as_nobody_in_particular(stages):
    words = [word for word, _ in stages[1]]
    assert values(stages[1], "USER") == ["10001"]
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert "--uid 10001" in values(stages[1], "RUN")[0]
    assert not [line for stage in stages for line in values(stage, "ADD")]
    assert not [line for stage in stages for line in values(stage, "VOLUME")]


def test_it_needs_to_write_nothing(stages):
    [environment] = values(stages[1], "ENV")
    assert "PYTHONDONTWRITEBYTECODE=1" in environment
    assert "KEY" not in FILE.read_text().replace("ROWWISE_SERVE_API_KEYS", "")


def test_its_health_is_asked_by_what_is_there(stages):
    [check] = values(stages[1], "HEALTHCHECK")
    command = json.loads(check.partition("CMD ")[2])
    assert command[:2] == ["python", "-c"]
    compile(command[2], "healthcheck", "exec")
    assert "http://127.0.0.1:8000/healthz" in command[2]
    assert values(stages[1], "EXPOSE") == ["8000"]
    assert values(stages[1], "STOPSIGNAL") == ["SIGTERM"]


def test_its_command_is_one_of_ours(stages):
    command = [*json.loads(values(stages[1], "ENTRYPOINT")[0]),
               *json.loads(values(stages[1], "CMD")[0])]  # fmt: skip
    assert command[:2] == ["rowwise", "serve"]
    assert command[2:] == ["--host", "0.0.0.0", "--port", "8000"]
    assert "serve" in [c.name or c.callback.__name__ for c in cli.registered_commands]


def test_only_what_is_needed_is_sent_to_the_builder(stages):
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {line[1:] for line in rules if line.startswith("!")}
    copied = {word.rstrip("/") for line in values(stages[0], "COPY")
              for word in shlex.split(line)[:-1]}  # fmt: skip
    assert copied == let_in
    assert all((ROOT / name).exists() for name in let_in)
    assert "**/*.so" in rules

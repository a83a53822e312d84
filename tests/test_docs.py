"""The documentation: examples run, keys are those of the models, links lead somewhere."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
import tomllib

import pytest
from pages import ROOT, check_commands, check_links, fenced

import rowwise
from rowwise import Experiment, Network, Study, __version__, runs
from rowwise.album import DESCRIPTION, PICTURES
from rowwise.runs import DataIdentity, EngineIdentity, EpochMetrics, Record, Timings
from rowwise.settings import as_tree

DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")])
named = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@named
def test_every_link_leads_somewhere(page):
    check_links(page)


@named
def test_every_command_exists(page):
    check_commands(page.read_text("utf-8"))


@named
def test_a_page_names_no_place_on_a_machine(page):
    places = re.findall(r"(?<![\w.])/(?:home|root|work|tmp|Users)/\S*", page.read_text("utf-8"))
    assert places == []


def test_the_newest_entry_of_the_changes_is_this_version():
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    entries = re.findall(r"^## (\S+)$", text, re.MULTILINE)
    assert next(entry for entry in entries if entry != "Unreleased") == __version__


# --- docs/api.md, docs/runs.md ----------------------------------------------------------------


def test_the_examples_run(home):
    """In one folder, one page after the other: runs.md looks at a run that api.md made."""
    for name in ("api.md", "runs.md"):
        blocks = fenced((DOCS / name).read_text("utf-8"), "python")
        test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, name, name, 0)
        assert test.examples
        runner = doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
        runner.run(test)
        assert runner.failures == 0


def test_api_names_every_public_name():
    text = (DOCS / "api.md").read_text("utf-8")
    assert [name for name in rowwise.__all__ if not re.search(rf"\b{name}\b", text)] == []


def keys_of(section: str) -> list[str]:
    """The keys in the first column of a section's table in docs/runs.md."""
    text = (DOCS / "runs.md").read_text("utf-8")
    (body,) = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.M)
    rows = re.findall(r"^\| (`.*?) \|", body, re.MULTILINE)
    return [key for row in rows for key in re.findall(r"`(\w+)`", row)]


def test_runs_has_the_keys_of_a_record():
    assert keys_of("run.json") == list(Record.model_fields)


def test_runs_has_the_keys_of_an_epoch():
    assert keys_of("metrics.jsonl") == list(EpochMetrics._fields)


@pytest.mark.parametrize("model", [DataIdentity, EngineIdentity, Timings])
def test_runs_has_the_keys_below_a_record(model):
    text = (DOCS / "runs.md").read_text("utf-8")
    for key in model.model_fields:
        assert f"`{key}`" in text


def test_runs_has_every_file():
    text = (DOCS / "runs.md").read_text("utf-8")
    own = ("RECORD", "EXPERIMENT", "ENVIRONMENT", "METRICS", "WEIGHTS", "PREDICTIONS", "CHECKPOINT")
    names = [getattr(runs, name) for name in own] + [runs.STUDY, runs.LOCK, DESCRIPTION, PICTURES]
    assert [name for name in names if name not in text] == []


# --- docs/experiments.md ----------------------------------------------------------------------

EXPERIMENTS = DOCS / "experiments.md"


@pytest.mark.parametrize("script", ["make_experiments.py", "make_serving.py"])
def test_what_is_generated_is_current(script):
    made = subprocess.run(
        [sys.executable, f"docs/{script}", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr


def examples() -> list[dict]:
    return [tomllib.loads(block) for block in fenced(EXPERIMENTS.read_text("utf-8"), "toml")]


def test_experiments_has_its_examples():
    assert [tree["name"] for tree in examples()] == [
        "gru-columns",
        "rows-and-columns",
        "row-by-row",
        "permuted-gru",
        "rows-or-columns",
    ]


@pytest.mark.parametrize("tree", examples(), ids=lambda tree: tree["name"])
def test_an_example_is_a_network_of_mnists_pictures(tree):
    whole = Study.model_validate(tree) if "experiments" in tree else None
    for one in whole.experiments if whole else [Experiment.model_validate(tree)]:
        assert Network(one, (28, 28), 10).count > 0


@pytest.mark.parametrize("override", re.findall(r"--set (\S+)", EXPERIMENTS.read_text("utf-8")))
def test_an_override_of_the_page_changes_something(override):
    first = Experiment.model_validate(examples()[0])
    assert as_tree(first.with_overrides([override])) != as_tree(first)

"""What every test may use: a machine without network, an empty home, real MNIST where it is."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest

from rowwise import cli, data

DIGITS = ("--dataset", "digits", "--threads", "1")
TINY = """
name = "tiny"
epochs = 2
batch = 64
optimizer = { kind = "adam", learning_rate = 0.01 }
layers = ["batch_norm", { kind = "lstm", units = 8 }]
"""
MNIST = os.environ.get("ROWWISE_DATA", "").strip()  # before a test takes it away


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Refuse every connection that would leave this machine."""
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, _only_local(getattr(socket.socket, name)))


def _only_local(connect):
    def connect_locally(self, address):
        local = self.family == getattr(socket, "AF_UNIX", None) or address[0] in (
            "127.0.0.1",
            "localhost",
            "::1",
        )
        # No OSError: what downloads takes one for a mirror that is away, and asks the next.
        assert local, f"tests use no network, got a connection to {address}"
        return connect(self, address)

    return connect_locally


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty home and working folder: nothing that this machine holds is seen."""
    place = tmp_path / "home"
    (place / "work").mkdir(parents=True)
    monkeypatch.chdir(place / "work")
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setenv("ROWWISE_CACHE", str(place / "cache"))
    for name in ("ROWWISE_DATA", "KERAS_HOME", "TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return place


@pytest.fixture(scope="session")
def mnist() -> data.Dataset:
    """The real MNIST; a test that needs it is skipped where ROWWISE_DATA names none."""
    if not MNIST:
        pytest.skip("needs the real MNIST: ROWWISE_DATA names no copy")
    return data.load("mnist", path=Path(MNIST))


class Answer(NamedTuple):
    """What a command said, and how it left."""

    code: int
    out: str
    err: str


@pytest.fixture
def rowwise(home, capsys) -> Callable[..., Answer]:
    """Call the command line in this process, in an empty home."""

    def call(*arguments: object) -> Answer:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main([str(argument) for argument in arguments])
        return Answer(left.value.code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A folder with two trained runs, tiny-s0 and tiny-s1, and tiny.toml; copy it to change it."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.toml").write_text(TINY)
    for seed in (0, 1):
        train(folder / "tiny.toml", *DIGITS, "--set", f"seed={seed}", "--out", folder / "runs")
    return folder


def train(*arguments: object) -> None:
    """Train in this process, for a fixture that is kept longer than a test."""
    given = ["train", *map(str, arguments), "--quiet"]
    with redirect_stdout(io.StringIO()), pytest.raises(SystemExit) as left:
        cli.main(given)
    assert left.value.code == 0

"""What every test may use: a machine without network, an empty home, real MNIST where it is."""

from __future__ import annotations

import io
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import hypothesis
import numpy as np
import pytest
from made_data import empty_machine

from rowwise import cli, data, environment

pytest_plugins = ["page_fixtures"]

DIGITS = ("--dataset", "digits", "--threads", "1")
TINY = """
name = "tiny"
epochs = 2
batch = 64
optimizer = { kind = "adam", learning_rate = 0.01 }
layers = ["batch_norm", { kind = "lstm", units = 8 }]
"""
MNIST = os.environ.get("ROWWISE_DATA", "").strip()  # before a test takes it away

# A test gives its number of examples, the profile the rest.
hypothesis.settings.register_profile("repeat", deadline=None, derandomize=True, database=None)
hypothesis.settings.register_profile("explore", deadline=None, print_blob=True)


def pytest_configure(config: pytest.Config) -> None:
    """The long tests draw other examples each time, all others the same ones."""
    if config.getoption("--hypothesis-profile", None) is None:
        long = config.getoption("-m") == "slow"
        hypothesis.settings.load_profile("explore" if long else "repeat")


@pytest.fixture(autouse=True, scope="session")
def no_waiting() -> Iterator[None]:
    """Files do not wait for the disk; what never changes is looked up or computed once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        patch.setattr(environment, "_version", cache(environment._version))
        patch.setattr(np.polynomial.legendre, "leggauss", cache(np.polynomial.legendre.leggauss))
        yield


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


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One thread of PyTorch: tensors as small as here are slower on several."""
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'rowwise[torch]'")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def keras() -> Iterator[ModuleType]:
    """Keras in float64."""
    from keras_twin import keras_in

    with keras_in("float64") as module:
        yield module


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


@pytest.fixture
def tiny(home) -> Path:
    """tiny.toml in the working folder, a network that trains in a second."""
    (home / "work/tiny.toml").write_text(TINY)
    return Path("tiny.toml")


@pytest.fixture
def work(home, trained, tmp_path, monkeypatch) -> Path:
    """The working folder of a machine without data, where two runs were trained."""
    place = empty_machine(tmp_path / "bare", monkeypatch) / "work"
    shutil.copytree(trained, place, dirs_exist_ok=True)
    return place


def train(*arguments: object) -> None:
    """Train in this process, for a fixture that is kept longer than a test."""
    given = ["train", *map(str, arguments), "--quiet"]
    with redirect_stdout(io.StringIO()), pytest.raises(SystemExit) as left:
        cli.main(given)
    assert left.value.code == 0

"""The door to the engines: which one is chosen, and why another cannot serve."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rowwise import engines
from rowwise.config import Experiment, Recurrent
from rowwise.errors import EngineError
from rowwise.network import Network

NETWORK = Network(
    Experiment(name="small", layers=(Recurrent(kind="lstm", units=3),)), shape=(4, 3), classes=5
)
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="needs PyTorch: pip install 'rowwise[torch]'"
)


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else found(name)
    )


def test_auto_reads_with_the_plain_engine() -> None:
    choice = engines.choose("auto", NETWORK, training=False)
    assert choice.name == "plain"
    assert choice.why == "the first in auto's order that can read this network"


@needs_torch
def test_auto_trains_with_torch() -> None:
    choice = engines.choose("auto", NETWORK, training=True)
    assert choice.name == "torch"
    assert choice.why == "the first in auto's order that can train this network"


@pytest.mark.usefixtures("without_torch")
def test_auto_without_torch_reads_but_says_why_it_cannot_train() -> None:
    assert engines.choose("auto", NETWORK, training=False).name == "plain"
    with pytest.raises(EngineError, match=r"no engine can train small: .*pip install") as error:
        engines.choose("auto", NETWORK, training=True)
    assert "torch cannot: PyTorch is not installed" in str(error.value)


@pytest.mark.usefixtures("without_torch")
@pytest.mark.parametrize("training", [False, True])
def test_a_named_engine_that_is_not_installed_is_an_error(training: bool) -> None:
    with pytest.raises(EngineError, match=r"the engine torch cannot .* PyTorch is not installed"):
        engines.choose("torch", NETWORK, training=training)


def test_auto_passes_over_what_cannot_serve_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "READING_ORDER", ("torch", "plain"))
    monkeypatch.setattr(engines, "missing", lambda name: "gone" if name == "torch" else None)
    choice = engines.choose("auto", NETWORK, training=False)
    assert choice.name == "plain"
    assert choice.why.endswith("; torch cannot: gone")


@pytest.mark.parametrize(
    ("name", "training"),
    [
        ("plain", False),
        pytest.param("torch", False, marks=needs_torch),
        pytest.param("torch", True, marks=needs_torch),
    ],
)
def test_a_named_engine_is_taken_as_asked(name: str, training: bool) -> None:
    assert engines.choose(name, NETWORK, training=training) == (name, "asked for")
    assert engines.engine(name).name == name


def test_the_plain_engine_does_not_train() -> None:
    with pytest.raises(EngineError, match=r"the engine plain cannot train small: .*does not train"):
        engines.choose("plain", NETWORK, training=True)


@pytest.mark.parametrize("name", ["", "Plain", "tensorflow", "../plain", "_module"])
@pytest.mark.parametrize("training", [False, True])
def test_an_unknown_engine_is_refused_with_the_names_there_are(name: str, training: bool) -> None:
    with pytest.raises(EngineError, match="one of auto, plain, torch, got") as error:
        engines.choose(name, NETWORK, training=training)
    assert repr(name) in str(error.value)


def test_every_engine_is_a_module_that_keeps_the_protocol() -> None:
    for name in engines.ENGINES:
        if engines.missing(name) is None:
            module = engines.engine(name)
            assert module.name == name
            assert callable(module.why_not)
            assert callable(module.predict)
    assert set(engines.TRAINING_ORDER) <= set(engines.ENGINES)
    assert set(engines.READING_ORDER) <= set(engines.ENGINES)


def test_choosing_and_reading_with_plain_loads_no_torch() -> None:
    code = (
        "import sys; from rowwise import engines; from test_engines import NETWORK; "
        "engines.engine(engines.choose('auto', NETWORK, training=False).name); "
        "print('torch' in sys.modules)"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_cores_are_counted_once_and_within_this_process_affinity() -> None:
    cores = engines.usable_cores()
    assert 1 <= cores <= (os.cpu_count() or 1)

"""The door to the engines: which one is chosen, and why another cannot serve."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rowwise import core, engines
from rowwise.config import Experiment, Recurrent, shipped_studies
from rowwise.errors import EngineError
from rowwise.network import Network

NETWORK = Network(
    Experiment(name="small", layers=(Recurrent(kind="lstm", units=3),)), shape=(4, 3), classes=5
)
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="needs PyTorch: pip install 'rowwise[torch]'"
)


needs_native = pytest.mark.skipif(
    core.why_not() is not None, reason=f"needs the native engine: {core.why_not()}"
)


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else found(name)
    )


@pytest.fixture
def without_native(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As an installation without a compiler leaves it."""
    record = {"compiler": None, "paths": dict.fromkeys(core.PATHS, "no C++ compiler was found")}
    (tmp_path / core.RECORD).write_text(json.dumps(record))
    monkeypatch.setattr(core, "FOLDER", tmp_path)


@needs_native
@pytest.mark.parametrize(("training", "task"), [(False, "read"), (True, "train")])
def test_auto_takes_the_native_engine(training: bool, task: str) -> None:
    choice = engines.choose("auto", NETWORK, training=training)
    assert choice.name == "native"
    assert choice.why == f"the first in auto's order that can {task} this network"


@pytest.mark.usefixtures("without_native")
@pytest.mark.parametrize(
    ("training", "name"), [(False, "plain"), pytest.param(True, "torch", marks=needs_torch)]
)
def test_auto_without_the_native_engine_takes_the_next_and_says_why(
    training: bool, name: str
) -> None:
    choice = engines.choose("auto", NETWORK, training=training)
    assert choice.name == name
    _, _, why = choice.why.partition("; ")
    assert why.startswith("native cannot: it was not built: no C++ compiler was found; with a comp")


@pytest.mark.usefixtures("without_native", "without_torch")
def test_auto_without_an_engine_that_trains_says_what_each_of_them_lacks() -> None:
    assert engines.choose("auto", NETWORK, training=False).name == "plain"
    with pytest.raises(EngineError, match=r"no engine can train small: .*pip install") as error:
        engines.choose("auto", NETWORK, training=True)
    assert "native cannot: it was not built: no C++ compiler was found" in str(error.value)
    assert "torch cannot: PyTorch is not installed" in str(error.value)


@pytest.mark.usefixtures("without_torch", "without_native")
@pytest.mark.parametrize(
    ("name", "reason"),
    [("torch", "PyTorch is not installed"), ("native", "it was not built: no C.. compiler was")],
)
@pytest.mark.parametrize("training", [False, True])
def test_a_named_engine_that_is_not_installed_is_an_error(
    name: str, reason: str, training: bool
) -> None:
    with pytest.raises(EngineError, match=rf"the engine {name} cannot .* small: {reason}"):
        engines.choose(name, NETWORK, training=training)


@needs_native
def test_a_path_forced_in_vain_is_an_error_and_not_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who asks for a path would not want to be given another engine."""
    monkeypatch.setenv(core.FORCED, "fastest")
    for training in (False, True):
        with pytest.raises(EngineError, match=r"a processor path is one of .*ROWWISE_ISA=fastest"):
            engines.choose("auto", NETWORK, training=training)
    images = np.zeros((1, 4, 3), np.float32)
    with pytest.raises(EngineError, match=r"a processor path is one of .*ROWWISE_ISA=fastest"):
        engines.engine("native").predict(NETWORK, NETWORK.initialise(seed=0), images)


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
        pytest.param("native", False, marks=needs_native),
        pytest.param("native", True, marks=needs_native),
        pytest.param("torch", False, marks=needs_torch),
        pytest.param("torch", True, marks=needs_torch),
    ],
)
def test_a_named_engine_is_taken_as_asked(name: str, training: bool) -> None:
    choice = engines.choose(name, NETWORK, training=training)
    assert (choice.name, choice.why, choice.precision) == (name, "asked for", "float32")
    assert engines.engine(name).name == name


def test_the_plain_engine_does_not_train() -> None:
    with pytest.raises(EngineError, match=r"the engine plain cannot train small: .*does not train"):
        engines.choose("plain", NETWORK, training=True)


@pytest.mark.parametrize("name", ["", "Plain", "tensorflow", "../plain", "_module"])
@pytest.mark.parametrize("training", [False, True])
def test_an_unknown_engine_is_refused_with_the_names_there_are(name: str, training: bool) -> None:
    with pytest.raises(EngineError, match="one of auto, native, plain, torch, got") as error:
        engines.choose(name, NETWORK, training=training)
    assert repr(name) in str(error.value)


def test_every_engine_is_a_module_that_keeps_the_protocol() -> None:
    for name in engines.ENGINES:
        if engines.missing(name) is None:
            module = engines.engine(name)
            assert module.name == name
            assert callable(module.why_not)
            assert callable(module.predict)
            assert set(module.precisions) <= set(engines.PRECISIONS)
            assert bool(module.precisions) == hasattr(module, "Trainer")
            assert module.path() in ("", *core.PATHS)
    assert set(engines.TRAINING_ORDER) <= set(engines.ENGINES)
    assert set(engines.READING_ORDER) <= set(engines.ENGINES)


def of_kind(kind: str, activation: str, *, steps: int, units: int = 3) -> Network:
    layer = Recurrent(kind=kind, units=units, activation=activation)
    return Network(Experiment(name="one", layers=(layer,)), shape=(steps, 3), classes=5)


@needs_native
def test_auto_takes_bfloat16_only_where_it_is_quicker_and_shown_harmless(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engines, "SHOWN_HARMLESS", frozenset({("gru", "tanh", 3)}))
    shown, other = of_kind("gru", "tanh", steps=28), of_kind("lstm", "tanh", steps=28)
    unshown = (
        of_kind("gru", "relu", steps=28),
        of_kind("gru", "tanh", steps=29),
        of_kind("gru", "tanh", steps=28, units=2),
        of_kind("gru", "tanh", steps=28, units=4),
    )

    def precision(network: Network, asked: str = "auto", name: str = "native") -> str:
        return engines.choose(name, network, training=True, precision=asked).precision

    monkeypatch.setattr(core, "is_quick_in_bfloat16", lambda path: False)
    assert precision(shown) == "float32"
    monkeypatch.setattr(core, "is_quick_in_bfloat16", lambda path: True)
    assert precision(shown) == "bfloat16"
    assert {precision(one) for one in unshown} == {"float32"}
    assert engines.choose("native", shown, training=True).why == (
        "asked for; bfloat16 is shown harmless for gru of 3 units with tanh"
    )
    assert precision(shown, "float32") == "float32"
    assert precision(other, "bfloat16") == "bfloat16"
    assert engines.choose("native", shown, training=False).precision == "float32"


@needs_torch
def test_the_torch_engine_trains_in_float32_whatever_the_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(core, "is_quick_in_bfloat16", lambda path: True)
    shown = of_kind("simple_rnn", "relu", steps=28, units=128)
    assert engines.choose("torch", shown, training=True).precision == "float32"
    with pytest.raises(EngineError, match=r"trains in float32 alone; take --engine native for bfl"):
        engines.choose("torch", shown, training=True, precision="bfloat16")


def test_what_is_called_harmless_is_what_the_equivalence_test_showed() -> None:
    """The results are written by benchmarks/equivalence.py; a cell needs a network that passed."""
    file = Path(__file__).parents[1] / "benchmarks" / "results" / "equivalence.json"
    found = json.loads(file.read_text("utf-8"))["networks"]
    study = {one.name: one for one in shipped_studies()["classic"].experiments}
    shown = {
        (layer.kind, layer.activation, layer.units)
        for name, network in found.items()
        if network.get("result", {}).get("equivalent")
        for layer in study[name].layers
        if isinstance(layer, Recurrent)
    }
    assert shown == engines.SHOWN_HARMLESS


def test_choosing_what_reads_loads_no_torch() -> None:
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


# A file of a machine's control groups -> its content; the cores that they allow, of 64.
QUOTAS = {
    "none": ({}, 64),
    "v2": ({"proc/self/cgroup": "0::/box\n", "sys/fs/cgroup/box/cpu.max": "250000 100000\n"}, 3),
    "v2, without a limit": (
        {"proc/self/cgroup": "0::/box\n", "sys/fs/cgroup/box/cpu.max": "max 100000\n"},
        64,
    ),
    "v2, of a group above": (
        {
            "proc/self/cgroup": "0::/pod/box\n",
            "sys/fs/cgroup/pod/cpu.max": "200000 100000\n",
            "sys/fs/cgroup/pod/box/cpu.max": "max 100000\n",
        },
        2,
    ),
    "v2, inside a container": (
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"},
        1,
    ),
    "v2, more than there are": (
        {"proc/self/cgroup": "0::/box\n", "sys/fs/cgroup/box/cpu.max": "9900000 100000\n"},
        64,
    ),
    "v1": (
        {
            "proc/self/cgroup": "5:memory:/box\n4:cpu,cpuacct:/box\n",
            "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "400000\n",
            "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
        },
        4,
    ),
    "v1, inside a container, which sees the outer name": (
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/docker/1234\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
        2,
    ),
    "v1, without a limit": (
        {
            "proc/self/cgroup": "4:cpu:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
        64,
    ),
    "nonsense": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "much\n"}, 64),
}


@pytest.mark.parametrize("name", QUOTAS)
def test_a_control_groups_quota_limits_the_cores(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents, cores = QUOTAS[name]
    for place, text in contents.items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(text)
    monkeypatch.setattr(engines, "SYSTEM", tmp_path)
    monkeypatch.setattr(engines, "_cores_by_affinity", lambda: 64)
    assert engines.usable_cores() == cores

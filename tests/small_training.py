"""Trainings of a fraction of a second, and what it means that two of them gave the same."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_study
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from rowwise import engines, runs, session
from rowwise.config import Experiment
from rowwise.events import Event
from rowwise.result import Result
from rowwise.runs import EpochMetrics
from rowwise.train import fit

DATA = made_study.dataset(shape=(6, 5), train=150, test=130, seed=3)
OTHER_DATA = made_study.dataset(shape=(6, 5), train=150, test=130, seed=4)
LAYERS = (
    {"kind": "batch_norm"},
    {"kind": "lstm", "units": 6},
    {"kind": "dropout", "rate": 0.2},
    {"kind": "dense", "units": 5, "activation": "tanh"},
)


# What `auto` trains and reads with on this machine, or None.
TRAINS, READS = (
    next((name for name in order if engines.missing(name) is None), None)
    for order in (engines.TRAINING_ORDER, engines.READING_ORDER)
)


def trainer_or_skip() -> None:
    """Skip all tests of a file where no engine trains."""
    if TRAINS is None:
        reasons = "; ".join(str(engines.missing(name)) for name in engines.TRAINING_ORDER)
        pytest.skip(f"needs an engine that trains: {reasons}", allow_module_level=True)


def torch_or_skip() -> None:
    """Skip a test, or all tests of a file, of what the torch engine does."""
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'rowwise[torch]'")


def engine_or_skip(name: str) -> None:
    """Skip a test of an engine that this machine lacks, with the engine's own reason."""
    if (reason := engines.missing(name)) is not None:
        pytest.skip(f"needs the engine {name}: {reason}")


def experiment(name: str = "small", **settings: Any) -> Experiment:
    """A small network, and how it is trained: six steps an epoch, the last one partial."""
    return Experiment.model_validate(
        {"name": name, "layers": LAYERS, "batch": 28, "epochs": 3, **settings}
    )


def train(chosen: Experiment, **options: Any) -> Result:
    """`fit` on the made data with one thread."""
    return fit(chosen, options.pop("data", DATA), threads=options.pop("threads", 1), **options)


def one_step_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a training ask after every step whether to stop."""
    monkeypatch.setattr(session, "CALL_S", 0.0)


def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a training ask after every 40 pictures that it evaluates whether to stop."""
    monkeypatch.setattr(session, "SLICE", 40)


class StopAt:
    """A callback and a `stop` that says True once its rule holds for the latest event."""

    def __init__(self, rule: Callable[[Event], bool]) -> None:
        self.rule = rule
        self.latest: Event | None = None

    def __call__(self, event: Event) -> None:
        self.latest = event

    def stop(self) -> bool:
        return self.latest is not None and self.rule(self.latest)


class StopAfter:
    """A `stop` that says True at its n-th question, and from then on."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


def timeless(metrics: tuple[EpochMetrics, ...]) -> list[dict[str, Any]]:
    """Metrics without what differs between two equal trainings: the time they took."""
    return [row._replace(train_s=0.0, val_s=0.0)._asdict() for row in metrics]


def assert_same(one: Result, other: Result) -> None:
    """Assert that two trainings gave the same, to the last bit."""
    assert timeless(one.metrics) == timeless(other.metrics)
    assert one.weights.keys() == other.weights.keys()
    for name, value in one.weights.items():
        assert value.dtype == other.weights[name].dtype == np.float32
        assert value.tobytes() == other.weights[name].tobytes(), name
    assert (one.probabilities is None) == (other.probabilities is None)
    if one.probabilities is not None and other.probabilities is not None:
        assert one.probabilities.tobytes() == other.probabilities.tobytes()
    mine = (one.status, one.sentence, one.test_loss, one.test_accuracy, one.engine)
    assert mine == (
        other.status,
        other.sentence,
        other.test_loss,
        other.test_accuracy,
        other.engine,
    )


def assert_same_run(one: Path, other: Path) -> None:
    """Assert that two run folders hold the same, but for times and machines."""
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    for name in (runs.EXPERIMENT, runs.PREDICTIONS):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    first, second = runs.Run.open(one), runs.Run.open(other)
    assert timeless(first.metrics) == timeless(second.metrics)
    weights = second.weights()
    for key, value in first.weights().items():
        assert value.tobytes() == weights[key].tobytes(), key
    own = {"started": "", "updated": "", "timings": runs.Timings(), "resumed": 0}
    assert first.record.model_copy(update=own) == second.record.model_copy(update=own)


def assert_whole(folder: Path) -> int:
    """Assert that every file under its final name can be read to its end; return how many."""
    count = 0
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or path.name == runs.LOCK or path.name.endswith(".part"):
            continue
        count += 1
        match path.suffix:
            case ".json":
                assert isinstance(json.loads(path.read_text("utf-8")), dict), path
            case ".jsonl":
                for line in path.read_text("utf-8").splitlines():
                    assert json.loads(line).keys() == set(EpochMetrics._fields), path
            case ".csv":
                text = path.read_text("utf-8")
                assert text.endswith("\n"), path
                assert len({len(row) for row in csv.reader(text.splitlines())}) == 1, path
            case ".safetensors":
                with safetensors.safe_open(path, framework="numpy") as file:
                    assert all(np.isfinite(file.get_tensor(key)).all() for key in file.keys())  # noqa: SIM118
            case ".npz":
                with np.load(path, allow_pickle=False) as arrays:
                    assert all(arrays[key].size for key in arrays.files), path
            case _:
                pytest.fail(f"a file of an unknown kind: {path}")
    return count

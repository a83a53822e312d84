"""The only door to the engines: which there are, which can serve, and which one `auto` takes."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from rowwise.errors import EngineError
from rowwise.network import Network

Array = NDArray[Any]
EngineName = Literal["auto", "plain", "torch"]

# In the order in which `auto` asks them.
TRAINING_ORDER = ("torch",)
READING_ORDER = ("plain",)
ENGINES = ("plain", "torch")


class Trainer(Protocol):
    """What trains: bound to a network and a set of pictures, it moves the weights."""

    def run(
        self, order: NDArray[np.int64], *, batch: int, first_step: int, rates: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Train on `order`'s pictures; for each step the summed loss and the right answers."""
        ...

    def evaluate(self, images: Array, labels: NDArray[np.int64]) -> tuple[float, int]:
        """The loss summed over these pictures, and the right answers, without dropout."""
        ...

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """A copy of the network's weights."""
        ...

    def state(self) -> dict[str, Array]:
        """Weights and optimiser slots, enough to go on to bit-identical results."""
        ...


class Engine(Protocol):
    """A module that runs networks; those that train also have `Trainer`."""

    name: str

    def why_not(self, network: Network, *, training: bool) -> str | None:
        """Why this engine cannot serve, or None where it can."""
        ...

    def predict(
        self,
        network: Network,
        weights: Mapping[str, Array],
        images: Array,
        *,
        batch: int = 500,
        threads: int | None = None,
    ) -> NDArray[np.float32]:
        """Probabilities [N, C] float32 for images [N, rows, columns]."""
        ...


class TrainingEngine(Engine, Protocol):
    """An engine that trains."""

    def Trainer(
        self,
        network: Network,
        state: Mapping[str, Array],
        images: Array,
        labels: NDArray[np.int64],
        *,
        seed: int,
        threads: int | None = None,
    ) -> Trainer:
        """A trainer for `network` that goes on from `state`."""
        ...


class Choice(NamedTuple):
    """An engine's name, and in a phrase why it was taken."""

    name: str
    why: str


def missing(name: str) -> str | None:
    """Why an engine is not on this machine at all, or None where it is."""
    if name == "torch" and importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed (pip install 'rowwise[torch]')"
    return None


def why_not(name: str, network: Network, *, training: bool) -> str | None:
    """Why engine `name` cannot train or read this network here, or None where it can."""
    if name not in ENGINES:
        raise EngineError(f"an engine is one of auto, {', '.join(ENGINES)}, got {name!r}")
    return missing(name) or _module(name).why_not(network, training=training)


def choose(name: str, network: Network, *, training: bool) -> Choice:
    """Resolve `name`, which may be "auto".

    Raises EngineError with the reason where the named engine, or every engine, cannot serve.
    """
    task = "train" if training else "read"
    if name != "auto":
        reason = why_not(name, network, training=training)
        if reason is not None:
            raise EngineError(
                f"the engine {name} cannot {task} {network.experiment.name}: {reason}"
            )
        return Choice(name, "asked for")
    passed: list[str] = []
    for candidate in TRAINING_ORDER if training else READING_ORDER:
        reason = why_not(candidate, network, training=training)
        if reason is None:
            first = f"the first in auto's order that can {task} this network"
            return Choice(candidate, "; ".join([first, *passed]))
        passed.append(f"{candidate} cannot: {reason}")
    raise EngineError(f"no engine can {task} {network.experiment.name}: {'; '.join(passed)}")


def engine(name: str) -> Engine:
    """The engine of that name, as `choose` resolved it."""
    return _module(name)


def training_engine(name: str) -> TrainingEngine:
    """The engine of that name, as `choose` resolved it for training."""
    return cast(TrainingEngine, _module(name))


def usable_cores() -> int:
    """The physical cores that this process may use: its affinity, hyper-threads counted once."""
    logical = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if logical is None:
        return os.cpu_count() or 1
    siblings = set()
    for cpu in logical:
        listing = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        siblings.add(listing.read_text().strip() if listing.exists() else str(cpu))
    return max(1, len(siblings))


def _module(name: str) -> Engine:
    return cast(Engine, importlib.import_module(f"rowwise.engines.{name}"))

"""The only door to the engines: which there are, which can serve, and which one `auto` takes."""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from rowwise import config, core
from rowwise.errors import EngineError
from rowwise.network import Network

Array = NDArray[Any]
EngineName = Literal["auto", "native", "plain", "torch"]
Precision = Literal["float32", "bfloat16"]

SYSTEM = Path("/")  # where the kernel's own files are

# In the order in which `auto` asks them.
TRAINING_ORDER = ("native", "torch")
READING_ORDER = ("native", "plain")
ENGINES = ("native", "plain", "torch")
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")

# The cells, activations and units for which training in bfloat16 was shown equivalent to float32,
# and up to how many time steps (docs/statistics.md; benchmarks/equivalence.py shows it again).
SHOWN_HARMLESS = frozenset(
    {("simple_rnn", "relu", 128), ("simple_rnn", "tanh", 128), ("lstm", "tanh", 128)}
)
SHOWN_STEPS = 28


class Given(NamedTuple):
    """Pictures to train on in the place of those of the set.

    images [N, rows, columns] as those of the set; labels int64 [N], -1 for a picture of no class,
    whose target is 1/C for each class, and no answer to which counts as right.
    """

    images: Array
    labels: NDArray[np.int64]


class Trainer(Protocol):
    """What trains: bound to a network and a set of pictures, it moves the weights."""

    def run(
        self,
        order: NDArray[np.int64],
        *,
        batch: int,
        first_step: int,
        rates: NDArray[np.float64],
        given: Given | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Train on `order`'s pictures; for each step the summed loss and the right answers.

        `given` stand in for them, one for each.
        """
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
    precisions: tuple[Precision, ...]  # in which it trains; none where it does not

    def why_not(self, network: Network, *, training: bool) -> str | None:
        """Why this engine cannot serve, or None where it can."""
        ...

    def path(self) -> str:
        """The core's processor path that it takes on this machine, "" where it takes none."""
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

    def beliefs(
        self,
        network: Network,
        weights: Mapping[str, Array],
        images: Array,
        *,
        batch: int = 500,
        threads: int | None = None,
    ) -> NDArray[np.float32]:
        """Probabilities [N, T, C] after each step of `Network.steps`; the last are `predict`'s."""
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
        precision: Precision = "float32",
        path: str | None = None,
    ) -> Trainer:
        """A trainer for `network` that goes on from `state`, on one of the core's paths."""
        ...


class Reader(Protocol):
    """A network with its weights, made ready once to read pictures many times."""

    def predict(self, images: Array, *, batch: int = 500) -> NDArray[np.float32]:
        """Probabilities [N, C] float32 for images [N, rows, columns]."""
        ...

    def beliefs(self, images: Array, *, batch: int = 500) -> NDArray[np.float32]:
        """Probabilities [N, T, C] after each step of `Network.steps`."""
        ...


class Choice(NamedTuple):
    """An engine's name, and in a phrase why it was taken.

    `precision` is that of the products while training; `path` is the native core's processor path,
    since another one rounds otherwise, and empty where the core takes no part.
    """

    name: str
    why: str
    precision: Precision = "float32"
    path: str = ""


def missing(name: str) -> str | None:
    """Why an engine is not on this machine at all, or None where it is."""
    if name == "torch" and importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed (pip install 'rowwise[torch]')"
    return core.why_not() if name == "native" else None


def why_not(name: str, network: Network, *, training: bool) -> str | None:
    """Why engine `name` cannot train or read this network here, or None where it can."""
    if name not in ENGINES:
        raise EngineError(f"an engine is one of auto, {', '.join(ENGINES)}, got {name!r}")
    return missing(name) or _module(name).why_not(network, training=training)


def choose(name: str, network: Network, *, training: bool, precision: str = "auto") -> Choice:
    """Resolve `name` and `precision`, each of which may be "auto".

    Raises EngineError with the reason where the named engine, or every engine, cannot serve.
    """
    if precision not in ("auto", *PRECISIONS):
        raise EngineError(f"a precision is one of auto, {', '.join(PRECISIONS)}, got {precision!r}")
    choice = _choose_engine(name, network, training=training)
    chosen = engine(choice.name)
    choice = choice._replace(path=chosen.path())
    return _choose_precision(choice, chosen, network, precision) if training else choice


def _choose_precision(choice: Choice, chosen: Engine, network: Network, precision: str) -> Choice:
    """What was asked for; for "auto", bfloat16 where it is both quicker and shown harmless."""
    if precision == "auto":
        if "bfloat16" in chosen.precisions and core.is_quick_in_bfloat16(choice.path):
            shown = harmless_in_bfloat16(network)
            if shown:
                why = f"{choice.why}; bfloat16 is shown harmless for {shown}"
                return choice._replace(precision="bfloat16", why=why)
        return choice
    if precision not in chosen.precisions:
        raise EngineError(
            f"the engine {choice.name} trains in {' and '.join(chosen.precisions)} alone; "
            f"take --engine native for {precision}"
        )
    return choice._replace(precision=precision)


def harmless_in_bfloat16(network: Network) -> str:
    """What of a network makes bfloat16 harmless, in a phrase, or "" where that is not shown.

    Shown by `benchmarks/equivalence.py` for networks whose recurrent layers are all of one of the
    kinds and widths in SHOWN_HARMLESS, at that many time steps or fewer. A narrower layer has less
    to average its errors over, a wider one has longer sums: neither is shown by the other.
    """
    layers = [
        (node.layer, node.input_shapes[0][0])
        for node in network.nodes
        if isinstance(node.layer, config.Recurrent)
    ]
    kinds = {(layer.kind, layer.activation, layer.units) for layer, _ in layers}
    if not kinds or not kinds <= SHOWN_HARMLESS or max(n for _, n in layers) > SHOWN_STEPS:
        return ""
    named = (f"{kind} of {units} units with {how}" for kind, how, units in sorted(kinds))
    return " and ".join(named)


def _choose_engine(name: str, network: Network, *, training: bool) -> Choice:
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


def trainer(
    choice: Choice,
    network: Network,
    state: Mapping[str, Array],
    images: Array,
    labels: NDArray[np.int64],
    *,
    seed: int,
    threads: int,
) -> Trainer:
    """A trainer of the engine, precision and processor path that `choose` resolved."""
    return training_engine(choice.name).Trainer(
        network,
        state,
        images,
        labels,
        seed=seed,
        threads=threads,
        precision=choice.precision,
        path=choice.path,
    )


def reader(
    name: str, network: Network, weights: Mapping[str, Array], *, threads: int | None = None
) -> Reader:
    """A reader of the engine `name`, as `choose` resolved it for reading."""
    return cast(Reader, _module(name).Reader(network, weights, threads=threads))  # type: ignore[attr-defined]


def slot_names(optimizer: config.Optimizer) -> tuple[str, ...]:
    """The names of an optimiser's slots: an array beside each trainable parameter for each."""
    match optimizer:
        case config.Adam() | config.AdamW():
            return ("momentum", "velocity")
        case config.RMSprop(momentum=momentum):
            return ("velocity", "momentum") if momentum else ("velocity",)
        case config.SGD(momentum=momentum):
            return ("momentum",) if momentum else ()


def usable_cores() -> int:
    """The physical cores that this process may use: its affinity, hyper-threads counted once.

    A container's share of processor time (the quota of its control group) counts like cores,
    rounded up.
    """
    cores = _cores_by_affinity()
    quota = _quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def _cores_by_affinity() -> int:
    logical = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if logical is None:
        return os.cpu_count() or 1
    siblings = set()
    for cpu in logical:
        listing = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        siblings.add(listing.read_text().strip() if listing.exists() else str(cpu))
    return max(1, len(siblings))


def _quota() -> float | None:
    """Cores' worth of processor time that the control groups of this process allow, or None.

    Each group above limits it too. Inside a container the process' own group is often the root.
    """
    try:
        lines = (SYSTEM / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # a system without control groups
        return None
    allowed: list[float] = []
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = SYSTEM / "sys/fs/cgroup" / ("cpu" if controllers else "")
        own = root / place.lstrip("/")
        for group in (own, *own.parents):
            if group == root or root in group.parents:
                allowed += _quota_of(group)
    return min(allowed, default=None)


def _quota_of(group: Path) -> list[float]:
    """A control group's own quota: version 2 has it in one file, version 1 in two."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        share = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # none, or "max"
        return []
    return [share] if share > 0 else []  # -1 is none


def _module(name: str) -> Engine:
    return cast(Engine, importlib.import_module(f"rowwise.engines.{name}"))

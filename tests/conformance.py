"""What the conformance suite is made of: engines, networks, asymmetric weights, tolerances.

An engine joins the suite by one entry in READERS, TRAINERS or both. It is then held to Keras, to
torch.nn and to the equations in float64 (`references.py`) on every network here that it does not
decline through `why_not`; a declined network is skipped with the engine's own reason.

Weights are always random and asymmetric. With constant weights, as in Keras' own test of its GRU,
swapping two gates or transposing the recurrent kernel changes nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from rowwise import config, core, engines
from rowwise.cells import CellKind
from rowwise.config import (
    Branch,
    Columns,
    Dense,
    Dropout,
    Experiment,
    Flatten,
    Patches,
    Permuted,
    Pixels,
    Pool,
    Recurrent,
    Rows,
)
from rowwise.network import Network, Node

Array = NDArray[Any]

# --- who is tested ----------------------------------------------------------------------------


class ReaderEntry(NamedTuple):
    """An engine that reads; the native one on a path of the processor."""

    engine: str
    path: str = ""

    def __str__(self) -> str:
        return "-".join(filter(None, (self.engine, self.path)))


class TrainerEntry(NamedTuple):
    """An engine that trains, and one of the precisions in which it does; as for reading a path."""

    engine: str
    dtype: type
    path: str = ""

    def __str__(self) -> str:
        return "-".join(filter(None, (self.engine, self.path, self.dtype.__name__)))


# Those that can run here; of the others `test_paths.py` says why not.
PATHS = tuple(path for path, obstacle in core.paths().items() if obstacle is None) or ("",)
READERS = (
    *(ReaderEntry("native", path) for path in PATHS),
    ReaderEntry("plain"),
    ReaderEntry("torch"),
)
TRAINERS = (
    *(TrainerEntry("native", np.float32, path) for path in PATHS),
    TrainerEntry("torch", np.float64),
    TrainerEntry("torch", np.float32),
)

# --- how near is equal ------------------------------------------------------------------------
# An error is measured against max(1, |reference|), gradients against their tensor's largest one.

# The bar that the project sets for float32: some ten roundings of 2^-24 on sums of some hundred.
FLOAT32_OUTPUT = 1e-5
# 2^-53 with the same headroom, a thousand times over: only another formula is above it.
FLOAT64_OUTPUT = 1e-12
# Back through time the roundings of both passes meet; the largest seen here is 1.2e-6.
FLOAT32_GRADIENT = 1e-5
# Inputs of ±50 make sums of terms fifty times as large, which cancel: the largest seen is 1.7e-5.
SATURATED_GRADIENT = 10  # times the tolerance of the precision
FLOAT64_GRADIENT = 1e-11
# Ten steps feed errors back, and Adam's m / √v magnifies that of a gradient near zero.
FLOAT64_STEPS = 1e-10
# The bar that the project sets for ten steps of the smooth cells in float32.
FLOAT32_STEPS = 1e-4


class Tolerances(NamedTuple):
    """What a precision promises."""

    output: float
    gradient: float
    steps: float


TOLERANCES: dict[type, Tolerances] = {
    np.float32: Tolerances(FLOAT32_OUTPUT, FLOAT32_GRADIENT, FLOAT32_STEPS),
    np.float64: Tolerances(FLOAT64_OUTPUT, FLOAT64_GRADIENT, FLOAT64_STEPS),
}


def assert_close(got: Array, reference: Array, tolerance: float, what: str) -> None:
    """Every element within tolerance x max(1, |reference|), and finite."""
    assert got.shape == reference.shape, f"{what}: {got.shape} for {reference.shape}"
    assert np.isfinite(got).all(), f"{what}: not finite"
    _within(got, reference, tolerance * np.maximum(1, np.abs(reference)), what)


def assert_gradients_close(
    got: Mapping[str, Array], reference: Mapping[str, Array], tolerance: float
) -> None:
    """Every tensor within tolerance x its own largest gradient.

    A tensor whose gradients are a thousand times smaller than the network's largest is measured
    against a thousandth of that: it was summed from terms of the larger size.
    """
    assert got.keys() == reference.keys()
    largest = max(float(np.abs(value).max()) for value in reference.values())
    assert largest > 0
    for name, value in reference.items():
        scale = max(float(np.abs(value).max()), largest / 1000)
        assert got[name].shape == value.shape, name
        assert np.isfinite(got[name]).all(), name
        _within(got[name], value, np.full(value.shape, tolerance * scale), f"gradient of {name}")


def _within(got: Array, reference: Array, allowed: Array, what: str) -> None:
    share = np.abs(got.astype(np.float64) - reference) / allowed
    if share.size and share.max() > 1:
        worst = np.unravel_index(int(share.argmax()), share.shape)
        raise AssertionError(
            f"{what}: {share.max():.3g} times the tolerance at {[int(i) for i in worst]}, "
            f"{got[worst]!r} for {reference[worst]!r}"
        )


# --- networks, weights, pictures --------------------------------------------------------------


def asymmetric_weights(network: Network, *, seed: int, head: float = 1.0) -> dict[str, Array]:
    """Random weights no two of which are alike; `head` scales the closing layer's kernel."""
    rng = np.random.default_rng(seed)
    last = f"{network.nodes[-1].name}.kernel"
    weights: dict[str, Array] = {}
    for name, p in network.parameters.items():
        match name.rpartition(".")[2]:
            case "kernel":
                value = rng.normal(0, 1.2 / np.sqrt(p.shape[0]), p.shape)
                value *= head if name == last else 1
            case "recurrent_kernel":
                value = rng.normal(0, 0.9 / np.sqrt(p.shape[0]), p.shape)
            case "gamma":
                value = rng.uniform(0.5, 1.5, p.shape)
            case "moving_mean":
                value = rng.uniform(0.2, 0.8, p.shape)
            case "moving_variance":
                value = rng.uniform(0.05, 0.5, p.shape)
            case _:
                value = rng.normal(0, 0.4, p.shape)
        weights[name] = value.astype(np.float32)
    return weights


def as_floats(images: Array) -> NDArray[np.float64]:
    """Pictures as every engine must read them: bytes over 255, floats as they are."""
    return images / 255.0 if images.dtype == np.uint8 else images.astype(np.float64)


def own_weights(node: Node, weights: Mapping[str, Any]) -> dict[str, Any]:
    """A node's weights by their names inside the node."""
    return {p.name.removeprefix(f"{node.name}."): weights[p.name] for p in node.parameters}


def directions(layer: Recurrent, mine: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A recurrent layer's weights, one dict a direction."""
    if not layer.bidirectional:
        return [dict(mine)]
    return [
        {k.removeprefix(way): v for k, v in mine.items() if k.startswith(way)}
        for way in ("forward.", "backward.")
    ]


@dataclass(frozen=True, eq=False)
class Case:
    """A network with weights and pictures, all drawn from its name."""

    name: str
    experiment: Experiment
    shape: tuple[int, int] = (5, 3)
    classes: int = 10
    pictures: int = 4
    ink: str = "floats"  # or "bytes", or "saturated": each pixel -50 or 50
    head: float = 1.0

    def __str__(self) -> str:
        return self.name

    @cached_property
    def network(self) -> Network:
        return Network(self.experiment, self.shape, self.classes)

    @cached_property
    def weights(self) -> dict[str, Array]:
        return asymmetric_weights(self.network, seed=self._seed, head=self.head)

    @cached_property
    def images(self) -> Array:
        rng = np.random.default_rng(self._seed + 1)
        size = (self.pictures, *self.shape)
        if self.ink == "bytes":
            return rng.integers(0, 256, size, dtype=np.uint8)
        if self.ink == "saturated":
            return rng.choice(np.array([-50, 50], np.float32), size)
        return rng.random(size, np.float32)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        rng = np.random.default_rng(self._seed + 2)
        return rng.integers(0, self.classes, self.pictures)

    @property
    def smooth(self) -> bool:
        """Whether no relu, whose slope jumps, is anywhere in the network."""
        return "relu" not in self.experiment.model_dump_json()

    def with_settings(self, **changes: Any) -> Case:
        """The same network, weights and pictures with other settings of the experiment."""
        return replace(self, experiment=self.experiment.model_copy(update=changes))

    @property
    def _seed(self) -> int:
        return zlib.crc32(self.name.encode())


def case(name: str, *layers: config.Layer, **settings: Any) -> Case:
    """A case of these layers; settings are those of Case, or else of Experiment."""
    own = {k: settings.pop(k) for k in tuple(settings) if k in Case.__dataclass_fields__}
    return Case(name, Experiment(name="case", layers=layers, **settings), **own)


KINDS: tuple[CellKind, ...] = ("simple_rnn", "lstm", "gru")


def _cells() -> list[Case]:
    """Cell x activation x direction x last state or whole sequence x one layer or two."""
    cases = []
    for kind, activation, both, sequence, stacked in product(
        KINDS, ("tanh", "relu"), (False, True), (False, True), (False, True)
    ):
        how: dict[str, Any] = {"kind": kind, "activation": activation, "bidirectional": both}
        layers: list[config.Layer] = []
        if stacked:
            layers.append(Recurrent(units=4, return_sequences=True, **how))
        layers.append(Recurrent(units=7, return_sequences=sequence, **how))
        if sequence:
            layers.append(Flatten())
        words = [kind, activation, "both-ways" if both else "", "sequence" if sequence else "last"]
        name = "-".join([w for w in words if w] + ["stacked"] * stacked)
        cases.append(case(name, *layers))
    return cases


def _readings() -> list[Case]:
    """Every reading of a picture that is not square, forgetting nothing on the way."""
    readings = {
        "rows": Rows(),
        "columns": Columns(),
        "rows-with-those-before": Rows(before=2),
        "columns-between-others": Columns(before=1, after=3),
        "rows-beyond-the-picture": Rows(before=5, after=4),
        "pixels": Pixels(),
        "permuted": Permuted(seed=3),
        "patches": Patches(height=2, width=3),
        "patch-of-one-row": Patches(height=1, width=6),
        "patch-of-all": Patches(height=4, width=6),
    }
    both = Recurrent(kind="gru", units=5, bidirectional=True, return_sequences=True)
    return [
        case(f"read-{name}", both, Flatten(), shape=(4, 6), reading=reading)
        for name, reading in readings.items()
    ]


def _other_layers() -> list[Case]:
    lstm = Recurrent(kind="lstm", units=7)
    states = lstm.model_copy(update={"return_sequences": True})
    normal = config.BatchNorm()
    cases = [
        case("batch-norm", normal, Flatten()),
        case("batch-norm-settings", config.BatchNorm(momentum=0.8, epsilon=0.05), lstm),
        case("batch-norm-between", normal, states, normal, lstm, normal),
        case("pool-mean", states, Pool(by="mean")),
        case("pool-max", states, Pool(by="max")),
        case("pool-both", states, Pool(by="mean_max"), Dense(units=6, activation="tanh")),
        case("flatten-twice", states, Flatten(), Flatten()),
        case("dropout", states, Dropout(rate=0.4), Flatten(), Dropout(rate=0.0), Dense(units=6)),
        case("dense-on-sequence", Dense(units=6, activation="tanh"), states, Dense(units=4), lstm),
    ]
    for activation in ("linear", "relu", "tanh", "sigmoid"):
        cases.append(case(f"dense-{activation}", lstm, Dense(units=6, activation=activation)))
    return cases


def _branched() -> list[Case]:
    def last(kind: CellKind, units: int, *, both: bool = False) -> Recurrent:
        return Recurrent(kind=kind, units=units, bidirectional=both)

    sequence = Recurrent(kind="gru", units=3, return_sequences=True)
    branches = (
        Branch(reading=Rows(), layers=(config.BatchNorm(), last("lstm", 7, both=True))),
        Branch(reading=Columns(), layers=(last("simple_rnn", 5),)),
        Branch(reading=Patches(height=2, width=3), layers=(sequence, Pool(by="max"))),
        Branch(reading=Rows(), layers=(Flatten(),)),
    )
    head = (config.BatchNorm(), Dense(units=6, activation="tanh"))
    return [
        case("branches", *head, branches=branches, shape=(4, 6)),
        case("branches-without-head", branches=branches[:2], shape=(4, 6)),
    ]


def _replicated() -> list[Case]:
    """Networks that answer after every step."""
    how: dict[str, Any] = {"units": 7, "return_sequences": True}
    both = Recurrent(kind="lstm", bidirectional=True, **how)
    layers = (config.BatchNorm(), Recurrent(kind="gru", **how))
    windows = {"reading": Rows(before=1), "target_replication": 0.3}
    return [
        case("replicated", *layers, **windows),
        case("replicated-alone", both, target_replication=1.0, label_smoothing=0.2),
        case("replicated-dense", *layers, Dense(units=5), target_replication=0.5, shape=(1, 4)),
    ]


def _extremes() -> list[Case]:
    """One picture, one time step, one pixel a step, one unit; bytes; few and many classes."""
    cases = []
    for kind in KINDS:
        one = Recurrent(kind=kind, units=7)
        both = Recurrent(kind=kind, units=7, bidirectional=True)
        cases += [
            case(f"{kind}-one-picture", config.BatchNorm(), both, pictures=1),
            case(f"{kind}-one-step", config.BatchNorm(), both, shape=(1, 3)),
            case(f"{kind}-one-pixel", one, shape=(1, 1), pictures=1),
            case(f"{kind}-one-unit", Recurrent(kind=kind, units=1), shape=(9, 1)),
            case(f"{kind}-long", one, shape=(64, 1)),
            case(f"{kind}-bytes", config.BatchNorm(), one, ink="bytes"),
            case(f"{kind}-two-classes", one, classes=2),
            case(f"{kind}-hundred-classes", one, classes=100),
        ]
        for activation in ("tanh", "relu"):
            loud = Recurrent(kind=kind, units=7, activation=activation, bidirectional=True)
            name = f"{kind}-{activation}-saturated"
            # The small head keeps the logits of relu's large states where a softmax can tell them.
            cases.append(case(name, loud, ink="saturated", head=0.01, pictures=9))
    return cases


# What Keras has no layer of its own for: these are not exported to it.
KERAS_LACKS = frozenset(
    {
        "read-permuted",
        "read-rows-with-those-before",
        "read-columns-between-others",
        "read-rows-beyond-the-picture",
        "pool-both",
        "replicated",
        "replicated-alone",
        "replicated-dense",
    }
)
CELL_CASES = _cells()
CASES = [*CELL_CASES, *_readings(), *_other_layers(), *_branched(), *_replicated(), *_extremes()]
# torch.nn's LSTM and GRU know no relu.
TORCH_CASES = [
    c
    for c in CASES
    if not any(
        isinstance(n.layer, Recurrent)
        and n.layer.kind != "simple_rnn"
        and n.layer.activation == "relu"
        for n in c.network.nodes
    )
]

# --- engines ----------------------------------------------------------------------------------


def last_step(logits: Array) -> Array:
    """The logits [B, C] that a network answers by, of [B, C] or [B, T, C]."""
    return logits if logits.ndim == 2 else logits[:, -1]


def take_path(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the native engine take this path, or the best one where none is named."""
    if path:
        monkeypatch.setenv(core.FORCED, path)


def reader(name: str, network: Network) -> engines.Engine:
    """The engine, or a skip with its own reason where it does not read this network."""
    reason = engines.why_not(name, network, training=False)
    if reason is not None:
        pytest.skip(f"the engine {name} does not read this network: {reason}")
    return engines.engine(name)


def trainer(
    entry: TrainerEntry,
    network: Network,
    state: Mapping[str, Array],
    images: Array,
    labels: NDArray[np.int64],
    *,
    seed: int = 0,
    threads: int | None = None,
) -> engines.Trainer:
    """A trainer, or a skip with the engine's own reason where it does not train this network."""
    reason = engines.why_not(entry.engine, network, training=True)
    if reason is not None:
        pytest.skip(f"the engine {entry.engine} does not train this network: {reason}")
    make = engines.training_engine(entry.engine).Trainer
    # float32 is every engine's own precision; only an engine that is entered with float64 as well
    # needs the argument.
    precision: dict[str, Any] = {} if entry.dtype is np.float32 else {"dtype": entry.dtype}
    return make(network, state, images, labels, seed=seed, threads=threads, **precision)


def gradients(
    entry: TrainerEntry, case: Case, indices: NDArray[np.int64], *, step: int = 0, seed: int = 0
) -> tuple[dict[str, Array], dict[str, Array]]:
    """The mean loss' gradients on these pictures, and the state after the step that shows them.

    One step of SGD with momentum from empty slots at the learning rate 1 leaves -g in its slot,
    so any engine tells its gradients through `run` and `state` alone.
    """
    shown = case.with_settings(optimizer=config.SGD(learning_rate=1.0, momentum=0.5), clipping=None)
    own = trainer(entry, shown.network, case.weights, case.images, case.labels, seed=seed)
    own.run(indices, batch=len(indices), first_step=step, rates=np.ones(1))
    state = own.state()
    prefix = "slots/momentum/"
    slots = {k.removeprefix(prefix): -v for k, v in state.items() if k.startswith(prefix)}
    return slots, state

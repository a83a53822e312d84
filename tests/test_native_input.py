"""What the native engine is given: pictures and numbers anyhow in memory, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conformance import CASES, Array, case
from native_cases import FITTING, READING, assert_same_bits, begin

from rowwise import engines
from rowwise.config import Recurrent
from rowwise.engines import native, native_core, native_layers
from rowwise.errors import EngineError

# --- pictures as they may come ----------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64, np.longdouble])
def test_pictures_may_lie_anyhow_in_memory(dtype: Any) -> None:
    images = READING.images[:40].astype(dtype)
    if dtype is not np.uint8:
        images /= 255
    network, weights, labels = READING.network, READING.weights, READING.labels[:40]
    views = {
        "Fortran's order": np.asfortranarray(images),
        "backwards": images[::-1].copy()[::-1],
        "every other": np.repeat(images, 2, axis=0)[::2],
        "transposed": np.ascontiguousarray(images.transpose(0, 2, 1)).transpose(0, 2, 1),
        "another byte order": images.astype(images.dtype.newbyteorder()),
        "not aligned": np.frombuffer(b"x" + images.tobytes(), np.uint8)[1:]
        .view(dtype)
        .reshape(images.shape),
        "a list": images.tolist() if dtype is np.float64 else images,
    }
    expected = native.predict(network, weights, images)
    own = native.Trainer(network, weights, images, labels, seed=0, threads=1)
    told = own.run(np.arange(40), batch=16, first_step=0, rates=np.full(3, 0.01))[0]
    for how, view in views.items():
        assert np.array_equal(native.predict(network, weights, view), expected), how
        own = native.Trainer(network, weights, view, labels, seed=0, threads=1)
        losses = own.run(np.arange(40), batch=16, first_step=0, rates=np.full(3, 0.01))[0]
        assert losses.tolist() == told.tolist(), how


def test_labels_orders_rates_and_weights_may_lie_anyhow_in_memory() -> None:
    chosen = case("anyhow", Recurrent(kind="gru", units=5), pictures=12)
    order, rates = np.arange(12)[::-1], np.full(6, 0.01)
    expected = begin(chosen)
    expected.run(order, batch=2, first_step=0, rates=rates)
    weights = {k: np.asfortranarray(v.astype(np.float64)) for k, v in chosen.weights.items()}
    for dtype in (np.uint8, np.int32, np.uint64):
        labels = np.repeat(chosen.labels.astype(dtype), 3)[::3]
        own = native.Trainer(chosen.network, weights, chosen.images, labels, seed=0, threads=1)
        own.run(order.astype(dtype), batch=2, first_step=0, rates=np.repeat(rates, 2)[::2])
        assert_same_bits(own.weights(), expected.weights())


def test_what_is_asked_for_nothing_gives_nothing() -> None:
    own = begin(FITTING)
    nothing = np.zeros(0, np.int64)
    losses, right = own.run(nothing, batch=8, first_step=0, rates=np.zeros(0))
    assert (losses.shape, right.shape) == ((0,), (0,))
    assert own.evaluate(FITTING.images[:0], FITTING.labels[:0]) == (0.0, 0)
    assert_same_bits(own.weights(), FITTING.weights)


# --- what is refused --------------------------------------------------------------------------

NETWORK, IMAGES, LABELS = FITTING.network, FITTING.images, FITTING.labels
ORDER = np.arange(16)


def trainer(**changes: Any) -> native.Trainer:
    given: dict[str, Any] = {"images": IMAGES, "labels": LABELS, "state": FITTING.weights}
    given |= {"seed": 0, "threads": 1} | changes
    return native.Trainer(NETWORK, **given)


def run(order: Any = ORDER, **changes: Any) -> Any:
    given: dict[str, Any] = {"batch": 8, "first_step": 0, "rates": np.full(2, 0.1)} | changes
    return trainer().run(order, **given)


def evaluate(**changes: Any) -> Any:
    given: dict[str, Any] = {"images": IMAGES, "labels": LABELS} | changes
    return trainer().evaluate(**given)


def reader() -> native.Reader:
    return native.Reader(NETWORK, FITTING.weights)


def spoilt(value: float, dtype: type = np.float32) -> Array:
    images = IMAGES.astype(dtype)
    images[3, 2, 1] = value
    return images


def without(name: str) -> dict[str, Array]:
    return {k: v for k, v in FITTING.weights.items() if k != name}


def reshaped(name: str) -> dict[str, Array]:
    value = FITTING.weights[name]
    return {**FITTING.weights, name: np.ascontiguousarray(value.T)}


def slot(shape: tuple[int, ...]) -> dict[str, Array]:
    return {**FITTING.weights, "slots/velocity/dense.kernel": np.zeros(shape, np.float32)}


PIXELS = r"reads pictures of 5 x 3 pixels \[N, rows, columns\], got the shape \[67, "
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "turned pictures": (lambda: trainer(images=IMAGES.transpose(0, 2, 1)), PIXELS + r"3, 5\]$"),
    "flat pictures": (lambda: trainer(images=IMAGES.reshape(67, 15)), PIXELS + r"15\]$"),
    "a colour axis": (lambda: trainer(images=IMAGES[..., None]), PIXELS + r"5, 3, 1\]$"),
    "one picture without an axis": (lambda: reader().predict(IMAGES[0]), r"the shape \[5, 3\]$"),
    "no array": (lambda: reader().predict(None), r"got the shape \[\]$"),
    "whole numbers": (
        lambda: trainer(images=IMAGES.astype(np.int64)),
        r"uint8, or floats in 0 to 1, got int64; convert them with rowwise\.pixels\.arrays",
    ),
    "truth values": (lambda: reader().predict(IMAGES > 0), "uint8, or floats in 0 to 1, got bool"),
    "complex": (lambda: reader().predict(IMAGES.astype(complex)), "got complex128"),
    "objects": (lambda: reader().predict(IMAGES.astype(object)), "got object"),
    "words": (lambda: reader().predict(IMAGES.astype(str)), "got <U"),
    "NaN": (lambda: trainer(images=spoilt(np.nan)), "^pixels must be finite, got NaN or infinity$"),
    "infinity": (lambda: reader().predict(spoilt(-np.inf)), "must be finite"),
    "more than float32": (lambda: reader().predict(spoilt(1e300, np.float64)), "must be finite"),
    "NaN to evaluate": (lambda: evaluate(images=spoilt(np.nan)), "must be finite"),
    "NaN to see": (lambda: reader().states(spoilt(np.nan), "lstm"), "must be finite"),
    "a label too large": (
        lambda: trainer(labels=LABELS + 1),
        "^labels are classes 0 to 9, got 1 to 10$",
    ),
    "a label below": (lambda: trainer(labels=LABELS - 1), "classes 0 to 9, got -1 to 8$"),
    "a huge label": (
        lambda: trainer(labels=LABELS.astype(np.uint64) + np.uint64(2**63)),
        "classes 0 to 9, got ",
    ),
    "a label too many": (
        lambda: trainer(labels=np.append(LABELS, 1)),
        "^67 pictures need as many labels, got 68$",
    ),
    "labels side by side": (
        lambda: trainer(labels=LABELS[:, None]),
        r"^labels are whole numbers \[N\], got int64 of the shape \[67, 1\]$",
    ),
    "one-hot labels": (lambda: trainer(labels=np.eye(10)[LABELS]), r"the shape \[67, 10\]$"),
    "fractions as labels": (lambda: trainer(labels=LABELS / 2), r"labels are whole .* got float64"),
    "labels to evaluate": (lambda: evaluate(labels=LABELS + 5), "classes 0 to 9, got 5 to 14$"),
    "too few labels to evaluate": (lambda: evaluate(labels=LABELS[:5]), "67 pictures need as .* 5"),
    "an index too large": (
        lambda: run(ORDER + 60),
        "^an order's indices are 0 to 66, got 60 to 75$",
    ),
    "an index below": (lambda: run(ORDER - 1), "indices are 0 to 66, got -1 to 14$"),
    "fractions as indices": (lambda: run(ORDER / 1), r"indices are whole numbers \[N\], got float"),
    "indices in a square": (lambda: run(ORDER.reshape(4, 4)), r"got int64 of the shape \[4, 4\]$"),
    "an index to differentiate": (lambda: trainer().gradients(ORDER + 60), "0 to 66, got 60 to 75"),
    "nothing to differentiate": (lambda: trainer().gradients(ORDER[:0]), "of at least one picture"),
    "no batch": (
        lambda: run(batch=0),
        "^a batch has at least one picture, and less than 2.31, got 0$",
    ),
    "less than no batch": (lambda: run(batch=-8), "at least one picture.*, got -8$"),
    "no batch to read": (
        lambda: reader().predict(IMAGES, batch=0),
        "at least one picture.*, got 0$",
    ),
    "no batch to see": (lambda: reader().states(IMAGES, "lstm", batch=-1), "picture.*, got -1$"),
    "no batch to evaluate": (lambda: evaluate(batch=0), "at least one picture.*, got 0$"),
    "a batch beyond count": (lambda: run(batch=2**40), r"at least one picture.* got 1099511627776"),
    "too few rates": (
        lambda: run(rates=np.ones(1)),
        r"^2 steps need as many learning rates, got the shape \[1\]$",
    ),
    "too many rates": (lambda: run(rates=np.ones(3)), r"2 steps need .* the shape \[3\]$"),
    "rates in a square": (lambda: run(rates=np.ones((2, 2))), r"got the shape \[2, 2\]$"),
    "a step before the first": (lambda: run(first_step=-1), "^steps are counted from 0, got -1$"),
    "no threads": (lambda: trainer(threads=0), "^threads are 1 to 1024, got 0$"),
    "less than no threads": (lambda: trainer(threads=-2), "threads are 1 to 1024, got -2$"),
    "half a byte": (
        lambda: trainer(precision="float8"),
        "^a precision is one of float32, bfloat16, got 'float8'$",
    ),
    "another path": (lambda: trainer(path="fastest"), "^a processor path is one of .* 'fastest'"),
    "a million threads": (lambda: trainer(threads=10**6), "threads are 1 to 1024, got 1000000$"),
    "a million to read": (
        lambda: native.predict(NETWORK, FITTING.weights, IMAGES, threads=10**6),
        "threads are 1 to 1024",
    ),
    "weights without one": (
        lambda: trainer(state=without("lstm.bias")),
        r"^the weights must hold lstm\.bias, got them without it$",
    ),
    "no weights to read": (lambda: native.Reader(NETWORK, {}), r"the weights must hold .*gamma"),
    "a turned weight": (
        lambda: trainer(state=reshaped("lstm.kernel")),
        r"^lstm\.kernel has the shape \[34, 36\], got \[36, 34\]$",
    ),
    "another shape to read": (
        lambda: native.Reader(NETWORK, reshaped("dense.kernel")),
        r"dense\.kernel has the shape \[9, 10\], got \[10, 9\]$",
    ),
    "another shape of a slot": (lambda: trainer(state=slot((9,))), r"dense\.kernel has the shape"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_it_refuses_in_one_line(name: str) -> None:
    call, line = REFUSED[name]
    with pytest.raises(EngineError, match=line) as error:
        call()
    assert "\n" not in str(error.value)


def test_it_declines_no_network() -> None:
    for each in CASES:
        for training in (False, True):
            assert engines.why_not("native", each.network, training=training) is None


# --- kinds that the core does not have --------------------------------------------------------


def fields(layers: Any, kind: int) -> Any:
    """The first of a network's structures of this kind of layer."""
    return next(struct for struct in layers.array if struct.kind == kind)


@pytest.mark.parametrize("number", [-1, 8, 2**31 - 1])
@pytest.mark.parametrize(
    ("kind", "field"), [(2, "kind"), (2, "cell"), (2, "activation"), (3, "activation")]
)
def test_a_number_that_the_core_does_not_know_is_an_error_and_runs_nothing(
    number: int, kind: int, field: str
) -> None:
    layers = native_layers.Layers(NETWORK)
    setattr(fields(layers, kind), field, number)
    with pytest.raises(EngineError, match=r"^the native engine: it has no layer, cell, "):
        native_core.Core(layers, 1)


@pytest.mark.parametrize("field", ["kind", "clip"])
def test_an_optimiser_that_the_core_does_not_know_moves_nothing(
    field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = trainer()
    how = native_layers.optimizer_of(NETWORK.experiment)
    setattr(how, field, 4)
    monkeypatch.setattr(native, "optimizer_of", lambda experiment: how)
    before = own.state()
    with pytest.raises(EngineError, match="it has no layer, cell, activation, optimiser"):
        own.run(ORDER, batch=8, first_step=0, rates=np.full(2, 0.1))
    assert_same_bits(own.state(), before)


@pytest.mark.parametrize(
    ("table", "kind", "training", "why"),
    [
        ("CELLS", "lstm", False, "no cell lstm; it has simple_rnn, gru"),
        ("CELLS", "lstm", True, "no cell lstm; it has simple_rnn, gru"),
        ("RECURRENT_ACTIVATIONS", "tanh", False, "no recurrent activation tanh; it has relu"),
        ("_OPTIMIZERS", "adam", True, "no optimiser adam; it has sgd, rmsprop, adamw"),
    ],
)
def test_what_the_core_lacks_goes_to_another_engine(
    monkeypatch: pytest.MonkeyPatch, table: str, kind: str, training: bool, why: str
) -> None:
    pytest.importorskip("torch", reason="needs PyTorch, the engine that follows")
    chosen = case("lacking", Recurrent(kind="lstm", units=5))
    monkeypatch.delitem(getattr(native_layers, table), kind)
    why = f"the native core has {why}"
    with pytest.raises(EngineError, match=rf"^the engine native cannot \w+ case: {why}$"):
        engines.choose("native", chosen.network, training=training)
    choice = engines.choose("auto", chosen.network, training=training)
    assert choice.name == ("torch" if training else "plain")
    assert f"native cannot: {why}" in choice.why
    images = chosen.images[:4]
    read = engines.engine("torch").predict(chosen.network, chosen.weights, images)
    assert read.shape == (4, chosen.network.classes), "PyTorch takes its own pass"

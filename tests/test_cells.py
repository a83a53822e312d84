"""The table of cells, and each cell's step against its equations worked out number by number."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit

from rowwise.cells import ACTIVATIONS, CELLS, CellKind, CellWeights, relu, sigmoid

# Four roundings of 2^-53 and of 2^-24, on numbers of size one.
FLOAT64_TOLERANCE, FLOAT32_TOLERANCE = 1e-15, 1e-6
KINDS: tuple[CellKind, ...] = ("simple_rnn", "lstm", "gru")


# --- activations ------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=20))
def test_sigmoid_is_the_logistic_function_and_never_overflows(values: list[float]) -> None:
    x = np.array(values)
    with np.errstate(all="raise", under="ignore"):
        got = sigmoid(x)
    assert np.abs(got - expit(x)).max() <= FLOAT64_TOLERANCE
    assert ((got >= 0) & (got <= 1)).all()


def test_sigmoid_at_its_ends() -> None:
    x = np.array([-np.inf, -1e30, -50, 0, 50, 1e30, np.inf], np.float32)
    got = sigmoid(x)
    assert got.dtype == np.float32
    assert got.tolist() == [0, 0, 0, 0.5, 1, 1, 1]
    assert np.isnan(sigmoid(np.array([np.nan]))).all()


def test_relu_is_the_positive_part_and_keeps_nan() -> None:
    assert relu(np.array([-np.inf, -2.5, -0.0, 0.0, 2.5, np.inf])).tolist() == [
        0,
        0,
        0,
        0,
        2.5,
        math.inf,
    ]
    assert np.isnan(relu(np.array([np.nan, -1]))).tolist() == [True, False]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_keep_the_precision(name: str, dtype: type) -> None:
    x = np.linspace(-3, 3, 7, dtype=dtype)
    got = ACTIVATIONS[name](x)
    expected = {"tanh": np.tanh(x), "relu": x * (x > 0), "sigmoid": expit(x), "linear": x}[name]
    assert got.dtype == dtype
    assert np.abs(got - expected).max() <= 4 * np.finfo(dtype).eps


# --- the table --------------------------------------------------------------------------------


def test_the_table_has_pytorchs_gates_in_pytorchs_order() -> None:
    told = {
        kind: (cell.keras_name, cell.gates, cell.states, cell.has_recurrent_bias)
        for kind, cell in CELLS.items()
    }
    assert told == {
        "simple_rnn": ("SimpleRNN", ("h",), 1, False),
        "lstm": ("LSTM", ("i", "f", "g", "o"), 2, False),
        "gru": ("GRU", ("r", "z", "n"), 1, True),
    }
    assert all(cell.kind == kind for kind, cell in CELLS.items())


# --- one step, number by number ---------------------------------------------------------------


def logistic(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def activate(name: str, z: float) -> float:
    return math.tanh(z) if name == "tanh" else max(z, 0.0)


def drawn(kind: CellKind, inputs: int, hidden: int, *, dtype: type = np.float64) -> CellWeights:
    """Asymmetric random weights."""
    cell = CELLS[kind]
    rng = np.random.default_rng(17)
    width = hidden * len(cell.gates)

    def draw(*shape: int) -> NDArray[np.float64]:
        return rng.normal(0, 0.8, shape).astype(dtype)

    recurrent_bias = draw(width) if cell.has_recurrent_bias else None
    return CellWeights(draw(inputs, width), draw(hidden, width), draw(width), recurrent_bias)


def by_hand(
    kind: CellKind, activation: str, x: list[float], state: list[list[float]], w: CellWeights
) -> list[list[float]]:
    """The next state of one picture, in Python's floats: a sum for each gate of each unit."""
    hidden, gates = len(state[0]), CELLS[kind].gates

    def dot(values: list[float], column: NDArray[np.float64]) -> float:
        return math.fsum(v * float(k) for v, k in zip(values, column, strict=True))

    def place(gate: str, unit: int) -> int:
        return gates.index(gate) * hidden + unit

    def by_x(gate: str, unit: int) -> float:
        at = place(gate, unit)
        return dot(x, w.kernel[:, at]) + float(w.bias[at])

    def by_h(gate: str, unit: int) -> float:
        at = place(gate, unit)
        extra = 0.0 if w.recurrent_bias is None else float(w.recurrent_bias[at])
        return dot(state[0], w.recurrent_kernel[:, at]) + extra

    def whole(gate: str, unit: int) -> float:
        return by_x(gate, unit) + by_h(gate, unit)

    units = range(hidden)
    if kind == "simple_rnn":
        return [[activate(activation, whole("h", u)) for u in units]]
    if kind == "lstm":
        cells = [
            logistic(whole("f", u)) * state[1][u]
            + logistic(whole("i", u)) * activate(activation, whole("g", u))
            for u in units
        ]
        states = [logistic(whole("o", u)) * activate(activation, cells[u]) for u in units]
        return [states, cells]
    states = []
    for u in units:
        z = logistic(whole("z", u))
        n = activate(activation, by_x("n", u) + logistic(whole("r", u)) * by_h("n", u))
        states.append(z * state[0][u] + (1 - z) * n)
    return [states]


@pytest.mark.parametrize(("batch", "inputs", "hidden"), [(1, 1, 1), (2, 3, 7), (5, 2, 4)])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_its_equations(
    kind: CellKind, activation: str, batch: int, inputs: int, hidden: int
) -> None:
    rng = np.random.default_rng(18)
    w = drawn(kind, inputs, hidden)
    x = rng.normal(size=(batch, inputs))
    state = tuple(rng.normal(size=(batch, hidden)) for _ in range(CELLS[kind].states))
    got = CELLS[kind].step(x, state, w, ACTIVATIONS[activation])
    assert len(got) == CELLS[kind].states
    for b in range(batch):
        expected = by_hand(kind, activation, x[b].tolist(), [s[b].tolist() for s in state], w)
        for mine, theirs in zip(got, expected, strict=True):
            assert np.abs(mine[b] - theirs).max() <= 20 * FLOAT64_TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_keeps_float32_and_its_inputs(kind: CellKind) -> None:
    rng = np.random.default_rng(19)
    w = drawn(kind, 3, 7, dtype=np.float32)
    x = rng.normal(size=(2, 3)).astype(np.float32)
    state = tuple(rng.normal(size=(2, 7)).astype(np.float32) for _ in range(CELLS[kind].states))
    kept = [x.copy(), *(s.copy() for s in state)]
    got = CELLS[kind].step(x, state, w, np.tanh)
    assert all(s.dtype == np.float32 for s in got)
    assert all(np.array_equal(a, b) for a, b in zip(kept, [x, *state], strict=True))
    wide = CellWeights(
        *(None if a is None else a.astype(np.float64) for a in vars(w).values())  # type: ignore[arg-type]
    )
    exact = CELLS[kind].step(
        x.astype(np.float64), tuple(s.astype(np.float64) for s in state), wide, np.tanh
    )
    for mine, theirs in zip(got, exact, strict=True):
        assert np.abs(mine - theirs).max() <= FLOAT32_TOLERANCE


# --- what the gates are for -------------------------------------------------------------------


def forced(kind: CellKind, **biases: float) -> CellWeights:
    """Random weights whose named gates are forced open (50) or shut (-50) by their bias."""
    w = drawn(kind, 3, 7)
    bias = w.bias.copy()
    for gate, value in biases.items():
        at = CELLS[kind].gates.index(gate)
        bias[at * 7 : (at + 1) * 7] = value
    return CellWeights(w.kernel, w.recurrent_kernel, bias, w.recurrent_bias)


X = np.random.default_rng(20).normal(size=(4, 3))
H, C = np.random.default_rng(21).normal(size=(2, 4, 7))


def test_an_lstm_that_forgets_nothing_and_takes_nothing_keeps_its_memory() -> None:
    _, kept = CELLS["lstm"].step(X, (H, C), forced("lstm", i=-50, f=50), np.tanh)
    assert np.abs(kept - C).max() <= 1e-12


def test_an_lstm_that_forgets_all_and_takes_nothing_is_empty() -> None:
    h, c = CELLS["lstm"].step(X, (H, C), forced("lstm", i=-50, f=-50), np.tanh)
    assert np.abs(c).max() <= 1e-12
    assert np.abs(h).max() <= 1e-12


def test_an_lstm_with_a_shut_output_tells_nothing_of_what_it_holds() -> None:
    h, c = CELLS["lstm"].step(X, (H, C), forced("lstm", o=-50), np.tanh)
    assert np.abs(h).max() <= 1e-12
    assert np.abs(c).min() > 1e-3


def test_a_gru_with_an_open_update_gate_keeps_its_state() -> None:
    (kept,) = CELLS["gru"].step(X, (H,), forced("gru", z=50), np.tanh)
    assert np.abs(kept - H).max() <= 1e-12


def test_a_gru_with_shut_gates_sees_its_input_alone() -> None:
    w = forced("gru", r=-50, z=-50)
    (one,) = CELLS["gru"].step(X, (H,), w, np.tanh)
    (other,) = CELLS["gru"].step(X, (2 * H,), w, np.tanh)
    assert np.abs(one - other).max() <= 1e-12
    assert np.abs(one - np.tanh(X @ w.kernel[:, 14:] + w.bias[14:])).max() <= 1e-12


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_far_into_saturation_stay_finite(kind: CellKind, activation: str) -> None:
    w = drawn(kind, 3, 7, dtype=np.float32)
    state = tuple(np.zeros((6, 7), np.float32) for _ in range(CELLS[kind].states))
    x = np.random.default_rng(22).choice(np.array([-50, 50], np.float32), (6, 3))
    with np.errstate(all="raise", under="ignore"):
        for _ in range(20):
            state = CELLS[kind].step(x, state, w, ACTIVATIONS[activation])
    assert all(np.isfinite(s).all() for s in state)

"""The table of recurrent cells: gates, states, and the step that defines each.

Axes, here and everywhere: B batch, T time steps, I input features, H hidden units, G gates,
C classes. Gates stand in PyTorch's order: LSTM i, f, g, o; GRU r, z, n. A gate's columns are
contiguous: `kernel[:, g * H : (g + 1) * H]` belongs to gate g.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
CellKind = Literal["simple_rnn", "lstm", "gru"]
Activation = Literal["tanh", "relu"]


def sigmoid(x: Array) -> Array:
    """The logistic function 1 / (1 + e^-x), by way of tanh, so that no x overflows."""
    half = x.dtype.type(0.5)
    return np.asarray(half * (np.tanh(half * x) + 1))


def relu(x: Array) -> Array:
    """max(x, 0); a NaN stays a NaN."""
    return np.maximum(x, 0)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": np.tanh,
    "relu": relu,
    "sigmoid": sigmoid,
    "linear": lambda x: x,
}


@dataclass(frozen=True)
class CellWeights:
    """One direction's weights.

    kernel [I, G·H], recurrent_kernel [H, G·H], bias [G·H]; recurrent_bias [G·H] for the GRU
    alone, whose candidate gate needs it apart from `bias`.
    """

    kernel: Array
    recurrent_kernel: Array
    bias: Array
    recurrent_bias: Array | None = None


State = tuple[Array, ...]
Step = Callable[[Array, State, CellWeights, Callable[[Array], Array]], State]


def step_simple_rnn(
    x: Array, state: State, w: CellWeights, activation: Callable[[Array], Array]
) -> State:
    """h' = act(x W + h U + b) (Elman 1990).

    x [B, I]; state (h [B, H],). Returns (h' [B, H],).
    """
    (h_prev,) = state
    return (activation(x @ w.kernel + h_prev @ w.recurrent_kernel + w.bias),)


def step_lstm(
    x: Array, state: State, w: CellWeights, activation: Callable[[Array], Array]
) -> State:
    """i, f, o = σ(·), g = act(·); c' = f c + i g; h' = o act(c').

    Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000. With relu, both
    tanh become relu and the gates stay sigmoid, as in Keras' `LSTM(activation="relu")`.
    x [B, I]; state (h, c), each [B, H]. Returns (h', c').
    """
    h_prev, c_prev = state
    z = x @ w.kernel + h_prev @ w.recurrent_kernel + w.bias
    i, f, g, o = np.split(z, 4, axis=-1)
    c_next = sigmoid(f) * c_prev + sigmoid(i) * activation(g)
    return sigmoid(o) * activation(c_next), c_next


def step_gru(x: Array, state: State, w: CellWeights, activation: Callable[[Array], Array]) -> State:
    """r, z = σ(·); n = act(x Wn + bn + r (h Un + cn)); h' = z h + (1 - z) n.

    Cho et al. 2014, with the reset gate after the product (Keras' `reset_after=True`,
    PyTorch's form). x [B, I]; state (h [B, H],). Returns (h' [B, H],).
    """
    (h_prev,) = state
    x_r, x_z, x_n = np.split(x @ w.kernel + w.bias, 3, axis=-1)
    h_r, h_z, h_n = np.split(h_prev @ w.recurrent_kernel + w.recurrent_bias, 3, axis=-1)
    r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
    n = activation(x_n + r * h_n)
    return (n + z * (h_prev - n),)


@dataclass(frozen=True)
class Cell:
    """A row of the table: how a cell is named, which gates and states it has, and its step."""

    kind: CellKind
    keras_name: str
    gates: tuple[str, ...]
    states: int
    has_recurrent_bias: bool
    step: Step


CELLS: dict[CellKind, Cell] = {
    cell.kind: cell
    for cell in (
        Cell("simple_rnn", "SimpleRNN", ("h",), 1, False, step_simple_rnn),
        Cell("lstm", "LSTM", ("i", "f", "g", "o"), 2, False, step_lstm),
        Cell("gru", "GRU", ("r", "z", "n"), 1, True, step_gru),
    )
}

"""The reference engine: numpy, the equations as a reader would write them, forward only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowwise import config
from rowwise.cells import ACTIVATIONS, CELLS, CellWeights
from rowwise.network import READINGS, Join, Network, Node, Output, Picture, pixel_order

Array = NDArray[Any]

name = "plain"
precisions = ()


def why_not(network: Network, *, training: bool) -> str | None:
    """Why this engine cannot serve, or None where it can."""
    return "the plain engine runs networks and does not train them" if training else None


def path() -> str:
    """None of the core's: numpy does all."""
    return ""


def predict(
    network: Network,
    weights: Mapping[str, Array],
    images: Array,
    *,
    batch: int = 500,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Probabilities [N, C] float32 for images [N, rows, columns], uint8 or float in [0, 1].

    `threads` is ignored: numpy's own setting holds.
    """
    return beliefs(network, weights, images, batch=batch)[:, -1]


def beliefs(
    network: Network,
    weights: Mapping[str, Array],
    images: Array,
    *,
    batch: int = 500,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Probabilities [N, T, C] float32 after each step at which the closing layer stands."""
    steps = network.steps
    done = [np.empty((0, steps, network.classes))]
    for i in range(0, len(images), batch):
        logits = forward(network, weights, images[i : i + batch])[network.nodes[-1].name]
        done.append(softmax(logits.reshape(-1, steps, network.classes)))
    return np.concatenate(done).astype(np.float32)


class Reader:
    """A network with its weights; `threads` is ignored."""

    def __init__(
        self, network: Network, weights: Mapping[str, Array], *, threads: int | None = None
    ) -> None:
        self._network, self._weights = network, weights

    def predict(self, images: Array, *, batch: int = 500) -> NDArray[np.float32]:
        """Probabilities [N, C] float32 for images [N, rows, columns], uint8 or float in [0, 1]."""
        return predict(self._network, self._weights, images, batch=batch)

    def beliefs(self, images: Array, *, batch: int = 500) -> NDArray[np.float32]:
        """Probabilities [N, T, C] float32 after each step at which the closing layer stands."""
        return beliefs(self._network, self._weights, images, batch=batch)


def forward(
    network: Network, weights: Mapping[str, Array], images: Array, *, dtype: type = np.float32
) -> dict[str, Array]:
    """The output of every node by name; the last one's are logits [B, C], or [B, T, C].

    images [B, rows, columns]: uint8 is divided by 255, floats are taken as they are. `dtype`
    (float32 or float64) is the precision of everything.
    """
    pixels: Array = images.astype(dtype)
    if images.dtype == np.uint8:
        pixels = pixels / dtype(255)
    cast: dict[str, Array] = {key: np.asarray(value, dtype) for key, value in weights.items()}
    outputs: dict[str, Array] = {}
    for node in network.nodes:
        inputs = [outputs[name] for name in node.inbound] or [pixels]
        outputs[node.name] = _apply(node, inputs, cast)
    return outputs


def softmax(logits: Array) -> Array:
    """e^z / Σ e^z over the last axis, shifted by the largest z against overflow."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _apply(node: Node, inputs: list[Array], weights: Mapping[str, Array]) -> Array:
    x = inputs[0]
    mine = {p.name.removeprefix(f"{node.name}."): weights[p.name] for p in node.parameters}
    match node.layer:
        case Picture() | config.Dropout():
            return x
        case layer if isinstance(layer, READINGS):
            rows, columns = node.input_shapes[0]
            edged = np.pad(x.reshape(len(x), -1), ((0, 0), (0, 1)))  # OUTSIDE is the last: a zero
            return edged[:, pixel_order(layer, (rows, columns))]
        case config.BatchNorm(epsilon=epsilon):
            scale = mine["gamma"] / np.sqrt(mine["moving_variance"] + x.dtype.type(epsilon))
            return np.asarray((x - mine["moving_mean"]) * scale + mine["beta"])
        case config.Recurrent() as layer:
            return _recur(layer, x, mine)
        case config.Dense(activation=activation):
            return ACTIVATIONS[activation](x @ mine["kernel"] + mine["bias"])
        case Output():
            return np.asarray(x @ mine["kernel"] + mine["bias"])
        case config.Flatten():
            return x.reshape(len(x), -1)
        case config.Pool(by=by):
            pools = [x.mean(axis=1) if one == "mean" else x.max(axis=1) for one in by.split("_")]
            return np.concatenate(pools, axis=-1)
        case Join():
            return np.concatenate(inputs, axis=-1)
    raise TypeError(f"{node.layer!r} is not a layer")


def _recur(layer: config.Recurrent, x: Array, mine: Mapping[str, Array]) -> Array:
    """x [B, T, I] → [B, T, H] or the last state [B, H]; both ways side by side if bidirectional."""
    if not layer.bidirectional:
        states = _unroll(layer, x, CellWeights(**mine))
        return states if layer.return_sequences else states[:, -1]
    one_way = {
        way: CellWeights(**{k.removeprefix(way): v for k, v in mine.items() if k.startswith(way)})
        for way in ("forward.", "backward.")
    }
    forth = _unroll(layer, x, one_way["forward."])
    back = _unroll(layer, x[:, ::-1], one_way["backward."])
    if layer.return_sequences:
        return np.concatenate([forth, back[:, ::-1]], axis=-1)
    return np.concatenate([forth[:, -1], back[:, -1]], axis=-1)


def _unroll(layer: config.Recurrent, x: Array, weights: CellWeights) -> Array:
    """All hidden states [B, T, H] of one direction, from a zero state."""
    cell = CELLS[layer.kind]
    state = tuple(np.zeros((len(x), layer.units), x.dtype) for _ in range(cell.states))
    states = np.empty((len(x), x.shape[1], layer.units), x.dtype)
    for t in range(x.shape[1]):
        state = cell.step(x[:, t], state, weights, ACTIVATIONS[layer.activation])
        states[:, t] = state[0]
    return states

"""A network as data: its layers placed in a graph, shapes, parameters, initial weights, summary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod, sqrt
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rowwise import config
from rowwise.cells import CELLS
from rowwise.config import Experiment
from rowwise.errors import NetworkError

Shape = tuple[int, ...]
Weights = dict[str, NDArray[np.float32]]
Initializer = Literal["glorot_uniform", "orthogonal", "zeros", "ones", "lstm_bias"]

MAX_PARAMETERS = 200_000_000


@dataclass(frozen=True)
class Parameter:
    """A weight tensor: its name in files, its shape, and the distribution it starts from."""

    name: str
    shape: Shape
    initializer: Initializer
    trainable: bool = True

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)


@dataclass(frozen=True)
class Join:
    """The branches' outputs side by side: [B, F1], [B, F2], … → [B, F1 + F2 + …]."""

    kind: Literal["join"] = "join"


@dataclass(frozen=True)
class Output:
    """The closing dense layer over the classes; its logits are before the softmax.

    Where it stands at every step (`target_replication`), its answer is that of the last one.
    """

    kind: Literal["output"] = "output"


@dataclass(frozen=True)
class Picture:
    """The input: a picture as it is, [B, rows, columns]."""

    kind: Literal["picture"] = "picture"


Layer = (
    Picture
    | config.Rows
    | config.Columns
    | config.Pixels
    | config.Permuted
    | config.Patches
    | config.BatchNorm
    | config.Recurrent
    | config.Dropout
    | config.Dense
    | config.Flatten
    | config.Pool
    | Join
    | Output
)
OUTSIDE = -1  # the pixel index of a zero beyond the picture's edge
READINGS = (config.Rows, config.Columns, config.Pixels, config.Permuted, config.Patches)


@dataclass(frozen=True)
class Node:
    """A layer in its place: where its input comes from, and the shapes without the batch axis."""

    name: str
    type: str
    layer: Layer
    inbound: tuple[str, ...]
    input_shapes: tuple[Shape, ...]
    output_shape: Shape
    parameters: tuple[Parameter, ...]

    @property
    def count(self) -> int:
        """The number of parameter elements, moving statistics included."""
        return sum(p.size for p in self.parameters)


class Network:
    """An experiment's layers for pictures of `shape` (rows, columns) and `classes` classes.

    Raises NetworkError where the layers do not fit together.
    """

    def __init__(self, experiment: Experiment, shape: tuple[int, int], classes: int) -> None:
        if not (2 <= classes <= 100):
            raise NetworkError(f"a network tells 2 to 100 classes apart, got {classes}")
        if min(shape) < 1 or max(shape) > 1024:
            raise NetworkError(f"pictures have 1 to 1024 rows and columns, got {shape}")
        self.experiment = experiment
        self.shape = shape
        self.classes = classes
        self.nodes: tuple[Node, ...] = tuple(_Placing(experiment, shape, classes).nodes)
        if self.count > MAX_PARAMETERS:
            raise NetworkError(
                f"a network has at most {MAX_PARAMETERS:,} parameters, {experiment.name} has "
                f"{self.count:,}; reduce units"
            )

    @cached_property
    def parameters(self) -> dict[str, Parameter]:
        """All parameters by name, in the order of the nodes."""
        return {p.name: p for node in self.nodes for p in node.parameters}

    @property
    def count(self) -> int:
        """The number of parameter elements, as Keras' "Total params"."""
        return sum(p.size for p in self.parameters.values())

    @property
    def steps(self) -> int:
        """The steps at which the closing layer stands: 1, or with `target_replication` all."""
        shape = self.nodes[-1].output_shape
        return shape[0] if len(shape) == 2 else 1

    @property
    def trainable_count(self) -> int:
        """The number of elements that training moves, as Keras' "Trainable params"."""
        return sum(p.size for p in self.parameters.values() if p.trainable)

    def initialise(self, *, seed: int) -> Weights:
        """Fresh float32 weights from Keras' initialisers' distributions.

        Every parameter draws from a stream of its own, made of the seed and its place.
        """
        return {
            p.name: _draw(p, np.random.Generator(np.random.PCG64([seed, place])))
            for place, p in enumerate(self.parameters.values())
        }

    def check(self, weights: Mapping[str, NDArray[Any]], *, where: str) -> Weights:
        """`weights` as this network's float32 weights.

        Raises NetworkError, naming `where` they came from, for a missing, foreign, misshapen or
        non-finite weight.
        """
        missing = sorted(self.parameters.keys() - weights.keys())
        foreign = sorted(weights.keys() - self.parameters.keys())
        if missing or foreign:
            told = [f"{n} is missing" for n in missing[:1]] + [
                f"{n} is foreign" for n in foreign[:1]
            ]
            raise NetworkError(f"{where}: the weights must be those of {self}: {', '.join(told)}")
        checked: Weights = {}
        for name, p in self.parameters.items():
            value = np.asarray(weights[name])
            if value.shape != p.shape:
                raise NetworkError(
                    f"{where}: {name} must have the shape {list(p.shape)}, got {list(value.shape)}"
                )
            if not np.isfinite(value).all():
                raise NetworkError(f"{where}: {name} must be finite, got NaN or infinity")
            checked[name] = np.ascontiguousarray(value, dtype=np.float32)
        return checked

    def summary(self) -> str:
        """The table of layers, output shapes and parameter counts that a Keras user knows."""
        return _summary(self)

    def __str__(self) -> str:
        return f"{self.experiment.name} ({self.count:,} parameters)"


def pixel_order(reading: Layer, shape: tuple[int, int]) -> NDArray[np.int64]:
    """How a reading takes the pixels of a picture of `shape` (rows, columns).

    Returns int64 [T, I]: the flat (row-major) index of the pixel at each time step and place, or
    OUTSIDE for a zero beyond the picture's edge.
    Raises NetworkError where patches do not tile the picture.
    """
    rows, columns = shape
    grid = np.arange(rows * columns, dtype=np.int64).reshape(rows, columns)
    match reading:
        case config.Rows(before=before, after=after):
            return _with_neighbours(grid, before, after)
        case config.Columns(before=before, after=after):
            return _with_neighbours(grid.T, before, after)
        case config.Pixels():
            return grid.reshape(-1, 1)
        case config.Permuted(seed=seed):
            # Raw draws and a stable sort: the order is the same with every version of numpy.
            draws = np.random.PCG64(seed).random_raw(grid.size)
            return np.argsort(draws, kind="stable").reshape(-1, 1)
        case config.Patches(height=h, width=w):
            if rows % h or columns % w:
                raise NetworkError(
                    f"patches must tile the picture of {rows} x {columns} pixels, "
                    f"got patches of {h} x {w}"
                )
            tiles = grid.reshape(rows // h, h, columns // w, w).transpose(0, 2, 1, 3)
            return np.ascontiguousarray(tiles.reshape(-1, h * w))
    raise TypeError(f"{reading!r} is not a reading")


def _with_neighbours(lines: NDArray[np.int64], before: int, after: int) -> NDArray[np.int64]:
    """int64 [T, I] → [T, (before + 1 + after)·I]: each line beside its neighbours."""
    padded = np.pad(lines, ((before, after), (0, 0)), constant_values=OUTSIDE)
    windows = [padded[i : i + len(lines)] for i in range(before + 1 + after)]
    return np.ascontiguousarray(np.concatenate(windows, axis=1))


class _Placing:
    """Walks an experiment's layers and places each as a node, checking shapes on the way."""

    def __init__(self, experiment: Experiment, shape: tuple[int, int], classes: int) -> None:
        self.nodes: list[Node] = []
        self._names: dict[str, int] = {}
        self._experiment = experiment.name
        picture = self._place("input_layer", "InputLayer", Picture(), (), shape)
        if experiment.branches:
            ends = [
                self._follow(b.layers, self._read(b.reading, picture)) for b in experiment.branches
            ]
            for end in ends:
                self._must_be_vector(end, "a branch")
            width = sum(end.output_shape[0] for end in ends)
            end = self._place("concatenate", "Concatenate", Join(), tuple(ends), (width,))
        else:
            end = self._read(experiment.reading, picture)
        end = self._follow(experiment.layers, end)
        if experiment.target_replication:
            self._must_be_sequence(end, "target_replication")
        else:
            self._must_be_vector(end, "the network")
        wide = (*end.output_shape[:-1], classes)
        self._place("dense", "Dense", Output(), (end,), wide, _dense(end, classes))

    def _read(self, reading: Layer, picture: Node) -> Node:
        if reading == config.Rows():
            return picture
        rows, columns = picture.output_shape
        order = pixel_order(reading, (rows, columns))
        kind = "Permute" if reading == config.Columns() else "Reshape"
        kind = "Windows" if (order == OUTSIDE).any() else kind
        return self._place(reading.kind, kind, reading, (picture,), order.shape)

    def _follow(self, layers: Iterable[Layer], end: Node) -> Node:
        for layer in layers:
            end = self._append(layer, end)
        return end

    def _append(self, layer: Layer, before: Node) -> Node:
        shape = before.output_shape
        match layer:
            case config.BatchNorm():
                parameters = _batch_norm(shape[-1])
                return self._place(
                    "batch_normalization", "BatchNormalization", layer, (before,), shape, parameters
                )
            case config.Recurrent():
                self._must_be_sequence(before, layer.kind)
                width = layer.units * (2 if layer.bidirectional else 1)
                out: Shape = (shape[0], width) if layer.return_sequences else (width,)
                keras_name = CELLS[layer.kind].keras_name
                name = f"bidirectional_{layer.kind}" if layer.bidirectional else layer.kind
                kind = f"Bidirectional({keras_name})" if layer.bidirectional else keras_name
                return self._place(name, kind, layer, (before,), out, _recurrent(layer, shape[-1]))
            case config.Dropout():
                return self._place("dropout", "Dropout", layer, (before,), shape)
            case config.Dense():
                wide = (*shape[:-1], layer.units)
                parameters = _dense(before, layer.units)
                return self._place("dense", "Dense", layer, (before,), wide, parameters)
            case config.Flatten():
                return self._place("flatten", "Flatten", layer, (before,), (prod(shape),))
            case config.Pool():
                self._must_be_sequence(before, "pool")
                keras, times = _POOLS[layer.by]
                wide = (times * shape[1],)
                return self._place(f"{layer.by}_pool", keras, layer, (before,), wide)
        raise TypeError(f"{layer!r} is not a layer")

    def _place(
        self,
        name: str,
        kind: str,
        layer: Layer,
        before: tuple[Node, ...],
        shape: Shape,
        parameters: tuple[Parameter, ...] = (),
    ) -> Node:
        seen = self._names.get(name, 0)
        self._names[name] = seen + 1
        unique = f"{name}_{seen}" if seen else name
        named = tuple(
            Parameter(f"{unique}.{p.name}", p.shape, p.initializer, p.trainable) for p in parameters
        )
        inbound = tuple(node.name for node in before)
        shapes = tuple(node.output_shape for node in before)
        node = Node(unique, kind, layer, inbound, shapes, shape, named)
        self.nodes.append(node)
        return node

    def _must_be_sequence(self, node: Node, what: str) -> None:
        if len(node.output_shape) != 2:
            raise NetworkError(
                f"{self._experiment}: {what} reads a sequence [time steps, features], but "
                f"{node.name} gives {list(node.output_shape)}; set return_sequences = true in the "
                f"recurrent layer before it"
            )

    def _must_be_vector(self, node: Node, what: str) -> None:
        if len(node.output_shape) != 1:
            raise NetworkError(
                f"{self._experiment}: {what} must end in one vector a picture, but {node.name} "
                f"gives {list(node.output_shape)}; set return_sequences = false in its last "
                f"recurrent layer, or add a pool or flatten layer"
            )


# How each pool is named, and how many vectors it gives.
_POOLS = {
    "mean": ("GlobalAveragePooling1D", 1),
    "max": ("GlobalMaxPooling1D", 1),
    "mean_max": ("GlobalAverage+MaxPooling1D", 2),
}


def _dense(before: Node, units: int) -> tuple[Parameter, ...]:
    features = before.output_shape[-1]
    return (
        Parameter("kernel", (features, units), "glorot_uniform"),
        Parameter("bias", (units,), "zeros"),
    )


def _batch_norm(features: int) -> tuple[Parameter, ...]:
    return (
        Parameter("gamma", (features,), "ones"),
        Parameter("beta", (features,), "zeros"),
        Parameter("moving_mean", (features,), "zeros", trainable=False),
        Parameter("moving_variance", (features,), "ones", trainable=False),
    )


def _recurrent(layer: config.Recurrent, features: int) -> tuple[Parameter, ...]:
    cell = CELLS[layer.kind]
    width = layer.units * len(cell.gates)
    one: tuple[Parameter, ...] = (
        Parameter("kernel", (features, width), "glorot_uniform"),
        Parameter("recurrent_kernel", (layer.units, width), "orthogonal"),
        Parameter("bias", (width,), "lstm_bias" if layer.kind == "lstm" else "zeros"),
    )
    if cell.has_recurrent_bias:
        one += (Parameter("recurrent_bias", (width,), "zeros"),)
    if not layer.bidirectional:
        return one
    return tuple(
        Parameter(f"{way}.{p.name}", p.shape, p.initializer)
        for way in ("forward", "backward")
        for p in one
    )


def _draw(parameter: Parameter, rng: np.random.Generator) -> NDArray[np.float32]:
    """One parameter's initial value: Glorot & Bengio 2010; Saxe et al. 2014 for orthogonal."""
    shape = parameter.shape
    match parameter.initializer:
        case "zeros":
            return np.zeros(shape, np.float32)
        case "ones":
            return np.ones(shape, np.float32)
        case "lstm_bias":  # the forget gate, second of four, starts open (Jozefowicz et al. 2015)
            bias = np.zeros((4, shape[0] // 4), np.float32)
            bias[1] = 1
            return bias.reshape(shape)
        case "glorot_uniform":
            limit = sqrt(6 / (shape[0] + shape[1]))
            return rng.uniform(-limit, limit, shape).astype(np.float32)
        case "orthogonal":
            rows, columns = shape
            normal = rng.standard_normal((max(shape), min(shape)))
            q, r = np.linalg.qr(normal)
            q = q * np.sign(np.diag(r))
            return np.ascontiguousarray(q if rows >= columns else q.T, dtype=np.float32)


def _summary(network: Network) -> str:
    """Rows of layer (type), output shape, parameters; then the totals."""
    with_inbound = bool(network.experiment.branches)
    header = ["Layer (type)", "Output Shape", "Param #"] + ["Connected to"] * with_inbound
    rows = [header]
    for node in network.nodes:
        if isinstance(node.layer, Picture) and not with_inbound:
            continue  # Keras' Sequential leaves its input out
        shape = f"({', '.join(['None', *map(str, node.output_shape)])})"
        row = [f"{node.name} ({node.type})", shape, f"{node.count:,}"]
        rows.append(row + [", ".join(node.inbound) or "-"] * with_inbound)
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    right = {2}

    def line(row: list[str], edge: str = "│") -> str:
        cells = [
            c.rjust(w) if i in right else c.ljust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        return f"{edge} " + " │ ".join(cells) + f" {edge}"

    def rule(left: str, middle: str, end: str, bar: str = "─") -> str:
        return left + middle.join(bar * (w + 2) for w in widths) + end

    frozen = network.count - network.trainable_count
    table = [rule("┌", "┬", "┐"), line(rows[0]), rule("├", "┼", "┤")]
    table += [line(row) for row in rows[1:]] + [rule("└", "┴", "┘")]
    return "\n".join(
        [
            f"Model: {network.experiment.name}",
            *table,
            f" Total params: {network.count:,} ({_size(network.count)})",
            f" Trainable params: {network.trainable_count:,} ({_size(network.trainable_count)})",
            f" Non-trainable params: {frozen:,} ({_size(frozen)})",
        ]
    )


def _size(parameters: int) -> str:
    size = 4.0 * parameters
    for unit in ("B", "KB", "MB"):
        if size < 1024:
            return f"{size:.2f} {unit}"
        size /= 1024
    return f"{size:.2f} GB"

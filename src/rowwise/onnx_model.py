"""A trained network as an ONNX model: bytes in, probabilities out, for any number of pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rowwise import config
from rowwise._version import __version__
from rowwise.cells import CELLS
from rowwise.errors import importing
from rowwise.network import OUTSIDE, READINGS, Join, Network, Node, Output, Picture, pixel_order

if TYPE_CHECKING:
    from onnx import ModelProto

Array = NDArray[Any]

OPSET = 17
IR_VERSION = 8  # what ONNX Runtime has read since 1.11
INPUT, PROBABILITIES, LABEL, BELIEFS = "pictures", "probabilities", "label", "beliefs"
POOLS = {"mean": "ReduceMean", "max": "ReduceMax"}
# ONNX's order of gates by ours: LSTM i, o, f, c from i, f, g, o; GRU z, r, h from r, z, n.
GATES = {"simple_rnn": (0,), "lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}
OPERATORS = {"simple_rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}
ACTIVATIONS = {"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid"}


def build(network: Network, weights: Mapping[str, Array], classes: Sequence[str]) -> ModelProto:
    """The network as a checked ONNX model.

    Its input `pictures` is uint8 [B, rows, columns], 0 is paper and 255 is ink; its outputs are
    `probabilities` float32 [B, C] and `label` int64 [B], the place of the most probable class in
    `classes`, which the metadata name. B is any number from one. A network that answers after every
    step also gives `beliefs` float32 [B, T, C], its probabilities after each.

    Raises MissingExtra where onnx is not installed.
    """
    with importing("onnx", "export"):
        from onnx import TensorProto, checker, helper
    graph = _Graph(network, weights)
    size: list[str | int | None] = ["batch", *network.shape]
    shares: list[str | int | None] = ["batch", network.classes]
    pictures = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, size)
    outputs = [
        helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, shares),
        helper.make_tensor_value_info(LABEL, TensorProto.INT64, ["batch"]),
    ]
    if network.experiment.target_replication:
        after_each: list[str | int | None] = ["batch", network.steps, network.classes]
        outputs.append(helper.make_tensor_value_info(BELIEFS, TensorProto.FLOAT, after_each))
    model = helper.make_model(
        helper.make_graph(
            graph.operations, network.experiment.name, [pictures], outputs, graph.constants
        ),
        producer_name="rowwise",
        producer_version=__version__,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
        doc_string="reads pictures uint8 [batch, rows, columns], 0 is paper and 255 is ink",
    )
    told = {
        "name": network.experiment.name,
        "classes": json.dumps(list(classes)),
        "rowwise": __version__,
        "digest": network.experiment.digest,
    }
    helper.set_model_props(model, told)
    checker.check_model(model, full_check=True)
    return model


def read(model: bytes, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What ONNX Runtime makes of pictures [N, rows, columns]: probabilities [N, C].

    Raises MissingExtra where onnxruntime is not installed.
    """
    with importing("onnxruntime", "export"):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run([PROBABILITIES], {INPUT: images})[0])


class _Graph:
    """Walks the nodes and writes each as ONNX operations; a value is called as its node."""

    def __init__(self, network: Network, weights: Mapping[str, Array]) -> None:
        self.operations: list[Any] = []
        self.constants: list[Any] = []
        self._weights = weights
        ends: dict[str, str] = {}
        for node in network.nodes:
            ends[node.name] = self._apply(node, [ends[name] for name in node.inbound])
        last = ends[network.nodes[-1].name]
        if network.experiment.target_replication:
            self._add("Softmax", [last], BELIEFS, axis=-1)
            place = self._constant("last_step", np.int64(network.steps - 1))
            self._add("Gather", [BELIEFS, place], PROBABILITIES, axis=1)
        else:
            self._add("Softmax", [last], PROBABILITIES, axis=-1)
        self._add("ArgMax", [PROBABILITIES], LABEL, axis=1, keepdims=0)

    def _apply(self, node: Node, inputs: list[str]) -> str:
        """Write a node; returns the name of its value."""
        name, x = node.name, inputs[0] if inputs else INPUT
        mine = {p.name.removeprefix(f"{name}."): self._weights[p.name] for p in node.parameters}
        match node.layer:
            case Picture():
                bytes_as_floats = self._add("Cast", [x], f"{name}.floats", to=1)
                levels = self._constant(f"{name}.levels", np.float32(255))
                return self._add("Div", [bytes_as_floats, levels], name)
            case config.Dropout():
                return x
            case layer if isinstance(layer, READINGS):
                rows, columns = node.input_shapes[0]
                order = pixel_order(layer, (rows, columns))
                return self._gather(name, x, order, rows * columns)
            case config.BatchNorm(epsilon=epsilon):
                return self._normalise(name, x, mine, np.float32(epsilon))
            case config.Recurrent() as layer:
                return self._recur(name, x, layer, mine, node.input_shapes[0][0])
            case config.Dense(activation=activation):
                if activation == "linear":
                    return self._dense(name, x, mine)
                sums = self._dense(f"{name}.sums", x, mine)
                return self._add(ACTIVATIONS[activation], [sums], name)
            case Output():
                return self._dense(name, x, mine)
            case config.Flatten():
                return self._reshape(name, x, (0, *node.output_shape))
            case config.Pool(by=by):
                pools = [
                    self._add(POOLS[one], [x], f"{name}.{one}", axes=[1], keepdims=0)
                    for one in by.split("_")
                ]
                return self._add("Concat", pools, name, axis=-1)
            case Join():
                return self._add("Concat", inputs, name, axis=-1)
        raise TypeError(f"{node.layer!r} is not a layer")

    def _gather(self, name: str, x: str, order: NDArray[np.int64], pixels: int) -> str:
        """The pixels that a reading takes at each time step, [B, T, I]."""
        flat = self._reshape(f"{name}.flat", x, (0, pixels))
        if (order == OUTSIDE).any():  # Gather counts -1 from the end: there a zero is put
            pads = self._constant(f"{name}.pads", np.array([0, 0, 0, 1], np.int64))
            flat = self._add("Pad", [flat, pads], f"{name}.edged")
        places = self._constant(f"{name}.order", order)
        return self._add("Gather", [flat, places], name, axis=1)

    def _normalise(self, name: str, x: str, mine: Mapping[str, Array], epsilon: np.float32) -> str:
        """As the engines do: what lies near the mean keeps its digits."""
        scale = mine["gamma"] / np.sqrt(mine["moving_variance"] + epsilon)
        mean = self._constant(f"{name}.mean", mine["moving_mean"])
        centred = self._add("Sub", [x, mean], f"{name}.centred")
        scaled = self._add(
            "Mul", [centred, self._constant(f"{name}.scale", scale)], f"{name}.scaled"
        )
        return self._add("Add", [scaled, self._constant(f"{name}.beta", mine["beta"])], name)

    def _dense(self, name: str, x: str, mine: Mapping[str, Array]) -> str:
        kernel = self._constant(f"{name}.kernel", mine["kernel"])
        product = self._add("MatMul", [x, kernel], f"{name}.product")
        return self._add("Add", [product, self._constant(f"{name}.bias", mine["bias"])], name)

    def _recur(
        self, name: str, x: str, layer: config.Recurrent, mine: Mapping[str, Array], steps: int
    ) -> str:
        """[B, T, I] → [B, T, H] or the last state [B, H]; both ways side by side."""
        ways = ("forward.", "backward.") if layer.bidirectional else ("",)
        tensors = [_direction(layer, way, mine) for way in ways]
        named = [
            self._constant(f"{name}.{letter}", np.stack(parts))
            for letter, parts in zip("WRB", zip(*tensors, strict=True), strict=True)
        ]
        activation = ACTIVATIONS[layer.activation]
        one_way = {
            "simple_rnn": [activation],
            "lstm": ["Sigmoid", activation, activation],
            "gru": ["Sigmoid", activation],
        }[layer.kind]
        after_product = {"linear_before_reset": 1} if layer.kind == "gru" else {}
        by_time = self._add("Transpose", [x], f"{name}.by_time", perm=[1, 0, 2])
        states, last = f"{name}.states", f"{name}.last"
        self._add(
            OPERATORS[layer.kind],
            [by_time, *named],
            *((states,) if layer.return_sequences else ("", last)),
            hidden_size=layer.units,
            direction="bidirectional" if layer.bidirectional else "forward",
            activations=one_way * len(ways),
            **after_product,
        )
        width = layer.units * len(ways)
        if layer.return_sequences:  # [T, D, B, H] → [B, T, D·H]
            together = self._add("Transpose", [states], f"{name}.together", perm=[2, 0, 1, 3])
            return self._reshape(name, together, (0, steps, width))
        together = self._add("Transpose", [last], f"{name}.together", perm=[1, 0, 2])
        return self._reshape(name, together, (0, width))

    def _reshape(self, name: str, x: str, shape: tuple[int, ...]) -> str:
        wanted = self._constant(f"{name}.shape", np.array(shape, np.int64))
        return self._add("Reshape", [x, wanted], name)

    def _constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def _add(self, operator: str, inputs: list[str], *outputs: str, **attributes: Any) -> str:
        from onnx import helper

        self.operations.append(
            helper.make_node(operator, inputs, list(outputs), name=outputs[-1], **attributes)
        )
        return outputs[-1]


def _direction(
    layer: config.Recurrent, way: str, mine: Mapping[str, Array]
) -> tuple[Array, Array, Array]:
    """One direction's weights as ONNX has them: W [G·H, I], R [G·H, H], both biases [2·G·H]."""

    def reordered(name: str) -> Array:
        gates = np.split(mine[way + name], len(GATES[layer.kind]), axis=-1)
        return np.concatenate([gates[gate] for gate in GATES[layer.kind]], axis=-1)

    bias = reordered("bias")
    has_two = CELLS[layer.kind].has_recurrent_bias
    recurrent_bias = reordered("recurrent_bias") if has_two else np.zeros_like(bias)
    biases = np.concatenate([bias, recurrent_bias])
    return reordered("kernel").T, reordered("recurrent_kernel").T, biases

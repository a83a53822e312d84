"""The benchmarks' networks as ONNX graphs, read by ONNX Runtime; the batch axis is free."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from networks import BATCH_NORM_EPSILON, CLASSES, Recipe

if TYPE_CHECKING:
    from contender import Job

OPSET = 17
IR_VERSION = 9
OPERATORS = {"simple_rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}
# Of ours (i, f, g, o and r, z, n) in ONNX' order: i, o, f, c and z, r, h.
ORDERS = {"simple_rnn": [0], "lstm": [0, 3, 1, 2], "gru": [1, 0, 2]}
ACTIVATIONS = {"tanh": "Tanh", "relu": "Relu"}


def versions() -> dict[str, str]:
    """What this contender is made of."""
    return {"onnxruntime": version("onnxruntime"), "onnx": version("onnx")}


def constants(recipe: Recipe, weights: dict[str, Any]) -> dict[str, Any]:
    """Our weights as ONNX wants them: gates first, then rows; batch norm as scale and shift."""
    norm = "batch_normalization"
    scale = weights[f"{norm}.gamma"] / np.sqrt(
        weights[f"{norm}.moving_variance"] + np.float32(BATCH_NORM_EPSILON)
    )

    def reordered(name: str) -> Any:
        parts = np.split(weights[f"{recipe.cell}.{name}"], len(ORDERS[recipe.cell]), axis=-1)
        return np.concatenate([parts[i].T for i in ORDERS[recipe.cell]])

    bias = reordered("bias")
    of_h = reordered("recurrent_bias") if recipe.cell == "gru" else np.zeros_like(bias)
    found = {
        "scale": scale,
        "shift": weights[f"{norm}.beta"] - weights[f"{norm}.moving_mean"] * scale,
        "W": reordered("kernel")[None],
        "R": reordered("recurrent_kernel")[None],
        "B": np.concatenate([bias, of_h])[None],
        "first": np.array([0]),
    }
    for name, value in weights.items():
        if name.startswith("dense"):
            found[name] = value
    return found


def graph(recipe: Recipe, weights: dict[str, Any]) -> Any:
    """The model: "x" float32 [N, T, I] → "probabilities" float32 [N, C]."""
    from onnx import TensorProto, helper, numpy_helper

    given = constants(recipe, weights)
    act = ACTIVATIONS[recipe.activation]
    settings: dict[str, Any] = {"hidden_size": recipe.units}
    settings["activations"] = {
        "simple_rnn": [act],
        "lstm": ["Sigmoid", act, act],
        "gru": ["Sigmoid", act],
    }[recipe.cell]
    if recipe.cell == "gru":
        settings["linear_before_reset"] = 1
    node = helper.make_node
    nodes = [
        node("Mul", ["x", "scale"], ["scaled"]),
        node("Add", ["scaled", "shift"], ["normalised"]),
        node("Transpose", ["normalised"], ["by_step"], perm=[1, 0, 2]),
        node(OPERATORS[recipe.cell], ["by_step", "W", "R", "B"], ["", "last"], **settings),
        node("Squeeze", ["last", "first"], ["h"]),
    ]
    before = "h"
    for i, (_, activation) in enumerate((*recipe.head, (CLASSES, "softmax"))):
        dense = f"dense_{i}" if i else "dense"
        nodes.append(node("Gemm", [before, f"{dense}.kernel", f"{dense}.bias"], [f"{dense}.z"]))
        before = "probabilities" if activation == "softmax" else f"{dense}.out"
        kind = ACTIVATIONS.get(activation, "Softmax")
        nodes.append(node(kind, [f"{dense}.z"], [before]))
    shape = ["N", recipe.steps, recipe.features]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "network",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", CLASSES])],
            [numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in given.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    model.ir_version = IR_VERSION
    return model


def reader(job: Job) -> Callable[..., Any]:
    """A session of ONNX Runtime with the job's threads."""
    import onnxruntime

    with np.load(job.weights, allow_pickle=False) as weights:
        model = graph(job.recipe, dict(weights))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    def read(x: Any, batch: int) -> Any:
        parts = [x[first : first + batch] for first in range(0, len(x), batch)]
        return np.concatenate([session.run(None, {"x": part})[0] for part in parts])

    return read

"""A network of ours in Keras: the same layers, our weights in its gate order, its own optimisers.

Keras runs on its torch backend, in float64 as a reference or in float32 as its users run it.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conformance import Array, Case, as_floats, directions, own_weights

from rowwise import config
from rowwise.config import Columns, Patches, Permuted, Pixels, Recurrent, Rows
from rowwise.network import Join, Network, Node, Output, Picture, pixel_order

Weights = Mapping[str, Array]

# Keras 3.15 makes a numpy array of a tensor by np.array, to which torch's __array__ (2.13) gives no
# `copy`; numpy 2 warns of it. A module that reads Keras' tensors takes this as its pytestmark.
KERAS_WARNING = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning:keras"
)

# --- Keras itself -----------------------------------------------------------------------------


def import_keras() -> ModuleType:
    """Keras on its torch backend, its home kept out of the user's; skips where it is missing."""
    for package in ("keras", "torch"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the reference is Keras on torch, {package} is missing: rowwise[test]")
    if "keras" not in sys.modules:
        with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as home:
            patch.setenv("KERAS_BACKEND", "torch")
            patch.setenv("KERAS_HOME", home)
            import keras
    import keras

    if keras.backend.backend() != "torch":
        pytest.skip(f"Keras must run on torch here, it runs on {keras.backend.backend()} already")
    return keras


@contextmanager
def keras_in(floatx: str) -> Iterator[ModuleType]:
    """Keras with everything in `floatx`, "float64" or "float32"; restored afterwards.

    On the torch backend Keras' table of promotions makes float64 with float32, and with a Python
    number, float32: matmul, maximum and batch normalisation round to float32 in silence, while
    every weight and result says float64. The table is private; this is the one place that edits it.
    The policy of layers follows floatx only until it is first asked for, so it is set too.
    """
    keras = import_keras()
    from keras.src.backend.common import dtypes

    table = dtypes.BIT64_TO_BIT32_DTYPE
    promoted, before = table["float64"], keras.config.floatx()
    policy = keras.config.dtype_policy()
    table["float64"] = floatx
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(floatx)
    try:
        assert keras.backend.result_type(floatx, float) == floatx
        yield keras
    finally:
        table["float64"] = promoted
        keras.config.set_floatx(before)
        keras.config.set_dtype_policy(policy)


# --- the twin ---------------------------------------------------------------------------------


class KerasTwin:
    """The same network in Keras' functional form: `model` ends in a softmax, `tap` gives nodes."""

    def __init__(self, network: Network) -> None:
        import keras

        self.network = network
        self._keras = keras
        self._layers: dict[str, Any] = {}
        tensors: dict[str, Any] = {}
        for node in network.nodes:
            before = [tensors[name] for name in node.inbound]
            tensors[node.name] = self._place(node, before)
        source = tensors[network.nodes[0].name]
        end = tensors[network.nodes[-1].name]
        self.model = keras.Model(source, keras.layers.Activation("softmax")(end))
        self.tap = keras.Model(source, tensors)

    def load(self, weights: Weights) -> None:
        for node in self.network.nodes:
            if node.parameters:
                self._layers[node.name].set_weights(to_keras(node, weights))

    def weights(self) -> dict[str, Array]:
        weights: dict[str, Array] = {}
        for node in self.network.nodes:
            if node.parameters:
                weights |= from_keras(node, self._layers[node.name].get_weights())
        return weights

    def outputs(self, images: Array) -> dict[str, Array]:
        given = self.tap(as_floats(images).astype(self._keras.config.floatx()), training=False)
        return {k: self._keras.ops.convert_to_numpy(v) for k, v in given.items()}

    def _place(self, node: Node, before: list[Any]) -> Any:
        keras = self._keras
        layers = keras.layers
        x: Any = before[0] if before else None
        match node.layer:
            case Picture():
                return keras.Input(node.output_shape)
            case Join():
                return layers.Concatenate()(before)
            case Rows(before=before, after=after):
                return self._windows(x, before, after)
            case Columns(before=before, after=after):
                return self._windows(layers.Permute((2, 1))(x), before, after)
            case Pixels():
                return layers.Reshape((-1, 1))(x)
            case Permuted() as reading:
                order = pixel_order(reading, self.network.shape)
                return keras.ops.take(layers.Reshape((-1, 1))(x), order[:, 0], axis=1)
            case Patches(height=h, width=w):
                rows, columns = self.network.shape
                corners = [(r, c) for r in range(0, rows, h) for c in range(0, columns, w)]
                cut = [layers.Flatten()(x[:, r : r + h, c : c + w]) for r, c in corners]
                return keras.ops.stack(cut, axis=1)
            case config.Pool(by="mean_max"):
                pools = layers.GlobalAveragePooling1D(), layers.GlobalMaxPooling1D()
                return layers.Concatenate()([pool(x) for pool in pools])
            case _:
                layer = self._layers[node.name] = keras_layer(node)
                return layer(x)

    def _windows(self, lines: Any, before: int, after: int) -> Any:
        if not before and not after:
            return lines
        layers = self._keras.layers
        padded = layers.ZeroPadding1D((before, after))(lines)
        span = before + 1 + after
        return layers.Concatenate()(
            [layers.Cropping1D((i, span - 1 - i))(padded) for i in range(span)]
        )


def keras_layer(node: Node) -> Any:
    """The Keras layer that a node stands for, with Keras' own defaults wherever ours agree."""
    from keras import layers

    match node.layer:
        case config.BatchNorm(momentum=momentum, epsilon=epsilon):
            return layers.BatchNormalization(momentum=momentum, epsilon=epsilon)
        case Recurrent() as layer:
            make = {"simple_rnn": layers.SimpleRNN, "lstm": layers.LSTM, "gru": layers.GRU}
            one = make[layer.kind](
                layer.units, activation=layer.activation, return_sequences=layer.return_sequences
            )
            return layers.Bidirectional(one) if layer.bidirectional else one
        case config.Dropout(rate=rate):
            return layers.Dropout(rate)
        case config.Dense(units=units, activation=activation):
            return layers.Dense(units, activation=activation)
        case Output():
            return layers.Dense(node.output_shape[-1])
        case config.Flatten():
            return layers.Flatten()
        case config.Pool(by="mean"):
            return layers.GlobalAveragePooling1D()
        case config.Pool(by="max"):
            return layers.GlobalMaxPooling1D()
    raise TypeError(node)


def _swap_gru_gates(a: Array) -> Array:
    """Ours and PyTorch's r, z, n to Keras' z, r, h, and back."""
    first, second, third = np.split(a, 3, axis=-1)
    return np.concatenate([second, first, third], axis=-1)


def to_keras(node: Node, weights: Weights) -> list[Array]:
    """A node's weights in the order and form of Keras' `set_weights`."""
    mine = own_weights(node, weights)
    if not isinstance(node.layer, Recurrent):
        return list(mine.values())
    arrays: list[Array] = []
    for one in directions(node.layer, mine):
        kernel, recurrent, bias = one["kernel"], one["recurrent_kernel"], one["bias"]
        if node.layer.kind == "gru":
            bias = np.stack([bias, one["recurrent_bias"]])
            kernel, recurrent, bias = map(_swap_gru_gates, (kernel, recurrent, bias))
        arrays += [kernel, recurrent, bias]
    return arrays


def from_keras(node: Node, arrays: list[Array]) -> dict[str, Array]:
    """The inverse of `to_keras`, by our full names."""
    if isinstance(node.layer, Recurrent) and node.layer.kind == "gru":
        swapped = [_swap_gru_gates(a) for a in arrays]
        ways = [swapped[i : i + 3] for i in range(0, len(swapped), 3)]
        arrays = [a for kernel, recurrent, bias in ways for a in (kernel, recurrent, *bias)]
    return {p.name: a for p, a in zip(node.parameters, arrays, strict=True)}


def keras_optimizer(experiment: config.Experiment) -> Any:
    """The experiment's optimiser and clipping as Keras' own."""
    from keras import optimizers

    names = {"value": "clipvalue", "norm": "clipnorm", "global_norm": "global_clipnorm"}
    clipping = experiment.clipping
    clip = {} if clipping is None else {names[clipping.by]: clipping.limit}
    make = {
        "adam": optimizers.Adam,
        "adamw": optimizers.AdamW,
        "rmsprop": optimizers.RMSprop,
        "sgd": optimizers.SGD,
    }[experiment.optimizer.kind]
    return make(**experiment.optimizer.model_dump(exclude={"kind"}), **clip)


def compiled(case: Case) -> KerasTwin:
    """The case in Keras with its weights, ready to train on `targets` with the accuracy as metric.

    Keras' sparse loss knows no label smoothing, so with it the targets are one-hot vectors.
    """
    import keras

    twin = KerasTwin(case.network)
    twin.load(case.weights)
    smoothing = case.experiment.label_smoothing
    one_hot = keras.losses.CategoricalCrossentropy(label_smoothing=smoothing)
    twin.model.compile(
        optimizer=keras_optimizer(case.experiment),
        loss=one_hot if smoothing else "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    return twin


def targets(case: Case, labels: Array) -> Array:
    """Labels [N] in the form that the loss of `compiled` takes."""
    if not case.experiment.label_smoothing:
        return labels
    one_hot: Array = np.eye(case.classes)[labels]
    return one_hot


@cache
def keras_outputs(case: Case) -> dict[str, Array]:
    twin = KerasTwin(case.network)
    twin.load(case.weights)
    return twin.outputs(case.images)

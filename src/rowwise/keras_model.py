"""A trained network as a Keras model: the same layers, as Keras describes and orders them.

Keras itself is not needed to write the file, only to try it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowwise import config, engines, keras_archive
from rowwise.cells import CELLS
from rowwise.errors import ModelError
from rowwise.files import parsing
from rowwise.network import Join, Network, Node, Output, Picture

Array = NDArray[Any]
Tree = dict[str, Any]

POOLS = {"mean": "GlobalAveragePooling1D", "max": "GlobalMaxPooling1D"}
OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop", "sgd": "SGD"}
CLIPPING = {"value": "clipvalue", "norm": "clipnorm", "global_norm": "global_clipnorm"}
BACKENDS = ("tensorflow", "torch", "jax")
FLOAT32 = {"dtype": "float32"}


def build(network: Network, weights: Mapping[str, Array]) -> bytes:
    """The network as the bytes of a `.keras` file, compiled as it was trained.

    The model takes float32 [B, rows, columns] in [0, 1] and gives probabilities [B, C]. It is
    Sequential where the network is a chain, functional where it has branches.

    Raises MissingExtra where h5py is not installed, ModelError where Keras has no such layer.
    """
    stages = _stages(network)
    description = {
        **(_functional if network.experiment.branches else _sequential)(network, stages),
        "compile_config": _compiled(network.experiment),
    }
    arrays = {node.name: to_keras(node, weights) for node in network.nodes if node.parameters}
    return keras_archive.write(description, arrays, _slots(network, stages))


def to_keras(node: Node, weights: Mapping[str, Array]) -> list[Array]:
    """A node's weights as Keras' layer has them."""
    mine = {p.name.removeprefix(f"{node.name}."): weights[p.name] for p in node.parameters}
    layer = node.layer
    if not isinstance(layer, config.Recurrent):
        return list(mine.values())
    arrays: list[Array] = []
    for way in ("forward.", "backward.") if layer.bidirectional else ("",):
        kernel, recurrent, bias = (
            mine[way + name] for name in ("kernel", "recurrent_kernel", "bias")
        )
        if layer.kind == "gru":
            bias = np.stack([bias, mine[f"{way}recurrent_bias"]])
            kernel, recurrent, bias = map(_exchange_gates, (kernel, recurrent, bias))
        arrays += [kernel, recurrent, bias]
    return arrays


def from_keras(node: Node, arrays: list[Array]) -> dict[str, Array]:
    """The inverse of `to_keras`, by the network's names."""
    if isinstance(node.layer, config.Recurrent) and node.layer.kind == "gru":
        ours = [_exchange_gates(array) for array in arrays]
        ways = [ours[i : i + 3] for i in range(0, len(ours), 3)]
        arrays = [a for kernel, recurrent, bias in ways for a in (kernel, recurrent, *bias)]
    return {p.name: np.ascontiguousarray(a) for p, a in zip(node.parameters, arrays, strict=True)}


def _exchange_gates(array: Array) -> Array:
    """The GRU's gates r, z, n as Keras' z, r, h, and back."""
    first, second, third = np.split(array, 3, axis=-1)
    return np.concatenate([second, first, third], axis=-1)


# --- the description --------------------------------------------------------------------------


def _stages(network: Network) -> dict[str, list[Tree]]:
    """Each node as the Keras layers that do what it does, by the node's name.

    The last layer of a node carries its name. Keras orders layers by how far they are from the
    end, the farthest first, and names their weights in that order; so does this.
    """
    distance: dict[str, int] = {}
    for node in reversed(network.nodes):
        distance.setdefault(node.name, 0)
        for name in node.inbound:
            own = distance[node.name] + len(_layers(node, network))
            distance[name] = max(distance.get(name, 0), own)
    ordered = sorted(network.nodes, key=lambda node: -distance[node.name])
    return {node.name: _layers(node, network) for node in ordered}


def _layers(node: Node, network: Network) -> list[Tree]:
    """The Keras layers of a node."""
    match node.layer:
        case Picture():
            batch_shape = {"batch_shape": [None, *node.output_shape]}
            return [_layer("InputLayer", node.name, **batch_shape)]
        case Join():
            return [_layer("Concatenate", node.name, axis=-1)]
        case config.Columns(before=0, after=0):
            return [_layer("Permute", node.name, dims=[2, 1])]
        case config.Pixels():
            return [_layer("Reshape", node.name, target_shape=list(node.output_shape))]
        case config.Patches(height=h, width=w):
            rows, columns = network.shape
            tiles = [rows // h, h, columns // w, w]
            return [
                _layer("Reshape", f"{node.name}_tiles", target_shape=tiles),
                _layer("Permute", f"{node.name}_in_rows", dims=[1, 3, 2, 4]),
                _layer("Reshape", node.name, target_shape=list(node.output_shape)),
            ]
        case config.BatchNorm(momentum=momentum, epsilon=epsilon):
            settings = {"axis": -1, "momentum": momentum, "epsilon": epsilon}
            return [_layer("BatchNormalization", node.name, **settings)]
        case config.Recurrent() as layer:
            return [_recurrent(node.name, layer)]
        case config.Dropout(rate=rate):
            return [_layer("Dropout", node.name, rate=rate)]
        case config.Dense(units=units, activation=activation):
            return [_layer("Dense", node.name, units=units, activation=activation)]
        case Output() if not network.experiment.target_replication:
            units = node.output_shape[0]
            return [_layer("Dense", node.name, units=units, activation="softmax")]
        case config.Flatten():
            return [_layer("Flatten", node.name)]
        case config.Pool(by=by) if by in POOLS:
            return [_layer(POOLS[by], node.name)]
    raise ModelError(
        f"a Keras model is made of Keras' own layers, and there is none for {node.name} in "
        f"{network.experiment.name}; take --to onnx"
    )


def _layer(kind: str, name: str, **settings: Any) -> Tree:
    return {
        "module": "keras.layers",
        "class_name": kind,
        "config": {"name": name, **FLOAT32, **settings},
        "registered_name": None,
    }


def _recurrent(name: str, layer: config.Recurrent) -> Tree:
    kind = CELLS[layer.kind].keras_name
    settings: Tree = {
        "units": layer.units,
        "activation": layer.activation,
        "return_sequences": layer.return_sequences,
    }
    if layer.kind != "simple_rnn":
        settings["recurrent_activation"] = "sigmoid"
    if layer.kind == "gru":
        settings["reset_after"] = True
    if not layer.bidirectional:
        return _layer(kind, name, **settings)
    ways = {
        "layer": _layer(kind, f"forward_{layer.kind}", **settings),
        "backward_layer": _layer(kind, f"backward_{layer.kind}", go_backwards=True, **settings),
    }
    return _layer("Bidirectional", name, merge_mode="concat", **ways)


def _sequential(network: Network, stages: Mapping[str, list[Tree]]) -> Tree:
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {
            "name": network.experiment.name,
            "trainable": True,
            **FLOAT32,
            "layers": [layer for node in network.nodes for layer in stages[node.name]],
            "build_input_shape": [None, *network.shape],
        },
        "registered_name": None,
        "build_config": {"input_shape": [None, *network.shape]},
    }


def _functional(network: Network, stages: Mapping[str, list[Tree]]) -> Tree:
    nodes = {node.name: node for node in network.nodes}
    shapes: dict[str, list[int]] = {}
    layers = []
    for name, own in stages.items():
        before = list(nodes[name].inbound)
        for layer in own:
            given = [_tensor(one, shapes[one]) for one in before]
            args = [given] if isinstance(nodes[name].layer, Join) else given
            inbound: list[Tree] = [{"args": args, "kwargs": {}}] if given else []
            own_name = layer["config"]["name"]
            shapes[own_name] = _shape(layer, shapes[before[0]] if before else [], nodes[name])
            layers.append({**layer, "name": own_name, "inbound_nodes": inbound})
            before = [own_name]
    return {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": {
            "name": network.experiment.name,
            "trainable": True,
            "layers": layers,
            "input_layers": [network.nodes[0].name, 0, 0],
            "output_layers": [network.nodes[-1].name, 0, 0],
        },
        "registered_name": "Functional",
        "build_config": {"input_shape": None},
    }


def _shape(layer: Tree, before: list[int], node: Node) -> list[int]:
    """The output shape of one of a node's layers."""
    settings = layer["config"]
    match layer["class_name"]:
        case "Reshape":
            return list(settings["target_shape"])
        case "Permute":
            return [before[axis - 1] for axis in settings["dims"]]
    return list(node.output_shape)


def _tensor(layer: str, shape: list[int]) -> Tree:
    told = {"shape": [None, *shape], **FLOAT32, "keras_history": [layer, 0, 0]}
    return {"class_name": "__keras_tensor__", "config": told}


# --- how it was trained -----------------------------------------------------------------------


def _compiled(experiment: config.Experiment) -> Tree:
    """Optimiser and loss; a schedule is not Keras' to know, it gets the peak learning rate."""
    optimizer = experiment.optimizer
    settings = optimizer.model_dump(exclude={"kind"})
    if experiment.clipping is not None:
        settings[CLIPPING[experiment.clipping.by]] = experiment.clipping.limit
    loss: Any = "sparse_categorical_crossentropy"
    if experiment.label_smoothing:  # which Keras knows for one-hot targets alone
        loss = {
            "module": "keras.losses",
            "class_name": "CategoricalCrossentropy",
            "config": {"label_smoothing": experiment.label_smoothing},
            "registered_name": None,
        }
    return {
        "optimizer": {
            "module": "keras.optimizers",
            "class_name": OPTIMIZERS[optimizer.kind],
            "config": {"name": optimizer.kind, **settings},
            "registered_name": None,
        },
        "loss": loss,
        "loss_weights": None,
        "metrics": ["accuracy"],
        "weighted_metrics": None,
        "run_eagerly": False,
        "steps_per_execution": 1,
        "jit_compile": False,
    }


def _slots(network: Network, stages: Mapping[str, list[Tree]]) -> list[tuple[int, ...]]:
    """The shapes of the optimiser's slots as Keras lists them."""
    nodes = {node.name: node for node in network.nodes}
    fresh = {p.name: np.empty(p.shape) for p in network.parameters.values()}
    shapes = []
    for name in stages:
        arrays = to_keras(nodes[name], fresh)
        if isinstance(nodes[name].layer, config.BatchNorm):
            arrays = arrays[:2]
        shapes += [array.shape for array in arrays]
    optimizer = network.experiment.optimizer
    number = len(engines.slot_names(optimizer))
    if optimizer.kind in ("adam", "adamw"):  # both slots of a weight stand together
        return [shape for shape in shapes for _ in range(number)]
    return shapes * number


# --- Keras itself -----------------------------------------------------------------------------


def why_not() -> str | None:
    """Why Keras cannot be asked here, or None where it can."""
    if importlib.util.find_spec("keras") is None:
        return "Keras is not installed"
    if "keras" not in sys.modules and "KERAS_BACKEND" not in os.environ and _backend() is None:
        return f"Keras needs one of {', '.join(BACKENDS)}, and none is installed"
    return None


def read(path: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What Keras makes of pictures [N, rows, columns] by the model in a file: [N, C].

    Keras runs on the backend that it is set to ($KERAS_BACKEND, or whatever this process has
    imported already), or else on the first of BACKENDS that is installed.

    Raises ModelError where Keras does not open the file.
    """
    with parsing(ModelError, f"Keras does not open {path}"):
        keras = _import_keras()
        model = keras.saving.load_model(path, safe_mode=True)
    given = images.astype(np.float32) / np.float32(255)
    with warnings.catch_warnings():
        # Keras 3.15 takes arrays from torch in a way that numpy 2 warns of.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        answers = [
            np.asarray(keras.ops.convert_to_numpy(model(given[i : i + 500], training=False)))
            for i in range(0, len(given), 500)
        ]
    return np.concatenate(answers)


def _backend() -> str | None:
    return next((name for name in BACKENDS if importlib.util.find_spec(name)), None)


def _import_keras() -> ModuleType:
    if "keras" in sys.modules or "KERAS_BACKEND" in os.environ:
        return importlib.import_module("keras")
    with _set_to(_backend()):
        return importlib.import_module("keras")


@contextmanager
def _set_to(backend: str | None) -> Iterator[None]:
    """Keras set to a backend while it is imported, without a trace in the user's settings."""
    with tempfile.TemporaryDirectory() as home:
        before = os.environ.get("KERAS_HOME")
        os.environ |= {"KERAS_HOME": home, "KERAS_BACKEND": backend or ""}
        try:
            yield
        finally:
            del os.environ["KERAS_BACKEND"], os.environ["KERAS_HOME"]
            if before is not None:
                os.environ["KERAS_HOME"] = before

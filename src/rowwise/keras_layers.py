"""The layers of a Keras model as those of an experiment; what Rowwise lacks is refused by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from rowwise import config
from rowwise.cells import CELLS
from rowwise.errors import ConfigError, ModelError
from rowwise.keras_archive import Archive, Layer, is_keras
from rowwise.keras_model import CLIPPING, OPTIMIZERS, POOLS
from rowwise.settings import Settings, parse

Tree = dict[str, Any]

CELL_KINDS = {cell.keras_name: cell.kind for cell in CELLS.values()}
POOL_KINDS = {name: by for by, name in POOLS.items()}
OPTIMIZER_MODELS: dict[str, type[Settings]] = {
    OPTIMIZERS["adam"]: config.Adam,
    OPTIMIZERS["adamw"]: config.AdamW,
    OPTIMIZERS["rmsprop"]: config.RMSprop,
    OPTIMIZERS["sgd"]: config.SGD,
}
KNOWN = "BatchNormalization, SimpleRNN, LSTM, GRU, Bidirectional, Dropout, Dense, Flatten, " + (
    ", ".join(POOLS.values())
)
# Of a setting, the values with which a layer is what Rowwise's is.
ALIKE: dict[str, Mapping[str, tuple[Any, ...]]] = {
    "BatchNormalization": {"renorm": (False,), "synchronized": (False,)},
    "SimpleRNN": {},
    "LSTM": {"recurrent_activation": ("sigmoid",)},
    "GRU": {"recurrent_activation": ("sigmoid",), "reset_after": (True,)},
    "Bidirectional": {"merge_mode": ("concat",)},
    "Dropout": {"noise_shape": (None,)},
    "Dense": {"quantization_config": (None,)},
    "Flatten": {},
    "GlobalAveragePooling1D": {"keepdims": (False,)},
    "GlobalMaxPooling1D": {"keepdims": (False,)},
}
ALWAYS: Mapping[str, tuple[Any, ...]] = {
    "data_format": ("channels_last", None),
    "go_backwards": (False,),
    "return_state": (False,),
    "stateful": (False,),
    "time_major": (False,),
}


class Part(NamedTuple):
    """A layer of an experiment, and the Keras layer whose weights it has."""

    settings: Tree
    source: Layer


class Interpreter:
    """Reads an experiment out of the layers of a Keras model."""

    def __init__(self, archive: Archive) -> None:
        self.left_out: list[str] = []
        self._path = archive.path
        self._layers = {layer.name: layer for layer in archive.layers}
        self._reached: set[str] = set()
        self.shape, input_name = self._input(archive.layers)
        ends = self._ends(archive.layers, input_name)
        trunk, source = self._back(ends)
        tree: Tree = {}
        self.parts: list[Part] = []
        if source.kind == "Concatenate":
            self._check(source, {"axis": (-1, 1)})
            branches = []
            for name in source.inbound:
                chain, start = self._back(self._layers[name])
                if start.name != input_name:
                    raise self._error(start, "branches must begin at the picture and meet once")
                reading, rest = self._reading(chain)
                parts = self._translate(rest)
                branches.append({"reading": reading, "layers": [p.settings for p in parts]})
                self.parts += parts
            tree["branches"] = branches
        else:
            tree["reading"], trunk = self._reading(trunk)
        self._check_reached(archive.layers)
        parts = self._translate(trunk)
        self.parts += parts
        self.classes = self._close(parts)
        tree["layers"] = [part.settings for part in parts[:-1]]
        by = f"Keras {archive.version}".strip()
        note = f"Imported from {self._path.name}, which {by} wrote; batch and epochs are unknown."
        self.experiment = {
            "name": name_of(self._path),
            "note": note,
            **tree,
            **self._training(archive),
        }

    def _input(self, layers: Sequence[Layer]) -> tuple[tuple[int, int], str]:
        """Rows and columns, and the name of the layer that gives the picture, or of none."""
        inputs = [layer for layer in layers if layer.kind == "InputLayer"]
        if len(inputs) > 1:
            raise self._error(inputs[1], "a network must read one picture")
        settings = (inputs or layers)[0].settings
        shape = settings.get("batch_shape", settings.get("batch_input_shape"))
        second = next((one for one in layers if one.kind == "Reshape"), None)
        if shape and second is not None and inputs and second.inbound == (inputs[0].name,):
            whole = second.settings["target_shape"]
            if len(whole) == 2 and len(shape) != 3 and prod(whole) == prod(shape[1:]):
                shape = [None, *whole]
        if not (shape and len(shape) == 3 and all(isinstance(n, int) for n in shape[1:])):
            told = "nothing" if not shape else f"[{', '.join(map(str, shape))[:60]}]"
            raise ModelError(
                f"{self._path}: the input must be pictures [None, rows, columns], got {told}"
            )
        return (shape[1], shape[2]), inputs[0].name if inputs else ""

    def _ends(self, layers: Sequence[Layer], input_name: str) -> Layer:
        """The last layer; every other one is used once, and the input perhaps by branches."""
        used = [name for layer in layers for name in layer.inbound]
        for layer in layers:
            if layer.name != input_name and used.count(layer.name) > 1:
                raise self._error(layer, "a layer may be used once")
        ends = [layer for layer in layers if layer.name not in used]
        if len(ends) != 1:
            raise self._error(ends[0] if ends else layers[0], "a network must have one output")
        return ends[0]

    def _back(self, end: Layer) -> tuple[list[Layer], Layer]:
        """The chain of layers that ends in `end`, and what it starts from."""
        chain: list[Layer] = []
        self._reached.add(end.name)
        while end.kind not in ("InputLayer", "Concatenate"):
            chain.append(end)
            if not end.inbound:
                return chain[::-1], Layer("InputLayer", "", {}, ())
            if len(end.inbound) > 1:
                raise self._error(end, "a layer other than Concatenate must have one input")
            end = self._layers[end.inbound[0]]
            self._reached.add(end.name)
        return chain[::-1], end

    def _check_reached(self, layers: Sequence[Layer]) -> None:
        """Refuse what stands beside the way to the output: a cycle, since each is used once."""
        for layer in layers:
            if layer.name not in self._reached:
                raise self._error(layer, "every layer must lead from the picture to the output")

    def _reading(self, chain: list[Layer]) -> tuple[Tree, list[Layer]]:
        """How the picture is read, and the layers after that."""
        if chain and chain[0].kind == "Rescaling":
            scale = float(chain[0].settings["scale"])
            if abs(scale * 255 - 1) > 1e-6 or chain[0].settings.get("offset", 0.0) != 0:
                raise self._error(chain[0], "bytes must be divided by 255")
            chain = chain[1:]
        kinds = [layer.kind for layer in chain[:3]]
        shaped = [
            list(layer.settings.get("target_shape") or layer.settings.get("dims") or [])
            for layer in chain[:3]
        ]
        rows, columns = self.shape
        if kinds[:1] == ["Permute"] and shaped[0] == [2, 1]:
            return {"kind": "columns"}, chain[1:]
        if kinds == ["Reshape", "Permute", "Reshape"] and shaped[1] == [1, 3, 2, 4]:
            down, h, across, w = (shaped[0] + [0] * 4)[:4]
            if (down * h, across * w) == self.shape and shaped[2] in (
                [-1, h * w],
                [down * across, h * w],
            ):
                return {"kind": "patches", "height": h, "width": w}, chain[3:]
        if kinds[:1] == ["Reshape"]:
            if shaped[0] in ([-1, 1], [rows * columns, 1]) and columns > 1:
                return {"kind": "pixels"}, chain[1:]
            if shaped[0] == [rows, columns]:
                return {"kind": "rows"}, chain[1:]
        return {"kind": "rows"}, chain

    def _translate(self, chain: Sequence[Layer]) -> list[Part]:
        parts: list[Part] = []
        for layer in chain:
            if layer.kind in ("Activation", "ReLU", "Softmax"):
                activation = layer.kind.lower()
                if layer.kind == "Activation":
                    activation = self._activation(layer, layer.settings)
                if not parts or parts[-1].settings.get("activation") != "linear":
                    raise self._error(layer, "an activation must stand behind a linear Dense layer")
                parts[-1].settings["activation"] = activation
            else:
                parts.append(Part(self._settings(layer), layer))
        return parts

    def _settings(self, layer: Layer) -> Tree:
        """A Keras layer as a layer of an experiment."""
        self._check(layer)
        own = layer.settings
        match layer.kind:
            case "BatchNormalization":
                momentum, epsilon = (float(own[key]) for key in ("momentum", "epsilon"))
                return {"kind": "batch_norm", "momentum": momentum, "epsilon": epsilon}
            case "Dropout":
                return {"kind": "dropout", "rate": float(own["rate"])}
            case "Dense":
                activation = self._activation(layer, own)
                return {"kind": "dense", "units": own["units"], "activation": activation}
            case "Flatten":
                return {"kind": "flatten"}
            case "Bidirectional":
                return self._both_ways(layer)
            case kind if kind in POOL_KINDS:
                return {"kind": "pool", "by": POOL_KINDS[kind]}
        return {
            "kind": CELL_KINDS[layer.kind],
            "units": own["units"],
            "activation": self._activation(layer, own),
            "return_sequences": bool(own.get("return_sequences", False)),
        }

    def _both_ways(self, layer: Layer) -> Tree:
        """A Bidirectional layer; its ways differ in direction alone."""
        told = [layer.settings["layer"]]
        if layer.settings.get("backward_layer") is not None:  # Keras 2 may leave it to itself
            told.append(layer.settings["backward_layer"])
        ways = []
        for backwards, one in enumerate(told):
            if not is_keras(one) or one["class_name"] not in CELL_KINDS:
                raise self._error(layer, f"it must be around one of {', '.join(CELL_KINDS)}")
            settings = dict(one["config"])
            if bool(settings.pop("go_backwards", False)) != bool(backwards):
                raise self._error(layer, "it must read forward first and then backward")
            ways.append(self._settings(Layer(one["class_name"], layer.name, settings, ())))
        if ways[0] != ways[-1]:
            raise self._error(layer, "both ways must be alike")
        return {**ways[0], "bidirectional": True}

    def _check(self, layer: Layer, alike: Mapping[str, tuple[Any, ...]] | None = None) -> None:
        """Raise where a layer is of no known class, or a setting makes it another thing."""
        if alike is None and layer.kind not in ALIKE:
            why = f"Rowwise has no layer {layer.kind}; it has {KNOWN}"
            if layer.kind == "Lambda":
                why = "a Lambda layer holds code, and code of a model file is never run"
            raise self._error(layer, why)
        own = layer.settings
        for key, allowed in {**ALWAYS, **(ALIKE[layer.kind] if alike is None else alike)}.items():
            got = _plain(own.get(key, allowed[0]))
            if got not in allowed:
                raise self._error(layer, f"its {key} must be {allowed[0]}, got {str(got)[:40]}")
        dtype = _dtype(own.get("dtype"))
        if dtype not in ("float32", None):
            raise self._error(layer, f"it must compute in float32, got {dtype[:40]}")
        for key, value in own.items():
            if key.endswith(("_regularizer", "_constraint")) and value is not None:
                self.left_out.append(f"{key} of {layer.name}")
            if key in ("dropout", "recurrent_dropout") and value:
                self.left_out.append(f"{key} of {layer.name}")

    def _activation(self, layer: Layer, settings: Tree) -> str:
        name = _plain(settings.get("activation", "linear"))
        known = ["linear", "relu", "tanh", "sigmoid", "softmax"]
        if layer.kind in CELL_KINDS:
            known = ["tanh", "relu"]
        if name not in known:
            raise self._error(
                layer, f"its activation must be {' or '.join(known)}, got {str(name)[:40]}"
            )
        return str(name)

    def _close(self, parts: Sequence[Part]) -> int:
        """The number of classes; the last layer is dense with a softmax, or gives its logits."""
        if not parts:
            raise ModelError(f"{self._path}: a network needs layers, got none")
        for part in parts[:-1]:
            if part.settings.get("activation") == "softmax":
                raise self._error(part.source, "a softmax must stand at the end alone")
        last = parts[-1]
        if last.settings["kind"] != "dense" or last.settings["activation"] not in (
            "softmax",
            "linear",
        ):
            raise self._error(
                last.source, "a network must end in Dense with the activation softmax"
            )
        return int(last.settings["units"])

    def _training(self, archive: Archive) -> Tree:
        """Optimiser, clipping and label smoothing, where the file tells them."""
        told = archive.compiled.get("optimizer")
        if not isinstance(told, dict):
            return {}
        kind = str(told.get("class_name")).removeprefix("Custom>")
        model, settings = OPTIMIZER_MODELS.get(kind), told.get("config")
        if model is None or not isinstance(settings, dict):
            self.left_out.append(f"the optimiser {kind[:40]}")
            return {}
        keys = [key for key in model.model_fields if key != "kind"]
        given = {key: settings[key] for key in keys if settings.get(key) is not None}
        tree: Tree = {}
        try:
            # Keras keeps its learning rate in float32.
            if isinstance(given.get("learning_rate"), float):
                given["learning_rate"] = float(f"{given['learning_rate']:.7g}")
            chosen = parse(model, given, where=kind)
            tree["optimizer"] = chosen.model_dump()
        except ConfigError:
            self.left_out.append(f"the settings of the optimiser {kind}")
        for by, key in CLIPPING.items():
            if isinstance(settings.get(key), float) and settings[key] > 0:
                tree["clipping"] = {"by": by, "limit": settings[key]}
        loss = archive.compiled.get("loss")
        smoothing = (
            loss.get("config", {}).get("label_smoothing") if isinstance(loss, dict) else None
        )
        if isinstance(smoothing, float) and 0 <= smoothing < 1:
            tree["label_smoothing"] = smoothing
        return tree

    def _error(self, layer: Layer, why: str) -> ModelError:
        return ModelError(f"{self._path}: layer {layer.name} ({layer.kind}): {why}")


def _plain(value: Any) -> Any:
    """A setting as Keras spells it in short: an activation may stand as an object."""
    if isinstance(value, dict) and is_keras(value):
        inner = value.get("config")
        return inner if isinstance(inner, str) else value.get("class_name")
    return value


def _dtype(value: Any) -> str | None:
    if isinstance(value, dict):
        value = value.get("config", {}).get("name")
    return None if value is None else str(value)


def name_of(path: Path) -> str:
    """A file's name as that of an experiment."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", path.stem).lstrip("_.-")[:64] or "imported"

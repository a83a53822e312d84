"""Keras' model files, read and written as what they are: a description in JSON, arrays in HDF5.

`.keras` is a zip archive of config.json and model.weights.h5, `.h5` the older single HDF5 file. Of
a file that is read nothing is ever run: its description is data, a class is known by name or
refused, and an array is taken only in the shape and type that the network asks for.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rowwise import hdf5
from rowwise.errors import ModelError, importing
from rowwise.files import opened, parse_object, parsing

if TYPE_CHECKING:
    from collections.abc import Iterator


Array = NDArray[Any]
Tree = dict[str, Any]
Shapes = Sequence[tuple[int, ...]]

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
WRITTEN_FOR = "3.0.0"  # the first version that reads what is written here; later ones do too
MAX_DESCRIPTION_BYTES = 20_000_000
MAX_FILE_BYTES = 4_000_000_000
MAX_EXPANSION = 100  # times; weights hardly shrink at all
COPIES = 8  # of the weights that a file may hold: optimisers keep some beside them
SLACK_BYTES = 16_000_000
HDF5, ZIP = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"


class Layer(NamedTuple):
    """A layer of a Keras model: its class, its name, its settings, and the layers before it."""

    kind: str
    name: str
    settings: Tree
    inbound: tuple[str, ...]


@dataclass(frozen=True)
class Archive:
    """A Keras model file: what its model is; `arrays` reads its weights."""

    path: Path
    version: str
    layers: tuple[Layer, ...]  # in Keras' own order, which names the weights
    compiled: Tree  # optimizer and loss as Keras described them, empty where there are none
    is_legacy: bool = False  # one HDF5 file

    def arrays(self, wanted: Mapping[str, Shapes]) -> dict[str, list[Array]]:
        """Each layer's weights in Keras' order, float32, of exactly these shapes.

        Raises ModelError where one is missing, or another than was wanted.
        """
        count = sum(int(np.prod(shape)) for shapes in wanted.values() for shape in shapes)
        places = _places(self.layers)
        shapes = {layer.name: list(wanted.get(layer.name, ())) for layer in self.layers}
        if self.is_legacy:
            return hdf5.arrays(self.path, {k: ([], v) for k, v in shapes.items()}, self.path)
        with _opened(self.path) as archive:
            content = _member(archive, self.path, WEIGHTS, COPIES * 4 * count + SLACK_BYTES)
        named = {
            layer.name: (_names(layer, places[layer.name], len(own)), own)
            for layer, own in zip(self.layers, shapes.values(), strict=True)
        }
        return hdf5.arrays(content, named, self.path)


def read(path: Path) -> Archive:
    """What a `.keras` or `.h5` file describes.

    Raises ModelError where it is missing, damaged, or no whole Keras model, and MissingExtra where
    h5py is not installed.
    """
    with opened(path, MAX_FILE_BYTES, ModelError) as file:
        head = file.read(8)
    if head == HDF5:
        config, version, compiled = _read_legacy(path)
    elif head.startswith(ZIP):
        config, version, compiled = _read_archive(path)
    else:
        raise ModelError(
            f"{path} is no Keras model: it must be a .keras archive or an HDF5 file; save one with "
            f"model.save('model.keras')"
        )
    foreign = f"{path}: its description is not one that Keras writes of a model of layers"
    with parsing(ModelError, foreign):
        layers = _layers(config)
    return Archive(path, version, layers, compiled, head == HDF5)


def write(description: Tree, arrays: Mapping[str, list[Array]], slots: Shapes) -> bytes:
    """The bytes of a `.keras` file.

    Args:
        description: what config.json holds, compiled with an optimiser.
        arrays: the weights of each layer, by its name, in Keras' order.
        slots: the shapes of the optimiser's slots, which are zeros.

    Raises MissingExtra where h5py is not installed.
    """
    h5py = _h5py()
    layers = _layers(description)
    places = _places(layers)
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        for layer in layers:
            group = file.create_group(f"layers/{places[layer.name]}")
            group.create_group("vars")
            own = arrays.get(layer.name, [])
            for name, array in zip(_names(layer, places[layer.name], len(own)), own, strict=True):
                file[name] = array
        file.create_group("vars")
        file["optimizer/vars/0"] = np.int64(0)  # steps taken
        file["optimizer/vars/1"] = np.float32(_learning_rate(description))
        for i, shape in enumerate(slots, 2):  # never written, so zeros that take no place
            file.create_dataset(f"optimizer/vars/{i}", shape, np.float32)
    whole = io.BytesIO()
    parts: dict[str, str | bytes] = {
        METADATA: json.dumps({"keras_version": WRITTEN_FOR}),
        CONFIG: json.dumps(description),
        WEIGHTS: weights.getvalue(),
    }
    with zipfile.ZipFile(whole, "w") as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # no date: same run, same bytes
    return whole.getvalue()


def is_keras(tree: Tree) -> bool:
    """Whether a described object is Keras' own, and not one that a user registered."""
    module, registered = tree.get("module"), tree.get("registered_name")
    own = module is None or module.partition(".")[0] in ("keras", "builtins")
    return own and (registered is None or ">" not in registered)


def _learning_rate(description: Tree) -> float:
    return float(description["compile_config"]["optimizer"]["config"]["learning_rate"])


# --- the description --------------------------------------------------------------------------


def _read_archive(path: Path) -> tuple[Tree, str, Tree]:
    """What the zip archive says: the model, Keras' version, how it was compiled."""
    with _opened(path) as archive:
        config, told = (
            _tree(_member(archive, path, name, MAX_DESCRIPTION_BYTES), path)
            for name in (CONFIG, METADATA)
        )
    compiled = config.get("compile_config")
    version = str(told.get("keras_version", ""))[:20]
    return config, version, compiled if isinstance(compiled, dict) else {}


def _read_legacy(path: Path) -> tuple[Tree, str, Tree]:
    """What the attributes of an HDF5 file say."""
    told = hdf5.texts(path)
    if "model_config" not in told:
        raise ModelError(
            f"{path} holds weights alone and no description of the layers; save the whole "
            f"model with model.save('model.keras')"
        )
    compiled = _tree(told.get("training_config", "{}"), path)
    if "optimizer_config" in compiled:
        compiled["optimizer"] = compiled.pop("optimizer_config")
    return _tree(told["model_config"], path), told.get("keras_version", "")[:20], compiled


def _layers(tree: Tree) -> tuple[Layer, ...]:
    """The layers of a Sequential or functional model, in Keras' order."""
    kind, config = tree["class_name"], tree["config"]
    if not is_keras(tree) or kind not in ("Sequential", "Functional", "Model"):
        raise ValueError(f"a model of the class {str(kind)[:60]!r}")
    found: list[Layer] = []
    for one in config["layers"]:
        settings = dict(one["config"])
        name = str(one.get("name", settings["name"]))
        before = tuple(layer.name for layer in found[-1:])
        if kind != "Sequential":
            before = tuple(_senders(one["inbound_nodes"]))
        own = one["class_name"] if is_keras(one) else f"{one['module']}.{one['class_name']}"
        found.append(Layer(str(own)[:100], name[:200], settings, before))
    names = [layer.name for layer in found]
    if not found or len(set(names)) < len(names):
        raise ValueError("layers without names of their own")
    return tuple(found)


def _senders(tree: Any) -> Iterator[str]:
    """The layers that a node's arguments come from, in Keras 3's and in Keras 2's way."""
    if isinstance(tree, dict):
        if tree.get("class_name") == "__keras_tensor__":
            yield str(tree["config"]["keras_history"][0])
            return
        tree = list(tree.values())
    if not isinstance(tree, list):
        return
    if len(tree) == 4 and isinstance(tree[0], str) and tree[3] == {}:  # [name, 0, 0, {}]
        yield tree[0]
        return
    for one in tree:
        yield from _senders(one)


def _tree(content: bytes | str, path: Path) -> Tree:
    return parse_object(content, ModelError, f"{path} is damaged: its description")


# --- the weights ------------------------------------------------------------------------------


def _places(layers: Sequence[Layer]) -> dict[str, str]:
    """Where the weights of each layer are kept: named by its class, and counted."""
    seen: dict[str, int] = {}
    places = {}
    for layer in layers:
        snake = _snake(layer.kind)
        count = seen[snake] = seen.get(snake, 0) + 1
        places[layer.name] = f"{snake}_{count - 1}" if count > 1 else snake
    return places


def _snake(name: str) -> str:
    """SimpleRNN as simple_rnn, as Keras does it."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _names(layer: Layer, place: str, count: int) -> list[str]:
    """The names of the datasets of a layer with `count` weights, in their order."""
    cells = {
        "Bidirectional": ["forward_layer/cell/", "backward_layer/cell/"],
        "SimpleRNN": ["cell/"],
        "LSTM": ["cell/"],
        "GRU": ["cell/"],
    }.get(layer.kind, [""])
    each = count // len(cells)
    return [f"layers/{place}/{cell}vars/{i}" for cell in cells for i in range(each)]


# --- files ------------------------------------------------------------------------------------


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    damaged = f"{path} is damaged: it is no sound archive"
    with (
        opened(path, MAX_FILE_BYTES, ModelError) as file,
        parsing(ModelError, damaged),
        zipfile.ZipFile(file) as archive,
    ):
        yield archive


def _member(archive: zipfile.ZipFile, path: Path, name: str, limit: int) -> bytes:
    """A member's content, within `limit` bytes."""
    try:
        told = archive.getinfo(name)
    except KeyError:
        raise ModelError(
            f"{path} is no Keras model: a .keras archive holds {CONFIG}, {METADATA} and {WEIGHTS}, "
            f"this one has no {name}"
        ) from None
    if told.file_size > limit or (
        told.file_size > SLACK_BYTES and told.file_size > MAX_EXPANSION * told.compress_size
    ):
        raise ModelError(
            f"{path}: {name} may have {limit:,} bytes for this network and be packed "
            f"{MAX_EXPANSION}-fold at most, got {told.file_size:,} packed in {told.compress_size:,}"
        )
    with archive.open(told) as member:
        content = member.read(limit + 1)
    if len(content) > limit:
        raise ModelError(f"{path}: {name} has more than the {limit:,} bytes that it may have")
    return content


def _h5py() -> Any:
    with importing("h5py", "export"):
        import h5py
    return h5py

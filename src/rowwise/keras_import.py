"""A Keras model that was trained elsewhere, as a run: its layers as an experiment, its weights.

Keras is not needed, and nothing of the file is ever run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rowwise import album, config, keras_archive, metrics, runs
from rowwise.config import Experiment
from rowwise.data import Dataset
from rowwise.errors import ModelError
from rowwise.files import parsing
from rowwise.keras_archive import Archive, Layer
from rowwise.keras_layers import Interpreter, Part
from rowwise.keras_layers import name_of as name_of
from rowwise.keras_model import from_keras, to_keras
from rowwise.network import READINGS, Join, Network, Node, Picture, Weights
from rowwise.runs import DataIdentity, EngineIdentity, Record, Run
from rowwise.settings import parse
from rowwise.train import evaluate

Shape = tuple[int, ...]


class Imported(NamedTuple):
    """A Keras model as Rowwise has it; `left_out` says what of its training is not."""

    experiment: Experiment
    network: Network
    weights: Weights
    version: str
    left_out: tuple[str, ...]


def import_keras(model: str | Path, out: str | Path, *, data: Dataset | None = None) -> Run:
    """Take a Keras model of the study's kind, trained elsewhere, as a run in the folder `out`.

    Args:
        model: a `.keras` or `.h5` file of Keras 2 or 3, of a Sequential or functional model.
        out: the run's folder, which must be new or empty.
        data: data to judge it by: its test images are read, and the run knows their classes.

    Returns:
        The run, whose status is "imported". It has weights and no history.

    Raises:
        ModelError: the file is damaged, or has a layer that Rowwise has not.
        RunError: the folder is taken, or cannot be written.
        MissingExtra: h5py is not installed.
    """
    model, out = Path(model), Path(out)
    runs.check_free(out, what="an import")
    found = read(model)
    network = found.network
    if data is not None and (data.shape, len(data.classes)) != (network.shape, network.classes):
        raise ModelError(
            f"{model} reads {network.shape[0]} x {network.shape[1]} pixels and tells "
            f"{network.classes} classes apart, {data.name} has {data.shape[0]} x {data.shape[1]} "
            f"and {len(data.classes)}; name other data"
        )
    run = runs.adopt(out, _record(found, model, data), found.experiment, found.weights)
    if data is not None:
        shares, _ = evaluate(network, found.weights, data.test_images)
        smoothing = found.experiment.label_smoothing
        run.save_predictions(data.test_labels, shares)
        run.update(
            test_loss=metrics.cross_entropy(data.test_labels, shares, label_smoothing=smoothing),
            test_accuracy=metrics.accuracy(data.test_labels, shares.argmax(1)),
        )
        album.keep(out.parent, data)
    return run


def read(path: Path) -> Imported:
    """A Keras model file as an experiment with weights.

    Raises ModelError where the file is damaged, or a layer or setting is not one of Rowwise's.
    """
    archive = keras_archive.read(path)
    with parsing(ModelError, f"{path} is damaged: its layers are not described as Keras does it"):
        reader = Interpreter(archive)
        experiment = parse(Experiment, reader.experiment, where=str(path))
    network = Network(experiment, reader.shape, reader.classes)
    weights = network.check(_weights(network, reader.parts, archive), where=str(path))
    return Imported(experiment, network, weights, archive.version, tuple(reader.left_out))


def _record(found: Imported, model: Path, data: Dataset | None) -> Record:
    network = found.network
    identity = DataIdentity(
        name="unknown",
        digest="",
        source=f"whatever {model.name} learned from",
        classes=tuple(str(c) for c in range(network.classes)),
        shape=network.shape,
        train=0,
        validation=0,
        test=0,
    )
    if data is not None:
        told = {"name": data.name, "digest": data.digest, "source": data.source}
        counts = {"classes": data.classes, "test": len(data.test_labels)}
        identity = identity.model_copy(update={**told, **counts})
    by = f"Keras {found.version}".strip()
    sentence = f"imported from {model.name} ({by}); it has no history"
    if found.left_out:
        sentence += f"; left out, as training alone needs them: {', '.join(found.left_out)}"
    return Record(
        name=found.experiment.name,
        seed=found.experiment.seed,
        status="imported",
        sentence=sentence,
        experiment_digest=found.experiment.digest,
        data=identity,
        engine=EngineIdentity(name="keras", why="trained elsewhere", threads=0),
        parameters=network.count,
        initialised_from=model.name,
        started=runs.now(),
        updated=runs.now(),
    )


# --- weights ----------------------------------------------------------------------------------


def _weights(network: Network, parts: Sequence[Part], archive: Archive) -> Weights:
    """The network's weights, each from the Keras layer that it was."""
    placed = [n for n in network.nodes if not isinstance(n.layer, (Picture, Join, *READINGS))]
    wanted = {}
    for node, part in zip(placed, parts, strict=True):
        _check_axis(node, part.source, archive.path)
        shapes = [shape for shape, fill in _needs(node, part.source) if fill is None]
        if shapes:
            wanted[part.source.name] = shapes
    arrays = archive.arrays(wanted)
    weights: Weights = {}
    for node, part in zip(placed, parts, strict=True):
        given = iter(arrays[part.source.name])
        whole = [
            next(given) if fill is None else np.full(shape, fill, np.float32)
            for shape, fill in _needs(node, part.source)
        ]
        weights |= from_keras(node, whole)
    return weights


def _needs(node: Node, source: Layer) -> Iterator[tuple[Shape, float | None]]:
    """The shapes of a node's weights in Keras' order; with a value where Keras' layer has none."""
    fresh = {p.name: np.empty(p.shape, np.float32) for p in node.parameters}
    shapes = [array.shape for array in to_keras(node, fresh)]
    own = source.settings
    fills: list[float | None] = [None] * len(shapes)
    if isinstance(node.layer, config.BatchNorm):
        fills[0] = None if own.get("scale", True) else 1.0
        fills[1] = None if own.get("center", True) else 0.0
    elif shapes:
        each = 3 if isinstance(node.layer, config.Recurrent) else 2
        cell = own["layer"]["config"] if source.kind == "Bidirectional" else own
        if not cell.get("use_bias", True):
            fills[each - 1 :: each] = [0.0] * (len(shapes) // each)
    yield from zip(shapes, fills, strict=True)


def _check_axis(node: Node, source: Layer, path: Path) -> None:
    """Batch normalisation is over the last axis, which Keras may write as its place."""
    if source.kind != "BatchNormalization":
        return
    axis = source.settings.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if axis not in (-1, len(node.output_shape)):
        raise ModelError(
            f"{path}: layer {source.name} ({source.kind}): its axis is the last one, "
            f"got {str(axis)[:40]}"
        )

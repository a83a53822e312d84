"""Runs as model files of other programs, each one tried against the engine before it is kept."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rowwise import engines, keras_model, onnx_model
from rowwise.errors import ModelError
from rowwise.files import check_outputs, write_bytes
from rowwise.network import Network, Weights
from rowwise.runs import Run

Read = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

FORMATS = ("onnx", "keras")
BATCHES = (1, 7, 1000)  # pictures that a model is tried on at once
# ONNX Runtime approximates tanh and sigmoid by rational functions; Keras rounds otherwise.
TOLERANCES = {"onnx": 1e-4, "keras": 1e-5}


class Exported(NamedTuple):
    """A model file, and how it was tried.

    `difference` is the largest one between its probabilities and those of `engine`, over all
    pictures tried; None, with the reason in `untried`, where `program` is not there to read it.
    """

    path: Path
    program: str
    engine: str
    difference: float | None
    untried: str = ""


def export_onnx(run: Run, out: str | Path | None = None) -> Exported:
    """Write a run's network as an ONNX model (default: NAME-sSEED.onnx).

    Its input `pictures` is uint8 [B, rows, columns] with bytes as they are, 0 is paper and 255 is
    ink; its outputs are `probabilities` float32 [B, C] and `label` int64 [B]. B is free.

    Raises:
        ConfigError: the file is one of the run's own.
        RunError: the run has no weights yet, or the file cannot be written.
        ModelError: ONNX Runtime gives other probabilities; nothing is written then.
        MissingExtra: onnx or onnxruntime is not installed.
    """
    path = _place(run, out, "onnx")
    network, weights = run.network, run.weights()
    content = onnx_model.build(network, weights, run.record.data.classes).SerializeToString()
    tried = _try(network, weights, lambda images: onnx_model.read(content, images), "onnx", path)
    write_bytes(path, content)
    return tried


def export_keras(run: Run, out: str | Path | None = None) -> Exported:
    """Write a run's network as a `.keras` file (default: NAME-sSEED.keras).

    Its input is float32 [B, rows, columns] in [0, 1], bytes divided by 255; its output is
    probabilities [B, C]. Keras is asked for its own where it is installed with a backend.

    Raises:
        ConfigError: the file is one of the run's own.
        RunError: the run has no weights yet, or the file cannot be written.
        ModelError: Keras has no such layer, or gives other probabilities; nothing is written then.
        MissingExtra: h5py is not installed.
    """
    path = _place(run, out, "keras")
    if path.suffix != ".keras":
        raise ModelError(f"Keras opens files whose name ends in .keras, got {path}")
    network, weights = run.network, run.weights()
    content = keras_model.build(network, weights)
    absent = keras_model.why_not()
    if absent is not None:
        tried = Exported(path, "Keras", "", None, absent)
    else:
        with tempfile.TemporaryDirectory() as folder:
            beside = Path(folder) / path.name
            beside.write_bytes(content)
            tried = _try(
                network, weights, lambda images: keras_model.read(beside, images), "keras", path
            )
    write_bytes(path, content)
    return tried


def _place(run: Run, out: str | Path | None, suffix: str) -> Path:
    path = Path(f"{run.name}-s{run.seed}.{suffix}" if out is None else out)
    if path.is_dir():
        raise ModelError(f"an export is a file, {path} is a folder; give --out a file name")
    check_outputs([path], run.files)
    return path


def _try(network: Network, weights: Weights, read: Read, kind: str, path: Path) -> Exported:
    """Compare a model's probabilities with the engine's, at every size of batch."""
    choice = engines.choose("auto", network, training=False)
    engine = engines.engine(choice.name)
    difference = 0.0
    for count in BATCHES:
        images = _pictures(network.shape, count)
        ours = engine.predict(network, weights, images)
        theirs = read(images)
        if theirs.shape != ours.shape or not np.isfinite(theirs).all():
            raise ModelError(f"{path} is not written: it gives no probabilities for {count}")
        difference = max(difference, float(np.abs(theirs - ours).max()))
    program = {"onnx": "ONNX Runtime", "keras": "Keras"}[kind]
    if difference > TOLERANCES[kind]:
        raise ModelError(
            f"{path} is not written: {program} and the engine {choice.name} may differ by "
            f"{TOLERANCES[kind]:g}, they differ by {difference:.2g}; please report it"
        )
    return Exported(path, program, choice.name, difference)


def _pictures(shape: tuple[int, int], count: int) -> NDArray[np.uint8]:
    """Pictures with the ink of digits, about: strokes with soft edges on paper."""
    rng = np.random.default_rng(0)
    y, x = (np.linspace(-1, 1, n)[:, None, None] for n in shape)
    angle, place, bend = (rng.uniform(-1, 1, (1, 1, count)) for _ in range(3))
    across = np.cos(np.pi * angle), np.sin(np.pi * angle)
    distance = across[0] * y + across[1] * x.transpose(1, 0, 2) + bend * y**2 - place / 2
    ink = np.clip(1.2 - 5 * np.abs(distance), 0, 1)
    return np.ascontiguousarray((255 * ink).astype(np.uint8).transpose(2, 0, 1))

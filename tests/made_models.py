"""Small models of pictures of 28×28, made and not trained, in the place of those that ship."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made_pictures
import numpy as np
import pytest

from rowwise import image
from rowwise.config import Experiment
from rowwise.model import SUFFIX, Card, Model, Promise
from rowwise.network import Network

DIGITS = tuple("0123456789")
PROMISE = Promise(
    error_rate=0.001, level=0.95, confidence=0.12, pictures=6000, accepted=5800, wrong=1
)
GRU = {"kind": "gru", "units": 7, "return_sequences": True}


def rows(*, name: str = "rows", seed: int = 1, **card: Any) -> Model:
    """A network that says what it believes after each of 28 rows."""
    return made(name, [GRU], seed=seed, target_replication=0.5, **card)


def best(*, name: str = "best", seed: int = 9, **card: Any) -> Model:
    """A network that answers once, at the end."""
    return made(name, [{"kind": "lstm", "units": 9, "bidirectional": True}], seed=seed, **card)


def made(
    name: str,
    layers: list[Any],
    *,
    seed: int = 0,
    target_replication: float = 0.0,
    classes: tuple[str, ...] = DIGITS,
    shape: tuple[int, int] = (28, 28),
    **card: Any,
) -> Model:
    """A network with large random weights, so that it is sure of different digits."""
    told = Experiment(name=name, layers=layers, target_replication=target_replication)
    network = Network(told, shape, len(classes))
    weights = {key: 3 * value for key, value in network.initialise(seed=seed).items()}
    return Model(network, weights, classes, Card(name=name, seed=seed, reader=image.READER, **card))


def looker(name: str = "looker", **card: Any) -> Model:
    """A network whose 1 is the ink in rows 4 to 9, and whose 0 is all that it says without it."""
    model = made(name, [{"kind": "flatten"}], **card)
    kernel = np.zeros((28, 28, 10), np.float32)
    kernel[4:10, :, 1] = 1
    bias = np.full(10, -9, np.float32)
    bias[:2] = 2, -2
    model.weights.update({"dense.kernel": kernel.reshape(784, 10), "dense.bias": bias})
    return model


def ship(folder: Path, monkeypatch: pytest.MonkeyPatch, *models: Model) -> Path:
    """Let these be the models that ship."""
    folder.mkdir(exist_ok=True)
    for model in models:
        model.save(folder / f"{model.name}{SUFFIX}")
    monkeypatch.setattr("rowwise.model.folder", lambda: folder)
    return folder


def field(digit: int, *, width: float = 0.1) -> np.ndarray:
    """A digit as MNIST has them, uint8 [28, 28]."""
    return made_pictures.mnist_like(made_pictures.drawn(digit, width=width))


def page(digit: int, kind: str = "dark on light") -> np.ndarray:
    """A digit on paper, some hundred pixels a side."""
    return made_pictures.made(kind, made_pictures.drawn(digit), seed=digit)

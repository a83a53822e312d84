"""What the benchmarks train and read: the networks, their pictures, and the arithmetic they cost.

Every contender takes its network from here, whatever it is written in, so this file needs numpy
alone.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from keras_study import read_mnist

CLASSES = 10
GATES = {"simple_rnn": 1, "lstm": 4, "gru": 3}
TRAINING_IMAGES = 60_000
# Keras' defaults, which every contender is given.
LEARNING_RATE = 1e-3
BATCH_NORM_EPSILON = 1e-3
BATCH_NORM_MOMENTUM = 0.99
ADAM_BETAS = (0.9, 0.999)
RMSPROP_RHO = 0.9
OPTIMIZER_EPSILON = 1e-7


class Recipe(NamedTuple):
    """A network: batch norm, one recurrent layer, dense layers, and a softmax over the classes."""

    cell: str  # a key of GATES
    units: int
    activation: str  # of the cell, "tanh" or "relu"
    head: tuple[tuple[int, str], ...]  # the dense layers before the last: units, activation
    optimizer: str  # "adam" or "rmsprop"
    batch: int
    steps: int = 28  # T
    features: int = 28  # I
    images: int = TRAINING_IMAGES  # a turn of the training benchmark trains on so many

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Recipe:
        """The recipe that was written as JSON, where tuples are lists."""
        return cls(**found | {"head": tuple((units, name) for units, name in found["head"])})


DENSE_TANH = ((64, "tanh"),)
LSTM_TANH = Recipe("lstm", 128, "tanh", DENSE_TANH, "adam", 128)

# The four of the study, a GRU like its LSTM, and an LSTM that reads one pixel a step. Where an
# epoch takes minutes a turn trains on a part of it, in whole batches; tables scale to all of it.
RECIPES = {
    "rnn-relu": Recipe("simple_rnn", 128, "relu", ((64, "relu"),), "adam", 64),
    "rnn-tanh": Recipe("simple_rnn", 128, "tanh", DENSE_TANH, "rmsprop", 64),
    "lstm-tanh": LSTM_TANH,
    "lstm-relu": Recipe("lstm", 256, "relu", (), "adam", 128, images=7_680),
    "gru-tanh": Recipe("gru", 128, "tanh", DENSE_TANH, "adam", 128),
    "lstm-pixels": LSTM_TANH._replace(steps=784, features=1, images=1_920),
}


class Pictures(NamedTuple):
    """Sequences float32 [N, T, I] in [0, 1] and their classes int64 [N]."""

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]


def pictures(recipe: Recipe, folder: Path) -> tuple[Pictures, Pictures]:
    """The training and test pictures for `recipe`: MNIST, or noise where the shape is not its own.

    folder: where MNIST's IDX files are. A turn's part of the training pictures are the first ones.
    """
    if recipe.steps * recipe.features != 784:
        return noise(recipe, recipe.images), noise(recipe, 100)
    mnist = read_mnist(folder)
    shape = (-1, recipe.steps, recipe.features)
    x, y = mnist.x_train[: recipe.images], mnist.y_train[: recipe.images]
    return (
        Pictures(x.reshape(shape), y.astype(np.int64)),
        Pictures(mnist.x_test.reshape(shape), mnist.y_test.astype(np.int64)),
    )


def noise(recipe: Recipe, count: int) -> Pictures:
    """Random sequences of the recipe's shape, where only the time matters."""
    rng = np.random.default_rng(0)
    x = rng.random((count, recipe.steps, recipe.features), np.float32)
    return Pictures(x, rng.integers(0, CLASSES, count))


def dense_sizes(recipe: Recipe) -> list[tuple[int, int]]:
    """Inputs and outputs of every dense layer, the last one included."""
    widths = [recipe.units, *(units for units, _ in recipe.head), CLASSES]
    return list(pairwise(widths))


def parameters(recipe: Recipe) -> int:
    """The number of weights, the batch norm's moving statistics included, as Keras counts them."""
    wide = GATES[recipe.cell] * recipe.units
    biases = 2 if recipe.cell == "gru" else 1
    recurrent = (recipe.features + recipe.units + biases) * wide
    return 4 * recipe.features + recurrent + sum(a * b + b for a, b in dense_sizes(recipe))


def flops(recipe: Recipe) -> int:
    """Operations that training on one picture cannot do without: those of its matrix products.

    Forward x W and h U at each step; backward the gradients of W and U, and that of h. The
    gradient of the pixels is nobody's need, and the first step has no h: neither is counted, nor
    is anything that is not a matrix product. Reading a picture is the forward part alone.
    """
    wide = GATES[recipe.cell] * recipe.units
    by_input = 2 * recipe.features * wide * recipe.steps
    by_state = 2 * recipe.units * wide * (recipe.steps - 1)
    head = sum(2 * a * b for a, b in dense_sizes(recipe))
    return 2 * by_input + 3 * by_state + 3 * head


class Schedule(NamedTuple):
    """A linear warm-up to the peak, then half a cosine down to nothing, over all steps."""

    peak: float
    epochs: int
    warm_up: float = 0.1  # the share of all steps

    def rates(self, images: int, batch: int) -> list[float]:
        """The learning rate of every step of a training on `images` pictures."""
        steps = -(-images // batch) * self.epochs
        rising = round(self.warm_up * steps)
        falling = max(1, steps - 1 - rising)
        return [
            self.peak * (step + 1) / rising
            if step < rising
            else self.peak * 0.5 * (1 + math.cos(math.pi * (step - rising) / falling))
            for step in range(steps)
        ]

"""The benchmarks' networks as a Keras user writes them, on TensorFlow, with Keras' defaults."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from networks import CLASSES, LEARNING_RATE, Recipe, pictures

if TYPE_CHECKING:
    from contender import Job, Link

CELLS = {"simple_rnn": "SimpleRNN", "lstm": "LSTM", "gru": "GRU"}
OPTIMIZERS = {"adam": "Adam", "rmsprop": "RMSprop"}


def versions() -> dict[str, str]:
    """What this contender is made of."""
    return {"keras": version("keras"), "tensorflow": version("tensorflow-cpu")}


def start(job: Job) -> Any:
    """Keras on TensorFlow, with the job's threads and seed."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(job.threads)
    tf.config.threading.set_inter_op_parallelism_threads(job.threads)
    keras.utils.clear_session()  # so that layers are named as in a fresh process
    keras.utils.set_random_seed(job.seed)
    return keras


def build(keras: Any, recipe: Recipe, rate: Any = LEARNING_RATE) -> Any:
    """The compiled model."""
    layers = keras.layers
    recurrent = getattr(layers, CELLS[recipe.cell])(recipe.units, activation=recipe.activation)
    head = (*recipe.head, (CLASSES, "softmax"))
    model = keras.Sequential(
        [
            keras.Input((recipe.steps, recipe.features)),
            layers.BatchNormalization(),
            recurrent,
            *(layers.Dense(units, activation=activation) for units, activation in head),
        ]
    )
    model.compile(
        optimizer=getattr(keras.optimizers, OPTIMIZERS[recipe.optimizer])(learning_rate=rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def train(job: Job, link: Link) -> None:
    """One plain `fit`, in which a callback waits for the parent between epochs."""
    from contender import MOST_EPOCHS

    keras = start(job)
    recipe = job.recipe
    (x, y), _ = pictures(recipe, Path(job.data))
    model = build(keras, recipe)

    class Turns(keras.callbacks.Callback):  # type: ignore[misc]
        """Holds `fit` between epochs until it is this contender's turn."""

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if link.turn() is None:
                raise SystemExit(0)
            self.start = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seconds = time.perf_counter() - self.start
            link.tell(seconds=seconds, loss=float(logs["loss"]), accuracy=float(logs["accuracy"]))

    few, fresh = job.warm_up_images, model.get_weights()
    model.fit(x[:few], y[:few], batch_size=recipe.batch, verbose=0)
    model.set_weights(fresh)
    link.ready(versions())
    turns = [Turns()]
    model.fit(x, y, batch_size=recipe.batch, epochs=MOST_EPOCHS, callbacks=turns, verbose=0)


def race(job: Job, link: Link) -> None:
    """Train by the schedule; tell the accuracy on the test pictures after each epoch."""
    assert job.schedule is not None
    keras = start(job)
    recipe = job.recipe
    train_part, test = pictures(recipe, Path(job.data))
    table = np.array(job.schedule.rates(len(train_part.y), recipe.batch), np.float32)

    class Table(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
        """The learning rate of each step."""

        def __call__(self, step: Any) -> Any:
            return keras.ops.take(table, keras.ops.cast(step, "int32"))

    def tell(epoch: int, logs: dict[str, Any]) -> None:
        link.tell(accuracy=float(logs["val_accuracy"]))

    model = build(keras, recipe, Table())
    model.fit(
        *train_part,
        batch_size=recipe.batch,
        epochs=job.schedule.epochs,
        validation_data=test,
        validation_batch_size=1000,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=tell)],
        verbose=0,
    )


def reader(job: Job) -> Callable[..., Any]:
    """Keras' three ways to read: `predict`, `predict_on_batch`, and the model as a tf.function."""
    keras = start(job)
    import tensorflow as tf

    model = build(keras, job.recipe)
    with np.load(job.weights, allow_pickle=False) as weights:
        load(model, job.recipe, dict(weights))
    if job.variant == "predict":
        return lambda x, batch: model.predict(x, batch_size=batch, verbose=0)
    call = tf.function(
        lambda x: model(x, training=False),
        input_signature=[tf.TensorSpec((None, job.recipe.steps, job.recipe.features), tf.float32)],
    )
    one = model.predict_on_batch if job.variant == "on_batch" else lambda x: call(x).numpy()
    return lambda x, batch: np.concatenate(
        [one(x[first : first + batch]) for first in range(0, len(x), batch)]
    )


def load(model: Any, recipe: Recipe, weights: dict[str, Any]) -> None:
    """Give Keras' model our weights: an LSTM's gates stand as ours, a GRU's z, r, h."""
    for layer in model.layers:
        mine = {k.split(".")[1]: v for k, v in weights.items() if k.startswith(f"{layer.name}.")}
        if recipe.cell == layer.name == "gru":
            mine = {k: update_first(v) for k, v in mine.items()}
            mine["bias"] = np.stack([mine["bias"], mine.pop("recurrent_bias")])
        layer.set_weights(list(mine.values()))


def update_first(value: Any) -> Any:
    """A GRU's gates r, z, n along the last axis in Keras' and ONNX' order z, r, n."""
    r, z, n = np.split(value, 3, axis=-1)
    return np.concatenate([z, r, n], axis=-1)

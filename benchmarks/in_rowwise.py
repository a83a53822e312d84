"""The benchmarks' networks in Rowwise, through the same `fit` that its users call."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from contender import Job, Link


def versions() -> dict[str, str]:
    """What this contender is made of."""
    return {"rowwise": version("rowwise")}


def engine_of(job: Job) -> str:
    """The engine's name; a processor path in the variant ("native:avx2") is forced."""
    engine, _, rest = job.variant.partition(":")
    path = rest.partition(":")[0]
    if path:
        os.environ["ROWWISE_ISA"] = path
    return engine


def how(job: Job) -> dict[str, Any]:
    """Engine, precision ("native:amx:bfloat16") and threads, as `fit` takes them."""
    engine = engine_of(job)
    precision = "bfloat16" if job.variant.endswith(":bfloat16") else "float32"
    asked = precision if ":" in job.variant else "auto"
    return {"engine": engine, "precision": asked, "threads": job.threads}


def experiment(job: Job, **more: Any) -> Any:
    """The job's network and training."""
    from rowwise import Experiment

    recipe = job.recipe
    settings = {"optimizer": recipe.optimizer, "batch": recipe.batch, "seed": job.seed}
    return Experiment.model_validate(
        {
            "name": "benchmark",
            "reading": "pixels" if recipe.features == 1 else "rows",
            "layers": [
                {"kind": "batch_norm"},
                {"kind": recipe.cell, "units": recipe.units, "activation": recipe.activation},
                *({"kind": "dense", "units": u, "activation": a} for u, a in recipe.head),
            ],
            **(settings | more),
        }
    )


def planned(job: Job, **more: Any) -> Any:
    """The job's training by its schedule."""
    assert job.schedule is not None
    peak, epochs, warm_up = job.schedule
    return experiment(
        job,
        epochs=epochs,
        optimizer={"kind": job.recipe.optimizer, "learning_rate": peak},
        schedule={"kind": "cosine", "warmup": warm_up},
        **more,
    )


def dataset(job: Job) -> Any:
    """MNIST, its first pictures, or noise of the recipe's shape."""
    from networks import CLASSES, noise

    import rowwise

    recipe = job.recipe
    if recipe.steps * recipe.features == 784:
        data = rowwise.load_data("mnist", path=Path(job.data), download=False)
        return part(data, recipe.images)
    x, y = noise(recipe, recipe.images)
    pixels = (255 * x).astype(np.uint8)
    names = tuple(map(str, range(CLASSES)))
    return rowwise.Dataset("noise", pixels, y, pixels[:100], y[:100], names, "made", "0" * 64)


def part(data: Any, images: int) -> Any:
    """The first training images."""
    train_images, train_labels = data.train_images[:images], data.train_labels[:images]
    return replace(data, train_images=train_images, train_labels=train_labels)


def train(job: Job, link: Link) -> None:
    """One `fit`, in which a callback waits for the parent between epochs."""
    from contender import MOST_EPOCHS

    import rowwise
    from rowwise.events import EpochEnded, Event, Started

    data = dataset(job)
    # One test image, so that the validation that ends an epoch takes no time.
    data = replace(data, test_images=data.test_images[:1], test_labels=data.test_labels[:1])
    start = 0.0

    def wait(event: Event) -> None:
        nonlocal start
        if isinstance(event, Started):
            used = event.engine
            link.ready(versions(), precision=used.precision, path=used.path)
        elif isinstance(event, EpochEnded):
            row = event.metrics
            seconds = time.perf_counter() - start
            link.tell(seconds=seconds, loss=row.loss, accuracy=row.accuracy)
        else:
            return
        if link.turn() is None:
            raise SystemExit(0)
        start = time.perf_counter()

    few = part(data, job.warm_up_images)
    rowwise.fit(experiment(job, epochs=1), few, **how(job))
    endless = experiment(job, epochs=MOST_EPOCHS)
    rowwise.fit(endless, data, **how(job), callbacks=[wait])


def race(job: Job, link: Link) -> None:
    """Train by the schedule; tell the accuracy on the test pictures after each epoch."""
    import rowwise
    from rowwise.events import EpochEnded, Event, Started

    used: dict[str, str] = {}

    def tell(event: Event) -> None:
        if isinstance(event, Started):
            used.update(precision=event.engine.precision, path=event.engine.path)
        elif isinstance(event, EpochEnded):
            link.tell(accuracy=event.metrics.val_accuracy, told=used)

    rowwise.fit(planned(job), dataset(job), **how(job), callbacks=[tell])


def reader(job: Job) -> Callable[..., Any]:
    """The engine that the variant names."""
    from networks import CLASSES

    from rowwise import Network, engines

    engine = engines.engine(engine_of(job))
    side = 28 if job.recipe.features == 1 else 0
    shape = (side or job.recipe.steps, side or job.recipe.features)
    network = Network(experiment(job), shape, CLASSES)
    with np.load(job.weights, allow_pickle=False) as given:
        weights = network.check(dict(given), where=job.weights)
    # What keeps a network ready between calls, where the engine has it.
    kept = getattr(engine, "Reader", None)
    if kept is not None:
        ready = kept(network, weights, threads=job.threads)
        return lambda x, batch: ready.predict(x.reshape(len(x), *shape), batch=batch)

    def read(x: Any, batch: int) -> Any:
        images = x.reshape(len(x), *shape)
        return engine.predict(network, weights, images, batch=batch, threads=job.threads)

    return read

"""A study that was never trained: real run folders, written by the package's own writers, whose
answers are drawn from a seeded generator. For the tests of everything that reads saved runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rowwise import album, runs
from rowwise.config import Dense, Experiment, Published, Recurrent, Study
from rowwise.data import Dataset
from rowwise.network import Network
from rowwise.runs import DataIdentity, EngineIdentity, EpochMetrics, Record, Run, Timings

DIGITS = tuple("0123456789")


def dataset(
    *,
    classes: Sequence[str] = DIGITS,
    shape: tuple[int, int] = (8, 8),
    train: int = 400,
    test: int = 200,
    name: str = "made",
    fallback: str = "",
    seed: int = 0,
) -> Dataset:
    """Pictures that are one random pattern a class, with noise; every class occurs in each part."""
    rng = np.random.default_rng(seed)
    patterns = rng.integers(0, 200, (len(classes), *shape))

    def part(size: int) -> tuple[Any, Any]:
        labels = np.concatenate([np.arange(len(classes)), rng.integers(0, len(classes), size)])
        labels = labels[:size].astype(np.int64)
        noise = rng.integers(0, 55, (size, *shape))
        return (patterns[labels] + noise).astype(np.uint8), labels

    digest = f"{seed:02x}{len(classes):02x}".ljust(64, "a")
    return Dataset(name, *part(train), *part(test), tuple(classes), "made up", digest, fallback)


def experiment(name: str, *, cell: str = "lstm", units: int = 4, **settings: Any) -> Experiment:
    """A small network with one recurrent layer."""
    layers = (Recurrent(kind=cell, units=units), Dense(units=3, activation="tanh"))  # type: ignore[arg-type]
    return Experiment(name=name, layers=layers, **settings)


def study(names: Sequence[str] = ("alpha", "beta", "gamma"), *, seeds: int = 3) -> Study:
    """A study of small networks; the first has published figures."""
    published = Published(accuracy=0.9, val_accuracy=0.88, source="a paper")
    experiments = tuple(
        experiment(name, published=published if place == 0 else None, epochs=3)
        for place, name in enumerate(names)
    )
    return Study(name="made", title="A made-up study", experiments=experiments, seeds=seeds)


def answers(
    labels: np.ndarray[Any, Any], classes: int, *, skill: float, seed: int
) -> np.ndarray[Any, Any]:
    """Probabilities [N, C] of a reader that mostly errs to the next class."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(labels), classes))
    logits[np.arange(len(labels)), labels] += skill
    logits[np.arange(len(labels)), (labels + 1) % classes] += skill / 3
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def run(
    folder: Path,
    data: Dataset,
    chosen: Experiment,
    *,
    skill: float = 5.0,
    status: runs.Status = "finished",
    sentence: str = "",
    probabilities: np.ndarray[Any, Any] | None = None,
    metrics: Sequence[EpochMetrics] | None = None,
) -> Run:
    """One run folder below `folder`, as training leaves it."""
    place = folder / f"{chosen.name}-s{chosen.seed}"
    identity = DataIdentity(
        name=data.name,
        digest=data.digest,
        source=data.source,
        fallback=data.fallback,
        classes=data.classes,
        shape=data.shape,
        train=len(data.train_labels),
        validation=len(data.test_labels),
        test=len(data.test_labels),
    )
    record = Record(
        name=chosen.name,
        seed=chosen.seed,
        status="training",
        experiment_digest=chosen.digest,
        data=identity,
        engine=EngineIdentity(name="torch", why="chosen by auto", threads=1),
        parameters=Network(chosen, data.shape, len(data.classes)).count,
        started="2026-01-02T03:04:05Z",
        updated="2026-01-02T03:04:05Z",
    )
    place.mkdir(parents=True)
    made = Run(place, record)
    made.begin(chosen, 1)
    if probabilities is None:
        seed = 1000 * chosen.seed + sum(map(ord, chosen.name))
        probabilities = answers(data.test_labels, len(data.classes), skill=skill, seed=seed)
    score = float((probabilities.argmax(axis=1) == data.test_labels).mean())
    made.save_metrics(tuple(metrics or epochs(chosen.epochs, score)))
    if status in runs.ENDED:
        made.save_predictions(data.test_labels, probabilities)
    made.update(
        status=status,
        sentence=sentence,
        test_accuracy=score,
        epochs_done=chosen.epochs,
        timings=Timings(train_s=1.5 * chosen.epochs, val_s=0.1 * chosen.epochs, test_s=0.1),
    )
    return made


def epochs(number: int, score: float) -> list[EpochMetrics]:
    """Epochs whose validation accuracy rises to `score` while the validation loss turns."""
    made = []
    for epoch in range(1, number + 1):
        left = 0.3 * 0.5**epoch
        end = epoch == number
        made.append(
            EpochMetrics(
                epoch=epoch,
                loss=2 * left,
                accuracy=min(1.0, max(0.0, score + 0.02 - 1.6 * left)),
                val_loss=0.2 + left + (0.1 if end and number > 1 else 0),
                val_accuracy=score if end else max(0.0, score - left),
                train_s=1.5,
                val_s=0.1,
                steps=10,
            )
        )
    return made


def write(
    folder: Path,
    *,
    data: Dataset | None = None,
    chosen: Study | None = None,
    skills: Sequence[float] = (4.0, 5.0, 7.0),
) -> Path:
    """A whole study below `folder`: every experiment with every seed, finished."""
    data, chosen = data or dataset(), chosen or study()
    folder.mkdir(parents=True, exist_ok=True)
    runs.save_study(folder, chosen)
    album.keep(folder, data)
    for place, one in enumerate(chosen.experiments):
        for seed in range(chosen.seeds):
            seeded = one.model_copy(update={"seed": seed})
            run(folder, data, seeded, skill=skills[place % len(skills)])
    return folder

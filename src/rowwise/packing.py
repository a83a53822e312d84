"""From a finished run to a model: calibrated, and its promises chosen, on held-out pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowwise import augment, calibration, metrics, session, train
from rowwise._version import __version__
from rowwise.config import Augmentation
from rowwise.data import Dataset
from rowwise.errors import ModelError
from rowwise.model import ERROR_RATE, Card, Model, Promise
from rowwise.runs import Run

Array = NDArray[Any]

ERROR_RATES = (0.0005, ERROR_RATE, 0.002, 0.005, 0.01)
LEVEL = 0.95
COVERAGES = tuple(np.linspace(0.6, 1.0, 81).tolist())
DISTORTED = 20_000  # training pictures whose confidences give the candidates
STREAM_SEED = 1  # of their distortion


def pack(
    run: Run,
    data: Dataset,
    *,
    error_rates: Sequence[float] = ERROR_RATES,
    threads: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Model:
    """Make a model of a run that held out a share of the training pictures of `data`.

    The temperature and the thresholds are chosen on the held-out pictures; the candidates for a
    threshold come from training pictures as the training distorts them, so that they were chosen
    without a look at the held-out ones. The test pictures are not read.

    Raises ModelError where the run is unfinished, held nothing out, or saw other data.
    """
    _check(run, data)
    experiment, weights = run.experiment, run.weights()

    def read(images: Array) -> NDArray[np.float32]:
        return train.evaluate(run.network, weights, images, threads=threads, stop=stop)[0]

    learned, held, _ = session.parts(experiment, data)
    told = read(held.images)
    temperature = calibration.fit_temperature(held.labels, told)
    tempered = calibration.temper(told, temperature)
    spoiled = calibration.temper(read(_distorted(learned, experiment.augmentation)), temperature)
    candidates = calibration.quantile_candidates(spoiled.max(-1), coverages=COVERAGES)
    found = [
        calibration.promise(
            held.labels, tempered, candidates=candidates, error_rate=rate, level=LEVEL
        )
        for rate in error_rates
    ]
    card = Card(
        name=run.name,
        temperature=temperature,
        promises=tuple(Promise(**one._asdict()) for one in found if one is not None),
        data=data.name,
        data_digest=data.digest,
        seed=run.seed,
        version=__version__,
        figures=(
            ("held-out accuracy", metrics.accuracy(held.labels, tempered)),
            (
                "held-out calibration error",
                metrics.calibration(held.labels, tempered).expected_error,
            ),
        ),
    )
    return Model(run.network, weights, run.record.data.classes, card)


def _check(run: Run, data: Dataset) -> None:
    """Refuse a run that cannot be calibrated."""
    seen = run.record.data
    if not run.ended:
        raise ModelError(f"a model is made of a finished run, {run.folder} is {run.status}")
    if run.experiment.validation == "test":
        raise ModelError(
            f"a model is calibrated on pictures that its run held out, {run.folder} held out none; "
            f"train it with --set validation=0.1"
        )
    if seen.digest != data.digest:
        raise ModelError(
            f"a model is calibrated on the data of its run, {seen.name} ({seen.digest[:8]}), got "
            f"{data.name} ({data.digest[:8]})"
        )


def _distorted(learned: session.Part, how: Augmentation | None) -> Array:
    """Training pictures as the training distorted them, all of them digits."""
    cut = slice(DISTORTED)
    if how is None:
        return learned.images[cut]
    pictures, labels = learned.images[cut], learned.labels[cut]
    how = how.without_outliers()
    return augment.distort(pictures, labels, how, seed=STREAM_SEED, step=0)[0]

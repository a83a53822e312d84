"""Calibrating a model anew, through the whole recogniser: its temperature, and what it promises."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowwise import augment, blend, calibration, image, metrics, session
from rowwise import data as datasets
from rowwise._version import __version__
from rowwise.config import Augmentation
from rowwise.data import Dataset
from rowwise.errors import ModelError, RunError
from rowwise.model import ERROR_RATE, Model, Promise, shipped
from rowwise.recognise import Recogniser
from rowwise.runs import RECORD, Run
from rowwise.session import Part

Array = NDArray[Any]
Probabilities = NDArray[np.float32]

ERROR_RATES = (0.0005, ERROR_RATE, 0.002, 0.005, 0.01)
LEVEL = 0.95
COVERAGES = tuple(np.linspace(0.6, 1.0, 81).tolist())
DISTORTED = 4_000  # training pictures whose confidences give the candidates
STREAM_SEED = 1  # of their distortion
SHARE = 0.1  # of other data, whose confidences give the candidates
# With it whatever is read is accepted, unless the recogniser refuses it for another reason.
_ANY = Promise(error_rate=ERROR_RATE, level=LEVEL, confidence=0.0, pictures=0, accepted=0, wrong=0)


def pack(
    source: Run | Model,
    data: Dataset,
    *,
    error_rates: Sequence[float] = ERROR_RATES,
    threads: int | None = None,
) -> Model:
    """Calibrate a model, or that of a run, on pictures that it did not learn from.

    Of the data that it learnt from these are the ones that its training held out. Of other data
    they are all training pictures of the first data set: that none of them was learnt from is for
    the caller to know. All are read as `Recogniser` reads them; what it does not read, or does not
    accept for another reason than its confidence, is left out, as it will be later. The candidates
    for a threshold come from other pictures, so that they were chosen without a look at these:
    training pictures as the training distorts them, of other data a tenth. The test pictures are
    not read.

    Returns:
        The same network with another card.

    Raises:
        ModelError: the run is unfinished, nothing was held out, the data has other classes or is
            partly what the model learnt from, or nothing can be read in it.
        MissingExtra: SciPy is not installed.
    """
    model = _of_run(source) if isinstance(source, Run) else source
    first, held = _parts(model, data)
    raw, taken = _read(model, 1.0, held.images, threads)
    if not taken.any():
        raise ModelError(
            f"a model is calibrated on pictures of one digit each, {data.name} has none that can "
            "be read; name other data with --data"
        )
    temperature = calibration.fit_temperature(held.labels[taken], raw[taken])
    told, taken = _read(model, temperature, held.images, threads)
    others, there = _read(model, temperature, first.images, threads)
    labels, sure = held.labels[taken], told[taken]
    candidates = calibration.quantile_candidates(others.max(-1)[there], coverages=COVERAGES)
    found = [
        calibration.promise(labels, sure, candidates=candidates, error_rate=rate, level=LEVEL)
        for rate in error_rates
    ]
    of = "held-out" if data.digest == model.card.data_digest else data.name
    right = (told.argmax(-1) == held.labels) & (told.max(-1) > 0)
    card = model.card.model_copy(
        update={
            "temperature": temperature,
            "promises": tuple(Promise(**one._asdict()) for one in found if one is not None),
            "reader": image.READER,
            "version": model.card.version or __version__,
            "figures": (
                (f"{of} accuracy", float(right.mean())),
                (f"{of} calibration error", metrics.calibration(labels, sure).expected_error),
            ),
        }
    )
    return Model(model.network, model.weights, model.classes, card)


def opened(place: str | Path) -> Model:
    """The model that `Model.load` finds, to be packed. Raises ModelError; so for an unended run."""
    if str(place) not in shipped() and (Path(place) / RECORD).is_file():
        try:
            return _of_run(Run.open(Path(place)))
        except RunError as error:
            raise ModelError(str(error)) from None
    return Model.load(place)


def _of_run(run: Run) -> Model:
    if not run.ended:
        raise ModelError(f"a model is made of a finished run, {run.folder} is {run.status}")
    return Model.load(run.folder)


def _read(
    model: Model, temperature: float, images: Array, threads: int | None
) -> tuple[Probabilities, NDArray[np.bool_]]:
    """Probabilities [N, C] as a recogniser tells them at a temperature, and which it may accept."""
    update = {"temperature": temperature, "promises": (_ANY,), "reader": image.READER}
    card = model.card.model_copy(update=update)
    asked = Model(model.network, model.weights, model.classes, card)
    readings = Recogniser(asked, threads=threads).read_many(images)
    told = [one.probabilities for one in readings]
    return np.stack(told), np.asarray([one.accepted for one in readings])


def _parts(model: Model, data: Dataset) -> tuple[Part, Part]:
    """Pictures that give the candidates, and those that the model is calibrated on."""
    card, experiment = model.card, model.network.experiment
    if data.classes != model.classes:
        raise ModelError(
            f"a model is calibrated on pictures of its classes ({', '.join(model.classes[:12])}), "
            f"{data.name} has {', '.join(data.classes[:12])}; name other data with --data"
        )
    if data.digest == card.data_digest:
        if experiment.validation == "test":
            raise ModelError(
                f"a model is calibrated on pictures that its training held out, that of "
                f"{model.name} held out none; train it with --set validation=0.1, or name other "
                "data with --data"
            )
        learned, held, _ = session.parts(experiment, data)
        return _distorted(learned, experiment.augmentation), held
    if shared := set(blend.parts(card.data)) & set(blend.parts(data.name)):
        raise ModelError(
            f"a model is calibrated on the very data that it learnt from ({card.data}, "
            f"{card.data_digest[:8]}) or on other data, got {data.name} ({data.digest[:8]}), which "
            f"shares {min(shared)}; leave that out, or name the same data with --data"
        )
    own = len(data.train_labels) - data.added  # what was added is there many times
    images, labels = data.train_images[:own], data.train_labels[:own]
    rest, few = datasets.split(labels, share=SHARE)
    return Part(images[few], labels[few]), Part(images[rest], labels[rest])


def _distorted(learned: Part, how: Augmentation | None) -> Part:
    """Training pictures as the training distorted them, all of them digits."""
    pictures, labels = learned.images[:DISTORTED], learned.labels[:DISTORTED]
    if how is None:
        return Part(pictures, labels)
    how = how.without_outliers()
    return Part(augment.distort(pictures, labels, how, seed=STREAM_SEED, step=0)[0], labels)

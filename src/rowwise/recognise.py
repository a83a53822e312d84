"""Recognising: any picture of a digit -> a `Reading` that knows how sure it is, and can say why."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from rowwise import calibration, engines, image, image_files
from rowwise.errors import ModelError, RowwiseError
from rowwise.image import Normalised
from rowwise.image_files import Picture
from rowwise.model import DEFAULT, Model

if TYPE_CHECKING:
    from rowwise.explain import Explanation

Array = NDArray[Any]
Bytes = NDArray[np.uint8]
Probabilities = NDArray[np.float32]

ERROR_RATE = 0.001  # among accepted readings, unless another one is asked for
WINDOW = 256  # pictures that are decoded before they are read together
UNSURE = "not sure: {confidence:.1%} is below the {threshold:.1%} from which on it is accepted"


@dataclass(frozen=True, eq=False)
class Reading:
    """What a model read in a picture.

    `digit` is the place of the class (of digits: the digit), or None where no ink was found;
    `label` the class' name. `probabilities` float32 [C] are calibrated, `confidence` is the
    largest. `accepted` says whether the reading keeps the promised error rate; where not,
    `reason` says why. `picture` uint8 [rows, columns] is what the network saw.
    """

    digit: int | None
    label: str
    confidence: float
    probabilities: Probabilities
    accepted: bool
    reason: str
    picture: Bytes | None
    name: str = ""
    page: int = 1
    _recogniser: Recogniser | None = field(default=None, repr=False)
    _again: Callable[[], Picture] | None = field(default=None, repr=False)

    def explain(self) -> Explanation:
        """Why it was read so: see `explain.Explanation`. Decodes the picture once more.

        Raises PictureError where it cannot be decoded any more.
        """
        from rowwise.explain import explain

        assert self._recogniser is not None
        assert self._again is not None
        return explain(self._recogniser, self, self._again())


class Outcome(NamedTuple):
    """What came of one picture of many: a reading, or why there is none."""

    name: str
    page: int
    reading: Reading | None
    error: RowwiseError | None


class _Prepared(NamedTuple):
    name: str
    page: int
    normalised: Normalised | None
    error: RowwiseError | None
    again: Callable[[], Picture] | None


class Recogniser:
    """Reads pictures with one model. Safe to be used by several threads.

    `error_rate` is the promise that `Reading.accepted` keeps; None takes one in a thousand where
    the model has it, and accepts whatever has ink where it has none (`threshold` is then None).
    Raises ModelError where the model has no such promise, EngineError where no engine can read.
    """

    def __init__(
        self,
        model: Model,
        *,
        error_rate: float | None = None,
        engine: str = "auto",
        threads: int | None = None,
    ) -> None:
        self.model = model
        self.engine = engines.choose(engine, model.network, training=False)
        self.threads = threads if threads is not None else engines.usable_cores()
        self._reader = engines.reader(
            self.engine.name, model.network, model.weights, threads=self.threads
        )
        promise = model.card.promise(ERROR_RATE if error_rate is None else error_rate)
        if promise is None and error_rate is not None:
            made = ", ".join(f"{one.error_rate:g}" for one in model.card.promises) or "none"
            raise ModelError(
                f"an error rate is one that the model {model.name} promises ({made}), "
                f"got {error_rate:g}"
            )
        self.threshold = promise.confidence if promise else None
        self._companions: dict[str, Recogniser] = {}
        self._turn = threading.Lock()

    @classmethod
    def load(
        cls,
        place: str | Path = DEFAULT,
        *,
        error_rate: float | None = None,
        engine: str = "auto",
        threads: int | None = None,
    ) -> Self:
        """The model of that name, file or run's folder; see `Model.load` and the class."""
        return cls(Model.load(place), error_rate=error_rate, engine=engine, threads=threads)

    # --- reading ------------------------------------------------------------------------------

    def read(self, source: Any) -> Reading:
        """Read the digit in one picture; of several pages the first.

        `source` is a path, bytes, an open binary file, a picture of Pillow's or an array; see
        `image_files.pictures`. Raises PictureError where it is none that can be decoded.
        """
        if isinstance(source, np.ndarray):
            normalised = image.normalise(source)
            return self._reading(normalised, "array", 1, lambda: image_files.picture(source))
        picture = image_files.picture(source)
        again = _opener(source, picture)
        return self._reading(image.normalise(picture), picture.name, picture.page, again)

    def read_many(self, sources: Iterable[Any] | Array) -> list[Reading]:
        """Read one digit in each of many pictures, in their order; see `read`.

        An array [N, rows, columns] (or with a last axis of colours) is N pictures.
        Raises PictureError for the first one that cannot be decoded.
        """
        if isinstance(sources, np.ndarray) and _are_in_mnists_size(sources):
            return self._read_array(sources)
        readings = []
        for outcome in self.read_each(sources):
            if outcome.error is not None:
                raise outcome.error
            assert outcome.reading is not None
            readings.append(outcome.reading)
        return readings

    def read_each(self, sources: Iterable[Any], *, pages: bool = False) -> Iterator[Outcome]:
        """Read many pictures one after the other; what cannot be read is an outcome too.

        Decoding goes on while earlier ones are read. With `pages`, every page of a file is read,
        else the first.
        """
        left = iter(sources)
        with ThreadPoolExecutor(self.threads) as pool:
            while window := list(islice(left, WINDOW)):
                prepared = [
                    one
                    for several in pool.map(lambda source: _prepare(source, pages=pages), window)
                    for one in several
                ]
                yield from self._read_prepared(prepared)

    def probabilities(self, digits: Bytes) -> Probabilities:
        """Calibrated probabilities, float32 [N, C], of pictures as the network takes them."""
        told = self._reader.predict(digits)
        return calibration.temper(told, self.model.card.temperature).astype(np.float32)

    def beliefs(self, digits: Bytes) -> Probabilities:
        """Calibrated probabilities after each step, float32 [N, T, C]."""
        told = self._reader.beliefs(digits)
        return calibration.temper(told, self.model.card.temperature).astype(np.float32)

    def companion(self, name: str) -> Recogniser:
        """Another model that ships, loaded once, on the same engine and threads."""
        with self._turn:
            if name not in self._companions:
                one = Recogniser(Model.load(name), engine=self.engine.name, threads=self.threads)
                self._companions[name] = one
            return self._companions[name]

    # --- from pictures to readings ------------------------------------------------------------

    def _read_array(self, arrays: Bytes) -> list[Reading]:
        digits, found = image.normalise_many(arrays)
        told = self.probabilities(self.fitted(digits))
        return [
            self._told(
                digits[i] if found[i] else None,
                told[i],
                "" if found[i] else image.NO_INK,
                "array",
                i + 1,
                lambda i=i: image_files.picture(arrays[i]),  # type: ignore[misc]
            )
            for i in range(len(arrays))
        ]

    def _read_prepared(self, prepared: Sequence[_Prepared]) -> Iterator[Outcome]:
        found = [one.normalised.digit for one in prepared if one.normalised is not None]
        digits = [digit for digit in found if digit is not None]
        told = iter(self.probabilities(self.fitted(np.stack(digits)))) if digits else iter(())
        nothing = np.zeros(len(self.model.classes), np.float32)
        for one in prepared:
            if one.normalised is None:
                yield Outcome(one.name, one.page, None, one.error)
                continue
            digit, reason = one.normalised.digit, one.normalised.reason
            probabilities = nothing if digit is None else next(told)
            reading = self._told(digit, probabilities, reason, one.name, one.page, one.again)
            yield Outcome(one.name, one.page, reading, None)

    def _reading(
        self, normalised: Normalised, name: str, page: int, again: Callable[[], Picture]
    ) -> Reading:
        probabilities = np.zeros(len(self.model.classes), np.float32)
        if normalised.digit is not None:
            probabilities = self.probabilities(self.fitted(normalised.digit[None]))[0]
        return self._told(normalised.digit, probabilities, normalised.reason, name, page, again)

    def fitted(self, digits: Bytes) -> Bytes:
        """Pictures [N, 28, 28] in the size that the network reads."""
        rows, columns = self.model.network.shape
        if digits.shape[1:] == (rows, columns):
            return digits
        import cv2

        small = [cv2.resize(d, (columns, rows), interpolation=cv2.INTER_AREA) for d in digits]
        return np.asarray(small, np.uint8).reshape(-1, rows, columns)

    def _told(
        self,
        digit: Bytes | None,
        probabilities: Probabilities,
        reason: str,
        name: str,
        page: int,
        again: Callable[[], Picture] | None,
    ) -> Reading:
        if digit is None:
            nothing = np.zeros_like(probabilities)
            return Reading(None, "", 0.0, nothing, False, reason, None, name, page, self, again)
        best = int(probabilities.argmax())
        confidence = float(probabilities[best])
        accepted = self.threshold is None or confidence >= self.threshold
        if not accepted:
            reason = UNSURE.format(confidence=confidence, threshold=self.threshold)
        label = self.model.classes[best]
        return Reading(
            best, label, confidence, probabilities, accepted, reason, digit, name, page, self, again
        )


def _are_in_mnists_size(arrays: Array) -> bool:
    return arrays.dtype == np.uint8 and arrays.shape[1:] == (image.SIDE_PX, image.SIDE_PX)


def _prepare(source: Any, *, pages: bool) -> list[_Prepared]:
    """Decode and normalise; what cannot be decoded is told and not raised."""
    found: list[_Prepared] = []
    try:
        for picture in image_files.pictures(source) if pages else [image_files.picture(source)]:
            again = _opener(source, picture)
            normalised = image.normalise(picture)
            found.append(_Prepared(picture.name, picture.page, normalised, None, again))
    except RowwiseError as error:
        name = str(source) if isinstance(source, (str, Path)) else type(source).__name__
        found.append(_Prepared(name, len(found) + 1, None, error, None))
    return found


def _opener(source: Any, picture: Picture) -> Callable[[], Picture]:
    """How to come by the picture again: files are decoded anew, so that none is kept in memory."""
    if not isinstance(source, (str, Path, bytes)):
        return lambda: picture
    page = picture.page
    return lambda: next(p for p in image_files.pictures(source) if p.page == page)

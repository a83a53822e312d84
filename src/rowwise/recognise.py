"""Recognising: any picture of a digit -> a `Reading` that knows how sure it is, and can say why."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from rowwise import calibration, engines, image, image_files, pixels
from rowwise.errors import ModelError, RowwiseError
from rowwise.image import Normalised
from rowwise.image_files import Picture
from rowwise.model import DEFAULT, Model

if TYPE_CHECKING:
    from rowwise.explain import Explanation
    from rowwise.flip import Flip

Array = NDArray[Any]
Bytes = NDArray[np.uint8]
Probabilities = NDArray[np.float32]

Again = Callable[[], Picture]  # decodes the picture once more

ARRAY = "array"
ERROR_RATE = 0.001  # among accepted readings, unless another one is asked for
# Pictures that are decoded before they are read together: few at first, so that the first reading
# comes soon, then more, so that the engine has its fill.
FIRST_WINDOW, LARGEST_WINDOW = 8, 256
UNSURE = "not sure: {confidence:.2%} is below the {threshold:.2%} from which on it is accepted"


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
    _again: Again | None = field(default=None, repr=False)

    def explain(self) -> Explanation:
        """Why it was read so: see `explain.Explanation`. Decodes the picture once more.

        Raises PictureError where it cannot be decoded any more.
        """
        from rowwise.explain import explain

        assert self._recogniser is not None
        assert self._again is not None
        return explain(self._recogniser, self, self._again())

    def flip(self) -> Flip | None:
        """A small change of ink that makes the model read another digit: see `flip.flip`.

        None where none was found, or nothing was read.
        """
        from rowwise.flip import flip

        assert self._recogniser is not None
        return None if self.picture is None else flip(self._recogniser, self.picture)


class Outcome(NamedTuple):
    """What came of one picture of many: a reading, or why there is none."""

    name: str
    page: int
    reading: Reading | None
    error: RowwiseError | None


class Prepared(NamedTuple):
    """A picture that was decoded and normalised, ready to be read; or why it could not be."""

    name: str
    page: int
    normalised: Normalised | None
    error: RowwiseError | None
    again: Again | None


class Recogniser:
    """Reads pictures with one model. Safe to be used by several threads, which may share one.

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
            name, page, again = ARRAY, 1, partial(image_files.picture, source)
        else:
            kept = _kept(source)
            picture = _first(kept)
            normalised = image.normalise(picture)
            name, page, again = picture.name, picture.page, partial(_page, kept, picture.page)
        if normalised.digit is None:
            return self._without_ink(normalised.reason, name, page, again)
        told = self.probabilities(self.fitted(normalised.digit[None]))[0]
        return self._reading(normalised.digit, told, name, page, again)

    def read_many(self, sources: Iterable[Any] | Array) -> list[Reading]:
        """Read one digit in each of many pictures, in their order; see `read`.

        An array [N, rows, columns] (or with a last axis of colours) is N pictures.
        Raises PictureError for the first one that cannot be decoded.
        """
        if isinstance(sources, np.ndarray) and sources.shape[1:] == (image.SIDE_PX, image.SIDE_PX):
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
        left, size = iter(sources), FIRST_WINDOW
        pool = ThreadPoolExecutor(self.threads, "rowwise")

        def decode(count: int) -> list[Future[list[Prepared]]]:
            return [pool.submit(prepare, source, pages=pages) for source in islice(left, count)]

        try:
            window = decode(size)
            while window:
                size = min(2 * size, LARGEST_WINDOW)
                ahead = decode(size)
                yield from self.read_prepared([one for task in window for one in task.result()])
                window = ahead
        finally:  # after Ctrl-C, or when the caller wants no more
            pool.shutdown(cancel_futures=True)

    def read_prepared(self, prepared: Sequence[Prepared]) -> Iterator[Outcome]:
        """Read pictures that `prepare` has made ready, all at once, in their order."""
        found = [one.normalised.digit for one in prepared if one.normalised is not None]
        digits = [digit for digit in found if digit is not None]
        told = iter(self.probabilities(self.fitted(np.stack(digits)))) if digits else iter(())
        for one in prepared:
            if one.normalised is None:
                yield Outcome(one.name, one.page, None, one.error)
                continue
            digit = one.normalised.digit
            if digit is None:
                reading = self._without_ink(one.normalised.reason, one.name, one.page, one.again)
            else:
                reading = self._reading(digit, next(told), one.name, one.page, one.again)
            yield Outcome(one.name, one.page, reading, None)

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

    def _read_array(self, arrays: Array) -> list[Reading]:
        """Read [N, 28, 28] of any type that `pixels.from_array` takes."""
        if arrays.dtype != np.uint8:
            few = [pixels.from_array(array).pixels for array in arrays]
            arrays = np.stack(few) if few else np.zeros(arrays.shape, np.uint8)
        digits, found = image.normalise_many(arrays)
        told = self.probabilities(self.fitted(digits))
        readings = []
        for i, there in enumerate(found.tolist()):
            again = partial(image_files.picture, arrays[i])
            if there:
                one = self._reading(digits[i], told[i], ARRAY, 1, again)
            else:
                one = self._without_ink(image.NO_INK, ARRAY, 1, again)
            readings.append(one)
        return readings

    def fitted(self, digits: Bytes) -> Bytes:
        """Pictures [N, 28, 28] in the size that the network reads."""
        rows, columns = self.model.network.shape
        if digits.shape[1:] == (rows, columns):
            return digits
        import cv2

        small = [cv2.resize(d, (columns, rows), interpolation=cv2.INTER_AREA) for d in digits]
        return np.asarray(small, np.uint8).reshape(-1, rows, columns)

    def _reading(
        self,
        digit: Bytes,
        probabilities: Probabilities,
        name: str,
        page: int,
        again: Again | None,
    ) -> Reading:
        best = int(probabilities.argmax())
        confidence = float(probabilities[best])
        accepted = self.threshold is None or confidence >= self.threshold
        reason = "" if accepted else UNSURE.format(confidence=confidence, threshold=self.threshold)
        label = self.model.classes[best]
        return Reading(
            best, label, confidence, probabilities, accepted, reason, digit, name, page, self, again
        )

    def _without_ink(self, reason: str, name: str, page: int, again: Again | None) -> Reading:
        nothing = np.zeros(len(self.model.classes), np.float32)
        return Reading(None, "", 0.0, nothing, False, reason, None, name, page, self, again)


def prepare(
    source: Any, *, pages: bool = False, max_pixels: int = pixels.MAX_PIXELS
) -> list[Prepared]:
    """Decode and normalise the first picture of `source`, or those of all its pages.

    What cannot be decoded, or has more than `max_pixels`, is told in `Prepared.error`, not raised.
    """
    found: list[Prepared] = []
    name = image_files.name_of(source)
    try:
        kept = _kept(source)
        for picture in _pictures(kept, max_pixels) if pages else [_first(kept, max_pixels)]:
            normalised, again = image.normalise(picture), partial(_page, kept, picture.page)
            found.append(Prepared(picture.name, picture.page, normalised, None, again))
    except RowwiseError as error:
        found.append(Prepared(name, len(found) + 1, None, error, None))
    return found


class _Content:
    """What an open file held: it can be read once, its picture may be asked for again."""

    def __init__(self, file: Any) -> None:
        self._data, self._name = image_files.content(file), image_files.name_of(file)

    def opened(self) -> io.BytesIO:
        file = io.BytesIO(self._data)
        file.name = self._name
        return file


def _kept(source: Any) -> Any:
    """The source as it can be decoded again: an open file by its content, all else as it is."""
    return _Content(source) if hasattr(source, "read") else source


def _pictures(source: Any, max_pixels: int = pixels.MAX_PIXELS) -> Iterator[Picture]:
    opened = source.opened() if isinstance(source, _Content) else source
    return image_files.pictures(opened, max_pixels=max_pixels)


def _first(source: Any, max_pixels: int = pixels.MAX_PIXELS) -> Picture:
    opened = source.opened() if isinstance(source, _Content) else source
    return image_files.picture(opened, max_pixels=max_pixels)


def _page(source: Any, page: int) -> Picture:
    """Decode one page anew: files are not kept in memory decoded, for their pictures are large."""
    return next(one for one in _pictures(source) if one.page == page)

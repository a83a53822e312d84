"""Recognising: any picture of a digit -> a `Reading` that knows how sure it is."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from rowwise import calibration, engines, image, image_files, pixels
from rowwise.errors import ModelError, PictureError, RowwiseError
from rowwise.image import Candidate, Normalised
from rowwise.image_files import Picture
from rowwise.model import DEFAULT, ERROR_RATE, Model, shipped

if TYPE_CHECKING:
    from rowwise.explain import Explanation
    from rowwise.flip import Flip

Array = NDArray[Any]
Bytes = NDArray[np.uint8]
Probabilities = NDArray[np.float32]

ARRAY = "array"
NUMBERS = "buif"  # kinds of types
FIELD = (image.SIDE_PX, image.SIDE_PX)
# Pictures that are decoded before they are read together: few at first, so that the first reading
# comes soon, then more, so that the engine has its fill.
FIRST_WINDOW, LARGEST_WINDOW = 8, 256
EVIDENCE = 8.0  # how much more a candidate counts that the network is sure of
UNSURE = "not sure: {confidence:.2%} is below the {threshold:.2%} from which on it is accepted"


@dataclass(frozen=True, eq=False)
class Reading:
    """What a model read in a picture: plain data, which can be copied, pickled and sent.

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


class Recogniser:
    """Reads pictures with one model. Safe to be used by several threads, which may share one.

    `error_rate` is the promise that `Reading.accepted` keeps; None takes one in a thousand. Where
    the model does not promise that, no reading is accepted (`threshold` is then None), and the
    reason names the error rates that it promises: a weaker one is taken where it is asked for.
    Raises ModelError where the model has no such promise, EngineError where no engine can read.

    It is pickled and copied by what it was loaded from and how, and loads that anew; one that was
    made of a `Model` is with the model.
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
            made = ", ".join(f"{one.error_rate:g}" for one in model.card.kept) or "none"
            old = f"; {model.card.why_not(error_rate)}" if not model.card.kept else ""
            raise ModelError(
                f"an error rate is one that the model {model.name} promises ({made}), "
                f"got {error_rate:g}{old}"
            )
        self.threshold = promise.confidence if promise else None
        self._origin: Model | str | Path = model
        self._asked = {"error_rate": error_rate, "engine": engine, "threads": threads}
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
        found = cls(Model.load(place), error_rate=error_rate, engine=engine, threads=threads)
        found._origin = place if str(place) in shipped() else Path(place).absolute()
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self._origin, self._asked)

    # --- reading ------------------------------------------------------------------------------

    def read(self, source: Any) -> Reading:
        """Read the digit in one picture; of several pages the first.

        `source` is a path, bytes, an open binary file, a picture of Pillow's or an array; see
        `image_files.pictures`. Raises PictureError where it is none that can be decoded.
        """
        picture = image_files.picture(source)
        return self.read_normalised(image.normalise(picture), picture.name, picture.page)

    def read_normalised(self, normalised: Normalised, name: str, page: int = 1) -> Reading:
        """Read what was made of a picture, page `page` of what is called `name`."""
        return self._readings([normalised], [name], [page])[0]

    def read_many(self, sources: Iterable[Any] | Array) -> list[Reading]:
        """Read one digit in each of many pictures, in their order; see `read`.

        An array [N, rows, columns] (or with a last axis of colours) is N pictures; what its numbers
        mean follows from the range of all (`pixels.levels`). Raises PictureError for the first one
        that cannot be decoded.
        """
        if isinstance(sources, np.ndarray) and sources.dtype.kind in NUMBERS:
            bytes_ = pixels.levels(sources)
            if bytes_.shape[1:] == FIELD:
                return self.read_fields(bytes_)
            sources = (pixels.from_array(one, full=255) for one in bytes_)
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
        there = [one for one in prepared if one.normalised is not None]
        readings = iter(
            self._readings(
                [one.normalised for one in there if one.normalised is not None],
                [one.name for one in there],
                [one.page for one in there],
            )
        )
        for one in prepared:
            reading = None if one.normalised is None else next(readings)
            yield Outcome(one.name, one.page, reading, one.error)

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

    # --- reasons ------------------------------------------------------------------------------

    def explain(self, source: Any, *, page: int = 1) -> Explanation:
        """Why a picture is read as it is: see `explain.Explanation`, which has the reading too.

        `source` is what `read` takes. Raises PictureError where it, or its page, cannot be decoded,
        and ModelError where no model that reads row by row can be had.
        """
        from rowwise.explain import explain

        return explain(self, _decoded(source, page))

    def flip(self, source: Any, *, page: int = 1) -> Flip | None:
        """A small change of ink that makes the model read another digit: see `flip.flip`.

        `source` is what `read` takes. None where none was found, or nothing is read. Raises
        PictureError where it, or its page, cannot be decoded.
        """
        from rowwise.flip import flip

        seen = self.read(_decoded(source, page)).picture
        return None if seen is None else flip(self, seen)

    # --- from pictures to readings ------------------------------------------------------------

    def read_fields(self, arrays: Bytes) -> list[Reading]:
        """Read uint8 [N, rows, columns], whose bytes are grey levels whatever their range."""
        if arrays.shape[1:] != FIELD:
            return self.read_many(Picture(one, ARRAY) for one in arrays)
        count = len(arrays)
        return self._readings(image.normalise_many(arrays), [ARRAY] * count, [1] * count)

    def _readings(
        self, normalised: Sequence[Normalised], names: Sequence[str], pages: Sequence[int]
    ) -> list[Reading]:
        """Read what was made of pictures: all candidates of all of them in one batch."""
        digits = [candidate.digit for one in normalised for candidate in one.candidates]
        if digits:
            probabilities = self.probabilities(self.fitted(np.stack(digits)))
        readings, start = [], 0
        for one, name, page in zip(normalised, names, pages, strict=True):
            end = start + len(one.candidates)
            if start == end:
                readings.append(self._without_ink(one.reason, name, page))
            else:
                readings.append(self._reading(one, probabilities[start:end], name, page))
            start = end
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
        self, normalised: Normalised, probabilities: Probabilities, name: str, page: int
    ) -> Reading:
        """The reading of a picture whose candidates have these probabilities, float32 [K, C]."""
        seen, told = normalised.candidates[0].digit, probabilities[0]
        if len(normalised.candidates) > 1:
            weights = self.weights(normalised.candidates, probabilities)
            told = weights @ probabilities
            most = int((weights * probabilities[:, told.argmax()]).argmax())
            seen = normalised.candidates[most].digit
        best = int(told.argmax())
        confidence = float(told[best])
        reason = self._doubt(confidence, normalised.doubt)
        label = self.model.classes[best]
        return Reading(best, label, confidence, told, not reason, reason, seen, name, page)

    @staticmethod
    def weights(
        candidates: Sequence[Candidate], probabilities: Probabilities
    ) -> NDArray[np.float32]:
        """How much each candidate counts in a picture's reading.

        w_k ∝ odds_k · (max_c p_kc)^EVIDENCE: what the normaliser thinks of it, and how much it
        looks like a digit to the network. The picture's probabilities are the mixture Σ_k w_k p_k,
        so that candidates that disagree leave doubt.

        Args:
            candidates: K of them.
            probabilities: float32 [K, C].

        Returns:
            float32 [K], of sum 1.
        """
        odds = np.array([candidate.odds for candidate in candidates], np.float32)
        weights = odds * probabilities.max(axis=1) ** EVIDENCE
        return np.asarray(weights / weights.sum(), np.float32)

    def _doubt(self, confidence: float, doubt: str) -> str:
        """Why a reading of this confidence is not accepted; empty where it is."""
        if self.threshold is None:
            return f"not accepted: {self.model.card.why_not()}"
        if doubt:
            return doubt
        if confidence >= self.threshold:
            return ""
        return UNSURE.format(confidence=confidence, threshold=self.threshold)

    def _without_ink(self, reason: str, name: str, page: int) -> Reading:
        nothing = np.zeros(len(self.model.classes), np.float32)
        return Reading(None, "", 0.0, nothing, False, reason, None, name, page)


def prepare(
    source: Any, *, pages: bool = False, max_pixels: int = pixels.MAX_PIXELS
) -> list[Prepared]:
    """Decode and normalise the first picture of `source`, or those of all its pages.

    What cannot be decoded, or has more than `max_pixels`, is told in `Prepared.error`, not raised.
    """
    found: list[Prepared] = []
    name = image_files.name_of(source)
    decode = image_files.pictures if pages else _first
    try:
        for picture in decode(source, max_pixels=max_pixels):
            found.append(Prepared(picture.name, picture.page, image.normalise(picture), None))
    except RowwiseError as error:
        found.append(Prepared(name, len(found) + 1, None, error))
    return found


def _first(source: Any, *, max_pixels: int) -> Iterator[Picture]:
    yield image_files.picture(source, max_pixels=max_pixels)


def _decoded(source: Any, page: int) -> Picture:
    """One page of what `read` takes, counted from 1."""
    if page == 1:
        return image_files.picture(source)
    with closing(image_files.pictures(source)) as pages:
        found = next((one for one in pages if one.page == page), None)
    if found is None:
        raise PictureError(f"{image_files.name_of(source)}: has no page {page}; name one it has")
    return found


def _restored(
    kind: type[Recogniser], origin: Model | str | Path, asked: dict[str, Any]
) -> Recogniser:
    """A recogniser as it was made before it was pickled."""
    return kind(origin, **asked) if isinstance(origin, Model) else kind.load(origin, **asked)

"""Why a picture was read so: belief by row, the ink that mattered, its preparation, its like."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rowwise import data, image
from rowwise.errors import RowwiseError
from rowwise.image import Candidate, Step
from rowwise.image_files import Picture
from rowwise.model import ROW_BY_ROW
from rowwise.wording import confidence

if TYPE_CHECKING:
    from rowwise.recognise import Reading, Recogniser

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

BLOCK = 500  # training pictures that are blurred and compared at once
EDGE = 2  # pixels that a blur looks to each side
NEIGHBOURS = 5
WINDOWS_PX = ((3, 1), (5, 2))  # sides of the windows whose ink is taken away, and their steps
LEAST_INK = 32  # grey level from which on a pixel counts as ink
SMALLEST = 1e-7  # a probability, for its logarithm


class Neighbour(NamedTuple):
    """A training picture like the one that was read.

    `distance` is 0 for the same ink and 1 for ink that nowhere meets; `place` counts the training
    pictures from 0.
    """

    label: str
    distance: float
    place: int
    picture: Bytes


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why a reading came out as it did.

    classes: the names of the C classes. picture: as it was given, upright. steps: how it became
    what the network saw.
    beliefs float32 [T, C]: the calibrated probabilities after each row, of `belief_model`, which
    reads row by row; none where no ink was found. `decided_at` is the row, from 1, from which on
    it never left the answer that it ends with; `remark` says so where that answer is another one
    than the reading's, or why there is no belief.
    ink float32 [rows, columns], 0 to 1: how much the reading's certainty hangs on each pixel's ink.
    neighbours: the nearest training pictures, or why there are none.
    """

    reading: Reading
    classes: tuple[str, ...]
    picture: Bytes
    steps: tuple[Step, ...]
    beliefs: Floats
    belief_model: str
    decided_at: int | None
    remark: str
    ink: Floats
    neighbours: tuple[Neighbour, ...]
    why_no_neighbours: str


def explain(recogniser: Recogniser, picture: Picture) -> Explanation:
    """Explain how `recogniser` reads `picture`.

    Raises ModelError where no model that reads row by row can be had.
    """
    normalised = image.normalise(picture, steps=True)
    reading = recogniser.read_normalised(normalised, picture.name, picture.page)
    classes = recogniser.model.classes
    steps = normalised.steps + _rivals(recogniser, normalised.candidates)
    if reading.picture is None or reading.digit is None:
        beliefs = np.zeros((0, len(classes)), np.float32)
        ink = np.zeros(recogniser.model.network.shape, np.float32)
        why = "nothing was read, so nothing is like it"
        return Explanation(
            reading, classes, picture.pixels, steps, beliefs, "", None, reading.reason, ink, (), why
        )
    seen = recogniser.fitted(reading.picture[None])[0]
    beliefs, model, remark = _beliefs(recogniser, reading)
    neighbours, why = _neighbours(recogniser, seen)
    return Explanation(
        reading,
        classes,
        picture.pixels,
        steps,
        beliefs,
        model,
        decision(beliefs) if len(beliefs) else None,
        remark,
        importance(recogniser, seen, reading.digit),
        neighbours,
        why,
    )


def _rivals(recogniser: Recogniser, candidates: Sequence[Candidate]) -> tuple[Step, ...]:
    """What else the digit may be, where the ink was in doubt, a step for each other candidate."""
    if len(candidates) < 2:
        return ()
    digits = np.stack([one.digit for one in candidates])
    probabilities = recogniser.probabilities(recogniser.fitted(digits))
    weights = recogniser.weights(candidates, probabilities)
    steps = []
    for one, told, weight in list(zip(candidates, probabilities, weights, strict=True))[1:]:
        label = recogniser.model.classes[int(told.argmax())]
        words = (
            f"It may be this too ({one.name}): read as {label} at {confidence(float(told.max()))}, "
        )
        steps.append(Step("or", words + f"it counts {100 * weight:.1f} %.", one.digit))
    return tuple(steps)


def _beliefs(recogniser: Recogniser, reading: Reading) -> tuple[Floats, str, str]:
    """The beliefs [T, C] of the model that reads row by row, its name, and a remark."""
    by_row = row_reader(recogniser)
    mine, its = recogniser.model, by_row.model
    if its.classes != mine.classes:
        none = np.zeros((0, len(mine.classes)), np.float32)
        return none, "", f"no belief by row: {its.name}, which has one, knows other classes"
    assert reading.picture is not None
    beliefs = by_row.beliefs(by_row.fitted(reading.picture[None]))[0]
    said = int(beliefs[-1].argmax())
    if said == reading.digit:
        return beliefs, its.name, ""
    return (
        beliefs,
        its.name,
        f"{its.name}, which reads row by row, ends with {its.classes[said]} "
        f"({100 * beliefs[-1, said]:.0f} %); {mine.name} read {reading.label}",
    )


def decision(beliefs: Floats) -> int:
    """The row, from 1, from which on the likeliest class of beliefs [T, C] stays the last one's."""
    others = np.flatnonzero(beliefs.argmax(1) != beliefs[-1].argmax())
    return int(others[-1]) + 2 if len(others) else 1


def row_reader(recogniser: Recogniser) -> Recogniser:
    """The recogniser itself where it tells its belief after every row, else the model `rows`."""
    if recogniser.model.row_by_row:
        return recogniser
    return recogniser.companion(ROW_BY_ROW)


# --- which ink mattered -----------------------------------------------------------------------


def importance(recogniser: Recogniser, seen: Bytes, digit: int) -> Floats:
    """How much of the certainty of `digit` hangs on each pixel's ink: float32 [R, C], 0 to 1.

    Windows of some sizes are wiped at every place where there is ink (occlusion: Zeiler & Fergus
    2014, section 4.2). What a window is worth is the fall of the log odds of the digit against the
    likeliest other one, for each unit of the ink that it holds; a pixel is worth the mean of the
    windows that hold it, where it has ink.
    """
    rows, columns = seen.shape
    wiped, masks = [seen], []
    for side, step in WINDOWS_PX:
        for top in range(1 - side // 2 - side % 2, rows, step):
            for left in range(1 - side // 2 - side % 2, columns, step):
                mask = np.zeros(seen.shape, bool)
                mask[max(0, top) : top + side, max(0, left) : left + side] = True
                if (seen[mask] >= LEAST_INK).any():
                    masks.append(mask)
                    wiped.append(np.where(mask, 0, seen).astype(np.uint8))
    if not masks:
        return np.zeros(seen.shape, np.float32)
    odds = log_odds(recogniser.probabilities(np.stack(wiped)), digit)
    held = np.stack(masks)
    falls = (odds[0] - odds[1:]).astype(np.float64)
    ink = np.where(seen >= LEAST_INK, seen, 0) / 255
    worth = falls / (held * ink).sum((1, 2))
    mean = np.tensordot(worth, held, 1) / np.maximum(held.sum(0), 1)
    found = np.maximum(mean, 0) * (ink > 0)
    return np.asarray(found / max(found.max(), SMALLEST), np.float32)


def log_odds(probabilities: Floats, digit: int, *, least: float = SMALLEST) -> Floats:
    """ln p of `digit` minus ln p of the likeliest other class, [N], of probabilities [N, C].

    What is less than `least` counts as that.
    """
    logs = np.log(np.maximum(probabilities, least))
    others = np.delete(logs, digit, axis=1)
    return np.asarray(logs[:, digit] - others.max(1))


# --- the nearest training pictures ------------------------------------------------------------


class _Training(NamedTuple):
    """Training pictures blurred a little, uint8 [N, R·C]; their lengths; labels; themselves."""

    blurred: Bytes
    lengths: Floats
    labels: NDArray[np.int64]
    images: Bytes


# By name and digest of a data set: its pictures, or why there are none.
_kept: dict[tuple[str, str], _Training | str] = {}
_loading = threading.Lock()


def _neighbours(recogniser: Recogniser, seen: Bytes) -> tuple[tuple[Neighbour, ...], str]:
    name, digest = recogniser.model.card.data, recogniser.model.card.data_digest
    with _loading:
        if (name, digest) not in _kept:
            _kept[name, digest] = _load(name, digest)
        training = _kept[name, digest]
    if isinstance(training, str):
        return (), training
    if training.images.shape[1:] != seen.shape:
        return (), f"the training pictures of {name} have another size"
    likeness = _likeness(training, seen)
    nearest = np.argsort(-likeness, kind="stable")[:NEIGHBOURS]
    classes = recogniser.model.classes
    found = [
        Neighbour(classes[training.labels[i]], float(1 - likeness[i]), int(i), training.images[i])
        for i in nearest
    ]
    return tuple(found), ""


def knows_training(recogniser: Recogniser) -> bool:
    """Whether the pictures that its model learnt from are on this machine."""
    card = recogniser.model.card
    return not isinstance(_found(card.data, card.data_digest), str)


def _load(name: str, digest: str) -> _Training | str:
    found = _found(name, digest)
    if isinstance(found, str):
        return found
    blurred = _blurred(found.train_images)
    lengths = np.concatenate([_lengths(block) for block in _blocks(blurred)])
    return _Training(blurred, lengths, found.train_labels, found.train_images)


def _found(name: str, digest: str) -> data.Dataset | str:
    """The data set of that name and digest, or why it is not to be had."""
    if not name:
        return "the model does not say which pictures it learnt from"
    try:
        found = data.load(name, download=False)
    except RowwiseError:
        return f"the training pictures ({name}) are not on this machine"
    if digest and found.digest != digest:
        return f"the training pictures ({name}) on this machine are not those of the model"
    return found


def _blurred(images: Bytes) -> Bytes:
    """Pictures [N, R, C] blurred by a pixel so that near ink counts as near, as [N, R·C]."""
    import cv2

    count, rows, columns = images.shape
    blurred = np.empty((count, rows * columns), np.uint8)
    for at in range(0, count, BLOCK):
        # One below the other, with borders that keep them apart: one call instead of thousands.
        framed = np.pad(images[at : at + BLOCK], ((0, 0), (EDGE, EDGE), (EDGE, EDGE)), "reflect")
        size = 2 * EDGE + 1
        tall = cv2.GaussianBlur(framed.reshape(-1, columns + 2 * EDGE), (size, size), 1.0)
        inside = tall.reshape(framed.shape)[:, EDGE:-EDGE, EDGE:-EDGE]
        blurred[at : at + BLOCK] = inside.reshape(-1, rows * columns)
    return blurred


def _likeness(training: _Training, seen: Bytes) -> Floats:
    """The cosine between a picture and each training picture, both blurred, float32 [N]."""
    vector = _blurred(seen[None])[0].astype(np.float32)
    products = [block.astype(np.float32) @ vector for block in _blocks(training.blurred)]
    length: Floats = _lengths(vector[None])
    return np.asarray(np.concatenate(products) / (training.lengths * length))


def _lengths(vectors: NDArray[Any]) -> Floats:
    """The lengths of vectors [N, R·C], float32 [N]; of those without ink 1."""
    flat = vectors.astype(np.float32)
    return np.asarray(np.maximum(np.linalg.norm(flat, axis=1), 1), np.float32)


def _blocks(vectors: Bytes) -> Iterator[Bytes]:
    """Few vectors at a time: as float32 all would take four times their bytes."""
    for at in range(0, len(vectors), BLOCK):
        yield vectors[at : at + BLOCK]

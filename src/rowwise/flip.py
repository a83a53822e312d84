"""The smallest change of ink that makes a model read another digit, found and read again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rowwise.explain import LEAST_INK, log_odds

if TYPE_CHECKING:
    from rowwise.recognise import Reading, Recogniser

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Place = tuple[int, int]

MOST_PX = 48  # pixels that a small change may touch: about half the ink of one of MNIST's digits
EVALUATIONS = 600  # pictures read on the way: 0.3 s of one core with the larger model that ships
KEPT = 24  # changes that looked best alone, which are tried again at each step
SPACING_PX = 2  # between places at which ink is changed
REACH_PX = 2  # from the ink there is to the middle of a dab: the two touch
SMALLEST = 1e-30  # a probability: the way down from a sure reading begins among small ones
DAB = np.array([[96, 208, 96], [208, 255, 208], [96, 208, 96]], np.uint8)  # of a pen 2 px wide
NO_FLIP = f"no change of at most {MOST_PX} pixels was found that makes the model read another digit"


class Change(NamedTuple):
    """Ink added as a dab of a pen, or wiped, 3×3 pixels around a place."""

    adds: bool
    row: int
    column: int


@dataclass(frozen=True, eq=False)
class Flip:
    """A small change of ink that makes the model read another digit.

    picture uint8 [rows, columns] is the digit with the change; `added` and `removed` are the
    (row, column) of all pixels that have more or less ink than before. `changes` are what it is
    made of: without any one of them the model reads the old digit. `reading` is the changed
    picture, read again as any other.
    """

    picture: Bytes
    added: tuple[Place, ...]
    removed: tuple[Place, ...]
    changes: tuple[Change, ...]
    reading: Reading


def flip(recogniser: Recogniser, digit: Bytes, *, most_px: int = MOST_PX) -> Flip | None:
    """Search a small change of ink that makes `recogniser` read another digit in `digit`.

    Ink is wiped or added step by step, each time where the log odds of the digit read fall most;
    once another one is read, each change is undone that is not needed. The search is greedy, so a
    still smaller change may exist (counterfactual explanations: Wachter et al. 2018; greedy over
    regions: Goyal et al. 2019). The same picture always gives the same change.

    Args:
        recogniser: that reads it.
        digit: uint8 [28, 28], as `Reading.picture` is: what the network sees.
        most_px: pixels that may change at most.

    Returns:
        The change, or None where none was found that is small enough.
    """
    search = _Search(recogniser, digit, most_px)
    if search.digit is None or not (found := search.forward()):
        return None
    needed = search.backward(found)
    picture = changed(digit, needed)
    return Flip(
        picture,
        _places(picture > digit),
        _places(picture < digit),
        tuple(needed),
        recogniser.read(picture),
    )


def changed(digit: Bytes, changes: Iterable[Change]) -> Bytes:
    """A digit [rows, columns] with all its changes: what is wiped first, then what is added."""
    picture = digit.copy()
    for adds, row, column in sorted(changes):
        top, left = max(0, row - 1), max(0, column - 1)
        window = picture[top : row + 2, left : column + 2]
        if adds:
            rows, columns = window.shape
            dab = DAB[top - row + 1 :, left - column + 1 :][:rows, :columns]
            np.maximum(window, dab, out=window)
        else:
            window[:] = 0
    return picture


def _places(mask: NDArray[np.bool_]) -> tuple[Place, ...]:
    return tuple((int(row), int(column)) for row, column in np.argwhere(mask))


class _Search:
    """One search: what is read in a digit, and how far changes bring the model from it."""

    def __init__(self, recogniser: Recogniser, digit: Bytes, most_px: int) -> None:
        self._recogniser, self._picture, self._most_px = recogniser, digit, most_px
        self._left = EVALUATIONS
        self.digit = recogniser.read(digit).digit

    def forward(self) -> list[Change]:
        """Changes, added greedily until another digit is read; none where that never happens."""
        singles = self._singles()
        if not singles or len(singles) > self._left:
            return []
        found: list[Change] = []
        odds = self._odds([[one] for one in singles])
        best = [singles[i] for i in np.argsort(odds, kind="stable")[:KEPT]]
        tried, odds = best, np.sort(odds, kind="stable")[:KEPT]
        while len(tried):
            taken = tried[int(odds.argmin())]
            found.append(taken)
            if odds.min() < 0 and self._reads_otherwise(found):
                return found
            near = [c for c in self._around(taken) if c.adds or c in singles]
            tried = [c for c in dict.fromkeys([*best, *near]) if c not in found]
            tried = [c for c in tried if self._is_small([*found, c])][: max(0, self._left)]
            odds = self._odds([[*found, one] for one in tried])
        return []

    def backward(self, found: Sequence[Change]) -> list[Change]:
        """The changes that are needed: without any one of them the digit is what it was."""
        needed = list(found)
        while len(needed) > 1:
            fewer = [[*needed[:i], *needed[i + 1 :]] for i in range(len(needed))]
            odds = self._odds(fewer)
            order = np.argsort(odds, kind="stable")
            undone = next((i for i in order if self._reads_otherwise(fewer[i])), None)
            if undone is None:
                break
            needed = fewer[undone]
        return needed

    def _singles(self) -> list[Change]:
        """Where ink may be wiped, and where a pen that goes on from the ink may add some."""
        ink = self._picture >= LEAST_INK
        near = np.zeros_like(ink)
        for row, column in np.argwhere(ink):
            top, left = max(0, row - REACH_PX), max(0, column - REACH_PX)
            near[top : row + REACH_PX + 1, left : column + REACH_PX + 1] = True
        found = []
        rows, columns = self._picture.shape
        for row in range(1, rows - 1, SPACING_PX):
            for column in range(1, columns - 1, SPACING_PX):
                if ink[row - 1 : row + 2, column - 1 : column + 2].sum() >= 3:
                    found.append(Change(False, row, column))
                if near[row, column] and self._picture[row, column] < DAB[1, 1] // 2:
                    found.append(Change(True, row, column))
        return found

    def _around(self, change: Change) -> list[Change]:
        """The changes of the same kind next to one: a pen goes on from where it was."""
        rows, columns = self._picture.shape
        steps = (-SPACING_PX, 0, SPACING_PX)
        around = [(change.row + i, change.column + j) for i in steps for j in steps]
        return [
            Change(change.adds, row, column)
            for row, column in around
            if 0 < row < rows - 1 and 0 < column < columns - 1
        ]

    def _odds(self, changes: Sequence[Sequence[Change]]) -> Floats:
        """The log odds of the digit against the likeliest other, [N], after each of N changes."""
        if not changes:
            return np.zeros(0, np.float32)
        assert self.digit is not None
        self._left -= len(changes)
        pictures = np.stack([changed(self._picture, these) for these in changes])
        told = self._recogniser.probabilities(self._recogniser.fitted(pictures))
        return log_odds(told, self.digit, least=SMALLEST)

    def _reads_otherwise(self, changes: Sequence[Change]) -> bool:
        """Whether another digit is read in the changed picture, given as any picture is."""
        self._left -= 1
        return self._recogniser.read(changed(self._picture, changes)).digit not in (
            None,
            self.digit,
        )

    def _is_small(self, changes: Sequence[Change]) -> bool:
        differs = changed(self._picture, changes) != self._picture
        return int(differs.sum()) <= self._most_px

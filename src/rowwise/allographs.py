"""Other ways to write a digit, which MNIST's writers seldom took: ones with a flag, closed fours.

A picture is uint8 [R, C], 255 is full ink on 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Rng = np.random.Generator

LEAST_LEAN, MOST_LEAN = -0.1, 0.35  # of a one that gets a flag: columns for each row upwards
WIDEST = 0.2  # of its height, the stroke of a one that gets a flag
WIDEST_CLOSED = 0.14  # of its height, the upright of a four that is closed
NARROWEST = 0.6  # of its width, a four that is closed
LEAST_GAP = 3  # columns of paper between the two strokes of a four that is open
LEAST_HOLE = 3  # pixels of paper within a four that was closed
FULL = 255


def add_flag(one: Bytes, rng: Rng) -> Bytes:
    """A one [R, C] with a flag from its top down to the left, and in half of cases with a base.

    The flag falls 20 to 60 degrees and is 0.25 to 0.5 of the one's height long; the base reaches
    0.15 to 0.45 of the height to either side. Both are as wide and as dark as the stroke. A one
    that leans far to the right, or to the left at all, stays as it is: it would be no one. So does
    one of thick strokes: its flag would fill the corner, as the loop of a 9.
    """
    import cv2

    rows = np.flatnonzero(one.max(1) > FULL // 2)
    if len(rows) < 4:
        return one
    top, bottom = int(rows[0]), int(rows[-1])
    height, ink = bottom - top + 1, one[top : bottom + 1].astype(np.float64)
    width = max(1, round(float(ink.sum()) / FULL / height))
    dark = int(one.max())
    drawn = np.zeros_like(one)

    def stroke(start: tuple[float, float], end: tuple[float, float]) -> None:
        ends = [tuple(round(16 * value) for value in point) for point in (start, end)]
        cv2.line(drawn, ends[0], ends[1], dark, width, cv2.LINE_AA, 4)

    inside = width / 2
    x, y = _ink_column(one, top, width), top + inside
    foot, level = _ink_column(one, bottom - width + 1, width), bottom - inside
    if width > WIDEST * height or not LEAST_LEAN <= (x - foot) / height <= MOST_LEAN:
        return one
    fall, length = np.deg2rad(rng.uniform(20, 60)), height * rng.uniform(0.25, 0.5)
    stroke((x, y), (x - length * np.cos(fall), y + length * np.sin(fall)))
    if rng.random() < 0.5:
        left, right = height * rng.uniform(0.15, 0.45, 2)
        stroke((foot - left, level), (foot + right, level))
    return np.maximum(one, drawn)


def _ink_column(one: Bytes, first: int, rows: int) -> float:
    """The mean column of the ink in some rows."""
    ink = one[first : first + rows].sum(0, dtype=np.float64)
    return float(ink @ np.arange(len(ink)) / max(1.0, float(ink.sum())))


def close_four(four: Bytes, rng: Rng) -> Bytes:
    """A four [R, C] whose open top is closed to a triangle, as in print.

    It is made narrower first, down to NARROWEST of its width. A stroke as wide as the upright, and
    as dark, goes from the upright's top to the left end of the bar; the ink to the left of it is
    taken away. A four whose two strokes do not stand apart, whose upright begins low, whose bar
    falls, as the loop of a 9 does, or within which no paper would be left, stays as it is.
    """
    import cv2

    share, middle = rng.uniform(NARROWEST, 1), (four.shape[1] - 1) / 2
    squeeze = np.array([[share, 0, middle * (1 - share)], [0, 1, 0]])
    narrow = np.asarray(cv2.warpAffine(four, squeeze, four.shape[::-1]), np.uint8)
    ink = narrow > FULL // 2
    rows = np.flatnonzero(ink.any(1))
    if len(rows) < 8:
        return four
    top, bottom = int(rows[0]), int(rows[-1])
    height, foot = bottom - top + 1, bottom - (bottom - top + 1) // 4
    width = float(np.median(ink[foot:bottom].sum(1)))
    opening = _opening(ink[top : top + height // 2])
    if opening is None or not 0 < width <= WIDEST_CLOSED * height:
        return four
    apex_row = int(np.flatnonzero(ink[:, opening.column :].any(1))[0])
    firsts = np.where(ink.any(1), ink.argmax(1), len(ink[0]))[top + opening.row : foot]
    corner = int(firsts.min())
    corner_row = top + opening.row + int(np.flatnonzero(firsts <= corner + 1)[-1])
    if apex_row - top > height / 5 or corner_row - apex_row < height / 4:
        return four
    apex = opening.column + float(np.flatnonzero(ink[apex_row, opening.column :]).mean())
    x, y, x_end, y_end = apex, apex_row + width / 2, corner + width / 2, corner_row - width / 2
    drawn = np.zeros_like(four)
    ends = [(round(16 * x), round(16 * y)), (round(16 * x_end), round(16 * y_end))]
    cv2.line(drawn, ends[0], ends[1], int(narrow.max()), max(1, round(width)), cv2.LINE_AA, 4)
    row, column = np.indices(four.shape)
    left = column < x - (row - y) * (x - x_end) / (y_end - y) - width / 4
    closed = np.maximum(np.where(left & (row < y_end), 0, narrow), drawn).astype(np.uint8)
    area, last = _hole(closed)
    return closed if area >= LEAST_HOLE and last <= corner_row else four


class _Opening(NamedTuple):
    """Where the two strokes of a four stand apart: a row, and a column between them."""

    row: int
    column: int


def _opening(ink: NDArray[np.bool_]) -> _Opening | None:
    """The first row in which two strokes stand apart."""
    for row, line in enumerate(ink):
        edges = np.flatnonzero(np.diff(np.pad(line, 1).astype(np.int8)))
        if len(edges) == 4 and edges[2] - edges[1] >= LEAST_GAP:
            return _Opening(row, int(edges[1] + edges[2]) // 2)
    return None


def _hole(digit: Bytes) -> tuple[int, int]:
    """The pixels, and the last row, of the largest piece of paper that ink surrounds."""
    import cv2

    paper = np.pad((digit <= FULL // 2).astype(np.uint8), 1, constant_values=1)
    _, _, told, _ = cv2.connectedComponentsWithStats(paper, connectivity=4)
    inner = [(int(area), int(y + high) - 2) for x, y, _, high, area in told[1:] if x and y]
    return max(inner, default=(0, 0))

"""Flaws of a picture, mended on the way to its ink: inverted stripes, specks, ruled lines."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

LEAST_SIDE_PX = 16  # of a picture that may have stripes
STRIPE_SHARE = 0.15  # of the picture's side: the narrowest stripe
MOST_STRIPES = 5
STRIPE_CONTRAST = 96  # levels between a stripe's paper and its neighbour's
STRIPE_MIRRORED = 48  # levels that the two may miss the sum of black and white by
END_PX = 2  # at either end of a column: paper, where the digit does not reach there
STRIPE_EDGE = 0.6  # of the lines along a stripe's edge that go on beyond it, inverted
INK_AT_EDGE = 0.1  # of the picture's edge, once its stripes are turned back: a digit has no more
SPECK_PX = 3  # pixels of the largest speck
LEAST_SPECKS = 12  # so many, and a share of the picture, are noise and not ink
LEAST_SPECKED = 0.012
LINE_SPAN = 0.8  # of the picture's side: a straight line that is longer may be ruled
FAINT_LINE = 0.8  # of the level of other ink: what is stronger may be a stroke
LINE_THICK = 0.025  # of the picture's side
HALF = 128

Bytes = NDArray[np.uint8]
Bools = NDArray[np.bool_]
Floats = NDArray[np.floating[Any]]

_AROUND = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], np.float32)


# --- stripes --------------------------------------------------------------------------------------


def without_stripes(pixels: Bytes) -> Bytes | None:
    """Turn back stripes, across the whole picture, in which black and white are exchanged.

    Args:
        pixels: uint8 [rows, columns] or [rows, columns, 3].

    Returns:
        A picture of one paper, the darker one; None where there are no such stripes.
    """
    luma = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    if min(luma.shape) < LEAST_SIDE_PX:
        return None
    for axis in (0, 1):
        bright = bright_stripes(luma if axis == 0 else luma.T)
        if bright is not None:
            place = bright[None, :] if axis == 0 else bright[:, None]
            turned: Bytes = np.where(place, 255 - luma, luma)
            if (_ring(turned) >= HALF).mean() > INK_AT_EDGE:
                continue
            if pixels.ndim == 2:
                return turned
            return np.where(place[..., None], 255 - pixels, pixels).astype(np.uint8)
    return None


def _ring(luma: Bytes) -> Bytes:
    """The pixels at a picture's edge."""
    return np.concatenate([luma[0], luma[-1], luma[1:-1, 0], luma[1:-1, -1]])


def bright_stripes(luma: Bytes) -> Bools | None:
    """Which columns belong to a stripe of bright paper beside dark paper; None for other pictures.

    A column's paper is what it has at its ends, or its median where a digit reaches there. At a
    stripe's edge most rows have to go on beyond it with their level inverted.

    Args:
        luma: uint8 [rows, columns].
    """
    ends = np.concatenate([luma[:END_PX], luma[-END_PX:]])
    found = _bright(luma, np.median(ends, axis=0))
    return found if found is not None else _bright(luma, np.median(luma, axis=0))


def _bright(luma: Bytes, papers: Floats) -> Bools | None:
    columns = len(papers)
    bright = papers >= HALF
    edges = np.flatnonzero(bright[1:] != bright[:-1]) + 1
    if not 1 <= len(edges) < MOST_STRIPES:
        return None
    if np.diff([0, *edges, columns]).min() < STRIPE_SHARE * columns:
        return None
    levels = papers[edges - 1], papers[edges]
    if np.abs(levels[0] - levels[1]).min() < STRIPE_CONTRAST:
        return None
    if np.abs(levels[0] + levels[1] - 255).max() > STRIPE_MIRRORED:
        return None
    before, after = luma[:, edges - 1].astype(np.int16), luma[:, edges].astype(np.int16)
    goes_on = np.abs(before + after - 255) < np.abs(before - after)
    return bright if goes_on.mean(axis=0).min() >= STRIPE_EDGE else None


# --- specks ---------------------------------------------------------------------------------------


def without_specks(pixels: Bytes) -> Bytes | None:
    """Take single pixels that are far from all around them out of a small picture.

    Specks are parts of at most three pixels, bright in the dark or dark in the bright, touching at
    a corner too. They become the median of what is around them, as in the filter of adaptive
    medians (Hwang and Haddad 1995), but only where there are too many of them to be ink.

    Args:
        pixels: uint8 [rows, columns], black and white far apart.

    Returns:
        uint8 [rows, columns]; None where there are no more specks than there may be.
    """
    level, _ = cv2.threshold(pixels, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    bright = (pixels > level).astype(np.uint8)
    if 2 * cv2.countNonZero(bright) > bright.size:  # ink is the rarer of the two
        bright = 1 - bright
    specks, count = _small_parts(bright, 8)
    if count < max(LEAST_SPECKS, LEAST_SPECKED * pixels.size):
        return None
    holes, _ = _small_parts(1 - bright, 4)
    mended = pixels.copy()
    mended[specks | holes] = cv2.medianBlur(_filled(pixels, specks | holes), 3)[specks | holes]
    return mended


def _small_parts(mask: Bytes, connectivity: int) -> tuple[Bools, int]:
    """Where a mask has parts of a speck's size, and how many."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=connectivity)
    small = stats[:, cv2.CC_STAT_AREA] <= SPECK_PX
    small[0] = False
    return small[labels], int(small.sum())


def _filled(pixels: Bytes, gaps: Bools) -> Bytes:
    """The picture with gaps filled by the mean of the pixels around that are none."""
    known = (~gaps).astype(np.float32)
    border: Any = cv2.BORDER_REFLECT_101
    total = cv2.filter2D(pixels * known, -1, _AROUND, borderType=border)
    number = cv2.filter2D(known, -1, _AROUND, borderType=border)
    return np.where(gaps & (number > 0), total / np.maximum(number, 1), pixels).astype(np.uint8)


# --- ruled lines ----------------------------------------------------------------------------------


def without_lines(mask: Bytes, above: Bytes) -> Bytes:
    """Take ruled lines out of a mask, and mend the strokes that they crossed.

    A line is thin and runs, nearly straight, through nearly the whole picture. One or two that are
    as strong as what else there is may be strokes of a digit that fills its picture, and stay.

    Args:
        mask: uint8 [rows, columns], 0 or 1.
        above: uint8 [rows, columns], how far each pixel stands out from the paper.
    """
    mask = _without_rows(mask, above)
    return _without_rows(mask.T.copy(), above.T).T.copy()


def _without_rows(mask: Bytes, above: Bytes) -> Bytes:
    rows, columns = mask.shape
    thick = max(2, round(LINE_THICK * max(rows, columns)))
    if rows < 4 * thick or columns < 4 * thick:
        return mask
    run = np.ones((1, max(8, columns // 8)), np.uint8)
    tall = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((thick + 1, 1), np.uint8))
    low = cv2.morphologyEx(cv2.subtract(mask, tall), cv2.MORPH_CLOSE, np.ones((1, 7), np.uint8))
    thin = cv2.morphologyEx(low, cv2.MORPH_OPEN, run)
    if cv2.countNonZero(thin) < LINE_SPAN * 0.5 * columns:
        return mask
    bridged = cv2.dilate(thin, np.ones((3, 3), np.uint8))
    bridged = cv2.morphologyEx(bridged, cv2.MORPH_CLOSE, np.ones((1, columns // 2), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(bridged, connectivity=8)
    wide, high = stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT]
    lines = (wide >= LINE_SPAN * columns) & (high <= 3 * thick + 0.06 * columns)
    lines[0] = False
    if not lines.any():
        return mask
    line = cv2.bitwise_and(lines[labels].astype(np.uint8), cv2.subtract(mask, tall))
    rest = cv2.morphologyEx(cv2.subtract(mask, line), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    if lines.sum() < 3:
        levels = cv2.mean(above, line)[0], cv2.mean(above, rest)[0]
        if levels[0] > FAINT_LINE * levels[1]:
            return mask
    rest = cv2.subtract(mask, line)
    mended = cv2.morphologyEx(rest, cv2.MORPH_CLOSE, np.ones((2 * thick + 1, 1), np.uint8))
    whole: Bytes = cv2.bitwise_or(rest, cv2.bitwise_and(mended, line))
    return whole

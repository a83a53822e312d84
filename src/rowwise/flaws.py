"""Flaws of a picture's pixels, mended before ink is looked for: inverted stripes, specks."""

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
        bright = cv2.subtract(1.0, bright)
    specks, count = _small_parts(bright, 8)
    if count < max(LEAST_SPECKS, LEAST_SPECKED * pixels.size):
        return None
    holes, _ = _small_parts(cv2.subtract(1.0, bright), 4)
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

"""Pictures that are no digit, made of digits: what a network is to be unsure of.

Trained on some of them with the same target for every class, a network learns to doubt whatever
is none of its classes (outlier exposure: Hendrycks et al. 2019). They are made for the digits 0 to
9: of the pictures of other things, a mirrored one may well be another of the same kind.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Labels = NDArray[np.int64]
Rng = np.random.Generator

NONE = -1  # the label of a picture that is of no class
STREAM = 0x0D1  # tells these draws from others that are made of the same seed
# Digits that are none once they are mirrored, or lie on their side. A mirrored 2 may be a 5, and a
# slanted 1 on its side is one still.
MIRRORED = (3, 4, 6, 7, 9)
ON_THE_SIDE = (2, 3, 4, 5, 6, 7, 9)
FULL = 255


def mix(
    images: Bytes, labels: Labels, share: float, *, seed: int, step: int
) -> tuple[Bytes, Labels]:
    """One training step's pictures and labels, a share of them replaced by outliers.

    images uint8 [B, R, C], labels int64 [B]; both are kept, and returned anew with `NONE` as the
    label of every outlier. `step` counts from the training's beginning.
    """
    rng = np.random.Generator(np.random.PCG64([STREAM, seed, step]))
    images, known, labels = images.copy(), labels, labels.copy()
    originals = images.copy()
    for place in np.flatnonzero(rng.random(len(images)) < share):
        other = int(rng.integers(len(images)))
        ways = _ways(originals[place], int(known[place]))
        if known[other] != known[place]:
            ways += [partial(way, originals[other]) for way in PAIRED]
        way = ways[int(rng.integers(len(ways)))]
        images[place] = way(originals[place], rng)
        labels[place] = NONE
    return images, labels


def _ways(image: Bytes, label: int) -> list[Callable[[Bytes, Rng], Bytes]]:
    """What makes an outlier of this picture."""
    ways: list[Callable[[Bytes, Rng], Bytes]] = [scramble, noise, blobs, scribble, scribble]
    if label in MIRRORED:
        ways += [mirror, mirror]
    if label in ON_THE_SIDE and image.shape[0] == image.shape[1]:
        ways += [lay_down, lay_down]
    return ways


# --- one picture ------------------------------------------------------------------------------


def mirror(image: Bytes, rng: Rng) -> Bytes:
    """Left and right exchanged."""
    return image[:, ::-1]


def lay_down(image: Bytes, rng: Rng) -> Bytes:
    """Turned by a right angle, either way."""
    return np.rot90(image, int(rng.choice((1, 3))))


def scramble(image: Bytes, rng: Rng) -> Bytes:
    """Cut into 2 x 2, 3 x 3 or 4 x 4 tiles, which change places."""
    count = int(rng.integers(2, 5))
    rows, columns = image.shape[0] // count, image.shape[1] // count
    result = np.zeros_like(image)
    order = rng.permutation(count * count)
    if (np.diff(order) == 1).all():
        order = order[::-1]
    for to, start in enumerate(order):
        (r, c), (s, d) = divmod(to, count), divmod(int(start), count)
        tile = image[s * rows : (s + 1) * rows, d * columns : (d + 1) * columns]
        result[r * rows : (r + 1) * rows, c * columns : (c + 1) * columns] = tile
    return result


def noise(image: Bytes, rng: Rng) -> Bytes:
    """Every pixel by itself, as many of them as chance has it."""
    drawn = rng.integers(0, FULL + 1, image.shape) * (rng.random(image.shape) < rng.random())
    return drawn.astype(np.uint8)


def blobs(image: Bytes, rng: Rng) -> Bytes:
    """Spots of a size: smooth noise above a level."""
    import cv2

    rows, columns = image.shape
    knots = rng.standard_normal(rng.integers(3, 12, 2), np.float32)
    field = cv2.resize(knots, (columns, rows), interpolation=cv2.INTER_CUBIC)
    ink = np.clip(2 * (field - rng.uniform(-0.3, 1.2)), 0, 1)
    return np.asarray(FULL * ink, np.uint8)


def scribble(image: Bytes, rng: Rng) -> Bytes:
    """A long stroke from place to place or several short ones, straight or bent."""
    import cv2

    rows, columns = image.shape
    drawn = np.zeros((rows, columns), np.uint8)
    strokes = int(rng.integers(1, 5))
    fewest, most = (5, 8) if strokes == 1 else (2, 4)
    for _ in range(strokes):
        points = rng.uniform(0.12, 0.88, (int(rng.integers(fewest, most)), 2))
        if rng.random() < 0.5:  # a curve through them: Catmull and Rom's
            points = _bent(points)
        line = np.rint(points * (columns, rows) * 16).astype(np.int32)
        width = int(rng.integers(1, 1 + max(1, round(min(rows, columns) / 8))))
        cv2.polylines(drawn, [line], False, FULL, width, cv2.LINE_AA, 4)
    return drawn


def _bent(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """A smooth curve through points [N, 2]."""
    around = np.concatenate([points[:1], points, points[-1:]])
    t = np.linspace(0, 1, 8)[:, None]
    pieces = []
    for a, b, c, d in zip(around, around[1:], around[2:], around[3:], strict=False):
        bend = 2 * a - 5 * b + 4 * c - d, 3 * (b - c) + d - a
        pieces.append(b + 0.5 * t * (c - a + t * (bend[0] + t * bend[1])))
    return np.concatenate(pieces)


# --- two pictures of different digits ---------------------------------------------------------


def overlay(other: Bytes, one: Bytes, rng: Rng) -> Bytes:
    """Both at the same place, one of them on its side: two upright ones may make a third digit."""
    if one.shape[0] != one.shape[1]:
        return np.maximum(one, other[::-1, ::-1])
    return np.maximum(one, np.rot90(other))


def stand_beside(other: Bytes, one: Bytes, rng: Rng) -> Bytes:
    """Both beside each other, or one above the other, in the room of one."""
    import cv2

    rows, columns = one.shape
    axis = int(rng.integers(2))
    half = (max(1, columns // 2), rows) if axis else (columns, max(1, rows // 2))
    small = [cv2.resize(each, half, interpolation=cv2.INTER_AREA) for each in (one, other)]
    result = np.zeros_like(one)
    joined = np.concatenate(small, axis=axis)
    result[: joined.shape[0], : joined.shape[1]] = joined[:rows, :columns]
    return result


PAIRED = (overlay, stand_beside)

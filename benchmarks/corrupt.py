"""Fifteen ways to spoil a digit, in the manner of MNIST-C, written anew from its description.

Kinds and severities are those of N. Mu and J. Gilmer, "MNIST-C: A Robustness Benchmark for Computer
Vision", 2019 (arXiv 1906.02337); the code is ours, and no picture of theirs is used. Every function
takes a picture float32 [28, 28], 0 to 1, white ink on black, and a generator, and returns another;
`corrupt` is the door. What a picture draws depends on the seed, the kind and its place alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Rng = np.random.Generator

SIDE_PX = 28
MIDDLE_PX = (SIDE_PX - 1) / 2
STREAM = 0xC0  # tells these draws from others that are made of the same seed

PHOTONS = 3.0  # shot noise: at full ink
IMPULSES = 0.17  # of the pixels, half of them white
GLASS_SIGMA_PX, GLASS_PASSES = 0.7, 2
MOTION_SIGMA_PX, MOTION_REACH_PX, MOTION_DEG = 3.0, 20, 45.0
SHEAR = 0.4  # tangent
SHRINK = 0.7
TURN_RAD = 0.4
BRIGHTER = 0.5
SHIFT_PX = 3
STRIPE_PX = 7  # that are inverted on either side of the middle stripe
FOG, FOG_DECAY, FOG_SIDE_PX = 3.0, 1.4, 256
SPATTER_MEAN, SPATTER_DEVIATION, SPATTER_LEVEL = 0.65, 0.3, 0.65
SPATTER_SIGMA_PX, MUD_SIGMA_PX, MUD_LEAST, MUD = 1.0, 1.5, 0.8, 63 / 255
LINE_REACH_PX = 2.3
DOT_PX = 2
ZIGZAG_PX = 2.0
ZIGZAG_COLUMNS = (2, 25)
EDGE_SIGMA_PX, EDGE_LOW, EDGE_HIGH = 1.0, 0.1, 0.2

_ROW, _COLUMN = np.mgrid[0:SIDE_PX, 0:SIDE_PX].astype(np.float32)


def corrupt(kind: str, images: Bytes, *, seed: int) -> Bytes:
    """Spoil pictures in one way.

    Args:
        kind: a key of `KINDS`.
        images: uint8 [N, 28, 28], white ink on black.
        seed: of the draws.

    Returns:
        uint8 [N, 28, 28].
    """
    spoil = KINDS[kind]
    spoilt = np.empty_like(images)
    for place, image in enumerate(images):
        key = [STREAM, seed, zlib.crc32(kind.encode("ascii")), place]
        rng = np.random.Generator(np.random.PCG64(key))
        told = spoil(image.astype(np.float32) / 255, rng)
        spoilt[place] = np.rint(255 * np.clip(told, 0, 1)).astype(np.uint8)
    return spoilt


# --- noise and blur -------------------------------------------------------------------------------


def shot_noise(image: Floats, rng: Rng) -> Floats:
    """Light comes in few photons: Poisson's counts."""
    return (rng.poisson(image * PHOTONS) / PHOTONS).astype(np.float32)


def impulse_noise(image: Floats, rng: Rng) -> Floats:
    """Some pixels are white, some black: salt and pepper."""
    draws = rng.random(image.shape)
    salted = np.where(draws < IMPULSES / 2, 1, image)
    return np.where(draws > 1 - IMPULSES / 2, 0, salted).astype(np.float32)


def glass_blur(image: Floats, rng: Rng) -> Floats:
    """Blurred, neighbours exchanged by chance, and blurred again: frosted glass."""
    seen = _blurred(image, GLASS_SIGMA_PX)
    for _ in range(GLASS_PASSES):
        steps = rng.integers(-1, 1, (SIDE_PX, SIDE_PX, 2)).tolist()
        moves = (rng.random((SIDE_PX, SIDE_PX)) < 0.5).tolist()
        for row in range(SIDE_PX - 1, 1, -1):
            for column in range(SIDE_PX - 1, 1, -1):
                if moves[row][column]:
                    down, across = steps[row][column]
                    other = row + down, column + across
                    seen[row, column], seen[other] = seen[other], seen[row, column]
    return _blurred(seen, GLASS_SIGMA_PX)


def motion_blur(image: Floats, rng: Rng) -> Floats:
    """Smeared to one side, as by a moving hand."""
    turn = np.deg2rad(rng.uniform(-MOTION_DEG, MOTION_DEG))
    kernel = np.zeros((2 * MOTION_REACH_PX + 3,) * 2, np.float32)
    for i in range(MOTION_REACH_PX + 1):
        weight = np.exp(-(i**2) / (2 * MOTION_SIGMA_PX**2))
        x, y = (MOTION_REACH_PX + 1 + i * v for v in (np.cos(turn), np.sin(turn)))
        for column in (int(x), int(x) + 1):
            for row in (int(y), int(y) + 1):
                kernel[row, column] += weight * (1 - abs(x - column)) * (1 - abs(y - row))
    return _floats(cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE))


# --- places ---------------------------------------------------------------------------------------


def shear(image: Floats, rng: Rng) -> Floats:
    """Slanted to one side, about the middle."""
    return _mapped(image, [[1, -_sign(rng) * SHEAR], [0, 1]])


def scale(image: Floats, rng: Rng) -> Floats:
    """Smaller, in the middle of the same field."""
    return _mapped(image, [[1 / SHRINK, 0], [0, 1 / SHRINK]])


def rotate(image: Floats, rng: Rng) -> Floats:
    """Turned about the middle, either way."""
    turn = _sign(rng) * TURN_RAD
    return _mapped(image, [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])


def translate(image: Floats, rng: Rng) -> Floats:
    """Moved by some pixels across and down, either way."""
    return _mapped(image, np.eye(2), (_sign(rng) * SHIFT_PX, _sign(rng) * SHIFT_PX))


# --- light and weather ----------------------------------------------------------------------------


def brightness(image: Floats, rng: Rng) -> Floats:
    """Brighter by the same everywhere, up to white."""
    return _floats(np.minimum(image + BRIGHTER, 1))


def stripe(image: Floats, rng: Rng) -> Floats:
    """Inverted but for a stripe in the middle, half as wide as the picture."""
    aside = (_COLUMN < STRIPE_PX) | (_COLUMN >= SIDE_PX - STRIPE_PX)
    return np.where(aside, 1 - image, image).astype(np.float32)


def fog(image: Floats, rng: Rng) -> Floats:
    """Fog, three times as bright as the ink, of fractal noise: of each octave 1.4² times less."""
    height = np.zeros((FOG_SIDE_PX, FOG_SIDE_PX), np.float32)
    amplitude, knots = 1.0, 2
    while knots <= FOG_SIDE_PX:
        draws = rng.uniform(-amplitude, amplitude, (knots, knots)).astype(np.float32)
        height += cv2.resize(draws, (FOG_SIDE_PX, FOG_SIDE_PX), interpolation=cv2.INTER_LINEAR)
        amplitude, knots = amplitude / FOG_DECAY**2, 2 * knots
    height = (height - height.min()) / (height.max() - height.min())
    brightest = image.max()
    foggy = image + FOG * height[:SIDE_PX, :SIDE_PX]
    return _floats(foggy * brightest / (brightest + FOG))


def spatter(image: Floats, rng: Rng) -> Floats:
    """Spots of mud that cover what is under them."""
    drops = rng.normal(SPATTER_MEAN, SPATTER_DEVIATION, image.shape).astype(np.float32)
    wet = (_blurred(drops, SPATTER_SIGMA_PX) > SPATTER_LEVEL).astype(np.float32)
    mud = _blurred(wet, MUD_SIGMA_PX)
    mud[mud < MUD_LEAST] = 0
    return _floats(image * (1 - mud) + MUD * mud)


# --- lines ----------------------------------------------------------------------------------------


def dotted_line(image: Floats, rng: Rng) -> Floats:
    """A dotted line through the whole picture, from a place on its left to one on its right."""
    first, last = rng.integers(0, SIDE_PX - 1, 2)
    line = _line((0, first), (SIDE_PX - 1, last))
    return image + line * (_COLUMN // DOT_PX % 2 == 1)


def zigzag(image: Floats, rng: Rng) -> Floats:
    """A zigzag line of teeth of two pixels through nearly the whole picture."""
    left, right = ZIGZAG_COLUMNS
    first = int(rng.integers(0, SIDE_PX - 1))
    last = first + int(rng.integers(-5, 5))
    turn = np.arctan2(last - first, right - left)
    length = (right - left) / np.cos(turn)
    along = [0.0, *np.arange(ZIGZAG_PX, length, 2 * ZIGZAG_PX)]
    aside = [0.0, *(ZIGZAG_PX * (-1) ** i for i in range(len(along) - 1))]
    if length > along[-1]:
        along, aside = [*along, length], [*aside, 0.0]
    x = left + np.cos(turn) * np.asarray(along) - np.sin(turn) * np.asarray(aside)
    y = first + np.sin(turn) * np.asarray(along) + np.cos(turn) * np.asarray(aside)
    drawn = image
    for i in range(len(x) - 1):
        drawn = np.minimum(drawn + _line((x[i], y[i]), (x[i + 1], y[i + 1])), 1)
    return _floats(drawn)


def canny_edges(image: Floats, rng: Rng) -> Floats:
    """The outlines alone, a pixel wide (Canny 1986)."""
    smooth = np.rint(255 * _blurred(image, EDGE_SIGMA_PX)).astype(np.uint8)
    edges = cv2.Canny(smooth, 255 * EDGE_LOW, 255 * EDGE_HIGH, L2gradient=True)
    return _floats(edges / 255)


KINDS: dict[str, Callable[[Floats, Rng], Floats]] = {
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "glass_blur": glass_blur,
    "motion_blur": motion_blur,
    "shear": shear,
    "scale": scale,
    "rotate": rotate,
    "brightness": brightness,
    "translate": translate,
    "stripe": stripe,
    "fog": fog,
    "spatter": spatter,
    "dotted_line": dotted_line,
    "zigzag": zigzag,
    "canny_edges": canny_edges,
}


# --- what they are made of ------------------------------------------------------------------------


def _floats(array: Any) -> Floats:
    return np.asarray(array, np.float32)


def _sign(rng: Rng) -> int:
    return int(rng.choice((-1, 1)))


def _blurred(image: Floats, sigma_px: float) -> Floats:
    return _floats(cv2.GaussianBlur(image, (0, 0), sigma_px, borderType=cv2.BORDER_REPLICATE))


def _mapped(image: Floats, matrix: Any, shift: tuple[int, int] = (0, 0)) -> Floats:
    """Where each pixel comes from: a matrix about the middle, then a shift (x, y)."""
    turned = np.asarray(matrix, np.float32)
    middle = np.full(2, MIDDLE_PX, np.float32)
    offset = middle - turned @ middle + np.asarray(shift, np.float32)
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    whole = np.column_stack([turned, offset])
    return _floats(cv2.warpAffine(image, whole, (SIDE_PX, SIDE_PX), flags=how))


def _line(start: tuple[float, float], end: tuple[float, float]) -> Floats:
    """A line of ink between two places (x, y), fading as 1 + ln(1 - d / 2.3 px) above and below."""
    (x0, y0), (x1, y1) = start, end
    if x1 <= x0:
        return np.zeros((SIDE_PX, SIDE_PX), np.float32)
    off = np.abs(_ROW - (y0 + (y1 - y0) / (x1 - x0) * (_COLUMN - x0)))
    ink = 1 + np.log(1 - np.minimum(off, LINE_REACH_PX - 1e-6) / LINE_REACH_PX)
    inside = (np.floor(x0) <= _COLUMN) & (np.ceil(x1) > _COLUMN)
    return _floats(np.clip(ink, 0, 1) * inside)

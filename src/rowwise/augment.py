"""Seeded distortions of training digits, a step at a time, as an experiment's `Augmentation` says.

Pictures are uint8 [B, R, C], 255 is full ink on 0. Every picture draws numbers of its own; what
they draw depends on the seed and the step alone, not on threads or on how a training was cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowwise import allographs, outliers
from rowwise.config import Augmentation

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Labels = NDArray[np.int64]
Rng = np.random.Generator

STREAM = 0xA06  # tells these draws from others that are made of the same seed
BLOCK = 64  # pictures that draw from one stream, and that a thread works on at a time
GAP = 3  # rows of zeros that keep stacked pictures from touching, by as far as a blur reaches
BLUR_SIGMA_PX = 1.2
FULL = 255


def distort(
    images: Bytes,
    labels: Labels,
    how: Augmentation,
    *,
    seed: int,
    step: int,
    each: Callable[..., Iterable[Bytes]] = map,
) -> tuple[Bytes, Labels]:
    """The pictures of one training step, distorted, and their labels.

    images uint8 [B, R, C] and labels int64 [B] are kept, and returned anew; the label of what was
    made into no digit is `outliers.NONE`. `step` counts from the training's beginning. See
    `Augmentation` for what is done. `each` is called as `map` is; a pool's works on several blocks
    at a time.
    """
    if how.outlier_share:
        images, labels = outliers.mix(images, labels, how.outlier_share, seed=seed, step=step)

    def block(first: int) -> Bytes:
        rng = np.random.Generator(np.random.PCG64([STREAM, seed, step, first]))
        part = slice(first, first + BLOCK)
        return _distort_block(images[part], labels[part], how, rng)

    return np.concatenate([images[:0], *each(block, range(0, len(images), BLOCK))]), labels


def _distort_block(images: Bytes, labels: Labels, how: Augmentation, rng: Rng) -> Bytes:
    images = images.copy()
    for digit, share, write in (
        (1, how.flag_share, allographs.add_flag),
        (4, how.closed_share, allographs.close_four),
    ):
        if share:
            for place in np.flatnonzero((labels == digit) & (rng.random(len(images)) < share)):
                images[place] = write(images[place], rng)
    if _moves(how):
        images = move(images, how, rng)
    if how.stroke:
        images = thicken(images, rng.uniform(-how.stroke, how.stroke, len(images)))
    changes: tuple[tuple[float, Callable[[Bytes, Rng], Bytes]], ...] = (
        (how.outline_share, outline),
        (how.line_share, draw_line),
        (how.erase_share, erase),
        (how.blur_share, blur),
        (how.contrast_share, change_contrast),
        (how.noise_share, add_noise),
    )
    for share, change in changes:
        chosen = np.flatnonzero(rng.random(len(images)) < share)
        if len(chosen):
            images[chosen] = change(images[chosen], rng)
    return images


# --- what moves ink ---------------------------------------------------------------------------


def _moves(how: Augmentation) -> bool:
    return any((how.rotation_deg, how.shear, how.scale, how.shift_px, how.elastic_px))


def move(images: Bytes, how: Augmentation, rng: Rng) -> Bytes:
    """An affine and an elastic map of each picture, sampled bilinearly; beyond the edge is 0."""
    import cv2

    count, rows, columns = images.shape
    x, y = _affine(count, (rows, columns), how, rng)
    if how.elastic_px:
        amplitude = rng.uniform(0, how.elastic_px, (2, count, 1, 1)).astype(np.float32)
        fields = amplitude * _smooth_fields(count, (rows, columns), how.elastic_spacing_px, rng)
        x += fields[0]
        y += fields[1]
    # One stack of all pictures: what points beyond a picture's rows is held in the gap.
    np.clip(y, -1, rows, out=y)
    y += (np.arange(count, dtype=np.float32) * (rows + 2 * GAP) + GAP)[:, None, None]
    flat = (count * rows, columns)
    moved = cv2.remap(
        _stacked(images),
        x.reshape(flat),
        y.reshape(flat),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    return np.asarray(moved, np.uint8).reshape(images.shape)


def _affine(
    count: int, shape: tuple[int, int], how: Augmentation, rng: Rng
) -> tuple[Floats, Floats]:
    """Where each output pixel comes from: x and y, float32 [B, R, C] each."""
    turn = np.deg2rad(rng.uniform(-how.rotation_deg, how.rotation_deg, count))
    shear = rng.uniform(-how.shear, how.shear, count)
    wider, taller = 1 + rng.uniform(-how.scale, how.scale, (2, count))
    right, down = rng.uniform(-how.shift_px, how.shift_px, (2, count))
    cos, sin = np.cos(turn), np.sin(turn)
    middle_y, middle_x = (shape[0] - 1) / 2, (shape[1] - 1) / 2
    row = np.arange(shape[0])[:, None] - middle_y
    column = np.arange(shape[1])[None, :] - middle_x

    def combined(of_column: Any, of_row: Any, constant: Any) -> Floats:
        parts = (
            np.asarray(part, np.float32)[:, None, None] for part in (of_column, of_row, constant)
        )
        by_column, by_row, offset = parts
        across: Floats = by_column * column.astype(np.float32)
        return across + (by_row * row.astype(np.float32) + offset)

    x = combined(cos / wider, (cos * shear - sin) / wider, middle_x - right)
    y = combined(sin / taller, (sin * shear + cos) / taller, middle_y - down)
    return x, y


def _smooth_fields(count: int, shape: tuple[int, int], spacing: float, rng: Rng) -> Floats:
    """Two smooth random fields a picture, of variance about 1: float32 [2, B, R, C].

    Normal draws on a coarse grid, bicubic between them (Ronneberger et al. 2015, section 3.1). The
    grid goes on from picture to picture, so that one call serves all.
    """
    import cv2

    rows, columns = 2 * count * shape[0], shape[1]
    knots = [max(2, round(size / spacing)) for size in (rows, columns)]
    grid = rng.standard_normal(knots, np.float32)
    fields = cv2.resize(grid, (columns, rows), interpolation=cv2.INTER_CUBIC)
    return np.asarray(fields, np.float32).reshape(2, count, *shape)


# --- what changes strokes and grey levels -----------------------------------------------------


def thicken(images: Bytes, amounts: NDArray[np.float64]) -> Bytes:
    """Strokes about 2 px wider at amount 1, 2 px narrower at -1; `amounts` [B]."""
    import cv2

    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    stack = _stacked(images)
    wider = _apart(cv2.dilate(stack, cross), images.shape)
    narrower = _apart(cv2.erode(stack, cross), images.shape)
    target = np.where((amounts > 0)[:, None, None], wider, narrower)
    return _mixed(images, target, np.abs(amounts))


def outline(images: Bytes, rng: Rng) -> Bytes:
    """The strokes' edges alone."""
    import cv2

    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    return _apart(cv2.morphologyEx(_stacked(images), cv2.MORPH_GRADIENT, cross), images.shape)


def draw_line(images: Bytes, rng: Rng) -> Bytes:
    """A straight line across each picture, 1 to 2 px wide, as ink."""
    count, rows, columns = images.shape
    angle = rng.uniform(0, np.pi, count)
    reach = 0.4 * min(rows, columns)
    distance, width, ink = (
        rng.uniform(low, high, (count, 1, 1)).astype(np.float32)
        for low, high in ((-reach, reach), (1, 2), (0.4, 1))
    )
    row = np.arange(rows)[:, None] - (rows - 1) / 2
    column = np.arange(columns)[None, :] - (columns - 1) / 2
    across, down = (
        np.asarray(part, np.float32)[:, None, None] for part in (np.cos(angle), np.sin(angle))
    )
    off = np.abs(across * column.astype(np.float32) + down * row.astype(np.float32) - distance)
    line = ink * np.clip(width / 2 + 0.5 - off, 0, 1)
    return np.maximum(images, np.asarray(FULL * line, np.uint8))


def erase(images: Bytes, rng: Rng) -> Bytes:
    """A rectangle without ink, each side up to a third of the picture's (Zhong et al. 2020)."""
    count, rows, columns = images.shape
    sides = [_interval(size, count, rng) for size in (rows, columns)]
    kept = ~(sides[0][:, :, None] & sides[1][:, None, :])
    return np.asarray(images * kept, np.uint8)


def _interval(size: int, count: int, rng: Rng) -> NDArray[np.bool_]:
    """A random interval of 1 to size / 3 places in each line: bool [B, size]."""
    length = rng.integers(1, max(2, size // 3 + 1), count)
    first = rng.integers(0, size - length + 1)
    places = np.arange(size)
    return (places >= first[:, None]) & (places < (first + length)[:, None])


def blur(images: Bytes, rng: Rng) -> Bytes:
    """Mixed with a blurred copy, by a share of its own for each picture."""
    import cv2

    blurred = cv2.GaussianBlur(
        _stacked(images), (2 * GAP + 1,) * 2, BLUR_SIGMA_PX, borderType=cv2.BORDER_CONSTANT
    )
    return _mixed(images, _apart(blurred, images.shape), rng.random(len(images)))


def change_contrast(images: Bytes, rng: Rng) -> Bytes:
    """Another gamma (1/2 to 2) and fainter ink (down to 0.4)."""
    gamma = np.exp2(rng.uniform(-1, 1, len(images)))[:, None]
    ink = rng.uniform(0.4, 1, len(images))[:, None]
    levels = FULL * ink * (np.arange(256) / FULL) ** gamma
    tables = levels.astype(np.uint8)
    flat = np.take_along_axis(tables, images.reshape(len(images), -1).astype(np.int64), axis=1)
    return flat.reshape(images.shape)


def add_noise(images: Bytes, rng: Rng) -> Bytes:
    """Gaussian noise of up to a quarter of full ink; in half of the pictures specks beside it."""
    amount = rng.uniform(0, 0.25 * FULL, len(images)).astype(np.float32)[:, None, None]
    noisy = images + amount * rng.standard_normal(images.shape, np.float32)
    share = rng.uniform(-0.04, 0.04, len(images)).clip(0).astype(np.float32)[:, None, None]
    draws = rng.random(images.shape, np.float32)
    noisy[draws < share / 2] = FULL
    noisy[draws > 1 - share / 2] = 0
    return noisy.clip(0, FULL).astype(np.uint8)


# --- stacks -----------------------------------------------------------------------------------


def _stacked(images: Bytes) -> Bytes:
    """Pictures one above the other with gaps of zeros, [B (R + 2 GAP), C]."""
    padded = np.pad(images, ((0, 0), (GAP, GAP), (0, 0)))
    return padded.reshape(-1, images.shape[2])


def _apart(stack: Any, shape: tuple[int, ...]) -> Bytes:
    """The pictures [B, R, C] of a stack."""
    count, rows, columns = shape
    return np.asarray(stack, np.uint8).reshape(count, rows + 2 * GAP, columns)[:, GAP:-GAP]


def _mixed(images: Bytes, others: Bytes, share: NDArray[np.float64]) -> Bytes:
    """(1 - share) of each picture and `share` [B] of the other one."""
    weight = share.astype(np.float32)[:, None, None]
    return (images + weight * (others.astype(np.float32) - images) + 0.5).astype(np.uint8)

"""Arrays of any sensible shape and type -> the pixels of a picture: bytes, grey or RGB."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowwise.errors import PictureError

SHAPE = (28, 28)  # of a digit
MAX_PIXELS = 50_000_000  # of one picture or page
FAINT_SPAN = 0.25  # of the range: what spans less in more than 8 bits would lose too much in 8
UNIFORM_LEVELS = 24.0  # below this deviation what is visible is of one colour: ink, no paper
STROKE_WIDTH = 0.14  # of the picture's longer side: what is visible and wider is no stroke

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Picture:
    """One decoded picture, upright, opaque, at most about 2,000 pixels a side."""

    pixels: NDArray[np.uint8]  # [rows, columns] grey, or [rows, columns, 3] RGB
    name: str  # the file's, or what it is
    page: int = 1
    full_size: tuple[int, int] = (0, 0)  # columns, rows, before it was reduced


def arrays(batch: Any, *, shape: tuple[int, int] = SHAPE) -> NDArray[np.uint8]:
    """Take an array for many grey pictures: uint8 [N, rows, columns].

    What its numbers mean follows from their type and from the range of all pictures together; see
    `white`. `shape` is that of the pictures that are wanted, for the remedy.

    Raises:
        PictureError: it is not [N, rows, columns], or its numbers are none of a picture.
    """
    batch = np.asarray(batch)
    check_many(batch, shape=shape)
    if batch.ndim != 3:
        raise PictureError(
            f"array: many grey pictures are an array [N, rows, columns], got the shape "
            f"{list(batch.shape)}; reshape it to [-1, {shape[0]}, {shape[1]}]"
        )
    values = _unit(batch, white(batch))
    if values.dtype != np.uint8:
        values = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return values


def levels(batch: Array) -> NDArray[np.uint8]:
    """Many pictures [N, rows, columns, …] as grey levels, in the range of all of them together.

    As `from_array` does with one, those of more than 8 bits that all together span less than a
    quarter of their range are stretched.

    Raises:
        PictureError: as `check_many` and `white`.
    """
    check_many(batch)
    values = _unit(batch, white(batch))
    if values.dtype == np.uint8 or values.size == 0:
        found: NDArray[np.uint8] = values.astype(np.uint8, copy=False)
        return found
    if batch.ndim == 4 and batch.shape[3] in (2, 4):
        found = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)  # alpha stays what it is
        return found
    return stretched(values)


def check_many(batch: Array, *, shape: tuple[int, int] = SHAPE) -> None:
    """Refuse an array of many pictures whose rows and columns are not axes of their own.

    Raises:
        PictureError: as said.
    """
    if batch.ndim < 3:
        raise PictureError(
            f"array: many pictures are an array [N, rows, columns], got the shape "
            f"{list(batch.shape)}; give it as reshape(-1, {shape[0]}, {shape[1]})"
        )


def given(array: Array, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Take the array that somebody gives for one picture, as `from_array` does.

    Raises:
        PictureError: as there; and for rows of 784 numbers, which are flattened digits.
    """
    rows, columns = SHAPE
    if array.ndim in (1, 2) and array.shape[-1] == rows * columns:
        raise PictureError(
            f"array: a picture is an array [rows, columns], got the shape {list(array.shape)}, "
            f"flattened digits; give them as reshape(-1, {rows}, {columns}) to read_many (a "
            f"picture of {columns * rows} columns has a last axis of 1)"
        )
    return from_array(array, max_pixels=max_pixels)


def from_array(
    array: Array,
    *,
    name: str = "array",
    max_pixels: int = MAX_PIXELS,
    full: float | None = None,
) -> Picture:
    """Take an array for a picture.

    Args:
        array: [rows, columns], grey; with a last axis of 1 (grey), 2 (grey, alpha), 3 (RGB) or
            4 (RGB, alpha); or with the colours first, [1 | 3 | 4, rows, columns], where the last
            axis is longer than 4. What the numbers mean follows from their type and range: see
            `white`.
        name: by which messages call it.
        max_pixels: the most that it may have.
        full: what stands for white, where it is known.

    Returns:
        The picture. One of more than 8 bits that spans less than a quarter of its range is
        stretched, since nothing else would be left of it in 8 bits.

    Raises:
        PictureError: another shape or type, an empty side, too many pixels, negative,
            infinite or undefined numbers, or a range that may mean two things.
    """
    channels = _channels_last(array, name)
    rows, columns = channels.shape[:2]
    check_size(columns, rows, name, max_pixels)
    values = _unit(channels, white(channels, name) if full is None else full)
    if values.dtype == np.uint8:
        pixels = opaque(values) if values.shape[2] in (2, 4) else values
    elif values.shape[2] in (2, 4):
        pixels = opaque(np.rint(values * 255).astype(np.uint8))
    else:
        pixels = stretched(values)
    return Picture(grey_if_one(pixels), name, 1, (columns, rows))


def check_size(columns: int, rows: int, name: str, most: int = MAX_PIXELS) -> None:
    """Refuse a picture without pixels, or with more than `most` of them.

    Raises:
        PictureError: as said.
    """
    if columns < 1 or rows < 1:
        raise PictureError(
            f"{name}: a picture has at least one pixel a side, got {columns}×{rows}; "
            "give one with content"
        )
    if columns * rows > most:
        raise PictureError(
            f"{name}: at most {most / 10**6:g} megapixels are read, got {columns}×{rows} "
            f"({columns * rows / 1e6:.0f} megapixels); make it smaller, or cut out the digit"
        )


def grey_if_one(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[rows, columns, 1] as [rows, columns]; anything else as it is; contiguous and read-only."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    pixels = np.ascontiguousarray(pixels)
    if pixels.flags.writeable:
        pixels = pixels.view()
        pixels.flags.writeable = False
    return pixels


def stretched(unit: Array) -> NDArray[np.uint8]:
    """Numbers in [0, 1] as bytes; what spans less than a quarter of the range fills it."""
    low, high = float(unit.min()), float(unit.max())
    if 0 < high - low < FAINT_SPAN:
        unit = (unit - low) / (high - low)
    done: NDArray[np.uint8] = np.rint(np.clip(unit, 0, 1) * 255).astype(np.uint8)
    return done


def opaque(pixels: Array) -> NDArray[np.uint8]:
    """Lay a picture with alpha on a background that its ink stands out from.

    Where what is visible is of several tones and mostly wider than strokes, paper is among it, and
    fills the rest: the median. Otherwise it is ink, and lies on white or black, whichever is
    further from the outline of what is as narrow as strokes: an eraser's patch is wider.

    Args:
        pixels: uint8 [rows, columns, 2 | 4]; the last is alpha, 255 where nothing shows through.

    Returns:
        uint8 [rows, columns, 1 | 3].
    """
    alpha = pixels[..., -1:].astype(np.float32) * np.float32(1 / 255)
    return laid(pixels[..., :-1] * alpha, alpha)


def laid(colour: Array, alpha: Array) -> NDArray[np.uint8]:
    """As `opaque`, for float32 colours that were multiplied by alpha, and alpha in [0, 1]."""
    if float(alpha.min()) < 1:
        colour = colour + (1 - alpha) * background(colour, alpha)
    done: NDArray[np.uint8] = np.rint(np.clip(colour, 0, 255)).astype(np.uint8)
    return done


def background(colour: Array, alpha: Array) -> NDArray[np.float32]:
    """The colour, float32 [1 | 3] in 0..255, that `opaque` lays a picture on."""
    import cv2

    step = max(1, math.isqrt(alpha.size // 40_000))
    colour = np.ascontiguousarray(colour[::step, ::step])
    alpha = np.ascontiguousarray(alpha[::step, ::step, 0])
    seen = (alpha >= 0.5).astype(np.uint8)
    white = np.full(colour.shape[2], 255, np.float32)
    if not seen.any():
        return white
    sheet = _wide(seen)
    visible = colour[seen > 0] / alpha[seen > 0][:, None]
    uniform = float(visible.std(axis=0).max()) < UNIFORM_LEVELS
    if not uniform and 2 * cv2.countNonZero(sheet) > cv2.countNonZero(seen):
        return np.median(visible, axis=0).astype(np.float32)
    strokes = seen - sheet
    if 10 * cv2.countNonZero(strokes) < cv2.countNonZero(seen):
        strokes = seen
    outline = strokes > cv2.erode(seen, np.ones((3, 3), np.uint8)).reshape(seen.shape)
    if outline.any():
        visible = colour[outline] / alpha[outline][:, None]
    return white if float(np.median(visible)) < 127.5 else white * 0


def _wide(seen: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Where a mask is wider than strokes are, 0 or 1."""
    import cv2

    side = max(3, round(STROKE_WIDTH * max(seen.shape)))
    wide = cv2.morphologyEx(seen, cv2.MORPH_OPEN, np.ones((side, side), np.uint8))
    return np.asarray(wide, np.uint8)


def _channels_last(array: Array, name: str) -> Array:
    """The array as [rows, columns, channels]."""
    shape = array.shape
    if array.ndim == 2:
        return array[:, :, None]
    if array.ndim == 3 and shape[2] in (1, 2, 3, 4):
        return array
    if array.ndim == 3 and shape[0] in (1, 3, 4) and shape[2] > 4:
        return np.moveaxis(array, 0, -1)
    raise PictureError(
        f"{name}: a picture is an array [rows, columns], or with 1 to 4 channels as its last axis, "
        f"got the shape {list(shape)}; reshape it, or give several pictures one by one"
    )


def white(array: Array, name: str = "array") -> float:
    """What stands for white in the numbers of a picture, or of many: 1, 255 or 65,535.

    bool: True is bright. Integers: up to 1, two levels; up to 255, bytes; up to 65,535, 16 bits.
    Floats: up to 1, the unit range; from 2 to 255, bytes.

    Raises:
        PictureError: another type, negative, infinite or undefined numbers, or a range that may
            mean two things.
    """
    kind = array.dtype.kind
    if kind not in "buif":
        raise PictureError(
            f"{name}: a picture's numbers are bool, integers or floats, got {array.dtype}; "
            "convert it, for instance with astype('uint8')"
        )
    if kind == "b" or array.size == 0:
        return 1.0
    return _full_scale(kind, float(array.min()), float(array.max()), name)


def _unit(array: Array, full: float) -> Array:
    """Bytes as they are; everything else as float32 in [0, 1], where `full` is white."""
    kind = array.dtype.kind
    if kind in "ui" and full == 255:
        return array.astype(np.uint8, copy=False)
    if kind in "bui" and full == 1:
        return array.astype(np.uint8) * np.uint8(255)
    unit: Array = array.astype(np.float32) * np.float32(1 / full)
    return unit


def _full_scale(kind: str, low: float, high: float, name: str) -> float:
    """What stands for white in numbers from `low` to `high`."""
    if not (math.isfinite(low) and math.isfinite(high)):
        raise PictureError(
            f"{name}: a picture's numbers are finite, got {low:g} to {high:g}; "
            "replace what is infinite or undefined"
        )
    floats = kind == "f"
    slack = 1 / 255 if floats else 0  # rounding, or a little overshoot of a resize
    if low >= -slack * max(1.0, min(high, 255)) and high <= (256 if floats else 65_535):
        if high <= 1 + slack:
            return 1.0
        if not floats or high >= 2:
            return 255.0 if high <= 256 - (not floats) else 65_535.0
    raise PictureError(
        f"{name}: a picture's numbers lie in 0..1 or 0..255 (integers also 0..65535), "
        f"got {low:g} to {high:g}; scale them to one of these ranges"
    )

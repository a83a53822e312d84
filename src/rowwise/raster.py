"""A decoded raster -> the pixels that are kept: reduced strip by strip, opaque, upright."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rowwise import pixels

if TYPE_CHECKING:
    from PIL import Image

KEPT_SIDE_PX = 2048  # about; larger pictures are reduced to it while they are decoded
_STRIP_PIXELS = 1 << 20

Array = NDArray[Any]
Strip = Callable[[int, int], Array]  # the rows from one to another, [rows, columns, channels]
_TURNS: dict[int, Callable[[Array], Array]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}  # EXIF's orientations


def orientation(image: Image.Image) -> int:
    """EXIF's orientation; 1, as viewers have it, where the EXIF data cannot be read."""
    try:
        found = image.getexif().get(0x0112, 1)
    except Exception:  # its parser raises anything, and the pixels may be whole
        return 1
    return found if isinstance(found, int) else 1


def upright(shown: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turn and mirror [rows, columns, channels] as EXIF's orientation, 1 to 8, says."""
    return _TURNS[orientation](shown) if orientation in _TURNS else shown


def turned(columns: int, rows: int, orientation: int) -> tuple[int, int]:
    """The columns and rows that `upright` makes of a picture."""
    return (rows, columns) if orientation in (5, 6, 7, 8) else (columns, rows)


def shown(image: Image.Image, name: str) -> NDArray[np.uint8]:
    """The pixels of one of Pillow's pictures, which was loaded.

    Returns:
        uint8 [rows, columns, 1 | 3], not yet upright.

    Raises:
        PictureError: it is of 32 bits, and they mean nothing that `pixels.from_array` knows.
    """
    mode, (columns, rows) = _mode(image), image.size

    def strip(top: int, bottom: int) -> Array:
        whole = top == 0 and bottom == rows
        return _array(image if whole else image.crop((0, top, columns, bottom)), mode)

    kept = _reduced(strip, columns, rows)
    if mode.startswith(("I", "F")):
        return _shown_deep(kept, mode, name)
    return _opaque(kept)


def reduced_array(array: Array) -> NDArray[np.uint8]:
    """The pixels of uint8 [rows, columns], or with 3 or 4 channels in OpenCV's order, BGR."""
    order = [2, 1, 0, 3][: array.shape[2]] if array.ndim == 3 else [0]
    given = array if array.ndim == 3 else array[:, :, None]
    rows, columns = given.shape[:2]
    return _opaque(_reduced(lambda top, bottom: given[top:bottom][..., order], columns, rows))


def _mode(image: Image.Image) -> str:
    """The mode to convert to: L, RGB, RGBA, or its own where it is of more than 8 bits."""
    mode = image.mode
    if mode.startswith(("I", "F")):
        return mode
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return "RGBA"
    return "L" if mode in ("1", "L") else "RGB"


def _reduced(strip: Strip, columns: int, rows: int) -> Array:
    """The picture, by areas reduced to about the side that is kept.

    It goes strip by strip, so that 50 megapixels are never there twice. With alpha, the colours
    are multiplied by it, as float32.
    """
    factor = max(1, math.ceil(max(columns, rows) / KEPT_SIDE_PX))
    if factor == 1:
        return _multiplied(strip(0, rows))
    import cv2

    width = max(1, round(columns / factor))
    step = factor * max(1, _STRIP_PIXELS // (columns * factor))
    strips = []
    for top in range(0, rows, step):
        bottom = min(rows, top + step)
        size = (width, max(1, round((bottom - top) / factor)))
        smaller = cv2.resize(_multiplied(strip(top, bottom)), size, interpolation=cv2.INTER_AREA)
        strips.append(smaller.reshape(size[1], width, -1))
    return np.concatenate(strips)


def _array(image: Image.Image, mode: str) -> Array:
    array = np.asarray(image if image.mode == mode else image.convert(mode))
    if mode.startswith(("I", "F")):
        array = array.astype(np.float32)
    return array[:, :, None] if array.ndim == 2 else array


def _multiplied(array: Array) -> Array:
    if array.shape[2] != 4:
        return array
    done = array.astype(np.float32)
    done[..., :3] *= done[..., 3:] * np.float32(1 / 255)
    return done


def _opaque(kept: Array) -> NDArray[np.uint8]:
    if kept.shape[2] != 4:
        return kept
    return pixels.laid(kept[..., :3], kept[..., 3:] * np.float32(1 / 255))


def _shown_deep(values: Array, mode: str, name: str) -> NDArray[np.uint8]:
    high = float(values.max())
    if mode.startswith("I;16") or (mode == "I" and values.min() >= 0 and 255 < high <= 65_535):
        return pixels.stretched(values * np.float32(1 / 65_535))
    return pixels.from_array(values, name=name).pixels[:, :, None]

"""Pictures of digits among other things, made: neighbours, borders, grounds.

Every function takes a digit's picture, uint8 [28, 28], white ink on black, and a generator, and
returns a picture, uint8 [rows, columns] or [rows, columns, 3 | 4], and what is right of it: the
digit, or `REFUSED` where none may be accepted as the only one. Seeded: what a picture draws depends
on the seed, the kind and its place alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Rng = np.random.Generator

SIDE_PX = 280  # of a page
STREAM = 0xA5  # tells these draws from others that are made of the same seed
REFUSED = None


class Made(NamedTuple):
    """A made picture, which way of its kind it is of, and the digit that may be accepted in it."""

    picture: Bytes
    way: str
    digit: int | None


class Digits(NamedTuple):
    """Digits to draw from."""

    images: Bytes  # [N, 28, 28]
    labels: Sequence[int]

    def any(self, rng: Rng) -> tuple[Floats, int]:
        """The ink of one, float32 [28, 28] in 0..1, and what it is."""
        place = int(rng.integers(len(self.images)))
        return self.images[place].astype(np.float32) / 255, int(self.labels[place])


def made(kind: str, digits: Digits, count: int, *, seed: int) -> list[Made]:
    """So many pictures of a kind of `KINDS`; the first digits of `digits` are their digits."""
    ways = KINDS[kind]
    pictures = []
    for place in range(count):
        key = [STREAM, seed, zlib.crc32(kind.encode("ascii")), place]
        rng = np.random.Generator(np.random.PCG64(key))
        ink = digits.images[place % len(digits.images)].astype(np.float32) / 255
        label = int(digits.labels[place % len(digits.images)])
        name = list(ways)[place % len(ways)]
        picture, right = ways[name](ink, label, digits, rng)
        pictures.append(Made(picture, name, right))
    return pictures


# --- ink and paper --------------------------------------------------------------------------------


def resized(ink: Floats, side: float) -> Floats:
    """A digit's ink in another size."""
    size = max(4, round(side))
    larger = cv2.resize(ink, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.clip(larger, 0, 1).astype(np.float32)


def cut_to_ink(ink: Floats) -> Floats:
    """A digit's ink without the empty rows and columns around it."""
    rows, columns = np.nonzero(ink > 0.2)
    return ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def lay(field: Floats, ink: Floats, top: float, left: float) -> None:
    """Lay ink into a field in place; what reaches beyond the field is cut off."""
    y, x = round(top), round(left)
    y0, x0 = max(0, y), max(0, x)
    y1, x1 = min(field.shape[0], y + ink.shape[0]), min(field.shape[1], x + ink.shape[1])
    if y1 > y0 and x1 > x0:
        here = field[y0:y1, x0:x1]
        np.maximum(here, ink[y0 - y : y1 - y, x0 - x : x1 - x], out=here)


def page_of(ink: Floats, rng: Rng, *, share: tuple[float, float] = (0.45, 0.7)) -> Floats:
    """A digit on an empty page, float32 [SIDE_PX, SIDE_PX], somewhere near the middle."""
    field = np.zeros((SIDE_PX, SIDE_PX), np.float32)
    large = resized(ink, rng.uniform(*share) * SIDE_PX)
    free = SIDE_PX - large.shape[0]
    top, left = free * rng.uniform(0.35, 0.65, 2)
    lay(field, large, top, left)
    return field


def levels(rng: Rng) -> tuple[float, float]:
    """A paper's level and its ink's: dark on bright, now and then the other way round."""
    paper, ink = rng.uniform(195, 250), rng.uniform(10, 110)
    return (paper, ink) if rng.random() < 0.85 else (255 - paper, 255 - ink)


def finished(picture: Floats, rng: Rng) -> Bytes:
    """Light, blur and grain, as a camera adds them."""
    rows, columns = picture.shape[:2]
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32) / max(rows, columns) - 0.5
    slope = rng.uniform(-0.12, 0.12, 2)
    light = 1 + slope[0] * y + slope[1] * x
    lit = picture * (light if picture.ndim == 2 else light[..., None])
    soft = cv2.GaussianBlur(lit, (0, 0), rng.uniform(0.4, 1.6))
    grain = rng.normal(0, rng.uniform(0.3, 5), picture.shape)
    return np.clip(np.rint(soft + grain), 0, 255).astype(np.uint8)


def inked(field: Floats, rng: Rng) -> Bytes:
    """Ink on paper, finished."""
    paper, ink = levels(rng)
    return finished(paper + (ink - paper) * field, rng)


# --- neighbours -----------------------------------------------------------------------------------


def row_of(inks: Sequence[Floats], rng: Rng, *, gap: tuple[float, float]) -> Floats:
    """Digits in a row, the gap between them in shares of a digit's height."""
    high = rng.uniform(0.3, 0.6) * SIDE_PX
    cells = [cut_to_ink(resized(ink, high * rng.uniform(0.8, 1.1) * 1.4)) for ink in inks]
    x, places = 0.0, []
    for cell in cells:
        places.append(x)
        x += cell.shape[1] + rng.uniform(*gap) * high
    total = places[-1] + cells[-1].shape[1]
    margin = rng.uniform(0.15, 0.6) * high
    field = np.zeros((round(1.25 * high + 2 * margin), round(total + 2 * margin)), np.float32)
    for cell, left in zip(cells, places, strict=True):
        top = margin + (1.25 * high - cell.shape[0]) / 2 + rng.uniform(-0.06, 0.06) * high
        lay(field, cell, top, margin + left)
    return field


def several(number: int, gap: tuple[float, float]) -> Way:
    """A row of so many digits, none of which is the only one."""

    def way(ink: Floats, label: int, digits: Digits, rng: Rng) -> tuple[Bytes, int | None]:
        others = [digits.any(rng)[0] for _ in range(number - 1)]
        return inked(row_of([ink, *others], rng, gap=gap), rng), REFUSED

    return way


def stacked(ink: Floats, label: int, digits: Digits, rng: Rng) -> tuple[Bytes, int | None]:
    """Two digits, one below the other."""
    other = digits.any(rng)[0]
    field = row_of([ink.T, other.T], rng, gap=(0.1, 1.0)).T.copy()
    return inked(field, rng), REFUSED


def smaller_beside(ink: Floats, label: int, digits: Digits, rng: Rng) -> tuple[Bytes, int | None]:
    """A digit and one of a little more than half its size."""
    large = cut_to_ink(resized(ink, 1.4 * 120))
    small = cut_to_ink(resized(digits.any(rng)[0], 1.4 * 120 * rng.uniform(0.6, 0.85)))
    gap = rng.uniform(20, 120)
    width = round(large.shape[1] + small.shape[1] + gap + 80)
    field = np.zeros((220, width), np.float32)
    cells = [large, small] if rng.random() < 0.5 else [small, large]
    x = 40.0
    for cell in cells:
        lay(field, cell, rng.uniform(30, 190 - cell.shape[0]), x)
        x += cell.shape[1] + gap
    return inked(field, rng), REFUSED


def cut_off(ink: Floats, label: int, digits: Digits, rng: Rng) -> tuple[Bytes, int | None]:
    """A digit between two neighbours that the picture's sides cut off: it may be read."""
    high = 150.0
    cell = cut_to_ink(resized(ink, 1.4 * high))
    beside = [cut_to_ink(resized(digits.any(rng)[0], 1.4 * high)) for _ in range(2)]
    gap = rng.uniform(0.25, 0.6) * high
    inside = [rng.uniform(0.05, 0.3) * one.shape[1] for one in beside]
    width = round(cell.shape[1] + 2 * gap + sum(inside))
    field = np.zeros((220, width), np.float32)
    lay(field, beside[0], rng.uniform(25, 45), inside[0] - beside[0].shape[1])
    lay(field, cell, rng.uniform(25, 45), inside[0] + gap)
    lay(field, beside[1], rng.uniform(25, 45), inside[0] + gap + cell.shape[1] + gap)
    return inked(field, rng), label


# --- borders --------------------------------------------------------------------------------------


def banded(picture: Floats, rng: Rng, sides: Sequence[int], *, level: float) -> Floats:
    """A picture with strips along sides (0 top, then clockwise), straight, a little slanted."""
    done = picture.copy()
    for side in sides:
        turned = np.rot90(done, side)
        high, wide = turned.shape
        depth = rng.uniform(0.02, 0.17) * high
        slant = rng.uniform(-0.05, 0.05) if rng.random() < 0.5 else 0.0
        x = np.arange(wide)
        edge = np.maximum(2, depth + slant * (x - wide / 2))
        inside = np.arange(high)[:, None] < edge[None]
        turned[inside] = level + rng.uniform(-8, 8)
    return done


def strip(*, many: bool, empty: bool = False) -> Way:
    """A desk, a book's spine, a scanner's edge along one side, or along several."""

    def way(ink: Floats, label: int, digits: Digits, rng: Rng) -> tuple[Bytes, int | None]:
        paper, pen = levels(rng)
        field = np.zeros((SIDE_PX, SIDE_PX), np.float32) if empty else page_of(ink, rng)
        picture = paper + (pen - paper) * field
        number = int(rng.integers(2, 4)) if many else 1
        sides = rng.permutation(4)[:number].tolist()
        level = rng.uniform(5, 130) if paper > 128 else rng.uniform(125, 250)
        told = banded(picture.astype(np.float32), rng, sides, level=level)
        return finished(told, rng), REFUSED if empty else label

    return way


def framed(ink: Floats, label: int, digits: Digits, rng: Rng) -> tuple[Bytes, int | None]:
    """A frame of one level on all four sides."""
    paper, pen = levels(rng)
    picture = paper + (pen - paper) * page_of(ink, rng)
    width = int(rng.integers(2, 36))
    level = rng.uniform(0, 110) if paper > 128 else rng.uniform(145, 255)
    picture[:width] = picture[-width:] = picture[:, :width] = picture[:, -width:] = level
    return finished(picture.astype(np.float32), rng), label


def cell_lines(ink: Floats, label: int, digits: Digits, rng: Rng) -> tuple[Bytes, int | None]:
    """Lines of a cell: at both sides, above and below, or all round, from border to border."""
    field = page_of(ink, rng, share=(0.45, 0.62))
    thick = int(rng.integers(2, 8))
    for axis in ((0,), (1,), (0, 1))[int(rng.integers(3))]:
        turned = field if axis else field.T
        for near in (rng.uniform(0.02, 0.12), 1 - rng.uniform(0.02, 0.12)):
            x = round(near * SIDE_PX)
            turned[:, max(0, x - thick // 2) : x + thick - thick // 2] = rng.uniform(0.7, 1)
    return inked(field, rng), label


def comb(ink: Floats, label: int, digits: Digits, rng: Rng) -> tuple[Bytes, int | None]:
    """A comb field: a line below, with teeth on both sides of the digit."""
    field = page_of(ink, rng, share=(0.45, 0.6))
    thick = int(rng.integers(2, 6))
    base = SIDE_PX - round(rng.uniform(0.04, 0.1) * SIDE_PX)
    field[base : base + thick] = 1
    tooth = round(rng.uniform(0.15, 0.5) * SIDE_PX)
    for near in (rng.uniform(0.04, 0.12), 1 - rng.uniform(0.04, 0.12)):
        x = round(near * SIDE_PX)
        field[base - tooth : base, x : x + thick] = 1
    return inked(field, rng), label


def drawn_round(ink: Floats, label: int, digits: Digits, rng: Rng) -> tuple[Bytes, int | None]:
    """A ring or a box, drawn round the digit by hand, not always closed."""
    field = page_of(ink, rng, share=(0.42, 0.55))
    middle = SIDE_PX / 2 + rng.uniform(-8, 8, 2)
    half = rng.uniform(0.4, 0.46, 2) * SIDE_PX
    turn = np.linspace(0, 2 * np.pi * rng.choice([1.0, 1.0, 0.96]), 120)
    power = rng.choice([2.0, 2.0, 6.0, 14.0])  # of a superellipse: round, or nearly a box
    radius = (np.abs(np.cos(turn)) ** power + np.abs(np.sin(turn)) ** power) ** (-1 / power)
    wobble = 1 + 0.03 * np.sin(turn * rng.integers(2, 5) + rng.uniform(0, 6))
    points = np.stack([np.cos(turn), np.sin(turn)], -1) * (radius * wobble)[:, None] * half + middle
    line = np.zeros_like(field, np.uint8)
    path = [np.rint(points).astype(np.int32)]
    cv2.polylines(line, path, isClosed=False, color=255, thickness=int(rng.integers(3, 9)))
    return inked(np.maximum(field, line.astype(np.float32) / 255), rng), label


# --- grounds --------------------------------------------------------------------------------------


def ground(rng: Rng, side: int) -> Floats:
    """A desk of any colour, plain or with a grain like wood's, float32 [side, side, 3]."""
    hue = np.array([[[rng.uniform(0, 180), rng.uniform(0, 200), rng.uniform(25, 190)]]], np.uint8)
    colour = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32)
    desk = np.ones((side, side, 1), np.float32) * colour
    if rng.random() < 0.4:
        stripes = cv2.GaussianBlur(rng.normal(0, 1, (side, 1)).astype(np.float32), (0, 0), 3)
        stripes = stripes / max(1e-6, float(stripes.std())) * rng.uniform(2, 12)
        desk = desk + stripes.reshape(side, 1, 1)
    return np.asarray(desk, np.float32)


def coloured_pen(rng: Rng) -> Floats:
    """An ink: black, blue, red, green, of any depth."""
    pens = ((20, 20, 25), (30, 40, 160), (170, 30, 40), (20, 100, 50), (70, 70, 80))
    return np.array(pens[int(rng.integers(len(pens)))], np.float32) + rng.uniform(-15, 25, 3)


def on_ground(ink: Floats, label: int, digits: Digits, rng: Rng) -> tuple[Bytes, int | None]:
    """A sheet on a desk of another colour, turned and seen a little from the side."""
    field = page_of(ink, rng, share=(0.5, 0.75))
    paper = np.array([235, 232, 225], np.float32) + rng.uniform(-30, 18, 3)
    sheet = paper + (coloured_pen(rng) - paper) * field[..., None]
    side = round(SIDE_PX * rng.uniform(1.25, 2.2))
    desk = ground(rng, side)
    if np.abs(desk.mean((0, 1)) - paper).max() < 45:
        desk = desk * 0.5
    angle = np.deg2rad(rng.uniform(-14, 14))
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float32) * SIDE_PX / 2
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    free = (side - SIDE_PX) / 2
    middle = side / 2 + rng.uniform(-0.6, 0.6, 2) * free
    aim = corners @ turn.T + middle + rng.uniform(-8, 8, (4, 2))
    start = corners + SIDE_PX / 2
    warp = cv2.getPerspectiveTransform(start.astype(np.float32), aim.astype(np.float32))
    size = (side, side)
    there = cv2.warpPerspective(np.ones((SIDE_PX, SIDE_PX), np.float32), warp, size)[..., None]
    laid = cv2.warpPerspective(sheet.astype(np.float32), warp, size)
    return finished(desk * (1 - there) + laid * there, rng), label


MAPS = (
    cv2.COLORMAP_VIRIDIS,
    cv2.COLORMAP_PLASMA,
    cv2.COLORMAP_INFERNO,
    cv2.COLORMAP_MAGMA,
    cv2.COLORMAP_CIVIDIS,
    cv2.COLORMAP_HOT,
    cv2.COLORMAP_BONE,
)


def plotted(ink: Floats, label: int, digits: Digits, rng: Rng) -> tuple[Bytes, int | None]:
    """A figure: the digit in a colour map, in a white or grey margin."""
    side = int(rng.integers(120, 280))
    shown = cv2.resize(ink, (side, side), interpolation=int(rng.choice([0, 1, 2])))
    shown = (np.clip(shown, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.3:
        panel = np.repeat((shown if rng.random() < 0.5 else 255 - shown)[..., None], 3, 2)
    else:
        panel = cv2.cvtColor(cv2.applyColorMap(shown, int(rng.choice(MAPS))), cv2.COLOR_BGR2RGB)
    margins = [round(m) for m in rng.uniform(0.05, 0.5, 4) * side]
    level = 255 if rng.random() < 0.8 else int(rng.integers(200, 250))
    border: Any = cv2.BORDER_CONSTANT
    return cv2.copyMakeBorder(panel, *margins, border, value=(level,) * 3), label


def transparent(ink: Floats, label: int, digits: Digits, rng: Rng) -> tuple[Bytes, int | None]:
    """Ink of two tones on nothing: pressure, a gradient, another pen, an eraser's patch."""
    field = page_of(ink, rng)
    dark = rng.random() < 0.7
    tones = rng.uniform(0, 110, 2) if dark else rng.uniform(145, 255, 2)
    y, x = np.mgrid[0:SIDE_PX, 0:SIDE_PX] / SIDE_PX
    way = (x, y, x + y)[int(rng.integers(3))]
    mix = np.clip((way - way.mean()) * rng.uniform(2, 40) + 0.5, 0, 1)
    tone = tones[0] * (1 - mix) + tones[1] * mix
    alpha = 255 * field
    if rng.random() < 0.4:
        high, wide = (round(v) for v in rng.uniform(0.1, 0.3, 2) * SIDE_PX)
        top, left = rng.integers(0, 20), rng.integers(0, 20)
        patch = np.s_[top : top + high, left : left + wide]
        alpha[patch], tone[patch] = 255, 255 if dark else 0
    rgba = np.dstack([tone, tone, tone, alpha])
    return np.clip(np.rint(rgba), 0, 255).astype(np.uint8), label


Way = Callable[[Floats, int, Digits, Rng], tuple[Bytes, int | None]]
KINDS: dict[str, dict[str, Way]] = {
    "neighbours": {
        "two": several(2, (0.15, 1.5)),
        "two, close": several(2, (0.0, 0.2)),
        "three": several(3, (0.1, 0.8)),
        "four": several(4, (0.1, 0.5)),
        "two, one below the other": stacked,
        "a smaller one beside": smaller_beside,
        "cut off at the sides": cut_off,
        "cut off, again": cut_off,
    },
    "borders": {
        "a strip": strip(many=False),
        "strips": strip(many=True),
        "a strip and nothing written": strip(many=False, empty=True),
        "a frame": framed,
        "lines of a cell": cell_lines,
        "a comb": comb,
        "drawn round": drawn_round,
    },
    "grounds": {
        "paper on a desk": on_ground,
        "paper on a desk, again": on_ground,
        "plotted": plotted,
        "ink of two tones on nothing": transparent,
    },
}

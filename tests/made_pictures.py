"""Difficult pictures of digits, made: strokes on paper, in all the manners of people's pictures.

A digit is drawn with strokes of its own (`drawn`), or given as ink, and `KINDS` lays it on paper.
All is deterministic: the same seed makes the same picture.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image, ImageDraw

SIDE = 240  # of the digit's field, in pixels

# fmt: off
# Polylines in a unit square, x to the right, y down; "o" is an ellipse by its box.
GLYPHS: dict[int, list] = {
    0: [("o", 0.24, 0.05, 0.76, 0.95)],
    1: [(0.38, 0.25), (0.55, 0.06), (0.5, 0.95)],
    2: [(0.22, 0.28), (0.34, 0.08), (0.62, 0.06), (0.74, 0.26), (0.6, 0.52),
        (0.2, 0.92), (0.8, 0.9)],
    3: [(0.25, 0.1), (0.6, 0.06), (0.72, 0.25), (0.45, 0.46),
        (0.74, 0.62), (0.66, 0.88), (0.24, 0.92)],
    4: [(0.4, 0.06), (0.2, 0.58), (0.82, 0.56), None, (0.66, 0.2), (0.6, 0.95)],
    5: [(0.76, 0.07), (0.3, 0.08), (0.26, 0.44), (0.6, 0.42),
        (0.76, 0.65), (0.58, 0.92), (0.22, 0.9)],
    6: [(0.66, 0.06), (0.36, 0.36), (0.26, 0.66), None, ("o", 0.26, 0.46, 0.72, 0.95)],
    7: [(0.2, 0.1), (0.78, 0.08), (0.56, 0.5), (0.42, 0.95)],
    8: [("o", 0.3, 0.05, 0.7, 0.47), ("o", 0.24, 0.46, 0.76, 0.95)],
    9: [("o", 0.28, 0.05, 0.74, 0.5), None, (0.74, 0.26), (0.68, 0.6), (0.54, 0.95)],
}
# fmt: on


def drawn(digit: int, *, width: float = 0.1, side: int = SIDE) -> np.ndarray:
    """The ink of one digit, float32 [side, side] in 0..1, `width` of the side thick."""
    over = 3
    image = Image.new("L", (side * over, side * over))
    pen = ImageDraw.Draw(image)
    thick = max(1, round(width * side * over))
    field = side * over - 1
    line: list = []
    for point in [*GLYPHS[digit], None]:
        if point is None or point[0] == "o":
            if len(line) > 1:
                pen.line(line, fill=255, width=thick, joint="curve")
            for x, y in line:
                r = thick / 2
                pen.ellipse((x - r, y - r, x + r, y + r), fill=255)
            line = []
        if point is not None and point[0] == "o":
            box = [v * field for v in point[1:]]
            r = thick / 2
            pen.ellipse((box[0] - r, box[1] - r, box[2] + r, box[3] + r), outline=255, width=thick)
        elif point is not None:
            line.append((point[0] * field, point[1] * field))
    smaller = image.resize((side, side), Image.Resampling.BOX)
    return np.asarray(smaller, np.float32) / 255


def mnist_like(ink: np.ndarray) -> np.ndarray:
    """MNIST's recipe in other words: box of 20 px by Pillow, centre of mass to the middle."""
    rows, columns = np.nonzero(ink > 0.1)
    cut = ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    share = 20 / max(cut.shape)
    size = (max(1, round(cut.shape[1] * share)), max(1, round(cut.shape[0] * share)))
    small = np.asarray(
        Image.fromarray((cut * 255).astype(np.uint8)).resize(size, Image.Resampling.BOX), float
    )
    y, x = np.indices(small.shape)
    left = round(13.5 - (x * small).sum() / small.sum())
    top = round(13.5 - (y * small).sum() / small.sum())
    left, top = np.clip(left, 0, 28 - size[0]), np.clip(top, 0, 28 - size[1])
    field = np.zeros((28, 28), np.uint8)
    field[top : top + size[1], left : left + size[0]] = small.round()
    return field


# --- on paper ---------------------------------------------------------------------------------

Ink = np.ndarray  # float32 [side, side] in 0..1
Rng = np.random.Generator


def on_paper(ink: Ink, *, margin: float = 0.3, at: tuple[float, float] = (0.5, 0.5)) -> Ink:
    """The ink with paper around it."""
    side = ink.shape[0]
    whole = round(side * (1 + 2 * margin))
    field = np.zeros((whole, whole), np.float32)
    top, left = (round((whole - side) * v) for v in at)
    field[top : top + side, left : left + side] = ink
    return field


def mixed(ink: Ink, paper: np.ndarray | float, level: float) -> np.ndarray:
    return paper * (1 - ink) + level * ink


def as_bytes(picture: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def noisy(picture: np.ndarray, rng: Rng, deviation: float) -> np.ndarray:
    grain = cv2.GaussianBlur(rng.standard_normal(picture.shape).astype(np.float32), (0, 0), 0.8)
    return as_bytes(picture + grain * deviation / grain.std())


def slope(shape: tuple[int, ...], low: float, high: float, *, angle: float = 0.6) -> np.ndarray:
    y, x = np.indices(shape[:2]) / max(shape)
    run = x * np.cos(angle) + y * np.sin(angle)
    return low + (high - low) * run / run.max()


def cut_to_ink(ink: Ink, *, margin: int = 0) -> Ink:
    rows, columns = np.nonzero(ink > 0.3)
    return ink[
        max(0, rows.min() - margin) : rows.max() + 1 + margin,
        max(0, columns.min() - margin) : columns.max() + 1 + margin,
    ]


def ruled(ink: Ink, rng: Rng, *, squared: bool) -> np.ndarray:
    page = on_paper(ink)
    paper = np.full(page.shape, 235.0)
    gap = page.shape[0] // 6
    for at in range(gap // 2, page.shape[0], gap):
        paper[at : at + 2] = 160
        if squared:
            paper[:, at : at + 2] = 160
    turn = cv2.getRotationMatrix2D((page.shape[1] / 2, page.shape[0] / 2), 1.0, 1.0)
    paper = cv2.warpAffine(paper, turn, page.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    return noisy(mixed(page, paper, 50), rng, 3)


def framed(ink: Ink, rng: Rng, *, width: int, level: float) -> np.ndarray:
    picture = mixed(on_paper(ink, margin=0.25), 220, 40)
    picture = cv2.copyMakeBorder(
        picture, width, width, width, width, cv2.BORDER_CONSTANT, value=level
    )
    return noisy(picture, rng, 2)


def with_neighbours(ink: Ink, rng: Rng) -> np.ndarray:
    page = on_paper(ink, margin=0.2)
    side = ink.shape[0]
    other = np.roll(ink[::-1], 0, axis=1)
    rows = slice(round(0.2 * side), round(0.2 * side) + side)
    strip = round(0.07 * side)
    filled = np.flatnonzero(other.max(axis=0) > 0.5)
    page[rows, :strip] = other[:, filled[-1] - strip + 1 : filled[-1] + 1]
    page[rows, -strip:] = other[:, filled[0] : filled[0] + strip]
    return noisy(mixed(page, 225, 45), rng, 3)


def specked(ink: Ink, rng: Rng) -> np.ndarray:
    page = on_paper(ink)
    for _ in range(40):
        y, x = rng.integers(3, page.shape[0] - 3, 2)
        cv2.circle(page, (int(x), int(y)), int(rng.integers(1, 4)), 0.9, -1)
    return noisy(mixed(page, 230, 40), rng, 2)


def shadowed(ink: Ink, rng: Rng) -> np.ndarray:
    page = on_paper(ink)
    light = np.full(page.shape, 210.0, np.float32)
    corner = np.array([[0, 0], [page.shape[1], 0], [0, round(0.9 * page.shape[0])]], np.int32)
    cv2.fillPoly(light, [corner], 110)
    light = cv2.GaussianBlur(light, (0, 0), 6)
    return noisy(light * (1 - 0.75 * page), rng, 3)


def jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "JPEG", quality=quality)
    return np.asarray(Image.open(data))


def resized(picture: np.ndarray, side: int) -> np.ndarray:
    return cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)


def with_alpha(ink: Ink, level: int) -> np.ndarray:
    page = on_paper(ink)
    return np.dstack([np.full((*page.shape, 3), level, np.uint8), as_bytes(255 * page)])


def coloured(
    ink: Ink, rng: Rng, pen: tuple[float, float, float], paper: tuple[float, float, float]
) -> np.ndarray:
    page = on_paper(ink)[..., None]
    light = slope(page.shape, 0.8, 1.0)[..., None]
    return noisy((np.array(paper) * (1 - page) + np.array(pen) * page) * light, rng, 6)


def strongly_ruled(ink: Ink, rng: Rng) -> np.ndarray:
    picture = mixed(on_paper(ink), 230, 60)
    gap = len(picture) // 5
    for at in range(gap // 2, len(picture), gap):
        picture[at : at + 3] = np.minimum(picture[at : at + 3], 90)
    return noisy(picture, rng, 3)


def boxed(ink: Ink, rng: Rng) -> np.ndarray:
    picture = np.ascontiguousarray(mixed(on_paper(ink, margin=0.4), 230, 60))
    near, far = len(picture) // 8, len(picture) - len(picture) // 8
    cv2.rectangle(picture, (near, near), (far, far), 70, 4)
    return noisy(picture, rng, 3)


def on_a_desk(ink: Ink, rng: Rng) -> np.ndarray:
    paper = mixed(on_paper(ink, margin=0.2), 225, 50)
    side = len(paper)
    desk = np.full((2 * side, 2 * side), 70.0)
    desk[side // 2 : side // 2 + side, side // 2 : side // 2 + side] = paper
    turn = cv2.getRotationMatrix2D((side, side), 5, 1.0)
    turned = cv2.warpAffine(desk, turn, desk.shape, borderMode=cv2.BORDER_REPLICATE)
    return noisy(turned, rng, 4)


Kind = Callable[[Ink, Rng], np.ndarray]
KINDS: dict[str, Kind] = {
    "dark on light": lambda ink, rng: noisy(mixed(on_paper(ink), 225, 40), rng, 2),
    "light on dark": lambda ink, rng: noisy(mixed(on_paper(ink), 30, 220), rng, 2),
    "clean": lambda ink, rng: as_bytes(mixed(on_paper(ink), 255, 0)),
    "uneven light": lambda ink, rng: noisy(
        slope(on_paper(ink).shape, 90, 240) * (1 - 0.7 * on_paper(ink)), rng, 3
    ),
    "chalk in uneven light": lambda ink, rng: noisy(
        mixed(on_paper(ink), slope(on_paper(ink).shape, 20, 110), 235), rng, 4
    ),
    "shadow": shadowed,
    "strongly ruled": strongly_ruled,
    "in a box": boxed,
    "on a desk": on_a_desk,
    "much grain": lambda ink, rng: noisy(mixed(on_paper(ink), 170, 70), rng, 28),
    "ruled": lambda ink, rng: ruled(ink, rng, squared=False),
    "squared": lambda ink, rng: ruled(ink, rng, squared=True),
    "dark desk": lambda ink, rng: framed(ink, rng, width=50, level=60),
    "white frame": lambda ink, rng: framed(ink, rng, width=40, level=255),
    "drawn frame": lambda ink, rng: framed(ink, rng, width=4, level=20),
    "specks": specked,
    "pencil": lambda ink, rng: noisy(mixed(on_paper(ink), 205, 172), rng, 4),
    "neighbours": with_neighbours,
    "small in large": lambda ink, rng: noisy(
        mixed(on_paper(ink, margin=2.2, at=(0.35, 0.6)), slope((1296, 1296), 150, 220), 50)
        if ink.shape[0] == SIDE
        else mixed(on_paper(ink, margin=2.2), 200, 50),
        rng,
        4,
    ),
    "crop": lambda ink, rng: noisy(mixed(cut_to_ink(ink), 225, 40), rng, 2),
    "crop, light on dark": lambda ink, rng: noisy(mixed(cut_to_ink(ink), 30, 220), rng, 2),
    "touches left": lambda ink, rng: noisy(mixed(cut_side(ink, "left"), 225, 40), rng, 2),
    "touches bottom": lambda ink, rng: noisy(mixed(cut_side(ink, "bottom"), 225, 40), rng, 2),
    "one bit": lambda ink, rng: mixed(on_paper(ink), 255, 0) > 128,
    "16 px": lambda ink, rng: resized(as_bytes(mixed(on_paper(ink, margin=0.1), 240, 30)), 16),
    "12 px": lambda ink, rng: resized(as_bytes(mixed(on_paper(ink, margin=0.0), 240, 30)), 12),
    "28 px": lambda ink, rng: resized(as_bytes(mixed(on_paper(ink), 240, 30)), 28),
    "black on nothing": lambda ink, rng: with_alpha(ink, 0),
    "white on nothing": lambda ink, rng: with_alpha(ink, 255),
    "16 bits, faint": lambda ink, rng: (30000 - 900 * on_paper(ink)).astype(np.uint16),
    "floats": lambda ink, rng: on_paper(ink),
    "red on yellow": lambda ink, rng: coloured(ink, rng, (200, 60, 50), (225, 205, 120)),
    "blue on green": lambda ink, rng: coloured(ink, rng, (70, 110, 190), (120, 170, 110)),
    "JPEG of quality 12": lambda ink, rng: jpeg(
        resized(as_bytes(mixed(on_paper(ink), 215, 70)), 96), 12
    ),
    "blurred": lambda ink, rng: noisy(
        cv2.GaussianBlur(mixed(on_paper(ink), 220, 60).astype(np.float32), (0, 0), 7), rng, 2
    ),
}


def cut_side(ink: Ink, side: str) -> Ink:
    """The ink in its field, which ends at the ink on one side."""
    rows, columns = np.nonzero(ink > 0.3)
    return ink[:, columns.min() :] if side == "left" else ink[: rows.max() + 1]


def made(kind: str, ink: Ink, *, seed: int = 0) -> np.ndarray:
    """One picture of a kind."""
    return KINDS[kind](ink, np.random.default_rng(seed))

"""A made set of what is no digit: noise, paper, textures, letters, doodles, other scripts.

Every picture is uint8 [rows, columns], made by a function of a generator alone (and of digits,
where several of them stand in one picture). Marks are drawn large, distorted as by a hand (a slant,
a turn, an elastic map, a pen of another width), and put as dark ink on paper with grain.

Letters that may be taken for a digit by a person are left out, as an answer would be no mistake:
`LOOK_ALIKES` says which and why; so are, in a second count, other scripts' numerals that look like
one of ours. No picture of anybody's is used; the numerals come from fonts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Rng = np.random.Generator

SIDE_PX = 112
MARK_PX = 76  # of a letter's or a doodle's longer side
STREAM = 0x57A  # tells these draws from others that are made of the same seed

# letter: the digit that it may be
LOOK_ALIKES = {
    **dict.fromkeys("OoDQ", 0),
    **dict.fromkeys("IilJjt", 1),
    **dict.fromkeys("Zz", 2),
    **dict.fromkeys("Yy", 4),
    **dict.fromkeys("Ss", 5),
    **dict.fromkeys("Gb", 6),
    **dict.fromkeys("T", 7),
    **dict.fromkeys("B", 8),
    **dict.fromkeys("gqa", 9),
}
LETTERS = "".join(
    c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" if c not in LOOK_ALIKES
)
HERSHEY = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_SCRIPT_SIMPLEX,
    cv2.FONT_HERSHEY_SCRIPT_COMPLEX,
)
DEJAVU = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Italic",
    "DejaVuSansMono",
)


class Script(NamedTuple):
    """A script's numerals, and those of them that look like a digit of ours, with which."""

    numerals: str
    look_alikes: dict[str, int]


SCRIPTS = {
    "Arabic-Indic": Script("٠١٢٣٤٥٦٧٨٩", {"١": 1, "٥": 0, "٦": 7, "٩": 9}),
    "Persian": Script("۰۱۲۳۴۵۶۷۸۹", {"۱": 1, "۵": 0, "۹": 9}),
    "N'Ko": Script("߀߁߂߃߄߅߆߇߈߉", {"߀": 0, "߁": 1}),
    "Lao": Script("໐໑໒໓໔໕໖໗໘໙", {"໐": 0, "໒": 6}),
    "Devanagari": Script("०१२३४५६७८९", {"०": 0, "१": 9, "२": 2, "३": 3, "४": 8}),
    "Bengali": Script("০১২৩৪৫৬৭৮৯", {"০": 0, "২": 2, "৪": 8, "৭": 9}),
    "Thai": Script("๐๑๒๓๔๕๖๗๘๙", {"๐": 0}),
    "Chinese": Script("一二三四五六七八九十", {}),
}


# --- paper and hands ------------------------------------------------------------------------------


def grain(rng: Rng, side: int = SIDE_PX) -> Bytes:
    """Paper: bright, with grain, and light that falls off to one side."""
    level = rng.uniform(190, 250)
    slope = rng.uniform(-25, 25, 2)
    row, column = np.mgrid[0:side, 0:side] / side - 0.5
    light = level + slope[0] * row + slope[1] * column
    return _bytes(light + rng.normal(0, rng.uniform(0.5, 4), (side, side)))


def on_paper(mark: Bytes, rng: Rng) -> Bytes:
    """A mark, white on black, as dark ink on paper."""
    paper = grain(rng, mark.shape[0]).astype(np.float32)
    ink = rng.uniform(0.5, 0.95)
    return _bytes(paper * (1 - ink * mark / 255))


def by_hand(mark: Bytes, rng: Rng) -> Bytes:
    """A mark as a hand may draw it: turned, slanted, bent, thicker or thinner."""
    side = mark.shape[0]
    turn, slant = np.deg2rad(rng.uniform(-12, 12)), rng.uniform(-0.25, 0.25)
    wide, high = rng.uniform(0.8, 1.1, 2)
    row, column = np.mgrid[0:side, 0:side].astype(np.float32) - (side - 1) / 2
    x = (np.cos(turn) * column + (np.sin(turn) + slant) * row) / wide
    y = (-np.sin(turn) * column + np.cos(turn) * row) / high
    bend = cv2.resize(
        rng.normal(0, rng.uniform(0.5, 3.5), (5, 5, 2)).astype(np.float32),
        (side, side),
        interpolation=cv2.INTER_CUBIC,
    )
    x, y = ((v + (side - 1) / 2).astype(np.float32) for v in (x, y))
    bent = cv2.remap(mark, x + bend[..., 0], y + bend[..., 1], cv2.INTER_LINEAR)
    size = int(rng.integers(1, 5))
    pen = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    return np.asarray(cv2.dilate(bent, pen), np.uint8)


def fitted(mark: Bytes) -> Bytes:
    """A mark cut to its ink, scaled to its size in the middle of a field."""
    x, y, w, h = cv2.boundingRect(mark)
    share = MARK_PX / max(w, h, 1)
    size = (max(1, round(w * share)), max(1, round(h * share)))
    small = cv2.resize(mark[y : y + h, x : x + w], size, interpolation=cv2.INTER_AREA)
    field = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    top, left = (SIDE_PX - size[1]) // 2, (SIDE_PX - size[0]) // 2
    field[top : top + size[1], left : left + size[0]] = small
    return field


def _bytes(values: Any) -> Bytes:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


# --- noise, paper, textures -----------------------------------------------------------------------


def noise(rng: Rng) -> Bytes:
    """Every pixel by itself: even, normal, or black and white; of 28 or 112 pixels a side."""
    side = int(rng.choice((28, SIDE_PX)))
    way = int(rng.integers(4))
    if way == 0:
        return rng.integers(0, 256, (side, side), dtype=np.uint8)
    if way == 1:
        return _bytes(rng.normal(128, rng.uniform(10, 60), (side, side)))
    share = rng.uniform(0.02, 0.6)
    field = np.where(rng.random((side, side)) < share, 255, 0).astype(np.uint8)
    return field if way == 2 else 255 - field


def clouds(rng: Rng) -> Bytes:
    """Smooth noise of several octaves, or spots of it above a level."""
    field = np.zeros((SIDE_PX, SIDE_PX), np.float32)
    first, decay = int(rng.integers(2, 7)), rng.uniform(0.4, 0.7)
    for octave in range(int(rng.integers(1, 5))):
        knots = rng.normal(0, decay**octave, (first * 2**octave,) * 2).astype(np.float32)
        field += cv2.resize(knots, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.5:
        field = np.clip(4 * (field - rng.uniform(0, 1)), -1, 1)
    spread = max(1e-6, float(np.abs(field).max()))
    return _bytes(127 + 127 * field / spread * rng.choice((-1, 1)))


def blank_paper(rng: Rng) -> Bytes:
    """Paper: bare, ruled, squared, in a shadow, folded, or its edge on a desk."""
    paper = grain(rng).astype(np.float32)
    way = int(rng.integers(6))
    if way in (1, 2):
        step, first = int(rng.integers(12, 40)), int(rng.integers(0, 12))
        faint = rng.uniform(0.5, 0.9)
        paper[first::step] *= faint
        if way == 2:
            paper[:, first::step] *= faint
    elif way == 3:
        at = rng.uniform(20, 90, 4)
        shade = np.zeros((SIDE_PX, SIDE_PX), np.float32)
        corners = np.array([(at[0], 0), (at[1], SIDE_PX), (SIDE_PX, SIDE_PX), (SIDE_PX, 0)])
        cv2.fillPoly(shade, [corners.astype(np.int32)], 1.0)
        paper *= 1 - rng.uniform(0.2, 0.6) * cv2.GaussianBlur(shade, (0, 0), rng.uniform(1, 12))
    elif way == 4:
        at = int(rng.integers(20, 90))
        paper[:, at:] *= rng.uniform(0.85, 0.97)
        paper[:, at] *= 0.9
    elif way == 5:
        paper[: int(rng.integers(5, 40))] *= rng.uniform(0.2, 0.6)
    return _bytes(paper)


def texture(rng: Rng) -> Bytes:
    """Checks, stripes, bricks, dots or rings."""
    row, column = np.mgrid[0:SIDE_PX, 0:SIDE_PX].astype(np.float32)
    size = rng.uniform(5, 30)
    turn = rng.uniform(0, np.pi)
    u = np.cos(turn) * row + np.sin(turn) * column + rng.uniform(0, size)
    v = -np.sin(turn) * row + np.cos(turn) * column + rng.uniform(0, size)
    way = int(rng.integers(5))
    if way == 0:
        field = (u // size + v // size) % 2
    elif way == 1:
        field = (u % size < size * rng.uniform(0.2, 0.8)).astype(np.float32)
    elif way == 2:
        shifted = column + size * (row // size % 2)
        field = 1 - ((row % size < 2) | (shifted % (2 * size) < 2)).astype(np.float32)
    elif way == 3:
        off = np.hypot(u % size - size / 2, v % size - size / 2)
        field = (off > size * rng.uniform(0.15, 0.4)).astype(np.float32)
    else:
        middle = rng.uniform(0, SIDE_PX, 2)
        field = (np.hypot(row - middle[0], column - middle[1]) % size > size / 2) * 1.0
    dark, light = np.sort(rng.uniform(0, 255, 2))
    return _bytes(dark + (light - dark) * field + rng.normal(0, 3, field.shape))


# --- marks ----------------------------------------------------------------------------------------


def lettered(letter: str, rng: Rng) -> Bytes:
    """A letter by a Hershey font or a DejaVu one."""
    if rng.random() < 0.5:
        field = np.zeros((2 * SIDE_PX, 2 * SIDE_PX), np.uint8)
        width = int(rng.integers(3, 12))
        font = HERSHEY[int(rng.integers(len(HERSHEY)))]
        cv2.putText(field, letter, (60, 150), font, 4.0, 255, width, cv2.LINE_AA)
        return fitted(field)
    return glyph(letter, dejavu(DEJAVU[int(rng.integers(len(DEJAVU)))]))


def letter(rng: Rng, letters: str = LETTERS) -> Bytes:
    """One of some letters, those that do not look like a digit, as a hand may draw it."""
    return on_paper(by_hand(lettered(letters[int(rng.integers(len(letters)))], rng), rng), rng)


def dejavu(name: str) -> Path:
    """One of the fonts that come with matplotlib."""
    import matplotlib

    return Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")


def glyph(character: str, font: Path) -> Bytes:
    """A character of a font, white on black."""
    from PIL import Image, ImageDraw, ImageFont

    field = Image.new("L", (3 * SIDE_PX, 3 * SIDE_PX))
    face = ImageFont.truetype(str(font), SIDE_PX)
    ImageDraw.Draw(field).text((SIDE_PX, SIDE_PX), character, fill=255, font=face)
    return fitted(np.asarray(field))


def _drawn(lines: list[Any], width: int, *, closed: bool = False) -> Bytes:
    """Lines of points in a square of side 1, as a pen of a width draws them."""
    field = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    for line in lines:
        points = (np.asarray(line) * MARK_PX + (SIDE_PX - MARK_PX) / 2) * 16
        cv2.polylines(field, [np.rint(points).astype(np.int32)], closed, 255, width, cv2.LINE_AA, 4)
    return field


def _circle(x: float, y: float, radius: float, start: float = 0, end: float = 2 * np.pi) -> Any:
    turns = np.linspace(start, end, 40)
    return np.stack([x + radius * np.cos(turns), y + radius * np.sin(turns)], 1)


def smiley() -> list[Any]:
    """A face."""
    eyes = [_circle(0.33, 0.38, 0.04), _circle(0.67, 0.38, 0.04)]
    return [_circle(0.5, 0.5, 0.48), *eyes, _circle(0.5, 0.52, 0.28, 0.4, np.pi - 0.4)]


def heart() -> list[Any]:
    """A heart."""
    t = np.linspace(0, 2 * np.pi, 60)
    x = 0.5 + np.sin(t) ** 3 / 2.1
    y = 0.45 - (13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 34
    return [np.stack([x, y], 1)]


def star() -> list[Any]:
    """A star of five points in one line."""
    turns = np.arange(6) * 4 * np.pi / 5 - np.pi / 2
    return [np.stack([0.5 + np.cos(turns) / 2, 0.5 + np.sin(turns) / 2], 1)]


def arrow() -> list[Any]:
    """An arrow to the right."""
    return [[(0, 0.5), (1, 0.5)], [(0.68, 0.22), (1, 0.5), (0.68, 0.78)]]


def wheel() -> list[Any]:
    """A circle with spokes."""
    spokes = [
        [(0.5 + np.cos(a) / 2, 0.5 + np.sin(a) / 2), (0.5 - np.cos(a) / 2, 0.5 - np.sin(a) / 2)]
        for a in np.arange(3) * np.pi / 3
    ]
    return [_circle(0.5, 0.5, 0.5), *spokes]


def house() -> list[Any]:
    """A house."""
    wall = [(0.1, 1), (0.1, 0.4), (0.5, 0), (0.9, 0.4), (0.9, 1), (0.1, 1)]
    return [wall, [(0.1, 0.4), (0.9, 0.4)], [(0.4, 1), (0.4, 0.7), (0.6, 0.7), (0.6, 1)]]


def tick() -> list[Any]:
    """A tick in a box."""
    return [[(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)], [(0.2, 0.5), (0.45, 0.8), (0.85, 0.15)]]


def cross() -> list[Any]:
    """A cross that stands on one arm's end or lies on two."""
    return [[(0, 0), (1, 1)], [(1, 0), (0, 1)]]


def spiral() -> list[Any]:
    """A spiral of three turns."""
    t = np.linspace(0, 6 * np.pi, 120)
    return [np.stack([0.5 + t * np.cos(t) / 40, 0.5 + t * np.sin(t) / 40], 1)]


def hash_sign() -> list[Any]:
    """Two lines across two others."""
    return [[(v, 0), (v, 1)] for v in (0.33, 0.67)] + [[(0, v), (1, v)] for v in (0.33, 0.67)]


DOODLES = (smiley, heart, star, arrow, wheel, house, tick, cross, spiral, hash_sign)


def doodle(rng: Rng) -> Bytes:
    """One of some small drawings, or a scribble."""
    if rng.random() < 0.2:
        points = rng.random((int(rng.integers(9, 20)), 2))
        return on_paper(by_hand(_drawn([points], int(rng.integers(2, 6))), rng), rng)
    lines = DOODLES[int(rng.integers(len(DOODLES)))]()
    return on_paper(by_hand(_drawn(lines, int(rng.integers(2, 8))), rng), rng)


def numeral(character: str, fonts: tuple[Path, ...], rng: Rng) -> Bytes:
    """A numeral of another script, by one of the fonts that have it, as a hand may draw it."""
    font = fonts[int(rng.integers(len(fonts)))]
    return on_paper(by_hand(glyph(character, font), rng), rng)


def several_digits(digits: Bytes, rng: Rng) -> Bytes:
    """Two or three digits beside each other on one paper, near or touching."""
    count = int(rng.integers(2, 4))
    chosen = [np.pad(digits[int(i)], ((4, 4), (0, 0))) for i in rng.integers(0, len(digits), count)]
    closed = []
    for one in chosen:
        x, _, w, _ = cv2.boundingRect(one)
        gap = np.zeros((one.shape[0], int(rng.integers(0, 4))), np.uint8)
        closed += [one[:, x : x + w], gap]
    line = np.hstack(closed)
    high, wide = line.shape
    side = max(high, wide) + 8
    field = np.zeros((side, side), np.uint8)
    top, left = (side - high) // 2, (side - wide) // 2
    field[top : top + high, left : left + wide] = line
    large = cv2.resize(field, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC)
    return on_paper(large, rng)


# --- sets -----------------------------------------------------------------------------------------

MADE: dict[str, Callable[[Rng], Bytes]] = {
    "noise": noise,
    "clouds": clouds,
    "blank paper": blank_paper,
    "textures": texture,
    "letters": letter,
    "doodles": doodle,
}
SEVERAL = "several digits"
ALIKE = "letters like digits"


def generator(seed: int, kind: str) -> Rng:
    """The draws of one kind."""
    return np.random.default_rng([STREAM, seed, *kind.encode("utf-8")])


def make(kind: str, count: int, *, seed: int, digits: Bytes) -> list[Bytes]:
    """So many pictures of one kind; `digits` uint8 [N, 28, 28] are for several in one picture."""
    rng = generator(seed, kind)
    if kind == SEVERAL:
        return [several_digits(digits, rng) for _ in range(count)]
    if kind == ALIKE:
        return [letter(rng, "".join(LOOK_ALIKES)) for _ in range(count)]
    return [MADE[kind](rng) for _ in range(count)]


def fonts_with(characters: str, more: Path | None) -> tuple[Path, ...]:
    """Fonts that have all of some characters: DejaVu's, and those of a folder."""
    from matplotlib.ft2font import FT2Font

    files = [dejavu(name) for name in DEJAVU]
    files += (
        sorted(p for p in more.iterdir() if p.suffix in (".ttf", ".ttc", ".otf")) if more else []
    )
    return tuple(
        file for file in files if all(FT2Font(file).get_char_index(ord(c)) for c in characters)
    )


def numerals(
    script: str, count: int, *, seed: int, fonts: tuple[Path, ...]
) -> Iterator[tuple[str, Bytes]]:
    """So many of a script's numerals in turn, each with which one it is."""
    rng = generator(seed, script)
    characters = SCRIPTS[script].numerals
    for i in range(count):
        character = characters[i % len(characters)]
        yield character, numeral(character, fonts, rng)

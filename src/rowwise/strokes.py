"""Strokes: which parts of a mask are the digit's, and which frames, specks, neighbours."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Array = NDArray[Any]

FRAME_SHARE = 0.6  # of the picture's edge: what covers more of it is a frame, not a stroke
STRIP_SHARE = 0.8  # of a side of the picture: what covers more, and ends there, lies beside it
NARROW = 0.3  # of a picture's longer side: one that is narrower was cut closely round a 1
NEAR_SIDE_PX = 2  # from the picture's side: a line that is as near to it lies at it
SIDE_SPAN = 0.95  # of the picture's side: what runs along all of it is no stroke
SIDE_PART = 0.25  # of the picture's side: what runs along so much of it, at it, is none either
MOST_ALIKE = 6  # parts of about the same length: more are grain
MOST_PARTS = 16  # whose thickness is looked at, the largest
STRAIGHT_SHARE = 0.3  # of the longer side of the smallest box around it: a line has less
CREASE_SHARE = 0.05  # of a line's length: one that is thinner may be a sheet's fold
EDGE_SHARE = 0.5  # of a line's contrast: what the two sides of a stroke differ by less than
RECTANGLE = 0.9  # of the smallest box around it: what fills more is one
SPECK_AREA = 0.02  # of the largest part
AROUND_SHARE = 0.4  # of a part's box: what is drawn around it has more in its own
THIN_RING = 0.15  # of its longer side: what is drawn around a digit is no thicker
INSIDE_SHARE = 0.25  # of the longer side of what is drawn around it: a digit has more
OTHER_LONG = 0.28  # of the digit's longest part: another part that is as long may be a digit too
CUT_OFF = 0.2  # of the digit's longest part: a neighbour cut off by a side shows no more
SOLID_SHARE, SOLID_WIDTH = 0.8, 0.4  # of its hull's area, and of its longer side: strokes have less
AS_LARGE = 0.4  # of a digit's longer side: what lies beside its sheet and is as long may be one too
TALL = 1.6  # times as high as wide: a broken digit is not much more
HIGH = 0.5  # of the digit's height: pieces of it that stand side by side are lower
BREAKS, BREAKS_ACROSS = 0.12, 0.2  # of the digit's height and width: thinner strokes break
BREAK_PX = 1.6  # of the picture: a gap that is no wider may be a break
CLEARLY = 0.4  # of the thickness of strokes: between a digit and a smaller one beside it
APART = 0.08  # of the longer side: what thin pieces of one digit are not
ROUND_SHARE = 0.93  # of its convex hull: what is drawn around a digit, and closed, fills more
GAP = 0.12  # of its longer side: a line with no wider ones is closed
CLEAR = 0.05  # of the longer side of what is drawn around: nearer pieces may be of one digit
AS_THICK = 0.2  # of the digit's thickness
_SQUARE = np.ones((3, 3), np.uint8)


class Strokes(NamedTuple):
    """The digit's strokes in a mask."""

    mask: Bytes  # [rows, columns], 0 or 1
    box: tuple[int, int, int, int]  # left, top, columns, rows
    score: float  # 0..1 and above: how much it looks like one
    others: int  # parts as large as a digit that were left out


class _Parts(NamedTuple):
    labels: NDArray[np.int32]  # [rows, columns], 0 is no part
    left: Array
    top: Array
    right: Array
    bottom: Array
    area: Array
    edge: Array  # share of the picture's edge that each covers
    thick: Array  # px, of its thickest place; of the largest parts only, else 0


def stroke_width(mask: Bytes) -> float:
    """The mean width of the strokes in a mask, in pixels: four times the mean depth inside them."""
    edged = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    deep = cv2.distanceTransform(edged, cv2.DIST_L2, 3)
    return 4 * max(0.0, float(deep.sum()) / max(1, cv2.countNonZero(mask)) - 0.25)


def _parts(mask: Bytes) -> _Parts:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask, connectivity=8, ltype=cv2.CV_32S
    )
    ring = np.concatenate([labels[0], labels[-1], labels[1:-1, 0], labels[1:-1, -1]])
    edge = np.bincount(ring, minlength=count) / ring.size
    deep = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
    left, top, wide, high, area = stats.T
    thick = np.zeros(count, np.float32)
    for part in np.argsort(area[1:])[::-1][:MOST_PARTS] + 1:
        here = np.s_[top[part] : top[part] + high[part], left[part] : left[part] + wide[part]]
        thick[part] = 2 * deep[here][labels[here] == part].max()
    return _Parts(labels, left, top, left + wide, top + high, area, edge, thick)


def longest_inside(mask: Bytes) -> int:
    """The longer side, in pixels, of the longest part of a mask that touches no side of it.

    0 where so many are nearly as long that they are grain.
    """
    if mask.all():
        return 0
    parts = _parts(mask)
    long = np.maximum(parts.right - parts.left, parts.bottom - parts.top)
    inside = long[1:][parts.edge[1:] == 0]
    longest = int(inside.max(initial=0))
    return longest if (2 * inside >= longest).sum() <= MOST_ALIKE else 0


def choose(mask: Bytes, edges: Bytes, *, pixel: float = 1.0) -> Strokes | None:
    """Choose the parts of a mask that are the digit.

    The main part is large, near the middle, stroke-like and no frame; near parts join it, unless
    they are specks, or lie at the picture's edge as what is left of a neighbour does.

    Args:
        mask: uint8 [rows, columns], 0 or 1.
        edges: uint8 [rows, columns], how steep the picture is at each pixel.
        pixel: the side of a pixel of the picture, where the mask is larger.

    Returns:
        The strokes, or None where no part could be a digit.
    """
    rows, columns = mask.shape
    if not 3 <= cv2.countNonZero(mask) < mask.size:
        return None
    parts = _parts(mask)
    count = len(parts.area)
    long = np.maximum(parts.right - parts.left, parts.bottom - parts.top)
    usable = (parts.edge < FRAME_SHARE) & (np.arange(count) > 0)
    for part in np.flatnonzero(usable & (parts.edge > 0.1)):
        usable[part] = not _is_strip(parts, int(part))
    slender = np.clip((0.75 - parts.thick / np.maximum(long, 1)) / 0.25, 0.02, 1)
    x = (parts.left + parts.right) / 2 / columns - 0.5
    y = (parts.top + parts.bottom) / 2 / rows - 0.5
    central = np.exp(-2.0 * (x * x + y * y))
    worth = np.where(usable, parts.area**0.5 * long**0.5 * slender * central, 0)
    main = _main(parts, worth, usable)
    if main is None:
        return None
    _drop_surroundings(parts, main, usable, rows, columns)
    taken = _joined(parts, main, usable, rows, columns)
    chosen = taken[parts.labels].astype(np.uint8)
    box = cv2.boundingRect(chosen)
    deep = float(parts.thick[taken].max()) / 2
    score = _score(chosen, box, deep, edges, float(cv2.sumElems(edges)[0]))
    return Strokes(chosen, box, score, _others(parts, taken, pixel))


def _others(parts: _Parts, taken: NDArray[np.bool_], pixel: float) -> int:
    """How many parts beside one are as large as a digit, and neither frame nor line.

    Of those taken for the digit too, where they stand apart (see `_stand_apart`). A neighbour of
    which the picture's side leaves a little is none, unless the digit is cut off too.
    """
    rows, columns = parts.labels.shape
    wide, high = parts.right - parts.left, parts.bottom - parts.top
    long, short = np.maximum(wide, high), np.minimum(wide, high)
    left, right = parts.left[taken].min(), parts.right[taken].max()
    top, bottom = parts.top[taken].min(), parts.bottom[taken].max()
    around = (parts.left < left) & (parts.right > right) & (parts.top < top)
    around &= parts.bottom > bottom
    across = (parts.left <= 0) & (parts.right >= columns) & (right - left < columns)
    down = (parts.top <= 0) & (parts.bottom >= rows) & (bottom - top < rows)
    straight = (short <= 1.5 * parts.thick) & (short <= 0.15 * long) & (parts.edge > 0)
    digit = long[taken].max()
    at_side, at_end = (parts.left <= 0) | (parts.right >= columns), parts.top <= 0
    at_end |= parts.bottom >= rows
    cut_off = at_side & (wide <= CUT_OFF * digit) | at_end & (high <= CUT_OFF * digit)
    cut_off &= parts.edge[taken].max() == 0
    thick = parts.thick >= AS_THICK * parts.thick[taken].max()
    aside = around | across | down | straight | (parts.edge >= FRAME_SHARE) | taken | cut_off
    large = thick & (long >= OTHER_LONG * digit)
    other = large & ~aside
    other[0] = False
    inside = np.flatnonzero(large & taken)
    beside = max(
        (_stand_apart(parts, inside, int(part), BREAK_PX * pixel) for part in inside), default=0
    )
    return int(other.sum()) + beside


def _stand_apart(parts: _Parts, inside: Array, part: int, least: float) -> int:
    """How many parts of what was taken for one digit stand beside one of them, or below it.

    A gap of `least` pixels is none. Pieces of one digit seldom stand beside each other, each as
    high as it, unless its strokes are thin and break; and below each other only in a box that is
    not much higher than wide.
    """
    left, right = parts.left[inside], parts.right[inside]
    top, bottom = parts.top[inside], parts.bottom[inside]
    across = np.maximum(left - parts.right[part], parts.left[part] - right)
    down = np.maximum(top - parts.bottom[part], parts.top[part] - bottom)
    high, wide = bottom.max() - top.min(), right.max() - left.min()
    thick, apart = parts.thick[inside].max(), APART * max(high, wide)
    beside = across >= max(least, apart if thick < BREAKS * high else 0)
    both_high = np.minimum(bottom - top, parts.bottom[part] - parts.top[part]) >= HIGH * high
    beside &= both_high | (across >= max(least, CLEARLY * float(thick)))
    below = down >= max(least, apart if thick < BREAKS_ACROSS * wide else 0)
    return int((beside | below & (high > TALL * wide)).sum())


def parts_beside(mask: Bytes, hull: Bytes, length: float) -> int:
    """How many parts beside a field are as large as a digit, off the sides and not around it.

    Args:
        mask: uint8 [rows, columns], 0 or 1.
        hull: uint8 [rows, columns], 1 in the field.
        length: of the longer side of the digit in the field, in pixels.
    """
    parts = _parts(mask)
    x, y, wide, high = cv2.boundingRect(hull)
    touched = np.unique(parts.labels[cv2.dilate(hull, np.ones((9, 9), np.uint8)) > 0])
    around = (parts.left <= x) & (parts.top <= y)
    around &= (parts.right >= x + wide) & (parts.bottom >= y + high)
    long = np.maximum(parts.right - parts.left, parts.bottom - parts.top)
    beside = (long >= AS_LARGE * length) & (parts.edge == 0) & ~around & (parts.thick > 0)
    beside[touched] = beside[0] = False
    return int(beside.sum())


def unlike_a_digit(mask: Bytes, *, scale: float = 1.0) -> str:
    """What a mask looks like rather than a digit; empty where it looks like one.

    A line from side to side of the picture, a solid patch, or what fills a corner: they may be
    strokes, or the fold of a sheet, a finger, a desk. In a small picture, which was enlarged by
    `scale`, a blurred digit is as solid as a patch: there the network says what it is.
    """
    rows, columns = mask.shape
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    points = np.concatenate(outlines)
    _, sides, _ = cv2.minAreaRect(points)
    slim = min(sides) <= STRAIGHT_SHARE * max(sides)
    _, _, wide, high = cv2.boundingRect(mask)
    narrow = min(rows, columns) < NARROW * max(rows, columns)
    if slim and not narrow and (wide >= SIDE_SPAN * columns or high >= SIDE_SPAN * rows):
        return "a line from side to side"
    solid = cv2.countNonZero(mask) > SOLID_SHARE * cv2.contourArea(cv2.convexHull(points))
    if solid and scale <= 1 and min(sides) > SOLID_WIDTH * max(sides):
        return "a solid patch"
    corners = mask[:3, :3].any(), mask[:3, -3:].any(), mask[-3:, :3].any(), mask[-3:, -3:].any()
    if any(corners) and not (wide >= SIDE_SPAN * columns and high >= SIDE_SPAN * rows):
        return "what reaches in from a corner"
    return ""


def _is_strip(parts: _Parts, part: int) -> bool:
    """Whether a part lies along a whole side of the picture and does not reach the other one."""
    there = parts.labels == part
    rows, columns = there.shape
    top, bottom = int(there[0].sum()) / columns, int(there[-1].sum()) / columns
    left, right = int(there[:, 0].sum()) / rows, int(there[:, -1].sum()) / rows
    for side, opposite in ((top, bottom), (bottom, top), (left, right), (right, left)):
        if side >= STRIP_SHARE and (opposite == 0 or opposite >= STRIP_SHARE):
            return True
    across = (top >= STRIP_SHARE) + (bottom >= STRIP_SHARE)
    return bool(across + (left >= STRIP_SHARE) + (right >= STRIP_SHARE) >= 2)


def _main(parts: _Parts, worth: Array, usable: NDArray[np.bool_]) -> int | None:
    """The part of the most worth that is no sheet of paper and no frame around another part.

    What is one is marked as not usable.
    """
    for main in (int(part) for part in worth.argsort()[::-1][:4]):
        if worth[main] <= 0:
            return None
        inside = np.flatnonzero(worth > 0.2 * worth[main])
        framing = any(_is_around(parts, main, int(part)) for part in inside if part != main)
        if not framing and not _is_rectangle(parts, main):
            return main
        usable[main] = False
    return None


def _drop_surroundings(
    parts: _Parts, main: int, usable: NDArray[np.bool_], rows: int, columns: int
) -> None:
    """Mark as not usable what is drawn around the main part, and what reaches in from outside."""
    for part in np.flatnonzero(usable):
        if part != main and _is_around(parts, int(part), main):
            usable[part] = False
    if parts.edge[main] == 0:
        contact = parts.edge * 2 * (rows + columns)
        long = np.maximum(parts.right - parts.left, parts.bottom - parts.top)
        usable &= contact <= 0.5 * long


def _is_around(parts: _Parts, part: int, inner: int) -> bool:
    """Whether a part is drawn around another: thin, on three sides of it at least, and far larger
    than what would be a piece of the same digit.
    """
    sides = (
        parts.left[part] < parts.left[inner],
        parts.top[part] < parts.top[inner],
        parts.right[part] > parts.right[inner],
        parts.bottom[part] > parts.bottom[inner],
    )
    if sum(map(bool, sides)) < 3:
        return False
    wide, high = (
        min(parts.right[part], parts.right[inner]) - max(parts.left[part], parts.left[inner]),
        min(parts.bottom[part], parts.bottom[inner]) - max(parts.top[part], parts.top[inner]),
    )
    size = (parts.right - parts.left)[inner], (parts.bottom - parts.top)[inner]
    if wide <= 0 or high <= 0 or wide * high < AROUND_SHARE * size[0] * size[1]:
        return False
    long = max(parts.right[part] - parts.left[part], parts.bottom[part] - parts.top[part])
    if parts.thick[part] > THIN_RING * long or max(size) < INSIDE_SHARE * long:
        return False
    if _is_outline(parts, part):
        return False
    apart = cv2.distanceTransform((parts.labels != part).astype(np.uint8), cv2.DIST_L2, 3)
    return bool(apart[parts.labels == inner].min() >= CLEAR * long)


def _is_outline(parts: _Parts, part: int) -> bool:
    """Whether a part is a closed line that is not convex: a digit's own outline, as 6 and 9 have.

    Rings and boxes that people draw around a digit are nearly convex. Small gaps count as closed.
    """
    x0, y0, x1, y1 = (int(v[part]) for v in (parts.left, parts.top, parts.right, parts.bottom))
    shape = (parts.labels[y0:y1, x0:x1] == part).astype(np.uint8)
    gap = round(GAP * max(shape.shape)) | 1
    shape = cv2.copyMakeBorder(shape, gap, gap, gap, gap, cv2.BORDER_CONSTANT, value=0)
    shape = cv2.morphologyEx(shape, cv2.MORPH_CLOSE, np.ones((gap, gap), np.uint8))
    outlines, _ = cv2.findContours(shape, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(outlines, key=cv2.contourArea)
    area, hull = cv2.contourArea(outline), cv2.contourArea(cv2.convexHull(outline))
    return bool(0.5 * hull <= area < ROUND_SHARE * hull)


def _is_rectangle(parts: _Parts, part: int) -> bool:
    """Whether a part is a full rectangle."""
    x0, y0, x1, y1 = (int(v[part]) for v in (parts.left, parts.top, parts.right, parts.bottom))
    wide, high = x1 - x0, y1 - y0
    full = parts.area[part] > 0.5 * wide * high and min(wide, high) > 0.35 * max(wide, high)
    if not full:
        return False
    shape = (parts.labels[y0:y1, x0:x1] == part).astype(np.uint8)
    outlines, _ = cv2.findContours(shape, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    outline = max(outlines, key=cv2.contourArea)
    _, (across, down), _ = cv2.minAreaRect(outline)
    return bool(cv2.contourArea(outline) > RECTANGLE * max(1.0, across * down))


def _joined(
    parts: _Parts, main: int, usable: NDArray[np.bool_], rows: int, columns: int
) -> NDArray[np.bool_]:
    """Which parts are the digit: the main one, and, growing, those near it."""
    taken = np.zeros(len(parts.area), bool)
    taken[main] = True
    at_edge = (
        (parts.left <= 0) | (parts.top <= 0) | (parts.right >= columns) | (parts.bottom >= rows)
    )
    # What the parts, but for specks, span together: by it pieces of a broken digit are near.
    whole = usable & (parts.area >= SPECK_AREA * parts.area[1:].sum())
    span = max(
        parts.right[whole].max(initial=0) - parts.left[whole].min(initial=columns),
        parts.bottom[whole].max(initial=0) - parts.top[whole].min(initial=rows),
    )
    shallow = (parts.bottom - parts.top < 0.25 * rows) | (parts.right - parts.left < 0.25 * columns)
    remnant = at_edge & shallow & (not at_edge[main])
    while True:
        box = (
            parts.left[taken].min(),
            parts.top[taken].min(),
            parts.right[taken].max(),
            parts.bottom[taken].max(),
        )
        side = max(box[2] - box[0], box[3] - box[1])
        gap_x = np.maximum(0, np.maximum(box[0] - parts.right, parts.left - box[2]))
        gap_y = np.maximum(0, np.maximum(box[1] - parts.bottom, parts.top - box[3]))
        near = np.maximum(gap_x, gap_y) <= 0.2 * max(side, span)
        large = parts.area >= SPECK_AREA * parts.area[taken].sum()
        fragment = remnant & (parts.area < 0.4 * parts.area[taken].sum())
        more = usable & near & large & ~fragment & ~taken
        if not more.any():
            return taken
        taken |= more


def is_of_paper(mask: Bytes, plain: Bytes) -> bool:
    """Whether what a mask holds is no stroke but the fold, the edge or a shadow's edge of a sheet,
    or a strip along the picture's side.

    A fold is one thin straight line alone, from one edge of the picture to another: a 1 ends on the
    paper, or is thicker, or was cut so closely that the picture is as narrow as it. An edge has one
    level on one side and another beyond: a stroke has paper on both.

    Args:
        mask: uint8 [rows, columns], 0 or 1.
        plain: uint8 [rows, columns], the picture's grey levels.
    """
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    middle, sides, turn = cv2.minAreaRect(np.concatenate(outlines))
    wide, long = min(sides), max(sides)
    if wide > STRAIGHT_SHARE * long:
        return False
    rows, columns = mask.shape
    if _is_at_a_side(mask, plain):
        return True
    if wide < CREASE_SHARE * long and min(rows, columns) >= NARROW * max(rows, columns):
        across = mask[:, :2].any() and mask[:, -2:].any()
        if across or (mask[:2].any() and mask[-2:].any()):
            return True
    along = np.deg2rad(turn if sides[0] > sides[1] else turn + 90)
    normal = np.array([-np.sin(along), np.cos(along)])
    off = (wide / 2 + 0.06 * long + 1) * normal
    strip = (0.7 * long, max(1.0, 0.04 * long))
    sides_of_it = [_level(plain, np.asarray(middle) + by, strip, along) for by in (-off, off)]
    levels = [level for level in sides_of_it if level is not None]
    if len(levels) < 2:
        return False
    line = cv2.mean(plain, mask)[0]
    here, there = (line - level for level in levels)
    return bool(abs(here - there) > EDGE_SHARE * max(abs(here), abs(there)))


def _is_at_a_side(mask: Bytes, plain: Bytes) -> bool:
    """Whether a line runs along a side of the picture, with no paper between the two."""
    _, _, wide, high = cv2.boundingRect(mask)
    rows, columns = mask.shape
    if min(rows, columns) < NARROW * max(rows, columns):
        return False
    if wide > high:
        mask, plain = mask.T, plain.T
        wide, high, rows, columns = high, wide, columns, rows
    if 2 * wide >= columns:
        return False
    turned = ((mask, plain), (mask[:, ::-1], plain[:, ::-1]))
    if high >= SIDE_SPAN * rows:
        return any(_is_at_its_left(m) or _is_bare(m, p) for m, p in turned)
    return high >= SIDE_PART * rows and any(_is_at_its_left(m) for m, _ in turned)


def _is_at_its_left(mask: Bytes) -> bool:
    """Whether a line lies at the left side of its picture along its length."""
    return bool(np.median(mask[mask.any(axis=1)].argmax(axis=1)) <= NEAR_SIDE_PX)


def _is_bare(mask: Bytes, plain: Bytes) -> bool:
    """Whether nothing as bright as the paper right of a line lies left of it."""
    there = np.flatnonzero(mask.any(axis=1))
    before, after = mask[there].argmax(axis=1), mask[there, ::-1].argmax(axis=1)
    if after.max() == 0:
        return False
    place, levels = np.arange(mask.shape[1]), plain[there]
    left, right = place < before[:, None], place >= mask.shape[1] - after[:, None]
    ink, outer, paper = (float(np.median(levels[part])) for part in (mask[there] > 0, left, right))
    return abs(outer - ink) < abs(outer - paper)


def _level(plain: Bytes, middle: Array, size: tuple[float, float], turn: float) -> float | None:
    """The mean level in a turned rectangle; None where it lies outside of the picture."""
    box = cv2.boxPoints((tuple(map(float, middle)), size, float(np.rad2deg(turn))))
    field = np.zeros(plain.shape, np.uint8)
    cv2.fillConvexPoly(field, np.rint(box).astype(np.int32), 1)
    return cv2.mean(plain, field)[0] if cv2.countNonZero(field) else None


def _score(
    chosen: Bytes, box: tuple[int, int, int, int], deep: float, edges: Bytes, all_edges: float
) -> float:
    """How much the strokes look like a digit's: slender, large, off the picture's edge, their
    outline where the picture's edges are, and most of those edges on it.
    """
    rows, columns = chosen.shape
    longest = max(box[2:])
    slender = min(1.0, max(0.05, (0.75 - 2 * deep / longest) / 0.35))
    ring = np.concatenate([chosen[0], chosen[-1], chosen[1:-1, 0], chosen[1:-1, -1]])
    off_edge = (1 - float(ring.mean())) ** 2
    large = min(1.0, longest / (0.2 * max(rows, columns)))
    outline = cv2.morphologyEx(chosen, cv2.MORPH_GRADIENT, _SQUARE)
    explained = cv2.mean(edges, outline)[0] * cv2.countNonZero(outline) / max(1.0, all_edges)
    strong = cv2.mean(edges, outline)[0] / max(1.0, float(cv2.minMaxLoc(edges)[1]))
    return float(slender * off_edge * large * explained**0.5 * strong**0.5)

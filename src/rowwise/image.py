"""Any picture -> what MNIST would have made of it: 28×28, the digit white, centred on black."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from rowwise import ink, paper, pixels
from rowwise.errors import PictureError
from rowwise.ink import Ink, Show
from rowwise.pixels import Picture
from rowwise.strokes import stroke_width, unlike_a_digit

READER = 2  # raised when pictures become rows in another way: thresholds of before hold no more
SIDE_PX = 28
BOX_PX = 20
CENTRE_PX = 14.0  # where MNIST puts the centre of mass, counting the first pixel as 0
OFF_CENTRE_PX = 0.55  # whole pixels are moved: half of one, and rounding
THINNEST_PX, THICKEST_PX = 1.5, 4.6  # of 97 in 100 of MNIST's strokes, in the box of 20
THICK_TO_PX = 3.9
LEAST_BODY = 0.1  # of a digit's ink, 2×2 eroded: MNIST's has 0.11 or more, one-pixel strokes 0.06
LEAST_PEAK = 200
NEAR_PX = 96  # of the copy: of a smaller digit a nearer copy is made
NO_INK = "no ink: nothing stands out from the paper as the strokes of a digit do"
TOO_SMALL = (
    "too small: what stands out from the paper has {share:.1%} of the picture's longer side, too "
    "little to be read surely; cut it out"
)
UNLIKE = "perhaps no digit: the ink looks like {like}"
SMALL = 0.08  # of the picture's longer side: a digit that is shorter may be missed
SPECK = 0.012  # of the picture's longer side: what is shorter is no small digit either
AS_IT_IS = "as it is"  # the name of the candidate where the picture was like MNIST's
SEVERAL = "several digits: beside the one that was read, {count} more {pieces} as large as a digit"
SHEET_SCORE = 0.25  # of the ink on a sheet: with less it is grain
SHEET_INK = 0.12  # of the sheet's longer side: what is shorter is no digit on it
ENCLOSED_INK = 0.3  # where strokes enclose the sheet: they may be a digit's, and this a speck
GRAIN_TIMES = 2.0  # of what neighbours on a sheet may differ by: ink stands out by more
FAR_BETTER = 2.0  # times the score of the whole picture's ink: what leaves doubt about that
CUT_ODDS = 0.05  # the odds of ink that a sheet may have cut off
BLOB_SHARE = 0.75  # of its convex hull: so much ink is a hole's, or a single line's
SAME_DIGIT = 0.9  # of the correlation of two normalised digits: they are one
ODDS_POWER = 6.0  # by which scores become odds

Bytes = NDArray[np.uint8]
Array = NDArray[Any]


class Step(NamedTuple):
    """One step of the way from a picture to a digit, to be shown."""

    name: str
    sentence: str
    picture: Bytes  # [rows, columns] grey, or [rows, columns, 3] RGB


class Candidate(NamedTuple):
    """One answer to what the digit in a picture is."""

    digit: Bytes  # [28, 28], white on black
    odds: float  # above 0, before the network has looked at it
    name: str  # what it takes for paper and ink


@dataclass(frozen=True, eq=False)
class Normalised:
    """What MNIST would have made of a picture."""

    candidates: tuple[Candidate, ...]  # the likeliest first; none where no ink was found
    reason: str = ""  # why there is no digit
    doubt: str = ""  # why none can be accepted as the only one
    steps: tuple[Step, ...] = ()  # where they were asked for

    @property
    def digit(self) -> Bytes | None:
        """The likeliest candidate's, uint8 [28, 28]; None where no ink was found."""
        return self.candidates[0].digit if self.candidates else None


# --- the way ------------------------------------------------------------------------------------


def normalise(picture: Picture | Array, *, steps: bool = False) -> Normalised:
    """Make of a picture of one digit what MNIST would have made of it.

    What already looks like MNIST passes unchanged. From anything else the ink is found (see
    `ink.find`), looked at again from near where it is small, its strokes are brought to MNIST's
    width where they are far from it, and MNIST's own recipe ends it: scaled into 20×20 with its
    aspect kept, laid into 28×28 with the centre of mass in the middle.

    Args:
        picture: decoded, or an array as `pixels.from_array` takes it.
        steps: keep each step's picture, to be shown.

    Returns:
        The digit, or why there is none; no ink is an answer, not an error.

    Raises:
        PictureError: the array is none that can be taken for a picture.

    Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits"; what MNIST
    does was measured on its training images.
    """
    kept: list[Step] = []

    def show(name: str, sentence: str, array: Bytes) -> None:
        kept.append(Step(name, sentence, array))

    array = (pixels.given(picture) if isinstance(picture, np.ndarray) else picture).pixels
    if _is_field(array) and (digit := as_mnist(array)) is not None:
        if steps:
            show("digit", "The picture already was as MNIST's are, and stays.", digit)
        return Normalised((Candidate(digit, 1.0, AS_IT_IS),), steps=tuple(kept))
    candidates, doubt = _candidates(array, show if steps else None)
    reason = "" if candidates else _why_none(array)
    return Normalised(candidates, reason, doubt, tuple(kept))


def normalise_many(arrays: Bytes) -> list[Normalised]:
    """Normalise many arrays at once, as `normalise` does one by one, sooner.

    Args:
        arrays: uint8 [N, 28, 28], whose bytes are grey levels whatever their range.

    Raises:
        PictureError: another shape or type.
    """
    if arrays.dtype != np.uint8 or arrays.shape[1:] != (SIDE_PX, SIDE_PX):
        raise PictureError(
            f"many arrays are uint8 [N, 28, 28], got {arrays.dtype} {list(arrays.shape)}; "
            "normalise other pictures one by one"
        )
    return [
        Normalised((Candidate(array, 1.0, AS_IT_IS),)) if alike else normalise(Picture(array, ""))
        for array, alike in zip(arrays, _are_mnist(arrays).tolist(), strict=True)
    ]


def _why_none(picture: Bytes) -> str:
    """Why no digit was found in a picture."""
    share = ink.largest_part(picture)
    if SPECK <= share < SMALL:
        return TOO_SMALL.format(share=share)
    return NO_INK


class _Look(NamedTuple):
    """Ink, and the picture or the sheet in it where it was found."""

    pixels: Bytes
    ink: Ink
    name: str
    odds: float | None = None  # where its score says nothing of them


def _candidates(picture: Bytes, show: Show | None) -> tuple[tuple[Candidate, ...], str]:
    """The digits that may be in a picture, the likeliest first, and what leaves doubt of all."""
    looks, others = _looks(picture, show)
    kept: list[Candidate] = []
    for place, look in enumerate(looks):
        digit = _made(look.pixels, look.ink, show if place == 0 else None)
        odds = (
            (look.ink.score / looks[0].ink.score) ** ODDS_POWER if look.odds is None else look.odds
        )
        name = f"{look.name}, {'bright' if look.ink.bright else 'dark'} ink"
        name += ", laid into an empty margin" if look.ink.laid else ""
        for other in range(len(kept)):
            if _likeness(digit, kept[other].digit) >= SAME_DIGIT:
                kept[other] = kept[other]._replace(odds=max(odds, kept[other].odds))
                break
        else:
            kept.append(Candidate(digit, odds, name))
    doubt = ""
    if others:
        doubt = SEVERAL.format(count=others, pieces="piece" if others == 1 else "pieces")
    elif looks and not looks[0].ink.laid:
        first = looks[0].ink
        if like := unlike_a_digit(first.mask, scale=first.scale):
            doubt = UNLIKE.format(like=like)
    return tuple(sorted(kept, key=lambda one: -one.odds)), doubt


def _looks(picture: Bytes, show: Show | None) -> tuple[list[_Look], int]:
    """Where the digit may be: on the smallest sheet that holds one, else in the whole picture."""
    working = ink.working_copy(picture)
    in_whole = ink.find(picture, show=show, working=working)
    on_sheets: list[tuple[paper.Sheet, list[Ink]]] = []
    doubtful: list[_Look] = []
    for sheet in paper.sheets(picture, working[0]):
        if any(cv2.countNonZero(cv2.bitwise_and(sheet.hull, one.hull)) for one, _ in on_sheets):
            continue
        inks = ink.find(sheet.pixels)
        within = any(_encloses(one, sheet) for one in in_whole)
        if not inks or not _is_on(sheet, inks[0], least=ENCLOSED_INK if within else SHEET_INK):
            continue
        if not _crosses(sheet, inks[0]):
            on_sheets.append((sheet, inks))
        elif in_whole and inks[0].score > FAR_BETTER * in_whole[0].score:
            doubtful.append(_Look(sheet.pixels, inks[0], "a part of it", CUT_ODDS))
    whole = [_Look(picture, one, "the picture") for one in in_whole]
    if not on_sheets:
        return whole + doubtful, in_whole[0].others if in_whole else 0
    sheet, inks = max(on_sheets, key=lambda one: one[1][0].score)
    if show:
        show("sheet", "The paper, bare of what lies around it.", sheet.pixels)
        ink.find(sheet.pixels, show=show)
    looks = [_Look(sheet.pixels, one, "a sheet in it") for one in inks]
    if _is_blob(inks[0]) and _is_as_around(working[0], sheet, inks[0]):
        round_it = [one for one in whole if not one.ink.laid and _covers(one.ink, sheet)]
        if round_it and round_it[0].ink.score > inks[0].score:
            return whole, in_whole[0].others
        looks += round_it
    _, _, wide, high = cv2.boundingRect(sheet.hull)
    length = max(inks[0].box[2:]) / max(inks[0].mask.shape) * max(wide, high)
    beside = ink.beside(working[0], sheet.hull, inks[0], length)
    return looks, inks[0].others + max(len(on_sheets) - 1, beside)


def _encloses(found: Ink, sheet: paper.Sheet) -> bool:
    """Whether a sheet lies within the box of ink that was found in the whole picture."""
    share = sheet.hull.shape[0] / found.mask.shape[0]
    left, top, wide, high = (share * v for v in found.box)
    x, y, w, h = cv2.boundingRect(sheet.hull)
    return bool(left <= x and top <= y and x + w <= left + wide and y + h <= top + high)


def _is_blob(found: Ink) -> bool:
    """Whether ink nearly fills its convex hull, as a hole or a single line does."""
    outlines, _ = cv2.findContours(found.mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    hull = cv2.contourArea(cv2.convexHull(np.concatenate(outlines)))
    return cv2.countNonZero(found.mask) > BLOB_SHARE * hull


def _is_as_around(copy: Bytes, sheet: paper.Sheet, found: Ink) -> bool:
    """Whether ink is as bright as what lies around its sheet, which may be a bold stroke then."""
    plain = copy if copy.ndim == 2 else cv2.cvtColor(copy, cv2.COLOR_RGB2GRAY)
    near, far = (cv2.dilate(sheet.hull, np.ones((side, side), np.uint8)) for side in (7, 25))
    around = cv2.mean(plain, cv2.subtract(far, near))[0]
    bare = cv2.mean(plain, sheet.bare)[0]
    return (around > bare) == found.bright


def _covers(found: Ink, sheet: paper.Sheet) -> bool:
    """Whether ink is what was taken for a sheet."""
    rows, columns = sheet.bare.shape
    mask = cv2.resize(found.mask, (columns, rows), interpolation=cv2.INTER_NEAREST)
    both = cv2.countNonZero(cv2.bitwise_and(mask, sheet.bare))
    return 2 * both > cv2.countNonZero(sheet.bare)


def _is_on(sheet: paper.Sheet, found: Ink, *, least: float) -> bool:
    """Whether ink on a sheet may be a digit, of some length, and no grain of it."""
    if found.laid or found.score < SHEET_SCORE or found.contrast < GRAIN_TIMES * sheet.grain:
        return False
    return bool(max(found.box[2:]) >= least * max(found.mask.shape))


def _crosses(sheet: paper.Sheet, found: Ink) -> bool:
    """Whether ink reaches the rim of a sheet: it may go on beyond it."""
    rows, columns = found.mask.shape
    inside = cv2.resize(sheet.inside, (columns, rows), interpolation=cv2.INTER_NEAREST)
    rim = 1 - cv2.erode(inside, np.ones((5, 5), np.uint8), borderValue=0)
    return bool(cv2.countNonZero(cv2.bitwise_and(found.mask, rim)) > 0)


def _likeness(one: Bytes, other: Bytes) -> float:
    """The correlation of two normalised digits, -1 to 1."""
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def _made(picture: Bytes, found: Ink, show: Show | None) -> Bytes:
    """The way of a picture, whose ink was found, that does not look like MNIST's yet."""
    if not found.laid:
        found = closer(picture, found, show=show)
    strokes = cut(found)
    if show:
        show("cut", "The digit alone, to its edge; other ink is left out.", strokes)
    strokes = as_wide_as_mnist(strokes, found)
    if show:
        show("strokes", "Strokes far thinner or thicker than MNIST's brought near them.", strokes)
    box = boxed(strokes)
    if show:
        show("box", "Scaled to fit into 20×20, its aspect kept.", box)
    digit = centred(box)
    if show:
        show("digit", "Laid into 28×28, its centre of mass in the middle.", digit)
    return digit


# --- what already is as MNIST's -----------------------------------------------------------------


def _is_field(array: Array) -> bool:
    return array.dtype == np.uint8 and array.shape == (SIDE_PX, SIDE_PX)


def as_mnist(digit: Bytes) -> Bytes | None:
    """A picture that already is as MNIST's are, or is so once inverted; None for any other.

    Args:
        digit: uint8 [28, 28].
    """
    if is_mnist(digit):
        return digit
    inverted: Bytes = cv2.bitwise_not(digit)
    return inverted if is_mnist(inverted) else None


def is_mnist(digit: Bytes) -> bool:
    """Whether a picture has what all of MNIST's have: a box of 20, the centre of mass in the
    middle, full strength, and strokes wider than a pixel.

    Args:
        digit: uint8 [28, 28].
    """
    _, _, wide, high = cv2.boundingRect(digit)
    if max(wide, high) != BOX_PX:
        return False
    moments = cv2.moments(digit)
    mass = moments["m00"]
    if abs(moments["m10"] / mass - CENTRE_PX) > OFF_CENTRE_PX:
        return False
    if abs(moments["m01"] / mass - CENTRE_PX) > OFF_CENTRE_PX:
        return False
    body = cv2.sumElems(cv2.erode(digit, _PAIR))[0]
    return bool(body >= LEAST_BODY * mass and digit.max() >= LEAST_PEAK)


_PAIR = np.ones((2, 2), np.uint8)
_PLACES = np.arange(SIDE_PX, dtype=np.float32)


def _are_mnist(arrays: Bytes) -> NDArray[np.bool_]:
    """`is_mnist` of each of uint8 [N, 28, 28], a thousand at a time."""
    return np.concatenate(
        [_are_mnist_few(arrays[start : start + 1000]) for start in range(0, len(arrays), 1000)]
        or [np.zeros(0, bool)]
    )


def _are_mnist_few(arrays: Bytes) -> NDArray[np.bool_]:
    down, across = arrays.max(axis=2) > 0, arrays.max(axis=1) > 0
    spans = [SIDE_PX - one[:, ::-1].argmax(axis=1) - one.argmax(axis=1) for one in (down, across)]
    values = arrays.astype(np.float32)
    by_row, by_column = values.sum(axis=2), values.sum(axis=1)
    mass = np.maximum(by_row.sum(axis=1), 1)
    centred = (abs(by_row @ _PLACES / mass - CENTRE_PX) <= OFF_CENTRE_PX) & (
        abs(by_column @ _PLACES / mass - CENTRE_PX) <= OFF_CENTRE_PX
    )
    eroded = arrays.copy()
    np.minimum(arrays[:, 1:], arrays[:, :-1], out=eroded[:, 1:])
    body = np.minimum(eroded[:, :, 1:], eroded[:, :, :-1]).sum(axis=(1, 2), dtype=np.int64)
    body += eroded[:, :, 0].sum(axis=1, dtype=np.int64)
    strong = (body >= LEAST_BODY * mass) & (arrays.max(axis=(1, 2)) >= LEAST_PEAK)
    looks: NDArray[np.bool_] = (np.maximum(*spans) == BOX_PX) & centred & strong & down.any(axis=1)
    return looks


# --- the steps ----------------------------------------------------------------------------------


def closer(picture: Bytes, found: Ink, *, show: Show | None = None) -> Ink:
    """Look again, from near, at ink that is small in a large picture."""
    left, top, wide, high = found.box
    longest = max(wide, high)
    if found.scale >= 1 or longest >= NEAR_PX or found.turned:
        return found
    margin = 0.4 * longest
    x0, y0 = (max(0, int((v - margin) / found.scale)) for v in (left, top))
    x1, y1 = (int((v + margin) / found.scale) + 1 for v in (left + wide, top + high))
    inks = ink.find(picture[y0:y1, x0:x1], bright=found.bright)
    if not inks or inks[0].score < 0.5 * found.score:
        return found
    x, y, x_end, y_end = (int(v * found.scale) for v in (x0, y0, x1, y1))
    near = _within(inks[0], found.mask[y : max(y + 1, y_end), x : max(x + 1, x_end)])
    if near is None:
        return found
    if show:
        show("nearer", "The digit is small: looked at again, from near.", near.strength)
    return near


def _within(near: Ink, mask: Bytes) -> Ink | None:
    """What a nearer look found where the first one had strokes: lines and edges stay away."""
    rows, columns = near.mask.shape
    first = cv2.dilate(mask, np.ones((7, 7), np.uint8))
    first = cv2.resize(first, (columns, rows), interpolation=cv2.INTER_NEAREST)
    both = cv2.bitwise_and(near.mask, first)
    if not cv2.countNonZero(both):
        return None
    strength = cv2.multiply(near.strength, cv2.dilate(both, np.ones((5, 5), np.uint8)))
    return near._replace(mask=both, strength=strength, box=tuple(cv2.boundingRect(both)))


def cut(found: Ink) -> Bytes:
    """The ink's strength, uint8 [rows, columns], cut to the digit's box."""
    left, top, wide, high = found.box
    return found.strength[top : top + high, left : left + wide]


def as_wide_as_mnist(strokes: Bytes, found: Ink) -> Bytes:
    """Bring strokes that are far thinner or thicker than MNIST's near them.

    The outline is moved along the distance to it, outwards or inwards.

    Args:
        strokes: the ink's strength, cut to its box.
        found: the ink.

    Returns:
        uint8 [rows, columns], cut to the new box; `strokes` themselves where they are as wide.
    """
    left, top, wide, high = found.box
    unit = max(wide, high) / BOX_PX
    width = stroke_width(found.mask[top : top + high, left : left + wide]) / unit
    if THINNEST_PX <= width <= THICKEST_PX:
        return strokes
    grown = ((THINNEST_PX if width < THINNEST_PX else THICK_TO_PX) - width) / 2 * unit
    pad = int(max(0.0, grown)) + 2
    mask = found.mask[top : top + high, left : left + wide]
    mask = cv2.copyMakeBorder(mask, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
    inside = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
    outside = cv2.distanceTransform(1 - mask, cv2.DIST_L2, 5)
    shape = np.clip(inside - outside + np.float32(grown + 0.5), 0, 1)
    moved = (shape * 255).astype(np.uint8)
    x, y, w, h = cv2.boundingRect(cv2.threshold(moved, 32, 255, cv2.THRESH_BINARY)[1])
    return moved[y : y + h, x : x + w] if w and h else strokes


def boxed(strokes: Bytes) -> Bytes:
    """Scale the digit, its aspect kept, so that its longer side has 20 pixels."""
    rows, columns = strokes.shape
    share = BOX_PX / max(rows, columns)
    size = (max(1, round(columns * share)), max(1, round(rows * share)))
    how = cv2.INTER_AREA if share < 1 else cv2.INTER_LINEAR
    box: Bytes = cv2.resize(strokes, size, interpolation=how)
    return box


def centred(digit: Bytes) -> Bytes:
    """Lay a digit of at most 20×20 into 28×28 with its centre of mass in the middle."""
    rows, columns = digit.shape
    moments = cv2.moments(digit)
    mass = max(1.0, moments["m00"])
    left = int(np.clip(round(CENTRE_PX - moments["m10"] / mass), 0, SIDE_PX - columns))
    top = int(np.clip(round(CENTRE_PX - moments["m01"] / mass), 0, SIDE_PX - rows))
    field = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    field[top : top + rows, left : left + columns] = digit
    return field

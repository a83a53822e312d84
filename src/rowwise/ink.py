"""Where the ink is: the grey it stands out in, the paper's level, and how strong it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from rowwise.flaws import without_lines, without_specks, without_stripes
from rowwise.strokes import (
    STRIP_SHARE,
    Strokes,
    choose,
    is_of_paper,
    longest_inside,
    parts_beside,
)

SIDE_PX = 256  # the longer side of the copy that is searched
LEAST_SIDE_PX = 112  # smaller pictures are enlarged to it
NOISE_TIMES = 4.0  # ink is darker than paper by so many times the paper's noise
HEIGHT = 0.4  # of the ink's mean level: what stands out more is ink
GOOD_SCORE = 0.45  # of one level everywhere: with a better one, no other is looked for
LEAST_RIVAL = 0.3  # of the best score: what has less is no rival of it
SAME = 0.7  # of all pixels of two inks, those in both: with more they are one
MOST_RIVALS = 3
SPAN = 0.9  # of the picture's sides: ink that has as much may have been cut closely
MARGIN = 0.25  # of the longer side: the empty margin that a tight crop is laid into
LOCAL_TRUST = 0.8  # in a paper's level from place to place, against one level everywhere
EVEN_TRUST = 0.55  # where that one level is even
EVEN_NOISE = 0.1  # of the way from paper to ink: paper in even light has less
TURNED_TIMES = 1.1  # better than without: what turns stripes back is sure of them
LEAST_LENGTH = 0.035  # of the picture's longer side
LEAST_SCORE, LEAST_TRUSTED = 0.1, 0.09  # with less it is grain, or a change of light
LEAST_STEEPNESS = 0.06
LEAST_CONTRAST, CLEAR_CONTRAST = 6.0, 20.0  # levels of 255

Bytes = NDArray[np.uint8]
Array = NDArray[Any]
Show = Callable[[str, str, Array], None]  # a step's name, a sentence, its picture

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


class Ink(NamedTuple):
    """The ink of one digit, in pixels of the copy that was searched."""

    strength: Bytes  # [rows, columns], 0 is paper, 255 is ink, only of this digit
    mask: Bytes  # [rows, columns], 0 or 1: its strokes
    box: tuple[int, int, int, int]  # left, top, columns, rows
    scale: float  # pixels of the copy a pixel of the picture
    bright: bool  # ink is brighter than paper
    score: float  # how well it looks like strokes on paper
    contrast: float = 0.0  # levels by which it stands out, in the mean
    others: int = 0  # pieces as large as a digit that were left out
    touches: bool = False  # it touches the picture's sides
    turned: bool = False  # stripes of exchanged black and white were turned back
    laid: bool = False  # an empty margin was laid round the picture


def working_copy(pixels: Bytes) -> tuple[Bytes, float]:
    """The picture with its longer side of 112 to 256 pixels, and by how much it was scaled."""
    rows, columns = pixels.shape[:2]
    longest = max(rows, columns)
    if longest > SIDE_PX:
        scale, how = SIDE_PX / longest, cv2.INTER_AREA
    elif longest < LEAST_SIDE_PX:
        scale, how = float(-(-LEAST_SIDE_PX // longest)), cv2.INTER_CUBIC
    else:
        return pixels, 1.0
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    while min(pixels.shape[:2]) > 2 * SIDE_PX:  # by halves: several times as fast, and the same
        half = (pixels.shape[1] // 2, pixels.shape[0] // 2)
        pixels = cv2.resize(pixels, half, interpolation=cv2.INTER_AREA)
    return cv2.resize(pixels, size, interpolation=how), scale


def grey(pixels: Bytes) -> Bytes:
    """The projection of the colours in which ink stands out most, as bytes.

    Of the directions in colour space it is Fisher's: w = (S_paper + εI)⁻¹ (m_ink - m_paper), with
    the tenth of the pixels that differ most from their surroundings taken for ink. Where the
    picture is grey, the mean of the channels.

    Source: R. A. Fisher, "The use of multiple measurements in taxonomic problems", 1936.
    """
    if pixels.ndim == 2:
        return pixels
    luma: Bytes = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(pixels, (64, 64), interpolation=cv2.INTER_AREA)
    spread = small.max(axis=2).astype(np.int16) - small.min(axis=2)
    if _least_of_top(spread, 0.02) < 20:
        return luma
    differs = small.astype(np.float32) - cv2.medianBlur(small, 31)
    flat = differs.reshape(-1, 3)
    far = np.abs(flat).max(axis=1)
    ink = far >= max(8.0, _least_of_top(far, 0.1))
    if ink.sum() < 8 or ink.all():
        return luma
    paper = np.cov(flat[~ink].T) + 25.0 * np.eye(3)
    direction = np.linalg.solve(paper, flat[ink].mean(axis=0))
    size = float(np.abs(direction).sum())
    if size < 1e-6:
        return luma
    weights = (direction / size).astype(np.float32)
    if float(weights @ _LUMA) < 0:
        weights = -weights  # brighter stays brighter
    shown = cv2.transform(pixels.astype(np.float32), weights[None])
    low, high, _, _ = cv2.minMaxLoc(shown)
    stretched: Bytes = ((shown - low) * (255 / max(1e-6, high - low))).astype(np.uint8)
    return stretched


def paper_level(grey: Bytes) -> Bytes:
    """The level of the paper at each pixel: a median over half the picture's side.

    Strokes vanish in it, as they fill less than half of any such window; shadows stay, with
    their edges.
    """
    rows, columns = grey.shape
    share = 64 / max(rows, columns)
    size = (max(8, round(columns * share)), max(8, round(rows * share)))
    small = cv2.medianBlur(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), 31)
    level: Bytes = cv2.resize(small, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return level


def find(
    pixels: Bytes,
    *,
    show: Show | None = None,
    bright: bool | None = None,
    working: tuple[Bytes, float] | None = None,
) -> list[Ink]:
    """Find the ink of the one digit in a picture: what it may be, the likeliest first.

    There is more than one answer where the ink is in doubt: what is paper, whether strokes at the
    picture's sides belong to it, whether stripes are.

    Args:
        pixels: uint8 [rows, columns] or [rows, columns, 3].
        show: is given each step's picture, of the likeliest.
        bright: whether ink is brighter than paper, where that is known.
        working: the picture's `working_copy`, where somebody has it.

    Returns:
        No ink where nothing stands out from the paper as strokes do.
    """
    small = max(pixels.shape[:2]) < LEAST_SIDE_PX  # edges are sharp only before it is enlarged
    copy, scale = (pixels, 1.0) if small else working or working_copy(pixels)
    if bright is None and (turned := without_stripes(copy)) is not None:
        found, as_it_is = (
            _search(turned, scale, bright=True),
            _search(copy, scale, bright=None),
        )
        if found and (not as_it_is or found[0].score > TURNED_TIMES * as_it_is[0].score):
            if show:
                show("stripes", "Stripes of black and white exchanged, turned back.", turned)
                _search(turned, scale, bright=True, show=show)
            return [one._replace(turned=True) for one in found] + as_it_is
    if small and copy.ndim == 2 and (clean := without_specks(copy)) is not None:
        if show:
            show("specks", "Single pixels that differ from all around them taken away.", clean)
        copy = clean
    found = _search(copy, scale, bright=bright, show=show)
    if bright is None and (not found or (found[0].touches and (small or _spans(found[0])))):
        found += _in_a_margin(copy, scale)
    return found


def largest_part(pixels: Bytes) -> float:
    """How long the longest is of what stands out from the paper around it, off the sides.

    Args:
        pixels: uint8 [rows, columns] or [rows, columns, 3].

    Returns:
        A share of the picture's longer side; 0 where nothing stands out.
    """
    plain = grey(working_copy(pixels)[0])
    longest = 0
    for level in _levels(plain, None):
        threshold = ink_threshold(level.above, level.noise)
        if level.trust < 1 and threshold is not None and threshold >= CLEAR_CONTRAST:
            mask = (level.above > threshold).astype(np.uint8)
            longest = max(longest, longest_inside(mask))
    return float(longest / max(plain.shape))


def beside(copy: Bytes, hull: Bytes, found: Ink, length: float) -> int:
    """How many digits there may be beside a field in which ink was found.

    Args:
        copy: the picture's `working_copy`.
        hull: uint8 [rows, columns] of it, 1 in the field.
        found: the ink in the field.
        length: of the digit's longer side, in pixels of the copy.
    """
    count = 0
    for level in _levels(grey(copy), found.bright):
        threshold = ink_threshold(level.above, level.noise)
        if level.trust == 1 and threshold is not None:
            mask = (level.above > threshold).astype(np.uint8)
            count = max(count, parts_beside(mask, hull, length))
    return count


def _in_a_margin(copy: Bytes, scale: float) -> list[Ink]:
    """What a tight crop holds, as dark and as bright ink, laid into an empty margin."""
    plain = grey(copy)
    _, upper = cv2.threshold(plain, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    pad = max(2, round(MARGIN * max(plain.shape)))
    found = []
    for bright, part in ((False, upper), (True, 1 - upper)):
        paper = quantile(plain, part, 0.5) if part.any() else 0.0
        laid = cv2.copyMakeBorder(plain, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=paper)
        for one in _search(laid, scale, bright=bright)[:1]:
            gap = round(pad * one.mask.shape[0] / laid.shape[0])
            inner = one.mask[gap:-gap, gap:-gap]
            if inner.size and _fills(inner):
                found.append(one._replace(laid=True))
    return found


def _spans(found: Ink) -> bool:
    """Whether ink reaches nearly across its picture in both directions."""
    rows, columns = found.mask.shape
    return bool(found.box[2] >= SPAN * columns and found.box[3] >= SPAN * rows)


def _fills(mask: Bytes) -> bool:
    """Whether ink reaches all four sides of its picture, and is no frame."""
    sides = [
        float(side.mean())
        for side in (mask[:2].max(0), mask[-2:].max(0), mask[:, :2].max(1), mask[:, -2:].max(1))
    ]
    return min(sides) > 0 and sum(side >= STRIP_SHARE for side in sides) < 2


def _search(
    pixels: Bytes, scale: float, *, bright: bool | None, show: Show | None = None
) -> list[Ink]:
    """`find` in a picture that was scaled by `scale` and mended."""
    copy, enlarged = working_copy(pixels)
    scale *= enlarged
    plain = grey(copy)
    if show:
        show("grey", "One brightness a pixel, in the colours that ink and paper differ in.", plain)
    smooth = cv2.GaussianBlur(plain, (0, 0), 0.8) if scale < 1 or max(plain.shape) > 150 else plain
    found: list[_Candidate] = []
    edges = cv2.morphologyEx(smooth, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    for level in _levels(smooth, bright):
        if level.trust < 1 and found and max(one.score for one in found) > GOOD_SCORE:
            break
        candidate = _candidate(level, smooth, edges, scale)
        if candidate is not None:
            found.append(candidate)
    rivals = _rivals(found)
    if not rivals:
        return []
    if show:
        best = rivals[0]
        show("paper", "How far each pixel stands out from the paper around it.", best.above)
        show("ink", "What stands out far enough to be ink.", best.mask * np.uint8(255))
        show("lines", "Ruled lines taken away.", best.unruled * np.uint8(255))
        chosen = best.strokes.mask * np.uint8(255)
        show("chosen", "The digit, without specks, frames and neighbours.", chosen)
    return [
        Ink(
            _strength(one.above, one.strokes, one.threshold),
            one.strokes.mask,
            one.strokes.box,
            scale,
            one.bright,
            one.score,
            cv2.mean(one.above, one.strokes.mask)[0],
            one.strokes.others,
            touches_sides(one.strokes.mask),
        )
        for one in rivals
    ]


def _candidate(level: _Level, smooth: Bytes, edges: Bytes, scale: float) -> _Candidate | None:
    """The digit's strokes by one level of the paper; None where nothing looks like them."""
    threshold = ink_threshold(level.above, level.noise)
    if threshold is None:
        return None
    mask = (level.above > threshold).astype(np.uint8)
    unruled = without_lines(mask, level.above)
    strokes = choose(unruled, edges, pixel=max(1.0, scale))
    if strokes is None or max(strokes.box[2:]) < LEAST_LENGTH * max(mask.shape):
        return None
    if not is_steep(level.above, edges, strokes.mask):
        return None
    if scale <= 1 and is_of_paper(strokes.mask, smooth):
        return None
    score = level.trust * strokes.score
    if strokes.score <= LEAST_SCORE or score <= LEAST_TRUSTED:
        return None
    return _Candidate(level.above, threshold, level.bright, mask, unruled, strokes, score)


def _rivals(found: list[_Candidate]) -> list[_Candidate]:
    """The best candidate and those that are nearly as good and another ink; the best first.

    What the best one encloses are its holes.
    """
    kept: list[_Candidate] = []
    for one in sorted(found, key=lambda candidate: -candidate.score):
        mask = one.strokes.mask
        if kept and (one.score < LEAST_RIVAL * kept[0].score or _encloses(kept[0], one)):
            continue
        if all(_shared(mask, other.strokes.mask) < SAME for other in kept):
            kept.append(one)
    return kept[:MOST_RIVALS]


def _encloses(one: _Candidate, other: _Candidate) -> bool:
    """Whether ink has another's, of the other polarity, within its box and off the sides."""
    if one.bright == other.bright or touches_sides(other.strokes.mask):
        return False
    left, top, wide, high = one.strokes.box
    x, y, w, h = other.strokes.box
    return left <= x and top <= y and x + w <= left + wide and y + h <= top + high


def _shared(one: Bytes, other: Bytes) -> float:
    """Of the pixels in either mask, the share that is in both."""
    either = cv2.countNonZero(cv2.bitwise_or(one, other))
    return cv2.countNonZero(cv2.bitwise_and(one, other)) / max(1, either)


def touches_sides(mask: Bytes) -> bool:
    """Whether a mask reaches a side of its picture."""
    return any(side.any() for side in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))


def is_steep(above: Bytes, edges: Bytes, mask: Bytes) -> bool:
    """Whether strokes have an edge: a change of light has none.

    A blur that is as wide as a stroke leaves an edge a tenth as steep as the ink is strong; light
    changes a hundred times as slowly.
    """
    outline = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    steep = cv2.mean(edges, outline)[0]
    return bool(steep >= LEAST_STEEPNESS * cv2.mean(above, mask)[0])


class _Candidate(NamedTuple):
    above: Bytes
    threshold: float
    bright: bool
    mask: Bytes
    unruled: Bytes
    strokes: Strokes
    score: float


def ink_threshold(above: Bytes, noise: float) -> float | None:
    """The level half-way up to the ink, found as Ridler and Calvard do; None where there is none.

    Args:
        above: uint8, how far each pixel stands out from the paper.
        noise: the paper's deviation, in levels.

    Source: T. W. Ridler and S. Calvard, "Picture thresholding using an iterative selection
    method", IEEE Trans. SMC 8, 1978; with the paper's level held at 0.
    """
    counts = np.bincount(above.ravel(), minlength=256).astype(np.float64)
    least = max(NOISE_TIMES * noise, LEAST_CONTRAST)
    sums = np.cumsum((counts * np.arange(256))[::-1])[::-1]
    numbers = np.cumsum(counts[::-1])[::-1]
    threshold = least
    for _ in range(8):
        first = min(255, int(threshold) + 1)
        if numbers[first] < 3:
            return None
        threshold = max(least, HEIGHT * sums[first] / numbers[first])
    return float(threshold)


def _strength(above: Bytes, strokes: Strokes, threshold: float) -> Bytes:
    """How much ink each pixel holds, from 0 at the paper to 255; that of other strokes is none."""
    low, full = 0.25 * threshold, quantile(above, strokes.mask, 0.6)
    near = cv2.dilate(strokes.mask, np.ones((5, 5), np.uint8))
    scaled = cv2.convertScaleAbs(cv2.subtract(above, low), alpha=255 / max(1.0, full - low))
    strength: Bytes = cv2.multiply(scaled, near)
    return strength


class _Level(NamedTuple):
    """One answer to what the paper's level is."""

    above: Bytes  # how far each pixel stands out from the paper
    noise: float  # the paper's deviation
    bright: bool  # ink is brighter than paper
    trust: float  # 0..1


def _levels(smooth: Bytes, bright: bool | None) -> Iterator[_Level]:
    """What the paper's level may be.

    For paper in even light, of the brighter or the darker of two levels; and for paper whose level
    changes from place to place. Dark ink in a shadow is as dark as in light, as a share of the
    paper's level.
    """
    _, upper = cv2.threshold(smooth, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    lower = 1 - upper
    high, low = quantile(smooth, upper, 0.5), quantile(smooth, lower, 0.5)
    quietest = 255.0
    for part, level, polarity in ((upper, high, False), (lower, low, True)):
        if cv2.countNonZero(part):
            noise = 1.4826 * quantile(cv2.absdiff(smooth, level), part, 0.5)
            quietest = min(quietest, noise)
            above = cv2.subtract(smooth, level) if polarity else cv2.subtract(level, smooth)
            if bright in (None, polarity):
                yield _Level(above, noise, polarity, 1.0)
    local = paper_level(smooth)
    trust = LOCAL_TRUST if quietest > EVEN_NOISE * (high - low) else EVEN_TRUST
    noise = 1.4826 * quantile(cv2.absdiff(smooth, local), None, 0.5)
    if bright in (None, True):
        yield _Level(cv2.subtract(smooth, local), noise, True, trust)
    if bright in (None, False):
        share = cv2.divide(smooth, cv2.max(local, 1), scale=255)
        middle = max(1.0, quantile(local, None, 0.5))
        yield _Level(255 - share, noise * 255 / middle, False, trust)


def _least_of_top(array: Array, share: float) -> float:
    """The least of the largest `share` of the elements.

    np.percentile would do, but imports NumPy's masked arrays at its first call: 15 ms.
    """
    last = array.size - max(1, round(share * array.size))
    return float(np.partition(array, last, axis=None)[last])


def quantile(array: Bytes, mask: Bytes | None, share: float) -> float:
    """The level that a share of the pixels, of those in a mask, do not exceed."""
    counts = cv2.calcHist([array], [0], mask, [256], [0, 256]).ravel()
    sums = np.cumsum(counts)
    wanted = share * float(sums[-1])
    level = int(np.searchsorted(sums, wanted))
    # Within the level in proportion: the noise of a quiet paper is of one level or two.
    return level + 0.5 - (float(sums[level]) - wanted) / max(1.0, float(counts[level]))

"""Where the paper is: the sheets and fields of a picture, each laid bare of what is around it."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from rowwise.ink import quantile, working_copy

KEPT_PX = 384  # at most, of a sheet's longer side
SMOOTH_LEVELS = (8.0, 24.0)  # neighbours of one paper differ by less; the grain decides between
GRAIN_TIMES = 2.5
LEAST_SHARE = 0.04  # of the picture
WHOLE_SHARE = 0.97  # of the picture: what covers more is the picture
BARE_SHARE = 0.45  # of the hull: so much is not written on
CONVEX = 0.7  # of the hull: a sheet, with what is written on it, fills more
SHORTEST_PX = 16  # of the copy that is searched
MOST = 6

Bytes = NDArray[np.uint8]


class Sheet(NamedTuple):
    """A sheet of paper, or a field on one, cut out; around it lies more of the same paper."""

    pixels: Bytes  # [rows, columns] or [rows, columns, 3], at most KEPT_PX long
    inside: Bytes  # [rows, columns], 1 on the sheet, 0 where it was continued
    bare: Bytes  # [rows, columns] of the copy searched, 1 where nothing is written on the sheet
    hull: Bytes  # [rows, columns] of the copy searched, 1 on the sheet
    share: float  # of the picture
    grain: float  # levels that neighbours of its paper may differ by


def sheets(picture: Bytes, working: Bytes | None = None) -> list[Sheet]:
    """Find the sheets in a picture, the smallest first.

    A sheet is a convex region of one colour that changes slowly, with what is written on it: paper
    on a desk, the page beside a dark strip, the inside of a frame, a cell, a ring. What lies around
    it is replaced by the nearest paper's colour. The picture as a whole is not among them.

    Args:
        picture: uint8 [rows, columns] or [rows, columns, 3].
        working: its `ink.working_copy`, where somebody has it.
    """
    copy = working_copy(picture)[0] if working is None else working
    if min(copy.shape[:2]) < SHORTEST_PX:
        return []
    soft = cv2.GaussianBlur(copy, (0, 0), 1.0)
    steep = cv2.morphologyEx(soft, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    if steep.ndim == 3:
        steep = cv2.max(cv2.max(*cv2.split(steep)[:2]), cv2.split(steep)[2])
    grain = float(np.clip(GRAIN_TIMES * quantile(steep, None, 0.5), *SMOOTH_LEVELS))
    smooth = (steep <= grain).astype(np.uint8)
    found = [_sheet(picture, region, hull, grain) for region, hull in _regions(smooth)]
    return sorted(found, key=lambda sheet: sheet.share)


def _regions(smooth: Bytes) -> list[tuple[Bytes, Bytes]]:
    """The largest smooth regions that nearly fill their convex hulls, and these."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(smooth, connectivity=4)
    large = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] >= LEAST_SHARE * smooth.size)
    found = []
    for part in sorted(large[large > 0], key=lambda part: -stats[part, cv2.CC_STAT_AREA])[:MOST]:
        region = (labels == part).astype(np.uint8)
        outlines, _ = cv2.findContours(region, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        outline = max(outlines, key=cv2.contourArea)
        hull = np.zeros_like(region)
        cv2.fillConvexPoly(hull, cv2.convexHull(outline), 1)
        area = cv2.countNonZero(hull)
        solid = cv2.contourArea(outline) >= CONVEX * area - len(outline) / 2
        bare = stats[part, cv2.CC_STAT_AREA] >= BARE_SHARE * area
        if solid and bare and area < WHOLE_SHARE * smooth.size:
            found.append((region, hull))
    return found


def _sheet(picture: Bytes, region: Bytes, hull: Bytes, grain: float) -> Sheet:
    """Cut a sheet out of the picture, and continue its paper over what is around it."""
    rows, columns = picture.shape[:2]
    scale = (columns / hull.shape[1], rows / hull.shape[0])
    left, top, wide, high = cv2.boundingRect(hull)
    x0, y0 = int(left * scale[0]), int(top * scale[1])
    x1, y1 = math.ceil((left + wide) * scale[0]), math.ceil((top + high) * scale[1])
    cut = picture[y0:y1, x0:x1]
    share = min(1.0, KEPT_PX / max(cut.shape[:2]))
    cut = cut.copy() if share == 1 else _resized(cut, share)
    size = (cut.shape[1], cut.shape[0])
    here = np.s_[top : top + high, left : left + wide]
    inside = cv2.resize(hull[here], size, interpolation=cv2.INTER_NEAREST)
    bare = cv2.resize(region[here], size, interpolation=cv2.INTER_NEAREST)
    outside = inside == 0
    if outside.any():
        cut[outside] = _continued(cut, bare)[outside]
    return Sheet(cut, inside, region, hull, float(hull.mean()), grain)


def _continued(cut: Bytes, bare: Bytes) -> Bytes:
    """At each pixel the colour of the bare paper that is nearest."""
    known = cv2.blur(bare.astype(np.float32), (5, 5))
    shape = bare.shape + (1,) * (cut.ndim - 2)
    total = cv2.blur(cut * bare.reshape(shape).astype(np.float32), (5, 5))
    smooth = (total / np.maximum(known, 0.02).reshape(shape)).astype(np.uint8)
    _, labels = cv2.distanceTransformWithLabels(
        1 - bare, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    colours = np.zeros((int(labels.max()) + 1, *cut.shape[2:]), np.uint8)
    colours[labels[bare > 0]] = smooth[bare > 0]
    nearest: Bytes = colours[labels]
    return nearest


def _resized(pixels: Bytes, share: float) -> Bytes:
    size = (max(1, round(pixels.shape[1] * share)), max(1, round(pixels.shape[0] * share)))
    smaller: Bytes = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return smaller

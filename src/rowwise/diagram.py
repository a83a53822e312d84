"""The plot of a model: its layers as boxes with their shapes, as Keras' `plot_model` draws them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from rowwise.drawing import INK, MUTED, PAPER, SERIES, axes, figure, shorten, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEAD, BODY = 232.0, 20.0, 30.0  # of a box, and of its two parts
GAP_X, GAP_Y, MARGIN = 22.0, 22.0, 4.0


class Box(NamedTuple):
    """One layer: its name and type, its shapes as text, and the names of the layers it reads."""

    name: str
    kind: str
    inputs: str
    output: str
    inbound: tuple[str, ...]


class Place(NamedTuple):
    """Where a box stands: its centre and its upper edge, in points from the upper left corner."""

    x: float
    y: float


def arrange(boxes: Sequence[Box]) -> dict[str, Place]:
    """Place the boxes of a network: each below all that it reads, branches side by side.

    Args:
        boxes: in an order in which a layer stands after those that it reads.

    Returns:
        The place of each box by name; the layers of a branch stand in one column.
    """
    rank: dict[str, int] = {}
    for box in boxes:
        rank[box.name] = 1 + max((rank[name] for name in box.inbound), default=-1)
    readers: dict[str, list[str]] = {box.name: [] for box in boxes}
    for box in boxes:
        for name in box.inbound:
            readers[name].append(box.name)
    column = _columns(boxes, readers)
    step_x, step_y = WIDTH + GAP_X, HEAD + BODY + GAP_Y
    return {
        name: Place(MARGIN + WIDTH / 2 + column[name] * step_x, MARGIN + rank[name] * step_y)
        for name in rank
    }


def _columns(boxes: Sequence[Box], readers: dict[str, list[str]]) -> dict[str, float]:
    # A layer with several readers starts branches; each branch gets a column of its own, and
    # what splits or joins stands in the middle of them.
    column: dict[str, float] = {}
    free = 0
    for box in boxes:
        sole = len(box.inbound) == 1 and len(readers[box.inbound[0]]) == 1
        if sole and box.inbound[0] in column:
            column[box.name] = column[box.inbound[0]]
        elif len(box.inbound) > 1:
            above = [column[name] for name in box.inbound if name in column]
            column[box.name] = sum(above) / len(above)
        elif len(readers[box.name]) <= 1 or box.inbound:
            column[box.name] = float(free)
            free += 1
    for box in reversed(boxes):
        if box.name not in column:
            below = [column[name] for name in readers[box.name]]
            column[box.name] = sum(below) / len(below)
    return column


@styled
def model_plot(boxes: Sequence[Box]) -> Figure:
    """The layers of a network with name, type, input shape and output shape, arrows between them.

    Args:
        boxes: in an order in which a layer stands after those that it reads.
    """
    places = arrange(boxes)
    width = max(place.x for place in places.values()) + WIDTH / 2 + MARGIN
    height = max(place.y for place in places.values()) + HEAD + BODY + MARGIN
    drawn = figure(width, height)
    on = axes(drawn, 0, 0, 0, 0)
    on.set_axis_off()
    on.set_xlim(0, width)
    on.set_ylim(height, 0)
    for box in boxes:
        for name in box.inbound:
            _arrow(on, places[name], places[box.name])
    for box in boxes:
        _box(on, box, places[box.name])
    return drawn


def _arrow(on: Axes, start: Place, end: Place) -> None:
    top, bottom = start.y + HEAD + BODY, end.y - 1
    bend = bottom - GAP_Y / 2
    xs = [start.x, start.x, end.x, end.x] if start.x != end.x else [start.x, end.x]
    ys = [top, bend, bend, bottom - 5] if start.x != end.x else [top, bottom - 5]
    on.plot(xs, ys, color=MUTED, linewidth=1.1, solid_joinstyle="round")
    on.fill([end.x - 3.6, end.x + 3.6, end.x], [bottom - 7, bottom - 7, bottom], color=MUTED, lw=0)


def _box(on: Axes, box: Box, place: Place) -> None:
    left, middle = place.x - WIDTH / 2, place.y + HEAD
    on.fill(
        [left, left + WIDTH, left + WIDTH, left],
        [place.y, place.y, middle, middle],
        color=SERIES[0],
        lw=0,
    )
    on.text(
        place.x,
        place.y + HEAD / 2,
        shorten(f"{box.name} ({box.kind})", 46),
        ha="center",
        va="center",
        color=PAPER,
        fontweight="bold",
        fontsize=8.5 if len(box.name) + len(box.kind) < 38 else 6.5,
    )
    bottom = middle + BODY
    on.plot(
        [left, left + WIDTH, left + WIDTH, left, left],
        [place.y, place.y, bottom, bottom, place.y],
        color=SERIES[0],
        linewidth=1,
    )
    on.plot([place.x, place.x], [middle, bottom], color=SERIES[0], linewidth=0.6)
    for x, label, shape in (
        (left, "input shape", box.inputs),
        (place.x, "output shape", box.output),
    ):
        size = 8 if len(shape) <= 24 else 5.5
        centre = x + WIDTH / 4
        on.text(centre, middle + 9, label, ha="center", va="center", color=MUTED, fontsize=6.5)
        on.text(
            centre,
            middle + 20.5,
            shorten(shape, 36),
            ha="center",
            va="center",
            color=INK,
            fontsize=size,
        )

"""Plain numbers -> matplotlib figures: distributions, results, confusion, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from rowwise.drawing import (
    INK,
    MUTED,
    PANEL,
    PAPER,
    RULE,
    SERIES,
    SHOWN_CLASSES,
    WIDE,
    axes,
    figure,
    shorten,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


FEW = 20  # answers, below which a bin of confidence is drawn hollow and apart from the curve


class Counts(NamedTuple):
    """How often each class occurs: `counts` int [C]; `expected` int [C] is marked on each bar."""

    title: str
    counts: Sequence[int]
    expected: Sequence[int] | None = None


class Result(NamedTuple):
    """One row of the results: a score 0..1 for each seed, their mean and its interval."""

    name: str
    scores: Sequence[float]
    mean: float
    low: float | None
    high: float | None
    published: float | None


class Bin(NamedTuple):
    """One bin of a calibration curve: mean confidence and accuracy 0..1 of its `size` answers, with
    the accuracy's interval.
    """

    confidence: float
    accuracy: float
    size: int
    low: float
    high: float


@styled
def class_distribution(
    panels: Sequence[Counts], names: Sequence[str], *, columns: int = 2, width: float = WIDE
) -> Figure:
    """Bars of how often each class occurs, one panel for each of `panels`, each on its own scale.

    Args:
        panels: what was counted, such as the training data, or what a network said.
        names: the C class names.
        columns: panels side by side.
        width: of the whole figure in points.

    Returns:
        The figure; a bar carries its number where there are at most 20 classes.
    """
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    cell, tall = width / columns, 128.0
    drawn = figure(width, rows * tall)
    for place, panel in enumerate(panels):
        row, column = divmod(place, columns)
        margins = (
            column * cell + 6,
            row * tall + 26,
            width - (column + 1) * cell + 6,
            (rows - row - 1) * tall + 26,
        )
        _bars(axes(drawn, *margins), panel, names, cell)
    return drawn


def _bars(on: Axes, panel: Counts, names: Sequence[str], width: float) -> None:
    counts = np.asarray(panel.counts)
    at = np.arange(len(counts))
    on.bar(at, counts, width=0.78, color=SERIES[0], alpha=0.55, linewidth=0)
    on.set_title(panel.title, pad=9)
    on.set_xlim(-0.6, len(counts) - 0.4)
    expected = counts if panel.expected is None else np.asarray(panel.expected)
    highest = np.maximum(counts, expected)
    top = max(1, int(highest.max(initial=0)))
    on.set_ylim(0, top * 1.16)
    on.set_yticks([])
    on.spines["left"].set_visible(False)
    on.grid(False)
    if panel.expected is not None:
        on.hlines(expected, at - 0.46, at + 0.46, color=INK, linewidth=1.3)
    if len(counts) <= SHOWN_CLASSES:
        for place, count in enumerate(counts):
            size = 7 if len(counts) <= 12 else 4.5
            text = f"{count:,}"
            on.text(
                place, highest[place] + top * 0.025, text, ha="center", va="bottom", fontsize=size
            )
    _class_ticks(on, names, width)


def _class_ticks(on: Axes, names: Sequence[str], width: float) -> None:
    room = (width - 20) / max(1, len(names)) / 5  # characters under a bar, about 5 points each
    longest = max((len(name) for name in names), default=1)
    if len(names) <= SHOWN_CLASSES and longest <= room:
        on.set_xticks(range(len(names)), list(names), color=INK)
    elif len(names) <= SHOWN_CLASSES and room >= 1.5:
        words = [shorten(name, 7) for name in names]
        on.set_xticks(range(len(names)), words, color=INK, rotation=30, ha="right", fontsize=6)
        on.tick_params(axis="x", pad=0)
    else:
        some = range(0, len(names), -(-len(names) // 6))
        on.set_xticks(some, [str(place + 1) for place in some])


@styled
def pixel_values(shares: Sequence[float], *, mean: float, low: int = 0, high: int = 255) -> Figure:
    """How often each grey value occurs: `shares` of all pixels in equal bins over low..high.

    The scale is logarithmic, for most pixels of a digit are background; `mean` is marked.
    """
    drawn = figure(PANEL, 190)
    on = axes(drawn, 44, 20, 10, 38)
    edges = np.linspace(low, high, len(shares) + 1)
    shown = [100 * share if share > 0 else np.nan for share in shares]
    on.bar(edges[:-1], shown, np.diff(edges) * 0.86, align="edge", color=SERIES[0], alpha=0.55)
    on.set_yscale("log")
    on.set_xlim(low, high)
    on.axvline(mean, color=INK, linewidth=1.2, linestyle=(0, (3, 2)))
    left = mean < (low + high) / 2
    on.text(
        mean,
        1.02,
        f"mean {mean:.1f}",
        va="bottom",
        ha="left" if left else "right",
        transform=on.get_xaxis_transform(),
        fontsize=9,
    )
    on.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
    on.minorticks_off()
    on.grid(visible=False, axis="x")
    on.set_xlabel(f"grey value ({low} background, {high} full ink)")
    return drawn


SEED, MEAN, INTERVAL, PUBLISHED = "one seed", "mean", "95 % interval of the mean", "published"


@styled
def results(rows: Sequence[Result], *, measure: str = "validation accuracy") -> Figure:
    """One row a network: each seed a ring, the mean a diamond, its interval a bar, and the
    published figure a cross, all in percent of `measure`.
    """
    tall = 34.0
    drawn = figure(PANEL, 74 + tall * len(rows))
    on = axes(drawn, 12, 6, 16, 66)
    for place, row in enumerate(rows):
        _result(on, row, -float(place))
    on.set_ylim(0.62 - len(rows), 0.78)
    on.set_yticks([])
    on.spines["left"].set_visible(False)
    on.margins(x=0.08)
    on.locator_params(axis="x", nbins=6)
    on.set_xlabel(f"{measure} in %")
    handles, labels = on.get_legend_handles_labels()
    known = dict(zip(labels, handles, strict=True))
    order = [label for label in (SEED, MEAN, INTERVAL, PUBLISHED) if label in known]
    drawn.legend(
        [known[label] for label in order],
        order,
        loc="lower center",
        ncols=2,
        columnspacing=2,
        borderpad=0.1,
    )
    return drawn


def _result(on: Axes, row: Result, at: float) -> None:
    blue, orange = SERIES[0], SERIES[1]
    if row.low is not None and row.high is not None:
        ends = [100 * max(0.0, row.low), 100 * min(1.0, row.high)]
        on.plot(ends, [at, at], color=blue, linewidth=5, alpha=0.3, solid_capstyle="butt",
                label=INTERVAL)  # fmt: skip
    seeds = [100 * score for score in row.scores]
    on.plot(seeds, [at] * len(seeds), "o", markersize=5, markerfacecolor="none",
            markeredgecolor=MUTED, label=SEED)  # fmt: skip
    if len(row.scores) > 1:
        on.plot([100 * row.mean], [at], "D", markersize=6, color=blue, label=MEAN)
    if row.published is not None:
        on.plot([100 * row.published], [at], "x", markersize=7, markeredgewidth=2, color=orange,
                label=PUBLISHED)  # fmt: skip
    name = shorten(row.name, 40)
    across = on.get_yaxis_transform()
    on.text(0, at + 0.26, name, transform=across, fontweight="bold", va="bottom")


@styled
def confusion(matrix: npt.NDArray[np.int64], names: Sequence[str]) -> Figure:
    """The confusion matrix: rows are true classes, columns what was said; each cell carries its
    count and below it its share of the row. The diagonal is shaded by that share, an error by its
    share of the largest error.

    Args:
        matrix: int [C, C] of counts.
        names: the C class names.

    Returns:
        The figure; beyond 20 classes the cells are shaded but carry no numbers.
    """
    classes = len(matrix)
    side = 42.0 if classes <= 12 else max(4.0, 504.0 / classes)
    label = 30.0 + 6.0 * min(12, max((len(name) for name in names), default=1))
    drawn = figure(label + classes * side + 8, label + classes * side + 8)
    on = axes(drawn, label, label, 8, 8)
    rates = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    at = np.argwhere(matrix > 0)
    right = at[:, 0] == at[:, 1]
    share = rates[at[:, 0], at[:, 1]]
    # Errors have a scale of their own: next to the diagonal none of them could be seen.
    worst = max(float(share[~right].max(initial=0)), 1e-9)
    shade = np.where(right, 0.2 + 0.75 * share, 0.06 + 0.6 * share / worst).round(2)
    if classes <= SHOWN_CLASSES:
        colours = [
            (SERIES[0] if good else SERIES[1], a) for good, a in zip(right, shade, strict=True)
        ]
        on.bar(at[:, 1], 1, 1, at[:, 0] - 0.5, color=colours, linewidth=0)
        for (row, column), rate in zip(at, share, strict=True):
            _cell(on, int(row), int(column), int(matrix[row, column]), float(rate), side)
    else:
        on.imshow(_shaded(at, right, shade, classes), interpolation="none")
    _matrix_axes(on, classes, names)
    return drawn


def _shaded(
    at: npt.NDArray[np.int64],
    right: npt.NDArray[np.bool_],
    shade: npt.NDArray[np.float64],
    classes: int,
) -> npt.NDArray[np.float64]:
    # A picture in place of thousands of rectangles.
    from matplotlib.colors import to_rgb

    pixels = np.zeros((classes, classes, 4))
    pixels[at[:, 0], at[:, 1], :3] = np.where(right[:, None], to_rgb(SERIES[0]), to_rgb(SERIES[1]))
    pixels[at[:, 0], at[:, 1], 3] = shade
    return pixels


def _cell(on: Axes, row: int, column: int, count: int, rate: float, side: float) -> None:
    colour = PAPER if rate > 0.35 else INK
    share = f"{100 * rate:.1f} %"
    big, small = side * 0.215, side * 0.155
    on.text(column, row - 0.13, f"{count:,}", ha="center", va="center", fontsize=big, color=colour)
    on.text(column, row + 0.23, share, ha="center", va="center", fontsize=small, color=colour)


def _matrix_axes(on: Axes, classes: int, names: Sequence[str]) -> None:
    on.set_xlim(-0.5, classes - 0.5)
    on.set_ylim(classes - 0.5, -0.5)
    on.xaxis.set_ticks_position("top")
    on.xaxis.set_label_position("top")
    shown = range(0, classes, 1 if classes <= SHOWN_CLASSES else 10)
    words = [shorten(names[place], 12) for place in shown]
    long = max((len(word) for word in words), default=1) > 4
    on.set_xticks(shown, words, color=INK, rotation=90 if long else 0)
    on.set_yticks(shown, words, color=INK)
    on.set_xlabel("said")
    on.set_ylabel("true")
    on.grid(False)
    if classes <= SHOWN_CLASSES:
        edges = np.arange(0.5, classes - 1)
        on.vlines(edges, -0.5, classes - 0.5, color=RULE, linewidth=0.6)
        on.hlines(edges, -0.5, classes - 0.5, color=RULE, linewidth=0.6)
    for spine in on.spines.values():
        spine.set(visible=True, color=RULE)


@styled
def calibration(bins: Sequence[Bin], *, error: float) -> Figure:
    """The share of right answers against the stated confidence, and below it how many answers
    had which confidence (logarithmic); bins of fewer than 20 answers are hollow and off the
    curve. `error` is the expected calibration error 0..1.
    """
    drawn = figure(PANEL, 372)
    upper, lower = axes(drawn, 44, 10, 12, 118), axes(drawn, 44, 268, 12, 38)
    upper.plot([0, 100], [0, 100], color=MUTED, linewidth=1, linestyle=(0, (3, 2)))
    words = "as sure as right"
    upper.text(15, 12, words, color=MUTED, fontsize=9, rotation=42, ha="center", va="center")
    sure = [100 * item.confidence for item in bins]
    upper.vlines(
        sure,
        [100 * item.low for item in bins],
        [100 * item.high for item in bins],
        color=SERIES[0],
        linewidth=1,
        alpha=0.6,
    )
    many = [item for item in bins if item.size >= FEW]
    for some, face, line in ((bins, PAPER, ""), (many, SERIES[0], "-")):
        upper.plot(
            [100 * item.confidence for item in some],
            [100 * item.accuracy for item in some],
            color=SERIES[0],
            linewidth=1.4,
            linestyle=line,
            marker="o",
            markersize=5,
            markerfacecolor=face,
        )
    upper.text(98, 4, f"calibration error {100 * error:.2f} points", ha="right", fontsize=9)
    upper.set_ylabel("right answers in %")
    lower.bar(sure, [item.size for item in bins], width=4, color=SERIES[0], alpha=0.55)
    lower.set_yscale("log")
    lower.set_ylim(bottom=0.7)
    lower.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    lower.minorticks_off()
    lower.set_ylabel("answers")
    lower.set_xlabel("stated confidence in %")
    for on in (upper, lower):
        on.set_xlim(-2, 102)
        on.yaxis.set_label_coords(-0.115, 0.5)
    upper.set_ylim(-2, 102)
    upper.tick_params(axis="x", labelbottom=False)
    return drawn

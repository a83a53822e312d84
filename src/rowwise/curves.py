"""Plain numbers -> matplotlib figures: training curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from rowwise.drawing import (
    DASHES,
    MARKERS,
    MUTED,
    PANEL,
    PAPER,
    SERIES,
    axes,
    figure,
    shorten,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Curve(NamedTuple):
    """One measure of one network by epoch; each inner sequence is one seed, epochs from 1."""

    name: str
    training: Sequence[Sequence[float]]
    validation: Sequence[Sequence[float]]


@styled
def overview(curves: Sequence[Curve], *, accuracy: bool) -> Figure:
    """The validation curves of all networks: their mean over seeds, and a band from the lowest
    to the highest seed; accuracy in percent, or loss.
    """
    drawn = figure(PANEL, 232 + 13 * (-(-len(curves) // 2)))
    on = axes(drawn, 50, 10, 14, 34 + 13 * (-(-len(curves) // 2)))
    for place, curve in enumerate(curves):
        colour = SERIES[place % len(SERIES)]
        lines = _rectangle(curve.validation, percent=accuracy)
        epochs = np.arange(1, lines.shape[1] + 1)
        if len(lines) > 1:
            low, high = np.nanmin(lines, axis=0), np.nanmax(lines, axis=0)
            on.fill_between(epochs, low, high, color=colour, alpha=0.14, linewidth=0)
        on.plot(
            epochs,
            np.nanmean(lines, axis=0),
            color=colour,
            linewidth=1.6,
            linestyle=DASHES[place % len(DASHES)],
            marker=MARKERS[place % len(MARKERS)],
            markersize=4.5,
            label=shorten(curve.name, 24),
        )
    _epoch_axis(on, max((len(line) for curve in curves for line in curve.validation), default=1))
    _measure_axis(on, accuracy=accuracy)
    drawn.legend(loc="lower center", ncols=2, handlelength=3.6, columnspacing=1.5, borderpad=0.1)
    return drawn


@styled
def training_curves(
    loss: Curve,
    accuracy: Curve,
    *,
    place: int = 0,
    loss_range: tuple[float, float] | None = None,
    accuracy_range: tuple[float, float] | None = None,
) -> Figure:
    """Loss and accuracy of one network by epoch, training dashed, validation solid, a thin line
    for each seed and a thick one for their mean.

    Args:
        loss: by epoch, in nats.
        accuracy: by epoch, 0..1.
        place: of the network in the study, which gives its colour and marker.
        loss_range: of the vertical axis, shared by the networks that are compared.
        accuracy_range: likewise, in percent.
    """
    drawn = figure(PANEL, 320)
    upper, lower = axes(drawn, 50, 22, 10, 172), axes(drawn, 50, 168, 10, 50)
    for on, curve, percent in ((upper, accuracy, True), (lower, loss, False)):
        _both(on, curve, place, percent=percent)
        limits = accuracy_range if percent else loss_range
        if limits is not None:
            on.set_ylim(*limits)
        _epoch_axis(on, max((len(line) for line in curve.validation), default=1))
        _measure_axis(on, accuracy=percent)
    upper.set_xlabel("")
    upper.tick_params(axis="x", labelbottom=False)
    upper.set_title(shorten(loss.name, 40), fontweight="bold", pad=8)
    handles, labels = upper.get_legend_handles_labels()
    drawn.legend(handles, labels, loc="lower center", ncols=2, handlelength=3.2, borderpad=0.1)
    return drawn


def _both(on: Axes, curve: Curve, place: int, *, percent: bool) -> None:
    kinds = (
        ("training", curve.training, MUTED, (0, (4, 2)), PAPER),
        ("validation", curve.validation, SERIES[place % len(SERIES)], "-", None),
    )
    for label, seeds, colour, dash, face in kinds:
        lines = _rectangle(seeds, percent=percent)
        epochs = np.arange(1, lines.shape[1] + 1)
        if len(lines) > 1:
            on.plot(epochs, lines.T, color=colour, linewidth=0.6, alpha=0.6, linestyle=dash)
        on.plot(
            epochs,
            np.nanmean(lines, axis=0),
            color=colour,
            linewidth=1.6,
            linestyle=dash,
            marker=MARKERS[place % len(MARKERS)],
            markersize=4.5,
            markerfacecolor=face or colour,
            label=label if len(lines) == 1 else f"{label}, {len(lines)} seeds",
        )


def _rectangle(seeds: Sequence[Sequence[float]], *, percent: bool) -> npt.NDArray[np.float64]:
    # Seeds that stopped early are padded with NaN, which the means leave out.
    longest = max((len(line) for line in seeds), default=1)
    lines = np.full((max(1, len(seeds)), longest), np.nan)
    for row, line in enumerate(seeds):
        lines[row, : len(line)] = line
    return lines * 100 if percent else lines


def _epoch_axis(on: Axes, epochs: int) -> None:
    from matplotlib.ticker import MaxNLocator

    margin = max(0.15, 0.03 * epochs)
    on.set_xlim(1 - margin, epochs + margin)
    on.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    on.set_xlabel("epoch")


def _measure_axis(on: Axes, *, accuracy: bool) -> None:
    on.set_ylabel("accuracy in %" if accuracy else "loss (cross-entropy)")
    on.yaxis.set_label_coords(-0.155, 0.5)
    on.margins(y=0.08)

"""Why a picture was read so, as a figure: its steps, the ink that mattered, the belief by row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rowwise import drawing, files, wording
from rowwise.drawing import INK, MUTED, PAPER, RULE, SERIES, SHOWN_CLASSES, axes, shorten, styled
from rowwise.errors import ConfigError, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from rowwise.explain import Explanation
    from rowwise.recognise import Reading

Array = NDArray[Any]

SUFFIXES = (".png", ".svg")
DPI = 160
IDLE_INK, DECISIVE_INK = "#c9c7bf", "#a12f00"  # ink that hardly mattered, and the ink that did most
WIDTH, MARGIN, GAP = 740.0, 22.0, 8.0  # points, as all lengths here
HEAD, STEP, CAPTION = 62.0, 76.0, 16.0
FIELD, FILM, TITLE = 252.0, 176.0, 30.0  # sides of the digit and its film; a panel's title
CARD_WIDTH, CARD_HEIGHT, CARD_FIELD = 372.0, 152.0, 104.0


def write(explanation: Explanation, path: Path) -> None:
    """Draw an explanation into a file, PNG or SVG by its suffix.

    Raises ConfigError for another suffix, RunError where the file cannot be written, MissingExtra
    where matplotlib is not installed.
    """
    check_suffix(path)
    drawn = figure(explanation)
    data = drawing.png(drawn, dpi=DPI) if _is_png(path) else drawing.svg(drawn).encode()
    files.write_bytes(path, data)


def check_suffix(path: Path) -> None:
    """Raise ConfigError where a figure cannot have the path's suffix."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"an explanation is drawn as {' or '.join(SUFFIXES)}, got {str(path)!r}")


def _is_png(path: Path) -> bool:
    return path.suffix.lower() == ".png"


# --- one explanation ----------------------------------------------------------------------------


@styled
def figure(explanation: Explanation) -> Figure:
    """One explanation: the way of the picture above; below the digit with the ink that mattered,
    the belief after each of its rows beside it, the probabilities and the nearest training digits.
    """
    read = explanation.reading.digit is not None
    remark = explanation.remark if read else ""
    below = 2 * TITLE - 8 + FIELD if read else 0.0
    height = HEAD + TITLE + STEP + CAPTION + below + (26 if remark else 4) + 24
    drawn = drawing.figure(WIDTH, height)
    _head(drawn, explanation, height)
    _way(drawn, explanation, HEAD, height)
    if read:
        _why(drawn, explanation, HEAD + TITLE + STEP + CAPTION + 2 * TITLE - 8, height)
    drawn.text(MARGIN / WIDTH, 15 / height, remark, color=SERIES[1], fontsize=10)
    return drawn


def _why(drawn: Figure, explanation: Explanation, top: float, height: float) -> None:
    left, title = MARGIN, top - 16
    _title(drawn, "Which ink mattered", left, title, height)
    field = _placed(drawn, left, top, FIELD, FIELD, height)
    _digit(field, explanation)
    left += FIELD + 34
    if len(explanation.beliefs):
        _title(
            drawn,
            f"What {printable(explanation.belief_model)} believed by row",
            left,
            title,
            height,
        )
        film = _placed(drawn, left, top, FILM, FIELD, height)
        _film(film, explanation, ticks=True)
        _mark_decision(field, film, explanation)
    left += FILM + 80
    _title(drawn, "How likely", left - 26, title, height)
    _bars(_placed(drawn, left, top - 6, WIDTH - MARGIN - left - 42, 156, height), explanation)
    _neighbours(drawn, explanation, left - 26, top + 152 + TITLE, height)


def _head(drawn: Figure, explanation: Explanation, height: float) -> None:
    reading = explanation.reading
    wide = 0.0
    if reading.digit is not None:
        label = shorten(printable(reading.label), 12)
        wide = 30.0 * len(label) + 8 if len(label) < 3 else 19.0 * len(label) + 10
        size = 42 if len(label) < 3 else 30
        drawn.text(MARGIN / WIDTH, 1 - 50 / height, label, fontsize=size, fontweight="bold")
    x = (MARGIN + wide) / WIDTH
    drawn.text(x, 1 - 31 / height, verdict(reading), fontsize=13, fontweight="bold")
    page = f", page {reading.page}" if reading.page > 1 else ""
    told = shorten(f"{printable(Path(reading.name).name)}{page}", 60)
    if reading.digit is not None and reading.reason:
        told = f"{reading.reason}  ·  {told}"
    drawn.text(x, 1 - 49 / height, shorten(told, 110), fontsize=9.5, color=MUTED)


def verdict(reading: Reading) -> str:
    """A reading's outcome in a few words."""
    if reading.digit is None:
        return wording.upper_first(reading.reason)
    accepted = "accepted" if reading.accepted else "not accepted"
    return f"{wording.confidence(reading.confidence)} sure, {accepted}"


def _way(drawn: Figure, explanation: Explanation, top: float, height: float) -> None:
    """The picture as it was given, and its steps, side by side."""
    _title(drawn, "From the picture to what the network sees", MARGIN, top + TITLE, height)
    shown = [("as given", explanation.picture)]
    shown += [(step.name, step.picture) for step in explanation.steps]
    cell = min(STEP + GAP, (WIDTH - 2 * MARGIN + GAP) / len(shown))
    for place, (name, picture) in enumerate(shown):
        side = cell - GAP
        left = MARGIN + place * cell
        on = _placed(drawn, left, top + TITLE + (STEP - side) / 2, side, side, height)
        _picture(on, picture)
        low = top + TITLE + (STEP + side) / 2 + 11
        middle = (left + side / 2) / WIDTH
        drawn.text(middle, 1 - low / height, name, fontsize=8.5, color=MUTED, ha="center")


def _neighbours(
    drawn: Figure, explanation: Explanation, left: float, top: float, height: float
) -> None:
    _title(drawn, "Nearest training digits", left, top, height)
    if not explanation.neighbours:
        told = "\n".join(_lines(explanation.why_no_neighbours, 34))
        drawn.text(left / WIDTH, 1 - (top + 6) / height, told, va="top", fontsize=9, color=MUTED)
        return
    cell = (WIDTH - MARGIN - left + 4) / len(explanation.neighbours)
    for place, neighbour in enumerate(explanation.neighbours):
        on = _placed(drawn, left + place * cell, top, cell - 4, cell - 4, height)
        _picture(on, 255 - neighbour.picture)
        on.set_xlabel(shorten(printable(neighbour.label), 7), fontsize=10, labelpad=2, color=INK)


def _mark_decision(field: Axes, film: Axes, explanation: Explanation) -> None:
    """The row from which on the answer stayed, through the digit and the film."""
    row = explanation.decided_at
    if row is None:
        return
    share = len(explanation.ink) / len(explanation.beliefs)
    field.axhline((row - 1) * share - 0.5, color=INK, linewidth=1, linestyle=(0, (4, 2)))
    film.axhline(row - 1.5, color=INK, linewidth=1, linestyle=(0, (4, 2)))
    told = f"decided\nat row {row}"
    across = film.get_yaxis_transform()
    film.text(1.03, row - 1.5, told, transform=across, va="center", fontsize=8.5)


# --- several ------------------------------------------------------------------------------------


@styled
def sheet(explanations: Sequence[Explanation], *, columns: int = 2) -> Figure:
    """Several explanations, a card each: the picture, the ink that mattered, the belief by row and
    the probabilities.
    """
    columns = max(1, min(columns, len(explanations)))
    rows = max(1, -(-len(explanations) // columns))
    width, height = columns * CARD_WIDTH + 8, rows * CARD_HEIGHT + 8
    drawn = drawing.figure(width, height)
    for place, explanation in enumerate(explanations):
        row, column = divmod(place, columns)
        _card(drawn, explanation, column * CARD_WIDTH + 10, row * CARD_HEIGHT + 8)
    return drawn


def _card(drawn: Figure, explanation: Explanation, left: float, top: float) -> None:
    width, height = (72 * inches for inches in drawn.get_size_inches())
    reading, side = explanation.reading, CARD_FIELD
    label = f"{shorten(printable(reading.label), 10)}   " if reading.digit is not None else ""
    if label:
        drawn.text(left / width, 1 - (top + 18) / height, label, fontsize=18, fontweight="bold")
    aside = left + (9 * len(label.strip()) + 10 if label else 0)
    told = verdict(reading)
    if explanation.decided_at is not None:
        end = int(explanation.beliefs[-1].argmax())
        other = "" if end == reading.digit else f", for {printable(explanation.classes[end])}"
        who = printable(explanation.belief_model)
        told += f"; {who} decided at row {explanation.decided_at}{other}"
    drawn.text(aside / width, 1 - (top + 17) / height, shorten(told, 70), fontsize=8.5)
    top += 26
    _picture(_placed(drawn, left, top, side, side, height), explanation.picture)
    if reading.digit is None:
        return
    field = _placed(drawn, left + side + 6, top, side, side, height)
    _digit(field, explanation)
    film = _placed(drawn, left + 2 * side + 16, top, 66, side, height)
    _film(film, explanation, ticks=False)
    if explanation.decided_at is not None:
        film.axhline(explanation.decided_at - 1.5, color=INK, linewidth=1, linestyle=(0, (4, 2)))
    bars = _placed(drawn, left + 2 * side + 96, top, 46, side, height)
    _bars(bars, explanation, numbers=False)


# --- panels -------------------------------------------------------------------------------------


def _placed(
    drawn: Figure, left: float, top: float, width: float, tall: float, height: float
) -> Axes:
    """Axes of a size at a place from the upper left corner of a figure that is `height` tall."""
    across = 72 * drawn.get_size_inches()[0]
    return axes(drawn, left, top, across - left - width, height - top - tall)


def _title(drawn: Figure, text: str, left: float, top: float, height: float) -> None:
    across = 72 * drawn.get_size_inches()[0]
    drawn.text(left / across, 1 - (top - 8) / height, text, fontsize=10.5, fontweight="bold")


def _picture(on: Axes, picture: Array) -> None:
    """A picture as it is, grey or in colours."""
    step = max(1, max(picture.shape[:2]) // 400)
    small = picture[::step, ::step]
    how = "antialiased" if max(small.shape[:2]) > 100 else "none"
    on.imshow(small, cmap="gray", vmin=0, vmax=255, interpolation=how)
    _frame(on)


def _digit(on: Axes, explanation: Explanation) -> None:
    """The digit in dark ink on paper, the more coloured the more its ink mattered."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    seen = explanation.reading.picture
    assert seen is not None
    ink = explanation.ink
    if seen.shape != ink.shape:
        rows, columns = (np.arange(n) * s // n for n, s in zip(ink.shape, seen.shape, strict=True))
        seen = seen[np.ix_(rows, columns)]
    shades = LinearSegmentedColormap.from_list("ink", [IDLE_INK, "#e0a070", DECISIVE_INK])
    strength = (seen / 255.0)[:, :, None]
    blend = (1 - strength) * np.array(to_rgb(PAPER)) + strength * shades(ink)[:, :, :3]
    on.imshow(blend, interpolation="none", aspect="auto")
    _frame(on)


def _film(on: Axes, explanation: Explanation, *, ticks: bool) -> None:
    """The belief after each row: classes across, rows down, in line with the digit's."""
    from matplotlib.colors import LinearSegmentedColormap

    beliefs = explanation.beliefs
    _frame(on)
    if not len(beliefs):
        return
    shades = LinearSegmentedColormap.from_list("belief", [PAPER, SERIES[5], "#00335a"])
    on.imshow(beliefs, cmap=shades, vmin=0, vmax=1, interpolation="none", aspect="auto")
    steps, classes = beliefs.shape
    if classes <= SHOWN_CLASSES:
        on.vlines(np.arange(1, classes) - 0.5, -0.5, steps - 0.5, color=RULE, linewidth=0.5)
        names = [shorten(printable(name), 3) for name in explanation.classes]
        on.set_xticks(range(classes), names, color=INK, fontsize=9 if ticks else 6)
        on.tick_params(axis="x", labeltop=True, labelbottom=False, pad=1)
    if ticks:
        rows = [0, *range(3, steps, 4)]
        on.set_yticks(rows, [str(row + 1) for row in rows], fontsize=8)
        on.set_xlabel("row by row, darker is surer", fontsize=8.5, labelpad=4)


def _bars(on: Axes, explanation: Explanation, *, numbers: bool = True) -> None:
    """The calibrated probabilities, a bar a class."""
    reading, names = explanation.reading, explanation.classes
    shown = np.arange(len(names))
    if len(names) > SHOWN_CLASSES:
        shown = np.sort(np.argsort(-reading.probabilities)[:SHOWN_CLASSES])
    values = reading.probabilities[shown]
    at = np.arange(len(shown))
    colours = [SERIES[0] if place == reading.digit else RULE for place in shown]
    on.barh(at, values, height=0.72, color=colours, linewidth=0)
    on.set_yticks(at, [shorten(names[c], 6) for c in shown], fontsize=9 if numbers else 6)
    on.tick_params(axis="y", colors=INK, pad=2)
    on.set_xlim(0, 1)
    on.set_ylim(len(shown) - 0.5, -0.5)
    on.set_xticks([])
    on.grid(False)
    on.spines["bottom"].set_visible(False)
    for place, value in enumerate(values.tolist()):
        if numbers and value >= 0.005:
            on.text(value + 0.03, place, wording.confidence(value), va="center", fontsize=8.5)


def _frame(on: Axes) -> None:
    on.grid(False)
    on.set_xticks([])
    on.set_yticks([])
    for spine in on.spines.values():
        spine.set(visible=True, color=RULE)


def _lines(text: str, length: int) -> list[str]:
    """Text broken into lines of at most `length` characters."""
    import textwrap

    return textwrap.wrap(wording.upper_first(text), length)

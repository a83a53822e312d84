"""What was read in pictures, as people and programs take it: a table, lines, CSV, JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from rowwise.errors import printable
from rowwise.wording import THIN, confidence

if TYPE_CHECKING:
    from rowwise.recognise import Outcome

Form = Literal["table", "lines", "csv", "json"]

HEADS = ("picture", "digit", "confidence", "outcome", "remark")
KEYS = ("picture", "page", "digit", "label", "confidence", "accepted", "reason", "error")
ACCEPTED, UNSURE, NO_INK, FAILED = "accepted", "unsure", "no ink", "failed"
NOTHING = "–"


def tell(outcomes: Iterable[Outcome], *, form: Form, classes: Sequence[str]) -> tuple[int, int]:
    """Write outcomes to stdout, each as soon as it is there; a table when all are.

    Returns how many there were, and how many failed. What was read before an interruption is told.
    """
    count = failed = 0
    if form == "csv":
        print(_csv_line([*KEYS, *(f"p_{name}" for name in classes)]))
    rows: list[tuple[str, ...]] = []
    try:
        for outcome in outcomes:
            count, failed = count + 1, failed + (outcome.error is not None)
            if form == "table":
                rows.append(row(outcome))
            elif form == "json":
                print(json.dumps(plain(outcome)))
            elif form == "csv":
                print(_csv_line(_cells(outcome, classes)))
            else:
                print("\t".join(row(outcome)))
    finally:
        if form == "table" and rows:
            _print_table(rows)
    return count, failed


def row(outcome: Outcome) -> tuple[str, ...]:
    """An outcome in the columns of HEADS."""
    name = outcome.name if outcome.page == 1 else f"{outcome.name} page {outcome.page}"
    name = printable(name)
    reading = outcome.reading
    if reading is None:
        told = str(outcome.error).removeprefix(f"{printable(outcome.name)}: ")
        return name, NOTHING, NOTHING, FAILED, told
    if reading.digit is None:
        return name, NOTHING, NOTHING, NO_INK, printable(reading.reason.removeprefix("no ink: "))
    outcome_told = ACCEPTED if reading.accepted else UNSURE
    sure = confidence(reading.confidence).replace(THIN, " ")
    return name, printable(reading.label), sure, outcome_told, printable(reading.reason)


def plain(outcome: Outcome) -> dict[str, Any]:
    """An outcome as plain data, with the keys KEYS and "probabilities" by class."""
    reading = outcome.reading
    told: dict[str, Any] = dict.fromkeys(KEYS)
    told |= {"picture": outcome.name, "page": outcome.page}
    if reading is None:
        return told | {"error": str(outcome.error), "probabilities": None}
    return told | {
        "digit": reading.digit,
        "label": reading.label,
        "confidence": _short(reading.confidence),
        "accepted": reading.accepted,
        "reason": reading.reason,
        "probabilities": [_short(p) for p in reading.probabilities.tolist()],
    }


def _cells(outcome: Outcome, classes: Sequence[str]) -> list[Any]:
    told = plain(outcome)
    shares = told["probabilities"] or [None] * len(classes)
    return [*(told[key] for key in KEYS), *shares]


def _csv_line(cells: Sequence[Any]) -> str:
    """Cells as a line of CSV that a terminal may show."""
    line = io.StringIO()
    shown = [printable(cell) if isinstance(cell, str) else cell for cell in cells]
    csv.writer(line, lineterminator="").writerow(shown)
    return line.getvalue()


def _short(share: float) -> float:
    """A probability in as many digits as tell one float32 from the next."""
    return float(f"{share:.9g}")


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in HEADS:
        right = head == "confidence"
        table.add_column(head, justify="right" if right else "left", overflow="fold")
    colours = {ACCEPTED: "green", UNSURE: "yellow", NO_INK: "yellow", FAILED: "red"}
    for one in rows:
        table.add_row(*one, style=None if one[3] == ACCEPTED else colours[one[3]])
    Console(highlight=False, markup=False).print(table)

"""What a run says of the test images, as a table that any program reads."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rowwise.errors import RunError
from rowwise.files import parsing, read_text, write_text
from rowwise.metrics import SUM_TOLERANCE

MOST_BY_ROUNDING = 1.00001


class Predictions(NamedTuple):
    """What a run says of the test images: labels and predicted int64 [N], probabilities [N, C]."""

    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probabilities: NDArray[np.float32]


def write(path: Path, labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> None:
    """Write a line for each image: index, label, predicted, p0, p1, ... as CSV.

    Nine digits keep a float32 exactly. Raises RunError where it cannot be written.
    """
    predicted = probabilities.argmax(1)
    lines = [",".join(_header(probabilities.shape[1]))]
    rows = zip(labels.tolist(), predicted.tolist(), probabilities.tolist(), strict=True)
    for i, (label, said, shares) in enumerate(rows):
        lines.append(f"{i},{label},{said}," + ",".join(f"{p:.9g}" for p in shares))
    write_text(path, "\n".join(lines) + "\n")


def read(path: Path, *, count: int, classes: int) -> Predictions:
    """Read what `write` wrote of `count` images. Raises RunError where it is damaged."""
    header = _header(classes)
    first, _, rest = read_text(path).partition("\n")
    with parsing(RunError, f"{path} is damaged: it holds no table of numbers"):
        got = next(csv.reader([first]), [])
        lines = [line for line in rest.splitlines() if line.strip()]
        table = np.empty((0, len(header)))
        if lines:
            table = np.loadtxt(lines, delimiter=",", dtype=np.float64, ndmin=2)
    if lines and got != header:
        raise RunError(f"{path} must begin with the line {','.join(header)}")
    if table.shape != (count, len(header)):
        raise RunError(
            f"{path} must have {count} rows of {len(header)} columns, "
            f"got {table.shape[0]} of {table.shape[1]}"
        )
    said, shares = table[:, 1:3], table[:, 3:]
    if not np.array_equal(table[:, 0], np.arange(count)):
        raise RunError(f"{path} is damaged: its indices must count from 0")
    if not np.isin(said, np.arange(classes)).all():
        raise RunError(f"{path} is damaged: a label must be one of 0 to {classes - 1}")
    if not ((shares >= 0) & (shares <= MOST_BY_ROUNDING)).all():
        raise RunError(f"{path} is damaged: a probability must be between 0 and 1")
    if not (np.abs(shares.sum(1) - 1) <= SUM_TOLERANCE).all():
        raise RunError(f"{path} is damaged: the probabilities of a row must sum to 1")
    labels, predicted = said.T.astype(np.int64)
    return Predictions(labels, predicted, shares.astype(np.float32))


def _header(classes: int) -> list[str]:
    return ["index", "label", "predicted", *(f"p{c}" for c in range(classes))]

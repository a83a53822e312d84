"""The data of a study as its runs saw it: what is kept beside them -> plain named tuples."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rowwise import album
from rowwise.errors import RunError
from rowwise.files import parsing
from rowwise.runs import DataIdentity

Integers = NDArray[np.int64]


class PartSummary(NamedTuple):
    """One part of the data; grey values are 0..255, ink is every pixel above 0."""

    size: int
    class_counts: Integers  # [C]
    pixel_mean: float
    pixel_std: float
    ink: float  # share of all pixels
    class_ink: tuple[float, ...]  # [C], NaN for a class without images
    blank_rows: int  # that no image inks
    blank_columns: int


class DataSummary(NamedTuple):
    """The data set: what it is, how often each class occurs, and what is shown of it."""

    identity: DataIdentity
    train: PartSummary
    test: PartSummary
    repeats_train: int  # images that repeat an earlier one of the same part
    repeats_test: int
    repeats_between: int  # test images that are also training images
    histogram: tuple[float, ...]  # shares of the test pixels in 32 equal bins of grey value
    means: NDArray[np.float32]  # [C, rows, columns], of the training images
    samples: NDArray[np.uint8]  # [C, n, rows, columns], of the training images
    images: NDArray[np.uint8]  # [N, rows, columns], the test images
    labels: Integers  # [N]


def summarise_data(folder: Path, identity: DataIdentity) -> DataSummary:
    """Read what `folder` keeps of a data set beside its runs.

    Raises RunError where that is missing or damaged.
    """
    kept = album.find(folder, identity.digest)
    if kept is None:
        raise RunError(
            f"a report shows the data beside the runs, {folder} keeps no data-"
            f"{identity.digest[:8]}; write it with: rowwise study --out {folder} (ended runs stay)"
        )
    told = kept.description
    remedy = f"delete data-{identity.digest[:8]} and write it again with: rowwise study --out"
    damaged = f"the description of the data in {folder} is damaged; {remedy} {folder}"
    with parsing(RunError, damaged):
        repeats = told["duplicates"]
        return DataSummary(
            identity=identity,
            train=_part(told["train"]),
            test=_part(told["test"]),
            repeats_train=repeats["train"]["count"],
            repeats_test=repeats["test"]["count"],
            repeats_between=repeats["between"]["count"],
            histogram=_histogram(kept.test_images),
            means=kept.means,
            samples=kept.samples,
            images=kept.test_images,
            labels=kept.test_labels,
        )


def _part(told: dict[str, Any]) -> PartSummary:
    return PartSummary(
        size=told["count"],
        class_counts=np.asarray(told["class_counts"], np.int64),
        pixel_mean=told["pixel_mean"],
        pixel_std=told["pixel_std"],
        ink=told["ink_share"],
        class_ink=tuple(math.nan if ink is None else ink for ink in told["class_ink_shares"]),
        blank_rows=len(told["blank_rows"]),
        blank_columns=len(told["blank_columns"]),
    )


def _histogram(images: NDArray[np.uint8]) -> tuple[float, ...]:
    shares = np.bincount(images.ravel() >> 3, minlength=32) / images.size
    return tuple(shares.tolist())

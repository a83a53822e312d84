"""What a data set holds, in numbers: counts, pixels, duplicates, mean images, samples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

SAMPLES_PER_CLASS = 10

_PAIRS_SHOWN = 5
_BLOCK = 2048  # pictures whose pixels are counted at a time, to keep the memory small


class TwoParts(Protocol):
    """What `describe` reads of a data set; `data.Dataset` is one."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def train_images(self) -> NDArray[np.uint8]: ...  # noqa: D102
    @property
    def train_labels(self) -> NDArray[np.int64]: ...  # noqa: D102
    @property
    def test_images(self) -> NDArray[np.uint8]: ...  # noqa: D102
    @property
    def test_labels(self) -> NDArray[np.int64]: ...  # noqa: D102
    @property
    def classes(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def source(self) -> str: ...  # noqa: D102
    @property
    def digest(self) -> str: ...  # noqa: D102
    @property
    def fallback(self) -> str: ...  # noqa: D102


@dataclass(frozen=True)
class PartDescription:
    """One part in numbers; pixel values are 0..255, ink is every pixel above 0."""

    count: int
    class_counts: tuple[int, ...]  # [C]
    pixel_mean: float
    pixel_std: float
    pixel_min: int
    pixel_max: int
    ink_share: float  # of all pixels, 0..1
    class_ink_shares: tuple[float, ...]  # [C], 0..1; NaN for a class without pictures
    blank_rows: tuple[int, ...]  # indices of rows that no picture inks
    blank_columns: tuple[int, ...]


@dataclass(frozen=True)
class Duplicates:
    """Pictures that equal another one pixel by pixel."""

    count: int  # those that repeat an earlier one (or, between parts, test pictures in training)
    differently_labelled: int  # of them, with another label than the one they repeat
    pairs: tuple[tuple[int, int], ...]  # (the earlier or training index, the repeating index)


@dataclass(frozen=True, eq=False)
class Description:
    """A data set in numbers, for the terminal, the report and JSON."""

    name: str
    source: str
    digest: str
    fallback: str
    classes: tuple[str, ...]
    shape: tuple[int, int]  # rows, columns
    train: PartDescription
    test: PartDescription
    duplicates_train: Duplicates
    duplicates_test: Duplicates
    duplicates_between: Duplicates
    mean_images: NDArray[np.float32]  # [C, rows, columns] of the training part, 0..255
    samples: tuple[tuple[int, ...], ...]  # [C], the first training indices of each class

    def to_json(self) -> dict[str, Any]:
        """Return everything as numbers, strings, lists and dicts; NaN as None."""
        return {
            "name": self.name,
            "source": self.source,
            "digest": self.digest,
            "fallback": self.fallback,
            "classes": list(self.classes),
            "rows": self.shape[0],
            "columns": self.shape[1],
            "train": _plain(self.train),
            "test": _plain(self.test),
            "duplicates": {
                "train": _plain(self.duplicates_train),
                "test": _plain(self.duplicates_test),
                "between": _plain(self.duplicates_between),
            },
            "samples": [list(indices) for indices in self.samples],
            "mean_images": np.round(self.mean_images.astype(np.float64), 2).tolist(),
        }


def describe(dataset: TwoParts) -> Description:
    """Count, measure and compare the pictures of a data set; the same input gives the same output.

    Args:
        dataset: uint8 pictures [N, rows, columns] and int64 labels [N] in two parts.

    Returns:
        The description; nothing in it is rounded.
    """
    count = len(dataset.classes)
    train_keys = _keys(dataset.train_images)
    test_keys = _keys(dataset.test_images)
    first = _first_places(train_keys)
    rows, columns = dataset.train_images.shape[1:]
    order = [np.flatnonzero(dataset.train_labels == c) for c in range(count)]
    return Description(
        name=dataset.name,
        source=dataset.source,
        digest=dataset.digest,
        fallback=dataset.fallback,
        classes=dataset.classes,
        shape=(rows, columns),
        train=_describe_part(dataset.train_images, dataset.train_labels, count),
        test=_describe_part(dataset.test_images, dataset.test_labels, count),
        duplicates_train=_within(train_keys, dataset.train_labels),
        duplicates_test=_within(test_keys, dataset.test_labels),
        duplicates_between=_duplicates(
            ((first[key], i) for i, key in enumerate(test_keys) if key in first),
            dataset.train_labels,
            dataset.test_labels,
        ),
        mean_images=np.stack([_mean_image(dataset.train_images[at]) for at in order]),
        samples=tuple(tuple(at[:SAMPLES_PER_CLASS].tolist()) for at in order),
    )


def _describe_part(
    images: NDArray[np.uint8], labels: NDArray[np.int64], classes: int
) -> PartDescription:
    histogram = np.zeros(256, np.int64)
    inked = np.zeros(images.shape[1:], bool)
    ink = np.zeros(len(images), np.int64)
    for start in range(0, len(images), _BLOCK):
        block = images[start : start + _BLOCK]
        histogram += np.bincount(block.ravel(), minlength=256)
        ink[start : start + _BLOCK] = np.count_nonzero(block, axis=(1, 2))
        inked |= block.any(axis=0)
    values = np.arange(256)
    mean = float(histogram @ values / histogram.sum())
    present = np.flatnonzero(histogram)
    counts = np.bincount(labels, minlength=classes)
    class_ink = np.bincount(labels, weights=ink, minlength=classes)
    shares = [
        float(inky / (n * inked.size)) if n else float("nan")
        for inky, n in zip(class_ink, counts, strict=True)
    ]
    return PartDescription(
        count=len(images),
        class_counts=tuple(counts.tolist()),
        pixel_mean=mean,
        pixel_std=float(np.sqrt(histogram @ (values - mean) ** 2 / histogram.sum())),
        pixel_min=int(present[0]),
        pixel_max=int(present[-1]),
        ink_share=float(1 - histogram[0] / histogram.sum()),
        class_ink_shares=tuple(shares),
        blank_rows=tuple(np.flatnonzero(~inked.any(axis=1)).tolist()),
        blank_columns=tuple(np.flatnonzero(~inked.any(axis=0)).tolist()),
    )


def _mean_image(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    # a class may be declared and have no picture; its mean is shown as blank
    if len(images) == 0:
        return np.zeros(images.shape[1:], np.float32)
    mean: NDArray[np.float64] = images.mean(axis=0, dtype=np.float64)
    return mean.astype(np.float32)


def _keys(images: NDArray[np.uint8]) -> list[bytes]:
    return [image.tobytes() for image in images]


def _first_places(keys: list[bytes]) -> dict[bytes, int]:
    first: dict[bytes, int] = {}
    for i, key in enumerate(keys):
        first.setdefault(key, i)
    return first


def _within(keys: list[bytes], labels: NDArray[np.int64]) -> Duplicates:
    first = _first_places(keys)
    repeats = ((first[key], i) for i, key in enumerate(keys) if first[key] != i)
    return _duplicates(repeats, labels, labels)


def _duplicates(
    pairs: Iterable[tuple[int, int]], labels: NDArray[np.int64], repeating: NDArray[np.int64]
) -> Duplicates:
    found = list(pairs)
    differ = sum(1 for a, b in found if labels[a] != repeating[b])
    return Duplicates(len(found), differ, tuple(found[:_PAIRS_SHOWN]))


def _plain(values: PartDescription | Duplicates) -> dict[str, Any]:
    """Turn tuples into lists and NaN, which JSON lacks, into None."""

    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return [plain(one) for one in value]
        return None if value != value else value

    return {name: plain(value) for name, value in asdict(values).items()}

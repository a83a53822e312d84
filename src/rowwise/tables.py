"""Arrays that other programs saved, npz and CSV -> pictures and labels, checked before use."""

from __future__ import annotations

import gzip
import io
import itertools
import math
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rowwise import idx
from rowwise.errors import DataError
from rowwise.files import opened, parsing

_QUARTETS = (
    ("x_train", "y_train", "x_test", "y_test"),  # Keras
    ("train_images", "train_labels", "test_images", "test_labels"),
)
_PAIRS = (("images", "labels"), ("x", "y"))
MAX_LINE_BYTES = 8_000_000  # of a CSV: the largest picture, with a few for each pixel
MAX_HEADER_BYTES = 10_000  # of an array in an npz, as numpy has it
_NUMBER = re.compile(r"\s*[-+]?[0-9]")


class Pair(NamedTuple):
    """Pictures and labels as a file holds them, with the names by which messages call them."""

    images: NDArray[np.uint8]  # [N, rows, columns]
    labels: NDArray[np.uint8]  # [M]; that M = N is for the caller to check
    images_path: Path
    labels_path: Path


def read_npz(path: Path) -> tuple[Pair, ...]:
    """Read labelled pictures from an npz file, never unpickling anything.

    Args:
        path: an archive with Keras' `x_train, y_train, x_test, y_test`, with
            `train_images, train_labels, test_images, test_labels`, or with one pair
            `images, labels` or `x, y`; whole numbers 0..255, pictures [N, rows, columns] or
            flattened squares [N, pixels].

    Returns:
        The training and the test pair, or the only pair.

    Raises:
        DataError: damaged, other arrays, objects or fractions, a shape that does not fit, or a
            claimed size beyond the limits.
    """
    damaged = f"{path}: expected a sound .npz, found a damaged one"
    with (
        opened(path, idx.MAX_BYTES, DataError) as file,
        parsing(DataError, damaged),
        zipfile.ZipFile(file) as archive,
    ):
        names = {name.removesuffix(".npy") for name in archive.namelist()}
        for wanted in (*_QUARTETS, *_PAIRS):
            if names.issuperset(wanted):
                return tuple(
                    _npz_pair(archive, path, wanted[i], wanted[i + 1])
                    for i in range(0, len(wanted), 2)
                )
    raise DataError(
        f"{path}: expected the arrays {', '.join(_QUARTETS[0])} (or images, labels), "
        f"found {', '.join(sorted(names)[:6]) or 'none'}"
    )


def read_csv(path: Path) -> Pair:
    """Read labelled pictures from a CSV file, plain or gzip: a row a picture, its label first.

    Args:
        path: `label,pixel0,…` rows with or without a header; where there is one, the label is the
            column of that name. Pixels are whole numbers 0..255 of square pictures.

    Returns:
        The pictures and labels in the order of the rows.

    Raises:
        DataError: no text, no rows, no label column, a value that is no whole number 0..255, rows
            of unequal length, or a number of pixels that is no square.
    """
    rule = f"{path}: expected rows of label and pixels"
    with opened(path, idx.MAX_BYTES, DataError) as file, parsing(DataError, rule):
        rows = _lines(file, path)
        first = next(rows, "")
        column = 0
        if first and not _NUMBER.match(first):
            column = _label_column(first, path)
            first = next(rows, "")
        if not first:
            raise DataError(f"{rule}, found none")
        try:
            table = np.loadtxt(
                itertools.chain([first], rows), np.uint8, delimiter=",", comments=None, ndmin=2
            )
        except ValueError as error:
            found = str(error).split(";")[0].rstrip(".")
            raise DataError(
                f"{path}: expected rows of equal length with whole numbers 0..255, found: "
                f"{found} (rows are counted from the first row of numbers)"
            ) from error
    images = _square(np.delete(table, column, axis=1), path)
    return Pair(images, np.ascontiguousarray(table[:, column]), path, path)


def _lines(file: BinaryIO, path: Path) -> Iterator[str]:
    """The lines of a text file, plain or gzip, that are not blank, read as they are asked for."""
    packed = idx.is_gzip(file.read(2))
    file.seek(0)
    stream = gzip.GzipFile(fileobj=file) if packed else file
    total = 0
    with parsing(DataError, f"{path}: expected a CSV file of text, found another"):
        while line := stream.readline(MAX_LINE_BYTES + 1):
            total += len(line)
            if len(line) > MAX_LINE_BYTES or total > idx.MAX_BYTES:
                raise DataError(
                    f"{path}: expected at most {MAX_LINE_BYTES:,} bytes in a line and "
                    f"{idx.MAX_BYTES:,} in all, found more"
                )
            text = line.decode("utf-8" if total > len(line) else "utf-8-sig")
            yield from (part for part in text.splitlines() if part.strip())


def _label_column(header: str, path: Path) -> int:
    names = [name.strip().strip('"').lower() for name in header.split(",")]
    for name in ("label", "class"):
        if name in names:
            return names.index(name)
    raise DataError(
        f"{path}: expected a column named label, found {', '.join(names[:3])}…; a file without "
        "labels (Kaggle's test.csv) can be predicted but not learned from"
    )


def _square(flat: NDArray[np.uint8], source: Path) -> NDArray[np.uint8]:
    side = math.isqrt(flat.shape[1])
    if side * side != flat.shape[1] or side == 0:
        raise DataError(
            f"{source}: expected square pictures (28×28 has 784 pixels), found rows of "
            f"{flat.shape[1]:,} pixels"
        )
    idx.check_shape((len(flat), side, side), source)
    return np.ascontiguousarray(flat).reshape(-1, side, side)


def _npz_pair(archive: zipfile.ZipFile, path: Path, images_name: str, labels_name: str) -> Pair:
    images = _npz_array(archive, path / images_name)
    labels = _npz_array(archive, path / labels_name)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or images.ndim not in (2, 3):
        raise DataError(
            f"{path}: expected pictures [N, rows, columns] and labels [N], found "
            f"{images_name} {list(images.shape)} and {labels_name} {list(labels.shape)}"
        )
    if images.ndim == 2:
        images = _square(images, path / images_name)
    idx.check_shape(images.shape, path / images_name)
    return Pair(images, labels, path / images_name, path / labels_name)


def _npz_array(archive: zipfile.ZipFile, at: Path) -> NDArray[np.uint8]:
    """Read one array as bytes, having checked the type and size that its header claims."""

    def check(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        if dtype.kind not in "ui":
            raise DataError(
                f"{at}: expected whole numbers 0..255 (uint8), found {dtype}; pixels in 0..1 must "
                "be multiplied by 255 and rounded"
            )

    array = npy(archive, at.name, most_bytes=idx.MAX_BYTES, check=check)
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 255:
        raise DataError(f"{at}: expected whole numbers 0..255, found {low}..{high}")
    return np.ascontiguousarray(array, dtype=np.uint8)


def npy(
    archive: zipfile.ZipFile,
    name: str,
    *,
    most_bytes: int,
    check: Callable[[tuple[int, ...], np.dtype[Any]], None] | None = None,
) -> NDArray[Any]:
    """The array `name` of an npz archive, never unpickled; to be called within `files.parsing`.

    What its header claims is judged before memory is taken: 1 to `most_bytes` bytes, and `check`.
    """
    with archive.open(f"{name}.npy") as member:
        head = io.BytesIO(member.read(MAX_HEADER_BYTES))
    version = np.lib.format.read_magic(head)
    read_header = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read_header(head)
    if check is not None:
        check(shape, dtype)
    if min(shape, default=1) < 1 or math.prod(shape) * dtype.itemsize > most_bytes:
        raise ValueError(f"{name}: expected 1 to {most_bytes:,} bytes of data, found {list(shape)}")
    with archive.open(f"{name}.npy") as member:
        array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
    return array

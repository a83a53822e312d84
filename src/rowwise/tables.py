"""Arrays that other programs saved, npz and CSV -> pictures and labels, checked before use."""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rowwise import idx
from rowwise.errors import DataError

_QUARTETS = (
    ("x_train", "y_train", "x_test", "y_test"),  # Keras
    ("train_images", "train_labels", "test_images", "test_labels"),
)
_PAIRS = (("images", "labels"), ("x", "y"))
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
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
            for wanted in (*_QUARTETS, *_PAIRS):
                if names.issuperset(wanted):
                    return tuple(
                        _npz_pair(archive, path, wanted[i], wanted[i + 1])
                        for i in range(0, len(wanted), 2)
                    )
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, RuntimeError) as error:
        raise DataError(f"{path}: expected a sound .npz, found a damaged one ({error})") from error
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
    raw = idx.read_bytes(path)
    if idx.is_gzip(raw):
        raw = idx.gunzip(raw, limit=idx.MAX_BYTES, source=path)
    try:
        lines = raw.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected a CSV file of text, found {error.reason}") from error
    column = 0
    if lines and not _NUMBER.match(lines[0]):
        column = _label_column(lines[0], path)
        lines = lines[1:]
    if not any(line.strip() for line in lines):
        raise DataError(f"{path}: expected rows of label and pixels, found none")
    try:
        table = np.loadtxt(lines, dtype=np.uint8, delimiter=",", comments=None, ndmin=2)
    except ValueError as error:
        found = str(error).split(";")[0].rstrip(".")
        raise DataError(
            f"{path}: expected rows of equal length with whole numbers 0..255, found: {found} "
            "(rows are counted from the first row of numbers)"
        ) from error
    images = _square(np.delete(table, column, axis=1), path)
    return Pair(images, np.ascontiguousarray(table[:, column]), path, path)


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
    with archive.open(f"{at.name}.npy") as member:
        shape, dtype = _npy_header(member)
    if dtype.kind not in "ui":
        raise DataError(
            f"{at}: expected whole numbers 0..255 (uint8), found {dtype}; pixels in 0..1 must be "
            "multiplied by 255 and rounded"
        )
    if min(shape, default=0) < 1 or math.prod(shape) * dtype.itemsize > idx.MAX_BYTES:
        raise DataError(f"{at}: expected 1 to {idx.MAX_BYTES:,} bytes of data, found {list(shape)}")
    with archive.open(f"{at.name}.npy") as member:
        array = np.lib.format.read_array(member, allow_pickle=False)
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 255:
        raise DataError(f"{at}: expected whole numbers 0..255, found {low}..{high}")
    return np.ascontiguousarray(array, dtype=np.uint8)


def _npy_header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(member)
    return shape, dtype

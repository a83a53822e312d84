"""What is kept of a data set beside its runs, so that a report needs the runs' folder alone.

data-DIGEST/
  description.json   the data set in numbers, as `description.describe` counts them
  pictures.npz       the test images and labels, samples of each class, mean images
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rowwise import tables
from rowwise.data import Dataset
from rowwise.description import describe
from rowwise.errors import RunError
from rowwise.files import make_folder, opened, parsing, read_json, write_beside, write_json

PLACE = "data-"
DESCRIPTION = "description.json"
PICTURES = "pictures.npz"
MAX_BYTES = 4_000_000_000
# The arrays of an album: dtype and number of axes.
KINDS = {
    "test_images": ("uint8", 3),
    "test_labels": ("int64", 1),
    "samples": ("uint8", 4),
    "means": ("float32", 3),
}


class Album(NamedTuple):
    """What a report shows of a data set.

    description: plain data, as `Description.to_json` gives it; test_images uint8 [N, rows,
    columns]; test_labels int64 [N]; samples uint8 [C, K, rows, columns], of the training images,
    blank where a class has fewer; means float32 [C, rows, columns], the mean training image of
    each class.
    """

    description: dict[str, Any]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    samples: NDArray[np.uint8]
    means: NDArray[np.float32]


def place(folder: Path, digest: str) -> Path:
    """Where `folder` keeps the data set with this digest."""
    return folder / f"{PLACE}{digest[:8]}"


def places(folder: Path) -> list[Path]:
    """Where `folder` keeps the data sets of its runs."""
    return sorted(folder.glob(f"{PLACE}*"))


def keep(folder: Path, data: Dataset) -> None:
    """Keep beside a folder's runs what a report shows of their data set; once for each data set."""
    kept = place(folder, data.digest)
    if (kept / PICTURES).exists() and (kept / DESCRIPTION).exists():
        return
    make_folder(kept)
    told = describe(data)
    arrays: dict[str, NDArray[Any]] = {
        "test_images": data.test_images,
        "test_labels": data.test_labels,
        "samples": _stacked(data.train_images, told.samples),
        "means": told.mean_images,
    }
    write_json(kept / DESCRIPTION, {"format": 1, **told.to_json()})
    write_beside(kept / PICTURES, lambda beside: _save_npz(beside, arrays))


def find(folder: Path, digest: str) -> Album | None:
    """What `keep` kept in `folder` of the data set with this digest, or None.

    Raises RunError where it is damaged.
    """
    kept = place(folder, digest)
    if not (kept / PICTURES).exists() or not (kept / DESCRIPTION).exists():
        return None
    damaged = f"{kept / PICTURES} is damaged: it holds no album"
    with opened(kept / PICTURES, MAX_BYTES) as file, parsing(RunError, damaged):
        with zipfile.ZipFile(file) as archive:
            arrays = {name: _array(archive, name) for name in KINDS}
        images, labels = arrays["test_images"], arrays["test_labels"]
        if len(images) != len(labels):
            raise ValueError(f"it has {len(images):,} test images and {len(labels):,} labels")
    return Album(description=read_json(kept / DESCRIPTION), **arrays)


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    array = tables.npy(archive, name, most_bytes=MAX_BYTES)
    dtype, axes = KINDS[name]
    if array.dtype != dtype or array.ndim != axes or not array.size:
        shape = list(array.shape)
        raise ValueError(f"{name} is {dtype} of {axes} axes, got {array.dtype} {shape}")
    return array


def _stacked(images: NDArray[np.uint8], chosen: tuple[tuple[int, ...], ...]) -> NDArray[np.uint8]:
    """The chosen images of each class [C, K, rows, columns]; a class with fewer ends in blanks."""
    most = max(len(indices) for indices in chosen)
    stacked = np.zeros((len(chosen), most, *images.shape[1:]), np.uint8)
    for c, indices in enumerate(chosen):
        stacked[c, : len(indices)] = images[list(indices)]
    return stacked


def _save_npz(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

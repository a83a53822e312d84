"""Data files of every format -> arrays: IDX, npz, CSV, folders of pictures named by class."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rowwise import files, idx, tables
from rowwise.errors import DataError

CLASSES_FILE = "classes.txt"
MAX_CLASSES = 100
MAX_CLASSES_BYTES = 1_000_000
MAX_PICTURE_BYTES = 64_000_000

_TRAIN = ("train", "training")
_TEST = ("test", "testing", "t10k")
_IDX_NAME = re.compile(
    r"(?P<prefix>.*?)(?P<part>train|t10k|test)(?P<gap>[-_.])"
    r"(?P<what>images(?=[-.]idx3)|labels(?=[-.]idx1))[-.]idx[13][-.]ubyte(\.gz)?",
    re.IGNORECASE,
)
_PICTURES = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP",
    ".tif": "TIFF", ".tiff": "TIFF", ".pgm": "PPM", ".pbm": "PPM",
}  # fmt: skip
_FORMATS = sorted(set(_PICTURES.values()))
_CLUTTER = ("thumbs.db", "desktop.ini")


class Part(NamedTuple):
    """Pictures with their labels, and the file that each came from, for messages."""

    images: NDArray[np.uint8]  # [N, rows, columns]
    labels: NDArray[np.int64]  # [N]
    images_path: Path
    labels_path: Path


class Content(NamedTuple):
    """What a file or folder holds: one part or two, and class names where it declares them."""

    train: Part | None
    test: Part | None
    classes: tuple[str, ...] | None

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts that are there, training first."""
        return tuple(part for part in (self.train, self.test) if part is not None)


def read(path: Path, *, partial: bool = False) -> Content:
    """Read labelled pictures from a file or a folder, whatever its format.

    Args:
        path: an IDX file (its partner is found by name), an npz, a CSV, or a folder that holds
            IDX files, one npz, CSV files or pictures named by class; looked for in this order.
        partial: one part of a folder of IDX files is enough; otherwise all four must be there.

    Returns:
        The parts found. A single CSV, npz pair or folder of classes is `train`, unless its name
        says that it is a test part. Class names are `classes.txt` beside the files (one a line),
        or the names of picture folders.

    Raises:
        DataError: nothing is there, it is of no known format, or it breaks a rule of its format.
    """
    try:
        if path.is_dir():
            content = _read_folder(path, partial=partial)
        elif path.exists():
            content = _read_file(path)
        else:
            raise DataError(f"{path}: expected a file or folder of data, found nothing there")
    except OSError as error:
        raise DataError(f"{error.filename or path}: cannot be read: {error.strerror}") from error
    if len(content.parts) == 2:
        (train, _, at, _), (test, _, other, _) = content.parts
        if train.shape[1:] != test.shape[1:]:
            raise DataError(
                f"{other}: expected pictures of {size_text(train.shape)} pixels, as in {at.name}, "
                f"found {size_text(test.shape)}"
            )
    return content


def holds_files(folder: Path) -> bool:
    """Return whether IDX, npz or CSV files lie in `folder` itself; False if it is no folder."""
    try:
        return os.path.isdir(folder) and any(_kind(path) for path in folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from error


def size_text(shape: Sequence[int]) -> str:
    """Return the rows and columns of a shape that ends in them as `28×28`."""
    return "×".join(str(n) for n in shape[-2:])


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Return a sort key under which 2 comes before 10, and letters regardless of case."""
    pieces = re.split(r"([0-9]+)", name)
    return [int(p) if i % 2 else p.casefold() for i, p in enumerate(pieces)], name


def _kind(path: Path) -> str:
    name = path.name.lower()
    if name.startswith(".") or not path.is_file():
        return ""
    if _IDX_NAME.fullmatch(name):
        return "idx"
    return "npz" if name.endswith(".npz") else "csv" if name.endswith((".csv", ".csv.gz")) else ""


def _part(images: NDArray[np.uint8], labels: NDArray[np.uint8], at: Path, labels_at: Path) -> Part:
    if len(images) != len(labels):
        raise DataError(
            f"{labels_at}: expected {len(images):,} labels, one for each picture of {at.name}, "
            f"found {len(labels):,}"
        )
    wide = labels.astype(np.int64)
    images.setflags(write=False)
    wide.setflags(write=False)
    return Part(images, wide, at, labels_at)


def _role_of_file(name: str) -> str:
    """Return "train" or "test" where one of them is a word of the name, else ""."""
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    roles = [role for role, known in (("train", _TRAIN), ("test", _TEST)) if words & set(known)]
    return roles[0] if len(roles) == 1 else ""


def _lone(part: Part, name: str, classes: tuple[str, ...] | None) -> Content:
    is_test = _role_of_file(name) == "test"
    return Content(None, part, classes) if is_test else Content(part, None, classes)


def _read_file(path: Path) -> Content:
    classes = declared_classes(path.parent)
    kind = _kind(path)
    if kind == "idx":
        return _lone(_read_idx_pair(_idx_partners(path)), path.name, classes)
    if kind == "npz":
        return _read_npz(path, classes)
    if kind == "csv":
        return _lone(_part(*tables.read_csv(path)), path.name, classes)
    raise DataError(
        f"{path}: expected an IDX file (…-images-idx3-ubyte, .gz or not), an .npz, a .csv or a "
        "folder of pictures named by class, found a file of another name"
    )


def _read_folder(folder: Path, *, partial: bool) -> Content:
    classes = declared_classes(folder)
    entries = sorted(folder.iterdir(), key=lambda path: natural_key(path.name))
    by_kind = {kind: [p for p in entries if _kind(p) == kind] for kind in ("idx", "npz", "csv")}
    if by_kind["idx"]:
        return _read_idx_folder(folder, by_kind["idx"], classes, partial=partial)
    if len(by_kind["npz"]) > 1:
        names = ", ".join(path.name for path in by_kind["npz"][:4])
        raise DataError(f"{folder}: expected one .npz, found {names}; give the path of one")
    if by_kind["npz"]:
        return _read_npz(by_kind["npz"][0], classes)
    if by_kind["csv"]:
        return _read_csv_folder(folder, by_kind["csv"], classes)
    if any(path.is_dir() and not path.name.startswith(".") for path in entries):
        return _read_picture_folder(folder, classes)
    raise DataError(
        f"{folder}: expected four IDX files, an .npz, CSV files or a folder of pictures for each "
        f"class, found {'other files' if entries else 'an empty folder'}"
    )


def declared_classes(folder: Path) -> tuple[str, ...] | None:
    """Return the class names that `classes.txt` in a folder tells, one a line; None without it.

    Raises:
        DataError: it is no text, or has a name twice or an empty line.
    """
    path = folder / CLASSES_FILE
    if not path.is_file():
        return None
    text = files.read_text(path, MAX_CLASSES_BYTES, DataError)
    names = tuple(line.strip() for line in text.rstrip().splitlines())
    if not names or not all(names) or len(set(names)) < len(names):
        raise DataError(
            f"{path}: expected a different class name on each line, found "
            f"{'a name twice' if names and all(names) else 'an empty line'}"
        )
    return names


# IDX -------------------------------------------------------------------------------------------


def _idx_key(path: Path) -> tuple[str, str, str] | None:
    """Return (prefix, train or test, images or labels) of an IDX file's name."""
    match = _IDX_NAME.fullmatch(path.name)
    if match is None or not path.is_file():
        return None
    return match["prefix"].lower(), _role_of_file(match["part"]), match["what"].lower()


def _idx_groups(paths: Iterable[Path]) -> dict[tuple[str, str], dict[str, Path]]:
    """Group IDX files by (prefix, train or test) into images and labels; plain before gzip."""
    groups: dict[tuple[str, str], dict[str, Path]] = {}
    for path in sorted(paths, reverse=True):
        key = _idx_key(path)
        if key:
            groups.setdefault(key[:2], {})[key[2]] = path
    return groups


def _idx_partners(path: Path) -> dict[str, Path]:
    """Find the labels that belong to a file of pictures, or the pictures of labels."""
    prefix, role, what = _idx_key(path) or ("", "", "")
    pair = {**_idx_groups(path.parent.iterdir()).get((prefix, role), {}), what: path}
    if len(pair) < 2:
        missing = "labels-idx1-ubyte" if what == "images" else "images-idx3-ubyte"
        word = path.name.lower().partition(what)[0]
        raise DataError(
            f"{path}: expected {word}{missing} (.gz or not) beside it, found no such file"
        )
    return pair


def _read_idx_pair(pair: dict[str, Path]) -> Part:
    arrays = {
        what: idx.decode(idx.read_bytes(pair[what]), axes=axes, source=pair[what])
        for what, axes in (("labels", 1), ("images", 3))
    }
    return _part(arrays["images"], arrays["labels"], pair["images"], pair["labels"])


def _read_idx_folder(
    folder: Path, paths: list[Path], classes: tuple[str, ...] | None, *, partial: bool
) -> Content:
    groups = _idx_groups(paths)
    prefixes = sorted({prefix for prefix, _ in groups})
    if len(prefixes) > 1:
        raise DataError(
            f"{folder}: expected the IDX files of one data set, found those of "
            f"{', '.join(prefixes[:4])}; give the path of one file, or a folder for each"
        )
    parts: dict[str, Part | None] = {"train": None, "test": None}
    for role, word in (("train", "train"), ("test", "t10k")):
        pair = groups.get((prefixes[0], role), {})
        for what, axes in (("images", 3), ("labels", 1)):
            if what not in pair and (pair or not partial):
                raise DataError(
                    f"{folder}: expected four IDX files, found no "
                    f"{prefixes[0]}{word}-{what}-idx{axes}-ubyte (.gz or not)"
                )
        if pair:
            parts[role] = _read_idx_pair(pair)
    return Content(parts["train"], parts["test"], classes)


# npz and CSV -----------------------------------------------------------------------------------


def _read_npz(path: Path, classes: tuple[str, ...] | None) -> Content:
    parts = [_part(*pair) for pair in tables.read_npz(path)]
    if len(parts) == 1:
        return _lone(parts[0], path.name, classes)
    return Content(parts[0], parts[1], classes)


def _read_csv_folder(folder: Path, paths: list[Path], classes: tuple[str, ...] | None) -> Content:
    if len(paths) == 1:
        return _lone(_part(*tables.read_csv(paths[0])), paths[0].name, classes)
    by_role: dict[str, list[Path]] = {"train": [], "test": [], "": []}
    for path in paths:
        by_role[_role_of_file(path.name)].append(path)
    if [len(by_role[role]) for role in ("train", "test", "")] != [1, 1, 0]:
        raise DataError(
            f"{folder}: expected one CSV, or one with train and one with test in its name, found "
            f"{', '.join(path.name for path in paths[:4])}; give the path of one"
        )
    train, test = (_part(*tables.read_csv(by_role[role][0])) for role in ("train", "test"))
    return Content(train, test, classes)


# Folders of pictures ---------------------------------------------------------------------------


def _read_picture_folder(folder: Path, declared: tuple[str, ...] | None) -> Content:
    subfolders = _subfolders(folder)
    roles = {name: _role_of_file(name) for name in subfolders}
    if not any(roles.values()):
        part, classes = _read_classes(folder, declared, empty=declared is not None)
        return Content(part, None, classes)
    if sorted(roles.values()) not in (["train"], ["test"], ["test", "train"]):
        raise DataError(
            f"{folder}: expected the folders train and test, or one folder for each class, "
            f"found {', '.join(list(roles)[:6])}"
        )
    names = declared
    parts: dict[str, Part | None] = {"train": None, "test": None}
    for role, name in sorted(((role, name) for name, role in roles.items()), reverse=True):
        parts[role], names = _read_classes(subfolders[name], names, empty=declared is not None)
    return Content(parts["train"], parts["test"], names)


def _subfolders(folder: Path) -> dict[str, Path]:
    found = {p.name: p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")}
    return {name: found[name] for name in sorted(found, key=natural_key)}


def _read_classes(
    folder: Path, names: tuple[str, ...] | None, *, empty: bool
) -> tuple[Part, tuple[str, ...]]:
    """Read `folder/CLASS/*`; labels are places in `names`, or in the sorted names of folders.

    A folder may be `empty` where the classes were declared: it was not made by mistake.
    """
    found = _subfolders(folder)
    names = tuple(found) if names is None else names
    if len(names) > MAX_CLASSES:
        raise DataError(f"{folder}: expected at most {MAX_CLASSES} classes, found {len(names):,}")
    foreign = [name for name in found if name not in names]
    if foreign or not found:
        raise DataError(
            f"{folder}: expected a folder for each class, named as one of "
            f"{', '.join(names[:12])}, found {foreign[0] if foreign else 'none'}"
        )
    paths = {name: _pictures_in(found[name]) for name in names if name in found}
    for name, listed in paths.items():
        if not listed and not empty:
            raise DataError(
                f"{found[name]}: expected pictures of this class, found none; remove the folder, "
                f"or name all classes in a {CLASSES_FILE} beside the folders"
            )
    total = sum(len(listed) for listed in paths.values())
    if not total:
        raise DataError(f"{folder}: expected pictures in the folders of its classes, found none")
    first = next(listed[0] for listed in paths.values() if listed)
    pixels = _read_picture(first)
    idx.check_shape((total, *pixels.shape), folder)
    images = np.empty((total, *pixels.shape), np.uint8)
    labels = np.repeat([names.index(n) for n in paths], [len(p) for p in paths.values()])
    for i, path in enumerate(path for listed in paths.values() for path in listed):
        images[i] = _read_picture(path, like=(first, pixels.shape))
    return _part(images, labels.astype(np.uint8), folder, folder), names


def _pictures_in(folder: Path) -> list[Path]:
    paths = [
        path
        for path in sorted(folder.iterdir(), key=lambda path: natural_key(path.name))
        if not path.name.startswith(".") and path.name.lower() not in _CLUTTER
    ]
    for path in paths:
        if path.suffix.lower() not in _PICTURES:
            raise DataError(
                f"{path}: expected a class folder of pictures only ({' '.join(_PICTURES)}), found "
                "another kind of file; move it elsewhere"
            )
    return paths


def _read_picture(
    path: Path, like: tuple[Path, tuple[int, ...]] | None = None
) -> NDArray[np.uint8]:
    """Read a grey picture as uint8 [rows, columns], judging its header before its pixels."""
    damaged = f"{path}: expected a whole picture ({', '.join(_FORMATS)}), found another file"
    with (
        files.opened(path, MAX_PICTURE_BYTES, DataError),
        files.parsing(DataError, damaged),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=_FORMATS) as picture:
            columns, rows = picture.size
            if picture.mode not in ("L", "1"):
                raise DataError(
                    f"{path}: expected a greyscale picture (Pillow's mode L), found mode "
                    f"{picture.mode}; convert it with Image.convert('L')"
                )
            idx.check_shape((1, rows, columns), path)
            if like and like[1] != (rows, columns):
                raise DataError(
                    f"{path}: expected {size_text(like[1])} pixels (rows×columns) as in "
                    f"{like[0]}, found {rows}×{columns}; bring all pictures to one size"
                )
            return np.asarray(picture.convert("L"))

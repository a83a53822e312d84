"""Corrections: digits that people labelled, kept as a folder of pictures to learn from."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rowwise import files, formats, image_files
from rowwise.errors import DataError, RunError

SUFFIX = ".png"
MOST = 100_000  # pictures of a folder: nobody draws so many, and a disk is not to be filled

_turn = threading.Lock()  # threads of a process would write one picture into the same file


class Kept(NamedTuple):
    """How many pictures a folder keeps: of the label that was given, and in all."""

    of_label: int
    total: int


def keep(folder: Path, digit: NDArray[np.uint8], *, label: str, classes: Sequence[str]) -> Kept:
    """Keep a labelled picture as `FOLDER/LABEL/DIGEST.png`, which `data` reads and `train` learns.

    The file is named by the picture's content, so the same picture is kept once, and one that is
    labelled anew moves to its new label. `FOLDER/classes.txt` tells all classes, so that those
    without a picture have their places too. Several threads and processes may keep at once.

    Args:
        folder: made where it is missing.
        digit: uint8 [rows, columns], white on black, as the network takes it.
        label: one of `classes`.
        classes: the names that the network knows, in their order.

    Returns:
        How many pictures are kept now.

    Raises:
        DataError: the label is no class, a class cannot name a folder, the folder is that of other
            classes, or it is full.
        RunError: it cannot be written.
    """
    if digit.dtype != np.uint8 or digit.ndim != 2 or not digit.size:
        raise DataError(
            f"a kept picture is uint8 [rows, columns], got {digit.dtype} {list(digit.shape)}"
        )
    if label not in classes:
        raise DataError(
            f"a picture is kept under a class of the model ({', '.join(classes[:12])}), "
            f"got {label[:40]!r}"
        )
    for name in classes:
        if not _names_a_folder(name):
            raise DataError(
                f"pictures are kept in folders named by their class, got the class {name!r}, "
                "which cannot name one"
            )
    name = hashlib.sha256(f"{digit.shape}".encode() + digit.tobytes()).hexdigest()[:32] + SUFFIX
    with _turn:
        _declare(folder, classes)
        counts = {one: _count(folder / one) for one in classes}
        if sum(counts.values()) >= MOST:
            raise DataError(
                f"{folder}: at most {MOST:,} pictures are kept, and that many are there; "
                "move them elsewhere, or name another folder"
            )
        files.make_folder(folder / label)
        if not (folder / label / name).exists():
            files.write_bytes(folder / label / name, image_files.png(digit))
        for other in classes:
            if other != label:
                _forget(folder / other / name)
        return Kept(_count(folder / label), sum(_count(folder / one) for one in classes))


def _names_a_folder(name: str) -> bool:
    """Whether a class can be the name of a folder that `formats.read` finds again, anywhere."""
    plain = name == name.strip() and name.isprintable() and not name.startswith(".")
    return plain and 0 < len(name) <= 100 and not set(name) & set('/\\:*?"<>|')


def _declare(folder: Path, classes: Sequence[str]) -> None:
    """Write the classes, or see that the folder is theirs."""
    path = folder / formats.CLASSES_FILE
    files.make_folder(folder)
    if not path.exists():
        files.write_text(path, "".join(f"{name}\n" for name in classes))
        return
    known = formats.declared_classes(folder)
    if known != tuple(classes):
        raise DataError(
            f"{path}: expected the classes of the model ({', '.join(classes[:12])}), found "
            f"{', '.join((known or ())[:12])}; give each model a folder of its own"
        )


def _count(folder: Path) -> int:
    try:
        return sum(1 for path in folder.iterdir() if path.suffix == SUFFIX and path.name[0] != ".")
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise RunError(f"cannot read {folder}: {error.strerror}") from None


def _forget(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except NotADirectoryError:
        return
    except OSError as error:
        raise RunError(f"cannot remove {path}: {error.strerror}") from None

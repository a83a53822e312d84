"""Files that are whole or absent: written beside, put on the disk, renamed; and read with care."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rowwise.errors import RunError

MAX_TEXT_BYTES = 50_000_000
PART = ".part"


def write_text(path: Path, text: str) -> None:
    """Write a text file beside and rename it."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, tree: Any) -> None:
    """Write plain data as JSON beside and rename it."""
    write_text(path, json.dumps(tree, indent=2) + "\n")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file beside and rename it."""
    write_beside(path, lambda beside: beside.write_bytes(content))


def write_beside(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, put it on the disk, and rename it to `path`.

    Raises RunError where that cannot be done; what stood at `path` then stands there still.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}{PART}")
    try:
        try:
            write(beside)
            with beside.open("rb") as file:
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from None


def make_folder(folder: Path) -> None:
    """Make a folder and those above it. Raises RunError where that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the folder {folder}: {error.strerror}") from None


def remove_parts(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder that this process has locked."""
    for part in folder.glob(f".*{PART}"):
        part.unlink(missing_ok=True)


def read_text(path: Path) -> str:
    """A text file's content. Raises RunError where it cannot be read, is huge, or is no text."""
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise RunError(f"{path} is damaged: it has over {MAX_TEXT_BYTES:,} bytes")
        return path.read_text("utf-8")
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RunError(f"{path} is damaged: it is not UTF-8 text") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's object, of format 1. Raises RunError where it cannot be read or holds none."""
    try:
        tree = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged: it is not valid JSON ({error})") from None
    if not isinstance(tree, dict):
        raise RunError(f"{path} is damaged: it must hold an object, got a {type(tree).__name__}")
    if tree.get("format", 1) != 1:
        raise RunError(
            f"{path} has format {tree['format']!r}, this rowwise reads format 1; "
            f"use the version that wrote it, or a newer one"
        )
    return tree

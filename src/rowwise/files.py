"""Files that are whole or absent: written beside, put on the disk, renamed; and read with care."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from rowwise.errors import ConfigError, RunError

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


def check_outputs(outputs: Iterable[Path], inputs: Iterable[str | Path | int]) -> None:
    """Check that writing `outputs` overwrites none of `inputs`, be it through a link of any kind.

    An input that is a folder stands for all files below it, a number for an open file (0 is stdin).
    Raises ConfigError for the first output that is an input.
    """
    there = {key: path for path in outputs if (key := _identity(path)) is not None}
    if not there:
        return
    for given in inputs:
        for path in _files_of(given):
            key = _identity(path)
            if key is not None and key in there:
                raise ConfigError(
                    f"{there[key]}: an output overwrites no input, and this one is the input "
                    f"{'stdin' if path == 0 else path}; name another file"
                )


def _identity(path: str | Path | int) -> tuple[int, int] | None:
    """By what a file is known whatever its name, or None where there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def _files_of(given: str | Path | int) -> Iterator[str | Path | int]:
    yield given
    if not isinstance(given, int):
        for folder, _, names in os.walk(given):
            yield from (os.path.join(folder, name) for name in names)


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

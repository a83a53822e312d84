"""Files that are whole or absent: written beside, put on the disk, renamed; and read with care.

Every reader of bytes that somebody else made goes one way: limits first (`opened`: a regular file,
not too large), then the parser within `parsing`, which makes one named error of whatever it raises.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from rowwise.errors import ConfigError, RowwiseError, RunError, said

Fault = type[RowwiseError]

MAX_TEXT_BYTES = 50_000_000
MAX_DEPTH = 64  # of tables and lists in JSON and TOML, and of the parts of a dotted key
MAX_WHOLE = 2**63
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


@contextmanager
def opened(path: Path, most_bytes: int, error: Fault = RunError) -> Iterator[BinaryIO]:
    """A regular file of at most `most_bytes`, open for reading.

    Raises `error` where there is none, it cannot be opened, is larger, or is no regular file: a
    FIFO or a device may never end, or never begin.
    """
    try:
        file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115
    except OSError as fault:
        raise error(f"cannot read {path}: {fault.strerror or fault}") from None
    with file:
        told = os.fstat(file.fileno())
        if not stat.S_ISREG(told.st_mode):
            raise error(f"cannot read {path}: expected a regular file, found a pipe or a device")
        if told.st_size > most_bytes:
            raise error(
                f"{path}: expected at most {most_bytes:,} bytes, found {told.st_size:,}; "
                f"it is damaged, or another kind of file"
            )
        yield file


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


@contextmanager
def parsing(error: Fault, rule: str) -> Iterator[None]:
    """Around a parser of foreign bytes: whatever it raises becomes `error`, `rule` with its reason.

    Which exceptions a parser has differs by version and by damage (RecursionError, OverflowError,
    MemoryError, struct.error, SyntaxError ...), so none is listed. Named errors pass as they are.
    """
    try:
        yield
    except RowwiseError:
        raise
    except Exception as fault:
        raise error(f"{rule} ({said(fault)})") from fault


def read_bytes(path: Path, most_bytes: int, error: Fault = RunError) -> bytes:
    """A regular file's content. Raises `error` as `opened` does."""
    with opened(path, most_bytes, error) as file, parsing(error, f"cannot read {path}"):
        return file.read()


def read_text(path: Path, most_bytes: int | None = None, error: Fault = RunError) -> str:
    """A UTF-8 text file's content, by default of at most MAX_TEXT_BYTES.

    Raises `error` where it cannot be read, is huge, or is no text.
    """
    content = read_bytes(path, MAX_TEXT_BYTES if most_bytes is None else most_bytes, error)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise error(f"{path} is damaged: it is not UTF-8 text") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's object, of format 1. Raises RunError where it cannot be read or holds none."""
    tree = parse_object(read_text(path), RunError, f"{path} is damaged")
    if tree.get("format", 1) != 1:
        raise RunError(
            f"{path} has format {tree['format']!r:.60}, this rowwise reads format 1; "
            f"use the version that wrote it, or a newer one"
        )
    return tree


def parse_json(text: str | bytes, error: Fault, blame: str) -> Any:
    """What JSON holds, as `_checked` has it.

    Raises `error`, which begins with `blame`, where it is no JSON.
    """
    with parsing(error, f"{blame}: it is not valid JSON"):
        return _checked(json.loads(text))


def parse_object(text: str | bytes, error: Fault, blame: str) -> dict[str, Any]:
    """The object that JSON holds. Raises `error` as `parse_json` does, and for anything else."""
    tree = parse_json(text, error, blame)
    if not isinstance(tree, dict):
        raise error(f"{blame}: it must hold an object, got a {type(tree).__name__}")
    return dict(tree)


def parse_toml(text: str, error: Fault, blame: str) -> dict[str, Any]:
    """The table that TOML holds, as `_checked` has it.

    Raises `error`, which begins with `blame`, where it is no TOML.
    """
    with parsing(error, f"{blame}: it is not valid TOML"):
        _check_keys(text)
        tree: dict[str, Any] = _checked(tomllib.loads(text))
    return tree


def _checked(tree: Any) -> Any:
    """Plain data, nested at most MAX_DEPTH deep, with numbers that are finite and below 2^63."""
    level, depth = [("it", tree)], 0
    while level:
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
        for key, value in level:
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{key}: a number is finite, got {value}")
            if isinstance(value, int) and abs(value) >= MAX_WHOLE:
                raise ValueError(f"{key}: a whole number is below 2^63, got a larger one")
        level = [
            below
            for key, value in level
            if isinstance(value, dict | list)
            for below in (value.items() if isinstance(value, dict) else ((key, v) for v in value))
        ]
        depth += 1
    return tree


# Each alternative matches wherever it begins to, and never goes back: time grows as the text does.
_TOML = re.compile(
    r"""\"{3}(?:\\.|"(?!"")|[^\\"])*+(?:"{3,5})?|'{3}(?:'(?!'')|[^'])*+(?:'{3,5})?"""
    r"""|"(?:\\.|[^"\\\n])*+"?|'[^'\n]*+'?|[#][^\n]*+|[\w-]++|[ \t]++|.""",
    re.DOTALL,
)


def _check_keys(text: str) -> None:
    """Refuse a dotted key of many parts, for which tomllib takes quadratic time and memory."""
    parts = 0
    for found in _TOML.finditer(text):
        token = found[0]
        if token == ".":
            parts += 1
            if parts > MAX_DEPTH:
                raise ValueError(f"a key has at most {MAX_DEPTH} parts, got more")
        elif not (token[0] in "\"' \t-_" or token[0].isalnum()):
            parts = 0

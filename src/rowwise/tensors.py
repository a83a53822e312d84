"""Files of named tensors (safetensors) with metadata: read with care, written whole, never code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from rowwise.errors import RunError
from rowwise.files import opened, parsing, write_bytes

Array = NDArray[Any]

WORD = 8  # bytes of the header's length, which the header fills up to
METADATA = "__metadata__"
MAX_BYTES = 8_000_000_000
MAX_HEADER_BYTES = 10_000_000


def read(path: Path, kind: str) -> tuple[dict[str, Array], dict[str, str]]:
    """The tensors and the metadata of a file whose metadata call its format `kind`.

    Raises RunError where it cannot be read, is damaged, huge, or of another format.
    """
    damaged = f"{path} is damaged: it holds no tensors that can be read"
    with opened(path, MAX_BYTES) as file, parsing(RunError, damaged):
        header_bytes = int.from_bytes(file.read(WORD), "little")
        if header_bytes > MAX_HEADER_BYTES:
            raise RunError(f"{path} is damaged: its header has over {MAX_HEADER_BYTES:,} bytes")
        with safetensors.safe_open(path, framework="numpy") as content:
            told = content.metadata() or {}
            tensors = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118
    if told.get("format") != kind:
        raise RunError(f"{path} must be of the format {kind}, got {told.get('format')!r}")
    return tensors, told


def write(path: Path, kind: str, tensors: Mapping[str, Array], told: Mapping[str, str]) -> None:
    """Write tensors with metadata; `kind` becomes their format. Raises RunError.

    The same tensors and metadata give the same bytes.
    """
    write_bytes(path, _ordered(safetensors.numpy.save(dict(tensors), {"format": kind, **told})))


def _ordered(data: bytes) -> bytes:
    """A file of safetensors with its metadata in order; the library's differs from call to call.

    It begins with the length of its header, uint64; the header is JSON, filled up with spaces.
    """
    size = int.from_bytes(data[:WORD], "little")
    header = json.loads(data[WORD : WORD + size])
    header[METADATA] = dict(sorted(header[METADATA].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % WORD)
    return len(text).to_bytes(WORD, "little") + text + data[WORD + size :]

"""IDX, the file format of MNIST: bytes <-> arrays, plain or gzip, within limits."""

from __future__ import annotations

import gzip
import io
import math
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rowwise import files
from rowwise.errors import DataError

MAX_BYTES = 1 << 30  # of one file, packed or unpacked
MAX_ITEMS = 10_000_000
MAX_SIDE_PX = 1024


def header(shape: tuple[int, ...]) -> bytes:
    """Return the header of an IDX file of unsigned bytes: 00 00 08, the number of axes, the sizes.

    Args:
        shape: `(N,)` for labels, `(N, rows, columns)` for pictures.

    Returns:
        4 + 4·axes bytes, big-endian.

    Source: the description of the format on the MNIST page of Y. LeCun.
    """
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)


def encode(array: NDArray[np.uint8]) -> bytes:
    """Return `array` (uint8, labels [N] or pictures [N, rows, columns]) as an IDX file's bytes."""
    return header(array.shape) + array.tobytes()


def decode(raw: bytes, *, axes: int, source: Path | str) -> NDArray[np.uint8]:
    """Read the bytes of an IDX file, plain or gzip, refusing whatever its header does not promise.

    Args:
        raw: the file as it lies on disk.
        axes: 1 for labels, 3 for pictures.
        source: the name by which messages call the file.

    Returns:
        uint8 `[N]` or `[N, rows, columns]`, read-only.

    Raises:
        DataError: empty, damaged gzip, wrong magic number, a size of zero or beyond the limits, or
            a length that differs from the header's.
    """
    what = "pictures" if axes == 3 else "labels"
    if not raw:
        raise DataError(f"{source}: expected an IDX file of {what}, found an empty file")
    packed = is_gzip(raw)
    start = 4 + 4 * axes
    head = _unpack(raw, start, source) if packed else raw[:start]
    magic = header((0,) * axes)[:4]
    if head[:4] != magic or len(head) < start:
        raise DataError(
            f"{source}: expected an IDX file of {what}, which starts with {magic.hex(' ')} and "
            f"{axes} size{'s' if axes > 1 else ''}, found "
            + (f"{head[:4].hex(' ')}" if head[:4] != magic else f"only {len(head)} bytes")
        )
    shape = struct.unpack(f">{axes}I", head[4:])
    check_shape(shape, source)
    size = start + math.prod(shape)
    promise = f"{size:,} bytes, as its header says ({' × '.join(f'{n:,}' for n in shape)})"
    data = gunzip(raw, limit=size, source=source, promise=promise) if packed else raw
    if len(data) != size:
        raise DataError(
            f"{source}: expected {promise}, found {len(data):,}; the file is damaged or cut off"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def check_shape(shape: tuple[int, ...], source: Path | str) -> None:
    """Refuse a shape, `(N,)` or `(N, rows, columns)`, that is empty or beyond the limits.

    Raises:
        DataError: a size below 1, too many items, too long a side, or too many bytes.
    """
    found = " × ".join(f"{n:,}" for n in shape)
    if min(shape) < 1:
        raise DataError(f"{source}: expected at least one item and one pixel, found {found}")
    if shape[0] > MAX_ITEMS or max(shape[1:], default=1) > MAX_SIDE_PX:
        raise DataError(
            f"{source}: expected at most {MAX_ITEMS:,} items, with sides of at most "
            f"{MAX_SIDE_PX} pixels, found {found}"
        )
    if math.prod(shape) > MAX_BYTES:
        raise DataError(f"{source}: expected at most {MAX_BYTES:,} bytes of data, found {found}")


def is_gzip(raw: bytes) -> bool:
    """Return whether `raw` starts as a gzip file does."""
    return raw[:2] == b"\x1f\x8b"


def gunzip(raw: bytes, *, limit: int, source: Path | str, promise: str = "") -> bytes:
    """Unpack a gzip file to its end, never to more than `limit` bytes.

    Args:
        raw: the packed bytes.
        limit: the most bytes that may come out.
        source: the name by which messages call the file.
        promise: what messages say was expected, in place of the limit.

    Returns:
        The unpacked bytes, whose checksum has been verified.

    Raises:
        DataError: not gzip, damaged, cut off, or larger than the limit.
    """
    data = _unpack(raw, limit + 1, source)
    if len(data) > limit:
        expected = promise or f"at most {limit:,} bytes when unpacked"
        raise DataError(f"{source}: expected {expected}, found more")
    return data


def read_bytes(path: Path) -> bytes:
    """Return a regular file's bytes, refusing one beyond `MAX_BYTES` before it is read."""
    return files.read_bytes(path, MAX_BYTES, DataError)


def _unpack(raw: bytes, count: int, source: Path | str) -> bytes:
    rule = f"{source}: expected a whole gzip file, found a damaged one; fetch it again"
    with files.parsing(DataError, rule), gzip.GzipFile(fileobj=io.BytesIO(raw)) as stream:
        return stream.read(count)

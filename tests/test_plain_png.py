"""The short way of small grey PNG: Pillow's pixels to the last one, or none at all."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rowwise import image_files
from rowwise.image_files import PLAIN_PX, _plain_png

SIDES = st.tuples(st.integers(1, 64), st.integers(1, 64))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(lines: bytes, columns: int, rows: int, packed: bytes | None = None) -> bytes:
    head = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    content = zlib.compress(lines) if packed is None else packed
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", content) + chunk(b"IEND", b"")
    )


def pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as opened:
        return np.asarray(opened)


@settings(max_examples=150)
@given(SIDES, st.randoms(use_true_random=False))
def test_every_filter_gives_pillows_pixels(sides, random):
    columns, rows = sides
    lines = b"".join(bytes([random.randrange(5)]) + random.randbytes(columns) for _ in range(rows))
    data = png(lines, columns, rows)
    found = _plain_png(data)
    if found is None:  # noise that is longer than what goes the short way
        assert len(data) > 3000
        return
    np.testing.assert_array_equal(found, pillow(data))
    np.testing.assert_array_equal(image_files.picture(data).pixels, found)


@settings(max_examples=300)
@given(st.data())
def test_what_is_damaged_goes_the_long_way_or_has_the_same_pixels(data):
    random = data.draw(st.randoms(use_true_random=False))
    lines = b"".join(bytes([random.randrange(5)]) + random.randbytes(28) for _ in range(28))
    packed = zlib.compress(lines)
    kind = data.draw(st.sampled_from(["short", "long", "filter", "cut", "tail", "flip", "any"]))
    if kind == "short":
        whole = png(lines[: -random.randint(1, 60)], 28, 28)
    elif kind == "long":
        whole = png(lines + random.randbytes(9), 28, 28)
    elif kind == "filter":
        whole = png(bytes([random.randint(5, 255)]) + lines[1:], 28, 28)
    elif kind == "cut":
        whole = png(lines, 28, 28, packed[: random.randrange(len(packed))])
    elif kind == "tail":
        whole = png(lines, 28, 28, packed + b"more")
    else:
        damaged = bytearray(packed if kind == "flip" else png(lines, 28, 28))
        damaged[random.randrange(len(damaged))] ^= 1 << random.randrange(8)
        whole = png(lines, 28, 28, bytes(damaged)) if kind == "flip" else bytes(damaged)
    found = _plain_png(whole)
    assert found is None or kind in ("flip", "any")
    if found is not None:
        np.testing.assert_array_equal(found, pillow(whole))


@pytest.mark.parametrize("mode", ["RGB", "LA", "P", "1", "I;16"])
def test_other_kinds_go_the_long_way(mode):
    content = io.BytesIO()
    Image.new(mode, (28, 28)).save(content, "PNG")
    assert _plain_png(content.getvalue()) is None
    assert image_files.picture(content.getvalue()).pixels.shape[:2] == (28, 28)


def test_what_is_large_or_says_more_goes_the_long_way():
    large = png(bytes(65 * 65), 64, 65)
    assert PLAIN_PX < 64 * 65
    assert _plain_png(large) is None
    grey = Image.new("L", (28, 28), 7)
    for extra in ({"dpi": (300, 300)}, {"transparency": 7}):
        content = io.BytesIO()
        grey.save(content, "PNG", **extra)
        assert _plain_png(content.getvalue()) is None
    content = io.BytesIO()
    grey.save(content, "PNG")
    assert _plain_png(content.getvalue()) is not None
    assert _plain_png(content.getvalue() + b"x") is None
    assert _plain_png(b"") is None

"""IDX: what is written is read again, and whatever a header does not promise is refused."""

import gzip
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from rowwise import idx
from rowwise.errors import DataError

any_pictures = arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7))
any_labels = arrays(np.uint8, array_shapes(min_dims=1, max_dims=1, min_side=1, max_side=300))


@given(array=st.one_of(any_pictures, any_labels), packed=st.booleans())
def test_what_is_written_is_read_again(array, packed):
    raw = idx.encode(array)
    read = idx.decode(gzip.compress(raw) if packed else raw, axes=array.ndim, source="made")
    assert read.dtype == np.uint8
    assert read.shape == array.shape
    assert np.array_equal(read, array)
    assert not read.flags.writeable


def test_header_of_mnist_is_the_published_one():
    assert idx.header((60000, 28, 28)).hex() == "00000803" + "0000ea60" + "0000001c" * 2
    assert idx.header((10000,)).hex() == "00000801" + "00002710"


@given(cut=st.integers(1, 400), packed=st.booleans())
def test_every_cut_is_noticed(cut, packed):
    raw = idx.encode(np.arange(5 * 8 * 10, dtype=np.uint8).reshape(5, 8, 10))
    whole = gzip.compress(raw) if packed else raw
    with pytest.raises(DataError, match=r"^made: expected .* found "):
        idx.decode(whole[: max(0, len(whole) - cut)], axes=3, source="made")


@given(at=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_every_damaged_byte_of_a_gzip_file_is_noticed_or_harmless(at, flip):
    array = np.random.default_rng(0).integers(0, 256, (4, 6, 6), dtype=np.uint8)
    raw = bytearray(gzip.compress(idx.encode(array), mtime=0))
    raw[at % len(raw)] ^= flip
    try:
        read = idx.decode(bytes(raw), axes=3, source="made")
    except DataError:
        return
    # a byte of gzip's own header that does not touch the content, such as the time
    assert np.array_equal(read, array)


def test_members_and_padding_of_gzip_are_read():
    raw = idx.encode(np.arange(100, dtype=np.uint8))
    packed = gzip.compress(raw[:50]) + gzip.compress(raw[50:]) + b"\0" * 512
    assert np.array_equal(idx.decode(packed, axes=1, source="made"), np.arange(100))


def with_shape(shape, data=b""):
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + data


REFUSED = {
    "empty": (b"", 3, "expected an IDX file of pictures, found an empty file"),
    "other magic": (b"<html>" + b" " * 50, 3, "starts with 00 00 08 03 and 3 sizes, found 3c 68"),
    "labels for pictures": (with_shape((9,), b"\1" * 9), 3, "found 00 00 08 01"),
    "floats": (b"\0\0\x0d\3" + bytes(40), 3, "found 00 00 0d 03"),
    "header cut": (with_shape((9, 2, 2))[:9], 3, "found only 9 bytes"),
    "too short": (with_shape((3, 2, 2), b"x" * 11), 3, "expected 28 bytes, as its header says (3"),
    "too long": (with_shape((3,), b"x" * 4), 1, "expected 11 bytes, as its header says (3), found"),
    "too long, packed": (gzip.compress(with_shape((3,), b"x" * 4)), 1, "found more"),
    "no items": (with_shape((0, 28, 28)), 3, "at least one item and one pixel, found 0 × 28 × 28"),
    "no columns": (with_shape((5, 28, 0)), 3, "found 5 × 28 × 0"),
    "too many": (with_shape((10_000_001,)), 1, "at most 10,000,000 items"),
    "too wide": (with_shape((1, 28, 1025)), 3, "sides of at most 1024 pixels"),
    "too large": (with_shape((2_000_000, 28, 28)), 3, "at most 1,073,741,824 bytes of data"),
    "not the gzip it seems": (b"\x1f\x8b" + b"nonsense" * 9, 3, "a whole gzip file, found a dam"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    raw, axes, words = REFUSED[case]
    with pytest.raises(DataError) as caught:
        idx.decode(raw, axes=axes, source="made-file")
    assert str(caught.value).startswith("made-file: expected ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gzip_bomb_is_not_unpacked():
    bomb = gzip.compress(with_shape((10,), bytes(64 << 20)), 9)
    assert len(bomb) < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"expected 18 bytes, .* found more"):
            idx.decode(bomb, axes=1, source="bomb")
        with pytest.raises(DataError, match="at most 1,000,000 bytes when unpacked, found more"):
            idx.gunzip(bomb, limit=1_000_000, source="bomb")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_files_beyond_the_limit_are_not_read(tmp_path, monkeypatch):
    (tmp_path / "big").write_bytes(bytes(11))
    monkeypatch.setattr(idx, "MAX_BYTES", 10)
    with pytest.raises(DataError, match="big: expected at most 10 bytes, found 11"):
        idx.read_bytes(tmp_path / "big")


def test_encode_is_the_file_that_mnist_has():
    labels = np.array([5, 0, 4], np.uint8)
    assert idx.encode(labels) == bytes([0, 0, 8, 1, 0, 0, 0, 3, 5, 0, 4])

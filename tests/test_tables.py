"""npz and CSV: what other programs saved is read, and everything doubtful refused."""

import gzip
import io
import os
import tracemalloc
import zipfile

import numpy as np
import pytest
from made_data import pictures, quartet, write_csv

from rowwise import idx, tables
from rowwise.errors import DataError

NAMES = ("x_train", "y_train", "x_test", "y_test")


def save(path, compress=True, **arrays):
    (np.savez_compressed if compress else np.savez)(path, **arrays)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint16, ">i4"])
@pytest.mark.parametrize("compress", [True, False])
def test_keras_npz(tmp_path, dtype, compress):
    arrays = [array.astype(dtype) for array in quartet()]
    path = save(tmp_path / "mnist.npz", compress, **dict(zip(NAMES, arrays, strict=True)))
    train, test = tables.read_npz(path)
    for found, expected in zip((*train[:2], *test[:2]), arrays, strict=True):
        assert found.dtype == np.uint8
        assert np.array_equal(found, expected)
    assert train.images_path == path / "x_train"


def test_other_npz_layouts(tmp_path):
    images, labels, more, their = quartet()
    path = save(
        tmp_path / "a.npz",
        train_images=images,
        train_labels=labels[:, None],
        val_images=more,
        test_images=more,
        test_labels=their,
    )
    train, test = tables.read_npz(path)
    assert np.array_equal(train.labels, labels)
    assert np.array_equal(test.images, more)
    (pair,) = tables.read_npz(save(tmp_path / "b.npz", x=images.reshape(40, -1), y=labels))
    assert np.array_equal(pair.images, images)
    fortran = np.asfortranarray(images)
    (pair,) = tables.read_npz(save(tmp_path / "c.npz", images=fortran, labels=labels))
    assert np.array_equal(pair.images, images)


def objects():
    buffer = io.BytesIO()
    np.savez(buffer, x=np.array([{"a": 1}], dtype=object), y=np.zeros(1, np.uint8))
    return buffer.getvalue()


def claiming(shape, dtype="|u1"):
    """Return an npz whose header claims a shape that its few bytes do not have."""
    buffer = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("x.npy", buffer.getvalue() + bytes(100))
        file.writestr("y.npy", buffer.getvalue() + bytes(100))
    return archive.getvalue()


def with_header(header, *, length=None):
    """Return an npz of arrays of format 2 with this header, and a length that it may not have."""
    length = len(header) if length is None else length
    content = b"\x93NUMPY\x02\x00" + length.to_bytes(4, "little") + header
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.writestr("x.npy", content)
        file.writestr("y.npy", content)
    return archive.getvalue()


def saved(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


ok = np.zeros(4, np.uint8)
NPZ_REFUSED = {
    "no zip": (b"nonsense", "a.npz: expected a sound .npz, found a damaged one"),
    "empty": (b"", "a.npz: expected a sound .npz"),
    "cut": (saved(x=pictures(4), y=ok)[:-200], "expected a sound .npz"),
    "other arrays": (
        saved(a=ok, b=ok),
        "x_train, y_train, x_test, y_test (or images, labels), fou",
    ),
    "objects": (objects(), "a.npz/x: expected whole numbers 0..255 (uint8), found object"),
    "fractions": (saved(x=pictures(4) / 255, y=ok), "found float64; pixels in 0..1 must be mul"),
    "negative": (saved(x=pictures(4).astype(int) - 1, y=ok), "a.npz/x: expected whole numbers"),
    "above 255": (saved(x=pictures(4), y=ok + np.int64(256)), "a.npz/y: expected whole numbers 0"),
    "colours": (saved(x=pictures(4)[..., None], y=ok), "pictures [N, rows, columns] and labels"),
    "one-hot": (saved(x=pictures(4), y=np.eye(4, 10, dtype=np.uint8)), "found x [4, 28, 28] and"),
    "no square": (saved(x=pictures(4)[:, 0, :27], y=ok), "square pictures (28×28 has 784 pixels)"),
    "no items": (saved(x=pictures(0), y=ok[:0]), "expected 1 to 1,073,741,824 bytes of data"),
    "huge claim": (claiming((60_000_000, 28, 28)), "found [60000000, 28, 28]"),
    "negative claim": (claiming((-5, 28, 28)), "x: expected 1 to"),
    "short of its claim": (claiming((50, 28, 28)), "expected a sound .npz"),
    "parentheses": (with_header(b"(" * 3000), "expected a sound .npz, found a damaged one ("),
    "wide claim": (claiming((1, 2, 5000)), "expected a sound .npz"),
}


@pytest.mark.parametrize("case", NPZ_REFUSED)
def test_npz_refused(tmp_path, case):
    raw, words = NPZ_REFUSED[case]
    path = tmp_path / "a.npz"
    path.write_bytes(raw)
    with pytest.raises(DataError) as caught:
        tables.read_npz(path)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{path}")


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_csv(tmp_path, header, packed):
    images, labels, *_ = quartet(train=12, shape=(5, 5))
    path = write_csv(tmp_path / "train.csv", images, labels, header=header)
    if packed:
        path = tmp_path / "train.csv.gz"
        path.write_bytes(gzip.compress((tmp_path / "train.csv").read_bytes()))
    pair = tables.read_csv(path)
    assert np.array_equal(pair.images, images)
    assert np.array_equal(pair.labels, labels)


def test_csv_of_other_hands(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('\ufeff"p0","p1","p2","p3","Label"\r\n1, 2,3,4,9\r\n\r\n5,6,7,255,0\r\n')
    pair = tables.read_csv(path)
    assert pair.labels.tolist() == [9, 0]
    assert pair.images.tolist() == [[[1, 2], [3, 4]], [[5, 6], [7, 255]]]


CSV_REFUSED = {
    "empty": (b"", "expected rows of label and pixels, found none"),
    "header only": (b"label,pixel0\n", "expected rows of label and pixels, found none"),
    "no label": (b"pixel0,pixel1\n1,2\n", "expected a column named label, found pixel0, pixel1"),
    "no text": (b"\xff\xfe\x00", "expected a CSV file of text"),
    "web page": (b"<!doctype html>\n<html>", "expected a column named label, found <!doctype"),
    "ragged": (b"1,2,3,4,5\n1,2,3\n", "rows of equal length with whole numbers 0..255, found:"),
    "256": (b"1,2,3,4,256\n", "found: could not convert string '256'"),
    "negative": (b"-1,2,3,4,5\n", "found: could not convert string '-1'"),
    "fraction": (b"1,2,3,4,0.5\n", "found: could not convert string '0.5'"),
    "missing": (b"1,2,,4,5\n", "whole numbers 0..255, found:"),
    "word": (b"label,a,b,c,d\n1,2,x,4,5\n", "found: could not convert string 'x'"),
    "no square": (b"1,2,3,4\n", "square pictures (28×28 has 784 pixels), found rows of 3 pixels"),
    "labels alone": (b"label\n1\n", "found rows of 0 pixels"),
    "damaged gzip": (gzip.compress(b"1,2,3,4,5\n")[:-4], "expected a CSV file of text"),
}


@pytest.mark.parametrize("case", CSV_REFUSED)
def test_csv_refused(tmp_path, case):
    raw, words = CSV_REFUSED[case]
    path = tmp_path / "a.csv"
    path.write_bytes(raw)
    with pytest.raises(DataError) as caught:
        tables.read_csv(path)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{path}: expected ")


def test_csv_beyond_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "MAX_BYTES", 1000)
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"1,2,3,4,5\n" * 1000))
    with pytest.raises(DataError, match="and 1,000 in all, found more"):
        tables.read_csv(path)


@pytest.mark.parametrize("packed", [True, False])
def test_a_csv_of_one_line_is_not_read_whole(tmp_path, monkeypatch, packed):
    monkeypatch.setattr(tables, "MAX_LINE_BYTES", 100_000)
    path = tmp_path / "a.csv"
    raw = b"1," * (10 << 20)
    path.write_bytes(gzip.compress(raw, 1) if packed else raw)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="expected at most 100,000 bytes in a line and"):
            tables.read_csv(path)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["a.csv", "a.npz"])
def test_a_pipe_is_no_table(tmp_path, name):
    os.mkfifo(tmp_path / name)
    read = tables.read_csv if name == "a.csv" else tables.read_npz
    with pytest.raises(DataError, match=f"{name}: expected a regular file"):
        read(tmp_path / name)


def test_a_header_that_is_a_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(with_header(b" " * (20 << 20), length=2**32 - 1))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"expected a sound \.npz, found a damaged one"):
            tables.read_npz(path)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()

"""What is read of data sets: the same whatever the format, checked, split, and labelled by name."""

import gzip
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_data import (
    FASHION,
    FILES,
    GARMENTS,
    MNIST,
    empty_machine,
    holds,
    pictures,
    quartet,
    save_npz,
    write_csv,
    write_idx,
    write_pictures,
)

from rowwise import data, idx
from rowwise.catalogue import KNOWN
from rowwise.errors import DataError

REAL = os.environ.get("ROWWISE_DATA", "")
REAL_KNOWN = dict(KNOWN)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    return empty_machine(tmp_path, monkeypatch)


def test_the_digest_is_of_the_content_whatever_the_format(home):
    arrays = quartet(train=20, test=10, shape=(6, 6), seed=8)
    order = [np.argsort(labels, kind="stable") for labels in (arrays[1], arrays[3])]
    arrays = tuple(a[order[i // 2]] for i, a in enumerate(arrays))
    names = [str(i) for i in range(10)]
    write_pictures(home / "p/train", *arrays[:2], names)
    write_pictures(home / "p/test", *arrays[2:], names)
    write_csv(home / "c/own_train.csv", *arrays[:2])
    write_csv(home / "c/own_test.csv", *arrays[2:], header=False)
    places = [
        write_idx(home / "packed", arrays),
        write_idx(home / "plain", arrays, packed=False),
        save_npz(home / "own.npz", arrays),
        home / "c",
        home / "p",
    ]
    digests = set()
    for place in places:
        dataset = data.load(path=place)
        assert holds(dataset, arrays)
        assert dataset.name == place.stem
        assert dataset.source == str(place)
        assert dataset.classes == tuple(names)
        digests.add(dataset.digest)
    assert len(digests) == 1
    assert len(bytes.fromhex(digests.pop())) == 32


def test_the_digest_tells_everything_apart(home):
    base = quartet(shape=(6, 4), classes=3)
    turned = tuple(a.reshape(len(a), 4, 6) if a.ndim == 3 else a for a in base)
    changed = tuple(a.copy() for a in base)
    changed[3][0] = (changed[3][0] + 1) % 3
    digests = []
    for i, arrays in enumerate((base, turned, changed, base)):
        folder = write_idx(home / str(i), arrays)
        if i == 3:
            (folder / "classes.txt").write_text("a\nb\nc")
        digests.append(data.load(path=folder).digest)
    assert len(set(digests)) == 4


def test_arrays_are_read_only(home):
    dataset = data.load(path=write_idx(home / "own", quartet(seed=4)))
    digits = data.digits()
    for array in (
        dataset.train_images,
        dataset.train_labels,
        dataset.test_labels,
        digits.train_images,
        digits.test_labels,
    ):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_a_single_part_is_split(home):
    images, labels, *_ = quartet(train=50, shape=(4, 4))
    dataset = data.load(path=write_csv(home / "train.csv", images, labels))
    assert dataset.name == "train"
    assert dataset.source == f"{home}/train.csv, split 80/20"
    kept, held = data.split(labels, share=0.2)
    assert holds(dataset, (images[kept], labels[kept], images[held], labels[held]))
    write_pictures(home / "pictures", images, labels, list("0123456789"))
    assert len(data.load(path=home / "pictures").test_labels) == 10
    write_idx(home / "idx", (images, labels))
    assert len(data.load(path=home / "idx" / f"{FILES[0]}.gz").test_labels) == 10


def test_own_data_never_bears_a_known_name(home):
    write_idx(home / "mnist", quartet(seed=11))
    assert data.load(path=home / "mnist").name == "own-mnist"
    write_csv(home / "digits.csv", *quartet(train=20, shape=(3, 3))[:2])
    assert data.load(path=home / "digits.csv").name == "own-digits"


def test_a_declared_set_may_share_files_with_mnist(home):
    even = tuple(a if a.ndim == 3 else a % 2 for a in MNIST)
    folder = write_idx(home / "parity", even)
    with pytest.raises(DataError, match=r"2 of the 4 files are those of MNIST, so this one is dam"):
        data.load(path=folder)
    (folder / "classes.txt").write_text("even\nodd\n")
    dataset = data.load(path=folder)
    assert (dataset.name, dataset.classes) == ("parity", ("even", "odd"))
    with pytest.raises(DataError, match="2 of the 4 files are those of MNIST"):
        data.load("mnist", path=folder)


# Labelled data for a network to be judged by

DIGITS = tuple("0123456789")


def test_labelled_by_number(home):
    arrays = quartet(seed=21)
    write_idx(home / "own", arrays)
    found = data.load_labelled(home / "own", classes=DIGITS, shape=(28, 28))
    assert np.array_equal(found.images, arrays[2])
    assert np.array_equal(found.labels, arrays[3])
    assert found.classes == DIGITS
    assert found.source == str(home / "own")
    write_idx(home / "half", arrays[2:], names=FILES[2:])
    half = data.load_labelled(home / "half", classes=DIGITS, shape=(28, 28))
    assert np.array_equal(half.images, arrays[2])
    few = quartet(train=3, shape=(4, 4))
    csv = data.load_labelled(write_csv(home / "few.csv", *few[:2]), classes=DIGITS, shape=(4, 4))
    assert sorted(csv.labels) == [0, 1, 2]  # not all classes need occur


def test_labelled_by_name(home):
    images, labels = pictures(6, (4, 4)), np.array([0, 1] * 3)
    write_pictures(home / "own", images, labels, ["c", "a"])
    found = data.load_labelled(home / "own", classes=("a", "b", "c"), shape=(4, 4))
    assert found.classes == ("a", "b", "c")
    assert np.array_equal(found.images, images[[1, 3, 5, 0, 2, 4]])
    assert found.labels.tolist() == [0, 0, 0, 2, 2, 2]
    with pytest.raises(
        DataError, match=r"own: expected the classes of the network \(a, b\), found c"
    ):
        data.load_labelled(home / "own", classes=("a", "b"), shape=(4, 4))


def test_labelled_known_set(home):
    write_idx(home / "own", FASHION)
    found = data.load_labelled(home / "own", classes=GARMENTS, shape=(28, 28))
    assert np.array_equal(found.labels, FASHION[3])
    with pytest.raises(
        DataError, match=r"expected the classes of the network .*, found a, b, c, d"
    ):
        data.load_labelled(home / "own", classes=DIGITS, shape=(28, 28))


def test_labelled_refused(home):
    write_idx(home / "own", quartet())
    with pytest.raises(DataError, match="expected pictures of 8×8 pixels, which the network reads"):
        data.load_labelled(home / "own", classes=DIGITS, shape=(8, 8))
    with pytest.raises(DataError, match=r"expected labels 0..2 \(a, b, c\), found "):
        data.load_labelled(home / "own", classes=tuple("abc"), shape=(28, 28))
    with pytest.raises(DataError, match="found nothing there"):
        data.load_labelled(home / "absent", classes=DIGITS, shape=(28, 28))


# Digits and split


def test_digits():
    from sklearn.datasets import load_digits

    dataset = data.digits()
    bunch = load_digits()
    kept, held = data.split(bunch.target, share=0.2)
    assert np.array_equal(dataset.train_labels, bunch.target[kept])
    assert np.array_equal(dataset.test_labels, bunch.target[held])
    assert np.allclose(dataset.test_images / 255 * 16, bunch.images[held], atol=16 / 255 / 2 + 1e-9)
    assert (dataset.train_images.min(), dataset.train_images.max()) == (0, 255)
    assert (len(kept), len(held)) == (1438, 359)
    assert dataset.classes == DIGITS
    assert dataset.fallback == ""
    assert data.digits("why").fallback.startswith("why; ")
    # the data and the split must stay what they are for ever
    assert dataset.digest == "dd5cc27907b79f931bbd373b30cd00ac821ce781489a784cd91ac307175e2ab1"


@given(
    labels=st.lists(st.integers(0, 6), min_size=2, max_size=200),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32),
)
def test_split(labels, share, seed):
    labels = np.array(labels, np.int64)
    counts = np.bincount(labels)
    if round(len(labels) * share) == 0 or max(counts) == 1:
        with pytest.raises(DataError, match="expected enough items to hold out"):
            data.split(labels, share=share, seed=seed)
        return
    kept, held = data.split(labels, share=share, seed=seed)
    assert np.array_equal(np.sort(np.concatenate([kept, held])), np.arange(len(labels)))
    assert np.all(np.diff(kept) > 0)
    assert np.all(np.diff(held) > 0)
    held_counts = np.bincount(labels[held], minlength=len(counts))
    assert np.all(held_counts[counts > 0] < counts[counts > 0])
    assert len(held) <= round(len(labels) * share)
    again = data.split(labels, share=share, seed=seed)
    assert np.array_equal(held, again[1])
    if min(counts[counts > 0] * (1 - share)) >= 1:
        assert len(held) == round(len(labels) * share)
        assert np.all(np.abs(held_counts - counts * share) < 1)


def test_split_is_drawn_from_the_seed():
    labels = np.repeat(np.arange(10), 50)
    draws = {tuple(data.split(labels, share=0.1, seed=seed)[1]) for seed in range(20)}
    assert len(draws) == 20
    kept, held = data.split(labels, share=0.1)
    assert np.bincount(labels[held]).tolist() == [5] * 10
    assert held[:5].tolist() == [2, 3, 11, 13, 20]  # the same on every machine and numpy
    assert kept.dtype == held.dtype == np.int64
    for share in (0, 1, -0.5, float("nan")):
        with pytest.raises(DataError, match="held-out share between 0 and 1, found"):
            data.split(labels, share=share)


# The real thing


@pytest.fixture
def real(monkeypatch):
    if not REAL:
        pytest.skip("ROWWISE_DATA names no copy of MNIST")
    for name, known in REAL_KNOWN.items():
        monkeypatch.setitem(KNOWN, name, known)
    monkeypatch.setenv("ROWWISE_DATA", REAL)
    return Path(REAL)


@pytest.mark.usefixtures("real")
def test_real_mnist():
    start = time.perf_counter()
    dataset = data.load()
    assert time.perf_counter() - start < 5  # 0.4 s on two 2023 server cores
    assert dataset.name == "mnist"
    assert dataset.source == f"ROWWISE_DATA={REAL}"
    assert dataset.train_images.shape == (60000, 28, 28)
    assert dataset.test_images.shape == (10000, 28, 28)
    assert dataset.digest == "6251a9f87a8fdb9c467f906b17f7c06cdb4d044e827bd1752f99539c24d72ed6"
    assert np.bincount(dataset.train_labels).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949
    ]  # fmt: skip
    assert np.bincount(dataset.test_labels).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009
    ]  # fmt: skip
    assert dataset.train_labels[:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]
    again = data.load("mnist")
    assert again.digest == dataset.digest


def test_real_mnist_in_other_formats(real, home):
    dataset = data.load("mnist")
    arrays = (
        dataset.train_images,
        dataset.train_labels.astype(np.uint8),
        dataset.test_images,
        dataset.test_labels.astype(np.uint8),
    )
    npz = save_npz(home / "mnist.npz", arrays)
    assert data.load("mnist", path=npz).digest == dataset.digest
    plain = write_idx(home / "plain", arrays, packed=False)
    assert data.load(path=plain).digest == dataset.digest
    damaged = idx.encode(arrays[1])
    (plain / FILES[1]).write_bytes(damaged[:-1] + b"\x0b")
    with pytest.raises(DataError) as caught:
        data.load(path=plain)
    assert str(caught.value).startswith(
        f"{plain / FILES[1]}: expected MNIST's {FILES[1]} with sha256 "
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5 (decompressed), found "
    )
    raw = gzip.compress(idx.encode(arrays[2]), 1)
    (plain / FILES[2]).unlink()
    (plain / f"{FILES[2]}.gz").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(
        DataError, match=f"{FILES[2]}.gz: expected a whole gzip file, found a damaged one"
    ):
        data.load(path=plain)


def test_descriptions_are_reached_from_here():
    description = data.describe(data.digits())
    assert isinstance(description, data.Description)
    assert json.dumps(description.to_json(), allow_nan=False)

"""Known data sets are told by their content, and copies of them found where programs keep them."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from made_data import FILES, known_set, quartet, write_idx

from rowwise import catalogue, formats, idx
from rowwise.catalogue import KNOWN, Fingerprint
from rowwise.errors import DataError


def test_the_table_is_complete():
    assert list(KNOWN) == ["mnist", "fashion-mnist", "kmnist"]
    for known in KNOWN.values():
        assert [file.name for file in known.files] == list(FILES)
        assert [file.size_bytes for file in known.files] == [47040016, 60008, 7840016, 10008]
        assert len(known.classes) == len(set(known.classes)) == 10
        assert all(mirror.startswith("http") and mirror.endswith("/") for mirror in known.mirrors)
        assert len(known.mirrors) >= 2
        for file in known.files:
            assert len(bytes.fromhex(file.digest)) == {"sha256": 32, "md5": 16}[file.algorithm]
    digests = [file.digest for known in KNOWN.values() for file in known.files]
    assert len(set(digests)) == 12


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_a_fingerprint_is_that_of_the_decompressed_file(algorithm):
    for array in quartet():
        expected = hashlib.new(algorithm, idx.encode(array)).hexdigest()
        assert Fingerprint(array).digest(algorithm) == expected
        assert Fingerprint(array[::2]).digest(algorithm) != expected
    assert Fingerprint(quartet()[0][::2]).digest("md5") == (
        hashlib.md5(idx.encode(quartet()[0][::2])).hexdigest()
    )


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_recognise(tmp_path, monkeypatch, algorithm):
    arrays = quartet()
    known = known_set(arrays, algorithm=algorithm)
    monkeypatch.setitem(KNOWN, "mnist", known)
    content = formats.read(write_idx(tmp_path, arrays))
    prints = catalogue.fingerprints(content)
    assert catalogue.recognise(content, prints, None) is known
    declared = content._replace(classes=tuple("abcdefghij"))
    assert catalogue.recognise(declared, prints, None) is None
    assert catalogue.recognise(declared, prints, known) is known
    other = formats.read(write_idx(tmp_path, quartet(seed=7, classes=5)))
    assert catalogue.recognise(other, catalogue.fingerprints(other), known) is None
    half = content._replace(test=None)
    assert catalogue.recognise(half, catalogue.fingerprints(half), known) is None


@pytest.mark.parametrize("which", range(4))
def test_one_changed_file_among_known_ones_is_damage(tmp_path, monkeypatch, which):
    arrays = list(quartet())
    monkeypatch.setitem(KNOWN, "mnist", known_set(arrays))
    arrays[which] = arrays[which].copy()
    arrays[which].flat[5] ^= 1
    content = formats.read(write_idx(tmp_path, arrays))
    with pytest.raises(DataError) as caught:
        catalogue.recognise(content, catalogue.fingerprints(content), None)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / FILES[which]}.gz: expected MNIST's {FILES[which]} with")
    assert f"sha256 {KNOWN['mnist'].files[which].digest} (decompressed), found " in message
    assert Fingerprint(arrays[which]).digest("sha256") in message
    assert (
        "3 of the 4 files are those of MNIST, so this one is damaged or changed: replace it"
        in message
    )
    assert "classes.txt" in message


VERIFY_REFUSED = {
    "empty": (b"", "expected train-labels-idx1-ubyte, found an empty file"),
    "short": (idx.encode(np.zeros(9, np.uint8)), "expected the 48 bytes of train-labels-idx1-"),
    "other": (idx.encode(np.zeros(40, np.uint8)), "expected train-labels-idx1-ubyte with sha256 "),
}


@pytest.mark.parametrize("case", VERIFY_REFUSED)
def test_verify(case):
    arrays = quartet()
    file = known_set(arrays).files[1]
    catalogue.verify(file, idx.encode(arrays[1]), "here")
    raw, words = VERIFY_REFUSED[case]
    with pytest.raises(DataError, match=f"^here: {words}"):
        catalogue.verify(file, raw, "here")


def test_places(tmp_path, monkeypatch):
    mnist, fashion = KNOWN["mnist"], KNOWN["fashion-mnist"]
    assert catalogue.own_place(fashion) == Path("data/fashion-mnist")
    monkeypatch.setenv("ROWWISE_CACHE", str(tmp_path / "kept"))
    assert catalogue.cache_folder("mnist") == tmp_path / "kept" / "mnist"
    monkeypatch.delenv("ROWWISE_CACHE")
    assert catalogue.cache_folder("mnist").parts[-2:] == ("rowwise", "mnist")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KERAS_HOME", "TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    places = [path for _, path in catalogue.kept_copies(mnist)]
    assert tmp_path / ".keras/datasets/mnist.npz" in places
    assert tmp_path / ".cache/torch/datasets/MNIST/raw" in places
    assert Path("data/MNIST/raw") in places
    assert tmp_path / ".keras/datasets/fashion-mnist" in [
        path for _, path in catalogue.kept_copies(fashion)
    ]
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "k"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "t"))
    places = [path for _, path in catalogue.kept_copies(fashion)]
    assert tmp_path / "k/datasets/fashion-mnist" in places
    assert tmp_path / "t/datasets/FashionMNIST/raw" in places


def test_within(tmp_path):
    mnist, fashion = KNOWN["mnist"], KNOWN["fashion-mnist"]
    assert catalogue.within(tmp_path, mnist) == tmp_path
    inner = write_idx(tmp_path / "MNIST" / "raw", quartet())
    assert catalogue.within(tmp_path, mnist) == inner
    assert catalogue.within(tmp_path, fashion) == inner
    assert catalogue.within(tmp_path / "MNIST", mnist) == inner
    other = write_idx(tmp_path / "fashion-mnist", quartet())
    assert catalogue.within(tmp_path, fashion) == other
    assert catalogue.within(inner, fashion) == inner

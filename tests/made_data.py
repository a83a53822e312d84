"""Small data sets made for tests: pictures whose every byte follows from a seed."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from rowwise import idx, mirrors
from rowwise.catalogue import KNOWN, KnownFile, KnownSet

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def pictures(count, shape=(28, 28), *, seed=0):
    """Return uint8 [count, rows, columns] of noise, of which no two are alike."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def quartet(*, train=40, test=20, shape=(28, 28), classes=10, seed=0):
    """Return training pictures and labels, test pictures and labels; every class occurs."""
    draw = np.random.default_rng(seed)
    return (
        pictures(train, shape, seed=seed),
        draw.permutation(np.arange(train) % classes).astype(np.uint8),
        pictures(test, shape, seed=seed + 1),
        draw.permutation(np.arange(test) % classes).astype(np.uint8),
    )


def write_idx(folder: Path, arrays, *, packed=True, names=FILES) -> Path:
    """Write the four arrays (or the first of them) as IDX files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in zip(names, arrays, strict=False):
        raw = idx.encode(array)
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(raw, 1))
        else:
            (folder / name).write_bytes(raw)
    return folder


def write_pictures(folder: Path, images, labels, names) -> Path:
    """Write pictures as folder/NAME/NUMBER.png."""
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / names[label] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def write_csv(path: Path, images, labels, *, header=True) -> Path:
    """Write pictures as rows of label and pixels."""
    flat = images.reshape(len(images), -1)
    lines = [",".join(map(str, [label, *row])) for label, row in zip(labels, flat, strict=True)]
    names = ",".join(["label", *(f"pixel{i}" for i in range(flat.shape[1]))])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([names, *lines] if header else lines) + "\n")
    return path


def known_set(
    arrays, *, name="mnist", title="MNIST", classes="0123456789", algorithm="sha256", mirrors=()
) -> KnownSet:
    """Return the catalogue's entry for a made data set."""
    files = tuple(
        KnownFile(
            file, array.shape, algorithm, hashlib.new(algorithm, idx.encode(array)).hexdigest()
        )
        for file, array in zip(FILES, arrays, strict=True)
    )
    return KnownSet(name, title, tuple(classes), files, tuple(mirrors), title)


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its bytes, to see that nothing was changed."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def save_npz(path: Path, arrays) -> Path:
    """Write the four arrays as Keras does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = ("x_train", "y_train", "x_test", "y_test")
    np.savez(path, **dict(zip(names, arrays, strict=True)))
    return path


def holds(dataset, arrays) -> bool:
    """Return whether a data set has the pictures and labels of four arrays."""
    found = (
        dataset.train_images,
        dataset.train_labels,
        dataset.test_images,
        dataset.test_labels,
    )
    return all(np.array_equal(a, b) for a, b in zip(found, arrays, strict=True))


MNIST = quartet(seed=100)
FASHION = quartet(seed=200)
GARMENTS = tuple("abcdefghij")
CLOSED = ("http://127.0.0.1:9/",)


def empty_machine(tmp_path: Path, monkeypatch) -> Path:
    """Pretend a home without data or network, where MNIST and Fashion-MNIST are small made sets."""
    home = tmp_path / "home"
    (home / "work").mkdir(parents=True)
    monkeypatch.chdir(home / "work")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("ROWWISE_CACHE", str(home / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("ROWWISE_DATA", "KERAS_HOME", "TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(mirrors, "_PAUSE_S", 0.0)
    monkeypatch.setitem(KNOWN, "mnist", known_set(MNIST, mirrors=CLOSED))
    names = {"name": "fashion-mnist", "title": "FashionMNIST", "classes": GARMENTS}
    fashion = known_set(FASHION, **names, algorithm="md5", mirrors=CLOSED)
    monkeypatch.setitem(KNOWN, "fashion-mnist", fashion)
    return home

"""The public data sets that are known: their digests, mirrors, and where copies of them lie."""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rowwise import formats, idx
from rowwise.errors import DataError
from rowwise.formats import Content


class KnownFile(NamedTuple):
    """One IDX file of a known data set, told by the digest of its decompressed bytes."""

    name: str
    shape: tuple[int, ...]
    algorithm: str  # "sha256" or "md5"
    digest: str  # hex

    @property
    def size_bytes(self) -> int:
        """The length of the decompressed file."""
        return len(idx.header(self.shape)) + math.prod(self.shape)


@dataclass(frozen=True)
class KnownSet:
    """A public data set in the four files of MNIST: where it is found and how it is recognised."""

    name: str
    title: str
    classes: tuple[str, ...]
    files: tuple[KnownFile, ...]  # training pictures and labels, then test pictures and labels
    mirrors: tuple[str, ...]
    torchvision: str  # torchvision's name of its folder


def _files(algorithm: str, *digests: str) -> tuple[KnownFile, ...]:
    shapes = {
        "train-images-idx3-ubyte": (60_000, 28, 28),
        "train-labels-idx1-ubyte": (60_000,),
        "t10k-images-idx3-ubyte": (10_000, 28, 28),
        "t10k-labels-idx1-ubyte": (10_000,),
    }
    return tuple(
        KnownFile(name, shape, algorithm, digest)
        for (name, shape), digest in zip(shapes.items(), digests, strict=True)
    )


_MNIST = KnownSet(
    name="mnist",
    title="MNIST",
    classes=tuple("0123456789"),
    files=_files(
        "sha256",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://raw.githubusercontent.com/fgnt/mnist/master/",
    ),
    torchvision="MNIST",
)

# The next two are told by MD5 sums of the decompressed files, which is what others have published
# (for MNIST the same sources agree with the SHA-256 above). Only the labels of Fashion-MNIST could
# be compared with the files themselves here; docs/decisions/0002-data-files.md names the evidence.
_FASHION = KnownSet(
    name="fashion-mnist",
    title="Fashion-MNIST",
    classes=tuple(
        [
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ]
    ),
    files=_files(
        "md5",
        "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "9018921c3c673c538a1fc5bad174d6f9",
        "8181f5470baa50b63fa0f6fddb340f0a",
        "15d484375f8d13e6eb1aabb0c3f46965",
    ),
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
    torchvision="FashionMNIST",
)
_KMNIST = KnownSet(
    name="kmnist",
    title="KMNIST",
    classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    files=_files(
        "md5",
        "92be26ec9822e900ac425d0a0aa84ced",
        "949e75301f8813e0dc5800dcc320fc52",
        "bf305b8cd328700fbc17f5acbc2856d2",
        "9f55f451c0988b028eccdf7d5cc265ab",
    ),
    mirrors=(
        "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
    ),
    torchvision="KMNIST",
)
KNOWN: dict[str, KnownSet] = {known.name: known for known in (_MNIST, _FASHION, _KMNIST)}


class Fingerprint:
    """The digests of an array written as an IDX file, each computed once, when it is asked for.

    Args:
        array: uint8, labels [N] or pictures [N, rows, columns].
    """

    def __init__(self, array: NDArray[np.uint8]) -> None:
        self.shape: tuple[int, ...] = array.shape
        self._array = np.ascontiguousarray(array)
        self._digests: dict[str, str] = {}

    def digest(self, algorithm: str) -> str:
        """Return the hex digest, by `sha256` or `md5`, of the decompressed IDX file."""
        if algorithm not in self._digests:
            running = _new_hash(algorithm, idx.header(self.shape))
            running.update(self._array.data)
            self._digests[algorithm] = running.hexdigest()
        return self._digests[algorithm]

    def matches(self, file: KnownFile) -> bool:
        """Return whether this is the content of `file`."""
        return self.shape == file.shape and self.digest(file.algorithm) == file.digest


def verify(file: KnownFile, raw: bytes, source: Path | str) -> None:
    """Refuse bytes, plain or gzip, that do not decompress to the content of `file`.

    Args:
        file: what it must be.
        raw: the file as it was received or lies on disk.
        source: the name by which messages call it.

    Raises:
        DataError: empty, damaged, of another length, or of another digest.
    """
    if not raw:
        raise DataError(f"{source}: expected {file.name}, found an empty file")
    size = file.size_bytes
    promise = f"the {size:,} bytes of {file.name}"
    packed = idx.is_gzip(raw)
    content = idx.gunzip(raw, limit=size, source=source, promise=promise) if packed else raw
    if len(content) != size:
        raise DataError(f"{source}: expected {promise}, found {len(content):,}")
    found = _new_hash(file.algorithm, content).hexdigest()
    if found != file.digest:
        raise DataError(
            f"{source}: expected {file.name} with {file.algorithm} {file.digest} (decompressed), "
            f"found {found}"
        )


def fingerprints(content: Content) -> tuple[Fingerprint, ...]:
    """Return those of each part's pictures and labels, in the order of `KnownSet.files`."""
    return tuple(
        Fingerprint(array)
        for part in content.parts
        for array in (part.images, part.labels.astype(np.uint8))
    )


def recognise(
    content: Content, prints: tuple[Fingerprint, ...], wanted: KnownSet | None
) -> KnownSet | None:
    """Tell a known data set by its content; where some files are its own, the others are damaged.

    Args:
        content: what was read; class names in it declare a data set of one's own, which may share
            files with a known one, so only `wanted` is then looked for.
        prints: its fingerprints.
        wanted: the data set that was asked for by name.

    Returns:
        The data set of which it has all four files, or None.

    Raises:
        DataError: it has some of the four files of a known data set.
    """
    if len(content.parts) < 2:
        return None
    candidates = tuple(KNOWN.values()) if content.classes is None else ()
    for known in candidates or ((wanted,) if wanted else ()):
        hits = [print_.matches(file) for print_, file in zip(prints, known.files, strict=True)]
        if all(hits):
            return known
        if any(hits):
            raise DataError(
                f"{difference(content, prints, known)}; {sum(hits)} of the 4 files are those of "
                f"{known.title}, so this one is damaged or changed: replace it (data of your own "
                f"that shares files with {known.title} is declared by a {formats.CLASSES_FILE} "
                "beside it)"
            )
    return None


def difference(content: Content, prints: tuple[Fingerprint, ...], known: KnownSet) -> str:
    """Say, naming the first file that differs, what `known` has there and what was found."""
    paths = [path for part in content.parts for path in (part.images_path, part.labels_path)]
    if len(paths) < len(known.files):
        return f"{paths[0]}: expected {known.title}'s training and test part, found one part"
    for path, print_, file in zip(paths, prints, known.files, strict=True):
        expected = f"{path}: expected {known.title}'s {file.name}"
        if print_.shape != file.shape:
            sizes = [" × ".join(f"{n:,}" for n in shape) for shape in (file.shape, print_.shape)]
            return f"{expected} of {sizes[0]}, found {sizes[1]}"
        if not print_.matches(file):
            digest = print_.digest(file.algorithm)
            return f"{expected} with {file.algorithm} {file.digest} (decompressed), found {digest}"
    return f"{paths[0]}: expected {known.title}, and found it"


def cache_folder(name: str) -> Path:
    """Return the folder where downloads of a known data set are kept: `$ROWWISE_CACHE/name`."""
    import pooch

    root = os.environ.get("ROWWISE_CACHE", "").strip()
    return (Path(root).expanduser() if root else Path(pooch.os_cache("rowwise"))) / name


def own_place(known: KnownSet) -> Path:
    """Return the folder below the working folder that is kept for a known data set."""
    return Path("data") / known.name


def kept_copies(known: KnownSet) -> list[tuple[str, Path]]:
    """Return where programs keep copies: our cache, Keras, torchvision below its usual roots.

    Returns:
        Pairs of whose copy it is and the file or folder, which may not exist.
    """
    home = Path("~").expanduser()
    keras = Path(os.environ.get("KERAS_HOME") or home / ".keras") / "datasets"
    torch_cache = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "torch"
    torch = Path(os.environ.get("TORCH_HOME") or torch_cache)
    roots = (Path("data"), Path(), Path("datasets"), home / "data", torch / "datasets")
    return [
        ("the cache", cache_folder(known.name)),
        ("Keras' copy", keras / (f"{known.name}.npz" if known.name == "mnist" else known.name)),
        *(("torchvision's copy", root / known.torchvision / "raw") for root in roots),
    ]


def within(path: Path, known: KnownSet) -> Path:
    """Go down to a data set in a folder that keeps several, each in a folder of its own.

    Args:
        path: a file or folder.
        known: the data set that is looked for first.

    Returns:
        `path/NAME` or torchvision's `path/MNIST/raw`, where files lie there and none in `path`.
    """
    if not formats.holds_files(path):
        for one in (known, *KNOWN.values()):
            for inner in (one.name, f"{one.torchvision}/raw", "raw"):
                if formats.holds_files(path / inner):
                    return path / inner
    return path


def _new_hash(algorithm: str, start: bytes) -> hashlib._Hash:
    # MD5 is an identity here, not a defence, so machines in FIPS mode may compute it
    return hashlib.new(algorithm, start, usedforsecurity=algorithm != "md5")

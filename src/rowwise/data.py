"""Labelled pictures: find, download, verify, read, split; the door to every data set."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rowwise import formats, mirrors
from rowwise.catalogue import (
    KNOWN,
    Fingerprint,
    KnownSet,
    cache_folder,
    difference,
    fingerprints,
    kept_copies,
    own_place,
    recognise,
    within,
)
from rowwise.description import Description as Description
from rowwise.description import describe as describe
from rowwise.errors import BrokenExtra, DataError, DataMissing, MissingExtra, importing
from rowwise.formats import MAX_CLASSES, Content, Part

NAMES = (*KNOWN, "digits")

_HELD_OUT_SHARE = 0.2
_DIGEST_VERSION = 1


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled pictures in two parts, one to learn from and one to be judged by; read-only."""

    name: str  # "mnist", "fashion-mnist", "kmnist", "digits", or the stem of a user's own
    train_images: NDArray[np.uint8]  # [N, rows, columns], 0 is paper, 255 is ink
    train_labels: NDArray[np.int64]  # [N], places in `classes`
    test_images: NDArray[np.uint8]  # [M, rows, columns]
    test_labels: NDArray[np.int64]  # [M]
    classes: tuple[str, ...]  # 2 to 100 names
    source: str  # where it was found, one phrase
    digest: str  # SHA-256 over the content of both parts and the class names, in any file format
    fallback: str = ""  # where this is not the data set that was wished for: why
    added: int = 0  # how many of the last training pictures another data set gave: never held out

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of every picture."""
        rows, columns = self.train_images.shape[1:]
        return rows, columns


@dataclass(frozen=True, eq=False)
class Labelled:
    """One labelled part, to be judged by: labels are places in the network's `classes`."""

    images: NDArray[np.uint8]  # [N, rows, columns]
    labels: NDArray[np.int64]  # [N]
    classes: tuple[str, ...]
    source: str


def load(
    name: str | None = None,
    *,
    path: Path | None = None,
    download: bool = True,
    report: Callable[[str], None] | None = None,
    progress: bool = False,
) -> Dataset:
    """Find a data set, verify it and read it.

    Places are tried in this order: `path`; `$ROWWISE_DATA`; `./data/NAME`; the cache; the copies
    of Keras and torchvision; the mirrors. The first three are filled by people: what lies there is
    used or refused with the reason, never passed over, except that `$ROWWISE_DATA` may hold another
    known data set than `name`. Copies kept by programs are passed over when damaged.

    Args:
        name: "mnist", "fashion-mnist", "kmnist" or "digits". None: MNIST if it can be had, or else
            the digits of scikit-learn with `fallback` set; and whatever `path` or `$ROWWISE_DATA`
            hold.
        path: a file or folder of any format that `formats.read` knows.
        download: whether the mirrors may be asked.
        report: gets a line for each thing tried that failed or was passed over.
        progress: draw a progress bar of downloads on stderr.

    Returns:
        The data set; a single part is split 80/20 by `split`.

    Raises:
        DataMissing: a data set that was asked for by name is in no place and no mirror gave it.
        DataError: an unknown name, or data that is damaged or not what was asked for.
    """
    say = report or _say_nothing
    _check_name(name)
    if name == "digits":
        if path is not None:
            raise DataError(
                f"digits come with scikit-learn, not from {path}; leave one of them out"
            )
        return digits()
    known = KNOWN[name or "mnist"]
    if path is not None:
        return _open_as(Path(path), str(path), known, name)
    reasons: list[str] = []
    found = _from_environment(known, name, say)
    found = found or _find(known, reasons, say, download=download, progress=progress)
    return found or _substitute(known, reasons, name)


def load_labelled(
    path: Path,
    *,
    classes: tuple[str, ...],
    shape: tuple[int, int],
    part: Literal["train", "test"] = "test",
) -> Labelled:
    """Read labelled pictures of known classes: for a network to be judged by, or to learn from too.

    Args:
        path: a file or folder of any format that `formats.read` knows; one part is enough.
        classes: the names that the network knows. Data that names its own classes (folders,
            `classes.txt`, known data sets) is matched by name, other labels are places in these.
        shape: rows and columns that the network reads.
        part: the one that is taken of two.

    Returns:
        The pictures, with labels as places in `classes`.

    Raises:
        DataError: the data is damaged, of another shape, or has a class that the network lacks.
    """
    path = Path(path).expanduser()
    content = formats.read(within(path, KNOWN["mnist"]), partial=True)
    taken = content.parts[-1 if part == "test" else 0]
    if taken.images.shape[1:] != shape:
        raise DataError(
            f"{taken.images_path}: expected pictures of {formats.size_text(shape)} pixels, which "
            f"the network reads, found {formats.size_text(taken.images.shape)}"
        )
    known = recognise(content, fingerprints(content), None)
    own = known.classes if known else content.classes
    _check_labels(taken, len(own or classes), ", ".join((own or classes)[:12]))
    labels = taken.labels
    if own is not None:
        present = [own[i] for i in np.unique(labels)]
        foreign = [name for name in present if name not in classes]
        if foreign:
            raise DataError(
                f"{taken.labels_path}: expected the classes of the network "
                f"({', '.join(classes[:12])}), found {', '.join(foreign[:4])}"
            )
        places = np.array([classes.index(c) if c in classes else -1 for c in own], np.int64)
        labels = places[labels]
    return Labelled(taken.images, labels, classes, str(path))


def digits(reason: str = "") -> Dataset:
    """Return the 1,797 digits of 8×8 pixels that scikit-learn carries, split 80/20 by `split`.

    Their 17 grey levels 0..16 are spread over 0..255 (rounded).

    Args:
        reason: why they stand in for another data set; kept in `fallback`.

    Returns:
        The data set "digits".

    Raises:
        MissingExtra: scikit-learn is not installed.

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
    """
    with importing("scikit-learn", "study", module="sklearn"):
        from sklearn.datasets import load_digits
    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    part = Part(images, bunch.target.astype(np.int64), Path("digits"), Path("digits"))
    fallback = f"{reason}; these are the 1,797 digits of scikit-learn, 8×8 pixels" if reason else ""
    content = Content(part, None, tuple("0123456789"))
    prints = fingerprints(content)
    return _dataset("digits", content, "scikit-learn, split 80/20", prints, fallback)


def split(
    labels: NDArray[np.int64], *, share: float, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide items into a training and a held-out part, each class in proportion.

    The held-out part has round(N·share) items; classes get the whole of n·share each, and those
    with the largest remainders (the first among equals) one more. A class keeps at least one item
    to learn from, so a held-out part may be smaller where classes have one or two items. Items are
    drawn by the order of raw PCG64 numbers, which no release of numpy changes.

    Args:
        labels: int64 [N].
        share: of the held-out part, 0 < share < 1.
        seed: of the draw.

    Returns:
        The indices of the training items and of the held-out items, int64, each sorted.

    Raises:
        DataError: `share` is out of range, or one of the parts would be empty.
    """
    if not 0 < share < 1:
        raise DataError(f"expected a held-out share between 0 and 1, found {share}")
    order = np.argsort(np.random.PCG64(seed).random_raw(len(labels)), kind="stable")
    found, counts = np.unique(labels, return_counts=True)
    quotas = np.minimum(np.floor(counts * share).astype(np.int64), counts - 1)
    remainders = counts * share - np.floor(counts * share)
    left = round(len(labels) * share) - int(quotas.sum())
    for i in np.argsort(-remainders, kind="stable"):
        if left > 0 and quotas[i] + 1 < counts[i]:
            quotas[i] += 1
            left -= 1
    drawn = [order[labels[order] == c][:quota] for c, quota in zip(found, quotas, strict=True)]
    held = np.sort(np.concatenate(drawn)) if drawn else np.empty(0, np.int64)
    if len(held) == 0:
        raise DataError(
            f"expected enough items to hold out {share:.0%} of them, found {len(labels):,}"
        )
    return np.setdiff1d(np.arange(len(labels)), held), held.astype(np.int64)


class _Opened(NamedTuple):
    dataset: Dataset
    content: Content
    prints: tuple[Fingerprint, ...]


def _say_nothing(line: str) -> None:
    """Take a line that nobody wants."""


def _check_name(name: str | None) -> None:
    if name is not None and name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, 1)
        raise DataError(
            f"expected a data set named {', '.join(NAMES)}, found {name!r}; "
            + (f"did you mean {near[0]}?" if near else "data of your own is named by its path")
        )


def _substitute(known: KnownSet, reasons: list[str], name: str | None) -> Dataset:
    """Return the digits of scikit-learn, unless a data set was asked for by name."""
    why = f"{known.title} could not be had: {'; '.join(reasons)}"
    remedies = (
        f"put its four IDX files into {own_place(known)}, or name a copy (IDX, mnist.npz, CSV) "
        "with --data or ROWWISE_DATA, or let this machine reach a mirror"
    )
    if name is not None:
        raise DataMissing(f"{why}; {remedies}")
    try:
        return digits(why)
    except (MissingExtra, BrokenExtra) as missing:
        raise DataMissing(f"{why}; {remedies}; as a substitute, {missing}") from missing


def _from_environment(
    known: KnownSet, name: str | None, say: Callable[[str], None]
) -> Dataset | None:
    value = os.environ.get("ROWWISE_DATA", "").strip()
    if not value:
        return None
    source = f"ROWWISE_DATA={value}"
    opened = _open(Path(value), source, known, name)
    if name is None or opened.dataset.name == name:
        return opened.dataset
    if opened.dataset.name in KNOWN:
        say(f"{source} holds {opened.dataset.name}, not {name}, which is looked for elsewhere")
        return None
    raise _mismatch(opened, known)


def _find(
    known: KnownSet,
    reasons: list[str],
    say: Callable[[str], None],
    *,
    download: bool,
    progress: bool,
) -> Dataset | None:
    """Look where the data set itself, and no other, is kept; then ask the mirrors."""
    place = own_place(known)
    if formats.holds_files(place):
        opened = _open(place, str(place), known, known.name)
        if opened.dataset.name == known.name:
            return opened.dataset
        raise DataError(
            f"{difference(opened.content, opened.prints, known)}; {place} is kept for "
            f"{known.title}: name data of your own with --data or ROWWISE_DATA"
        )
    for source, kept in kept_copies(known):
        try:
            if os.path.isfile(kept) or formats.holds_files(kept):
                return _open_as(kept, f"{source} {kept}", known, known.name)
        except DataError as error:
            reasons.append(str(error))
            say(f"passed over {source}: {error}")
    if not download:
        reasons.append("not on this machine, and downloading is turned off")
        return None
    cache = cache_folder(known.name)
    try:
        hosts = mirrors.fetch(known, cache, report=say, progress=progress)
    except DataMissing as error:
        reasons.append(str(error))
        return None
    source = f"downloaded from {', '.join(hosts)}" if hosts else f"the cache {cache}"
    return _open_as(cache, source, known, known.name)


def _open_as(path: Path, source: str, known: KnownSet, name: str | None) -> Dataset:
    opened = _open(path, source, known, name)
    if name is not None and opened.dataset.name != name:
        raise _mismatch(opened, known)
    return opened.dataset


def _open(path: Path, source: str, known: KnownSet, name: str | None) -> _Opened:
    path = within(path.expanduser(), known)
    content = formats.read(path)
    prints = fingerprints(content)
    found = recognise(content, prints, known if name else None)
    if found:
        dataset = _dataset(found.name, content._replace(classes=found.classes), source, prints)
    else:
        source += ", split 80/20" if len(content.parts) == 1 else ""
        dataset = _dataset(_own_name(path), content, source, prints)
    return _Opened(dataset, content, prints)


def _mismatch(opened: _Opened, known: KnownSet) -> DataError:
    source, name = opened.dataset.source, opened.dataset.name
    if name in KNOWN:
        found = f"{source}: expected {known.name}, found {name}"
    else:
        found = difference(opened.content, opened.prints, known)
    return DataError(
        f"{found}; give a copy of {known.title}, or leave the name {known.name} out to use data "
        "of your own"
    )


def _own_name(path: Path) -> str:
    resolved = path.resolve()
    name = resolved.name
    if path.is_file():
        is_idx = "-ubyte" in name
        name = resolved.parent.name if is_idx else name.removesuffix(".gz").rpartition(".")[0]
    # a folder called mnist does not make its content MNIST
    return f"own-{name}".rstrip("-") if name in ("", *NAMES) else name


def _dataset(
    name: str, content: Content, source: str, prints: tuple[Fingerprint, ...], fallback: str = ""
) -> Dataset:
    classes = _classes(content)
    for part in content.parts:
        _check_labels(part, len(classes), ", ".join(classes[:12]))
    train, test = content.train, content.test
    if train is None or test is None:
        train, test = _halves(content.parts[0])
        prints = fingerprints(Content(train, test, classes))
    arrays = (train.images, train.labels, test.images, test.labels)
    for array in arrays:
        array.setflags(write=False)
    body = {
        "version": _DIGEST_VERSION,
        "files": [print_.digest("sha256") for print_ in prints],
        "classes": classes,
    }
    digest = hashlib.sha256(json.dumps(body, separators=(",", ":")).encode()).hexdigest()
    return Dataset(name, *arrays, classes, source, digest, fallback)


def _halves(part: Part) -> tuple[Part, Part]:
    try:
        kept, held = split(part.labels, share=_HELD_OUT_SHARE)
    except DataError as error:
        raise DataError(
            f"{part.images_path}: {error}; give more, or add these to a data set, as in "
            f"--data mnist --data {part.images_path.name}"
        ) from error
    train, test = (
        part._replace(images=part.images[at], labels=part.labels[at]) for at in (kept, held)
    )
    return train, test


def _classes(content: Content) -> tuple[str, ...]:
    """Return the declared class names, or 0..C-1 where every number occurs."""
    classes = content.classes
    at = content.parts[0].labels_path
    if classes is None:
        counts = np.bincount(np.concatenate([part.labels for part in content.parts]))
        learned = np.bincount(content.parts[0].labels, minlength=len(counts))
        gaps = np.flatnonzero(learned == 0)
        if len(gaps):
            raise DataError(
                f"{at}: expected training pictures of every class 0..{len(counts) - 1}, the "
                f"largest label, found none of class {gaps[0]}; a label is wrong, or the classes "
                f"need names in a {formats.CLASSES_FILE} beside the files"
            )
        classes = tuple(str(i) for i in range(len(counts)))
    if not 2 <= len(classes) <= MAX_CLASSES:
        raise DataError(f"{at}: expected 2 to {MAX_CLASSES} classes, found {len(classes)}")
    strange = [name for name in classes if not name.isprintable() or len(name) > 100]
    if strange:
        raise DataError(f"{at}: expected class names of printable text, found {strange[0]!r:.60}")
    return classes


def _check_labels(part: Part, count: int, names: str) -> None:
    wrong = np.flatnonzero(part.labels >= count)
    if len(wrong):
        raise DataError(
            f"{part.labels_path}: expected labels 0..{count - 1} ({names}), found "
            f"{part.labels[wrong[0]]} at item {wrong[0]}"
            + (f" and {len(wrong) - 1:,} more" if len(wrong) > 1 else "")
        )

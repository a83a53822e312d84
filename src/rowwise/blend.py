"""Several data sets learnt from as one: the first decides, the others add to what is learnt."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rowwise import data
from rowwise.data import Dataset, Labelled
from rowwise.errors import DataError

SHARE = 0.05  # of what is learnt, that an addition is to make up
MOST_TIMES = 100  # that its pictures are repeated for that, each distorted anew where asked for
_DIGEST_VERSION = 1
_AND = "+"


def load(
    places: Sequence[str],
    *,
    name: str | None = None,
    report: Callable[[str], None] | None = None,
    progress: bool = False,
) -> Dataset:
    """Find data sets and make one of them.

    Args:
        places: each a file or folder, or the name of a known data set where no such file is. The
            first gives classes, size, and the pictures that are held out and tested on. Of the
            others the training part is learnt from too; see `add`. None: the one named `name`.
        name: the data set that the first must be; MNIST where there is no place either.
        report: gets a line for each thing tried that failed or was passed over.
        progress: draw a progress bar of downloads on stderr.

    Returns:
        The data set.

    Raises:
        DataError: one of them cannot be had, or an addition has other classes or another size.
    """
    path = Path(places[0]) if places and _known(places[0]) is None else None
    known = _known(places[0]) if places else name or "mnist"
    if known and name and known != name:
        raise DataError(f"the first data is the data set that was named, {name}, got {known}")
    whole = data.load(known or name, path=path, report=report, progress=progress)
    for place in places[1:]:
        whole = add(whole, _addition(place, whole), name=_name(place))
    return whole


def add(first: Dataset, addition: Labelled, *, name: str) -> Dataset:
    """A data set with labelled pictures added to those that are learnt from.

    A handful among thousands would teach nothing, so each is repeated until they make up SHARE of
    all, at most MOST_TIMES. They stand last, `Dataset.added` counts them, and none is held out:
    what a training is judged by stays that of `first`.
    """
    count = len(addition.labels)
    wanted = SHARE / (1 - SHARE) * len(first.train_labels)
    times = max(1, min(MOST_TIMES, math.ceil(wanted / count)))
    images = np.concatenate([first.train_images, *[addition.images] * times])
    labels = np.concatenate([first.train_labels, *[addition.labels] * times])
    for array in (images, labels):
        array.setflags(write=False)
    told = f"{count:,} picture{'s' if count > 1 else ''}" + (f", {times} times" * (times > 1))
    return replace(
        first,
        name=f"{first.name}{_AND}{name}",
        train_images=images,
        train_labels=labels,
        source=f"{first.source} + {addition.source} ({told})",
        digest=_digest(first, addition, times),
        added=first.added + count * times,
    )


def is_joined(name: str) -> bool:
    """Whether a data set's name is one that `add` gave."""
    return _AND in name


def parts(name: str) -> list[str]:
    """The names of the data sets that one of this name is made of."""
    return name.split(_AND) if name else []


def _known(place: str) -> str | None:
    return place if place in data.NAMES and not Path(place).exists() else None


def _name(place: str) -> str:
    return _known(place) or Path(place).expanduser().resolve().name or "root"


def _addition(place: str, first: Dataset) -> Labelled:
    if (known := _known(place)) is None:
        return data.load_labelled(
            Path(place), classes=first.classes, shape=first.shape, part="train"
        )
    other = data.load(known)
    if other.classes != first.classes or other.shape != first.shape:
        raise DataError(
            f"{place}: expected the classes and size of {first.name} "
            f"({', '.join(first.classes[:12])}; {first.shape[0]}×{first.shape[1]}), found "
            f"{', '.join(other.classes[:12])}; {other.shape[0]}×{other.shape[1]}"
        )
    return Labelled(other.train_images, other.train_labels, other.classes, other.source)


def _digest(first: Dataset, addition: Labelled, times: int) -> str:
    content = hashlib.sha256(addition.images.tobytes())
    content.update(addition.labels.astype(np.uint8).tobytes())
    body = {
        "version": _DIGEST_VERSION,
        "first": first.digest,
        "shape": addition.images.shape,
        "added": content.hexdigest(),
        "times": times,
    }
    return hashlib.sha256(json.dumps(body, separators=(",", ":")).encode()).hexdigest()

"""Which ink mattered: is the map of importance true?

What it measures. Of each of some held-out digits that are read rightly, the tenth of the ink (by
mass, the sum of the grey levels) that `explain.importance` calls most important is taken away, and
the picture is read again; beside it, a tenth drawn at random, in two ways: single pixels, and the
ink nearest to a random place of the ink, which is a hole as connected as the map's are. Counted is
how many readings flip to another digit. A map that is true flips many times as many as chance: the
ratio of the two counts, with a 95 % interval by resampling the pictures 2,000 times. Of a random
draw there are several a picture (--draws), whose flips are averaged. `seconds` are those of a map.

The last pixel is taken in part, so that the mass taken is the same to the grey level. What is left
is read as it is, without being normalised anew: it is the ink that is asked about, not its place.

    python benchmarks/faithfulness.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from keras_study import write_results
from measuring import say, spread
from numpy.typing import NDArray
from trials import digits, head, parse, parser, recogniser, share

Bytes = NDArray[np.uint8]
Rng = np.random.Generator

TENTH = 0.1
RESAMPLES = 2000
STREAM = 0xFA17


def without(image: Bytes, order: NDArray[np.int64], part: float = TENTH) -> Bytes:
    """A picture without a part of its ink's mass, taken pixel by pixel in an order of places."""
    flat = image.ravel().astype(np.int64)
    budget = round(part * int(flat.sum()))
    before = np.cumsum(flat[order]) - flat[order]
    taken = np.clip(budget - before, 0, flat[order])
    left = flat.copy()
    left[order] -= taken
    return left.reshape(image.shape).astype(np.uint8)


def by_importance(image: Bytes, ink: NDArray[Any]) -> NDArray[np.int64]:
    """Places of the ink, the most important first; among equals the darker ones last."""
    return np.lexsort((-image.ravel().astype(np.int64), -ink.ravel()))


def by_chance(image: Bytes, rng: Rng) -> NDArray[np.int64]:
    """Places of the ink in a random order, those without ink last."""
    drawn = rng.random(image.size) + (image.ravel() == 0)
    return np.argsort(drawn, kind="stable")


def around_a_place(image: Bytes, rng: Rng) -> NDArray[np.int64]:
    """Places by their distance to one of the ink's."""
    row, column = np.divmod(np.arange(image.size), image.shape[1])
    inked = np.flatnonzero(image.ravel())
    middle = inked[int(rng.integers(len(inked)))]
    return np.argsort(np.hypot(row - row[middle], column - column[middle]), kind="stable")


CHANCES: dict[str, Callable[[Bytes, Rng], NDArray[np.int64]]] = {
    "pixels": by_chance,
    "hole": around_a_place,
}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Take the ink away, read again, and count."""
    from rowwise.explain import importance

    model = recogniser(options)
    images, labels = digits(options)
    said = model.probabilities(model.fitted(images)).argmax(1)
    right = np.flatnonzero(said == labels)
    images, said = images[right], said[right]
    rng = np.random.default_rng([STREAM, options.seed])
    seconds, flips = [], []
    chances: dict[str, list[Any]] = {name: [] for name in CHANCES}
    for image, digit in zip(images, said, strict=True):
        start = time.perf_counter()
        ink = importance(model, image, int(digit))
        seconds.append(time.perf_counter() - start)
        spoilt = [without(image, by_importance(image, ink))]
        for draw in CHANCES.values():
            spoilt += [without(image, draw(image, rng)) for _ in range(options.draws)]
        flipped = model.probabilities(model.fitted(np.stack(spoilt))).argmax(1) != digit
        flips.append(float(flipped[0]))
        for i, name in enumerate(CHANCES):
            first = 1 + i * options.draws
            chances[name].append(flipped[first : first + options.draws].mean())
    results = head(model, options) | {"count": len(images), "draws": options.draws}
    results["tenth"] = TENTH
    results["seconds"] = {k: v for k, v in spread(seconds).items() if k != "values"}
    results["most_important"] = share(int(sum(flips)), len(flips))
    results["by_chance"] = {
        name: {"share": round(float(np.mean(found)), 6), "ratio": ratio(flips, found, rng)}
        for name, found in chances.items()
    }
    return results


def ratio(flips: list[float], chance: list[Any], rng: Rng) -> dict[str, float | None]:
    """The quotient of two means over pictures and its interval; None where nothing flips."""
    ours, theirs = np.asarray(flips), np.asarray(chance)

    def quotient(of: Any, by: Any) -> float | None:
        return round(float(of / by), 2) if by else None

    picks = rng.integers(0, len(ours), (RESAMPLES, len(ours)))
    over, under = ours[picks].mean(1), theirs[picks].mean(1)
    drawn = np.sort(np.where(under > 0, over / np.maximum(under, 1e-12), np.inf))
    low, high = drawn[int(0.025 * RESAMPLES)], drawn[int(0.975 * RESAMPLES) - 1]
    return {
        "value": quotient(ours.mean(), theirs.mean()),
        "low": round(float(low), 2) if np.isfinite(low) else None,
        "high": round(float(high), 2) if np.isfinite(high) else None,
    }


def main() -> None:
    """Measure and write the results."""
    made = parser("Whether the map of importance is true.", "faithfulness.json", count=1000)
    made.add_argument("--draws", type=int, default=20, help="random tenths a picture (default 20)")
    options = parse(made)
    results = measure(options)
    say(f"most important: {results['most_important']}")
    for name, found in results["by_chance"].items():
        say(f"by chance, {name}: {found}")
    say(f"seconds a map: {results['seconds']}")
    write_results(options.out, results)


if __name__ == "__main__":
    main()

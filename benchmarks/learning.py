"""Learning from corrections: is a corrected digit learnt, and is nothing else forgotten?

What it measures. Of the held-out digits that a model misreads some are drawn at random, given their
right labels as a person would (`corrections.keep`), and learnt beside MNIST as `rowwise train
--init-from MODEL --data mnist --data FOLDER` does it; beside that the same with the learning rate
that the model was trained with. Counted, before and after:

- the held-out digits that were not corrected and are misread: what was forgotten;
- the corrected digits that are read rightly;
- the same with each corrected digit moved and bent anew, as the model's recipe does it (--copies):
  whether the shape was learnt, and not the pixels.

Each trial draws other digits and has another seed. The held-out digits chose the model's recipe and
its temperature, and here they are corrected: the figures compare before with after, and are none of
a model's accuracy.

    python benchmarks/learning.py
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from keras_study import write_results
from measuring import say
from trials import VALIDATION, head, mnist, parse, parser, recogniser, share

from rowwise import augment, blend, corrections, data, start
from rowwise.config import Augmentation, Experiment
from rowwise.data import Dataset, Labelled
from rowwise.train import Start, beliefs, fit

COUNTS = (1, 10)  # corrected digits
STREAM = 0x1EA2


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Both recipes, every number of corrections, every trial."""
    whole = mnist(options)
    found = start.find(options.model)
    _, held = data.split(whole.train_labels, share=VALIDATION)
    images, labels = whole.train_images[held], whole.train_labels[held]
    misread = np.flatnonzero(read(found, found.weights, images, options) != labels)
    results = head(recogniser(options), options) | {"copies": options.copies, "held_out": len(held)}
    results |= {"misread": len(misread), "trials": options.trials, "quick": options.quick}
    gentle = start.onward(found.experiment)
    recipes = {"gentle": gentle, "own rate": at_own_rate(gentle, found.experiment)}
    results["epochs"] = gentle.epochs
    results["rates"] = {name: each.optimizer.learning_rate for name, each in recipes.items()}
    results["lessons"] = []
    for count in COUNTS:
        for trial in range(options.trials):
            rng = np.random.default_rng([STREAM, options.seed, count, trial])
            chosen = np.sort(rng.permutation(misread)[:count])
            taught = images[chosen], labels[chosen]
            copies = moved(*taught, found.experiment, options.copies, rng)
            judged = {
                "others": (np.delete(images, chosen, 0), np.delete(labels, chosen)),
                "corrected": taught,
                "again": copies,
            }
            lesson = learn(whole, taught, options)
            for name, recipe in recipes.items():
                seeded = recipe.with_overrides([f"seed={options.seed + trial}"])
                begun = time.perf_counter()
                result = fit(seeded, lesson, init_from=found, threads=options.threads)
                one = {"corrections": count, "trial": trial, "recipe": name}
                one["seconds"] = round(time.perf_counter() - begun, 1)
                for when, weights in (("before", found.weights), ("after", result.weights)):
                    one[when] = {
                        what: right(found, weights, *part, options) for what, part in judged.items()
                    }
                say(f"{count} corrected, trial {trial}, {name}: {told(one)}")
                results["lessons"].append(one)
    return results


def at_own_rate(gentle: Experiment, own: Experiment) -> Experiment:
    """The gentle recipe at the rate that the model was trained with."""
    return gentle.with_overrides([f"optimizer.learning_rate={own.optimizer.learning_rate}"])


def learn(whole: Dataset, taught: tuple[Any, Any], options: argparse.Namespace) -> Dataset:
    """MNIST and the corrected digits, by way of the folder that a person's corrections lie in."""
    if options.quick:
        few = whole.train_images[:2000], whole.train_labels[:2000]
        whole = Dataset("few", *few, whole.test_images, whole.test_labels, whole.classes, "", "")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "mine"
        for digit, label in zip(*taught, strict=True):
            name = whole.classes[label]
            corrections.keep(place, digit, label=name, classes=whole.classes)
        kept: Labelled = data.load_labelled(
            place, classes=whole.classes, shape=whole.shape, part="train"
        )
        return blend.add(whole, kept, name="mine")


def moved(
    images: Any, labels: Any, experiment: Experiment, copies: int, rng: np.random.Generator
) -> tuple[Any, Any]:
    """Each digit so many times, moved and bent."""
    how = experiment.augmentation or Augmentation(rotation_deg=10.0, scale=0.1, shift_px=1.0)
    return augment.move(np.repeat(images, copies, 0), how, rng), np.repeat(labels, copies)


def read(found: Start, weights: Any, images: Any, options: argparse.Namespace) -> Any:
    """The answers, int64 [N]."""
    from rowwise.network import Network

    network = Network(found.experiment, found.shape, len(found.classes))
    return beliefs(network, weights, images, threads=options.threads)[0][:, -1].argmax(1)


def right(
    found: Start, weights: Any, images: Any, labels: Any, options: argparse.Namespace
) -> dict[str, Any]:
    """How many are read rightly."""
    return share(int((read(found, weights, images, options) == labels).sum()), len(labels))


def told(one: dict[str, Any]) -> str:
    """A lesson in a line."""
    return ", ".join(
        f"{what} {one['before'][what]['count']} to {one['after'][what]['count']} "
        f"of {one['after'][what]['of']}"
        for what in one["after"]
    )


def main() -> None:
    """Measure and write the results."""
    made = parser("What learning from corrections gains and costs.", "learning.json")
    made.add_argument("--trials", type=int, default=3, help="of each number (default 3)")
    made.add_argument("--copies", type=int, default=20, help="of a corrected digit (default 20)")
    options = parse(made)
    if options.quick:
        options.trials = 1
    write_results(options.out, measure(options))


if __name__ == "__main__":
    main()

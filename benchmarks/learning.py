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
import itertools
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
from rowwise.data import Dataset
from rowwise.network import Weights
from rowwise.train import beliefs, fit

COUNTS = (1, 10)  # corrected digits
STREAM = 0x1EA2


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Both recipes, every number of corrections, every trial."""
    whole, found, model = mnist(options), start.find(options.model), recogniser(options)
    _, held = data.split(whole.train_labels, share=VALIDATION)
    images, labels = whole.train_images[held], whole.train_labels[held]

    def answers(weights: Weights, pictures: Any) -> Any:
        told, _ = beliefs(model.model.network, weights, pictures, threads=options.threads)
        return told[:, -1].argmax(1)

    misread = np.flatnonzero(answers(found.weights, images) != labels)
    gentle = start.onward(found.experiment)
    own = gentle.with_overrides(
        [f"optimizer.learning_rate={found.experiment.optimizer.learning_rate}"]
    )
    recipes = {"gentle": gentle, "own rate": own}
    results = head(model, options) | {
        "quick": options.quick,
        "held_out": len(held),
        "misread": len(misread),
        "trials": options.trials,
        "copies": options.copies,
        "epochs": gentle.epochs,
        "rates": {name: each.optimizer.learning_rate for name, each in recipes.items()},
        "lessons": [],
    }
    for count, trial in itertools.product(COUNTS, range(options.trials)):
        rng = np.random.default_rng([STREAM, options.seed, count, trial])
        chosen = np.sort(rng.permutation(misread)[:count])
        taught = images[chosen], labels[chosen]
        judged = {
            "others": (np.delete(images, chosen, 0), np.delete(labels, chosen)),
            "corrected": taught,
            "again": moved(*taught, found.experiment, options.copies, rng),
        }

        def right(weights: Weights, parts: dict[str, Any] = judged) -> dict[str, Any]:
            return {
                what: share(int((answers(weights, pictures) == truth).sum()), len(truth))
                for what, (pictures, truth) in parts.items()
            }

        before, lesson = right(found.weights), joined(whole, *taught, options)
        for name, recipe in recipes.items():
            seeded = recipe.with_overrides([f"seed={options.seed + trial}"])
            begun = time.perf_counter()
            result = fit(seeded, lesson, init_from=found, threads=options.threads)
            one = {"corrections": count, "trial": trial, "recipe": name}
            one["seconds"] = round(time.perf_counter() - begun, 1)
            one |= {"before": before, "after": right(result.weights)}
            say(f"{count} corrected, trial {trial}, {name}: {told(one)}")
            results["lessons"].append(one)
    return results


def joined(whole: Dataset, images: Any, labels: Any, options: argparse.Namespace) -> Dataset:
    """MNIST and the corrected digits, by way of the folder that a person's corrections lie in."""
    if options.quick:
        few = whole.train_images[:2000], whole.train_labels[:2000]
        whole = Dataset("few", *few, whole.test_images, whole.test_labels, whole.classes, "", "")
    classes = whole.classes
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "mine"
        for digit, label in zip(images, labels, strict=True):
            corrections.keep(place, digit, label=classes[label], classes=classes)
        kept = data.load_labelled(place, classes=classes, shape=whole.shape, part="train")
        return blend.add(whole, kept, name="mine")


def moved(
    images: Any, labels: Any, experiment: Experiment, copies: int, rng: np.random.Generator
) -> tuple[Any, Any]:
    """Each digit so many times, moved and bent."""
    how = experiment.augmentation or Augmentation(rotation_deg=10.0, scale=0.1, shift_px=1.0)
    return augment.move(np.repeat(images, copies, 0), how, rng), np.repeat(labels, copies)


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

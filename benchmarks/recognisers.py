"""The models that ship: accuracy on MNIST's test pictures by seed, calibration, promises kept.

What it measures. Each finished run of the study `recognisers` is packed as the model that ships was
(temperature and thresholds from the pictures that it held out) and reads the 10,000 test pictures:

- accuracy by seed, their mean with Student's interval at 95 % over seeds; of a single seed Wilson's
  interval of its one accuracy, over pictures;
- the expected calibration error (15 bins; Guo et al. 2017) before and after the temperature;
- at each promised error rate the share that is accepted and the share of these that is wrong;
- of a model that answers after each row: accuracy, mean confidence and calibration error by row.

For the model that ships under the same name, whether its weights are those of seed 0, and the same
figures with every picture going through `image.normalise`, as a user's picture does.

`--shipped` measures the models that ship anew, where what is read of a picture has changed and
their weights have not; the seeds' figures stay as they are in the results.

The test pictures choose nothing: run it once a release, when the models are made.

    python benchmarks/recognisers.py --runs runs/recognisers
    python benchmarks/recognisers.py --shipped
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from keras_study import write_results
from measuring import say
from trials import head, mnist, parse, parser, share

from rowwise import metrics
from rowwise.calibration import temper
from rowwise.comparison import mean_interval
from rowwise.data import Dataset
from rowwise.model import Model, shipped
from rowwise.packing import pack
from rowwise.recognise import Recogniser
from rowwise.runs import Run

ROUND = 6


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All networks of the study that have a finished run; with --shipped those of the results."""
    data = mnist(options)
    if options.shipped:
        results = json.loads(options.out.read_text(encoding="utf-8"))
        for name, found in results["networks"].items():
            same = found["shipped"]["is_seed_0"]
            found["shipped"] = ours(name, data, options) | {"is_seed_0": same}
        return dict(results)
    results = {"format": 1, "pictures": len(data.test_labels), "networks": {}}
    for name, runs in finished(options.runs).items():
        results["networks"][name] = network(name, runs, data, options)
    return results


def finished(folder: Path) -> dict[str, list[Run]]:
    """Finished runs by the name of their experiment, in the order of their seeds."""
    found: dict[str, list[Run]] = {}
    for place in sorted(folder.glob("*-s*")):
        run = Run.open(place)
        if run.ended:
            found.setdefault(run.name, []).append(run)
    if not found:
        raise SystemExit(f"{folder} holds no finished run; make model NAME=rows makes one")
    return {name: sorted(runs, key=lambda run: run.seed) for name, runs in sorted(found.items())}


def network(
    name: str, runs: list[Run], data: Dataset, options: argparse.Namespace
) -> dict[str, Any]:
    """Every seed, their mean, and the model that ships."""
    seeds = []
    for run in runs:
        model = Recogniser(pack(run, data, threads=options.threads), threads=options.threads)
        seeds.append(one_seed(model, data) | {"seed": run.seed})
        say(f"{name}, seed {run.seed}: {100 * seeds[-1]['accuracy']['share']:.2f} %")
    found: dict[str, Any] = {"seeds": seeds}
    if len(seeds) > 1:
        told = mean_interval([one["accuracy"]["share"] for one in seeds])
        found["mean"] = {"value": told.mean, "low": told.low, "high": told.high, "n": told.n}
    if name in shipped():
        ships, first = Model.load(name), runs[0]
        same = all(
            np.array_equal(ships.weights[key], value) for key, value in first.weights().items()
        )
        found["shipped"] = ours(name, data, options) | {"is_seed_0": first.seed == 0 and same}
    return found


def one_seed(model: Recogniser, data: Dataset) -> dict[str, Any]:
    """One model on the test pictures as they are."""
    told = model.probabilities(data.test_images)
    raw = temper(told, 1 / model.model.card.temperature)
    found = judged(model, data, told) | {
        "held_out": dict(model.model.card.figures),
        "temperature": model.model.card.temperature,
        "calibration_error_untempered": ece(data.test_labels, raw),
    }
    if model.model.network.steps == model.model.network.shape[0]:
        found["by_row"] = by_row(model.beliefs(data.test_images), data.test_labels)
    return found


def judged(model: Recogniser, data: Dataset, told: Any, doubt: Any = False) -> dict[str, Any]:
    """Accuracy, calibration, and every promise, of probabilities [N, C].

    `doubt` bool [N] says which pictures are not accepted however sure their answers are.
    """
    right = metrics.is_correct(data.test_labels, told)
    confidence = told.max(-1)
    promises = []
    for one in model.model.card.promises:
        taken = (confidence >= one.confidence) & ~np.broadcast_to(doubt, right.shape)
        promises.append(
            {
                "error_rate": one.error_rate,
                "confidence": one.confidence,
                "coverage": share(int(taken.sum()), len(taken)),
                "error": share(int((taken & ~right).sum()), int(taken.sum())),
            }
        )
    return {
        "accuracy": share(int(right.sum()), len(right)),
        "calibration_error": ece(data.test_labels, told),
        "promises": promises,
    }


def by_row(beliefs: Any, labels: Any) -> list[dict[str, float]]:
    """Accuracy, mean confidence and calibration error after each row, of beliefs [N, T, C]."""
    found = []
    for step in range(beliefs.shape[1]):
        told = beliefs[:, step]
        found.append(
            {
                "accuracy": round(metrics.accuracy(labels, told), ROUND),
                "confidence": round(float(told.max(-1).mean()), ROUND),
                "calibration_error": ece(labels, told),
            }
        )
    return found


def ece(labels: Any, told: Any) -> float:
    """The expected calibration error."""
    return round(metrics.calibration(labels, told).expected_error, ROUND)


def ours(name: str, data: Dataset, options: argparse.Namespace) -> dict[str, Any]:
    """The model that ships, its pictures normalised."""
    model = Recogniser(Model.load(name), threads=options.threads)
    readings = model.read_fields(data.test_images)
    found = np.array([one.picture is not None for one in readings])
    nothing = np.zeros_like(data.test_images[0])
    digits = np.stack([nothing if one.picture is None else one.picture for one in readings])
    told = np.stack([one.probabilities for one in readings])
    sure = np.array([one.confidence >= (model.threshold or 1) for one in readings])
    doubt = sure & ~np.array([one.accepted for one in readings])
    unchanged = (digits == data.test_images).all((1, 2))
    return (
        head(model, options)
        | judged(model, data, told, doubt)
        | {
            "unchanged": share(int(unchanged.sum()), len(unchanged)),
            "without_ink": int((~found).sum()),
        }
    )


def main() -> None:
    """Measure and write the results."""
    made = parser("The models that ship, on MNIST's test pictures.", "recognisers.json")
    made.add_argument("--runs", type=Path, default=Path("runs/recognisers"), help="their study")
    made.add_argument("--shipped", action="store_true", help="only the models that ship, anew")
    options = parse(made)
    write_results(options.out, measure(options))


if __name__ == "__main__":
    main()

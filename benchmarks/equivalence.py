"""May bfloat16 stand in for float32? An equivalence test (TOST) on each network of the study.

What it compares. Validation accuracy after training in bfloat16 and in float32 on the native
engine, paired by seed: the same initial weights, order of pictures and dropout. The validation
pictures are a tenth of the training pictures, held out by class; the test images are not looked at.

How, network by network:
1. A pilot of five seeds in both precisions gives the spread of the paired difference, and its upper
   80 % limit.
2. From that limit the number of fresh seeds is chosen and written down before any of them is
   trained: the least with which the test has 90 % power if there is no difference. The margin is
   0.5 points for simple RNNs and 0.2 points for the others.
3. The fresh seeds are trained in both precisions. The pilot's are not counted again. bfloat16 is
   called equivalent where the 90 % interval of the mean difference lies inside the margin.
A training that diverges counts with the accuracy that it has.

What it means, with references: docs/statistics.md. The JSON file is rewritten after each training,
and the script goes on where it was stopped; the table is written beside it (.md).

    python benchmarks/equivalence.py --data FOLDER --out benchmarks/results/equivalence.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rowwise import __version__, core, data, engines, equivalence, files, session
from rowwise.config import Experiment, Recurrent, shipped_studies
from rowwise.data import Dataset
from rowwise.environment import processor
from rowwise.errors import RowwiseError
from rowwise.network import Network

FORMAT = 1
PRECISIONS = ("float32", "bfloat16")
PILOT = range(5)
FRESH_FROM = 1000  # the first fresh seed, far from the pilot's
LEAST_SEEDS = 5  # whatever the spread: the test takes differences as normal
POWER, ALPHA = 0.9, 0.05
HELD_OUT = 0.1
MARGIN_SIMPLE_RNN, MARGIN = 0.005, 0.002
STEPS_A_CALL = 100

Tree = dict[str, Any]
Pairs = dict[str, dict[str, float]]  # seed -> precision -> validation accuracy
Train = Callable[[Experiment, str], float]

# --- one training -----------------------------------------------------------------------------


def validation_accuracy(
    experiment: Experiment, digits: Dataset, precision: str, *, threads: int
) -> float:
    """Train `experiment` on the native engine as `rowwise.fit` does; the last epoch counts."""
    network = Network(experiment, digits.shape, len(digits.classes))
    engines.choose("native", network, training=True)
    learned, held, _ = session.parts(experiment, digits)
    make: Any = engines.training_engine("native").Trainer
    start = network.initialise(seed=experiment.seed)
    trainer = make(
        network, start, *learned, seed=experiment.seed, threads=threads, precision=precision
    )
    for epoch in range(experiment.epochs):
        train_epoch(trainer, experiment, len(learned.labels), epoch)
    right: int = sum(
        trainer.evaluate(held.images[cut], held.labels[cut])[1]
        for cut in session.slices(len(held.labels))
    )
    return right / len(held.labels)


def train_epoch(trainer: engines.Trainer, experiment: Experiment, count: int, epoch: int) -> None:
    """One epoch over `count` pictures, some steps at a call so that Ctrl-C is heard."""
    batch, steps = experiment.batch, -(-count // experiment.batch)
    peak, total = experiment.optimizer.learning_rate, steps * experiment.epochs
    order = session.shuffled(count, seed=experiment.seed, epoch=epoch)
    for first in range(0, steps, STEPS_A_CALL):
        taken = range(epoch * steps + first, epoch * steps + min(first + STEPS_A_CALL, steps))
        trainer.run(
            order[first * batch : (first + len(taken)) * batch],
            batch=batch,
            first_step=taken[0],
            rates=np.array([peak * experiment.schedule.factor(step, total) for step in taken]),
        )


# --- the study of one network -----------------------------------------------------------------


def margin_of(experiment: Experiment) -> float:
    """The largest mean difference of accuracy that would not matter for this network."""
    layers = [*experiment.layers, *(one for b in experiment.branches for one in b.layers)]
    kinds = {layer.kind for layer in layers if isinstance(layer, Recurrent)}
    return MARGIN_SIMPLE_RNN if "simple_rnn" in kinds else MARGIN


def complete(
    pairs: Pairs, seeds: Iterable[int], train: Callable[[int, str], float], keep: Callable[[], None]
) -> None:
    """Train what these seeds lack in either precision; `keep` is called after each training."""
    for seed in seeds:
        for precision in PRECISIONS:
            pair = pairs.setdefault(str(seed), {})
            if precision not in pair:
                pair[precision] = train(seed, precision)
                keep()


def differences(pairs: Pairs) -> list[float]:
    """Accuracy in bfloat16 minus that in float32, in the order of the seeds."""
    return [pairs[seed]["bfloat16"] - pairs[seed]["float32"] for seed in sorted(pairs, key=int)]


def plan(pilot: Pairs, margin: float) -> Tree:
    """The number of fresh seeds, and what it was chosen by."""
    found = differences(pilot)
    spread = statistics.stdev(found)
    limit = equivalence.spread_limit(spread, len(found))
    seeds = equivalence.seeds_for_power(limit, margin, power=POWER, alpha=ALPHA)
    return {
        "difference": statistics.mean(found),
        "spread": spread,
        "spread_limit": limit,
        "seeds": max(LEAST_SEEDS, seeds),
    }


def study(
    experiment: Experiment, found: Tree, train: Train, keep: Callable[[], None], *, most: int
) -> None:
    """Fill `found` for one network: pilot, plan, fresh seeds, result; what it holds is kept."""
    name = experiment.name

    def with_seed(seed: int, precision: str) -> float:
        accuracy = train(experiment.model_copy(update={"seed": seed}), precision)
        say(f"{name}, seed {seed}, {precision}: {100 * accuracy:.2f} %")
        return accuracy

    margin = found.setdefault("margin", margin_of(experiment))
    complete(found.setdefault("pilot", {}), PILOT, with_seed, keep)
    if "plan" not in found:
        found["plan"] = plan(found["pilot"], margin)
        keep()
    say(planned(name, found))
    seeds = found["plan"]["seeds"]
    if seeds > most:
        say(f"{name}: that is more than --most {most}, so the test is left undone")
        return
    fresh = found.setdefault("fresh", {})
    complete(fresh, range(FRESH_FROM, FRESH_FROM + seeds), with_seed, keep)
    verdict = equivalence.tost(differences(fresh), margin=margin, alpha=ALPHA)
    found["result"] = verdict._asdict()
    keep()


# --- what is said and written -----------------------------------------------------------------


def say(line: str) -> None:
    """A line for those who watch."""
    print(line, file=sys.stderr, flush=True)


def planned(name: str, found: Tree) -> str:
    """The plan of one network in a sentence."""
    chosen = found["plan"]
    return (
        f"{name}: in the pilot of {len(found['pilot'])} seeds bfloat16 - float32 is "
        f"{points(chosen['difference'])} points with a spread of {100 * chosen['spread']:.3f}, at "
        f"most {100 * chosen['spread_limit']:.3f} (80 %); {chosen['seeds']} fresh seeds show "
        f"equivalence within {100 * found['margin']:g} points with {POWER:.0%} power"
    )


def points(fraction: float) -> str:
    """A difference of accuracies in points, with its sign."""
    return f"{100 * fraction:+.3f}"


def table(results: Tree) -> str:
    """The results as Markdown, in percent and points."""
    here = results["setting"]
    pictures = f"{here['pictures']:,} pictures of {here['data']}"
    lines = [
        f"{here['processor']}, path {here['path']}, {here['threads']} threads, rowwise "
        f"{here['rowwise']}; {here['epochs']} epochs on {pictures}, {HELD_OUT:.0%} of them held "
        f"out. TOST at {ALPHA:.0%}; the number of seeds for {POWER:.0%} power was chosen from a "
        f"pilot of {len(PILOT)} seeds, which are not counted again.",
        "",
        "| network | margin, points | spread in the pilot (80 % limit) | seeds | float32, % "
        "| bfloat16, % | bfloat16 - float32, points (90 % interval) | p | equivalent |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in results["networks"].items():
        lines.append(f"| {' | '.join([name, *cells(found)])} |")
    return "\n".join(lines) + "\n"


def cells(found: Tree) -> list[str]:
    """A network's cells, as far as it has come."""
    chosen, result = found.get("plan"), found.get("result")
    if chosen is None:
        return [f"{100 * found['margin']:g}", *["in its pilot"] * 7]
    told = [
        f"{100 * found['margin']:g}",
        f"{100 * chosen['spread']:.3f} ({100 * chosen['spread_limit']:.3f})",
        f"{chosen['seeds']}",
    ]
    if result is None:
        return [*told, *["not tested"] * 5]
    means = [statistics.mean(pair[one] for pair in found["fresh"].values()) for one in PRECISIONS]
    interval = f"{points(result['low'])} to {points(result['high'])}"
    return [
        *told,
        *(f"{100 * mean:.3f}" for mean in means),
        f"{points(result['mean'])} ({interval})",
        f"{result['p']:.2g}",
        "yes" if result["equivalent"] else "not shown",
    ]


def open_results(path: Path, setting: Tree) -> Tree:
    """The results at `path` to go on with, or new ones; SystemExit where the setting differs."""
    if not path.exists():
        return {"format": FORMAT, "setting": setting, "networks": {}}
    found = files.read_json(path)
    for key, value in json.loads(json.dumps(setting)).items():
        was = found.get("setting", {}).get(key)
        if was != value:
            raise SystemExit(
                f"{path} goes on with the setting that it began with, its {key} was {was!r}, got "
                f"{value!r}; choose another --out"
            )
    return found


# --- the command ------------------------------------------------------------------------------


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    known = [experiment.name for experiment in shipped_studies()["classic"].experiments]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=known, default=known, metavar="NAME")
    parser.add_argument("--epochs", type=int, default=5, help="of each training (default 5)")
    parser.add_argument("--subset", type=int, help="only so many training pictures, to try it out")
    parser.add_argument("--most", type=int, default=200, help="fresh seeds at most (default 200)")
    parser.add_argument("--threads", type=int, default=engines.usable_cores())
    parser.add_argument("--data", type=Path, help="labelled pictures (default: MNIST, found)")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file; the table is .md")
    arguments = parser.parse_args()
    if min(arguments.epochs, arguments.most, arguments.threads) < 1:
        parser.error("--epochs, --most and --threads must be at least 1")
    if arguments.subset is not None and arguments.subset < 20:
        parser.error("--subset must be at least 20")
    return arguments


def load(arguments: argparse.Namespace) -> Dataset:
    """The data set, cut down to its first `--subset` training pictures."""
    whole = data.load(path=arguments.data) if arguments.data else data.load("mnist")
    cut = slice(arguments.subset)
    return replace(
        whole, train_images=whole.train_images[cut], train_labels=whole.train_labels[cut]
    )


def run(arguments: argparse.Namespace) -> None:
    """Study network after network, and print the table."""
    digits = load(arguments)
    setting = {
        "rowwise": __version__,
        "processor": processor(),
        "path": core.best(),
        "threads": arguments.threads,
        "data": digits.name,
        "digest": digits.digest,
        "pictures": len(digits.train_labels),
        "epochs": arguments.epochs,
        "held_out": HELD_OUT,
        "power": POWER,
        "alpha": ALPHA,
    }
    results = open_results(arguments.out, setting)
    files.make_folder(arguments.out.parent)

    def train(experiment: Experiment, precision: str) -> float:
        return validation_accuracy(experiment, digits, precision, threads=arguments.threads)

    def keep() -> None:
        files.write_json(arguments.out, results)
        files.write_text(arguments.out.with_suffix(".md"), table(results))

    changes = {"epochs": arguments.epochs, "validation": HELD_OUT, "early_stopping": None}
    for experiment in shipped_studies()["classic"].only(arguments.networks).experiments:
        found = results["networks"].setdefault(experiment.name, {})
        study(experiment.model_copy(update=changes), found, train, keep, most=arguments.most)
    print(table(results), end="")


def main() -> None:
    """Run, and say in one line what stands in the way."""
    try:
        run(parse_arguments())
    except RowwiseError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()

"""Seconds an epoch: Rowwise's engines against Keras, PyTorch and JAX, and against the processor.

What it measures. One epoch of training, batch size, optimiser and initial distributions as in the
study: shuffling, feeding, forward, backward, update, running loss and accuracy. Not in it: imports,
reading the files, building, compiling, warm-up, validation. Where an epoch of all 60,000 pictures
takes minutes (`lstm-relu`, `lstm-pixels`) a turn trains on the first 7,680 or 1,920 of them, and
the table's seconds are scaled to 60,000.

How. Each contender is one process, kept alive; the parent asks for one epoch of the first, then of
the second, and so on, and then of the first again, so that all meet the same machine. All are
bound to the same cores, as many as there are threads, and told to use that many threads; a GPU is
hidden. Seconds are taken inside the processes. The ratio is Keras' seconds divided by another's,
round by round. Warm-up: eight batches, and compiling where there is any; JAX only compiles.

Who. `keras`: one plain `fit` on TensorFlow. `torch`: eager `torch.nn`, float32 or bfloat16 autocast
or `torch.compile`; as it has no relu LSTM that one is a loop. `jax`: one compiled call an epoch.
`rowwise`: one plain `fit`, each engine and each path that this processor can run. See in_*.py.

That all train the same network is shown by loss and accuracy of each epoch, kept in the file. The
processor's peak is that of a product of two large matrices by PyTorch and numpy, the better of both
before and after the epochs; the share of it is of the operations that no way of training can leave
out (networks.flops).

    python benchmarks/training.py --peers-python OTHER/bin/python --data FOLDER

OTHER is the environment of the peers that `make bench` builds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from contender import Job
from measuring import (
    BFLOAT16,
    HERE,
    Contender,
    Failed,
    field,
    kept,
    limits,
    native_labels,
    parse,
    parser,
    processor_flags,
    save,
    say,
    setting,
    spread,
)
from networks import RECIPES, TRAINING_IMAGES, Recipe, flops, parameters

QUICK_IMAGES = 1_312  # a partial batch of 32 at the end, as an epoch's


def peers() -> list[str]:
    """The other libraries; bfloat16 where the processor has it: emulated it is six times slower."""
    half = ["torch:bfloat16"] if BFLOAT16 & processor_flags() else []
    return ["keras", "torch", *half, "torch:compile", "jax"]


def ours() -> list[str]:
    """Rowwise's contenders: the native engine on each path, and the torch engine."""
    return [*native_labels(), "rowwise:torch"]


def compare(recipe: Recipe, labels: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Let the contenders train one network in turn."""
    jobs = [Job("train", label, recipe, str(options.data), options.threads) for label in labels]
    epochs: dict[str, list[dict[str, Any]]] = {label: [] for label in labels}
    with field(jobs, options) as (ready, told):
        for turn in range(options.rounds):
            for label, contender in list(ready.items()):
                try_turn(contender, epochs[label], told[label], ready, options)
            say(f"  round {turn + 1} of {options.rounds}")
    return {
        "batch": recipe.batch,
        "images": recipe.images,
        "parameters": parameters(recipe),
        "flops_per_image": flops(recipe),
        "contenders": {label: told[label] | record(epochs[label]) for label in labels},
    }


def try_turn(
    contender: Contender,
    epochs: list[dict[str, Any]],
    told: dict[str, Any],
    ready: dict[str, Contender],
    options: argparse.Namespace,
) -> None:
    """One epoch of one contender; one that fails is out, with the reason on record."""
    try:
        epochs.append(contender.ask(options.limit_s))
    except Failed as reason:
        told["failed"] = str(reason)
        ready.pop(contender.label).stop()
        say(str(reason))


def record(epochs: list[dict[str, Any]]) -> dict[str, Any]:
    """What a contender did, for the results file."""
    if not epochs:
        return {"seconds": spread([])}
    return {
        "seconds": spread([epoch["seconds"] for epoch in epochs]),
        "loss": [round(epoch["loss"], 5) for epoch in epochs],
        "accuracy": [round(epoch["accuracy"], 5) for epoch in epochs],
        "peak_mb": epochs[-1]["peak_mb"],
    }


def peak(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Operations a second of large matrix products, by precision and library."""
    command = [sys.executable, str(HERE / "peak.py"), str(options.threads)]
    command += ["--quick"] if options.quick else []
    environment = os.environ | limits(options.threads, Path())
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    return found


def better(one: dict[str, dict[str, float]], other: dict[str, dict[str, float]]) -> dict[str, Any]:
    """The higher of two measurements of the peak, precision by precision."""
    return {
        precision: {name: max(value, other[precision][name]) for name, value in found.items()}
        for precision, found in one.items()
    }


def main() -> None:
    """Run every network, writing the file after each."""
    made = parser("Seconds an epoch, Rowwise against its peers.", "training.json", rounds=3)
    made.add_argument("--only", action="append", choices=RECIPES, help="this network; repeatable")
    made.add_argument("--contender", action="append", help="this one; repeatable (default all)")
    made.add_argument("--whole", action="store_true", help="whole epochs everywhere: hours")
    options = parse(made)
    labels = options.contender or [*peers(), *ours()]
    results: dict[str, Any] = setting(options)
    results["networks"] = kept(options, results, "networks") if options.only else {}
    results["peak_flops"] = peak(options)
    for name in options.only or RECIPES:
        recipe = RECIPES[name]
        if options.whole:
            recipe = recipe._replace(images=TRAINING_IMAGES)
        if options.quick:
            recipe = recipe._replace(images=min(QUICK_IMAGES, recipe.images // 5))
        say(f"{name}, {recipe.images} images a turn")
        results["networks"][name] = compare(recipe, labels, options)
        results["peak_flops"] = better(results["peak_flops"], peak(options))
        save(options, results)


if __name__ == "__main__":
    main()

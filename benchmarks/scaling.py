"""How the time to train on a picture grows with units, batch, time steps and threads.

What it measures. Training of an LSTM(128, tanh) at batch 128 on 28 steps of 28 numbers, one of the
four changed at a time: Rowwise's native engine and PyTorch's eager `nn.LSTM`, µs a picture. The
pictures are MNIST's where they are 28 rows, and noise of the same kind for other numbers of steps:
the time does not depend on what is in them.

How. One process a contender and size, the two in turn; a turn trains on some thousand pictures,
fewer where each takes longer. Warm-up: eight batches.

    python benchmarks/scaling.py --data FOLDER
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from contender import Job
from measuring import (
    Failed,
    bind,
    field,
    kept,
    native_paths,
    parse,
    parser,
    save,
    say,
    setting,
    spread,
)
from networks import LSTM_TANH, Recipe, flops

UNITS = (32, 64, 128, 256, 512)
BATCHES = (8, 32, 128, 512)
STEPS = (7, 28, 112, 448)
# So much arithmetic a turn that a core of 50 GFLOP/s takes a second.
TURN_FLOPS = 5e10
QUICK_FLOPS = 2e9


def labels() -> list[str]:
    """The contenders."""
    ours = "rowwise:native" if native_paths() else "rowwise:torch"
    return [ours, "torch"]


def sizes(threads: int) -> dict[str, list[tuple[int, Recipe, int]]]:
    """For each axis its values, each with its recipe and number of threads."""
    base = LSTM_TANH
    counts = sorted({1, 2, 4, 8, 16, 32, threads})
    return {
        "units": [(n, base._replace(units=n), threads) for n in UNITS],
        "batch": [(n, base._replace(batch=n), threads) for n in BATCHES],
        "steps": [(n, base._replace(steps=n), threads) for n in STEPS],
        "threads": [(n, base, n) for n in counts if n <= threads],
    }


def measure(recipe: Recipe, threads: int, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds a picture of each contender."""
    arithmetic = QUICK_FLOPS if options.quick else TURN_FLOPS
    batches = max(4, round(arithmetic / flops(recipe) / recipe.batch))
    recipe = recipe._replace(images=min(batches * recipe.batch, 60_000))
    jobs = [Job("train", label, recipe, str(options.data), threads) for label in labels()]
    seconds: dict[str, list[float]] = {label: [] for label in labels()}
    with field(jobs, options) as (ready, told):
        for _ in range(options.rounds):
            for label, contender in list(ready.items()):
                try:
                    turn = contender.ask(options.limit_s)["seconds"]
                    seconds[label].append(turn / recipe.images)
                except Failed as reason:
                    told[label]["failed"] = str(reason)
                    ready.pop(label).stop()
    return {
        label: told[label] | {"seconds_a_picture": spread(values)}
        for label, values in seconds.items()
    } | {"images": recipe.images, "flops_per_image": flops(recipe)}


def main() -> None:
    """Go along each axis, writing the file after each size."""
    made = parser("How training time grows.", "scaling.json", rounds=3)
    made.add_argument("--axis", action="append", choices=sizes(1), help="this one; repeatable")
    options = parse(made)
    everywhere = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    results: dict[str, Any] = setting(options)
    results["axes"] = kept(options, results, "axes") if options.axis else {}
    for axis, points in sizes(options.threads).items():
        if options.axis and axis not in options.axis:
            continue
        results["axes"][axis] = {}
        for value, recipe, threads in points[:2] if options.quick else points:
            say(f"{axis} {value}")
            if everywhere is not None:
                os.sched_setaffinity(0, everywhere)
            bind(threads)
            results["axes"][axis][str(value)] = measure(recipe, threads, options)
            save(options, results)


if __name__ == "__main__":
    main()

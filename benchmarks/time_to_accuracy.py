"""Seconds from a process' start to 97, 98 and 98.5 % of the test images read right.

What it measures. All that a user waits for: starting Python, imports, reading the data, building,
compiling, training, and the reading of the 10,000 test images after each epoch, until the first of
these readings that reaches the target. The clock is the parent's, started with the process.

How. Every contender trains the same network with the same batches, optimiser and learning rate at
each step, from initial weights of the same distributions; the seed differs from run to run. The
contenders run one after the other, then all again. A run that misses a target has no time for it,
and the table says how many reached it.

The network is the study's lstm-tanh, its schedule a warm-up and half a cosine. Peak and number of
epochs were chosen on held-out training images (--choose: a grid, a sixth of the training images
held out, Rowwise alone), never on the test images, which here only stop the clock.

    python benchmarks/time_to_accuracy.py --peers-python OTHER/bin/python --data FOLDER
"""

from __future__ import annotations

import argparse
from typing import Any

import in_rowwise
from contender import Job
from measuring import Contender, Failed, native_paths, parse, parser, save, say, setting, spread
from networks import LSTM_TANH, Schedule

TARGETS = (0.97, 0.98, 0.985)
SCHEDULE = Schedule(peak=6e-3, epochs=4)
QUICK = Schedule(peak=6e-3, epochs=1)
GRID_PEAKS = (3e-3, 6e-3)
GRID_EPOCHS = (4, 5)
HELD_OUT = 1 / 6
CHOOSING_SEEDS = 2


def labels() -> list[str]:
    """The contenders."""
    ours = "rowwise:native" if native_paths() else "rowwise:torch"
    return [ours, "torch", "jax", "keras"]


def race(job: Job, options: argparse.Namespace) -> dict[str, Any]:
    """One run: for each epoch the seconds since the start and the accuracy."""
    assert job.schedule is not None
    contender = Contender(job, options)
    run: dict[str, Any] = {"seed": job.seed, "seconds": [], "accuracy": []}
    try:
        for _ in range(job.schedule.epochs):
            answer = contender.answer(options.limit_s)
            run["seconds"].append(round(contender.age(), 3))
            run["accuracy"].append(round(answer["accuracy"], 4))
            run |= answer.get("told", {})
    except Failed as reason:
        run["failed"] = str(reason)
        say(str(reason))
    finally:
        contender.stop()
    return run


def first_to(run: dict[str, Any], target: float) -> float | None:
    """The seconds after which a run first reached the target; None where it did not."""
    for seconds, accuracy in zip(run["seconds"], run["accuracy"], strict=True):
        if accuracy >= target:
            return float(seconds)
    return None


def reached(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """For each target the seconds of the runs that reached it."""
    found: dict[str, Any] = {}
    for target in TARGETS:
        times = [first_to(run, target) for run in runs]
        found[str(target)] = spread([seconds for seconds in times if seconds is not None])
    return found


def choose(options: argparse.Namespace) -> None:
    """Print the accuracy on held-out training images by peak and number of epochs."""
    import rowwise

    data = rowwise.load_data("mnist", path=options.data, download=False)
    print("| peak | epochs | held-out accuracy after the last epoch, mean and each seed |")
    print("|---|---|---|")
    for epochs in GRID_EPOCHS:
        for peak in GRID_PEAKS:
            scores = []
            for seed in range(CHOOSING_SEEDS):
                job = Job(
                    *("race", labels()[0], LSTM_TANH, str(options.data), options.threads),
                    seed=100 + seed,
                    schedule=Schedule(peak, epochs),
                )
                planned = in_rowwise.planned(job, validation=HELD_OUT)
                result = rowwise.fit(planned, data, **in_rowwise.how(job))
                scores.append(100 * result.metrics[-1].val_accuracy)
            each = ", ".join(f"{score:.2f}" for score in scores)
            print(f"| {peak} | {epochs} | {sum(scores) / len(scores):.2f} ({each}) |", flush=True)


def main() -> None:
    """Run all, writing the file after each run."""
    made = parser("Seconds from process start to an accuracy.", "time_to_accuracy.json", rounds=3)
    made.add_argument("--contender", action="append", help="this one; repeatable (default all)")
    made.add_argument("--choose", action="store_true", help="only print the grid of schedules")
    options = parse(made)
    if options.choose:
        choose(options)
        return
    schedule = QUICK if options.quick else SCHEDULE
    results: dict[str, Any] = setting(options)
    results |= {"network": "lstm-tanh", "batch": LSTM_TANH.batch, "targets": TARGETS}
    results |= {"schedule": schedule._asdict(), "contenders": {}}
    runs: dict[str, list[dict[str, Any]]] = {label: [] for label in options.contender or labels()}
    for seed in range(options.rounds):
        for label, done in runs.items():
            job = Job(
                *("race", label, LSTM_TANH, str(options.data), options.threads),
                seed=seed,
                schedule=schedule,
            )
            done.append(race(job, options))
            say(f"{label}, seed {seed}: {done[-1]['seconds']} s, {done[-1]['accuracy']}")
            results["contenders"][label] = {"runs": done, "reached": reached(done)}
            save(options, results)


if __name__ == "__main__":
    main()

"""Reading pictures: latency and throughput against ONNX Runtime, PyTorch, Keras and JAX.

What it measures. Latency: one picture at a time, a numpy array in and probabilities out; median and
99th percentile of all calls. Throughput: the 10,000 test pictures in batches of 64, 250, 1,000 and
10,000, of which the tables tell the fastest.
Every contender reads the same network with the same weights, trained by Rowwise for one epoch (with
--quick not at all), and its probabilities are compared with those of the plain engine: one that
differs by more than 1e-4 is not counted.

How. One process a contender, kept alive, in turn: some hundred calls, then all pictures at each
batch size, then the next contender. Bound to the same cores and threads as in training.py. Warm-up:
all pictures once, and one call; the first picture's call is inside the warm-up.

Who. `onnxruntime`: a graph of the same network with a free batch axis (in_onnx.py). `keras`: its
`predict`, `predict_on_batch`, and the model as a tf.function. `torch`: eager in inference mode.
`jax`: jit. `rowwise`: the native engine's `Reader` on each path of the processor; the others can be
asked for (--contender rowwise:plain).

    python benchmarks/inference.py --peers-python OTHER/bin/python --data FOLDER
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from contender import Job
from measuring import (
    Contender,
    Failed,
    field,
    kept,
    native_paths,
    parse,
    parser,
    percentile,
    save,
    say,
    setting,
    spread,
)
from networks import CLASSES, RECIPES, Recipe

NETWORKS = ["lstm-tanh", "gru-tanh"]
PEERS = ["onnxruntime", "torch", "keras:call", "keras:on_batch", "keras:predict", "jax"]
BATCHES = (64, 250, 1_000, 10_000)
CALLS = 300  # a turn, at most
CALLS_S = 3.0  # a turn of the slow ones
TOLERANCE = 1e-4


def ours() -> list[str]:
    """Rowwise's contenders: the native engine on each path."""
    return [f"rowwise:native:{path}" for path in native_paths()]


def compare(name: str, labels: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Let the contenders read with one network in turn."""
    recipe = RECIPES[name]
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        weights = Path(folder, "weights.npz")
        expected = make_weights(recipe, weights, options)
        jobs = [
            Job(
                *("read", label, recipe, str(options.data), options.threads),
                weights=str(weights),
                answers=str(answers(folder, label)),
            )
            for label in labels
        ]
        calls: dict[str, list[float]] = {label: [] for label in labels}
        seconds: dict[str, dict[int, list[float]]] = {
            label: {batch: [] for batch in BATCHES} for label in labels
        }
        with field(jobs, options) as (ready, told):
            for label in list(ready):
                judge(label, told, ready, np.load(answers(folder, label)), expected)
            for turn in range(options.rounds):
                for label, contender in list(ready.items()):
                    measure(contender, calls[label], seconds[label], options)
                say(f"  round {turn + 1} of {options.rounds}")
    return {
        label: told[label] | latency(calls[label]) | {"read_s": throughput(seconds[label])}
        for label in labels
    }


def answers(folder: str, label: str) -> Path:
    """Where a contender leaves its probabilities."""
    return Path(folder, f"{label.replace(':', '-')}.npy")


def make_weights(recipe: Recipe, path: Path, options: argparse.Namespace) -> Any:
    """Write a network's weights; the plain engine's probabilities for the test pictures."""
    import in_rowwise

    import rowwise
    from rowwise import Network, engines

    job = Job("read", "rowwise:auto", recipe, str(options.data), options.threads)
    data = rowwise.load_data("mnist", path=options.data, download=False)
    experiment = in_rowwise.experiment(job, epochs=1)
    network = Network(experiment, data.shape, CLASSES)
    weights = network.initialise(seed=0)
    if not options.quick:
        weights = rowwise.fit(experiment, data, threads=options.threads).weights
    np.savez(path, **weights)
    return engines.engine("plain").predict(network, weights, data.test_images)


def judge(
    label: str, told: dict[str, Any], ready: dict[str, Contender], given: Any, expected: Any
) -> None:
    """Put a contender out that reads something else."""
    difference = float(np.abs(given - expected).max())
    told[label]["difference"] = float(f"{difference:.2g}")
    if not difference <= TOLERANCE:
        told[label]["failed"] = f"differs from the plain engine by {difference:.1g}"
        say(f"{label} {told[label]['failed']}")
        ready.pop(label).stop()


def measure(
    contender: Contender,
    calls: list[float],
    seconds: dict[int, list[float]],
    options: argparse.Namespace,
) -> None:
    """One turn."""
    few = CALLS // 10 if options.quick else CALLS
    try:
        calls += contender.ask(options.limit_s, calls=few, at_most_s=CALLS_S)["calls"]
        for batch in BATCHES:
            seconds[batch].append(contender.ask(options.limit_s, batch=batch)["seconds"])
    except Failed as reason:
        say(str(reason))


def latency(calls: list[float]) -> dict[str, Any]:
    """Median and 99th percentile of single calls, in µs."""
    if not calls:
        return {"calls": 0}
    return {
        "calls": len(calls),
        "median_us": round(1e6 * percentile(calls, 0.5), 1),
        "p99_us": round(1e6 * percentile(calls, 0.99), 1),
    }


def throughput(seconds: dict[int, list[float]]) -> dict[str, Any]:
    """Seconds for the 10,000 pictures by batch size."""
    return {str(batch): spread(values) for batch, values in seconds.items()}


def main() -> None:
    """Read with every network, writing the file after each."""
    made = parser("Latency and throughput of reading.", "inference.json", rounds=5)
    made.add_argument("--only", action="append", choices=RECIPES, help="this network; repeatable")
    made.add_argument("--contender", action="append", help="this one; repeatable (default all)")
    options = parse(made)
    labels = options.contender or [*PEERS, *ours()]
    results: dict[str, Any] = setting(options)
    results["networks"] = kept(options, results, "networks") if options.only else {}
    for name in options.only or NETWORKS:
        say(name)
        results["networks"][name] = compare(name, labels, options)
        save(options, results)


if __name__ == "__main__":
    main()

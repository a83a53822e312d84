"""Seconds an epoch: Rowwise's engine against Keras on TensorFlow, on the classic study's networks.

What it measures. One epoch of training on the 60,000 MNIST images, batch size, optimiser and
initialisers as in the study: shuffling, feeding, forward, backward, update, running loss and
accuracy. Not in it: imports, reading the files, building, the first (warm-up) epoch, validation.

How. Each contender is one process, kept alive, which trains on and on; the parent asks for one
epoch of the first, then of the second, then of the first again, so that both meet the same
machine. Both processes are bound to the same cores, as many as there are threads, and told to use
that many threads; a GPU is hidden from both. Each runs one plain `fit`, Keras' and Rowwise's, in
which a callback waits for the parent between epochs. Seconds are taken inside the processes.
The ratio is Keras' seconds divided by ours, round by round: above 1, ours is the faster.

n: --rounds epochs a contender (default 5) after one warm-up epoch. Hardware and versions are in
the JSON file and in the table beside it (.md), written anew after each network.

    python benchmarks/engine_speed.py --keras-python OTHER/bin/python --data FOLDER \\
        --out benchmarks/results/engine_speed.json

OTHER is an environment with the extra `bench`; without --keras-python it is this one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from keras_study import RECIPES, build, processor, read_mnist, write_results

FORMAT = 1
SEED = 0
MOST_EPOCHS = 100_000  # never reached: the parent ends a contender between two epochs
# Between two epochs, so that the threads of the one that has finished stop spinning.
PAUSE_S = 0.5
# Threads that meet at a barrier lose far more to a busy machine than threads that do not.
BUSY_LOAD = 0.5


class Epoch(NamedTuple):
    """What a contender answers: the seconds of its epoch, and proof that it learned something."""

    seconds: float
    loss: float
    accuracy: float


# --- contenders: each waits, through `turn`, until the parent asks for its next epoch ------------

Turn = Callable[[], bool]
Tell = Callable[[dict[str, Any]], None]


def run_keras(name: str, data: Path, threads: int, turn: Turn, tell: Tell) -> None:
    """Train in Keras on TensorFlow, one epoch a turn."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    keras.utils.set_random_seed(SEED)
    mnist = read_mnist(data)
    model = build(RECIPES[name])

    class Turns(keras.callbacks.Callback):  # type: ignore[misc]
        """Holds `fit` between epochs until it is this contender's turn."""

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if not turn():
                raise SystemExit(0)
            self.start = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seconds = time.perf_counter() - self.start
            tell(Epoch(seconds, float(logs["loss"]), float(logs["accuracy"]))._asdict())

    tell({"versions": {"keras": version("keras"), "tensorflow": tf.__version__}})
    model.fit(
        mnist.x_train,
        mnist.y_train,
        batch_size=RECIPES[name].batch_size,
        epochs=MOST_EPOCHS,
        callbacks=[Turns()],
        verbose=0,
    )


def run_rowwise(engine: str, name: str, data: Path, threads: int, turn: Turn, tell: Tell) -> None:
    """Train on an engine of Rowwise, one epoch a turn."""
    import rowwise
    from rowwise.events import EpochEnded, Event, Started

    # One test image, so that the validation that ends an epoch takes no time.
    mnist = rowwise.load_data("mnist", path=data, download=False)
    mnist = replace(mnist, test_images=mnist.test_images[:1], test_labels=mnist.test_labels[:1])
    experiment = rowwise.shipped_studies()["classic"].only([name]).experiments[0]
    start = 0.0

    def wait(event: Event) -> None:
        nonlocal start
        if isinstance(event, Started):
            versions = {"rowwise": version("rowwise")}
            if event.engine.name == "torch":
                versions["torch"] = version("torch")
            tell({"versions": versions})
        elif isinstance(event, EpochEnded):
            seconds = time.perf_counter() - start
            tell(Epoch(seconds, event.metrics.loss, event.metrics.accuracy)._asdict())
        else:
            return
        if not turn():
            raise SystemExit(0)
        start = time.perf_counter()

    endless = experiment.model_copy(update={"epochs": MOST_EPOCHS, "seed": SEED})
    rowwise.fit(endless, mnist, engine=engine, threads=threads, callbacks=[wait])


def contend(arguments: argparse.Namespace) -> None:
    """Be one contender: JSON lines in on stdin, JSON lines out on what was stdout."""
    # Whatever a library prints goes to stderr; the parent alone reads the pipe.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def tell(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")

    def turn() -> bool:
        return sys.stdin.readline() == "epoch\n"

    (name,) = arguments.only
    kind, _, engine = arguments.contender.partition(":")
    if kind == "keras":
        run_keras(name, arguments.data, arguments.threads, turn, tell)
    else:
        run_rowwise(engine, name, arguments.data, arguments.threads, turn, tell)


# --- the parent ----------------------------------------------------------------------------------


class Contender:
    """A process that trains one epoch whenever it is asked."""

    def __init__(self, label: str, python: str, name: str, arguments: argparse.Namespace) -> None:
        self.label = label
        self.epochs: list[Epoch] = []
        command = [python, __file__, "--contender", label, "--only", name]
        command += ["--data", str(arguments.data), "--threads", str(arguments.threads)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=os.environ | limits(arguments.threads),
        )
        self.versions: dict[str, str] = self._answer()["versions"]

    def train(self, *, counted: bool) -> None:
        """Ask for one epoch and wait for it."""
        assert self._process.stdin is not None
        self._process.stdin.write("epoch\n")
        epoch = Epoch(**self._answer())
        if counted:
            self.epochs.append(epoch)
        time.sleep(PAUSE_S)

    def stop(self) -> None:
        """Close the pipe, which ends a waiting process; end one that is still in an epoch."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise SystemExit(f"the contender {self.label} ended with code {code}; see above")
        return json.loads(line)

    def record(self) -> dict[str, Any]:
        """Return what this contender did, for the results file."""
        seconds = [round(epoch.seconds, 4) for epoch in self.epochs]
        return {
            "versions": self.versions,
            "seconds": seconds,
            **spread(seconds),
            "loss": [round(epoch.loss, 6) for epoch in self.epochs],
            "accuracy": [round(epoch.accuracy, 6) for epoch in self.epochs],
        }


def limits(threads: int) -> dict[str, str]:
    """Return the environment that gives a contender this many threads and no GPU."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    tensorflow = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    return {name: str(threads) for name in (*names, *tensorflow)} | {"CUDA_VISIBLE_DEVICES": ""}


def bind(threads: int) -> list[int] | None:
    """Bind this process, and those it starts, to one core a thread; None where the OS cannot.

    Hyper-threads of one core count once, as long as there are cores left.

    Raises:
        SystemExit: there are fewer processors than threads.
    """
    if not hasattr(os, "sched_setaffinity"):
        return None
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < threads:
        raise SystemExit(f"--threads {threads} needs as many processors; here are {len(allowed)}")
    first_of_core: dict[str, int] = {}
    for cpu in allowed:
        listing = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        first_of_core.setdefault(listing.read_text() if listing.exists() else str(cpu), cpu)
    cores = list(first_of_core.values())
    chosen = [*cores, *(cpu for cpu in allowed if cpu not in cores)][:threads]
    os.sched_setaffinity(0, chosen)
    return chosen


def spread(values: list[float]) -> dict[str, float]:
    """Return median, minimum and maximum."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def compare(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Let the contenders train one network in turn; return their seconds and the ratios."""
    contenders: list[Contender] = []
    try:
        contenders.append(Contender("keras", arguments.keras_python, name, arguments))
        for engine in arguments.engine or ["torch"]:
            contenders.append(Contender(f"rowwise:{engine}", sys.executable, name, arguments))
        for turn in range(arguments.rounds + 1):
            for contender in contenders:
                contender.train(counted=turn > 0)
            done = f"round {turn} of {arguments.rounds}" if turn else "warm-up"
            print(f"{name}: {done}", file=sys.stderr, flush=True)
    finally:
        for contender in contenders:
            contender.stop()
    keras, *ours = contenders
    ratios = {}
    for contender in ours:
        pairs = zip(keras.epochs, contender.epochs, strict=True)
        rounds = [round(theirs.seconds / mine.seconds, 4) for theirs, mine in pairs]
        ratios[contender.label] = {"rounds": rounds, **spread(rounds)}
    return {
        "batch": RECIPES[name].batch_size,
        "contenders": {contender.label: contender.record() for contender in contenders},
        "keras_over": ratios,
    }


def table(results: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the Markdown table."""
    hardware, networks = results["hardware"], results["networks"]
    first = next(iter(networks.values()))["contenders"]
    versions: dict[str, str] = {}
    for contender in first.values():
        versions |= contender["versions"]
    told = ", ".join(f"{key} {value}" for key, value in versions.items())
    yield f"{hardware['processor']}, {hardware['cores']} cores, {results['threads']} threads each;"
    yield f"Python {results['python']}, {told}; {results['rounds']} rounds after one warm-up epoch."
    yield "Seconds an epoch: median (least–most). Ratio: Keras' seconds / ours, above 1 ours wins."
    yield ""
    yield "| network | batch | Keras, TensorFlow | engine | Rowwise | ratio |"
    yield "|---|---|---|---|---|---|"
    for name, network in networks.items():
        for label, ratio in network["keras_over"].items():
            cells = [name, str(network["batch"]), shown(network["contenders"]["keras"])]
            cells += [label.partition(":")[2], shown(network["contenders"][label]), shown(ratio)]
            yield f"| {' | '.join(cells)} |"


def shown(values: dict[str, float]) -> str:
    """Return "median (least–most)"."""
    return f"{values['median']:.2f} ({values['min']:.2f}–{values['max']:.2f})"


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Seconds an epoch, Rowwise against Keras.")
    parser.add_argument("--keras-python", default=sys.executable, help="interpreter with Keras")
    parser.add_argument("--only", action="append", choices=RECIPES, help="this network; repeatable")
    parser.add_argument("--engine", action="append", help="engine to time; repeatable (torch)")
    parser.add_argument("--rounds", type=int, default=5, help="epochs that count (default 5)")
    parser.add_argument("--threads", type=int, default=2, help="of each contender (default 2)")
    parser.add_argument("--data", type=Path, help="folder of the IDX files (default $ROWWISE_DATA)")
    parser.add_argument("--out", type=Path, help="the JSON file; the table goes beside it, .md")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.data is None:
        if "ROWWISE_DATA" not in os.environ:
            parser.error("the data folder is needed: pass --data or set ROWWISE_DATA")
        arguments.data = Path(os.environ["ROWWISE_DATA"])
    if arguments.rounds < 1 or arguments.threads < 1:
        parser.error("--rounds and --threads must be at least 1")
    if arguments.out is None and arguments.contender is None:
        parser.error("--out is needed: the JSON file to write")
    return arguments


def main() -> None:
    """Run every network, writing both files after each."""
    arguments = parse_arguments()
    if arguments.contender is not None:
        contend(arguments)
        return
    cores = os.cpu_count()
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    if load is not None and load > BUSY_LOAD:
        print(
            f"a timing needs a quiet machine; its load is {load}, so these ratios mean little",
            file=sys.stderr,
        )
    results: dict[str, Any] = {
        "format": FORMAT,
        "hardware": {"processor": processor(), "cores": cores, "bound_to": bind(arguments.threads)},
        "load_before": load,
        "python": platform.python_version(),
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "networks": {},
    }
    for name in arguments.only or RECIPES:
        results["networks"][name] = compare(name, arguments)
        write_results(arguments.out, results)
        lines = "\n".join(table(results)) + "\n"
        arguments.out.with_suffix(".md").write_text(lines, encoding="utf-8")
    print(lines, end="")


if __name__ == "__main__":
    main()

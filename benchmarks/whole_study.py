"""The whole study, from start to end of one process: `rowwise study` against the same in Keras.

What it measures. Wall time and memory of `rowwise study --seeds 1` (imports, reading the data, four
networks, five epochs each, validation, test, the report) and of `keras_study.py --seeds 1`, which
does the same in Keras but makes no report. Both start anew each time; a run before the first one
is not made, but all files were read once, so the disk is out of it.

How. In turn, bound to the same cores and threads. Keras takes many minutes, so it has fewer turns.
The validation accuracies of both are in the file.

    python benchmarks/whole_study.py --peers-python OTHER/bin/python --data FOLDER

With --clone it also measures what a newcomer waits for: `git clone` of this repository, `make` of
the environment in it, and then `make study` of one seed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import HERE, limits, native_paths, parse, parser, save, say, setting, spread

ROOT = HERE.parent


def rowwise_command(engine: str, folder: Path, options: argparse.Namespace) -> list[str]:
    """The study by our command line."""
    command = [sys.executable, "-m", "rowwise", "study", "--seeds", "1", "--engine", engine]
    command += ["--threads", str(options.threads), "--data", str(options.data)]
    command += ["--only", "rnn-relu"] if options.quick else []
    return [*command, "--out", str(folder / "study")]


def keras_command(folder: Path, options: argparse.Namespace) -> list[str]:
    """The study by Keras' script."""
    command = [str(options.peers_python), str(HERE / "keras_study.py"), "--seeds", "1"]
    command += ["--data", str(options.data)]
    command += ["--epochs", "1", "--only", "rnn-relu"] if options.quick else []
    return [*command, "--out", str(folder / "keras.json")]


def timed(command: list[str], environment: dict[str, str], cwd: Path | None = None) -> Any:
    """Seconds from start to end, and the most memory that the process had resident, in MB."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command, env=environment, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    told = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    process.stderr.close()
    if process.returncode:
        raise SystemExit(f"{command[:4]} ended with {process.returncode}: {told.decode()[-2000:]}")
    return seconds, round(used.ru_maxrss * 1024 / 1e6, 1)


def accuracies(folder: Path) -> dict[str, float]:
    """Validation accuracy after the last epoch by network, of whichever of both ran there."""
    if (folder / "keras.json").exists():
        found = json.loads((folder / "keras.json").read_text())["runs"]
        return {run["name"]: run["val_accuracy"][-1] for run in found}
    from rowwise import runs

    return {run.name: run.metrics[-1].val_accuracy for run in runs.find(folder / "study")}


def run(label: str, options: argparse.Namespace) -> dict[str, Any]:
    """One run of one contender."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        engine = label.partition(":")[2]
        command = (
            rowwise_command(engine, folder, options) if engine else keras_command(folder, options)
        )
        seconds, peak_mb = timed(command, os.environ | limits(options.threads, folder))
        say(f"{label}: {seconds:.1f} s")
        return {"seconds": seconds, "peak_mb": peak_mb, "val_accuracy": accuracies(folder)}


def newcomer(options: argparse.Namespace) -> dict[str, float]:
    """Seconds of a clone, of the environment's set-up, and of `make study` of one seed in it."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        clone = Path(name, "rowwise")
        environment = os.environ | {"ROWWISE_DATA": str(options.data.resolve())}
        environment.pop("PYTHONPATH", None)
        steps = {
            "clone": ["git", "clone", "--quiet", "--depth", "1", f"file://{ROOT}", str(clone)],
            "set_up": ["make", "-C", str(clone), ".venv/study"],
            "study": ["make", "-C", str(clone), "study", "STUDY_FLAGS=--seeds 1"],
        }
        return {step: round(timed(c, environment)[0], 2) for step, c in steps.items()}


def main() -> None:
    """Run all, writing the file after each run."""
    made = parser("The whole study against Keras.", "whole_study.json", rounds=3)
    made.add_argument("--keras-rounds", type=int, default=1, help="turns of Keras (default 1)")
    made.add_argument("--engine", action="append", help="of Rowwise; repeatable")
    made.add_argument("--clone", action="store_true", help="also a newcomer's clone and set-up")
    options = parse(made)
    engines = options.engine or (["native"] if native_paths() else ["torch"])
    results: dict[str, Any] = setting(options) | {"contenders": {}}
    turns = [("keras", options.keras_rounds)]
    turns += [(f"rowwise:{engine}", options.rounds) for engine in engines]
    done: dict[str, list[dict[str, Any]]] = {label: [] for label, _ in turns}
    for turn in range(max(count for _, count in turns)):
        for label, count in turns:
            if turn >= count:
                continue
            done[label].append(run(label, options))
            seconds = spread([one["seconds"] for one in done[label]])
            results["contenders"][label] = {"seconds": seconds, "runs": done[label]}
            save(options, results)
    if options.clone:
        results["newcomer"] = newcomer(options)
        save(options, results)


if __name__ == "__main__":
    main()

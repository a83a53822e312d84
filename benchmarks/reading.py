"""Reading with a model that ships: cold, one at a time, from a photo, ten thousand at once.

What it measures. The same job (a 28×28 array of bytes in, the digit out) by `Recogniser` and, with
the same networks and weights, by ONNX Runtime, which runs our own export, and of `rows` by PyTorch
and Keras, built of their own GRU layers as their users would. Each contender's digits are compared
with ours: `agreement` is the share of the 10,000 that is the same.

- `cold`: the whole process `rowwise predict digit.png`, from its start to its end.
- `one`: a 28×28 array, a call each; median and 99th percentile of all calls.
- `photo`: a made photo of a megapixel, from the decoded array to the digit. Rowwise alone: the
  others have no step that finds the digit in it.
- `many`: 10,000 arrays in one call, end to end.

How. Each contender is a process of its own, kept alive, asked in turn, round by round, with the
same threads; a turn is some hundred calls of `one`, some of `photo`, one of `many`. `cold` starts
three new processes a round. Warm-up: one call of each. The peers read `many` in batches of 1,000,
Keras by `predict_on_batch`, its quicker way for one picture too. Keras runs in --peers-python.

    python benchmarks/reading.py --peers-python OTHER/bin/python
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

import numpy as np
from measuring import HERE, parse, parser, percentile, save, say, setting, spread

CALLS, PHOTOS = 300, 20  # a turn
MANY = 10_000
PHOTO_PX = (1000, 1000)
COLD_TIMES = 3  # a round
LIMIT_S = 300
ROW_BY_ROW = "rows"  # the model whose network in_reading.py writes in Keras and PyTorch


def made_photo(digit: Any) -> Any:
    """A megapixel of paper in uneven light with one digit on it, uint8 [rows, columns, 3]."""
    import cv2

    rng = np.random.default_rng(0)
    rows, columns = PHOTO_PX
    row, column = np.mgrid[0:rows, 0:columns] / max(PHOTO_PX)
    paper = 210 - 40 * row - 25 * column + rng.normal(0, 3, PHOTO_PX)
    mark = cv2.resize(digit, (420, 420), interpolation=cv2.INTER_CUBIC).astype(np.float32) / 255
    paper[250:670, 300:720] *= 1 - 0.75 * mark
    return np.repeat(np.clip(paper, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


class Contender:
    """A process that reads what it is asked to."""

    def __init__(self, label: str, model: str, folder: Path, options: argparse.Namespace) -> None:
        python = options.peers_python if label.startswith("keras") else Path(sys.executable)
        self.label = label
        environment = os.environ | {
            "OMP_NUM_THREADS": str(options.threads),
            "CUDA_VISIBLE_DEVICES": "",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "TF_NUM_INTRAOP_THREADS": str(options.threads),
        }
        self._process = subprocess.Popen(
            [str(python), str(HERE / "in_reading.py"), label, model, str(folder),
             str(options.threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def ask(self, what: str, count: int = 1) -> Any:
        """One turn's answer; nothing where the contender ended or does not do this.

        Without a question, the answer to the start: its versions.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if what:
            try:
                self._process.stdin.write(json.dumps({"what": what, "count": count}) + "\n")
                self._process.stdin.flush()
            except BrokenPipeError:
                return None
        line = self._process.stdout.readline()
        return json.loads(line) if line else None

    def stop(self) -> None:
        """Let it end."""
        self._process.communicate(timeout=LIMIT_S)


def cold(model: str, picture: Path) -> float:
    """Seconds of a whole process, `rowwise predict`, that reads one picture."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "rowwise", "predict", str(picture), "--model", model],
        check=True, capture_output=True, timeout=LIMIT_S,
    )  # fmt: skip
    return time.perf_counter() - start


def measure(options: argparse.Namespace, results: dict[str, Any]) -> None:
    """All contenders in turn."""
    import cv2

    from rowwise import data

    found = data.load("mnist", path=options.data, download=False)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as made:
        folder = Path(made)
        digits = found.test_images[: 100 if options.quick else MANY]
        np.save(folder / "digits.npy", digits)
        np.save(folder / "photo.npy", made_photo(digits[0]))
        cv2.imwrite(str(folder / "digit.png"), digits[0])
        contenders = started(options, folder, results)
        times: dict[str, dict[str, list[float]]] = {one.label: {} for one in contenders}
        for turn in range(options.rounds):
            for one in contenders:
                take(one, times[one.label], options)
            for name, model in models(options).items():
                seconds = times[f"rowwise:{name}"].setdefault("cold", [])
                seconds += [cold(model, folder / "digit.png") for _ in range(COLD_TIMES)]
            say(f"round {turn + 1} of {options.rounds}")
        for one in contenders:
            one.stop()
            kind, _, name = one.label.partition(":")
            ours, its = (np.load(folder / f"{k}-{name}.npy") for k in ("rowwise", kind))
            told = {"agreement": float((ours == its).mean())}
            results["contenders"][one.label] |= told | summed(times[one.label])


def models(options: argparse.Namespace) -> dict[str, str]:
    """The models by the names that they are told by."""
    return {Path(model).name.split(".")[0]: model for model in options.model}


def started(options: argparse.Namespace, folder: Path, results: dict[str, Any]) -> list[Contender]:
    """The contenders that got ready."""
    ready = []
    for name, model in models(options).items():
        files = {"rowwise": model} | exports(model, folder / name)
        for kind, file in files.items():
            label = f"{kind}:{name}"
            one = Contender(label, str(file), folder, options)
            answer = one.ask("")
            results["contenders"][label] = answer or {"failed": "did not start"}
            if answer:
                ready.append(one)
                say(f"{label} is ready: {answer}")
    return ready


def exports(model: str, stem: Path) -> dict[str, Path]:
    """The model as files of other programs: ONNX, and bare weights where it is `rows`."""
    from rowwise import onnx_model
    from rowwise.model import Model

    found = Model.load(model)
    written = {"onnxruntime": stem.with_suffix(".onnx")}
    built = onnx_model.build(found.network, found.weights, found.classes)
    written["onnxruntime"].write_bytes(built.SerializeToString())
    if found.name == ROW_BY_ROW:
        weights = stem.with_suffix(".npz")
        np.savez(weights, **found.weights)
        written |= {"torch": weights, "keras": weights}
    return written


def take(one: Contender, times: dict[str, list[float]], options: argparse.Namespace) -> None:
    """One turn of a contender."""
    few = 10 if options.quick else 1
    for what, count in (("one", CALLS // few), ("photo", PHOTOS // few), ("many", 1)):
        answer = one.ask(what, count)
        if answer:
            times.setdefault(what, []).extend(answer["seconds"])


def summed(times: dict[str, list[float]]) -> dict[str, Any]:
    """Of single calls median and 99th percentile, in ms; of the others all seconds."""
    found: dict[str, Any] = {}
    for what, seconds in times.items():
        if what in ("one", "photo"):
            found[what] = {
                "n": len(seconds),
                "median_ms": round(1e3 * percentile(seconds, 0.5), 4),
                "p99_ms": round(1e3 * percentile(seconds, 0.99), 4),
            }
        else:
            found[f"{what}_s"] = spread(seconds)
    return found


def main() -> None:
    """Measure and write the results."""
    made = parser("Reading with the models that ship.", "reading.json", rounds=5)
    made.add_argument("--model", action="append", help="name or file (default rows and best)")
    options = parse(made)
    options.model = options.model or ["rows", "best"]
    results = setting(options) | {"contenders": {}}
    measure(options, results)
    save(options, results)


if __name__ == "__main__":
    main()

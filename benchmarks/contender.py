"""One contender of a benchmark, in a process of its own: JSON lines in on stdin, out on stdout.

Started by the benchmarks, not by people. The parent gives a job on the command line, waits for
`ready`, and then asks for one turn after another. What a contender is, is in the file of its kind:
each has `train`, which trains an epoch a turn; those that recognise have `reader`; those that run
for accuracy have `race`.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from networks import Recipe, Schedule, pictures

KINDS = {
    "keras": "in_keras",
    "torch": "in_torch",
    "jax": "in_jax",
    "onnxruntime": "in_onnx",
    "rowwise": "in_rowwise",
}
MOST_EPOCHS = 100_000  # never reached: the parent ends a contender between two turns
WARM_UP_BATCHES = 8


class Job(NamedTuple):
    """What a contender is to do."""

    task: str  # "train", "read" or "race"
    label: str  # KIND or KIND:VARIANT, as "torch:bfloat16" or "rowwise:native:avx2"
    recipe: Recipe
    data: str  # the folder of MNIST's IDX files
    threads: int
    seed: int = 0
    weights: str = ""  # "read": the .npz of the weights, and where to write what was read
    answers: str = ""
    schedule: Schedule | None = None  # "race"

    @property
    def kind(self) -> str:
        """What the contender is written in."""
        return self.label.partition(":")[0]

    @property
    def variant(self) -> str:
        """Which way of using it."""
        return self.label.partition(":")[2]

    @property
    def warm_up_images(self) -> int:
        """A few batches, and a partial one where an epoch ends with one: all shapes are met."""
        few = WARM_UP_BATCHES * self.recipe.batch + self.recipe.images % self.recipe.batch
        return min(few, self.recipe.images)

    def to_json(self) -> str:
        """This job as text."""
        schedule = self.schedule and self.schedule._asdict()
        return json.dumps(self._asdict() | {"recipe": self.recipe._asdict(), "schedule": schedule})

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The job that `to_json` wrote."""
        found = json.loads(text)
        found["recipe"] = Recipe.from_json(found["recipe"])
        found["schedule"] = found["schedule"] and Schedule(**found["schedule"])
        return cls(**found)


class Link:
    """The contender's end of the two pipes."""

    def __init__(self) -> None:
        # Whatever a library prints goes to stderr; the parent alone reads the pipe.
        self._answers = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)

    def ready(self, versions: dict[str, str], **more: str) -> None:
        """Say that preparations and warm-up are over."""
        self.tell(versions=versions, told=more)

    def turn(self) -> dict[str, Any] | None:
        """Wait for a turn; None where there are no more."""
        line = sys.stdin.readline()
        return json.loads(line) if line else None

    def tell(self, **what: Any) -> None:
        """Answer the parent."""
        self._answers.write(json.dumps(what | {"peak_mb": peak_mb()}) + "\n")


def peak_mb() -> float | None:
    """The most memory that this process has had resident, in MB (10^6 bytes); None if unknown.

    From /proc, as getrusage counts what the parent had before this program was loaded.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) * 1024 / 1e6, 1)


def answer_readings(job: Job, link: Link, module: Any) -> None:
    """Read pictures: one at a time where a turn says `calls`, all in batches where it says `batch`.

    Answers the seconds of each call, or those of all pictures.
    """
    import numpy as np

    read: Callable[..., Any] = module.reader(job)
    _, test = pictures(job.recipe, Path(job.data))
    read(test.x[:1], 1)
    np.save(job.answers, read(test.x, 1000))
    link.ready(module.versions())
    while (turn := link.turn()) is not None:
        if "batch" in turn:
            start = time.perf_counter()
            read(test.x, turn["batch"])
            link.tell(seconds=time.perf_counter() - start)
            continue
        seconds = []
        end = time.perf_counter() + turn["at_most_s"]
        for i in range(turn["calls"]):
            one = test.x[i : i + 1]
            start = time.perf_counter()
            read(one, 1)
            seconds.append(time.perf_counter() - start)
            if start > end:
                break
        link.tell(calls=seconds)


def main() -> None:
    """Do the job."""
    link = Link()
    job = Job.from_json(sys.argv[1])
    module = importlib.import_module(KINDS[job.kind])
    if job.task == "read":
        answer_readings(job, link, module)
    elif job.task == "race":
        module.race(job, link)
    else:
        module.train(job, link)


if __name__ == "__main__":
    main()

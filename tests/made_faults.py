"""Faults for the tests of bad input: each puts something wrong into a working folder.

The folder holds `tiny.toml` and the finished runs `runs/tiny-s0` and `runs/tiny-s1`. Each case is a
command line there and the line that it ends in; `…` in that line stands for any text.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
from made_data import MNIST, quartet, write_csv, write_idx, write_pictures

from rowwise.config import Study

Change = Callable[[Path], object]
NAN = np.full((8, 32), np.nan, np.float32)
TRAIN = "train tiny.toml --dataset digits --threads 1"
BAD = "train bad.json --dataset digits --threads 1"


class Case(NamedTuple):
    """What is wrong, the command that meets it, what it answers, and what puts it there."""

    name: str
    command: str
    line: str
    change: Change = lambda work: None
    code: int = 1

    def __str__(self) -> str:
        return self.name

    def is_told(self, text: str) -> bool:
        """Whether the text is the expected line and no more."""
        expected = re.escape(f"rowwise: {self.line}\n").replace("…", ".*")
        return re.fullmatch(expected, text) is not None


def everything(folder: Path) -> dict[str, bytes | None]:
    """Every file below a folder with its bytes, and every folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def assert_refused(case: Case, work: Path, rowwise: Callable[..., Any]) -> None:
    """The case's line, its exit code, and nothing on disk has changed."""
    case.change(work)
    before = everything(work.parent)
    answer = rowwise(*shlex.split(case.command))
    assert answer.out == ""
    assert case.is_told(answer.err), answer.err
    assert answer.code == case.code
    assert everything(work.parent) == before, "nothing on disk has changed"


def assert_refused_by_a_process(case: Case, work: Path) -> None:
    """The same of the program that a shell starts."""

    def start(*arguments: str) -> Any:
        told = subprocess.run(
            [sys.executable, "-m", "rowwise", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        return SimpleNamespace(code=told.returncode, out=told.stdout, err=told.stderr)

    assert_refused(case, work, start)


def text(name: str, content: str | bytes) -> Change:
    """A file of this content."""
    raw = content.encode() if isinstance(content, str) else content
    return lambda work: (work / name).write_bytes(raw)


def settings(**changes: Any) -> Change:
    """bad.json: the tiny experiment with other settings."""
    tree = {"name": "bad", "layers": [{"kind": "lstm", "units": 8}], **changes}
    return text("bad.json", json.dumps(tree))


def study(**changes: Any) -> Change:
    """bad.json: a study of one experiment with other settings."""
    one = {"name": "one", "epochs": 1, "layers": [{"kind": "lstm", "units": 8}], **changes}
    return text("bad.json", json.dumps({"name": "bad", "dataset": "digits", "experiments": [one]}))


def idx(change: Callable[[bytes], bytes], name: str, *, packed: bool = False) -> Change:
    """set/: four IDX files, one of them changed byte by byte."""

    def put(work: Path) -> None:
        write_idx(work / "set", quartet(), packed=packed)
        path = work / "set" / (f"{name}.gz" if packed else name)
        path.write_bytes(change(path.read_bytes()))

    return put


def arrays(**changes: Any) -> Change:
    """set/: four IDX files of the arrays of a quartet, some replaced."""

    def put(work: Path) -> None:
        names = ("train_images", "train_labels", "test_images", "test_labels")
        made = {**dict(zip(names, quartet(shape=(8, 8)), strict=True)), **changes}
        write_idx(work / "set", made.values(), packed=False)

    return put


def shown(change: Change) -> Change:
    """shown/: a folder of pictures by class, changed."""

    def put(work: Path) -> None:
        images, labels, *_ = quartet(shape=(8, 8))
        write_pictures(work / "shown", images, labels, "0123456789")
        change(work / "shown")

    return put


def table(change: Callable[[list[str]], list[str]]) -> Change:
    """set.csv: a table of pictures, its lines changed."""

    def put(work: Path) -> None:
        path = write_csv(work / "set.csv", *quartet(shape=(8, 8))[:2])
        path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")

    return put


def nearly_mnist(work: Path) -> None:
    """set/: the four files of (a small made) MNIST, with one pixel changed."""
    train_images = MNIST[0].copy()
    train_images[0, 0, 0] ^= 1
    write_idx(work / "set", (train_images, *MNIST[1:]))


def record(**changes: Any) -> Change:
    """runs/tiny-s0/run.json with other entries."""
    return tree("run.json", lambda told: told.update(changes))


def tree(name: str, change: Callable[[dict[str, Any]], object]) -> Change:
    """A JSON file of runs/tiny-s0, changed."""

    def put(work: Path) -> None:
        path = work / "runs/tiny-s0" / name
        told = json.loads(path.read_text())
        change(told)
        path.write_text(json.dumps(told))

    return put


def other_data(work: Path) -> None:
    tree("run.json", lambda told: told["data"].update(digest="0" * 64))(work)


def run_file(name: str, content: str | bytes) -> Change:
    """A file of runs/tiny-s0, replaced."""
    return text(f"runs/tiny-s0/{name}", content)


def cut(name: str, keep: int) -> Change:
    """A file, cut off after some bytes."""
    return lambda work: (work / name).write_bytes((work / name).read_bytes()[:keep])


def weights(
    change: Callable[[dict[str, Any]], object],
    *,
    name: str = "weights",
    kind: str = "rowwise-weights-1",
    **told: str,
) -> Change:
    """A file of tensors in runs/tiny-s0: its weights, changed."""

    def put(work: Path) -> None:
        run = work / "runs/tiny-s0"
        tensors = safetensors.numpy.load_file(run / "weights.safetensors")
        change(tensors)
        raw = safetensors.numpy.save(tensors, {"format": kind, **told})
        (run / f"{name}.safetensors").write_bytes(raw)

    return put


def interrupted(change: Change = lambda work: None) -> Change:
    """runs/tiny-s0 as if its training had been interrupted."""

    def put(work: Path) -> None:
        record(status="interrupted")(work)
        change(work)

    return put


def both(*changes: Change) -> Change:
    return lambda work: [change(work) for change in changes]


def set_item(key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda tensors: tensors.update({key: value})


def other_study(work: Path) -> None:
    """old/: the study of bad.json, with a run that saw other data."""
    study()(work)
    shutil.copytree(work / "runs/tiny-s0", work / "old/one-s0")
    shutil.copy(work / "bad.json", work / "old/study.json")
    path = work / "old/one-s0/run.json"
    told = json.loads(path.read_text())
    digest = Study.from_file(work / "bad.json").experiments[0].digest
    told |= {"name": "one", "experiment_digest": digest}
    told["data"]["digest"] = "0" * 64
    path.write_text(json.dumps(told))

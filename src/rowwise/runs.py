"""The run folder, readable by people and programs; this file alone knows its file names.

    NAME-sSEED/
      run.json                what it is and how it ended: `Record`
      experiment.json         the resolved configuration
      environment.json        versions, processor, threads
      metrics.jsonl           one object an epoch: `EpochMetrics`
      weights.safetensors     the network's weights, with the network as metadata
      predictions.csv         index, label, predicted, p0, p1, ...: of the test images
      checkpoint.safetensors  only while the training is unfinished: all that it needs to go on

`format` in run.json is the version of all of them. Beside the runs of a folder, `album` keeps what
a report shows of their data set. Every file is written beside and renamed, so that a process killed
at any moment leaves whole files only.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from rowwise import predictions, tensors
from rowwise.config import Experiment, Study
from rowwise.environment import environment
from rowwise.errors import ConfigError, NetworkError, RunError
from rowwise.files import (
    PART,
    make_folder,
    parse_object,
    parsing,
    read_json,
    read_text,
    remove_parts,
    write_json,
    write_text,
)
from rowwise.network import Network, Weights
from rowwise.predictions import Predictions as Predictions
from rowwise.settings import Model, Settings, parse

Array = NDArray[Any]
Status = Literal["training", "finished", "stopped early", "interrupted", "diverged", "imported"]
ENDED: tuple[Status, ...] = ("finished", "stopped early")

RECORD = "run.json"
EXPERIMENT = "experiment.json"
ENVIRONMENT = "environment.json"
METRICS = "metrics.jsonl"
WEIGHTS = "weights.safetensors"
PREDICTIONS = "predictions.csv"
CHECKPOINT = "checkpoint.safetensors"
LOCK = ".lock"
FILES = (RECORD, EXPERIMENT, ENVIRONMENT, METRICS, WEIGHTS, PREDICTIONS, CHECKPOINT)
MOST_METRIC = 1e12  # of a loss, of seconds, of a count
STUDY = "study.json"
WEIGHTS_FORMAT = "rowwise-weights-1"
CHECKPOINT_FORMAT = "rowwise-checkpoint-1"


class EpochMetrics(NamedTuple):
    """An epoch as Keras reports it: shares of 1 and nats; times in seconds.

    loss and accuracy are means over the epoch's samples, taken while the weights move.
    """

    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    train_s: float
    val_s: float
    steps: int

    def checked(self) -> EpochMetrics:
        """Itself. Raises ValueError where it holds something that is no number of an epoch."""
        for key, value in self._asdict().items():
            kind = int if key in ("epoch", "steps") else int | float
            if isinstance(value, bool) or not isinstance(value, kind):
                raise ValueError(f"{key} is {value!r:.40}")
            if not 0 <= value <= (1 if key.endswith("accuracy") else MOST_METRIC):
                raise ValueError(f"{key} is out of range: {value!r:.40}")
        return self


class DataIdentity(Settings):
    """Which data a run saw: enough to tell whether two runs are comparable."""

    name: str
    digest: str
    source: str
    fallback: str = ""
    classes: tuple[str, ...]
    shape: tuple[int, int]
    train: int
    validation: int
    test: int


class EngineIdentity(Settings):
    """Which engine trained, why it was taken, in which precision, with how many threads."""

    name: str
    why: str
    precision: str = "float32"
    path: str = ""  # the native core's processor path, empty where it took no part
    threads: int


class Timings(Settings):
    """Seconds spent, over all sittings of a run that was resumed."""

    train_s: float = 0.0
    val_s: float = 0.0
    test_s: float = 0.0


class Record(Settings):
    """What a run is and how far it came."""

    format: Literal[1] = 1
    name: str
    seed: int
    status: Status
    sentence: str = ""
    experiment_digest: str
    data: DataIdentity
    engine: EngineIdentity
    parameters: int
    initialised_from: str = ""
    epochs_done: int = 0
    best_epoch: int | None = None
    test_loss: float | None = None
    test_accuracy: float | None = None
    timings: Timings = Timings()
    started: str
    updated: str
    resumed: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """All that a training needs to go on: the trainer's state, and the progress as plain data."""

    state: dict[str, Array]
    best: Weights
    progress: dict[str, Any]
    average: Weights = field(default_factory=dict)

    def check(self, network: Network, slots: Sequence[str]) -> None:
        """Raise RunError unless it holds all that a training of this network does, and no more."""
        shapes = {name: p.shape for name, p in network.parameters.items()}
        trained = [name for name, p in network.parameters.items() if p.trainable]
        wanted = shapes | {f"slots/{s}/{name}": shapes[name] for s in slots for name in trained}
        if network.experiment.averaging:
            wanted |= {f"average/{name}": shape for name, shape in shapes.items()}
        held = {name: value.shape for name, value in self.state.items()}
        held |= {f"average/{name}": value.shape for name, value in self.average.items()}
        for name in sorted(wanted.keys() | held.keys()):
            need, got = (list(of[name]) if name in of else "none" for of in (wanted, held))
            if need != got:
                raise RunError(
                    f"the checkpoint of {network.experiment.name} is damaged: the shape of {name} "
                    f"must be {need}, got {got}; choose another --out"
                )


class Run:
    """An existing run folder; what it holds is read when asked for."""

    def __init__(self, folder: Path, record: Record) -> None:
        self.folder = folder
        self.record = record

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """The run in `folder`. Raises RunError where there is none, or it is damaged."""
        folder = Path(folder)
        if not folder.is_dir():
            raise RunError(f"a run is a folder, {folder} is {_what(folder)}")
        if not (folder / RECORD).is_file():
            raise RunError(
                f"{folder} is no run folder: it has no {RECORD}; "
                f"`rowwise runs FOLDER` lists the runs in a folder"
            )
        return cls(folder, _model(Record, folder / RECORD))

    @property
    def files(self) -> list[Path]:
        """Where the files of a run lie, those too that are not there yet."""
        return [self.folder / name for name in FILES]

    def begin(self, experiment: Experiment, threads: int, *, resumed: int = 0) -> None:
        """Write what a sitting at this run starts with: the first one, or that after `resumed`.

        The record comes first: a process killed between two of these files leaves a run.
        """
        self.update()
        write_text(self.folder / EXPERIMENT, experiment.model_dump_json(indent=2) + "\n")
        self.__dict__.pop("experiment", None)  # name and note may have changed
        told = {"format": 1, **environment(threads=threads)}
        write_json(self.folder / ENVIRONMENT, told)
        self.update(status="training", resumed=resumed)

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self.record.name

    @property
    def seed(self) -> int:
        """The seed of this run."""
        return self.record.seed

    @property
    def status(self) -> Status:
        """How far the run came."""
        return self.record.status

    @property
    def ended(self) -> bool:
        """Whether the training came to its proper end."""
        return self.record.status in ENDED

    @cached_property
    def experiment(self) -> Experiment:
        """The resolved configuration."""
        return _model(Experiment, self.folder / EXPERIMENT)

    @cached_property
    def network(self) -> Network:
        """The network, for the data set that the run saw."""
        return Network(self.experiment, self.record.data.shape, len(self.record.data.classes))

    @cached_property
    def metrics(self) -> tuple[EpochMetrics, ...]:
        """The finished epochs."""
        path = self.folder / METRICS
        if not path.exists():
            return ()
        lines = enumerate(read_text(path).splitlines(), 1)
        return tuple(_epoch(line, f"{path}, line {number}") for number, line in lines)

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, processor and threads, as `environment` wrote them."""
        return read_json(self.folder / ENVIRONMENT)

    def weights(self) -> Weights:
        """The network's weights. Raises RunError where there are none or they do not fit."""
        path = self.folder / WEIGHTS
        if not path.exists():
            resumable = (self.folder / CHECKPOINT).exists()
            hint = "go on with --resume" if resumable else "train it again"
            raise RunError(f"{self.folder} has no {WEIGHTS}: this run is {self.status}; {hint}")
        weights, _ = tensors.read(path, WEIGHTS_FORMAT)
        return self._check(weights, path)

    def predictions(self) -> Predictions:
        """What the network says of the test images. Raises RunError where absent or damaged."""
        path = self.folder / PREDICTIONS
        if not path.exists():
            raise RunError(f"{self.folder} has no {PREDICTIONS}: this run is {self.status}")
        data = self.record.data
        return predictions.read(path, count=data.test, classes=len(data.classes))

    def checkpoint(self) -> Checkpoint | None:
        """The state of an unfinished training, or None before its first checkpoint."""
        path = self.folder / CHECKPOINT
        if not path.exists():
            return None
        state, told = tensors.read(path, CHECKPOINT_FORMAT)
        if "progress" not in told:
            raise RunError(f"{path} is damaged: it has no progress")
        progress = parse_object(told["progress"], RunError, f"{path} is damaged: its progress")
        best, average = (
            {k.removeprefix(what): state.pop(k) for k in list(state) if k.startswith(what)}
            for what in ("best/", "average/")
        )
        self._check({k: v for k, v in state.items() if not k.startswith("slots/")}, path)
        return Checkpoint(state, best, progress, average)

    def _check(self, found: dict[str, Array], path: Path) -> Weights:
        try:
            return self.network.check(found, where=str(path))
        except NetworkError as error:
            raise RunError(str(error)) from None

    # --- writing --------------------------------------------------------------------------

    def update(self, **changes: Any) -> None:
        """Change the record, and write it."""
        fields = {**self.record.model_dump(), **changes, "updated": now()}
        self.record = Record.model_validate(fields)
        write_text(self.folder / RECORD, self.record.model_dump_json(indent=2) + "\n")

    def save_metrics(self, metrics: tuple[EpochMetrics, ...]) -> None:
        """Write all epochs up to now."""
        lines = [json.dumps(row._asdict()) + "\n" for row in metrics]
        write_text(self.folder / METRICS, "".join(lines))
        self.__dict__.pop("metrics", None)

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write the state of an unfinished training."""
        kept = {"best": checkpoint.best, "average": checkpoint.average}
        apart = {f"{what}/{k}": v for what, of in kept.items() for k, v in of.items()}
        told = {"progress": json.dumps(checkpoint.progress)}
        state = {**checkpoint.state, **apart}
        tensors.write(self.folder / CHECKPOINT, CHECKPOINT_FORMAT, state, told)

    def remove_checkpoint(self) -> None:
        """Forget the state of a training that has ended."""
        (self.folder / CHECKPOINT).unlink(missing_ok=True)

    def save_weights(self, weights: Weights) -> None:
        """Write the weights, with the network as metadata."""
        data = self.record.data
        told = {
            "experiment": self.experiment.model_dump_json(),
            "shape": json.dumps(data.shape),
            "classes": json.dumps(data.classes),
        }
        tensors.write(self.folder / WEIGHTS, WEIGHTS_FORMAT, weights, told)

    def save_predictions(
        self, labels: NDArray[np.int64], probabilities: NDArray[np.float32]
    ) -> None:
        """Write what the network says of the test images."""
        predictions.write(self.folder / PREDICTIONS, labels, probabilities)


def adopt(folder: Path, record: Record, experiment: Experiment, weights: Weights) -> Run:
    """Make a run of weights that were trained elsewhere; its folder is whole or absent.

    Raises RunError where `folder` is taken, or cannot be written.
    """
    check_free(folder, what="an import")
    folder = Path(os.path.abspath(folder))  # "." has no name
    beside = folder.with_name(f".{folder.name}.{os.getpid()}{PART}")
    make_folder(beside)
    try:
        run = Run(beside, record)
        write_text(beside / EXPERIMENT, experiment.model_dump_json(indent=2) + "\n")
        told = {"format": 1, **environment(threads=record.engine.threads)}
        write_json(beside / ENVIRONMENT, told)
        run.save_weights(weights)
        run.update()
        beside.replace(folder)
    except OSError as error:
        raise RunError(f"cannot write {folder}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return Run(folder, run.record)


def find(folder: str | Path) -> list[Run]:
    """The runs in `folder` (or `folder` itself), by name and seed.

    Raises RunError where `folder` is none, or a run in it is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RunError(f"a folder of runs is needed, {folder} is {_what(folder)}")
    if (folder / RECORD).is_file():
        return [Run.open(folder)]
    runs = [Run.open(path.parent) for path in sorted(folder.glob(f"*/{RECORD}"))]
    return sorted(runs, key=lambda run: (run.name, run.seed))


def study(folder: Path) -> Study | None:
    """The study that `folder` holds, or None. Raises RunError where its file is damaged."""
    path = folder / STUDY
    return _model(Study, path) if path.exists() else None


def save_study(folder: Path, study: Study) -> None:
    """Keep a resolved study beside its runs."""
    write_text(folder / STUDY, study.model_dump_json(indent=2) + "\n")


def check_free(folder: Path, *, what: str) -> None:
    """Check that nothing is in the way of `what` in a new or empty folder, by raising RunError."""
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{what} writes to a folder, {folder} is a file; choose another --out")
    names = (path.name for path in folder.iterdir()) if folder.exists() else ()
    foreign = sorted(name for name in names if name != LOCK and not name.endswith(PART))
    if foreign:
        raise RunError(
            f"{what} needs a folder of its own, {folder} holds {foreign[0]}; choose another --out"
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder against other processes; the system lets go when this one dies.

    Raises RunError where another process holds it, or nothing can be written there.
    """
    make_folder(folder)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(
            f"one process at a time writes to {folder}, another one does now; "
            f"wait for it, or choose another --out"
        ) from None
    except OSError as error:
        raise RunError(f"cannot write to {folder}: {error.strerror or error}") from None
    try:
        remove_parts(folder)
        yield
    finally:
        lock.release()


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _epoch(line: str, where: str) -> EpochMetrics:
    """An epoch's line, where it holds all keys with numbers that an epoch can have."""
    known = ", ".join(EpochMetrics._fields)
    with parsing(RunError, f"{where}: an epoch is an object with the keys {known}"):
        return EpochMetrics(**parse_object(line, RunError, where)).checked()


def _what(path: Path) -> str:
    return "a file" if path.exists() else "not there"


def _model(model: type[Model], path: Path) -> Model:
    tree = read_json(path)
    try:
        return parse(model, tree, where=str(path))
    except ConfigError as error:
        raise RunError(str(error)) from None

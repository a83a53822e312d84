"""What a person at a terminal sees of a training: lines, a live bar, and the answer to Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from rowwise.bars import Bars
from rowwise.errors import printable
from rowwise.events import Ended, EpochEnded, Event, Started, Stepped, Validating
from rowwise.runs import EpochMetrics

EVENT_EVERY_S = 1.0
STOPPING = b"\nstopping: saving what is done ...\n"
SHOW_CURSOR = b"\x1b[?25h\n"  # a live bar hides it


def epoch_line(row: EpochMetrics, epochs: int) -> str:
    """An epoch as Keras tells it."""
    ms = 1000 * row.train_s / row.steps
    return (
        f"Epoch {row.epoch}/{epochs} - {row.steps}/{row.steps} - "
        f"{row.train_s + row.val_s:.1f}s - {ms:.1f}ms/step - "
        f"loss: {row.loss:.4f} - accuracy: {row.accuracy:.4f} - "
        f"val_loss: {row.val_loss:.4f} - val_accuracy: {row.val_accuracy:.4f}"
    )


class Teller:
    """A callback that tells a training to a person, on stderr.

    On a terminal a live bar runs below the lines; elsewhere there are plain lines alone.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=False),
            console=self._console,
        )
        self._task: TaskID | None = None

    def say(self, line: str) -> None:
        """Write a line above the bar."""
        self._console.print(_shown(line), markup=False)

    def __call__(self, event: Event) -> None:
        """Tell an event."""
        match event:
            case Started():
                self._say_start(event)
            case Stepped():
                told = f"loss {event.loss:.4f}  accuracy {event.accuracy:.4f}"
                self._move(f"Epoch {event.epoch}/{event.epochs}", event.step, event.steps, told)
            case Validating():
                title = f"Epoch {event.epoch}/{event.epochs}"
                self._move(f"{title} validation", event.done, event.samples, "")
            case EpochEnded():
                self.say(epoch_line(event.metrics, event.epochs))
            case Ended():
                self.close()
                if event.status in ("interrupted", "stopped early"):
                    self.say(event.sentence)

    def close(self) -> None:
        """Take the bar away."""
        if self._task is not None:
            self._bar.stop()
            self._bar.remove_task(self._task)
            self._task = None

    def _say_start(self, event: Started) -> None:
        e = event.experiment
        threads = f"{event.threads} thread{'s' if event.threads > 1 else ''}"
        self.say(
            f"{e.name}, seed {e.seed}: {event.network.count:,} parameters, "
            f"{event.samples:,} training and {event.validation_samples:,} validation images, "
            f"batch {e.batch}, {e.optimizer.kind}; engine {event.engine.name} "
            f"({event.engine.why}), {threads}"
        )
        if event.epochs_done or event.steps_done:
            self.say(f"going on at epoch {event.epochs_done + 1}, step {event.steps_done + 1}")

    def _move(self, title: str, done: int, count: int, told: str) -> None:
        if not self._console.is_terminal:
            return
        if self._task is None:
            self._task = self._bar.add_task(title, total=count, told=told)
            self._bar.start()
        task = self._bar.tasks[0]
        if task.description != title:  # a new epoch: the clock starts anew
            self._bar.reset(self._task, total=count, description=title, told=told)
        self._bar.update(self._task, completed=done, told=told)


class JsonTeller:
    """A callback that writes one JSON object an event to stdout, progress at most once a second."""

    def __init__(self) -> None:
        self._told_at = 0.0

    def say(self, line: str) -> None:
        """Write a line for people to stderr."""
        to_stderr(line)

    def __call__(self, event: Event) -> None:
        """Write an event."""
        if isinstance(event, Stepped | Validating):
            if time.monotonic() - self._told_at < EVENT_EVERY_S:
                return
            self._told_at = time.monotonic()
        write_json(_plain(event))

    def close(self) -> None:
        """Nothing is open."""


class QuietTeller:
    """A callback that tells nothing."""

    def say(self, line: str) -> None:
        """Nothing but errors is told."""

    def __call__(self, event: Event) -> None:
        """Tell nothing."""

    def close(self) -> None:
        """Nothing is open."""


AnyTeller = Teller | JsonTeller | QuietTeller


def teller(*, quiet: bool, as_json: bool) -> AnyTeller:
    """The teller that the flags ask for."""
    if as_json:
        return JsonTeller()
    return QuietTeller() if quiet else Teller()


def write_line(text: str) -> None:
    """Write a result to stdout, what a terminal might obey escaped."""
    print(_shown(text))


def to_stderr(line: str) -> None:
    """Write a line for people, not for programs."""
    print(_shown(line), file=sys.stderr)


def _shown(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


def write_json(tree: Any) -> None:
    """Write one JSON object as one line to stdout."""
    print(json.dumps(tree), flush=True)


def _plain(event: Event) -> dict[str, Any]:
    """An event as plain data, named by its kind."""
    told: dict[str, Any] = {"event": type(event).__name__.lower()}
    match event:
        case Started():
            told |= {
                "name": event.experiment.name,
                "seed": event.experiment.seed,
                "experiment": event.experiment.model_dump(mode="json"),
                "parameters": event.network.count,
                "engine": event.engine._asdict(),
                "threads": event.threads,
                "folder": str(event.folder) if event.folder else None,
                "samples": event.samples,
                "validation_samples": event.validation_samples,
                "steps": event.steps,
                "epochs_done": event.epochs_done,
                "steps_done": event.steps_done,
            }
        case EpochEnded():
            told |= {"epochs": event.epochs, **event.metrics._asdict()}
        case _:
            told |= event._asdict()
    return told


class StopSwitch:
    """Turned by Ctrl-C or SIGTERM; `fit` asks it between two calls of its engine.

    The first signal is answered at once with a line; a second one ends the process where it stands,
    and the last checkpoint holds.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that a signal ended."""
        return 128 + (self.signal or signal.SIGINT)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Listen to the signals inside, and give them back after."""
        caught = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._hear) for number in caught}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        again = self.signal is not None
        self.signal = self.signal or number
        # Not through rich: the signal may have come while it holds its lock. And where nobody
        # listens any more (a closed pipe), what is done is saved all the same.
        with suppress(OSError):
            os.write(sys.stderr.fileno(), SHOW_CURSOR if again else STOPPING)
        if again:
            os._exit(self.exit_code)

"""What a training tells while it goes on: the events that `fit` calls its callbacks with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rowwise.config import Experiment
from rowwise.engines import Choice
from rowwise.network import Network
from rowwise.runs import EpochMetrics, Status


class Started(NamedTuple):
    """A training begins or goes on: event."""

    experiment: Experiment
    network: Network
    engine: Choice
    threads: int
    folder: Path | None
    samples: int
    validation_samples: int
    steps: int
    epochs_done: int
    steps_done: int


class Stepped(NamedTuple):
    """Some steps of an epoch are done: event. Loss and accuracy are running means."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float
    train_s: float


class Validating(NamedTuple):
    """Some pictures of the validation data are read: event."""

    epoch: int
    epochs: int
    done: int
    samples: int


class EpochEnded(NamedTuple):
    """An epoch and its validation are over: event."""

    metrics: EpochMetrics
    epochs: int


class Ended(NamedTuple):
    """The training is over, or interrupted: event."""

    status: Status
    sentence: str
    test_accuracy: float | None


Event = Started | Stepped | Validating | EpochEnded | Ended
Callback = Callable[[Event], None]

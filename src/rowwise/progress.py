"""How far a training is: its books as plain data, and the rule by which it ends."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from rowwise.config import EarlyStopping, Experiment
from rowwise.runs import EpochMetrics, Status, Timings

Count = Annotated[int, Field(ge=0, lt=2**62)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(config=ConfigDict(extra="forbid"))
class Progress:
    """The books of a training; plain data, checked, so that a checkpoint can hold them.

    `epoch` and `step` are what is done: whole epochs, and steps of the one that is under way.
    `loss_sum`, `right`, `outliers` and `train_s` are of that epoch; `best_*` and `waited` are early
    stopping's.
    """

    epoch: Count = 0
    step: Count = 0
    loss_sum: Amount = 0.0
    right: Count = 0
    outliers: Count = 0
    train_s: Amount = 0.0
    total_train_s: Amount = 0.0
    total_val_s: Amount = 0.0
    best_epoch: Count | None = None
    best_value: Amount | None = None
    waited: Count = 0
    metrics: list[list[Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Check the finished epochs. Raises ValueError."""
        if [row.checked().epoch for row in self.rows] != list(range(1, len(self.metrics) + 1)):
            raise ValueError("epochs are counted from 1")
        if len(self.metrics) != self.epoch:
            raise ValueError(f"{self.epoch} epochs are done, and {len(self.metrics)} entered")

    @property
    def rows(self) -> tuple[EpochMetrics, ...]:
        """The finished epochs."""
        return tuple(EpochMetrics(*row) for row in self.metrics)

    @property
    def timings(self) -> Timings:
        """Seconds spent up to now."""
        return Timings(train_s=self.total_train_s + self.train_s, val_s=self.total_val_s)

    def add(
        self,
        losses: NDArray[np.float64],
        right: NDArray[np.int64],
        seconds: float,
        *,
        outliers: int = 0,
    ) -> None:
        """Enter some steps: for each the loss summed over its samples, and the right answers.

        `outliers` of their samples were of no class, so that no answer to them is right.
        """
        # One addition a step: the sum must not depend on how many steps a call had.
        for loss in losses.tolist():
            self.loss_sum += loss
        self.right += int(right.sum())
        self.outliers += outliers
        self.step += len(losses)
        self.train_s += seconds

    def close_epoch(self, row: EpochMetrics) -> None:
        """Enter a finished epoch, and begin the next."""
        self.metrics.append(list(row))
        self.total_train_s += row.train_s
        self.total_val_s += row.val_s
        self.epoch, self.step = self.epoch + 1, 0
        self.loss_sum, self.right, self.outliers, self.train_s = 0.0, 0, 0, 0.0

    def watch(self, rule: EarlyStopping, row: EpochMetrics) -> bool:
        """Enter an epoch into early stopping's books; whether it is the best up to now."""
        value = float(getattr(row, rule.monitor))
        sign = 1.0 if rule.monitor.endswith("loss") else -1.0
        better = self.best_value is None or sign * (self.best_value - value) > rule.min_delta
        if better:
            self.best_value, self.best_epoch, self.waited = value, row.epoch, 0
        else:
            self.waited += 1
        return better

    def ending(self, experiment: Experiment) -> tuple[Status, str] | None:
        """Status and sentence once the training is over, None before."""
        rule = experiment.early_stopping
        if rule is not None and self.waited >= rule.patience:
            sentence = (
                f"stopped after epoch {self.epoch}: {rule.monitor} has not improved for "
                f"{_epochs(self.waited)}; its best was {self.best_value:.4f} "
                f"in epoch {self.best_epoch}"
            )
            return "stopped early", sentence
        if self.epoch >= experiment.epochs:
            return "finished", f"finished after {_epochs(self.epoch)}"
        return None


def _epochs(count: int) -> str:
    return f"{count} epoch{'' if count == 1 else 's'}"

"""TensorBoard event files: one scalar a metric and epoch, as Keras' callback names them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rowwise.errors import importing
from rowwise.events import Ended, EpochEnded, Event

FOLDER = "tensorboard"


class EventFiles:
    """A callback for `fit` that writes event files below a run's folder.

    `tensorboard --logdir RUN/tensorboard` shows them. Raises MissingExtra without the package.
    """

    def __init__(self, folder: str | Path) -> None:
        with importing("tensorboard", "tensorboard"):
            from tensorboard.summary import Writer
        self._folder = Path(folder) / FOLDER
        self._writer = Writer
        self._writers: dict[str, Any] = {}

    def __call__(self, event: Event) -> None:
        """Write what an ended epoch measured."""
        if isinstance(event, Ended):
            for writer in self._writers.values():
                writer.close()
        if not isinstance(event, EpochEnded):
            return
        if not self._writers:  # made late, as a new run wants a folder of its own
            parts = ("train", "validation")
            self._writers = {part: self._writer(str(self._folder / part)) for part in parts}
        row = event.metrics
        values = {
            "train": {"epoch_loss": row.loss, "epoch_accuracy": row.accuracy},
            "validation": {"epoch_loss": row.val_loss, "epoch_accuracy": row.val_accuracy},
        }
        for part, scalars in values.items():
            for tag, value in scalars.items():
                self._writers[part].add_scalar(tag, value, row.epoch)
            self._writers[part].flush()

"""What a training gave, fresh from the training or read from the folder of a finished one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from rowwise import engines, pixels
from rowwise.config import Experiment
from rowwise.engines import Choice, Precision
from rowwise.network import Network, Weights
from rowwise.runs import EpochMetrics, Run, Status

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Result:
    """What a training gave.

    `weights` are those of the last epoch, or of the best one where early stopping restores it;
    `probabilities` [N, C] float32 are of the test images, None where the training was interrupted.
    `sentence` says in words how it ended.
    """

    experiment: Experiment
    network: Network
    weights: Weights
    metrics: tuple[EpochMetrics, ...]
    status: Status
    sentence: str
    engine: Choice
    probabilities: NDArray[np.float32] | None
    test_loss: float | None
    test_accuracy: float | None
    folder: Path | None

    @classmethod
    def read(cls, run: Run) -> Self:
        """The result of a run that ended earlier. Raises RunError where its folder is damaged."""
        record = run.record
        return cls(
            experiment=run.experiment,
            network=run.network,
            weights=run.weights(),
            metrics=run.metrics,
            status=run.status,
            sentence=record.sentence,
            engine=Choice(
                name=record.engine.name,
                why=record.engine.why,
                precision=cast(Precision, record.engine.precision),
                path=record.engine.path,
            ),
            probabilities=run.predictions().probabilities,
            test_loss=record.test_loss,
            test_accuracy=record.test_accuracy,
            folder=run.folder,
        )

    def predict(self, images: Array, *, engine: str = "auto") -> NDArray[np.float32]:
        """Probabilities [N, C] for images [N, rows, columns] of any numbers; see `pixels.arrays`.

        Raises PictureError for another shape or type, or a range that no pictures have.
        """
        images = pixels.arrays(images, shape=self.network.shape)
        name = engines.choose(engine, self.network, training=False).name
        return engines.engine(name).predict(self.network, self.weights, images)

"""The scikit-learn face: `RowwiseClassifier`, an estimator like any other.

A row of X is a picture where the number of features is a square, row by row; else it is read in one
step. scikit-learn is imported with this module, which is its home.
"""

from __future__ import annotations

import hashlib
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rowwise import engines
from rowwise.cells import CELLS
from rowwise.config import Experiment, shipped_studies
from rowwise.data import Dataset
from rowwise.errors import ConfigError, EstimatorError, importing
from rowwise.formats import MAX_CLASSES
from rowwise.network import Network
from rowwise.settings import nearest, parse
from rowwise.train import fit

with importing("scikit-learn", "study", module="sklearn"):
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data

Array = NDArray[Any]

__all__ = ["RowwiseClassifier"]

# With them the digits of scikit-learn are read best and soonest of what was tried; docs/log.md.
UNITS, EPOCHS, BATCH, RATE = 32, 20, 32, 5e-3
NORM = {"kind": "batch_norm", "momentum": 0.9}


class RowwiseClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A recurrent network as a scikit-learn classifier.

    X is float [samples, features]. Where the number of features is a square, a sample is a picture
    of as many rows as columns, row by row; else it is one time step. In `fit`, every feature's
    range is learned, and brought to 0..1 from then on; a feature that never varies gives 0.

    Args:
        network: "lstm", "gru" or "simple_rnn": bidirectional, over the rows and over the columns,
            batch-normalised; or the name of an experiment that ships, such as "lstm-tanh"; or an
            `Experiment`.
        units: of every recurrent layer, each way.
        epochs: passes over the samples.
        batch_size: samples an optimiser's step.
        learning_rate: the optimiser's, at its largest.
        random_state: an int makes `fit` repeat itself.
        engine: "auto", "native", "torch" or "plain" (which reads and does not train).
        n_jobs: threads; None is one, -1 all usable cores.
        verbose: whether to tell the training line by line, on stderr.

    `units`, `epochs`, `batch_size` and `learning_rate` are, where None, those of the experiment; of
    a network named by its cell 32, 20, 32 and 0.005, which falls to 0 by half a cosine.

    Attributes:
        classes_: the labels, sorted.
        n_features_in_: features a sample.
        loss_curve_: the training loss of every epoch, in nats.
        n_iter_: epochs.
        experiment_: the network and its training, resolved.
        weights_: its weights by name.
        engine_: the engine that trained.
        minimum_, range_: of every feature.
    """

    def __init__(
        self,
        network: str | Experiment = "lstm",
        *,
        units: int | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        random_state: Any = None,
        engine: str = "auto",
        n_jobs: int | None = None,
        verbose: bool = False,
    ) -> None:
        self.network = network
        self.units = units
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state
        self.engine = engine
        self.n_jobs = n_jobs
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> Self:
        """Train the network on X [N, features] and its labels y [N].

        Raises EstimatorError, a ValueError, where a parameter or the labels break a rule.
        """
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if not 2 <= len(self.classes_) <= MAX_CLASSES:
            raise EstimatorError(
                f"y must tell 2 to {MAX_CLASSES} classes apart, got {len(self.classes_)} class(es)"
            )
        lowest, highest = X.min(axis=0), X.max(axis=0)
        self.minimum_ = lowest
        self.range_ = np.where(highest > lowest, highest - lowest, np.inf)
        self.experiment_ = self._experiment(len(X))
        images: Any = self._pictures(X)  # engines read floats as they are
        data = Dataset(
            "given",
            images,
            labels.astype(np.int64),
            images[:1],
            labels[:1].astype(np.int64),
            tuple(str(place) for place in range(len(self.classes_))),
            "fit(X, y)",
            hashlib.sha256(images.tobytes()).hexdigest(),
        )
        result = fit(
            self.experiment_,
            data,
            engine=self.engine,
            threads=self._threads(),
            callbacks=self._callbacks(),
        )
        self.weights_ = result.weights
        self.engine_ = result.engine.name
        self.loss_curve_ = [row.loss for row in result.metrics]
        self.n_iter_ = len(result.metrics)
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """The probabilities [N, C] of the classes in `classes_` for X [N, features]."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        network = Network(self.experiment_, self._shape(), len(self.classes_))
        reader = "auto" if self.engine_ not in engines.READING_ORDER else self.engine_
        choice = engines.choose(reader, network, training=False)
        return engines.engine(choice.name).predict(
            network, self.weights_, self._pictures(X), threads=self._threads()
        )

    def predict(self, X: Any) -> Array:
        """The most probable label [N] for X [N, features]."""
        shares = self.predict_proba(X)
        return np.asarray(self.classes_[shares.argmax(axis=1)])

    # --- what the parameters mean -------------------------------------------------------------

    def _shape(self) -> tuple[int, int]:
        """Rows and columns of a sample."""
        side = round(self.n_features_in_**0.5)
        return (side, side) if side * side == self.n_features_in_ else (1, self.n_features_in_)

    def _pictures(self, X: Array) -> NDArray[np.float32]:
        """Samples as float32 [N, rows, columns], each feature in the range it had in `fit`."""
        scaled = (X - self.minimum_) / self.range_
        return np.ascontiguousarray(scaled, np.float32).reshape(len(X), *self._shape())

    def _experiment(self, samples: int) -> Experiment:
        """The experiment that the parameters describe."""
        base = self._base()
        rng = check_random_state(self.random_state)
        tree = base.model_dump(exclude={"published", "early_stopping"})
        if base.branches:
            del tree["reading"]
        tree |= {"seed": int(rng.randint(2**31 - 1)), "validation": "test"}
        for key, value in (("epochs", self.epochs), ("batch", self.batch_size)):
            if value is not None:
                tree[key] = _number(value)
        tree["batch"] = min(tree["batch"], samples) if isinstance(tree["batch"], int) else None
        if self.learning_rate is not None:
            tree["optimizer"]["learning_rate"] = _number(self.learning_rate, float)
        if self.units is not None:
            for stack in (tree["layers"], *(branch["layers"] for branch in tree["branches"])):
                for layer in stack:
                    if layer["kind"] in CELLS:
                        layer["units"] = _number(self.units)
        try:
            return parse(Experiment, tree, where="RowwiseClassifier")
        except ConfigError as error:
            raise EstimatorError(str(error)) from None

    def _base(self) -> Experiment:
        """The experiment without what other parameters say."""
        if isinstance(self.network, Experiment):
            return self.network
        if self.network in CELLS:
            return _of_cell(self.network, picture=self._shape()[0] > 1)
        known = {e.name: e for study in shipped_studies().values() for e in study.experiments}
        if self.network in known:
            return known[self.network]
        names = [*CELLS, *known]
        raise EstimatorError(
            f"network is an Experiment or one of {', '.join(names)}, got {self.network!r:.60}"
            f"{nearest(str(self.network), names)}"
        )

    def _threads(self) -> int:
        if self.n_jobs is None:
            return 1
        if not isinstance(self.n_jobs, int | np.integer) or self.n_jobs == 0 or self.n_jobs > 1024:
            raise EstimatorError(f"n_jobs is None, -1 or a number of threads, got {self.n_jobs!r}")
        if self.n_jobs > 0:
            return int(self.n_jobs)
        return max(1, engines.usable_cores() + 1 + int(self.n_jobs))

    def _callbacks(self) -> list[Any]:
        if not self.verbose:
            return []
        from rowwise.terminal import Teller

        return [Teller()]


def _of_cell(cell: str, *, picture: bool) -> Experiment:
    """A picture by rows and by columns, both ways; one step is read once."""
    layers = [NORM, {"kind": cell, "units": UNITS, "bidirectional": picture}]
    settings: dict[str, Any] = {"layers": layers}
    if picture:
        ways = [{"reading": reading, "layers": layers} for reading in ("rows", "columns")]
        settings = {"branches": ways}
    return Experiment(
        name=f"rowwise-{cell}",
        optimizer={"kind": "adam", "learning_rate": RATE},
        schedule="cosine",
        batch=BATCH,
        epochs=EPOCHS,
        **settings,
    )


def _number(value: Any, kind: type = int) -> Any:
    """A numpy number as Python's; what is none stays for the rule to refuse."""
    if isinstance(value, np.generic):
        value = value.item()
    return float(value) if kind is float and type(value) is int else value

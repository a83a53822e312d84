"""One sitting at a training: from its first step, or from a checkpoint, to its end or a stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rowwise import augment, engines, metrics, outliers
from rowwise import data as datasets
from rowwise.config import Experiment
from rowwise.data import Dataset
from rowwise.engines import Choice
from rowwise.errors import RunError, TrainingDiverged
from rowwise.events import Callback, Ended, EpochEnded, Event, Started, Stepped, Validating
from rowwise.files import parsing
from rowwise.network import Network, Weights
from rowwise.progress import Progress
from rowwise.result import Result
from rowwise.runs import Checkpoint, EpochMetrics, Run, Status

Array = NDArray[Any]
Labels = NDArray[np.int64]

CALL_S = 0.05  # an engine is called for about so long, so that bars move and Ctrl-C is heard
CHECKPOINT_S = 30.0  # a long epoch is saved so often
SLICE = 500  # pictures evaluated at a call
HOPELESS = 1000.0  # a loss of so many times chance level is beyond recall
BROKEN = "infinite or not a number"


class Part(NamedTuple):
    """Images [N, rows, columns] with their labels int64 [N]."""

    images: Array
    labels: Labels


class Parts(NamedTuple):
    """What a training learns from, what it is validated on, and what it is tested on."""

    train: Part
    validation: Part
    test: Part


def parts(experiment: Experiment, data: Dataset) -> Parts:
    """The parts of `data` as `experiment` uses them. Raises DataError where one would be empty."""
    train = Part(data.train_images, data.train_labels)
    test = Part(data.test_images, data.test_labels)
    if experiment.validation == "test":
        return Parts(train, test, test)
    images, labels = train
    own = len(labels) - data.added  # what was added is learnt from, and judges nothing
    kept, held = datasets.split(labels[:own], share=experiment.validation)
    kept = np.concatenate([kept, np.arange(own, len(labels))])
    return Parts(Part(images[kept], labels[kept]), Part(images[held], labels[held]), test)


def shuffled(count: int, *, seed: int, epoch: int) -> Labels:
    """The order of `count` pictures in an epoch, a function of seed and epoch alone.

    Raw draws and a stable sort, so that the order is the same with every version of numpy.
    """
    draws = np.random.Philox(key=(seed << 64) + epoch).random_raw(count)
    return np.argsort(draws, kind="stable")


def slices(count: int) -> Iterator[slice]:
    """Cuts of at most `SLICE` pictures; fixed, as sums depend on them in the last digit."""
    for first in range(0, count, SLICE):
        yield slice(first, min(first + SLICE, count))


def beliefs(
    engine: str,
    network: Network,
    weights: Mapping[str, Array],
    images: Array,
    *,
    threads: int | None,
    stop: Callable[[], bool],
) -> NDArray[np.float32] | None:
    """What a network believes after each step, float32 [N, T, C]; None once `stop` says True."""
    reader = engines.engine(engine)
    read = [np.empty((0, network.steps, network.classes), np.float32)]
    for cut in slices(len(images)):
        read.append(reader.beliefs(network, weights, images[cut], threads=threads))
        if stop():
            return None
    return np.concatenate(read)


def loss_of(experiment: Experiment, labels: Labels, told: NDArray[np.float32]) -> float:
    """The mean loss that `experiment` minimises, of the beliefs [N, T, C] in labelled pictures."""
    return metrics.cross_entropy(
        labels,
        told,
        label_smoothing=experiment.label_smoothing,
        target_replication=experiment.target_replication,
    )


class _Interrupted(Exception):
    """`stop` said True."""


class Session:
    """One sitting at a training: `Session(...).go()`. Where `run` is None, nothing is written.

    Whatever can be refused is refused before `go`, when nothing has been written yet.
    """

    def __init__(
        self,
        network: Network,
        parts: Parts,
        choice: Choice,
        threads: int,
        start: Weights,
        run: Run | None,
        callbacks: Sequence[Callback],
        stop: Callable[[], bool],
    ) -> None:
        self._network, self._experiment = network, (experiment := network.experiment)
        self._train, self._validation, self._test = parts
        self._choice, self._threads = choice, threads
        self._run, self._callbacks, self._stop = run, callbacks, stop
        self._steps = -(-len(self._train.labels) // experiment.batch)
        saved = run.checkpoint() if run else None
        self._good = saved or Checkpoint(
            dict(start), {}, asdict(Progress()), dict(start) if experiment.averaging else {}
        )
        damaged = f"the checkpoint of {experiment.name} is damaged"
        with parsing(RunError, f"{damaged}: its progress is not one that rowwise keeps"):
            self._progress = Progress(**self._good.progress)
            if self._progress.epoch > experiment.epochs or self._progress.step > self._steps:
                raise ValueError("it goes beyond the training's end")
        self._best: Weights = self._good.best
        self._average: Weights = self._good.average
        if saved is not None:
            saved.check(self._network, engines.slot_names(experiment.optimizer))
        self._trainer = self._trainer_of(self._good.state)
        self._pool = ThreadPoolExecutor(threads) if experiment.augmentation else None
        self._saved_at = time.monotonic()
        self._steps_a_call = 1
        self._begins = saved is None

    def _trainer_of(self, state: Mapping[str, Array]) -> engines.Trainer:
        seed = self._experiment.seed
        return engines.trainer(
            self._choice, self._network, state, *self._train, seed=seed, threads=self._threads
        )

    def go(self) -> Result:
        """Train to the end, or until interrupted; the status says which.

        Raises TrainingDiverged; the run's folder then keeps the last good weights.
        """
        if self._begins:
            self._save()
        self._tell_start()
        try:
            return self._train_and_test()
        except TrainingDiverged as error:
            self._keep_last_good(str(error))
            raise
        finally:
            if self._pool is not None:
                self._pool.shutdown()

    def _train_and_test(self) -> Result:
        try:
            while (ending := self._progress.ending(self._experiment)) is None:
                self._train_epoch()
                self._validate()
            return self._finish(*ending)
        except _Interrupted:
            self._save()
            return self._result("interrupted", self._where(), self._learned())

    def _tell(self, event: Event) -> None:
        for callback in self._callbacks:
            callback(event)

    def _tell_start(self) -> None:
        event = Started(
            experiment=self._experiment,
            network=self._network,
            engine=self._choice,
            threads=self._threads,
            folder=self._run.folder if self._run else None,
            samples=len(self._train.labels),
            validation_samples=len(self._validation.labels),
            steps=self._steps,
            epochs_done=self._progress.epoch,
            steps_done=self._progress.step,
        )
        self._tell(event)

    # --- an epoch -----------------------------------------------------------------------------

    def _train_epoch(self) -> None:
        p, batch = self._progress, self._experiment.batch
        order = shuffled(len(self._train.labels), seed=self._experiment.seed, epoch=p.epoch)
        while p.step < self._steps:
            first = p.epoch * self._steps + p.step
            count = min(self._steps_a_call, self._steps - p.step, self._steps_to_average(first))
            taken = order[p.step * batch : (p.step + count) * batch]
            began = time.perf_counter()
            given = self._distorted(taken, first)
            losses, right = self._trainer.run(
                taken,
                batch=batch,
                first_step=first,
                rates=self._rates(first, count),
                given=given,
            )
            self._move_average(first + count)
            seconds = time.perf_counter() - began
            lost = 0 if given is None else int((given.labels == outliers.NONE).sum())
            p.add(losses, right, seconds, outliers=lost)
            self._check_losses(losses)
            self._tell(self._stepped())
            self._steps_a_call = max(1, min(2 * count, int(CALL_S / (seconds / count))))
            self._pause()

    def _distorted(self, order: Labels, first_step: int) -> engines.Given | None:
        """The pictures of these steps as the augmentation makes them, or None without one."""
        how, batch = self._experiment.augmentation, self._experiment.batch
        if how is None or self._pool is None:
            return None
        seed, each = self._experiment.seed, self._pool.map
        whole = self._steps * self._experiment.epochs
        steps = []
        for step, cut in enumerate(range(0, len(order), batch), first_step):
            places = order[cut : cut + batch]
            images, labels = self._train.images[places], self._train.labels[places]
            now = how.at(step / whole)
            made = augment.distort(images, labels, now, seed=seed, step=step, each=each)
            steps.append(engines.Given(*made))
        return engines.Given(*map(np.concatenate, zip(*steps, strict=True)))

    def _steps_to_average(self, step: int) -> int:
        """How many steps may be made at once, so that the average is moved when it is due."""
        rule = self._experiment.averaging
        return self._steps if rule is None else rule.every - step % rule.every

    def _move_average(self, step: int) -> None:
        """Move the average, if it is due after so many steps since the beginning."""
        rule = self._experiment.averaging
        if rule is None or step % rule.every:
            return
        moved = np.float32(1 - rule.kept(step // rule.every))
        for name, value in self._trainer.weights().items():
            self._average[name] = self._average[name] + moved * (value - self._average[name])

    def _learned(self) -> Weights:
        """What is validated, tested and kept: the weights, or their average."""
        return dict(self._average) or self._trainer.weights()

    def _rates(self, first: int, count: int) -> NDArray[np.float64]:
        schedule, total = self._experiment.schedule, self._steps * self._experiment.epochs
        peak = self._experiment.optimizer.learning_rate
        return np.array([peak * schedule.factor(s, total) for s in range(first, first + count)])

    def _check_losses(self, losses: NDArray[np.float64]) -> None:
        p = self._progress
        for step, loss in enumerate(losses.tolist(), p.step - len(losses) + 1):
            place = f"in step {step} of {self._steps} of epoch {p.epoch + 1}"
            self._check_loss("loss", loss / self._experiment.batch, place)

    def _check_loss(self, name: str, mean: float, place: str) -> None:
        if not mean < HOPELESS * math.log(self._network.classes):
            grown = f"{HOPELESS:,.0f} times chance level" if math.isfinite(mean) else BROKEN
            raise self._diverged(f"the {name} became {grown} {place}")

    def _check_state(self, state: Mapping[str, Array]) -> None:
        if not all(np.isfinite(value).all() for value in state.values()):
            raise self._diverged(f"weights became {BROKEN} in epoch {self._progress.epoch + 1}")

    def _diverged(self, what: str) -> TrainingDiverged:
        kept = f"; the last good weights, {self._last_good()}, are kept" if self._run else ""
        return TrainingDiverged(
            f"{self._experiment.name} diverged: {what}{kept}; "
            f"a smaller optimizer.learning_rate or a clipping may help"
        )

    def _last_good(self) -> str:
        epoch, step = self._good.progress["epoch"], self._good.progress["step"]
        if step:
            return f"after step {step} of epoch {epoch + 1}"
        return f"after epoch {epoch}" if epoch else "as they began"

    def _stepped(self) -> Stepped:
        p = self._progress
        seen = min(p.step * self._experiment.batch, len(self._train.labels))
        return Stepped(
            epoch=p.epoch + 1,
            epochs=self._experiment.epochs,
            step=p.step,
            steps=self._steps,
            loss=p.loss_sum / seen,
            accuracy=p.right / max(1, seen - p.outliers),
            train_s=p.train_s,
        )

    def _pause(self) -> None:
        """Between two calls: hear Ctrl-C, and save a long epoch now and then."""
        if self._stop():
            raise _Interrupted
        if time.monotonic() - self._saved_at > CHECKPOINT_S:
            self._save()

    def _validate(self) -> None:
        p, epochs = self._progress, self._experiment.epochs
        images, labels = self._validation
        began = time.perf_counter()
        reader = self._trainer_of(self._average) if self._average else self._trainer
        loss, right = 0.0, 0
        for cut in slices(len(labels)):
            part_loss, part_right = reader.evaluate(images[cut], labels[cut])
            loss, right = loss + part_loss, right + part_right
            self._tell(Validating(p.epoch + 1, epochs, cut.stop, len(labels)))
            if self._stop():
                raise _Interrupted
        self._check_loss("validation loss", loss / len(labels), f"after epoch {p.epoch + 1}")
        samples, held = len(self._train.labels), len(labels)
        row = EpochMetrics(
            epoch=p.epoch + 1,
            loss=p.loss_sum / samples,
            accuracy=p.right / max(1, samples - p.outliers),
            val_loss=loss / held,
            val_accuracy=right / held,
            train_s=p.train_s,
            val_s=time.perf_counter() - began,
            steps=self._steps,
        )
        self._close_epoch(row)
        self._tell(EpochEnded(row, epochs))

    def _close_epoch(self, row: EpochMetrics) -> None:
        self._check_state(state := self._trainer.state())
        self._progress.close_epoch(row)
        rule = self._experiment.early_stopping
        if rule is not None and self._progress.watch(rule, row) and rule.restore_best:
            self._best = self._learned()
        self._keep(state)

    # --- what is kept -------------------------------------------------------------------------

    def _save(self) -> None:
        self._check_state(state := self._trainer.state())
        self._keep(state)

    def _keep(self, state: dict[str, Array]) -> None:
        """Make this the state that a resumed training goes on from."""
        self._good = Checkpoint(state, self._best, asdict(self._progress), dict(self._average))
        self._saved_at = time.monotonic()
        if self._run is not None:
            self._run.save_checkpoint(self._good)
            self._run.save_metrics(self._progress.rows)

    def _finish(self, status: Status, sentence: str) -> Result:
        """Read the test images with the final weights, and write everything."""
        weights = self._best or self._learned()
        began = time.perf_counter()
        engine, images, stop = self._choice.name, self._test.images, self._stop
        told = beliefs(engine, self._network, weights, images, threads=self._threads, stop=stop)
        if told is None:
            raise _Interrupted
        return self._result(status, sentence, weights, told, time.perf_counter() - began)

    def _where(self) -> str:
        p, epochs = self._progress, self._experiment.epochs
        place = f"in epoch {p.epoch + 1} of {epochs}, step {p.step} of {self._steps}"
        if p.ending(self._experiment):
            place = "while the test images were read"
        return f"interrupted {place}{'; all of it is saved' if self._run else ''}"

    def _keep_last_good(self, sentence: str) -> None:
        if self._run is not None:
            good = {k: self._good.state[k] for k in self._network.parameters}
            self._run.save_weights(good)
            self._run.update(status="diverged", sentence=sentence, **self._books())
            self._run.remove_checkpoint()
        self._tell(Ended("diverged", sentence, None))

    def _books(self) -> dict[str, Any]:
        p = self._progress
        return {"epochs_done": p.epoch, "best_epoch": p.best_epoch, "timings": p.timings}

    def _result(
        self,
        status: Status,
        sentence: str,
        weights: Weights,
        told: NDArray[np.float32] | None = None,
        test_s: float = 0.0,
    ) -> Result:
        """Write what there is; `told` are the beliefs of the test images, if they were read."""
        labels = self._test.labels
        probabilities = loss = accuracy = None
        if told is not None:
            probabilities = np.ascontiguousarray(told[:, -1])
            loss = loss_of(self._experiment, labels, told)
            accuracy = metrics.accuracy(labels, probabilities)
        if self._run is not None:
            books = self._books()
            books["timings"] = books["timings"].model_copy(update={"test_s": test_s})
            if probabilities is not None:
                self._run.save_weights(weights)
                self._run.save_predictions(labels, probabilities)
                self._run.save_metrics(self._progress.rows)
            self._run.update(
                status=status, sentence=sentence, test_loss=loss, test_accuracy=accuracy, **books
            )
            if probabilities is not None:
                self._run.remove_checkpoint()
        self._tell(Ended(status, sentence, accuracy))
        return Result(
            experiment=self._experiment,
            network=self._network,
            weights=weights,
            metrics=self._progress.rows,
            status=status,
            sentence=sentence,
            engine=self._choice,
            probabilities=probabilities,
            test_loss=loss,
            test_accuracy=accuracy,
            folder=self._run.folder if self._run else None,
        )

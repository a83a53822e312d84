"""Train one network: `fit(experiment, data) -> Result`. Prints nothing, calls back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rowwise import engines, runs, session
from rowwise.config import Experiment
from rowwise.data import Dataset
from rowwise.engines import Choice
from rowwise.errors import RunError, TrainingDiverged
from rowwise.events import Callback
from rowwise.network import Network, Weights
from rowwise.result import Result as Result
from rowwise.runs import Run
from rowwise.session import Parts, Session

Array = NDArray[Any]


class Start(NamedTuple):
    """Weights to start from, whence they are, and the experiment, classes and size they are of."""

    weights: Weights
    source: str
    experiment: Experiment
    classes: tuple[str, ...]
    shape: tuple[int, int]


def fit(
    experiment: Experiment,
    data: Dataset,
    *,
    out: str | Path | None = None,
    engine: str = "auto",
    threads: int | None = None,
    precision: str = "auto",
    resume: bool = False,
    init_from: Run | Start | Weights | None = None,
    callbacks: Sequence[Callback] = (),
    stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Train `experiment` on `data`.

    `out` is the run's folder (None keeps everything in memory). With `resume`, a run in `out` goes
    on to the bit-identical result of one that was never interrupted, with the engine, precision
    and threads that it began with; a finished one is read; where there is none, it begins.
    `init_from` gives the weights to start from. Each of `callbacks` is called with every event.
    `stop` is asked about every 50 ms; once it says True, the state is saved and the result's
    status is "interrupted".

    Raises NetworkError, EngineError, RunError (the folder is in use, foreign, or of another
    experiment) and TrainingDiverged (the folder then keeps the last good weights).
    """
    network = Network(experiment, data.shape, len(data.classes))
    parts = session.parts(experiment, data)
    asked: dict[str, Any] = {"engine": engine, "threads": threads, "precision": precision}
    run = None if out is None else earlier(out, experiment, data, **asked, resume=resume)
    if run is not None:
        if over(run):
            return _result(run)
        _check_start(run, init_from)
        began = run.record.engine
        engine, threads, precision = began.name, began.threads, began.precision
    choice = engines.choose(engine, network, training=True, precision=precision)
    if run is not None:
        choice = Choice(choice.name, began.why, choice.precision, began.path)
    threads = threads if threads is not None else engines.usable_cores()
    start = _initial(network, experiment, init_from)
    if out is None:
        return Session(network, parts, choice, threads, start, None, callbacks, stop).go()
    with runs.locked(folder := Path(out)):
        meanwhile = earlier(out, experiment, data, **asked, resume=resume)
        if meanwhile is not None and over(meanwhile):
            return _result(meanwhile)
        record = _record(network, data, parts, choice, threads, _source(init_from))
        run = meanwhile or Run(folder, record)
        sitting = Session(network, parts, choice, threads, start, run, callbacks, stop)
        # Not before its checkpoint was read and its memory granted: a refusal changes nothing.
        run.begin(experiment, threads, resumed=meanwhile.record.resumed + 1 if meanwhile else 0)
        return sitting.go()


def earlier(
    out: str | Path,
    experiment: Experiment,
    data: Dataset,
    *,
    engine: str = "auto",
    threads: int | None = None,
    precision: str = "auto",
    resume: bool = True,
) -> Run | None:
    """The run that `fit` would go on with in `out`, or None where it would begin one.

    Raises RunError where it could do neither: the folder is foreign, or holds a run that began
    with another experiment, data, engine, precision or number of threads, or any run without
    `resume`.
    """
    folder = Path(out)
    if not (folder / runs.RECORD).exists():
        runs.check_free(folder, what="a new run")
        return None
    run = Run.open(folder)
    record, before = run.record, run.record.engine
    if not resume:
        raise RunError(
            f"{folder} already holds a run ({run.status}); go on with --resume, "
            f"or choose another --out"
        )
    if record.experiment_digest != experiment.digest:
        raise RunError(
            f"a run is resumed with the configuration that it began with, {folder} began with "
            f"another one (see {runs.EXPERIMENT} there); choose another --out"
        )
    if record.data.digest != data.digest:
        raise RunError(
            f"a run is resumed on the data that it began with, {folder} began on "
            f"{record.data.name} ({record.data.digest[:8]}), got "
            f"{data.name} ({data.digest[:8]}); choose another --out"
        )
    # Others would round otherwise.
    began = {"engine": before.name, "precision": before.precision, "threads": before.threads}
    asked = {"engine": engine, "precision": precision, "threads": threads}
    for what, value in asked.items():
        if not over(run) and value not in ("auto", None, began[what]):
            raise RunError(
                f"a run is resumed with the engine, precision and threads that it began with, "
                f"{folder} began with {what} {began[what]}, got {value}; leave it out"
            )
    return run


def evaluate(
    network: Network,
    weights: Mapping[str, Array],
    images: Array,
    *,
    engine: str = "auto",
    threads: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[NDArray[np.float32], Choice]:
    """Probabilities [N, C] of a saved network for any pictures, and the engine that read them."""
    told, choice = beliefs(network, weights, images, engine=engine, threads=threads, stop=stop)
    return told[:, -1], choice


def beliefs(
    network: Network,
    weights: Mapping[str, Array],
    images: Array,
    *,
    engine: str = "auto",
    threads: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[NDArray[np.float32], Choice]:
    """As `evaluate`, after each step at which the closing layer stands: [N, T, C]."""
    choice = engines.choose(engine, network, training=False)
    told = session.beliefs(choice.name, network, weights, images, threads=threads, stop=stop)
    if told is None:
        raise KeyboardInterrupt
    return told, choice


def over(run: Run) -> bool:
    """Whether nothing is left to train: the run ended, or diverged and would diverge again."""
    return run.ended or run.status == "diverged"


def _result(run: Run) -> Result:
    run.remove_checkpoint()  # a process killed in its very last step left it
    if run.status == "diverged":
        raise TrainingDiverged(run.record.sentence)
    return Result.read(run)


def _check_start(run: Run, init_from: Run | Start | Weights | None) -> None:
    """A run that goes on began from certain weights; others cannot be put in their place."""
    began, given = run.record.initialised_from, _source(init_from)
    if init_from is not None and given != began:
        raise RunError(
            f"a run is resumed from the weights that it began with, {run.folder} began from "
            f"{began or 'fresh ones'}, got {given}; leave --init-from out"
        )
    if init_from is None and began and run.checkpoint() is None:
        raise RunError(
            f"{run.folder} began from {began} and was stopped before its first step; "
            f"give the same --init-from again"
        )


def _source(init_from: Run | Start | Weights | None) -> str:
    if init_from is None:
        return ""
    if isinstance(init_from, Start):
        return init_from.source
    return str(init_from.folder) if isinstance(init_from, Run) else "given weights"


def _initial(
    network: Network, experiment: Experiment, init_from: Run | Start | Weights | None
) -> Weights:
    if init_from is None:
        return network.initialise(seed=experiment.seed)
    if isinstance(init_from, Start):
        return network.check(init_from.weights, where=f"--init-from {init_from.source}")
    if isinstance(init_from, Run):
        return network.check(init_from.weights(), where=f"--init-from {init_from.folder}")
    return network.check(init_from, where="init_from")


def _record(
    network: Network, data: Dataset, parts: Parts, choice: Choice, threads: int, source: str
) -> runs.Record:
    experiment = network.experiment
    return runs.Record(
        name=experiment.name,
        seed=experiment.seed,
        status="training",
        experiment_digest=experiment.digest,
        data=runs.DataIdentity(
            name=data.name,
            digest=data.digest,
            source=data.source,
            fallback=data.fallback,
            classes=data.classes,
            shape=data.shape,
            train=len(parts.train.labels),
            validation=len(parts.validation.labels),
            test=len(parts.test.labels),
        ),
        engine=runs.EngineIdentity(**choice._asdict(), threads=threads),
        parameters=network.count,
        initialised_from=source,
        started=runs.now(),
        updated=runs.now(),
    )

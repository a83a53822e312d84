"""Experiments x seeds: every run of a study, resumable as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rowwise import album, runs
from rowwise.config import Experiment, Study
from rowwise.data import Dataset
from rowwise.engines import choose
from rowwise.errors import RunError, TrainingDiverged
from rowwise.events import Callback
from rowwise.files import remove_parts
from rowwise.network import Network
from rowwise.runs import Run
from rowwise.train import earlier, fit


class Planned(NamedTuple):
    """One run of a study: its experiment with the seed set, and its folder."""

    experiment: Experiment
    folder: Path


class Outcome(NamedTuple):
    """How a study went: the runs that ended, the sentences of those that diverged."""

    ended: tuple[Run, ...]
    diverged: tuple[str, ...]
    interrupted: bool


def plan(
    study: Study, data: Dataset, out: Path, *, seeds: int, only: Iterable[str] = ()
) -> list[Planned]:
    """The runs of a study in the order in which they are made: seed by seed.

    So a study stopped in the middle has seen every network about equally often. Published figures
    stand only beside results on the data set that they were published for.
    """
    chosen = study.only(only) if (only := tuple(only)) else study
    comparable = study.dataset in (None, data.name)
    planned = []
    for seed in range(seeds):
        for experiment in chosen.experiments:
            changes: dict[str, object] = {"seed": seed}
            if not comparable:
                changes["published"] = None
            seeded = experiment.model_copy(update=changes)
            planned.append(Planned(seeded, out / f"{experiment.name}-s{seed}"))
    return planned


def run(
    study: Study,
    data: Dataset,
    *,
    out: str | Path,
    seeds: int | None = None,
    only: Iterable[str] = (),
    engine: str = "auto",
    threads: int | None = None,
    precision: str = "auto",
    resume: bool = True,
    callbacks: Sequence[Callback] = (),
    on_run: Callable[[Planned, int, int], None] = lambda planned, index, count: None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train every experiment of `study` with every seed into folders of `out`.

    Runs that ended are kept, unfinished ones go on (`resume`). `on_run` hears of each run before it
    begins: the run, its place from 0, and how many there are. A run that diverges is told in the
    outcome and does not stop the others.

    Raises ConfigError, NetworkError, EngineError before anything is written, and RunError where
    `out` holds another study or, without `resume`, any run.
    """
    out = Path(out)
    seeds = study.seeds if seeds is None else seeds
    planned = plan(study, data, out, seeds=seeds, only=only)
    for experiment in {p.experiment.name: p.experiment for p in planned}.values():
        network = Network(experiment, data.shape, len(data.classes))
        choose(engine, network, training=True, precision=precision)
    _check_place(study, out, resume=resume)
    means: dict[str, Any] = {"engine": engine, "threads": threads, "precision": precision}
    for experiment, folder in planned:
        earlier(folder, experiment, data, **means)
    with runs.locked(out):
        _write_study(study, out, seeds=seeds)
        remove_parts(album.place(out, data.digest))
        album.keep(out, data)
        return _train_all(planned, data, means, callbacks, on_run, stop)


def _check_place(study: Study, out: Path, *, resume: bool) -> None:
    """A folder is free, or holds this very study."""
    held = runs.study(out)
    if held is None:
        runs.check_free(out, what="a study")
        return
    if not resume:
        raise RunError(
            f"{out} already holds a study; leave out --no-resume, or choose another --out"
        )
    if held.experiments_digest != study.experiments_digest:
        raise RunError(
            f"{out} holds the study {held.name} with other experiments; choose another --out"
        )


def _write_study(study: Study, out: Path, *, seeds: int) -> None:
    """Keep the study beside its runs, with the most seeds that were ever asked for."""
    held = runs.study(out)
    most = max(seeds, held.seeds if held else 0)
    runs.save_study(out, study.model_copy(update={"seeds": most}))


def _train_all(
    planned: Sequence[Planned],
    data: Dataset,
    means: dict[str, Any],
    callbacks: Sequence[Callback],
    on_run: Callable[[Planned, int, int], None],
    stop: Callable[[], bool],
) -> Outcome:
    ended: list[Run] = []
    diverged: list[str] = []
    for index, (experiment, folder) in enumerate(planned):
        on_run(planned[index], index, len(planned))
        try:
            result = fit(
                experiment,
                data,
                out=folder,
                **means,
                resume=True,
                callbacks=callbacks,
                stop=stop,
            )
        except TrainingDiverged as error:
            diverged.append(str(error))
            continue
        if result.status == "interrupted":
            return Outcome(tuple(ended), tuple(diverged), interrupted=True)
        ended.append(Run.open(folder))
    return Outcome(tuple(ended), tuple(diverged), interrupted=False)

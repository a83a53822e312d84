"""Saved runs -> plain named tuples: what each run, each network and the whole study gave.

No engine, no figure, no HTML: what the report prints and the findings say is computed here or in
what stands left of here. Accuracies are fractions 0..1, times are seconds; what too few runs
cannot give is NaN.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rowwise import comparison, metrics, runs
from rowwise.comparison import Difference, Interval, McNemar, Position
from rowwise.config import Experiment, Published, Study, shipped_studies
from rowwise.data import NAMES
from rowwise.data_summary import DataSummary, summarise_data
from rowwise.errors import RunError
from rowwise.metrics import ByClass, Calibration
from rowwise.network import Node
from rowwise.runs import EngineIdentity, EpochMetrics, Run, Status

Integers = NDArray[np.int64]

TESTED_SEEDS = 3  # the fewest that two networks must share to be tested against each other


class RunSummary(NamedTuple):
    """One run: how it ended, its epochs, and the share of the test images that it read rightly."""

    name: str
    seed: int
    status: Status
    left_out: str  # why the run counts in no mean; empty where it counts
    folder: str
    epochs: tuple[EpochMetrics, ...]
    test_accuracy: float
    seconds: float
    engine: EngineIdentity
    started: str
    environment: dict[str, Any]


class MisreadImage(NamedTuple):
    """A test image that a model misread, and in how many of its network's runs that happened."""

    place: int
    true: int
    said: int
    confidence: float
    in_runs: int


class HardImage(NamedTuple):
    """A test image that every run misread, and the answer that most of them gave."""

    place: int
    said: int
    times: int


class ModelSummary(NamedTuple):
    """One trained model, looked at closely on the test images."""

    seed: int
    predicted: Integers
    confusion: Integers
    by_class: ByClass
    calibration: Calibration
    overconfidence: float  # mean confidence minus accuracy
    overconfidence_error: float  # its standard error over the images
    misread: tuple[MisreadImage, ...]


class NetworkSummary(NamedTuple):
    """All counted runs of one network; `model` is the one whose test accuracy is the middle one."""

    name: str
    experiment: Experiment
    nodes: tuple[Node, ...]
    table: str
    parameters: int
    runs: tuple[RunSummary, ...]
    accuracy: Interval  # training accuracy, last epoch
    val_accuracy: Interval  # validation accuracy, last epoch
    test_accuracy: Interval
    gap: Interval  # training minus validation accuracy, last epoch
    published: Published | None
    position: Position | None  # of the published validation accuracy among ours
    position_training: Position | None
    epoch_seconds: float  # median over all epochs of all runs, validation included
    confusion: Integers  # summed over the runs
    model: ModelSummary


class Compared(NamedTuple):
    """Two networks compared in one family of tests; `p` is corrected over that family."""

    a: str
    b: str
    found: Difference | McNemar
    p: float
    seeds: tuple[int, ...]  # paired seeds, or the seed of a's and of b's model


class StudySummary(NamedTuple):
    """The whole study, in the order of its file."""

    title: str
    note: str
    meant_for: str  # the data set that the study is about, where the runs saw another one
    command: str  # that makes these runs again; empty where there is no study file
    data: DataSummary
    networks: tuple[NetworkSummary, ...]
    left_out: tuple[RunSummary, ...]
    missing: tuple[str, ...]  # networks of the study without a run that counts
    differences: tuple[Compared, ...]
    models: tuple[Compared, ...]
    misread_by_all: tuple[HardImage, ...]
    on_test: bool  # every network was validated on the test images
    test_is_validation: bool  # and each one's test accuracy is its last validation accuracy


def summarise(folder: str | Path) -> StudySummary:
    """Read the runs of a study's folder.

    Args:
        folder: as `rowwise study --out` or `rowwise train --out` leaves it.

    Raises:
        RunError: there is no run that ended, or one is damaged.
        MissingExtra: scikit-learn is not installed.
    """
    folder = Path(folder)
    found = runs.find(folder)
    if not found:
        raise RunError(f"a report needs runs, {folder} has none; make some: rowwise study --out")
    study = runs.study(folder)
    counted, left_out = _sort_out(found)
    if not counted:
        told = ", ".join(f"{run.folder.name} is {run.status}" for run in found[:3])
        raise RunError(
            f"a report needs a run that ended, in {folder} {told}; go on: rowwise study --resume"
        )
    order = [experiment.name for experiment in study.experiments] if study else []
    present = {run.name for run in counted}
    names = [name for name in order if name in present] + sorted(present - set(order))
    said = {run.folder.name: run.predictions() for run in counted}
    networks = tuple(_network([run for run in counted if run.name == name], said) for name in names)
    data = summarise_data(folder, counted[0].record.data)
    labels = said[counted[0].folder.name].labels
    if not np.array_equal(labels, data.labels):
        raise RunError(
            f"the predictions in {folder} must be of the test images kept there, their labels "
            f"differ; delete data-{data.identity.digest[:8]} and run: rowwise study --out {folder}"
        )
    return StudySummary(
        title=(study.title or study.name) if study else folder.resolve().name,
        note=study.note if study else "",
        meant_for=_meant_for(study, data.identity.name),
        command=_command(study, names, counted[0].record.data.name) if study else "",
        data=data,
        networks=networks,
        left_out=left_out,
        missing=tuple(name for name in order if name not in present),
        differences=compare_networks(networks),
        models=compare_models(networks, labels),
        misread_by_all=_misread_by_all(labels, [p.predicted for p in said.values()]),
        on_test=all(network.experiment.validation == "test" for network in networks),
        test_is_validation=all(_same(network) for network in networks),
    )


def _meant_for(study: Study | None, dataset: str) -> str:
    return study.dataset if study and study.dataset not in (None, dataset) else ""


def _command(study: Study, names: Sequence[str], dataset: str) -> str:
    shipped = shipped_studies().get(study.name)
    same = shipped is not None and shipped.experiments_digest == study.experiments_digest
    parts = ["rowwise study", study.name if same else "study.json"]
    if len(names) < len(study.experiments):
        parts += [f"--only {name}" for name in names]
    parts += [f"--seeds {study.seeds}"]
    parts += [f"--dataset {dataset}" if dataset in NAMES else "--data FOLDER", "--out again"]
    return " ".join(parts)


def compare_networks(networks: Sequence[NetworkSummary]) -> tuple[Compared, ...]:
    """Each pair of networks by their test accuracies, paired by seed, with Holm's correction.

    It answers: would the networks differ if they were trained once more? Pairs with fewer than
    three common seeds, or with exactly the same difference for each, are not tested: p is NaN.
    """
    found = []
    for a, b in combinations(networks, 2):
        score_a = {run.seed: run.test_accuracy for run in a.runs}
        score_b = {run.seed: run.test_accuracy for run in b.runs}
        seeds = tuple(sorted(score_a.keys() & score_b.keys()))
        if not seeds:
            continue
        difference = comparison.paired_difference(
            [score_a[seed] for seed in seeds], [score_b[seed] for seed in seeds]
        )
        if difference.low == difference.high:
            # No spread at all among a few seeds is a coincidence, not certainty.
            difference = difference._replace(low=math.nan, high=math.nan, p=math.nan)
        if len(seeds) < TESTED_SEEDS:
            # Two differences give a t test that hangs on nothing but its assumptions.
            difference = difference._replace(p=math.nan)
        found.append(Compared(a.name, b.name, difference, math.nan, seeds))
    return _corrected(found)


def compare_models(networks: Sequence[NetworkSummary], labels: Integers) -> tuple[Compared, ...]:
    """Each pair of networks by one trained model of each, on the same test images (McNemar), with
    Holm's correction.

    It answers: would these two trained models differ on other images of the same kind?
    """
    found = []
    for a, b in combinations(networks, 2):
        tested = comparison.mcnemar(labels, a.model.predicted, b.model.predicted)
        seeds = (a.model.seed, b.model.seed)
        found.append(Compared(a.name, b.name, tested, math.nan, seeds))
    return _corrected(found)


class Confused(NamedTuple):
    """Two classes taken for each other: images a run, each way."""

    a: int
    b: int
    a_as_b: float
    b_as_a: float


def confused_both_ways(matrix: Integers, number: int, *, most: int = 10) -> list[Confused]:
    """The pairs of classes that are most taken for each other, both directions together.

    Args:
        matrix: confusion counts, int [C, C], summed over `number` runs.
        number: of runs.
        most: how many pairs at most; pairs without an error are left out.

    Returns:
        The pairs, most errors first; each is named in the direction with more errors.
    """
    pairs = []
    for first, second in combinations(range(len(matrix)), 2):
        a, b = (
            (first, second) if matrix[first, second] >= matrix[second, first] else (second, first)
        )
        if matrix[a, b]:
            pairs.append(Confused(a, b, matrix[a, b] / number, matrix[b, a] / number))
    return sorted(pairs, key=lambda pair: -(pair.a_as_b + pair.b_as_a))[:most]


def _corrected(family: Sequence[Compared]) -> tuple[Compared, ...]:
    adjusted = comparison.holm([one.found.p for one in family])
    return tuple(one._replace(p=float(p)) for one, p in zip(family, adjusted, strict=True))


def _sort_out(found: Sequence[Run]) -> tuple[list[Run], tuple[RunSummary, ...]]:
    # Runs are compared with each other only where data and configuration agree; the larger
    # part counts, the rest is left out by name.
    ended = [run for run in found if run.ended]
    digest = _commonest(run.record.data.digest for run in ended)
    settings = {
        name: _commonest(_settings(run) for run in ended if run.name == name)
        for name in {run.name for run in ended}
    }
    counted, left_out = [], []
    for run in found:
        if not run.ended:
            why = run.record.sentence or f"it is {run.status}"
        elif run.record.data.digest != digest:
            why = f"it saw other data ({run.record.data.name}, {run.record.data.digest[:8]})"
        elif _settings(run) != settings[run.name]:
            why = f"its configuration is not that of the other runs of {run.name}"
        else:
            counted.append(run)
            continue
        left_out.append(_run(run, left_out=why))
    return counted, tuple(left_out)


def _commonest(values: Iterable[str]) -> str:
    count = Counter(values)
    return max(count, key=lambda value: (count[value], value)) if count else ""


def _settings(run: Run) -> str:
    return run.experiment.model_copy(update={"seed": 0}).digest


def _run(run: Run, *, left_out: str = "", test_accuracy: float = math.nan) -> RunSummary:
    record = run.record
    return RunSummary(
        name=run.name,
        seed=run.seed,
        status=run.status,
        left_out=left_out,
        folder=run.folder.name,
        epochs=run.metrics,
        test_accuracy=test_accuracy,
        seconds=record.timings.train_s + record.timings.val_s + record.timings.test_s,
        engine=record.engine,
        started=record.started,
        environment=run.environment,
    )


def _network(found: Sequence[Run], said: dict[str, runs.Predictions]) -> NetworkSummary:
    first = found[0]
    if any(not run.metrics for run in found):
        raise RunError(f"{first.folder.parent}: a run of {first.name} ended without an epoch")
    answers = [said[run.folder.name] for run in found]
    scores = [metrics.accuracy(one.labels, one.predicted) for one in answers]
    each = tuple(_run(run, test_accuracy=s) for run, s in zip(found, scores, strict=True))
    last = [run.metrics[-1] for run in found]
    middle = sorted(range(len(found)), key=lambda i: (scores[i], found[i].seed))[
        (len(found) - 1) // 2
    ]
    classes = len(first.record.data.classes)
    published = first.experiment.published
    spent = [epoch.train_s + epoch.val_s for run in found for epoch in run.metrics]
    return NetworkSummary(
        name=first.name,
        experiment=first.experiment,
        nodes=first.network.nodes,
        table=first.network.summary(),
        parameters=first.network.count,
        runs=each,
        accuracy=comparison.mean_interval([epoch.accuracy for epoch in last]),
        val_accuracy=comparison.mean_interval([epoch.val_accuracy for epoch in last]),
        test_accuracy=comparison.mean_interval(scores),
        gap=comparison.mean_interval([epoch.accuracy - epoch.val_accuracy for epoch in last]),
        published=published,
        position=_position(
            published.val_accuracy if published else None, [epoch.val_accuracy for epoch in last]
        ),
        position_training=_position(
            published.accuracy if published else None, [epoch.accuracy for epoch in last]
        ),
        epoch_seconds=median(spent),
        confusion=sum(
            (metrics.confusion(one.labels, one.predicted, classes) for one in answers),
            start=np.zeros((classes, classes), np.int64),
        ),
        model=_model(found[middle].seed, answers[middle], classes, answers),
    )


def _position(published: float | None, ours: Sequence[float]) -> Position | None:
    return None if published is None else comparison.position(published, ours)


def _model(
    seed: int, said: runs.Predictions, classes: int, all_runs: Sequence[runs.Predictions]
) -> ModelSummary:
    labels, predicted = said.labels, said.predicted
    confidence = said.probabilities.max(axis=1).astype(np.float64)
    wrong_in = np.sum([one.predicted != one.labels for one in all_runs], axis=0)
    surplus = confidence - (predicted == labels)
    wrong = np.flatnonzero(predicted != labels)
    truth = said.probabilities[wrong, labels[wrong]]
    worst_first = wrong[np.lexsort((wrong, truth, -confidence[wrong]))]
    return ModelSummary(
        seed=seed,
        predicted=predicted,
        confusion=metrics.confusion(labels, predicted, classes),
        by_class=metrics.by_class(labels, predicted, classes),
        calibration=metrics.calibration(labels, said.probabilities),
        overconfidence=float(surplus.mean()),
        overconfidence_error=float(surplus.std() / math.sqrt(len(surplus))),
        misread=tuple(
            MisreadImage(int(i), int(labels[i]), int(predicted[i]), float(confidence[i]), int(n))
            for i, n in zip(worst_first, wrong_in[worst_first], strict=True)
        ),
    )


def _misread_by_all(labels: Integers, predicted: Sequence[Integers]) -> tuple[HardImage, ...]:
    if len(predicted) < 2:
        return ()
    said = np.stack(predicted)
    found = []
    for place in np.flatnonzero((said != labels).all(axis=0)):
        answers, times = np.unique(said[:, place], return_counts=True)
        found.append(HardImage(int(place), int(answers[times.argmax()]), int(times.max())))
    return tuple(sorted(found, key=lambda image: (-image.times, image.place)))


def _same(network: NetworkSummary) -> bool:
    return network.experiment.validation == "test" and all(
        math.isclose(run.test_accuracy, run.epochs[-1].val_accuracy, abs_tol=1e-6)
        for run in network.runs
    )

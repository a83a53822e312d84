"""The tables of a study: a summary's numbers as heads and rows of text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean
from typing import NamedTuple

from rowwise.comparison import Difference, McNemar, Position
from rowwise.findings import measure, places
from rowwise.summary import (
    TESTED_SEEDS,
    NetworkSummary,
    RunSummary,
    StudySummary,
    confused_both_ways,
)
from rowwise.wording import (
    LEVEL,
    NONE,
    between,
    between_points,
    count,
    duration,
    mean_count,
    p_value,
    percent,
    points,
    several,
)

SHOWN_ROWS = 45  # of a table of pairs


class Table(NamedTuple):
    """A table as text; the first `words` columns are words, the others numbers."""

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1
    note: str = ""
    long: bool = False  # the first column may be broken into lines


def results(study: StudySummary) -> Table:
    """One row a network: score with interval, each seed, parameters, time."""
    exact = places(study)
    rows: list[tuple[str, ...]] = []
    for network in study.networks:
        score = network.test_accuracy
        rows.append(
            (
                network.name,
                percent(score.mean, exact),
                between(score.low, score.high, exact),
                " · ".join(f"{100 * run.test_accuracy:.{exact}f}" for run in network.runs),
                percent(network.accuracy.mean, exact),
                count(network.parameters),
                duration(network.epoch_seconds),
            )
        )
        if not study.test_is_validation:
            rows[-1] = (*rows[-1][:4], percent(network.val_accuracy.mean, exact), *rows[-1][4:])
    held_out = () if study.test_is_validation else ("Validation accuracy",)
    return Table(
        f"{measure(study).capitalize()} after training, over the seeds",
        ("Network", "Mean", f"{LEVEL} interval", "Each seed, in %", *held_out, "Training accuracy",
         "Parameters", "Epoch"),
        tuple(rows),
        note=f"A dash stands where one seed gives no interval. The interval is about the mean over "
        f"seeds; {several(len(study.data.labels), 'test image')} also leave each single score "
        f"uncertain by about ±{points(_image_error(study))} points for other images of the kind.",
    )  # fmt: skip


def _image_error(study: StudySummary) -> float:
    share = mean(network.test_accuracy.mean for network in study.networks)
    return 1.96 * math.sqrt(share * (1 - share) / len(study.data.labels))


def published(study: StudySummary) -> Table | None:
    """The published figures, ours, and where the first fall among the second."""
    exact = places(study)
    rows = []
    for network in study.networks:
        kinds = (("validation", network.position, network.val_accuracy.mean),
                 ("training", network.position_training, network.accuracy.mean))  # fmt: skip
        for kind, found, ours in kinds:
            if found is not None:
                rows.append(
                    (
                        network.name,
                        kind,
                        percent(found.published, exact),
                        percent(ours, exact),
                        points(ours - found.published, exact, sign=True),
                        between(found.low, found.high, exact),
                        _falls(found),
                    )
                )
    if not rows:
        return None
    return Table(
        "The published figures among ours, last epoch",
        ("Network", "Accuracy", "Published", "Ours, mean", "Points apart",
         "Range of a further run", "Published falls"),
        tuple(rows),
        words=2,
        note=f"Range of a further run: where one more seed of ours falls with {LEVEL} probability.",
    )  # fmt: skip


def _falls(found: Position) -> str:
    if found.inside is None:
        return "cannot be told"
    if found.inside:
        return "inside"
    return "below" if found.published < found.low else "above"


def differences(study: StudySummary) -> Table | None:
    """Every pair of networks, paired by seed."""
    exact = places(study)
    rows = []
    for one in sorted(study.differences, key=lambda one: (math.isnan(one.p), one.p)):
        if isinstance(one.found, Difference):
            rows.append(
                (
                    f"{one.a} − {one.b}",
                    points(one.found.difference, exact, sign=True),
                    between_points(one.found.low, one.found.high, exact),
                    str(len(one.seeds)),
                    p_value(one.found.p),
                    p_value(one.p),
                    _verdict(one.p),
                )
            )
    if not rows:
        return None
    return Table(
        f"Difference of {measure(study)} between networks, runs of the same seed",
        ("Networks", "Points", f"{LEVEL} interval", "Seeds", "p", "p, corrected", "Real?"),
        tuple(rows[:SHOWN_ROWS]),
        note=_note_of_pairs(
            rows,
            "One t test a pair of networks, over the seeds they share; fewer than "
            f"{TESTED_SEEDS} are not tested.",
        ),
    )


def models(study: StudySummary) -> Table | None:
    """Every pair of networks by one trained model of each."""
    exact = places(study)
    rows = []
    for one in sorted(study.models, key=lambda one: one.p):
        if isinstance(one.found, McNemar):
            rows.append(
                (
                    f"{one.a}-s{one.seeds[0]} − {one.b}-s{one.seeds[1]}",
                    points(one.found.difference, exact, sign=True),
                    between_points(one.found.low, one.found.high, exact),
                    count(one.found.only_a),
                    count(one.found.only_b),
                    p_value(one.found.p),
                    p_value(one.p),
                    _verdict(one.p),
                )
            )
    if not rows:
        return None
    return Table(
        "Difference between two trained models on the same test images (McNemar)",
        ("Runs", "Points", f"{LEVEL} interval", "Only first",
         "Only second", "p", "p, corrected", "Real?"),
        tuple(rows[:SHOWN_ROWS]),
        note=_note_of_pairs(
            rows,
            "The middle run of each network; McNemar’s exact test. Only first, only second: the "
            "images that one of the two alone reads rightly.",
        ),
    )  # fmt: skip


def _verdict(p: float) -> str:
    return "cannot be told" if math.isnan(p) else "yes" if p < 0.05 else "not shown"


def _note_of_pairs(rows: Sequence[object], kind: str) -> str:
    cut = f" Of {len(rows)} pairs the {SHOWN_ROWS} surest." if len(rows) > SHOWN_ROWS else ""
    holm = f" Corrected after Holm for the {len(rows)} pairs of this table." * (len(rows) > 1)
    return f"{kind}{holm}{cut}"


def classes(study: StudySummary) -> Table:
    """How often each class occurs, and how much of its images is ink."""
    data, names = study.data, study.data.identity.classes
    rows = []
    for place, name in enumerate(names):
        train, test = data.train.class_counts[place], data.test.class_counts[place]
        rows.append(
            (
                name,
                count(train),
                percent(train / data.train.size),
                count(test),
                percent(test / data.test.size),
                percent(data.train.class_ink[place], 1),
            )
        )
    sizes = count(data.train.size), "", count(data.test.size), ""
    rows.append(("all", *sizes, percent(data.train.ink, 1)))
    heads = ("Class", "Training", "Share", "Test", "Share", "Ink in training images")
    return Table("Images of each class", heads, tuple(rows))


def said(study: StudySummary) -> Table:
    """How often each network says each class, against how often it occurs."""
    true = study.data.test.class_counts
    columns = [network.model.confusion.sum(axis=0) for network in study.networks]
    rows = []
    for place, name in enumerate(study.data.identity.classes):
        off = [f"{count(said[place])} ({_signed(said[place] - true[place])})" for said in columns]
        rows.append((name, count(true[place]), *off))
    heads = ("Class", "Occurs", *(network.name for network in study.networks))
    return Table("How often each network says each class (and how much that is off)", heads,
                 tuple(rows))  # fmt: skip


def _signed(number: int) -> str:
    return f"{number:+,d}".replace("-", "−") if number else "0"


def pixels(study: StudySummary) -> Table:
    """Grey values of the two parts."""
    parts = (study.data.train, study.data.test)
    rows = [
        ("mean grey value, 0 to 255", *(f"{part.pixel_mean:.2f}" for part in parts)),
        ("standard deviation", *(f"{part.pixel_std:.2f}" for part in parts)),
        ("pixels that are not background", *(percent(part.ink, 1) for part in parts)),
        ("rows that are always empty", *(str(part.blank_rows) for part in parts)),
        ("columns that are always empty", *(str(part.blank_columns) for part in parts)),
    ]
    return Table("Pixels", ("", "Training", "Test"), tuple(rows), long=True)


def training(study: StudySummary) -> Table:
    """The last epoch of each network, and what an epoch costs."""
    exact = places(study)
    rows = []
    for network in study.networks:
        last = [run.epochs[-1] for run in network.runs]
        lows = [min(run.epochs, key=lambda epoch: epoch.val_loss).epoch for run in network.runs]
        rows.append(
            (
                network.name,
                percent(network.accuracy.mean, exact),
                percent(network.val_accuracy.mean, exact),
                points(network.gap.mean, exact, sign=True),
                between_points(network.gap.low, network.gap.high, exact),
                f"{mean(epoch.loss for epoch in last):.4f}",
                f"{mean(epoch.val_loss for epoch in last):.4f}",
                " · ".join(map(str, lows)),
                " · ".join(str(len(run.epochs)) for run in network.runs),
            )
        )
    return Table(
        "The last epoch, means over the seeds",
        ("Network", "Training accuracy", "Validation accuracy", "Points apart", f"{LEVEL} interval",
         "Training loss", "Validation loss", "Epoch of lowest validation loss, each seed",
         "Epochs, each seed"),
        tuple(rows),
    )  # fmt: skip


def epochs(network: NetworkSummary, exact: int) -> Table:
    """What Keras prints for each epoch, as means over the seeds."""
    rows = []
    for place in range(max(len(run.epochs) for run in network.runs)):
        found = [run.epochs[place] for run in network.runs if place < len(run.epochs)]
        steps = found[0].steps
        spent = mean(epoch.train_s for epoch in found)
        rows.append(
            (
                f"{found[0].epoch}",
                count(steps),
                duration(spent),
                f"{1000 * spent / steps:.2f}" if steps else NONE,
                f"{mean(epoch.loss for epoch in found):.4f}",
                percent(mean(epoch.accuracy for epoch in found), exact),
                f"{mean(epoch.val_loss for epoch in found):.4f}",
                percent(mean(epoch.val_accuracy for epoch in found), exact),
                duration(mean(epoch.val_s for epoch in found)),
            )
        )
    seeds = len(network.runs)
    whose = "the one seed" if seeds == 1 else f"means over {seeds} seeds"
    return Table(
        f"Each epoch of {network.name}, {whose}",
        ("Epoch", "Steps", "Time", "ms/step", "loss", "accuracy", "val_loss", "val_accuracy",
         "Time of validation"),
        tuple(rows),
    )  # fmt: skip


def confusion(network: NetworkSummary, names: Sequence[str]) -> Table:
    """The numbers of the confusion matrix, for those who do not see the figure."""
    rows = []
    for place, line in enumerate(network.model.confusion):
        total = max(1, int(line.sum()))
        cells = [f"{count(cell)} ({percent(cell / total, 1)})" if cell else "0" for cell in line]
        rows.append((f"true {names[place]}", *cells))
    heads = ("", *(f"said {name}" for name in names))
    return Table(f"The confusion matrix of {network.name} as a table", heads, tuple(rows))


def pairs(study: StudySummary, network: NetworkSummary) -> Table:
    """The pairs of classes that the runs of a network take for each other most."""
    names, support = study.data.identity.classes, study.data.test.class_counts
    runs = len(network.runs)
    rows = []
    for pair in confused_both_ways(network.confusion, runs, most=8):
        rows.append(
            (
                f"{names[pair.a]} and {names[pair.b]}",
                f"{mean_count(pair.a_as_b, runs)} of {count(support[pair.a])}",
                f"{mean_count(pair.b_as_a, runs)} of {count(support[pair.b])}",
                mean_count(pair.a_as_b + pair.b_as_a, runs),
            )
        )
    whose = "the one run" if runs == 1 else f"means over {runs} runs"
    heads = ("Classes", "First said to be the second", "Second said to be the first", "Both")
    return Table(f"Test images taken for another class, {whose}", heads, tuple(rows))


def by_class(study: StudySummary, network: NetworkSummary) -> Table:
    """Precision, recall and F1 of the middle run."""
    exact = places(study)
    found = network.model.by_class
    rows = [
        (name, percent(float(precision), exact), percent(float(recall), exact),
         percent(float(f1), exact), count(support))
        for name, precision, recall, f1, support in zip(
            study.data.identity.classes, *found, strict=True)
    ]  # fmt: skip
    caption = f"Precision, recall and F1 of {network.name}, seed {network.model.seed}"
    return Table(caption, ("Class", "Precision", "Recall", "F1", "Images"), tuple(rows))


def runs(study: StudySummary) -> Table:
    """Every run, those left out included."""
    exact = places(study)
    found = [run for network in study.networks for run in network.runs] + list(study.left_out)
    rows = [
        (
            run.folder,
            str(run.seed),
            f"{run.status}; left out: {run.left_out}" if run.left_out else run.status,
            run.started.replace("T", "\u00a0").removesuffix("Z"),
            str(len(run.epochs)),
            percent(run.epochs[-1].accuracy, exact) if run.epochs else NONE,
            percent(run.epochs[-1].val_accuracy, exact) if run.epochs else NONE,
            percent(run.test_accuracy, exact),
            duration(run.seconds),
        )
        for run in sorted(found, key=lambda run: (run.name, run.seed))
    ]
    heads = ("Run", "Seed", "Status", "Started (UTC)", "Epochs", "accuracy", "val_accuracy",
             "Test accuracy", "Time")  # fmt: skip
    return Table("Every run", heads, tuple(rows), words=4)


def environment(study: StudySummary) -> Table:
    """What the runs ran on; one column for each different environment."""
    found: dict[tuple[tuple[str, str], ...], list[RunSummary]] = {}
    for run in (run for network in study.networks for run in network.runs):
        found.setdefault(_conditions(run), []).append(run)
    names = list(dict.fromkeys(name for conditions in found for name, _ in conditions))
    rows = [(name, *(dict(conditions).get(name, NONE) for conditions in found)) for name in names]
    heads = ("", *(several(len(of), "run") for of in found.values()))
    note = "" if len(found) == 1 else "Runs of different environments are compared in this report."
    return Table("Environment", heads, tuple(rows), words=1 + len(found), note=note)


def _conditions(run: RunSummary) -> tuple[tuple[str, str], ...]:
    told = run.environment
    packages = told.get("packages", {})
    rows = {
        "Engine": run.engine.name,
        "Chosen": run.engine.why or NONE,
        "Precision": run.engine.precision,
        "Processor path": run.engine.path or NONE,
        "Python": told.get("python", NONE),
        **{name: str(version) for name, version in packages.items()},
        "System": told.get("system", NONE),
        "Processor": told.get("processor", NONE),
        "Logical cores": told.get("logical_cores", NONE),
        "Threads": told.get("threads", NONE),
    }
    return tuple((name, str(value)) for name, value in rows.items())

"""Tables for the terminal: runs, comparisons of runs, data sets, the results of a study."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Console, RenderableType
from rich.table import Table

from rowwise import comparison
from rowwise.description import Description, PartDescription
from rowwise.errors import RunError, printable
from rowwise.network import Network
from rowwise.runs import Run
from rowwise.summary import NetworkSummary, StudySummary
from rowwise.terminal import write_line

NOTHING = "–"


def row(run: Run) -> dict[str, Any]:
    """A run as plain data: what it is, how far it came, what it reached."""
    record, last = run.record, run.metrics[-1] if run.metrics else None
    return {
        "folder": str(run.folder),
        "name": run.name,
        "seed": run.seed,
        "status": run.status,
        "data": record.data.name,
        "epochs": record.epochs_done,
        "parameters": record.parameters,
        "loss": last.loss if last else None,
        "accuracy": last.accuracy if last else None,
        "val_loss": last.val_loss if last else None,
        "val_accuracy": last.val_accuracy if last else None,
        "test_accuracy": record.test_accuracy,
        "train_s": record.timings.train_s,
        "engine": record.engine.name,
        "threads": record.engine.threads,
        "started": record.started,
    }


def print_runs(found: list[Run]) -> None:
    """List runs, a line each."""
    table = headed("run", "status", "data", ">epochs", ">parameters", ">val. acc. %",
                   ">test acc. %", ">training s", "engine", "started")  # fmt: skip
    for run in found:
        told = row(run)
        table.add_row(
            run.folder.name, run.status, told["data"], str(told["epochs"]),
            f"{told['parameters']:,}", _percent(told["val_accuracy"]),
            _percent(told["test_accuracy"]), f"{told['train_s']:.1f}",
            _engine(told["engine"], told["threads"]), told["started"],
        )  # fmt: skip
    show(table if found else "no runs")


def compare(a: Run, b: Run) -> dict[str, Any]:
    """What differs between two runs: settings, figures, and McNemar's test on the test images.

    Raises RunError where they saw different data, or one of them has not ended.
    """
    if a.record.data.digest != b.record.data.digest:
        raise RunError(
            f"two runs are compared on the same data, {a.folder} saw {a.record.data.name} "
            f"({a.record.data.digest[:8]}), {b.folder} saw {b.record.data.name} "
            f"({b.record.data.digest[:8]})"
        )
    said_a, said_b = a.predictions(), b.predictions()
    test = comparison.mcnemar(said_a.labels, said_a.predicted, said_b.predicted)
    flat_a, flat_b = (_flat(run.experiment.model_dump(mode="json")) for run in (a, b))
    keys = sorted(flat_a.keys() | flat_b.keys())
    return {
        "a": row(a),
        "b": row(b),
        "settings": {
            key: [flat_a.get(key), flat_b.get(key)]
            for key in keys
            if flat_a.get(key) != flat_b.get(key)
        },
        "mcnemar": {k: v for k, v in test._asdict().items()},
    }


def print_comparison(told: Mapping[str, Any]) -> None:
    """Print what `compare` found."""
    table = headed("", "a", "b")
    names = {"folder": "run", "status": "status", "epochs": "epochs", "parameters": "parameters"}
    for key, name in names.items():
        table.add_row(name, str(told["a"][key]), str(told["b"][key]))
    for key in ("val_accuracy", "test_accuracy"):
        table.add_row(f"{key} %", _percent(told["a"][key]), _percent(told["b"][key]))
    table.add_row("training s", f"{told['a']['train_s']:.1f}", f"{told['b']['train_s']:.1f}")
    for key, (a, b) in told["settings"].items():
        table.add_row(key, _shown(a), _shown(b))
    show(table)
    m = told["mcnemar"]
    show(
        f"On the same {m['n']:,} test images a alone is right on {m['only_a']}, b alone on "
        f"{m['only_b']}: a - b = {100 * m['difference']:+.2f} points "
        f"(95 % interval {100 * m['low']:+.2f} to {100 * m['high']:+.2f}), "
        f"McNemar's exact p = {m['p']:.3g}"
    )


def network_rows(network: Network) -> dict[str, Any]:
    """A network as plain data: its layers with shapes and parameters, and the totals."""
    return {
        "name": network.experiment.name,
        "layers": [
            {
                "name": node.name,
                "type": node.type,
                "inbound": node.inbound,
                "output_shape": node.output_shape,
                "parameters": node.count,
            }
            for node in network.nodes
        ],
        "parameters": network.count,
        "trainable_parameters": network.trainable_count,
    }


def study_rows(study: StudySummary) -> list[dict[str, Any]]:
    """Each network's result as plain data; what too few runs cannot give is None."""
    return [
        {
            "name": network.name,
            "seeds": network.val_accuracy.n,
            "val_accuracy": network.val_accuracy.mean,
            "low": _known(network.val_accuracy.low),
            "high": _known(network.val_accuracy.high),
            "published": network.published.val_accuracy if network.published else None,
            "published_inside": network.position.inside if network.position else None,
            "epoch_s": network.epoch_seconds,
        }
        for network in study.networks
    ]


def print_study(study: StudySummary) -> None:
    """A line a network: mean and interval over the seeds beside the published figure."""
    table = headed("network", ">seeds", ">val. accuracy %", ">95 % interval", ">published %",
                   "published among our seeds", ">s/epoch")  # fmt: skip
    for network in study.networks:
        score = network.val_accuracy
        interval = (
            NOTHING if math.isnan(score.low) else f"{_percent(score.low)} to {_percent(score.high)}"
        )
        published = network.published.val_accuracy if network.published else None
        table.add_row(
            network.name, str(score.n), _percent(score.mean), interval, _percent(published),
            _place(network), f"{network.epoch_seconds:.1f}",
        )  # fmt: skip
    show(table)


def print_data(told: Description) -> None:
    """A data set in the terminal."""
    rows, columns = told.shape
    if told.fallback:
        show(f"NOTE: {told.fallback}")
    show(
        f"{told.name} from {told.source}\n{len(told.classes)} classes, {rows} x {columns} pixels, "
        f"{told.train.count:,} training and {told.test.count:,} test images\n"
        f"SHA-256 of the content {told.digest}"
    )
    table = headed("class", ">training", ">share %", ">test", ">share %", ">ink %")
    for c, name in enumerate(told.classes):
        train, test = told.train.class_counts[c], told.test.class_counts[c]
        table.add_row(
            name, f"{train:,}", _percent(train / told.train.count), f"{test:,}",
            _percent(test / told.test.count), _percent(told.train.class_ink_shares[c]),
        )  # fmt: skip
    show(table)
    table = headed("pixels (0 to 255)", ">mean", ">std", ">min", ">max", ">ink %", "blank rows",
                   "blank columns")  # fmt: skip
    for title, part in (("training", told.train), ("test", told.test)):
        table.add_row(*_pixels(title, part))
    show(table)
    for title, found in (
        ("inside the training images", told.duplicates_train),
        ("inside the test images", told.duplicates_test),
        ("test images that are also training images", told.duplicates_between),
    ):
        other = f", {found.differently_labelled} with another label"
        show(f"exact duplicates {title}: {found.count}{other if found.count else ''}")
    for c, name in enumerate(told.classes[:10]):
        show(f"mean image of {name}:\n{_ascii(told.mean_images[c])}")
    if len(told.classes) > 10:
        show(f"({len(told.classes) - 10} more mean images: --out FOLDER draws them)")


def _pixels(title: str, part: PartDescription) -> list[str]:
    blank = [_ranges(part.blank_rows), _ranges(part.blank_columns)]
    levels = [f"{part.pixel_mean:.2f}", f"{part.pixel_std:.2f}"]
    extremes = [str(part.pixel_min), str(part.pixel_max)]
    return [title, *levels, *extremes, _percent(part.ink_share), *blank]


def _ranges(indices: tuple[int, ...]) -> str:
    """0, 1, 2, 27 as "0-2, 27"."""
    parts: list[list[int]] = []
    for i in indices:
        if parts and i == parts[-1][-1] + 1:
            parts[-1].append(i)
        else:
            parts.append([i])
    told = [str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts]
    return ", ".join(told) or "none"


def _ascii(image: np.ndarray[Any, Any]) -> str:
    """A picture in half as many rows as it has, as characters are twice as tall as wide."""
    shades = np.array(list(" .:-=+*#%@"))
    tall = image[: len(image) // 2 * 2].reshape(-1, 2, image.shape[1]).mean(1)
    peak = max(float(image.max()), 1e-9)
    picked = shades[np.clip((tall / peak * 9.99).astype(int), 0, 9)]
    return "\n".join("".join(line).rstrip() for line in picked)


def _engine(name: str, threads: int) -> str:
    """An engine and its threads, which are unknown where a run was imported."""
    return f"{name} ({threads})" if threads else name


def _place(network: NetworkSummary) -> str:
    found = network.position
    if found is None or found.inside is None:
        return NOTHING
    where = "inside" if found.inside else "outside"
    return f"{where} the range of one more run, {_percent(found.low)} to {_percent(found.high)}"


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(tree, dict):
        parts = tree.items()
    elif isinstance(tree, list):
        parts = ((str(i), value) for i, value in enumerate(tree))  # type: ignore[assignment]
    else:
        return {prefix: tree}
    return {
        key: value
        for name, below in parts
        for key, value in _flat(below, f"{prefix}.{name}" if prefix else str(name)).items()
    }


def _shown(value: Any) -> str:
    return NOTHING if value is None else str(value)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _percent(share: float | None) -> str:
    return NOTHING if share is None or math.isnan(share) else f"{100 * share:.2f}"


class _Printable(Table):
    """A table whose cells may hold what anyone named."""

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        super().add_row(*(printable(c) if isinstance(c, str) else c for c in cells), **options)


def headed(*titles: str) -> Table:
    """A table; a title that begins with > is of a column of numbers."""
    table = _Printable(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        right = title.startswith(">")
        table.add_column(title.removeprefix(">"), justify="right" if right else "left",
                         no_wrap=right)  # fmt: skip
    return table


def show(what: Table | str) -> None:
    """Print a table or a line; a table that is piped is 200 characters wide."""
    if isinstance(what, str):
        write_line(what)
        return
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 200
    console.print(what)

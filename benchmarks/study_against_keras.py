"""Our study beside Keras' own: means over seeds and the difference with its interval.

Reads saved results alone: the folder of `rowwise study` and the JSON of `keras_study.py`, both made
on this machine or another one; accuracies do not depend on how busy it was. Seeds of two programs
are not pairs, so the interval is Welch's.

    python benchmarks/study_against_keras.py --study study
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rowwise import comparison, runs


def ours(folder: Path) -> dict[str, list[float]]:
    """Validation accuracies after the last epoch by network, in the order of the seeds."""
    found: dict[str, list[float]] = {}
    for run in runs.find(folder):
        if run.ended and run.record.data.name == "mnist":
            found.setdefault(run.name, []).append(run.metrics[-1].val_accuracy)
    return found


def keras(path: Path) -> dict[str, list[float]]:
    """The same of Keras' runs."""
    found: dict[str, list[float]] = {}
    for run in json.loads(path.read_text())["runs"]:
        found.setdefault(run["name"], []).append(run["val_accuracy"][-1])
    return found


def table(a: dict[str, list[float]], b: dict[str, list[float]], published: dict[str, float]) -> str:
    """The comparison as a Markdown table, in percent and points."""
    lines = [
        "| network | published | Rowwise, mean of n (seeds) | Keras, mean of n (seeds) "
        "| Rowwise - Keras, 95 % interval |",
        "|---|---|---|---|---|",
    ]
    for name in (name for name in published if name in a and name in b):
        cells = []
        for values in (a[name], b[name]):
            seeds = ", ".join(f"{100 * v:.2f}" for v in values)
            cells.append(f"{100 * sum(values) / len(values):.2f} of {len(values)} ({seeds})")
        d = comparison.welch_difference(a[name], b[name])
        interval = f"{100 * d.low:+.2f} to {100 * d.high:+.2f}"
        cells.append(f"{100 * d.difference:+.2f}, {interval} (p = {d.p:.2f})")
        lines.append(f"| {name} | {100 * published[name]:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", type=Path, default=Path("study"))
    parser.add_argument("--keras", type=Path, default=Path("benchmarks/results/keras_study.json"))
    options = parser.parse_args()
    study = runs.study(options.study)
    if study is None:
        parser.error(f"{options.study} holds no study; run: rowwise study --out {options.study}")
    published = {
        e.name: e.published.val_accuracy
        for e in study.experiments
        if e.published and e.published.val_accuracy
    }
    print(table(ours(options.study), keras(options.keras), published))


if __name__ == "__main__":
    main()

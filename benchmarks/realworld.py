"""People's own digits: what a model reads of photos, scans, drawings and thin strokes.

What it measures. Every picture of a folder laid out as below is read once by
`Recogniser.load(--model)`, its normaliser included: the share that is read rightly, with Wilson's
interval at 95 %; at the model's promised error rate the share that is accepted (coverage), and of
those the share that is wrong. A picture without ink counts as misread and as not accepted. No
model is trained or calibrated on these pictures.

The folder (--folder, else $ROWWISE_REALWORLD) stays where it is, as most of its sources state no
licence; nothing of it is written into this repository:

    photos/labels.csv  drawn/labels.csv     file,label,group,...   beside the pictures
    drawn/thin_strokes.npz                  images uint8 [N, 28, 28], labels [N]

Deterministic: one run is all. `--sheet` writes every misread picture as people made it and as the
network saw it, with label, answer and confidence; a * stands before an answer that was accepted.

    python benchmarks/realworld.py --folder FOLDER --sheet build/misread.png
"""

from __future__ import annotations

import argparse
import csv
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from keras_study import write_results
from measuring import say
from trials import Cell, draw_sheet, head, judge, parse, parser, recogniser, tally

FOLDERS = ("photos", "drawn")
THIN = "thin strokes"
LONGEST_PX = 240  # of an original on the sheet


class Example(NamedTuple):
    """One labelled picture: its part, its group within, and the file or the array."""

    part: str
    group: str
    name: str
    label: int
    source: Any


def examples(folder: Path) -> list[Example]:
    """All labelled pictures of one digit under a folder."""
    found = []
    for part in FOLDERS:
        with (folder / part / "labels.csv").open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                file = folder / part / row["file"]
                if file.suffix == ".npz":
                    continue
                name = f"{part}/{row['file']}"
                found.append(Example(part, row["group"], name, int(row["label"]), file))
    with np.load(folder / "drawn" / "thin_strokes.npz", allow_pickle=False) as thin:
        for i, (picture, label) in enumerate(zip(thin["images"], thin["labels"], strict=True)):
            found.append(Example(THIN, THIN, f"thin/{i}", int(label), picture))
    return found


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Read all, count, and draw the sheet where one is asked for."""
    from rowwise.image_files import picture

    model = recogniser(options)
    all_of_them = examples(options.folder)
    decoded = [
        one.source if isinstance(one.source, np.ndarray) else picture(one.source)
        for one in all_of_them
    ]
    told = judge(model, decoded, threads=options.threads)
    results = head(model, options)
    groups: dict[str, list[int]] = {}
    for i, one in enumerate(all_of_them):
        for key in dict.fromkeys((one.part, one.group)):
            groups.setdefault(key, []).append(i)
    labels = [one.label for one in all_of_them]
    results["parts"] = {
        key: tally([labels[i] for i in places], [told[i] for i in places])
        for key, places in groups.items()
    }
    misread = [i for i, one in enumerate(told) if one.digit != labels[i]]
    results["misread"] = [
        {
            "name": all_of_them[i].name,
            "label": labels[i],
            "digit": told[i].digit,
            "confidence": round(told[i].confidence, 4),
            "accepted": told[i].accepted,
        }
        for i in misread
    ]
    if options.sheet:
        cells = []
        for i in misread:
            mark = "*" if told[i].accepted else ""
            words = f"{all_of_them[i].name} {labels[i]}>{mark}{told[i].digit} "
            words += f"{told[i].confidence:.2f}"
            cells.append(Cell((shown(decoded[i]), told[i].seen), words))
        draw_sheet(cells, options.sheet)
    return results


def shown(picture: Any) -> Any:
    """A picture as people made it, small enough for the sheet."""
    import cv2

    array = picture if isinstance(picture, np.ndarray) else picture.pixels
    share = LONGEST_PX / max(array.shape[:2])
    if share >= 1:
        return array
    return cv2.resize(array, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)


def main() -> None:
    """Measure and write the results."""
    made = parser("What a model reads of people's own digits.", "realworld.json")
    made.add_argument("--folder", type=Path, help="of the pictures (default $ROWWISE_REALWORLD)")
    options = parse(made)
    if options.folder is None:
        if "ROWWISE_REALWORLD" not in os.environ:
            made.error("the folder is needed: pass --folder or set ROWWISE_REALWORLD")
        options.folder = Path(os.environ["ROWWISE_REALWORLD"])
    results = measure(options)
    for key, part in results["parts"].items():
        one = part["accuracy"]
        say(f"{key}: {one['count']} of {one['of']}, {100 * one['share']:.1f} %")
    write_results(options.out, results)


if __name__ == "__main__":
    main()

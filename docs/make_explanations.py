"""Draw the README's sheet: ten digits, one of each, and why `best` read them so.

The digits are of those that neither model learnt from: of each class the one whose reading `rows`
made up its mind about last among the first of them, so that there is something to see.

    python docs/make_explanations.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from rowwise import data, drawing, files, why
from rowwise.explain import decision, row_reader
from rowwise.recognise import Recogniser

OUT = Path(__file__).parent / "pictures" / "explanations.png"
FIRST = 40  # of each class
DPI = 120


def main() -> None:
    """Choose ten digits, explain them, draw the sheet."""
    made = argparse.ArgumentParser(description="Draw the README's sheet of ten explanations.")
    made.add_argument("--model", default="best")
    made.add_argument("--out", type=Path, default=OUT)
    options = made.parse_args()
    reader = Recogniser.load(options.model)
    found = data.load("mnist", download=False)
    _, held = data.split(found.train_labels, share=0.1)
    labels, images = found.train_labels[held], found.train_images[held]
    explanations = []
    for label in range(10):
        some = images[np.flatnonzero(labels == label)[:FIRST]]
        rows = [decision(belief) for belief in row_reader(reader).beliefs(some)]
        explanations.append(reader.explain(some[int(np.argmax(rows))]))
    files.write_bytes(options.out, drawing.png(why.sheet(explanations), dpi=DPI))
    print(options.out)


if __name__ == "__main__":
    main()

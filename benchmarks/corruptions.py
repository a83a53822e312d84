"""Spoilt digits: what a model still reads under fifteen kinds of corruption, as in MNIST-C.

What it measures. Held-out digits (the tenth of the training pictures that the models that ship did
not learn from; the test pictures only with --test) are spoilt in each of fifteen ways
([`corrupt.py`](corrupt.py): kinds and severities of Mu and Gilmer 2019) and read through the
normaliser, as any picture is. By kind: the share read rightly, with Wilson's interval at 95 %; and
at the model's promised error rate the share accepted (coverage), and of those the share wrong.
A picture in which no ink was found counts as misread. `as they are` stands beside for comparison
and is in no mean. Seeded; the same pictures for every kind.

`--sheet` writes some misread pictures of each kind: as they were, spoilt, and as the network saw
them, with label, answer and confidence; a * stands before an answer that was accepted.

    python benchmarks/corruptions.py --sheet build/corrupted.png
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from corrupt import KINDS, corrupt
from keras_study import write_results
from measuring import say
from trials import (
    Cell,
    digits,
    draw_sheet,
    head,
    judge,
    parse,
    parser,
    recogniser,
    tally,
)

PLAIN = "as they are"
SHOWN = 15  # misread pictures of each kind on the sheet


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Spoil, read and count, kind by kind."""
    model = recogniser(options)
    images, labels = digits(options, test=options.test)
    results = head(model, options)
    results |= {"pictures": "test" if options.test else "held out", "count": len(labels)}
    results["kinds"] = {}
    cells = []
    for kind in (PLAIN, *(options.only or KINDS)):
        spoilt = images if kind == PLAIN else corrupt(kind, images, seed=options.seed)
        told = judge(model, spoilt, threads=options.threads)
        found = results["kinds"][kind] = tally(labels.tolist(), told)
        say(f"{kind}: {100 * found['accuracy']['share']:.1f} %, no ink {found['no_ink']}")
        misread = [i for i, one in enumerate(told) if one.digit != labels[i]][:SHOWN]
        for i in misread if kind != PLAIN else ():
            mark = "*" if told[i].accepted else ""
            words = f"{kind} {labels[i]}>{mark}{told[i].digit} {told[i].confidence:.2f}"
            cells.append(Cell((images[i], spoilt[i], told[i].seen), words))
    results["mean"] = means([v for k, v in results["kinds"].items() if k != PLAIN])
    if options.sheet:
        draw_sheet(cells, options.sheet)
    return results


def means(kinds: list[dict[str, Any]]) -> dict[str, float]:
    """Means over the kinds, and the error among all that was accepted."""
    accepted = sum(one["error"]["of"] for one in kinds)
    wrong = sum(one["error"]["count"] for one in kinds)
    return {
        "accuracy": round(statistics.mean(one["accuracy"]["share"] for one in kinds), 5),
        "coverage": round(statistics.mean(one["coverage"]["share"] for one in kinds), 5),
        "error": round(wrong / max(1, accepted), 5),
    }


def main() -> None:
    """Measure and write the results."""
    made = parser("What a model reads of spoilt digits.", "corruptions.json", count=6000)
    made.add_argument("--test", action="store_true", help="the test pictures, for the last word")
    made.add_argument("--only", action="append", choices=KINDS, help="this kind; repeatable")
    options = parse(made)
    results = measure(options)
    say("mean: " + ", ".join(f"{key} {100 * v:.2f} %" for key, v in results["mean"].items()))
    write_results(options.out, results)


if __name__ == "__main__":
    main()

"""Digits among other things: whether a reading that is accepted is right there.

What it measures. Pictures are made of held-out digits (the tenth of the training pictures that the
models that ship did not learn from) with neighbours, borders and grounds (`around.py`), and each is
read as any picture is. By kind and by way of making: the share read rightly, with Wilson's interval
at 95 %; at the model's promised error rate the share accepted (coverage), and of those the share
wrong, with the upper limit of Clopper and Pearson at 95 %, one-sided. Where several digits stand in
a picture, or nothing is written, any answer that is accepted is wrong. Seeded.

`--sheet` writes pictures that were misread or wrongly accepted: as they were made, and as the
network saw them, with label, answer and confidence; a * stands before an answer that was accepted.

Of the pictures with neighbours only a quarter may be accepted at all, so more of them are made.

    python benchmarks/surroundings.py --sheet build/surroundings.png
"""

from __future__ import annotations

import argparse
from typing import Any

from around import KINDS, Digits, made
from keras_study import write_results
from measuring import say
from trials import Cell, Told, digits, draw_sheet, head, judge, parse, parser, recogniser, tally

COUNTS = {"neighbours": 16_000, "borders": 6_000, "grounds": 6_000}
SHOWN = 60  # pictures of each kind on the sheet
LEVEL = 0.95


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Make, read and count, kind by kind."""
    model = recogniser(options)
    source = argparse.Namespace(**{**vars(options), "count": 10**6})
    images, labels = digits(source)
    held = Digits(images, labels.tolist())
    results = head(model, options) | {"kinds": {}}
    cells: list[Cell] = []
    for kind in options.only or KINDS:
        pictures = made(kind, held, options.count or COUNTS[kind], seed=options.seed)
        told = judge(model, [one.picture for one in pictures], threads=options.threads)
        found = results["kinds"][kind] = counted([one.digit for one in pictures], told)
        found["ways"] = {
            way: counted(*zip(*pairs, strict=True))
            for way in KINDS[kind]
            if (
                pairs := [(p.digit, t) for p, t in zip(pictures, told, strict=True) if p.way == way]
            )
        }
        say(
            f"{kind}: {found['error']['count']} wrong of {found['error']['of']:,} accepted, "
            f"at most {found['error']['upper']:.2%}"
        )
        bad = [i for i, (p, t) in enumerate(zip(pictures, told, strict=True)) if is_bad(p.digit, t)]
        for i in bad[:SHOWN]:
            mark = "*" if told[i].accepted else ""
            words = f"{pictures[i].way} {pictures[i].digit}>{mark}{told[i].digit}"
            picture = pictures[i].picture
            shown = picture if picture.ndim == 2 else picture[..., :3]
            cells.append(Cell((shown, told[i].seen), words))
    if options.sheet:
        draw_sheet(cells, options.sheet)
    return results


def is_bad(digit: int | None, told: Told) -> bool:
    """Whether an answer is wrongly accepted, or the digit of the picture misread."""
    return told.digit != digit and (told.accepted or digit is not None)


def counted(labels: Any, told: Any) -> dict[str, Any]:
    """`tally`, accuracy of those with one digit alone, and the upper limit of the error."""
    found = tally(labels, told)
    single = [(label, one) for label, one in zip(labels, told, strict=True) if label is not None]
    found["accuracy"] = tally(*zip(*single, strict=True))["accuracy"] if single else {"of": 0}
    error = found["error"]
    error["upper"] = round(upper_limit(error["count"], error["of"]), 6)
    return found


def upper_limit(wrong: int, of: int) -> float:
    """Clopper and Pearson's upper limit of a share at 95 %, one-sided; 1 of none."""
    from scipy.stats import beta

    return 1.0 if wrong >= of else float(beta.ppf(LEVEL, wrong + 1, of - wrong))


def main() -> None:
    """Measure and write the results."""
    options = parser("Digits among other things.", "surroundings.json")
    options.add_argument("--count", type=int, help="pictures of a kind (default 6,000 or 16,000)")
    options.add_argument("--only", action="append", choices=KINDS, help="this kind; repeatable")
    chosen = parse(options)
    write_results(chosen.out, measure(chosen))


if __name__ == "__main__":
    main()

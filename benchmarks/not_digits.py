"""What is no digit: how much of it a model accepts, by kind.

What it measures. Pictures made by [`strangers.py`](strangers.py), no digit among them, are read as
any picture is; of each kind the share that is accepted at the model's promised error rate, with
Wilson's interval at 95 %. Pictures without ink count as not accepted. In `all` every kind of the
first group weighs the same. Beside them and in no sum: `several digits`, each of which may be read
and be right, and `letters like digits`. Then other scripts' numerals, with those that look like a
digit of ours and without them; and held-out digits, the share of which is what the threshold costs.

The letters that are left out as look-alikes, and the numerals, are listed in the results with the
digit that they look like. Numerals are drawn with the fonts that come with matplotlib, which have
Arabic-Indic, Persian, N'Ko and Lao ones; `--fonts` names a folder of others, such as Debian's
fonts-lohit-deva, fonts-lohit-beng-bengali, fonts-tlwg-garuda-ttf and fonts-wqy-microhei, for
Devanagari, Bengali, Thai and Chinese; a script without a font is told as such.

`--sheet` writes some accepted pictures of each kind with what the network saw of them.

    python benchmarks/not_digits.py --fonts FOLDER --sheet build/accepted.png
"""

from __future__ import annotations

import argparse
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import strangers
from keras_study import write_results
from measuring import say
from trials import (
    Cell,
    Told,
    digits,
    draw_sheet,
    head,
    judge,
    parse,
    parser,
    recogniser,
    share,
)

SHOWN = 16  # accepted pictures of each kind on the sheet
DIGITS = "held-out digits"


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Make, read and count, kind by kind."""
    model = recogniser(options)
    images, _ = digits(options)
    results = head(model, options) | {"count": options.count}
    results["left_out"] = strangers.LOOK_ALIKES
    results["kinds"], results["scripts"] = {}, {}
    cells: list[Cell] = []

    def read(pictures: list[Any], kind: str) -> list[Told]:
        told = judge(model, pictures, threads=options.threads)
        taken = [i for i, one in enumerate(told) if one.accepted][:SHOWN]
        for i in taken if kind != DIGITS else ():
            words = f"{kind} {told[i].digit} {told[i].confidence:.3f}"
            cells.append(Cell((pictures[i], told[i].seen), words))
        return told

    results["digits"] = share(accepted(read(list(images), DIGITS)), len(images))
    for kind in (*strangers.MADE, strangers.SEVERAL, strangers.ALIKE):
        made = strangers.make(kind, options.count, seed=options.seed, digits=images)
        told = read(made, kind)
        found = results["kinds"][kind] = counted(told)
        say(f"{kind}: {100 * found['accepted']['share']:.1f} % accepted")
    results["all"] = mean(results["kinds"], strangers.MADE)
    for script, (characters, look_alikes) in strangers.SCRIPTS.items():
        fonts = strangers.fonts_with(characters, options.fonts)
        if not fonts:
            results["scripts"][script] = {"failed": "no font has its numerals"}
            continue
        drawn = list(strangers.numerals(script, options.count, seed=options.seed, fonts=fonts))
        told = read([picture for _, picture in drawn], script)
        names = [character for character, _ in drawn]
        results["scripts"][script] = by_numeral(names, told, look_alikes) | {
            "fonts": [font.stem for font in fonts]
        }
        say(f"{script}: {100 * results['scripts'][script]['accepted']['share']:.1f} % accepted")
    results["all_scripts"] = mean(results["scripts"], results["scripts"])
    results["unlike_scripts"] = mean(results["scripts"], results["scripts"], "unlike")
    if options.sheet:
        draw_sheet(cells, options.sheet)
    return results


def accepted(told: list[Told]) -> int:
    """How many are accepted."""
    return sum(one.accepted for one in told)


def counted(told: list[Told]) -> dict[str, Any]:
    """Accepted of all, those without ink, and which digits they were taken for."""
    taken = Counter(str(one.digit) for one in told if one.accepted)
    return {
        "accepted": share(accepted(told), len(told)),
        "no_ink": sum(one.digit is None for one in told),
        "taken_for": dict(sorted(taken.items())),
    }


def by_numeral(names: list[str], told: list[Told], look_alikes: dict[str, int]) -> dict[str, Any]:
    """Counts of all numerals, of those unlike any digit of ours, and of each."""
    unlike = [one for name, one in zip(names, told, strict=True) if name not in look_alikes]
    each = {
        name: share(accepted(own), len(own))
        for name in dict.fromkeys(names)
        if (own := [one for other, one in zip(names, told, strict=True) if other == name])
    }
    return counted(told) | {
        "unlike": share(accepted(unlike), len(unlike)),
        "look_alikes": look_alikes,
        "numerals": {name: one["share"] for name, one in each.items()},
    }


def mean(found: dict[str, Any], kinds: Any, key: str = "accepted") -> float | None:
    """The mean share of some kinds; None where nothing was measured."""
    shares = [found[kind][key]["share"] for kind in kinds if key in found[kind]]
    return round(statistics.mean(shares), 5) if shares else None


def main() -> None:
    """Measure and write the results."""
    made = parser("What a model accepts that is no digit.", "not_digits.json", count=1000)
    made.add_argument("--fonts", type=Path, help="a folder of more fonts, for other scripts")
    options = parse(made)
    results = measure(options)
    for key in ("all", "all_scripts", "unlike_scripts"):
        say(f"{key}: " + ("–" if results[key] is None else f"{100 * results[key]:.2f} %"))
    write_results(options.out, results)


if __name__ == "__main__":
    main()

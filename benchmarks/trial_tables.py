"""The tables of what the models that ship read, rightly or wrongly, of pictures of all kinds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Results = dict[str, Any]
Table = Callable[[list[str], list[list[str]]], str]
NONE = "–"
PROGRAMS = {"onnxruntime": "ONNX Runtime", "torch": "PyTorch", "keras": "Keras, TensorFlow"}


def percent(found: Results | None, *, interval: bool = True) -> str:
    """A share in percent with its interval; a dash of nothing."""
    if not found or not found["of"]:
        return NONE
    value = f"{100 * found['share']:.1f}"
    return f"{value} ({100 * found['low']:.1f}–{100 * found['high']:.1f})" if interval else value


def plain(value: float | None) -> str:
    """A share in percent."""
    return NONE if value is None else f"{100 * value:.2f}"


def head(results: Results) -> str:
    """Who read, and from which confidence on it accepts."""
    line = f"Model {results['model']}, {results['parameters']:,} parameters"
    if results["threshold"] is None:
        return f"{line}; it promises no error rate, so nothing is accepted."
    return (
        f"{line}; accepted from a confidence of {100 * results['threshold']:.2f} % on, "
        f"for at most {100 * results['error_rate']:g} % errors among digits like those held out."
    )


def reading_rows(parts: Results) -> list[list[str]]:
    """A line a kind: accuracy; coverage, and errors among what is accepted."""
    return [
        [
            name.replace("_", " "),
            str(one["pictures"]),
            percent(one["accuracy"]),
            percent(one["coverage"], interval=False),
            f"{percent(one['error'])} ({one['error']['count']} of {one['error']['of']})",
        ]
        for name, one in parts.items()
    ]


COLUMNS = ["pictures", "read rightly, %", "accepted, %", "wrong among the accepted, %"]


def recognisers(results: Results, table: Table) -> str:
    """Accuracy by seed, calibration, promises kept, belief by row."""
    rows, promised, told = [], [], []
    for model, one in results["networks"].items():
        seeds = [seed["accuracy"] for seed in one["seeds"]]
        mean = one.get("mean")
        rows.append(
            [
                model,
                ", ".join(f"{100 * seed['share']:.2f}" for seed in seeds),
                f"{100 * mean['value']:.2f} ({100 * mean['low']:.2f}–{100 * mean['high']:.2f}), "
                f"seeds"
                if mean
                else f"{100 * seeds[0]['share']:.2f} ({100 * seeds[0]['low']:.2f}–"
                f"{100 * seeds[0]['high']:.2f}), pictures",
                spread([seed["calibration_error"] for seed in one["seeds"]]),
                spread([seed["calibration_error_untempered"] for seed in one["seeds"]]),
            ]
        )
        if ships := one.get("shipped"):
            told.append(f"`{model}` as it ships{is_seed_0(ships)}: {as_shipped(ships)}")
            promised += [[model, *promise_row(each)] for each in ships["promises"]]
        if by_row := one["seeds"][0].get("by_row"):
            told.append(f"`{model}`, seed {one['seeds'][0]['seed']}, after each row:")
            told.append(belief_table(by_row, table))
    header = ["", "accuracy by seed, %", "mean (95 % interval), over", "calibration error, %"]
    header += ["before the temperature, %"]
    promises = ["", "at most wrong, %", "from a confidence of, %", "accepted, %"]
    promises += ["wrong among the accepted, %"]
    parts = [f"{results['pictures']:,} test pictures.", table(header, rows)]
    parts += told
    if promised:
        parts += ["Promises, on the test pictures:", table(promises, promised)]
    return "\n\n".join(parts)


def spread(shares: list[float]) -> str:
    """One share in percent, or the least and the most."""
    low, high = 100 * min(shares), 100 * max(shares)
    return f"{low:.2f}" if len(shares) == 1 else f"{low:.2f}–{high:.2f}"


def is_seed_0(ships: Results) -> str:
    """Whether a model that ships is the run that was measured."""
    return " (seed 0)" if ships["is_seed_0"] else " (**of another run**)"


def as_shipped(ships: Results) -> str:
    """What a model that ships reads of test pictures that went through the normaliser."""
    return (
        f"{plain(ships['accuracy']['share'])} % right with every picture normalised, which leaves "
        f"{plain(ships['unchanged']['share'])} % of them as they are; calibration error "
        f"{plain(ships['calibration_error'])} %."
    )


def promise_row(one: Results) -> list[str]:
    """A promise and what came of it."""
    error = one["error"]
    return [
        f"{100 * one['error_rate']:g}",
        f"{100 * one['confidence']:.3f}",
        percent(one["coverage"]),
        f"{100 * error['share']:.3f} ({error['count']} of {error['of']:,})",
    ]


def belief_table(by_row: list[Results], table: Table) -> str:
    """Accuracy, confidence and calibration error after each row, every second row."""
    rows = [
        [str(i + 1), *(f"{100 * one[key]:.1f}" for key in ("accuracy", "confidence")),
         f"{100 * one['calibration_error']:.2f}"]
        for i, one in enumerate(by_row)
        if i % 2
    ]  # fmt: skip
    return table(["row", "right, %", "mean confidence, %", "calibration error, %"], rows)


def realworld(results: Results, table: Table) -> str:
    """People's own digits, by folder and group."""
    wrong = ", ".join(
        f"{one['label']} as {NONE if one['digit'] is None else one['digit']}"
        for one in results["misread"]
    )
    rows = reading_rows(results["parts"])
    return f"{head(results)}\n\n{table(['', *COLUMNS], rows)}\n\nMisread: {wrong or 'none'}."


def corruptions(results: Results, table: Table) -> str:
    """Spoilt digits, by kind, and the means."""
    rows = reading_rows(results["kinds"])
    mean = results["mean"]
    rows.append(
        ["**mean of the kinds**", "", *(plain(mean[k]) for k in ("accuracy", "coverage", "error"))]
    )
    what = "test pictures" if results["pictures"] == "test" else "held-out training pictures"
    text = f"{head(results)} {results['count']:,} {what}, each in every kind."
    return f"{text}\n\n{table(['', *COLUMNS], rows)}"


def surroundings(results: Results, table: Table) -> str:
    """Digits among other things, by kind and by way of making."""
    rows = []
    for kind, found in results["kinds"].items():
        for name, one in ((f"**{kind}**", found), *found["ways"].items()):
            error = one["error"]
            rows.append(
                [
                    name,
                    str(one["pictures"]),
                    percent(one["accuracy"], interval=False),
                    percent(one["coverage"], interval=False),
                    f"{error['count']} of {error['of']}",
                    plain(error["upper"]) if error["of"] else NONE,
                ]
            )
    columns = ["", "pictures", "read rightly, %", "accepted, %", "wrong among the accepted"]
    text = f"{head(results)} Of those in which one digit stands, the share read rightly."
    return f"{text}\n\n{table([*columns, 'at most, %'], rows)}"


def not_digits(results: Results, table: Table) -> str:
    """Acceptance by kind and by script, and what was left out."""
    kinds = [
        [name, percent(one["accepted"]), str(one["no_ink"])]
        for name, one in results["kinds"].items()
    ]
    kinds.append(["**mean, without the last two**", plain(results["all"]), ""])
    scripts = [
        [name, percent(one["accepted"]), percent(one["unlike"]), alike(one["look_alikes"])]
        if "accepted" in one
        else [name, NONE, NONE, one["failed"]]
        for name, one in results["scripts"].items()
    ]
    scripts.append(
        ["**mean**", plain(results["all_scripts"]), plain(results["unlike_scripts"]), ""]
    )
    return "\n\n".join(
        [
            f"{head(results)} {results['count']:,} pictures of each kind; of as many held-out "
            f"digits {percent(results['digits'])} % are accepted.",
            table(["no digit", "accepted, %", "without ink"], kinds),
            table(["numerals", "all accepted, %", "those unlike ours, %", "look like"], scripts),
            f"Letters left out, as they look like a digit: {alike(results['left_out'])}.",
        ]
    )


def alike(look_alikes: Results) -> str:
    """What looks like which digit."""
    by_digit: dict[int, list[str]] = {}
    for character, digit in look_alikes.items():
        by_digit.setdefault(digit, []).append(character)
    return ", ".join(f"{' '.join(found)} = {digit}" for digit, found in sorted(by_digit.items()))


def faithfulness(results: Results, table: Table) -> str:
    """Flips by what was taken away."""
    rows = [["the most important tenth", percent(results["most_important"]), NONE]]
    for name, one in results["by_chance"].items():
        told = one["ratio"]
        ratio, low, high = (
            "∞" if told[key] is None else f"{told[key]:g}" for key in ("value", "low", "high")
        )
        rows.append(
            [f"a random tenth: {name}", f"{100 * one['share']:.2f}", f"{ratio} ({low}–{high})"]
        )
    seconds = results["seconds"]
    text = (
        f"Model {results['model']}; {results['count']:,} held-out digits, {results['draws']} "
        f"random tenths of each. A map takes {seconds['median']:.2f} s ({seconds['min']:.2f}–"
        f"{seconds['max']:.2f})."
    )
    header = ["taken away", "readings that flip, %", "the most important / this"]
    return f"{text}\n\n{table(header, rows)}"


def learning(results: Results, table: Table) -> str:
    """What was forgotten and learnt, by the number of corrections and the recipe."""
    rows = []
    for count in dict.fromkeys(one["corrections"] for one in results["lessons"]):
        for recipe, rate in results["rates"].items():
            lessons = [
                one
                for one in results["lessons"]
                if (one["corrections"], one["recipe"]) == (count, recipe)
            ]
            rows.append([str(count), f"{rate:g} ({recipe})", *changes(lessons)])
    text = (
        f"Model {results['model']}; {results['misread']} of {results['held_out']:,} held-out "
        f"digits are misread; {results['trials']} trials, each of other corrections and with "
        f"another seed; {results['epochs']} epochs. Means over trials, least and most in brackets."
    )
    header = ["corrections", "learning rate", "others misread: before", "after"]
    header += ["corrected read rightly, %", "moved and bent: before, %", "after, %"]
    return f"{text}\n\n{table(header, rows)}"


def changes(lessons: list[Results]) -> list[str]:
    """The cells of several lessons of one kind."""

    def over(when: str, what: str, *, wrong: bool = False) -> str:
        parts = [one[when][what] for one in lessons]
        values = [p["of"] - p["count"] if wrong else 100 * p["share"] for p in parts]
        mean = sum(values) / len(values)
        return f"{mean:.1f} ({min(values):g}–{max(values):g})"

    others = [over(when, "others", wrong=True) for when in ("before", "after")]
    again = [over(when, "again") for when in ("before", "after")]
    return [*others, over("after", "corrected"), *again]


def name(label: str) -> str:
    """A contender, PROGRAM:MODEL, as people know it."""
    program, _, model = label.partition(":")
    return f"{PROGRAMS.get(program, program.capitalize())}, {model}"


def reading(results: Results, table: Table, machine: str) -> str:
    """Cold start, latency of an array and of a photo, and ten thousand at once."""
    rows = []
    for label, one in results["contenders"].items():
        if "failed" in one:
            rows.append([name(label), f"{NONE} ({one['failed']})", *[NONE] * 5])
            continue
        each = [
            f"{one[what][key]:.3g}" if what in one else NONE
            for what in ("one", "photo")
            for key in ("median_ms", "p99_ms")
        ]
        whole = [
            f"{one[k]['median']:.2f} ({one[k]['min']:.2f}–{one[k]['max']:.2f})"
            if k in one
            else NONE
            for k in ("many_s", "cold_s")
        ]
        rows.append([name(label), *each, *whole, f"{100 * one['agreement']:.2f}"])
    header = ["", "an array, ms: median", "99th percentile", "a photo, ms: median"]
    header += ["99th percentile", "10,000 arrays, s", "cold process, s", "same digits, %"]
    return f"{machine}\n\n{table(header, rows)}"

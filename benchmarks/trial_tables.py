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
        return f"{line}; it promises no error rate, so all that has ink is accepted."
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

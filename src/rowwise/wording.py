"""Numbers and lists as people read them; `NONE` stands where there is no number."""

from __future__ import annotations

import math
from collections.abc import Sequence

NONE = "–"
WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
         "twelve")  # fmt: skip
# A narrow space that does not break keeps a number and its unit together.
THIN = "\u202f"
LEVEL = f"95{THIN}%"  # of every interval here


def percent(share: float | None, places: int = 2) -> str:
    """A share 0..1 as percent: 0.984 -> "98.40 %"."""
    return NONE if share is None or math.isnan(share) else f"{100 * share:.{places}f}{THIN}%"


def points(share: float | None, places: int = 2, *, sign: bool = False) -> str:
    """A difference of shares in percentage points, without the unit: -0.0012 -> "−0.12"."""
    if share is None or math.isnan(share):
        return NONE
    text = f"{100 * share:{'+' if sign else ''}.{places}f}"
    if not text.strip("+-0."):
        text = text.lstrip("+-")  # what rounds to zero has no sign
    return text.replace("-", "−")


def between(low: float, high: float, places: int = 2) -> str:
    """An interval of shares in percent: "98.31 to 98.62 %"; bounds beyond 0 or 1 are cut."""
    if math.isnan(low) or math.isnan(high):
        return NONE
    return f"{100 * max(0.0, low):.{places}f} to {100 * min(1.0, high):.{places}f}{THIN}%"


def between_points(low: float, high: float, places: int = 2) -> str:
    """An interval of differences in points: "−0.10 to +0.34"."""
    if math.isnan(low) or math.isnan(high):
        return NONE
    return f"{points(low, places, sign=True)} to {points(high, places, sign=True)}"


def p_value(p: float) -> str:
    """A p-value: "0.031", "< 0.001"."""
    if math.isnan(p):
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def p_equals(p: float) -> str:
    """A p-value in a sentence: "p = 0.031", "p < 0.001"."""
    text = p_value(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def duration(seconds: float) -> str:
    """A time: "0.84 s", "12.5 s", "3 min 20 s", "2 h 5 min"."""
    if seconds < 10:
        return f"{seconds:.2f}{THIN}s"
    if seconds < 60:
        return f"{seconds:.1f}{THIN}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{THIN}min {rest}{THIN}s"
    return f"{minutes // 60}{THIN}h {minutes % 60}{THIN}min"


def count(number: float, places: int = 0) -> str:
    """A number of things: "10,000", "9.3"; whole numbers carry no decimals."""
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:,.{places}f}"


def mean_count(number: float, runs: int) -> str:
    """A mean number of things over runs: "9.3", "16.0"; of one run "9"."""
    return f"{number:,.1f}" if runs > 1 else f"{number:,.0f}"


def confidence(share: float) -> str:
    """A confidence 0..1 that is never rounded up to certainty: "98 %", "99.7 %", "> 99.9 %"."""
    if share >= 0.9995:
        return f"> 99.9{THIN}%"
    return percent(share, 1 if share >= 0.995 else 0)


def upper_first(text: str) -> str:
    """`text` as the beginning of a sentence; what follows its first letter stays as it is."""
    return text[:1].upper() + text[1:]


def in_words(number: int) -> str:
    """A number of things as prose writes it: "one" to "twelve", then digits."""
    return WORDS[number - 1] if 1 <= number <= len(WORDS) else count(number)


def several(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: "1 seed", "3 seeds", "2 classes" where `many` is given."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(words: Sequence[str], *, most: int = 8) -> str:
    """Words as a list: "a", "a and b", "a, b and c"; beyond `most` the rest is counted."""
    if len(words) > most:
        words = [*words[: most - 1], f"{len(words) - most + 1} more"]
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"

"""wording: numbers as people read them."""

from __future__ import annotations

import math

import pytest

from rowwise import wording
from rowwise.wording import THIN


@pytest.mark.parametrize(
    ("share", "places", "text"),
    [
        (0.984, 2, f"98.40{THIN}%"),
        (1.0, 1, f"100.0{THIN}%"),
        (math.nan, 2, "–"),
        (None, 2, "–"),
    ],
)
def test_percent(share: float | None, places: int, text: str) -> None:
    assert wording.percent(share, places) == text


@pytest.mark.parametrize(
    ("share", "sign", "text"),
    [
        (-0.0012, False, "−0.12"),
        (0.0012, True, "+0.12"),
        (-0.00001, True, "0.00"),  # what rounds to zero has no sign
        (0.0, True, "0.00"),
        (math.nan, True, "–"),
    ],
)
def test_points(share: float, sign: bool, text: str) -> None:
    assert wording.points(share, sign=sign) == text


def test_an_interval_is_cut_where_no_accuracy_lies() -> None:
    assert wording.between(-0.1, 1.2, 1) == f"0.0 to 100.0{THIN}%"
    assert wording.between(math.nan, 1.0) == "–"
    assert wording.between_points(-0.001, 0.0034) == "−0.10 to +0.34"


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (0.0, "< 0.001"),
        (0.0009, "< 0.001"),
        (0.001, "0.001"),
        (0.0312, "0.031"),
        (0.31, "0.31"),
        (1.0, "1.00"),
        (math.nan, "–"),
    ],
)
def test_p_values(p: float, text: str) -> None:
    assert wording.p_value(p) == text


def test_p_in_a_sentence() -> None:
    assert wording.p_equals(0.02) == "p = 0.020"
    assert wording.p_equals(1e-9) == "p < 0.001"


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.98, f"98{THIN}%"),
        (0.9949, f"99{THIN}%"),
        (0.997, f"99.7{THIN}%"),
        (0.99949, f"99.9{THIN}%"),
        (0.9996, f"> 99.9{THIN}%"),
        (1.0, f"> 99.9{THIN}%"),  # float32 rounds a softmax up to 1, a report does not
    ],
)
def test_no_confidence_is_rounded_up_to_certainty(share: float, text: str) -> None:
    assert wording.confidence(share) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.00 s"),
        (9.994, "9.99 s"),
        (12.54, "12.5 s"),
        (200, "3 min 20 s"),
        (3599.6, "1 h 0 min"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert wording.duration(seconds).replace(THIN, " ") == text


def test_counts() -> None:
    assert wording.count(10000) == "10,000"
    assert wording.mean_count(9.333, 3) == "9.3"
    assert wording.mean_count(9.0, 3) == "9.0"
    assert wording.mean_count(9.0, 1) == "9"
    assert [wording.several(n, "seed") for n in (0, 1, 2)] == ["0 seeds", "1 seed", "2 seeds"]
    assert wording.several(3, "class", "classes") == "3 classes"
    assert [wording.in_words(n) for n in (1, 12, 13, 0)] == ["one", "twelve", "13", "0"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], ""),
        (["a"], "a"),
        (["a", "b"], "a and b"),
        (["a", "b", "c"], "a, b and c"),
        (list("abcdefghij"), "a, b, c, d, e, f, g and 3 more"),
    ],
)
def test_lists(words: list[str], text: str) -> None:
    assert wording.listed(words) == text


def test_a_sentence_begins_with_a_capital_and_keeps_the_rest() -> None:
    assert wording.upper_first("the data set MyOwn") == "The data set MyOwn"
    assert wording.upper_first("") == ""

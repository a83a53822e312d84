"""figures: what the numbers say is what is drawn, for two classes and for a hundred."""

from __future__ import annotations

import re

import numpy as np
import pytest

from rowwise import drawing, figures
from rowwise.drawing import INK, PAPER, SERIES
from rowwise.figures import Bin, Counts, Result

DIGITS = list("0123456789")


def texts(drawn: object) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", drawing.svg(drawn))  # type: ignore[arg-type]


def test_bars_carry_their_counts_and_classes() -> None:
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    drawn = figures.class_distribution(
        [Counts("Training data", counts), Counts("Said", counts[::-1], counts)], DIGITS
    )
    found = texts(drawn)
    assert {"Training data", "Said", "6,742", "5,421", *DIGITS} <= set(found)
    first, second = drawn.axes
    assert [bar.get_height() for bar in first.patches] == counts
    assert [bar.get_height() for bar in second.patches] == counts[::-1]
    (marks,) = second.collections
    assert [segment[0][1] for segment in marks.get_segments()] == counts
    assert not first.collections


def test_a_hundred_classes_are_numbered_and_carry_no_counts() -> None:
    names = [f"class {place}" for place in range(100)]
    drawn = figures.class_distribution([Counts("all", [777] * 100)], names)
    assert set(texts(drawn)) == {"all", "1", "18", "35", "52", "69", "86"}


def test_an_empty_class_and_long_names_can_be_drawn() -> None:
    names = ["T-shirt/top", "a name that is much too long for a bar", *"abcdefgh"]
    drawn = figures.class_distribution([Counts("x", [0] * 10), Counts("y", [0, 3] * 5)], names)
    assert any(text.endswith("…") for text in texts(drawn))
    assert drawing.png(drawn)


def test_results_draw_seeds_mean_interval_and_published_figure() -> None:
    rows = [
        Result("rnn", [0.96, 0.97, 0.965], 0.965, 0.955, 1.02, 0.9628),
        Result("lstm", [0.98], 0.98, None, None, None),
    ]
    drawn = figures.results(rows)
    lines = {}
    for line in drawn.axes[0].lines:
        lines.setdefault(line.get_label(), []).append(list(line.get_xdata()))
    assert lines["one seed"] == [[96.0, 97.0, 96.5], [98.0]]
    assert lines["mean"] == [[96.5]]  # one seed is no mean
    assert lines["95 % interval of the mean"] == [[pytest.approx(95.5), 100.0]]  # cut at 100 %
    assert lines["published"] == [[pytest.approx(96.28)]]
    assert {"rnn", "lstm", "published", "validation accuracy in %"} <= set(texts(drawn))


def test_results_without_published_figures_have_no_such_mark() -> None:
    drawn = figures.results([Result("x", [0.5], 0.5, None, None, None)], measure="test accuracy")
    assert "published" not in texts(drawn)
    assert "test accuracy in %" in texts(drawn)


def test_confusion_cells_carry_counts_and_rates() -> None:
    matrix = np.array([[90, 10], [5, 195]])
    drawn = figures.confusion(matrix, ["cat", "dog"])
    found = texts(drawn)
    assert {"90", "10", "5", "195", "90.0 %", "10.0 %", "2.5 %", "97.5 %", "said", "true"} <= set(
        found
    )
    assert {"cat", "dog"} <= set(found)


def test_errors_are_shaded_by_the_largest_error_and_empty_cells_are_bare() -> None:
    matrix = np.array([[100, 0, 0], [2, 98, 0], [1, 0, 99]])
    drawn = figures.confusion(matrix, list("abc"))
    cells = {
        (round(bar.get_y() + 0.5), round(bar.get_x() + bar.get_width() / 2)): bar.get_facecolor()
        for bar in drawn.axes[0].patches
    }
    assert cells.keys() == {(0, 0), (1, 1), (2, 2), (1, 0), (2, 0)}
    assert cells[1, 0][3] == pytest.approx(0.66)
    assert cells[2, 0][3] == pytest.approx(0.36)
    assert cells[0, 0][:3] != cells[1, 0][:3]


def test_numbers_in_cells_can_be_read() -> None:
    # White only on the strong blue of the diagonal, ink on everything else.
    drawn = figures.confusion(np.array([[50, 50], [1, 99]]), list("ab"))
    colours = {text.get_text(): text.get_color() for text in drawn.axes[0].texts}
    assert colours["99"] == PAPER
    assert colours["1"] == INK


@pytest.mark.parametrize("classes", [2, 20, 21, 100])
def test_many_classes_are_shaded_without_numbers(classes: int) -> None:
    matrix = np.full((classes, classes), 3) + np.diag([50] * classes)
    drawn = figures.confusion(matrix, [f"c{place}" for place in range(classes)])
    assert ("53" in texts(drawn)) == (classes <= 20)
    width, height = drawn.get_size_inches() * 72
    assert width == height < 900


def test_a_class_without_images_divides_by_nothing() -> None:
    assert drawing.svg(figures.confusion(np.array([[0, 0], [0, 7]]), list("ab")))


def test_calibration_draws_bins_intervals_and_numbers_of_answers() -> None:
    bins = [
        Bin(0.5, 0.4, 100, 0.3, 0.5),
        Bin(0.7, 1.0, 3, 0.4, 1.0),
        Bin(0.99, 0.95, 900, 0.93, 0.96),
    ]
    drawn = figures.calibration(bins, error=0.0123)
    upper, lower = drawn.axes
    diagonal, every, many = upper.lines
    assert list(diagonal.get_xdata()) == [0, 100]
    assert list(every.get_ydata()) == [40.0, 100.0, 95.0]
    assert every.get_markerfacecolor() == PAPER  # hollow beneath the filled ones
    assert list(many.get_xdata()) == [50.0, 99.0]  # three answers are no point of the curve
    assert many.get_markerfacecolor() == SERIES[0]
    assert [bar.get_height() for bar in lower.patches] == [100, 3, 900]
    assert "calibration error 1.23 points" in texts(drawn)


def test_pixel_values_mark_the_mean_and_skip_empty_bins() -> None:
    drawn = figures.pixel_values([0.9, 0.0, 0.06, 0.04], mean=20.5)
    heights = [bar.get_height() for bar in drawn.axes[0].patches]
    assert heights[0] == pytest.approx(90)
    assert np.isnan(heights[1])
    assert "mean 20.5" in texts(drawn)


def test_only_the_themes_colours_are_drawn() -> None:
    drawn = [
        figures.class_distribution([Counts("x", [1, 2], [2, 1])], list("ab")),
        figures.results([Result("x", [0.5, 0.6], 0.55, 0.5, 0.6, 0.4)]),
        figures.confusion(np.array([[9, 1], [2, 8]]), list("ab")),
        figures.calibration([Bin(0.5, 0.4, 100, 0.3, 0.5)], error=0.1),
        figures.pixel_values([0.5, 0.5], mean=3),
    ]
    for one in drawn:
        colours = set(re.findall(r"#[0-9a-f]{6}\b", drawing.svg(one)))
        assert colours <= drawing.THEME.keys(), colours - drawing.THEME.keys()

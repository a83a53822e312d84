"""curves: every epoch of every seed is on the line where it belongs."""

from __future__ import annotations

import re

import numpy as np
import pytest

from rowwise import curves, drawing
from rowwise.curves import Curve

ACCURACY = Curve("net", [[0.8, 0.9], [0.7, 0.8]], [[0.85, 0.88], [0.83, 0.9]])
LOSS = Curve("net", [[0.8, 0.5], [0.7, 0.6]], [[0.6, 0.5], [0.5, 0.4]])


def test_the_overview_draws_means_and_a_band() -> None:
    drawn = curves.overview([ACCURACY, ACCURACY._replace(name="twin")], accuracy=True)
    (on,) = drawn.axes
    first, second = on.lines
    assert list(first.get_ydata()) == pytest.approx([84.0, 89.0])
    assert list(first.get_xdata()) == [1, 2]
    assert (first.get_marker(), first.get_linestyle()) != (
        second.get_marker(),
        second.get_linestyle(),
    )
    assert len(on.collections) == 2  # a band for each
    text = drawing.svg(drawn)
    assert ">net</text>" in text
    assert ">twin</text>" in text
    assert "accuracy in %" in text


def test_one_seed_has_no_band() -> None:
    single = Curve("net", [[0.8]], [[0.85]])
    (on,) = curves.overview([single], accuracy=True).axes
    assert not on.collections
    assert list(on.lines[0].get_ydata()) == [85.0]


def test_seeds_that_stopped_early_end_where_they_stopped() -> None:
    early = Curve("net", [[0.8], [0.7, 0.9]], [[0.85], [0.75, 0.95]])
    (on,) = curves.overview([early], accuracy=True).axes
    assert list(on.lines[0].get_ydata()) == pytest.approx([80.0, 95.0])


def test_training_and_validation_differ_by_dash_and_marker() -> None:
    drawn = curves.training_curves(LOSS, ACCURACY, place=1, accuracy_range=(60, 95))
    upper, lower = drawn.axes
    means = {line.get_label(): line for line in upper.lines if not line.get_label().startswith("_")}
    training, validation = means["training, 2 seeds"], means["validation, 2 seeds"]
    assert list(training.get_ydata()) == pytest.approx([75.0, 85.0])
    assert list(validation.get_ydata()) == pytest.approx([84.0, 89.0])
    assert training.get_linestyle() != validation.get_linestyle()
    assert training.get_markerfacecolor() != validation.get_markerfacecolor()
    assert len(upper.lines) == 6  # two seeds and a mean of each
    assert upper.get_ylim() == (60, 95)
    loss = [list(line.get_ydata()) for line in lower.lines]
    assert [0.8, 0.5] in loss
    assert any(np.allclose(line, [0.55, 0.45]) for line in loss)


def test_one_epoch_can_be_drawn() -> None:
    single = Curve("net", [[0.8]], [[0.85]])
    text = drawing.svg(curves.training_curves(single, single))
    assert ">training</text>" in text
    assert ">validation</text>" in text


def test_ten_networks_share_no_pair_of_colour_and_marker() -> None:
    many = [ACCURACY._replace(name=f"n{place}") for place in range(10)]
    (on,) = curves.overview(many, accuracy=True).axes
    looks = {(line.get_color(), line.get_marker()) for line in on.lines}
    assert len(looks) == 10


def test_only_the_themes_colours_are_drawn() -> None:
    for one in (
        curves.overview([LOSS], accuracy=False),
        curves.training_curves(LOSS, ACCURACY, place=5),
    ):
        colours = set(re.findall(r"#[0-9a-f]{6}\b", drawing.svg(one)))
        assert colours <= drawing.THEME.keys()

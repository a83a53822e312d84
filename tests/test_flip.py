"""Flips: small, told to the pixel, each part of them needed, and true when read again."""

from __future__ import annotations

from types import SimpleNamespace

import made_models
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_models import field

from rowwise import flip, image
from rowwise.explain import log_odds
from rowwise.flip import Change, changed
from rowwise.recognise import Recogniser


def near_looker(digit):
    """Reads a 1 while all but 6 units of the ink in rows 4 to 9 of a made digit are there."""
    model = made_models.looker()
    seen = image.normalise(field(digit)).digit
    model.weights["dense.bias"][0] = seen[4:10].sum() / 255 - 2 - 6
    return Recogniser(model, threads=1)


READERS = {
    "rows": Recogniser(made_models.rows(), threads=1),
    "best": Recogniser(made_models.best(), threads=1),
    "looker": near_looker(7),
}


def seen_of(reader, digit, **how):
    """A made digit as the network sees it."""
    return reader.read(field(digit, **how)).picture


def grid(places, shape=(28, 28)):
    mask = np.zeros(shape, bool)
    for place in places:
        mask[place] = True
    return mask


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=12)
@given(digit=st.integers(0, 9), width=st.sampled_from([0.08, 0.1, 0.14]))
def test_a_flip_is_what_it_says(name, digit, width):
    reader = READERS[name]
    before = reader.read(field(digit, width=width))
    seen, found = before.picture, reader.flip(before.picture)
    if found is None:
        return
    again = reader.read(found.picture)
    assert again.digit == found.reading.digit != before.digit
    np.testing.assert_array_equal(again.probabilities, found.reading.probabilities)
    # Nothing is changed but what is told, and it is told which way.
    np.testing.assert_array_equal(found.picture > seen, grid(found.added))
    np.testing.assert_array_equal(found.picture < seen, grid(found.removed))
    assert 0 < len(found.added) + len(found.removed) <= flip.MOST_PX
    np.testing.assert_array_equal(changed(seen, found.changes), found.picture)
    # Each of its changes is needed.
    for i in range(len(found.changes)):
        fewer = changed(seen, found.changes[:i] + found.changes[i + 1 :])
        assert reader.read(fewer).digit == before.digit
    assert set(found.added) <= {p for c in found.changes if c.adds for p in around(c)}
    assert set(found.removed) <= {p for c in found.changes if not c.adds for p in around(c)}


def around(change):
    steps = (-1, 0, 1)
    return {(change.row + i, change.column + j) for i in steps for j in steps}


def test_flips_are_found_with_every_model():
    for name, reader in READERS.items():
        found = [reader.flip(field(d)) for d in range(10)]
        assert any(found), name


def test_the_same_picture_gives_the_same_flip():
    one, other = (READERS["rows"].flip(field(4)) for _ in range(2))
    assert one is not None
    assert one.changes == other.changes
    np.testing.assert_array_equal(one.picture, other.picture)


def test_ink_is_taken_from_where_it_spoke_for_the_digit():
    assert READERS["looker"].read(field(7)).label == "1"
    found = READERS["looker"].flip(field(7))
    assert found is not None
    assert found.added == ()
    assert all(3 <= row <= 10 for row, _ in found.removed)  # the looker looks at 4 to 9


def test_a_model_that_always_says_the_same_is_not_flipped():
    model = made_models.looker()
    model.weights["dense.bias"][3] = 999
    reader = Recogniser(model, threads=1)
    assert reader.read(field(5)).label == "3"
    assert reader.flip(field(5)) is None
    assert "48 pixels" in flip.NO_FLIP


def test_a_change_larger_than_is_allowed_is_none():
    reader = READERS["looker"]
    seen = seen_of(reader, 7)
    wide = flip.flip(reader, seen, most_px=200)
    assert wide is not None
    size = len(wide.added) + len(wide.removed)
    small = flip.flip(reader, seen, most_px=size // 4)
    assert small is None or len(small.added) + len(small.removed) <= size // 4


def test_nothing_read_is_nothing_flipped():
    reader = READERS["rows"]
    assert reader.flip(np.full((60, 40), 200, np.uint8)) is None
    assert flip.flip(reader, np.zeros((28, 28), np.uint8)) is None


def test_the_search_is_bounded(monkeypatch):
    reader, read = READERS["best"], []
    inner = reader.probabilities

    def counted(digits):
        read.append(len(digits))
        return inner(digits)

    monkeypatch.setattr(reader, "probabilities", counted)
    for d in range(10):
        read.clear()
        reader.flip(field(d))
        assert sum(read) <= flip.EVALUATIONS + flip.MOST_PX


class Weigher:
    """Reads a 1 as long as the ink above row 14 weighs as much as that below, and else a 0.

    `odds` are those of the pictures that were read one by one.
    """

    def __init__(self):
        self.odds = []

    def fitted(self, digits):
        return digits

    def probabilities(self, digits):
        ink = digits.astype(np.float64) / 255
        odds = np.exp((ink[:, :14].sum((1, 2)) - ink[:, 14:].sum((1, 2))) / 9)
        return (np.stack([np.ones_like(odds), odds], axis=1) / (1 + odds[:, None])).astype("f4")

    def read(self, picture):
        odds = float(log_odds(self.probabilities(picture[None]), 1)[0])
        self.odds.append(odds)
        return SimpleNamespace(digit=int(odds >= 0) if picture.any() else None)


def beam(above, below):
    """Ink as columns of 3 px above and below row 14, each of so many rows."""
    digit = np.zeros((28, 28), np.uint8)
    digit[14 - above : 14, 12:15] = digit[14 : 14 + below, 12:15] = 255
    return digit


def test_a_flip_takes_the_change_that_lowers_the_odds_most_and_no_more():
    """Three rows of ink more above: one dab or wipe where it weighs most is enough."""
    found = flip.flip(Weigher(), beam(6, 4))
    assert found is not None
    (change,) = found.changes
    assert change.adds == (change.row >= 14)
    assert found.reading.digit == 0


def test_a_changed_picture_is_read_by_itself_once_the_odds_have_turned():
    """Not where they are even, nor on every step of the way."""
    for above in range(4, 9):
        reader = Weigher()
        search = flip._Search(reader, beam(above, 3), flip.MOST_PX)
        assert reader.odds.pop() > 0
        assert search.forward()
        (odds,) = reader.odds
        assert odds < 0


def test_a_flip_may_have_as_many_pixels_as_allowed_and_not_one_more():
    reader, digit = Weigher(), beam(9, 1)
    found = flip.flip(reader, digit)
    assert found is not None
    size = len(found.added) + len(found.removed)
    assert size > 9  # several changes
    exact = flip.flip(reader, digit, most_px=size)
    assert exact is not None
    assert exact.changes == found.changes
    fewer = flip.flip(reader, digit, most_px=size - 1)
    assert fewer is None or len(fewer.added) + len(fewer.removed) < size


@pytest.mark.parametrize("place", [(0, 0), (0, 27), (27, 0), (27, 27), (13, 27), (14, 14)])
def test_dabs_and_wipes_end_at_the_edge(place):
    empty = np.zeros((28, 28), np.uint8)
    dab = changed(empty, [Change(True, *place)])
    assert dab[place] == 255
    inside = [p for p in around(Change(True, *place)) if min(p) >= 0 and max(p) <= 27]
    np.testing.assert_array_equal(dab > 0, grid(inside))
    wide = np.zeros((30, 30), np.uint8)
    wide[place[0] : place[0] + 3, place[1] : place[1] + 3] = flip.DAB
    np.testing.assert_array_equal(dab, wide[1:-1, 1:-1])
    full = np.full((28, 28), 9, np.uint8)
    np.testing.assert_array_equal(changed(full, [Change(False, *place)]) == 0, grid(inside))
    assert full.min() == 9  # what was given is not changed

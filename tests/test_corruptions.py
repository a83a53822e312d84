"""The fifteen corruptions, the made set of strangers, and what is counted of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pages import ROOT

from rowwise.image import normalise


@pytest.fixture(autouse=True)
def path(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


KINDS = [
    *("shot_noise", "impulse_noise", "glass_blur", "motion_blur", "shear", "scale", "rotate"),
    *("brightness", "translate", "stripe", "fog", "spatter", "dotted_line", "zigzag"),
    "canny_edges",
]


@pytest.fixture
def sevens() -> np.ndarray:
    """Three alike, uint8 [3, 28, 28]: a 7 of strokes three pixels wide."""
    seven = np.zeros((28, 28), np.uint8)
    seven[5:8, 8:20] = 255
    for row in range(8, 24):
        column = 18 - (row - 8) // 2
        seven[row, column : column + 3] = 255
    return np.repeat(seven[None], 3, axis=0)


# --- corruptions --------------------------------------------------------------------------------


def test_there_are_fifteen():
    from corrupt import KINDS as found

    assert list(found) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_a_corruption_is_seeded_and_keeps_what_it_was_given(kind, sevens):
    from corrupt import corrupt

    before = sevens.copy()
    first = corrupt(kind, sevens, seed=1)
    assert first.dtype == np.uint8
    assert first.shape == sevens.shape
    np.testing.assert_array_equal(first, corrupt(kind, sevens, seed=1))
    np.testing.assert_array_equal(sevens, before)
    assert (first != sevens).any(axis=(1, 2)).all()
    # What a picture draws does not depend on those before it.
    np.testing.assert_array_equal(first[:1], corrupt(kind, sevens[:1], seed=1))


DRAWN = set(KINDS) - {"scale", "brightness", "stripe", "canny_edges"}


@pytest.mark.parametrize("kind", sorted(DRAWN))
def test_pictures_and_seeds_draw_for_themselves(kind, sevens):
    from corrupt import corrupt

    many = np.repeat(sevens[:1], 12, axis=0)
    found = {one.tobytes() for one in corrupt(kind, many, seed=1)}
    assert len(found) > 1
    assert found != {one.tobytes() for one in corrupt(kind, many, seed=2)} or len(found) <= 4


def test_severities_are_those_of_the_paper(sevens):
    from corrupt import corrupt

    many = np.repeat(sevens[:1], 200, axis=0)
    black, white = many == 0, many == 255
    salted = corrupt("impulse_noise", many, seed=0)
    assert (salted[black] == 255).mean() == pytest.approx(0.17 / 2, abs=0.004)
    assert (salted[white] == 0).mean() == pytest.approx(0.17 / 2, abs=0.01)
    shot = corrupt("shot_noise", many, seed=0)[white] / 255
    assert (shot == 0).mean() == pytest.approx(np.exp(-3), abs=0.01)
    assert (corrupt("brightness", many, seed=0)[black] == 128).all()
    smaller = corrupt("scale", many, seed=0)[0].astype(float)
    assert smaller.sum() == pytest.approx(0.49 * sevens[0].sum(), rel=0.05)
    moved = corrupt("translate", many, seed=0)
    assert {tuple(np.argwhere(one)[0] - np.argwhere(sevens[0])[0]) for one in moved} == {
        (down, across) for down in (-3, 3) for across in (-3, 3)
    }
    foggy = corrupt("fog", many, seed=0).astype(float)
    gain = foggy[white].mean() - foggy[black].mean()
    assert 0.12 * 255 < gain < 0.35 * 255  # a quarter of the ink's strength is left


def test_only_the_middle_half_escapes_the_stripes(sevens):
    from corrupt import corrupt

    found = corrupt("stripe", sevens, seed=0)
    np.testing.assert_array_equal(found[:, :, 7:21], sevens[:, :, 7:21])
    np.testing.assert_array_equal(found[:, :, :7], 255 - sevens[:, :, :7])
    np.testing.assert_array_equal(found[:, :, 21:], 255 - sevens[:, :, 21:])


def test_lines_add_ink_and_take_none(sevens):
    from corrupt import corrupt

    for kind, reach in (("zigzag", 22), ("dotted_line", 24)):
        found = corrupt(kind, sevens, seed=3)
        assert (found >= sevens).all(), kind
        columns = np.flatnonzero((found > sevens).any(axis=(0, 1)))
        assert columns[-1] - columns[0] >= reach, kind
    gaps = ~(corrupt("dotted_line", sevens[:1] * 0, seed=3)[0] > 0).any(axis=0)
    assert gaps[0]
    assert 10 <= gaps.sum() <= 18


def test_edges_are_thin_and_around_the_strokes(sevens):
    from corrupt import corrupt

    found = corrupt("canny_edges", sevens, seed=0)[0]
    assert set(np.unique(found)) == {0, 255}
    assert found.sum() < sevens[0].sum()
    edges = found[14].nonzero()[0]
    assert 2 <= len(edges) <= 4
    assert edges[-1] - edges[0] >= 3  # on either side of the stroke
    assert not found[14, edges[0] + 2]  # which is empty within


# --- strangers ----------------------------------------------------------------------------------


def test_strangers_are_seeded_pictures(sevens):
    import strangers

    for kind in (*strangers.MADE, strangers.SEVERAL, strangers.ALIKE):
        first = strangers.make(kind, 6, seed=4, digits=sevens)
        again = strangers.make(kind, 6, seed=4, digits=sevens)
        assert all((a == b).all() for a, b in zip(first, again, strict=True)), kind
        assert all(one.dtype == np.uint8 and one.ndim == 2 for one in first), kind
        assert len({one.tobytes() for one in first}) == 6, kind


def test_no_letter_that_looks_like_a_digit_is_drawn():
    import strangers

    assert not set(strangers.LETTERS) & set("OoDQIilZzSsGbBgqYy")
    assert len(set(strangers.LETTERS) | set(strangers.LOOK_ALIKES)) == 52
    for script in strangers.SCRIPTS.values():
        assert len(script.numerals) == 10
        assert set(script.look_alikes) < set(script.numerals) | {""}


def test_numerals_come_from_fonts_that_have_them():
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: rowwise[study]")
    import strangers

    assert strangers.fonts_with("०१", None) == ()
    fonts = strangers.fonts_with(strangers.SCRIPTS["Persian"].numerals, None)
    assert fonts
    drawn = dict(strangers.numerals("Persian", 20, seed=0, fonts=fonts))
    assert set(drawn) == set(strangers.SCRIPTS["Persian"].numerals)
    assert all(normalise(one).digit is not None for one in drawn.values())


# --- counting -----------------------------------------------------------------------------------


def test_a_tally_counts_errors_among_the_accepted_alone():
    from trials import Told, tally

    told = [
        Told(3, 0.9, True, None),
        Told(4, 0.9, True, None),
        Told(5, 0.4, False, None),
        Told(None, 0.0, False, None),
    ]
    found = tally([3, 5, 5, 1], told)
    assert found["no_ink"] == 1
    assert [(found[k]["count"], found[k]["of"]) for k in ("accuracy", "coverage", "error")] == [
        (2, 4), (2, 4), (1, 2),
    ]  # fmt: skip
    assert tally([1], [Told(None, 0.0, False, None)])["error"] == {"count": 0, "of": 0}


def test_a_tenth_of_the_ink_is_taken_to_the_grey_level():
    from faithfulness import around_a_place, by_chance, by_importance, without

    rng = np.random.default_rng(0)
    image = (rng.integers(1, 256, (28, 28)) * (rng.random((28, 28)) < 0.3)).astype(np.uint8)
    total = int(image.sum())
    for order in (by_chance(image, rng), around_a_place(image, rng)):
        left = without(image, order)
        assert total - int(left.sum()) == round(0.1 * total)
        assert ((left == image) | (left < image)).all()
    most = np.zeros((28, 28), np.float32)
    most[image > 0] = 0.1
    most[np.unravel_index(image.argmax(), image.shape)] = 1
    assert without(image, by_importance(image, most)).max() <= image.max()
    assert without(image, by_importance(image, most)).ravel()[image.argmax()] == 0


def test_a_sheet_is_not_written_into_the_repository(tmp_path):
    from trials import Cell, draw_sheet

    cells = [Cell((np.zeros((28, 28), np.uint8), None), "3>5 0.50")]
    with pytest.raises(SystemExit, match="outside of the repository"):
        draw_sheet(cells, ROOT / "docs" / "sheet.png")
    draw_sheet(cells, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_bytes()[:4] == b"\x89PNG"


def test_tables_tell_accepted_and_wrong_apart():
    import tables
    import trial_tables
    from trials import Told, tally

    part = tally([1, 2], [Told(1, 0.9, True, None), Told(3, 0.9, True, None)])
    head = {"model": "m", "parameters": 1234, "threshold": 0.99, "error_rate": 0.001}
    results = head | {"parts": {"photos": part}, "misread": [{"label": 2, "digit": 3}]}
    text = trial_tables.realworld(json.loads(json.dumps(results)), tables.table)
    assert "| photos | 2 | 50.0 (" in text
    assert "(1 of 2)" in text
    assert "Misread: 2 as 3." in text
    assert "99.00 %" in text
    assert "promises no error rate" in trial_tables.head(head | {"threshold": None})
    assert trial_tables.alike({"O": 0, "o": 0, "Z": 2}) == "O o = 0, Z = 2"

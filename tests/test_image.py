"""Normalising: made pictures of every kind against the digit that they were made from."""

from __future__ import annotations

import cv2
import made_pictures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowwise import image, ink, pixels, strokes
from rowwise.errors import PictureError
from rowwise.pixels import Picture

DIGITS = range(10)


def likeness(digit: np.ndarray | None, true: np.ndarray) -> float:
    """The best correlation of two digits when one is moved by up to two pixels; 0 for none.

    A pixel is allowed since MNIST moves by whole pixels: half a pixel decides which.
    """
    if digit is None:
        return 0.0
    wide = np.pad(digit.astype(float), 2)
    return max(
        np.corrcoef(wide[y : y + 28, x : x + 28].ravel(), true.ravel())[0, 1]
        for y in range(5)
        for x in range(5)
    )


def thickness(digit: np.ndarray) -> float:
    big = cv2.resize(digit, (112, 112), interpolation=cv2.INTER_CUBIC)
    return strokes.stroke_width((big > 110).astype(np.uint8)) / 4


# --- what already is as MNIST's ---------------------------------------------------------------


def test_digits_of_mnist_pass_unchanged(mnist):
    images = mnist.train_images[-5000:]
    digits = np.stack([one.digit for one in image.normalise_many(images)])
    changed = (digits != images).any(axis=(1, 2))
    difference = np.abs(digits.astype(int) - images).mean() / 255
    assert changed.mean() <= 0.001
    assert difference < 1e-4


def test_inverted_digits_of_mnist_become_themselves(mnist):
    images = mnist.train_images[-300:]
    digits = np.stack([one.digit for one in image.normalise_many(255 - images)])
    assert (digits != images).any(axis=(1, 2)).sum() <= 1


def test_digits_of_mnist_pass_the_whole_way_nearly_unchanged(mnist):
    """Also without the short cut: at most 4 % of full scale a pixel."""
    differences = []
    for true in mnist.train_images[-200:]:
        (look, *_), _ = image._looks(true, None)
        digit = image._made(look.pixels, look.ink, None)
        moved = min(
            np.abs(np.roll(digit, (y, x), (0, 1)).astype(int) - true).mean()
            for y in (-1, 0, 1)
            for x in (-1, 0, 1)
        )
        differences.append(moved / 255)
    assert np.mean(differences) < 0.04


def test_many_are_as_one_by_one(mnist):
    few = mnist.train_images[:40].copy()
    few[3] = 0
    few[5] = np.where(few[5] > 128, 255, 0)
    few[7] = np.roll(few[7], 5, axis=0)
    few[9] = 255 - few[9] // 2
    many = image.normalise_many(few)
    assert many[3].digit is None
    for given_, one in zip(few, many, strict=True):
        alone = image.normalise(Picture(given_, ""))
        assert [c.name for c in one.candidates] == [c.name for c in alone.candidates]
        for candidate, same in zip(one.candidates, alone.candidates, strict=True):
            np.testing.assert_array_equal(candidate.digit, same.digit)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_one_and_many_judge_alike_what_is_mnist(seed):
    rng = np.random.default_rng(seed)
    some = made_pictures.mnist_like(
        made_pictures.drawn(int(rng.integers(10)), width=rng.uniform(0.03, 0.2))
    )
    some = np.roll(some, rng.integers(-1, 2, 2), (0, 1)) // np.uint8(rng.choice([1, 1, 2]))
    assert image._are_mnist(some[None])[0] == image.is_mnist(some)


def test_many_refuses_other_shapes():
    with pytest.raises(PictureError, match=r"uint8 \[N, 28, 28\], got float64 \[2, 28, 28\]"):
        image.normalise_many(np.zeros((2, 28, 28)))
    with pytest.raises(PictureError, match=r"got uint8 \[28, 28\]"):
        image.normalise_many(np.zeros((28, 28), np.uint8))


def test_none_at_all_are_none():
    assert image.normalise_many(np.zeros((0, 28, 28), np.uint8)) == []


# --- made pictures ----------------------------------------------------------------------------

# Where strokes were brought to another width, or few pixels are there, likeness is less.
LEAST = {"12 px": 0.75, "16 px": 0.75, "blurred": 0.8, "JPEG of quality 12": 0.8}


@pytest.mark.parametrize("kind", made_pictures.KINDS)
def test_a_made_picture_becomes_its_digit(kind):
    for digit in DIGITS:
        drawn = made_pictures.drawn(digit, width=0.11)
        picture = made_pictures.made(kind, drawn, seed=digit)
        found = image.normalise(picture)
        like = likeness(found.digit, made_pictures.mnist_like(drawn))
        assert like >= LEAST.get(kind, 0.85), f"{kind}, {digit}: {like:.2f}"


@pytest.mark.parametrize("width", [0.006, 0.015, 0.03, 0.2, 0.26])
def test_thin_and_thick_strokes_come_near_mnists(width):
    for digit in (1, 2, 3, 5, 7):
        picture = made_pictures.made("clean", made_pictures.drawn(digit, width=width))
        found = image.normalise(picture).digit
        assert found is not None
        assert 1.3 <= thickness(found) <= 4.8, f"{digit}: {thickness(found):.2f}"


@given(
    digit=st.integers(0, 9),
    side=st.integers(24, 700),
    paper=st.integers(0, 255),
    contrast=st.integers(60, 255),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60)
def test_size_polarity_and_contrast_do_not_matter(digit, side, paper, contrast, seed):
    pen = paper - contrast if paper - contrast >= 0 else min(255, paper + contrast)
    if abs(pen - paper) < 60:
        pen = 255 - paper if abs(255 - 2 * paper) >= 60 else (paper + 128) % 256
    drawn = made_pictures.drawn(digit, width=0.11)
    page = made_pictures.on_paper(drawn)
    picture = made_pictures.mixed(page, float(paper), float(pen))
    picture = made_pictures.noisy(
        made_pictures.resized(picture, side), np.random.default_rng(seed), 1.5
    )
    like = likeness(image.normalise(picture).digit, made_pictures.mnist_like(drawn))
    assert like >= 0.85


@given(shape=st.tuples(st.integers(1, 40), st.integers(1, 40)), seed=st.integers(0, 1000))
@settings(max_examples=60)
def test_any_picture_has_an_answer(shape, seed):
    noise = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    found = image.normalise(noise)
    assert (found.digit is None) == bool(found.reason)
    if found.digit is not None:
        assert found.digit.shape == (28, 28)
        assert found.digit.dtype == np.uint8


# --- no ink -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "empty",
    [
        np.zeros((28, 28), np.uint8),
        np.full((28, 28), 255, np.uint8),
        np.full((300, 200, 3), 180, np.uint8),
        made_pictures.as_bytes(made_pictures.slope((300, 300), 90, 230)),
        made_pictures.noisy(np.full((300, 300), 200.0), np.random.default_rng(1), 5),
        made_pictures.noisy(made_pictures.slope((400, 300), 120, 220), np.random.default_rng(2), 4),
        np.zeros((1, 1), np.uint8),
    ],
    ids=["black", "white", "colour", "slope", "grain", "paper", "one pixel"],
)
def test_no_ink_is_an_answer_of_its_own(empty):
    found = image.normalise(empty)
    assert found.digit is None
    assert found.reason.startswith("no ink")


# --- steps ------------------------------------------------------------------------------------


def test_steps_are_kept_only_when_asked_for():
    picture = made_pictures.made("uneven light", made_pictures.drawn(5))
    assert image.normalise(picture).steps == ()
    steps = image.normalise(picture, steps=True).steps
    assert [step.name for step in steps] == [
        "grey",
        "paper",
        "ink",
        "lines",
        "chosen",
        "cut",
        "strokes",
        "box",
        "digit",
    ]
    for step in steps:
        assert step.sentence.endswith(".")
        assert step.picture.dtype == np.uint8
        assert step.picture.size
    np.testing.assert_array_equal(steps[-1].picture, image.normalise(picture).digit)


def test_what_is_as_mnist_has_one_step():
    digits = [made_pictures.mnist_like(made_pictures.drawn(digit)) for digit in DIGITS]
    digit = next(digit for digit in digits if image.is_mnist(digit))
    (step,) = image.normalise(digit, steps=True).steps
    np.testing.assert_array_equal(step.picture, digit)


def test_a_picture_and_its_array_are_normalised_alike():
    array = made_pictures.made("shadow", made_pictures.drawn(2))
    one = image.normalise(pixels.from_array(array)).digit
    np.testing.assert_array_equal(one, image.normalise(array).digit)


def test_ink_says_where_it_is():
    drawn = made_pictures.drawn(7)
    picture = made_pictures.made("light on dark", drawn)
    found, *_ = ink.find(picture)
    assert found.bright
    rows, columns = np.nonzero(made_pictures.on_paper(drawn) > 0.5)
    left, top, wide, high = (v / found.scale for v in found.box)
    assert left == pytest.approx(columns.min(), abs=4)
    assert top == pytest.approx(rows.min(), abs=4)
    assert wide == pytest.approx(np.ptp(columns), abs=6)
    assert high == pytest.approx(np.ptp(rows), abs=6)


def test_a_stroke_has_its_width():
    bar = np.zeros((100, 100), np.uint8)
    bar[10:90, 40:52] = 1
    assert strokes.stroke_width(bar) == pytest.approx(12, rel=0.15)


def test_colours_of_equal_brightness_are_told_apart():
    page = made_pictures.on_paper(made_pictures.drawn(4))[..., None]
    picture = made_pictures.as_bytes((1 - page) * (120, 170, 110) + page * (200, 130, 115))
    like = likeness(
        image.normalise(picture).digit, made_pictures.mnist_like(made_pictures.drawn(4))
    )
    assert like > 0.85


# --- several candidates -----------------------------------------------------------------------


def crop_that_fills(digit: int) -> np.ndarray:
    """One bit, 16×16, stretched to its crop on all four sides."""
    ink = made_pictures.cut_to_ink(made_pictures.drawn(digit, width=0.14))
    small = cv2.resize(ink, (16, 16), interpolation=cv2.INTER_AREA)
    return np.where(small > 0.4, 0, 255).astype(np.uint8)


def test_a_picture_of_clear_ink_has_one_candidate():
    for kind in ("clean", "dark on light", "light on dark", "pencil", "ruled", "on a desk"):
        for digit in DIGITS:
            picture = made_pictures.made(kind, made_pictures.drawn(digit, width=0.11), seed=digit)
            found = image.normalise(picture)
            assert [one.odds for one in found.candidates] == [1.0], f"{kind}, {digit}"
            assert found.doubt == ""


def test_a_crop_that_ink_fills_is_also_laid_into_an_empty_margin():
    names = []
    for digit in DIGITS:
        ink = made_pictures.cut_to_ink(made_pictures.drawn(digit, width=0.14))
        true = made_pictures.mnist_like(cv2.resize(ink, (160, 160)))
        found = image.normalise(crop_that_fills(digit)).candidates
        names += [one.name for one in found]
        assert max(likeness(one.digit, true) for one in found) > 0.6, digit
    assert any("margin" in name for name in names)
    assert any("bright" in name for name in names)


def test_a_hole_is_no_rival_of_the_ink_around_it():
    for digit in (0, 6, 8, 9):
        picture = made_pictures.made("clean", made_pictures.drawn(digit, width=0.16))
        assert len(image.normalise(picture).candidates) == 1


def test_candidates_come_in_the_order_of_their_odds_and_differ():
    for digit in DIGITS:
        found = image.normalise(crop_that_fills(digit)).candidates
        for place, one in enumerate(found):
            assert one.odds > 0
            assert all(image._likeness(one.digit, two.digit) < 0.9 for two in found[:place])


# --- several digits, and small ones -----------------------------------------------------------


def beside(*digits: int, gap: int = 40, width: float = 0.11) -> np.ndarray:
    """Digits in a row on paper."""
    inks = [made_pictures.cut_to_ink(made_pictures.drawn(d, width=width)) for d in digits]
    high = max(map(len, inks))
    between = np.zeros((high, gap), np.float32)
    cells: list[np.ndarray] = [between]
    for cell in inks:
        cells += [np.pad(cell, ((0, high - len(cell)), (0, 0))), between]
    row = np.pad(np.concatenate(cells, 1), 50)
    return made_pictures.as_bytes(made_pictures.mixed(row, 230, 40))


@pytest.mark.parametrize("gap", [12, 60, 200])
def test_several_digits_are_said_to_be_several(gap):
    for digits in ((3, 4), (1, 0), (9, 1), (7, 7), (2, 0, 6)):
        one_row = image.normalise(beside(*digits, gap=gap))
        assert one_row.doubt.startswith("several digits"), f"{digits}, {gap}"
        rows = [beside(digit) for digit in digits]
        wide = max(row.shape[1] for row in rows)
        rows = [
            np.pad(row, ((0, 0), (0, wide - row.shape[1])), constant_values=230) for row in rows
        ]
        column = image.normalise(np.concatenate(rows))
        assert column.doubt.startswith("several digits"), f"{digits}, one below the other"


def test_one_digit_is_not_said_to_be_several():
    for digit in DIGITS:
        for width in (0.05, 0.11, 0.18):
            assert image.normalise(beside(digit, width=width)).doubt == ""


def test_a_neighbour_of_which_a_side_leaves_a_little_is_none():
    """A crop of a row of digits: of the one to the right more and more is inside."""
    row = beside(5, 0, gap=40)
    first = int(np.flatnonzero((beside(5, gap=40) < 128).any(0)).max())
    second = first + 1 + int(np.flatnonzero((row[:, first + 1 :] < 128).any(0)).min())
    for seen, several in ((8, False), (24, False), (70, True), (110, True)):
        crop = row[:, : second + seen]
        assert image.normalise(crop).doubt.startswith("several digits") == several, seen
        cut_off_too = crop[:, int(np.flatnonzero((row < 128).any(0)).min()) + 6 :]
        assert image.normalise(cut_off_too).doubt.startswith("several digits"), seen


@pytest.mark.parametrize("width", [0.1, 0.14])
def test_an_outline_of_a_digit_is_no_ring_around_its_hole(width):
    """What an edge filter leaves of a 6 is two lines, one within the other."""
    for digit in (4, 6, 8, 9):
        body = made_pictures.resized(made_pictures.drawn(digit, width=width), 190) > 0.5
        edge = cv2.morphologyEx(body.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((5, 5)))
        outline = np.pad(edge, 30)
        found, *_ = ink.find(255 * outline)
        covered = cv2.countNonZero(found.mask & outline) / cv2.countNonZero(outline)
        doubt = image.normalise(255 * outline).doubt
        assert covered > 0.9 or doubt.startswith("several digits"), digit


def test_a_blurred_digit_of_few_pixels_is_no_patch():
    for digit in (1, 8):
        small = made_pictures.mnist_like(made_pictures.drawn(digit, width=0.22))
        blurred = np.roll(cv2.GaussianBlur(small, (0, 0), 1.5), 2, axis=0)
        assert image.normalise(blurred).doubt == ""
    patch = np.zeros((100, 100), np.uint8)
    patch[20:80, 30:70] = 1
    assert strokes.unlike_a_digit(patch) == "a solid patch"
    assert strokes.unlike_a_digit(patch, scale=4) == ""


def test_a_part_of_a_strip_at_a_side_is_no_stroke():
    plain = np.full((256, 256), 220, np.uint8)
    mask = np.zeros_like(plain)
    mask[150:236, 250:] = 1
    plain[mask > 0] = 60
    for turns in range(4):
        assert strokes.is_of_paper(np.rot90(mask, turns).copy(), np.rot90(plain, turns).copy())
    off_the_side, plain = np.roll(mask, -30, axis=1), np.roll(plain, -30, axis=1)
    assert not strokes.is_of_paper(off_the_side, plain)


def test_digits_in_two_cells_are_several():
    field = beside(3, gap=50)
    cell = cv2.copyMakeBorder(field, 6, 6, 6, 6, cv2.BORDER_CONSTANT, value=30)
    assert image.normalise(cell).doubt == ""
    assert image.normalise(np.concatenate([cell, cell], 1)).doubt.startswith("several digits")


def test_a_broken_thin_digit_is_one():
    picture = made_pictures.made("clean", made_pictures.drawn(0, width=0.03))
    middle = picture.shape[1] // 2
    picture[:, middle - 4 : middle + 4] = 255
    assert image.normalise(picture).doubt == ""


def test_a_digit_that_is_too_small_is_said_to_be_so():
    drawn = cv2.resize(made_pictures.drawn(8), (26, 26), interpolation=cv2.INTER_AREA)
    sheet = np.zeros((1000, 750), np.float32)
    sheet[480:506, 360:386] = drawn
    found = image.normalise(made_pictures.as_bytes(made_pictures.mixed(sheet, 235, 30)))
    assert found.digit is None
    assert found.reason.startswith("too small: what stands out from the paper has 2.")
    assert image.normalise(np.full((1000, 750), 235, np.uint8)).reason == image.NO_INK


# --- what lies around -------------------------------------------------------------------------


def test_nothing_written_beside_a_strip_is_no_ink():
    for depth in (8, 20, 40, 80):
        for side in range(4):
            picture = np.full((400, 400), 235, np.uint8)
            np.rot90(picture, side)[:, :depth] = 25
            assert image.normalise(picture).digit is None, f"{depth}, {side}"


def test_strips_frames_lines_and_rings_are_not_read():
    page = made_pictures.as_bytes(
        made_pictures.mixed(
            made_pictures.on_paper(made_pictures.drawn(2, width=0.11), margin=0.4), 230, 40
        )
    )
    true = made_pictures.mnist_like(made_pictures.drawn(2, width=0.11))
    side = len(page)
    ways = {}
    ways["strip"] = page.copy()
    ways["strip"][:, :40] = 25
    ways["two lines"] = page.copy()
    ways["two lines"][:, (20, 21, 22, 23, -24, -23, -22, -21)] = 30
    ways["ring"] = cv2.circle(page.copy(), (side // 2, side // 2), side // 2 - 12, 30, 7)
    ways["open ring"] = cv2.ellipse(
        page.copy(), (side // 2, side // 2), (side // 2 - 12, side // 2 - 16), 0, 8, 352, 30, 6
    )
    ways["comb"] = page.copy()
    ways["comb"][-20:-16] = 30
    ways["comb"][-120:-16, 20:24] = ways["comb"][-120:-16, -24:-20] = 30
    for name, picture in ways.items():
        assert likeness(image.normalise(picture).digit, true) > 0.85, name


def test_a_bold_zero_is_not_the_paper_of_its_hole():
    for width in (0.12, 0.2, 0.26):
        drawn = made_pictures.drawn(0, width=width)
        found = image.normalise(made_pictures.made("clean", drawn)).candidates
        alike = [likeness(one.digit, made_pictures.mnist_like(drawn)) for one in found]
        assert max(alike) > 0.8, width
        assert alike[0] > 0.8 or found[1].odds > 0.1, "or it leaves doubt"


def test_pictures_of_few_pixels_have_an_answer():
    rng = np.random.default_rng(0)
    for _ in range(120):
        shape = tuple(rng.integers(1, 14, 2).tolist())
        found = image.normalise(pixels.from_array(rng.integers(0, 256, shape, dtype=np.uint8)))
        assert bool(found.candidates) != bool(found.reason), shape

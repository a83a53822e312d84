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

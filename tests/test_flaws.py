"""Inverted stripes are turned back and specks taken away, and nothing else is touched."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from rowwise import image, ink
from rowwise.flaws import bright_stripes, without_specks, without_stripes


def drawn(side: int = 28, *, width: int = 3) -> np.ndarray:
    """A 4, white on black, with a margin."""
    at = np.array([[0.6, 0.2], [0.25, 0.6], [0.75, 0.6]]) * side
    field = np.zeros((side, side), np.uint8)
    cv2.polylines(field, [np.rint(at).astype(np.int32)], False, 255, width, cv2.LINE_AA)
    top, bottom = (int(0.62 * side), int(0.35 * side)), (int(0.62 * side), int(0.85 * side))
    return cv2.line(field, top, bottom, 255, width, cv2.LINE_AA)


def striped(picture: np.ndarray, first: int, last: int) -> np.ndarray:
    """The columns from `first` to `last` as they are, the others inverted."""
    turned = 255 - picture
    turned[:, first:last] = picture[:, first:last]
    return turned


# --- stripes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [28, 60, 200])
@pytest.mark.parametrize("across", [False, True])
def test_stripes_are_turned_back_to_the_pixel(side, across):
    picture = drawn(side, width=max(2, side // 10))
    spoilt = striped(picture, side // 4, side - side // 4)
    if across:
        picture, spoilt = picture.T.copy(), spoilt.T.copy()
    np.testing.assert_array_equal(without_stripes(spoilt), picture)


def test_one_stripe_at_a_side_is_enough():
    picture = drawn()
    np.testing.assert_array_equal(without_stripes(striped(picture, 0, 18)), picture)


def test_colours_are_turned_back_too():
    picture = np.repeat(drawn()[..., None], 3, axis=2)
    picture[..., 2] //= 2
    spoilt = picture.copy()
    spoilt[:, :8] = 255 - spoilt[:, :8]
    np.testing.assert_array_equal(without_stripes(spoilt), picture)


def test_a_striped_digit_is_normalised_as_one_that_is_not():
    picture = np.roll(drawn(), 1, axis=0)  # off the centre, so that it is not MNIST's already
    plain = image.normalise(picture).digit
    found = image.normalise(striped(picture, 7, 21), steps=True)
    assert np.abs(found.digit.astype(int) - plain).max() <= 1
    assert "stripes" in [step.name for step in found.steps]
    large = cv2.resize(striped(picture, 7, 21), (560, 560), interpolation=cv2.INTER_NEAREST)
    of_large = image.normalise(large).digit
    plain = image.normalise(cv2.resize(picture, (560, 560), interpolation=cv2.INTER_NEAREST)).digit
    assert np.abs(of_large.astype(int) - plain).mean() < 3


def test_other_pictures_have_no_stripes():
    picture = drawn(100, width=8)
    shadow = picture.copy()
    shadow[:, :40] //= 2
    paper = 255 - picture
    framed = cv2.copyMakeBorder(paper, 9, 9, 9, 9, cv2.BORDER_CONSTANT, value=0)
    grey = 255 - picture
    grey[:, :30] = 120  # a desk beside the paper: no black
    ramp = np.tile(np.linspace(0, 255, 100), (100, 1)).astype(np.uint8)
    for one in (picture, paper, shadow, framed, grey, ramp, np.zeros((30, 30), np.uint8)):
        assert without_stripes(one) is None
        assert without_stripes(np.ascontiguousarray(one.T)) is None


def test_a_bar_that_fills_its_crop_stays_a_digit():
    bar = np.zeros((28, 28), np.uint8)
    bar[:, 10:18] = 255
    assert bright_stripes(bar) is not None  # a stripe, taken by itself
    found, *_ = ink.find(bar)
    assert not found.turned


# --- specks -------------------------------------------------------------------------------------


def test_salt_and_pepper_go_and_the_strokes_stay():
    rng = np.random.default_rng(0)
    picture = drawn()
    noisy = picture.copy()
    draws = rng.random(picture.shape)
    noisy[draws < 0.06] = 255
    noisy[draws > 0.94] = 0
    mended = without_specks(noisy)
    wrong = [np.mean(np.abs(one.astype(int) - picture) > 100) for one in (noisy, mended)]
    assert wrong[0] > 0.04
    assert wrong[1] < 0.4 * wrong[0]
    inverted = without_specks(255 - noisy)
    assert np.abs((255 - inverted).astype(int) - mended).max() <= 1


def test_few_specks_and_thin_strokes_are_left_alone():
    picture = drawn(width=1)
    assert without_specks(picture) is None
    for place in ((2, 2), (4, 24), (25, 3)):
        picture[place] = 255
    assert without_specks(picture) is None
    assert without_specks(np.zeros((28, 28), np.uint8)) is None


def test_every_training_digit_keeps_its_pixels(mnist):
    held = mnist.train_images[:2000]
    assert all(without_stripes(one) is None for one in held)
    assert all(without_specks(one) is None for one in held)


# --- creases ------------------------------------------------------------------------------------


def test_a_fold_from_edge_to_edge_is_no_one():
    paper = np.full((200, 150), 230, np.uint8)
    fold = paper.copy()
    fold[:, 70:72] = 200
    assert image.normalise(fold).digit is None
    slanted = cv2.line(paper.copy(), (20, 0), (60, 199), 120, 2, cv2.LINE_AA)
    assert image.normalise(slanted).digit is None
    one = cv2.line(paper.copy(), (60, 30), (55, 170), 120, 2, cv2.LINE_AA)
    assert image.normalise(one).digit is not None
    thick = cv2.line(paper.copy(), (60, 0), (55, 199), 60, 14, cv2.LINE_AA)
    assert image.normalise(thick).digit is not None
    closely = cv2.line(paper.copy(), (75, 0), (72, 199), 60, 3, cv2.LINE_AA)[:, 60:85]
    assert image.normalise(closely).digit is not None


@pytest.mark.parametrize("seed", range(6))
def test_the_edge_of_a_shadow_is_no_one(seed):
    rng = np.random.default_rng(seed)
    paper = np.full((112, 112), 225.0)
    paper[:, 60:] *= 0.9
    paper[:, 60] *= 0.9
    sheet = (paper + rng.normal(0, 1.5, paper.shape)).clip(0, 255).astype(np.uint8)
    assert image.normalise(sheet).digit is None
    one = cv2.line(sheet.copy(), (40, 20), (36, 90), 90, 5, cv2.LINE_AA)
    found = image.normalise(one).digit
    assert found is not None
    assert found[:, 10:19].sum() > 0.95 * found.sum()

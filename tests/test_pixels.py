"""Arrays as pictures: what their numbers mean, alone and among many, and what is no picture."""

from __future__ import annotations

import made_models
import numpy as np
import pytest
from made_models import field

from rowwise import pixels
from rowwise.errors import PictureError
from rowwise.recognise import Recogniser

MANY = np.stack([field(d) for d in range(10)])
INK = (MANY > 127).astype(np.uint8)
# The same pictures in other numbers.
WRITTEN = {
    "uint8": MANY,
    "int64": MANY.astype(np.int64),
    "uint16": MANY.astype(np.uint16) * 257,
    "float32, bytes": MANY.astype(np.float32),
    "float64, unit": MANY / 255,
    "float16, unit": (MANY / 255).astype(np.float16),
}
TWO_LEVELS = {
    "bool": INK > 0,
    "uint8": INK,
    "int8": INK.astype(np.int8),
    "int64": INK.astype(np.int64),
    "float32": INK.astype(np.float32),
}
READER = Recogniser(made_models.best(), threads=1)


@pytest.mark.parametrize("kind", WRITTEN)
def test_the_numbers_of_many_are_told_by_type_and_range(kind):
    made = pixels.arrays(WRITTEN[kind])
    assert made.dtype == np.uint8
    np.testing.assert_array_equal(made, MANY)


@pytest.mark.parametrize("kind", TWO_LEVELS)
def test_two_levels_are_paper_and_ink(kind):
    np.testing.assert_array_equal(pixels.arrays(TWO_LEVELS[kind]), 255 * INK)
    for one, ink in zip(TWO_LEVELS[kind], INK, strict=True):
        np.testing.assert_array_equal(pixels.given(one).pixels, 255 * ink)


@pytest.mark.parametrize("kind", TWO_LEVELS)
def test_two_levels_are_read_as_black_and_white_is(kind):
    for readings in (READER.read_many(TWO_LEVELS[kind]), map(READER.read, TWO_LEVELS[kind])):
        for got, wanted in zip(readings, READER.read_many(255 * INK), strict=True):
            assert got.digit == wanted.digit is not None
            np.testing.assert_array_equal(got.picture, wanted.picture)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
def test_black_stays_black(dtype):
    black = np.zeros((3, 28, 28), dtype)
    assert not pixels.arrays(black).any()
    assert [one.digit for one in READER.read_many(black)] == [None] * 3
    assert READER.read(black[0]).digit is None


@pytest.mark.parametrize("kind", ["uint8", "int64", "float32, bytes"])
def test_the_range_is_that_of_all_together(kind):
    many = WRITTEN[kind].copy()
    many[0] = 0
    many[0, 4:24, 13:15] = 1  # of 255: nothing
    assert pixels.arrays(many)[0].max() <= 1
    readings = READER.read_many(many)
    assert readings[0].digit is None
    assert [one.digit for one in readings[1:]] == [one.digit for one in READER.read_many(MANY[1:])]
    large = np.pad(many, ((0, 0), (4, 4), (4, 4)))  # not of 28 by 28
    assert READER.read_many(large)[0].digit is None


def test_faint_pictures_of_many_levels_are_stretched_together():
    faint = np.rint(MANY / 16.0)  # floats of 0 to 16, as scikit-learn has them
    faint[0] = np.minimum(faint[0], 1)
    made = pixels.levels(faint)
    assert made.max() == 255
    assert 0 < made[0].max() <= 16
    np.testing.assert_array_equal(pixels.levels(faint[1:])[0], pixels.given(faint[1]).pixels)


def test_fields_are_grey_levels_whatever_their_range():
    for pictures in (INK, np.pad(INK, ((0, 0), (1, 1), (1, 1)))):
        assert [one.digit for one in READER.read_fields(pictures)] == [None] * 10


@pytest.mark.parametrize("flat", [MANY[0].ravel(), MANY[:1].reshape(1, 784), MANY.reshape(10, 784)])
def test_flattened_digits_are_refused_with_the_remedy(flat):
    for ask in (READER.read, READER.explain, READER.flip, READER.read_many, pixels.arrays):
        with pytest.raises(PictureError, match=r"reshape\(-1, 28, 28\)") as caught:
            ask(flat)
        assert str(list(flat.shape)) in str(caught.value)


def test_a_picture_of_784_columns_can_be_given():
    wide = np.zeros((300, 784), np.uint8)
    wide[100:200, 390:400] = 255
    assert READER.read(wide[:, :, None]).digit is not None


@pytest.mark.parametrize(
    ("bad", "rule"),
    [
        (MANY - 1.0, "lie in 0..1 or 0..255"),
        (MANY * 1e6, "lie in 0..1 or 0..255"),
        (np.full((2, 28, 28), np.nan), "are finite"),
        (MANY.astype(complex), "bool, integers or floats"),
        (np.zeros((2, 28, 28, 3)), r"\[N, rows, columns\]"),
    ],
)
def test_what_are_no_pictures_is_refused(bad, rule):
    with pytest.raises(PictureError, match=rule):
        pixels.arrays(bad)

"""Descriptions of made data whose every number can be counted by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
from made_data import quartet, write_idx

from rowwise import data
from rowwise.description import Duplicates


def made(train, train_labels, test, test_labels, classes=("a", "b", "c")):
    return data.Dataset(
        "made",
        np.array(train, np.uint8),
        np.array(train_labels, np.int64),
        np.array(test, np.uint8),
        np.array(test_labels, np.int64),
        classes,
        "here",
        "00",
    )


BLANK = [[0, 0, 0], [0, 0, 0]]
DOT = [[0, 0, 9], [0, 0, 0]]
BAR = [[0, 255, 255], [0, 0, 0]]
SMALL = made([DOT, BAR, DOT, BAR, BAR], [0, 1, 0, 1, 0], [BAR, BLANK, DOT, BLANK], [1, 0, 1, 1])


def test_counts_and_pixels():
    found = data.describe(SMALL)
    assert found.shape == (2, 3)
    assert found.train.count == 5
    assert found.train.class_counts == (3, 2, 0)
    assert found.test.class_counts == (1, 3, 0)
    pixels = np.array(SMALL.train_images)
    assert found.train.pixel_mean == pytest.approx(pixels.mean())
    assert found.train.pixel_std == pytest.approx(pixels.std())
    assert (found.train.pixel_min, found.train.pixel_max) == (0, 255)
    assert found.train.ink_share == pytest.approx(8 / 30)
    assert found.train.class_ink_shares[:2] == pytest.approx((4 / 18, 4 / 12))
    assert np.isnan(found.train.class_ink_shares[2])
    assert found.train.blank_rows == (1,)
    assert found.train.blank_columns == (0,)
    assert found.test.class_ink_shares[0] == 0


def test_duplicates():
    found = data.describe(SMALL)
    assert found.duplicates_train == Duplicates(3, 1, ((0, 2), (1, 3), (1, 4)))
    assert found.duplicates_test == Duplicates(1, 1, ((1, 3),))
    assert found.duplicates_between == Duplicates(2, 1, ((1, 0), (0, 2)))


def test_mean_images_and_samples():
    found = data.describe(SMALL)
    assert found.mean_images.dtype == np.float32
    assert found.mean_images.shape == (3, 2, 3)
    assert found.mean_images[0].tolist() == [[0, 85, 91], [0, 0, 0]]
    assert found.mean_images[2].tolist() == BLANK
    assert found.samples == ((0, 2, 4), (1, 3), ())


def test_json_is_plain():
    found = json.loads(json.dumps(data.describe(SMALL).to_json(), allow_nan=False))
    assert (found["rows"], found["columns"]) == (2, 3)
    assert found["train"]["class_counts"] == [3, 2, 0]
    assert found["train"]["class_ink_shares"][2] is None
    assert found["duplicates"]["between"]["pairs"] == [[1, 0], [0, 2]]
    assert found["mean_images"][1] == [[0.0, 255.0, 255.0], [0.0, 0.0, 0.0]]
    assert found["samples"] == [[0, 2, 4], [1, 3], []]


def test_many_pictures(tmp_path):
    arrays = quartet(train=5000, test=30, shape=(5, 4), classes=7)
    dataset = data.load(path=write_idx(tmp_path / "own", arrays))
    found = data.describe(dataset)
    images, labels = arrays[:2]
    assert found.train.pixel_mean == pytest.approx(images.mean())
    assert found.train.pixel_std == pytest.approx(images.std())
    assert found.train.ink_share == pytest.approx((images > 0).mean())
    assert found.train.class_counts == tuple(np.bincount(labels).tolist())
    for c in range(7):
        assert found.train.class_ink_shares[c] == pytest.approx((images[labels == c] > 0).mean())
        assert np.allclose(found.mean_images[c], images[labels == c].mean(axis=0))
        assert found.samples[c] == tuple(np.flatnonzero(labels == c)[:10])
    assert found.duplicates_between.count == 0
    assert found.digest == dataset.digest
    assert data.describe(replace(dataset, fallback="why")).to_json()["fallback"] == "why"

"""What a report shows of a data set is kept once, whole, and comes back as it was."""

from __future__ import annotations

import json
from dataclasses import replace

import made_study
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_data import tree

from rowwise import album, description
from rowwise.errors import RunError

DATA = made_study.dataset(shape=(5, 4), train=40, test=20)


def test_what_is_kept_comes_back(tmp_path):
    album.keep(tmp_path / "study", DATA)
    found = album.find(tmp_path / "study", DATA.digest)
    told = description.describe(DATA)
    assert np.array_equal(found.test_images, DATA.test_images)
    assert np.array_equal(found.test_labels, DATA.test_labels)
    assert np.array_equal(found.means, told.mean_images)
    assert (found.test_images.dtype, found.test_labels.dtype) == (np.uint8, np.int64)
    assert (found.samples.dtype, found.means.dtype) == (np.uint8, np.float32)
    assert found.description == {"format": 1, **json.loads(json.dumps(told.to_json()))}
    assert {path.name for path in (tmp_path / "study").iterdir()} == {f"data-{DATA.digest[:8]}"}


def test_samples_are_training_images_of_their_class_and_blank_where_there_are_fewer(tmp_path):
    few = np.flatnonzero((DATA.train_labels != 3) | (np.cumsum(DATA.train_labels == 3) <= 1))
    fewer = replace(DATA, train_images=DATA.train_images[few], train_labels=DATA.train_labels[few])
    album.keep(tmp_path, fewer)
    samples = album.find(tmp_path, fewer.digest).samples
    assert samples.shape[0] == 10
    assert samples.shape[2:] == (5, 4)
    assert samples[3, 1:].max() == 0
    assert samples[3, 0].tobytes() == DATA.train_images[DATA.train_labels == 3][0].tobytes()
    for c, shown in enumerate(samples):
        own = {image.tobytes() for image in fewer.train_images[fewer.train_labels == c]}
        assert {image.tobytes() for image in shown if image.any()} <= own


def test_it_is_kept_once(tmp_path, monkeypatch):
    album.keep(tmp_path, DATA)
    before = tree(tmp_path)
    monkeypatch.setattr(album, "describe", lambda data: pytest.fail("described again"))
    album.keep(tmp_path, DATA)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", [album.DESCRIPTION, album.PICTURES])
def test_a_half_kept_one_is_none_and_is_kept_again(tmp_path, name):
    album.keep(tmp_path, DATA)
    (album.place(tmp_path, DATA.digest) / name).unlink()
    assert album.find(tmp_path, DATA.digest) is None
    album.keep(tmp_path, DATA)
    assert album.find(tmp_path, DATA.digest) is not None


def test_two_data_sets_lie_side_by_side(tmp_path):
    other = made_study.dataset(shape=(5, 4), train=40, test=20, seed=9)
    album.keep(tmp_path, DATA)
    album.keep(tmp_path, other)
    assert np.array_equal(album.find(tmp_path, DATA.digest).test_images, DATA.test_images)
    assert np.array_equal(album.find(tmp_path, other.digest).test_images, other.test_images)
    assert album.find(tmp_path, "0" * 64) is None
    assert album.find(tmp_path / "nowhere", DATA.digest) is None


@pytest.mark.parametrize("name", [album.DESCRIPTION, album.PICTURES])
@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"[1]"])
def test_a_damaged_one_is_one_line(tmp_path, name, damage):
    album.keep(tmp_path, DATA)
    path = album.place(tmp_path, DATA.digest) / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RunError, match="is damaged") as caught:
        album.find(tmp_path, DATA.digest)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=60)
@given(place=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255), cut=st.booleans())
def test_pictures_with_a_flipped_byte_are_read_or_refused_in_one_line(kept, place, bits, cut):
    path, content = kept
    at = int(place * len(content))
    end = b"" if cut else bytes([content[at] ^ bits]) + content[at + 1 :]
    path.write_bytes(content[:at] + end)
    told = ""
    try:
        album.find(path.parents[1], DATA.digest)
    except RunError as error:
        told = str(error)
    assert told.startswith(f"{path} is damaged: ") or not (told or cut)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A file of pictures with its content, to be damaged."""
    folder = tmp_path_factory.mktemp("study")
    album.keep(folder, DATA)
    path = album.place(folder, DATA.digest) / album.PICTURES
    return path, path.read_bytes()


def test_pictures_that_would_need_pickle_are_refused(tmp_path):
    album.keep(tmp_path, DATA)
    path = album.place(tmp_path, DATA.digest) / album.PICTURES
    fields = [key for key in album.Album._fields if key != "description"]
    np.savez(path, **{key: np.array([{}], dtype=object) for key in fields})
    with pytest.raises(RunError, match="is damaged"):
        album.find(tmp_path, DATA.digest)

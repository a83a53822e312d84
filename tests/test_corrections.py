"""Corrections: kept once, whole, where `data` finds them again."""

from __future__ import annotations

import threading

import made_models
import numpy as np
import pytest
from made_models import DIGITS, field
from PIL import Image

from rowwise import corrections, formats
from rowwise.errors import DataError, RunError


def keep(folder, digit, label, classes=DIGITS):
    return corrections.keep(folder, digit, label=label, classes=classes)


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_what_is_kept_is_read_again_bit_by_bit(tmp_path):
    place = tmp_path / "of/mine"
    for d in (7, 1, 7):
        keep(place, field(d), str(d))
    assert keep(place, field(7, width=0.15), "7") == (2, 3)
    content = formats.read(place)
    assert content.test is None
    assert content.classes == DIGITS
    assert content.train.labels.tolist() == [1, 7, 7]
    kept = {image.tobytes() for image in content.train.images}
    assert kept == {field(1).tobytes(), field(7).tobytes(), field(7, width=0.15).tobytes()}


def test_a_picture_is_kept_once_and_under_its_latest_label(tmp_path):
    assert keep(tmp_path, field(1), "7") == (1, 1)
    assert keep(tmp_path, field(1), "7") == (1, 1)
    before = files(tmp_path)
    assert keep(tmp_path, field(1), "1") == (1, 1)
    after = files(tmp_path)
    assert [name.replace("7/", "1/") for name in before] == after
    assert formats.read(tmp_path).train.labels.tolist() == [1]  # 7 is there, and empty


def test_pictures_of_the_same_bytes_and_another_shape_are_two(tmp_path):
    line = np.arange(12, dtype=np.uint8)
    keep(tmp_path, line.reshape(3, 4), "0")
    assert keep(tmp_path, line.reshape(4, 3), "0") == (2, 2)


@pytest.mark.parametrize(
    ("label", "classes", "told"),
    [
        ("10", DIGITS, r"under a class of the model \(0, 1, .*\), got '10'"),
        ("../0", DIGITS, "got '../0'"),
        ("", DIGITS, "got ''"),
        ("a/b", ("a/b", "c"), "the class 'a/b', which cannot name one"),
        ("a", ("a", ".."), "the class '..', which cannot name one"),
        ("a", ("a", "b\n"), "which cannot name one"),
        (
            "0",
            ("0", "1"),
            r"txt: expected the classes of the model \(0, 1\), found 0, 1, 2",
        ),
    ],
)
def test_what_cannot_be_kept_is_refused_and_writes_nothing(tmp_path, label, classes, told):
    keep(tmp_path, field(1), "1")
    before = files(tmp_path)
    with pytest.raises(DataError, match=told):
        keep(tmp_path, field(2), label, classes)
    assert files(tmp_path) == before


def test_only_bytes_of_a_picture_are_kept(tmp_path):
    for wrong in (np.zeros((28, 28), np.float32), np.zeros((28, 28, 3), np.uint8), np.uint8([[]])):
        with pytest.raises(DataError, match=r"is uint8 \[rows, columns\], got"):
            keep(tmp_path / "none", wrong, "1")
    assert not (tmp_path / "none").exists()


def test_a_full_folder_takes_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(corrections, "MOST", 2)
    keep(tmp_path, field(1), "1")
    keep(tmp_path, field(2), "2")
    with pytest.raises(DataError, match="at most 2 pictures are kept"):
        keep(tmp_path, field(3), "3")


def test_where_nothing_can_be_written_it_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot make the folder"):
        keep(tmp_path / "file", field(1), "1")


def test_many_threads_keep_at_once(tmp_path):
    pictures = [field(d, width=w) for d in range(10) for w in (0.08, 0.12)]

    def work(first):
        for i in range(len(pictures)):
            at = (first + i) % len(pictures)
            keep(tmp_path, pictures[at], str(at // 2))

    threads = [threading.Thread(target=work, args=(3 * i,)) for i in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    content = formats.read(tmp_path)
    assert np.bincount(content.train.labels).tolist() == [2] * 10
    assert not [name for name in files(tmp_path) if name.endswith(".part")]


def test_what_a_killed_process_left_is_passed_over(tmp_path):
    keep(tmp_path, field(1), "1")
    (tmp_path / "1/.0123.png.77.part").write_bytes(b"half")
    assert formats.read(tmp_path).train.labels.tolist() == [1]
    assert keep(tmp_path, field(1, width=0.2), "1") == (2, 2)


def test_the_file_is_a_plain_grey_png(tmp_path):
    keep(tmp_path, made_models.field(3), "3")
    (path,) = (tmp_path / "3").iterdir()
    with Image.open(path) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "L", (28, 28))
        np.testing.assert_array_equal(np.asarray(picture), made_models.field(3))

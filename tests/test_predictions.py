"""Predictions keep every bit of a float32, and a damaged table is one line."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rowwise import predictions
from rowwise.errors import RunError

LABELS = np.array([2, 0, 1])
SHARES = np.array([[0.1, 0.2, 0.7], [1.0, 0.0, 1e-45], [1 / 3, 1 / 3, 1 / 3]], np.float32)


@settings(max_examples=50)
@given(arrays.arrays(np.float32, (3, 4), elements=st.floats(0, 1, width=32, allow_subnormal=True)))
def test_probabilities_come_back_to_the_last_bit(shares):
    shares[:, 3] += shares.sum(1) == 0
    shares /= shares.sum(1, keepdims=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.csv"
        predictions.write(path, LABELS, shares)
        said = predictions.read(path, count=3, classes=4)
    assert said.probabilities.dtype == np.float32
    assert said.probabilities.tobytes() == (shares + np.float32(0)).tobytes()  # -0 is 0
    assert said.labels.tolist() == LABELS.tolist()
    assert said.predicted.tolist() == shares.argmax(1).tolist()
    assert (said.labels.dtype, said.predicted.dtype) == (np.int64, np.int64)


def test_any_program_reads_the_table(tmp_path):
    predictions.write(tmp_path / "p.csv", LABELS, SHARES)
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["index", "label", "predicted", "p0", "p1", "p2"]
    assert [(row["index"], row["label"], row["predicted"]) for row in rows] == [
        ("0", "2", "2"),
        ("1", "0", "0"),
        ("2", "1", "0"),
    ]


HEADER = "index,label,predicted,p0,p1,p2\n"
GOOD = HEADER + "0,2,2,0.1,0.2,0.7\n1,0,0,1,0,0\n"


def test_the_good_table_is_good(tmp_path):
    (tmp_path / "p.csv").write_text(GOOD)
    assert predictions.read(tmp_path / "p.csv", count=2, classes=3).labels.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have 2 rows of 6 columns, got 0 of 6"),
        (HEADER, "must have 2 rows of 6 columns, got 0 of 6"),
        (HEADER + "\n\n", "must have 2 rows of 6 columns, got 0 of 6"),
        (GOOD[:-20], "damaged"),
        (GOOD.replace("1,0,0,1,0,0\n", ""), "must have 2 rows of 6 columns, got 1 of 6"),
        (GOOD.replace("predicted", "said"), "must begin with the line index,label,predicted,p0"),
        (GOOD.replace("\n1,", "\n7,"), "is damaged: its indices must count from 0"),
        (GOOD.replace("0,2,2", "0,3,2"), "is damaged: a label must be one of 0 to 2"),
        (GOOD.replace("0,2,2", "0,2,-1"), "is damaged: a label must be one of 0 to 2"),
        (GOOD.replace("0,2,2", "0,1.5,2"), "is damaged: a label must be one of 0 to 2"),
        (GOOD.replace("0.7", "1.7"), "is damaged: a probability must be between 0 and 1"),
        (GOOD.replace("0.7", "-0.7"), "is damaged: a probability must be between 0 and 1"),
        (GOOD.replace("0.7", "nan"), "is damaged: a probability must be between 0 and 1"),
        (GOOD.replace("0.7", "0.6"), "is damaged: the probabilities of a row must sum to 1"),
        (
            GOOD.replace("0.7", "seven"),
            "is damaged: it holds no table of numbers (could not convert",
        ),
        ("\x00\x01\x02", "must have 2 rows"),
    ],
)
def test_a_damaged_table_is_one_line(tmp_path, text, message):
    path = tmp_path / "p.csv"
    path.write_text(text)
    with pytest.raises(RunError) as caught:
        predictions.read(path, count=2, classes=3)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_what_is_no_text_or_not_there_is_one_line(tmp_path):
    (tmp_path / "p.csv").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(RunError, match="damaged"):
        predictions.read(tmp_path / "p.csv", count=2, classes=3)
    with pytest.raises(RunError, match=r"cannot read .*: Is a directory"):
        predictions.read(tmp_path, count=2, classes=3)

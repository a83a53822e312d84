"""Readings as text: a line a picture, whatever its name; JSON and CSV that programs read again."""

from __future__ import annotations

import csv
import io
import json

import made_models
import numpy as np
import pytest
from made_models import page

from rowwise import readings
from rowwise.errors import PictureError
from rowwise.recognise import Outcome, Recogniser


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    promise = made_models.PROMISE.model_copy(update={"confidence": 1.0})
    sure = Recogniser(made_models.best(promises=(made_models.PROMISE,)), threads=1)
    unsure = Recogniser(made_models.best(promises=(promise,)), threads=1)
    error = PictureError("a\tb\n.png: expected a picture, found an empty file; save it again")
    return [
        Outcome("one.png", 1, sure.read(page(1)), None),
        Outcome("scan.tif", 3, unsure.read(page(2)), None),
        Outcome("blank.png", 1, sure.read(np.full((40, 40), 255, np.uint8)), None),
        Outcome("a\tb .png", 1, None, error),
    ]


def told(outcomes, form, capsys) -> list[str]:
    assert readings.tell(iter(outcomes), form=form, classes=made_models.DIGITS) == (4, 1)
    said = capsys.readouterr()
    assert said.err == ""
    return said.out.splitlines()


def test_lines_have_the_same_columns_whatever_came(outcomes, capsys):
    rows = [line.split("\t") for line in told(outcomes, "lines", capsys)]
    assert [len(row) for row in rows] == [len(readings.HEADS)] * 4
    one, unsure, blank, failed = rows
    reading = outcomes[0].reading
    assert one[:2] == ["one.png", reading.label]
    assert one[3:] == ["accepted", ""]
    assert unsure[0] == "scan.tif page 3"
    assert unsure[3] == "unsure"
    assert unsure[4].startswith("not sure: ")
    assert blank[1:4] == ["–", "–", "no ink"]
    assert failed[0] == r"a\tb .png"
    assert failed[1:4] == ["–", "–", "failed"]
    assert "found an empty file" in failed[4]


def test_json_is_an_object_a_line(outcomes, capsys):
    trees = [json.loads(line) for line in told(outcomes, "json", capsys)]
    assert [list(tree) for tree in trees] == [[*readings.KEYS, "probabilities"]] * 4
    reading = outcomes[0].reading
    assert trees[0]["digit"] == reading.digit
    assert trees[0]["accepted"] is True
    np.testing.assert_array_equal(
        np.float32(trees[0]["probabilities"]), reading.probabilities.astype(np.float32)
    )
    assert trees[1]["page"] == 3
    assert trees[1]["accepted"] is False
    assert trees[2]["digit"] is None
    assert trees[2]["error"] is None
    assert trees[3]["picture"] == "a\tb .png"
    assert trees[3]["probabilities"] is None
    assert "empty file" in trees[3]["error"]


def test_csv_is_read_again_with_a_column_a_class(outcomes, capsys):
    text = "\n".join(told(outcomes, "csv", capsys))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0]) == [*readings.KEYS, *(f"p_{c}" for c in range(10))]
    assert float(rows[0]["p_4"]) == pytest.approx(outcomes[0].reading.probabilities[4])
    assert rows[2]["digit"] == ""
    assert rows[3]["p_0"] == ""
    assert rows[3]["picture"] == r"a\tb .png"  # as a terminal may show it


def test_a_table_has_heads_and_a_row_each(outcomes, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    lines = told(outcomes, "table", capsys)
    assert lines[0].split() == list(readings.HEADS)
    assert len(lines) == 5
    assert "page 3" in lines[2]


@pytest.mark.parametrize("form", ["table", "lines", "json", "csv"])
def test_what_was_read_before_an_interruption_is_told(form, outcomes, capsys):
    def interrupted():
        yield outcomes[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        readings.tell(interrupted(), form=form, classes=made_models.DIGITS)
    assert "one.png" in capsys.readouterr().out

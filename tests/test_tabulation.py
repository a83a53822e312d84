"""tabulation: every row is as wide as its head, and says what the summary says."""

from __future__ import annotations

from pathlib import Path

import made_study
import pytest

from rowwise import runs, tabulation
from rowwise.config import Published, Study
from rowwise.summary import StudySummary, summarise
from rowwise.tabulation import Table
from rowwise.wording import THIN


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudySummary:
    return summarise(made_study.write(tmp_path_factory.mktemp("made")))


def all_tables(study: StudySummary) -> list[Table | None]:
    names = study.data.identity.classes
    tables = [
        tabulation.results(study),
        tabulation.published(study),
        tabulation.differences(study),
        tabulation.models(study),
        tabulation.classes(study),
        tabulation.said(study),
        tabulation.pixels(study),
        tabulation.training(study),
        tabulation.runs(study),
        tabulation.environment(study),
    ]
    for network in study.networks:
        tables += [
            tabulation.epochs(network, 2),
            tabulation.confusion(network, names),
            tabulation.pairs(study, network),
            tabulation.by_class(study, network),
        ]
    return tables


def test_rows_are_as_wide_as_their_heads(study: StudySummary) -> None:
    for table in all_tables(study):
        assert table is not None
        assert table.rows
        assert {len(row) for row in table.rows} == {len(table.heads)}
        assert table.words <= len(table.heads)
        assert all("nan" not in cell.lower().split() for row in table.rows for cell in row)


def test_results(study: StudySummary) -> None:
    table = tabulation.results(study)
    first = dict(zip(table.heads, table.rows[0], strict=True))
    network = study.networks[0]
    assert first["Network"] == "alpha"
    assert first["Mean"] == f"{100 * network.test_accuracy.mean:.1f}{THIN}%"
    assert first["Each seed, in %"] == " · ".join(
        f"{100 * run.test_accuracy:.1f}" for run in network.runs
    )
    assert "Validation accuracy" not in table.heads  # it is the score itself


def test_test_and_validation_accuracy_stand_side_by_side_where_they_differ(tmp_path: Path) -> None:
    held = made_study.experiment("held", validation=0.1, published=Published(val_accuracy=0.9))
    chosen = Study(name="h", experiments=(held,), seeds=1)
    table = tabulation.results(summarise(made_study.write(tmp_path / "s", chosen=chosen)))
    assert table.caption.startswith("Test accuracy")
    assert "Validation accuracy" in table.heads
    assert len(table.rows[0]) == len(table.heads)


def test_published(study: StudySummary) -> None:
    table = tabulation.published(study)
    assert table is not None
    assert [row[:3] for row in table.rows] == [
        ("alpha", "validation", f"88.0{THIN}%"),
        ("alpha", "training", f"90.0{THIN}%"),
    ]
    assert {row[-1] for row in table.rows} <= {"inside", "above", "below"}


def test_nothing_published_and_nothing_to_compare_give_no_table(tmp_path: Path) -> None:
    chosen = Study(name="h", experiments=(made_study.experiment("solo"),), seeds=1)
    one = summarise(made_study.write(tmp_path / "s", chosen=chosen))
    assert tabulation.published(one) is None
    assert tabulation.differences(one) is None
    assert tabulation.models(one) is None


def test_differences_come_surest_first_with_their_verdicts(study: StudySummary) -> None:
    table = tabulation.differences(study)
    assert table is not None
    ranked = sorted(study.differences, key=lambda one: one.p)
    assert [row[0] for row in table.rows] == [f"{one.a} − {one.b}" for one in ranked]
    for row, one in zip(table.rows, ranked, strict=True):
        assert row[-1] == ("yes" if one.p < 0.05 else "not shown")
    assert "Holm for the 3 pairs" in table.note


def test_untested_pairs_say_so(tmp_path: Path) -> None:
    chosen = made_study.study(("a", "b"), seeds=1)
    table = tabulation.differences(summarise(made_study.write(tmp_path / "s", chosen=chosen)))
    assert table is not None
    assert table.rows[0][-3:] == ("–", "–", "cannot be told")
    assert "Holm" not in table.note  # one pair is no family


def test_many_pairs_are_cut_and_counted(study: StudySummary) -> None:
    many = study._replace(models=study.models * 20)
    table = tabulation.models(many)
    assert table is not None
    assert len(table.rows) == tabulation.SHOWN_ROWS
    assert f"Of 60 pairs the {tabulation.SHOWN_ROWS} surest." in table.note


def test_class_counts_add_up(study: StudySummary) -> None:
    *rows, total = tabulation.classes(study).rows
    assert sum(int(row[1]) for row in rows) == int(total[1]) == 400
    assert sum(int(row[3]) for row in rows) == int(total[3]) == 200


def test_what_is_said_adds_up(study: StudySummary) -> None:
    rows = tabulation.said(study).rows
    for column in range(1, 5):
        assert sum(int(row[column].split()[0]) for row in rows) == 200
    off = [row[2].split("(")[1].rstrip(")").replace("−", "-") for row in rows]
    assert sum(map(int, off)) == 0


def test_an_epoch_is_told_as_keras_tells_it(study: StudySummary) -> None:
    table = tabulation.epochs(study.networks[0], 2)
    assert table.heads[:6] == ("Epoch", "Steps", "Time", "ms/step", "loss", "accuracy")
    assert [row[0] for row in table.rows] == ["1", "2", "3"]
    assert table.rows[0][1:5] == ("10", f"1.50{THIN}s", "150.00", "0.3000")


def test_the_confusion_table_adds_up(study: StudySummary) -> None:
    network = study.networks[0]
    table = tabulation.confusion(network, study.data.identity.classes)
    total = sum(int(cell.split()[0]) for row in table.rows for cell in row[1:])
    assert total == 200
    right = sum(int(row[place + 1].split()[0]) for place, row in enumerate(table.rows))
    assert right == 200 - len(network.model.misread)


def test_every_run_is_listed_those_left_out_included(tmp_path: Path) -> None:
    folder = made_study.write(tmp_path / "s")
    runs.Run.open(folder / "beta-s1").update(status="diverged", sentence="the loss became NaN")
    study = summarise(folder)
    table = tabulation.runs(study)
    assert len(table.rows) == 9
    (row,) = [row for row in table.rows if row[0] == "beta-s1"]
    assert row[2] == "diverged; left out: the loss became NaN"
    assert row[-2] == "–"


def test_each_environment_has_a_column(study: StudySummary) -> None:
    table = tabulation.environment(study)
    assert table.heads == ("", "9 runs")
    assert {"Engine", "Python", "numpy", "Processor", "Threads"} <= {row[0] for row in table.rows}
    first = study.networks[0]
    moved = first.runs[0]._replace(environment={**first.runs[0].environment, "python": "9.9"})
    changed = first._replace(runs=(moved, *first.runs[1:]))
    table = tabulation.environment(study._replace(networks=(changed, *study.networks[1:])))
    assert table.heads == ("", "1 run", "8 runs")
    assert "different environments" in table.note

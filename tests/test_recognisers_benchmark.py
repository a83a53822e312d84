"""The benchmark of the models that ship, on small runs: what it counts, and its tables."""

from __future__ import annotations

import argparse
import json

import made_pictures
import numpy as np
import pytest
import small_training
from pages import ROOT
from small_training import DATA, experiment, train

from rowwise import metrics, session
from rowwise.runs import Run

pytest.importorskip("scipy", reason="needs SciPy: pip install 'rowwise[study]'")
small_training.trainer_or_skip()

ROWS = experiment(
    name="small",
    validation=0.3,
    epochs=12,
    layers=[{"kind": "lstm", "units": 12, "return_sequences": True}],
    optimizer={"kind": "adam", "learning_rate": 0.02},
    target_replication=0.5,
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recognisers")
    for seed in (0, 1):
        train(ROWS.model_copy(update={"seed": seed}), out=folder / f"small-s{seed}")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import recognisers

        patch.setattr(recognisers, "mnist", lambda options: DATA)
        measured = recognisers.measure(argparse.Namespace(runs=folder, threads=1, shipped=False))
    return folder, json.loads(json.dumps(measured))


@pytest.fixture(autouse=True)
def path(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def test_accuracy_is_that_of_the_run_and_the_mean_that_of_the_seeds(results):
    folder, measured = results
    small = measured["networks"]["small"]
    for place, seed in enumerate(small["seeds"]):
        run = Run.open(folder / f"small-s{place}")
        told = session.beliefs(
            "plain", run.network, run.weights(), DATA.test_images, threads=1, stop=lambda: False
        )[:, -1]
        right = metrics.is_correct(DATA.test_labels, told)
        assert seed["seed"] == place
        assert seed["accuracy"]["count"] == right.sum()
        raw = metrics.calibration(DATA.test_labels, told).expected_error
        assert seed["calibration_error_untempered"] == pytest.approx(raw, abs=1e-4)
        assert len(seed["by_row"]) == run.network.steps
        assert seed["by_row"][-1]["accuracy"] == pytest.approx(right.mean(), abs=1e-6)
    shares = [seed["accuracy"]["share"] for seed in small["seeds"]]
    assert small["mean"]["value"] == pytest.approx(np.mean(shares))
    assert small["mean"]["low"] <= np.mean(shares) <= small["mean"]["high"]
    assert "shipped" not in small  # no model of that name does


def test_what_ships_is_measured_anew_without_the_runs(tmp_path, monkeypatch):
    import recognisers

    from rowwise import Dataset

    labels = np.arange(10)
    fields = np.stack([made_pictures.mnist_like(made_pictures.drawn(digit)) for digit in labels])
    classes = tuple(map(str, range(10)))
    digits = Dataset("fields", fields, labels, fields, labels, classes, "made", "0" * 64)
    monkeypatch.setattr(recognisers, "mnist", lambda options: digits)
    before = {"seeds": ["as they were"], "shipped": {"is_seed_0": True}}
    out = tmp_path / "recognisers.json"
    out.write_text(json.dumps({"networks": {"rows": before}}), "utf-8")
    options = argparse.Namespace(out=out, threads=1, shipped=True, error_rate=None, seed=0)
    rows = recognisers.measure(options)["networks"]["rows"]
    assert rows["seeds"] == ["as they were"]
    assert rows["shipped"]["is_seed_0"]
    assert rows["shipped"]["accuracy"]["of"] == len(labels)


def test_the_table_has_every_seed_and_every_second_row(results):
    import tables
    import trial_tables

    _, measured = results
    text = trial_tables.recognisers(measured, tables.table)
    shares = [one["accuracy"]["share"] for one in measured["networks"]["small"]["seeds"]]
    assert ", ".join(f"{100 * share:.2f}" for share in shares) in text
    rows = measured["networks"]["small"]["seeds"][0]["by_row"]
    assert (
        f"| {len(rows) - len(rows) % 2} | {100 * rows[-1 - len(rows) % 2]['accuracy']:.1f}" in text
    )


def test_a_folder_without_a_finished_run_is_refused(tmp_path):
    import recognisers

    with pytest.raises(SystemExit, match="no finished run"):
        recognisers.finished(tmp_path)


def test_what_is_learnt_from_corrections_is_told_before_and_after(results, monkeypatch):
    import learning
    import tables
    import trial_tables

    monkeypatch.setattr(learning, "mnist", lambda options: DATA)
    options = argparse.Namespace(
        model=str(results[0] / "small-s0"), error_rate=None, threads=1, seed=0, trials=2, copies=3,
        quick=False,
    )  # fmt: skip
    told = json.loads(json.dumps(learning.measure(options)))
    assert told["rates"] == {"gentle": 0.002, "own rate": 0.02}
    assert [(one["corrections"], one["trial"]) for one in told["lessons"]] == [
        (1, 0), (1, 0), (1, 1), (1, 1), (10, 0), (10, 0), (10, 1), (10, 1),
    ]  # fmt: skip
    for one in told["lessons"]:
        taught = one["before"]["corrected"]
        assert (taught["count"], taught["of"]) == (0, min(one["corrections"], told["misread"]))
        others = one["before"]["others"]
        assert others["of"] == told["held_out"] - taught["of"]
        assert others["of"] - others["count"] == told["misread"] - taught["of"]
        assert one["after"]["again"]["of"] == 3 * taught["of"]
    text = trial_tables.learning(told, tables.table)
    assert "| 1 | 0.002 (gentle) |" in text
    assert "| 10 | 0.02 (own rate) |" in text

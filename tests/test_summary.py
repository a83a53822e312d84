"""summary: saved runs become numbers, and only the runs that may count do."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import made_study
import numpy as np
import pytest

from rowwise import album, comparison, config, runs
from rowwise.config import Study
from rowwise.errors import RunError
from rowwise.summary import Confused, confused_both_ways, summarise


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_study.write(tmp_path_factory.mktemp("made"))


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "study"))


def change(file: Path, **keys: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))


def test_networks_stand_in_the_order_of_the_study_and_runs_in_that_of_seeds(folder: Path) -> None:
    study = summarise(folder)
    assert [network.name for network in study.networks] == ["alpha", "beta", "gamma"]
    assert [[run.seed for run in one.runs] for one in study.networks] == [[0, 1, 2]] * 3
    assert study.title == "A made-up study"
    assert study.left_out == ()
    assert study.missing == ()


def test_scores_are_those_of_the_predictions(folder: Path) -> None:
    network = summarise(folder).networks[0]
    found = [runs.Run.open(folder / f"alpha-s{seed}") for seed in range(3)]
    said = [run.predictions() for run in found]
    scores = [float((one.predicted == one.labels).mean()) for one in said]
    last = [run.metrics[-1] for run in found]
    assert [run.test_accuracy for run in network.runs] == scores
    assert network.test_accuracy == comparison.mean_interval(scores)
    assert network.val_accuracy.mean == pytest.approx(np.mean([e.val_accuracy for e in last]))
    gaps = [epoch.accuracy - epoch.val_accuracy for epoch in last]
    assert network.gap == comparison.mean_interval(gaps)
    assert network.confusion.sum() == 3 * 200
    assert np.trace(network.confusion) == round(sum(scores) * 200)
    assert network.parameters == found[0].network.count
    assert network.epoch_seconds == pytest.approx(1.6)


def test_the_model_shown_is_the_middle_one_and_not_the_best(folder: Path) -> None:
    for network in summarise(folder).networks:
        ranked = sorted((run.test_accuracy, run.seed) for run in network.runs)
        assert network.model.seed == ranked[1][1]


def test_of_two_runs_the_worse_one_is_shown(copy: Path) -> None:
    shutil.rmtree(copy / "alpha-s2")
    network = summarise(copy).networks[0]
    assert network.model.seed == min((run.test_accuracy, run.seed) for run in network.runs)[1]


def test_misread_images_come_surest_first_with_the_runs_that_misread_them(folder: Path) -> None:
    study = summarise(folder)
    network = study.networks[0]
    said = [runs.Run.open(folder / f"alpha-s{seed}").predictions() for seed in range(3)]
    shown = said[network.model.seed]
    wrong = {int(i) for i in np.flatnonzero(shown.predicted != shown.labels)}
    assert {item.place for item in network.model.misread} == wrong
    sure = [item.confidence for item in network.model.misread]
    assert sure == sorted(sure, reverse=True)
    for item in network.model.misread:
        assert (item.true, item.said) == (shown.labels[item.place], shown.predicted[item.place])
        assert item.confidence == pytest.approx(float(shown.probabilities[item.place].max()))
        times = sum(one.predicted[item.place] != one.labels[item.place] for one in said)
        assert item.in_runs == times >= 1


def test_overconfidence_is_mean_confidence_minus_accuracy(folder: Path) -> None:
    network = summarise(folder).networks[1]
    said = runs.Run.open(folder / f"beta-s{network.model.seed}").predictions()
    surplus = said.probabilities.max(axis=1) - (said.predicted == said.labels)
    assert network.model.overconfidence == pytest.approx(float(surplus.mean()))
    error = surplus.std() / math.sqrt(200)
    assert network.model.overconfidence_error == pytest.approx(float(error), rel=1e-5)


def test_images_that_every_run_misread(tmp_path: Path) -> None:
    data = made_study.dataset(test=20)
    study = made_study.study(("a", "b"), seeds=1)
    folder = made_study.write(tmp_path / "s", data=data, chosen=study)
    for place, name in enumerate(("a", "b")):
        shutil.rmtree(folder / f"{name}-s0")
        sure = np.full((20, 10), 0.01, np.float32)
        sure[np.arange(20), data.test_labels] = 0.91
        sure[3] = np.roll(sure[3], 1)  # both misread image 3, in the same way
        if place:
            sure[5] = np.roll(sure[5], 1)
        one = study.experiments[place].model_copy(update={"seed": 0})
        made_study.run(folder, data, one, probabilities=sure)
    (hard,) = summarise(folder).misread_by_all
    assert hard == (3, (data.test_labels[3] + 1) % 10, 2)


def test_pairs_of_networks_are_compared_by_seed_and_corrected(folder: Path) -> None:
    study = summarise(folder)
    scores = {one.name: [run.test_accuracy for run in one.runs] for one in study.networks}
    assert [(one.a, one.b) for one in study.differences] == [
        ("alpha", "beta"),
        ("alpha", "gamma"),
        ("beta", "gamma"),
    ]
    for one in study.differences:
        assert one.found == comparison.paired_difference(scores[one.a], scores[one.b])
        assert one.seeds == (0, 1, 2)
    raw = [one.found.p for one in study.differences]
    assert [one.p for one in study.differences] == pytest.approx(comparison.holm(raw).tolist())
    assert sum(one.p > one.found.p for one in study.differences) >= 1


def test_only_common_seeds_are_paired(copy: Path) -> None:
    shutil.rmtree(copy / "alpha-s1")
    seeds = {(one.a, one.b): one.seeds for one in summarise(copy).differences}
    assert seeds[("alpha", "beta")] == (0, 2)
    assert seeds[("beta", "gamma")] == (0, 1, 2)


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_are_not_tested(tmp_path: Path, seeds: int) -> None:
    chosen = made_study.study(("a", "b"), seeds=seeds)
    study = summarise(made_study.write(tmp_path / "s", chosen=chosen))
    (one,) = study.differences
    assert math.isnan(one.p)
    assert math.isnan(one.found.p)
    assert math.isnan(one.found.low) == (seeds == 1)
    if seeds == 1:
        assert math.isnan(study.networks[0].test_accuracy.low)
        assert study.networks[0].position is not None
        assert study.networks[0].position.inside is None


def test_differences_without_any_spread_are_no_certainty(tmp_path: Path) -> None:
    data = made_study.dataset(test=20)
    chosen = made_study.study(("a", "b"), seeds=3)
    folder = tmp_path / "s"
    folder.mkdir()
    runs.save_study(folder, chosen)
    album.keep(folder, data)
    right = np.eye(10, dtype=np.float32)[data.test_labels]
    for one in chosen.experiments:
        shares = np.roll(right, 1, axis=1) if one.name == "b" else right
        for seed in range(3):
            seeded = one.model_copy(update={"seed": seed})
            made_study.run(folder, data, seeded, probabilities=shares)
    (one,) = summarise(folder).differences
    assert one.found.difference == 1.0
    assert math.isnan(one.p)
    assert math.isnan(one.found.low)


def test_trained_models_are_compared_on_the_same_images(folder: Path) -> None:
    study = summarise(folder)
    one = study.models[1]
    a, b = study.networks[0], study.networks[2]
    assert (one.a, one.b, one.seeds) == ("alpha", "gamma", (a.model.seed, b.model.seed))
    assert one.found == comparison.mcnemar(study.data.labels, a.model.predicted, b.model.predicted)
    raw = [each.found.p for each in study.models]
    assert [each.p for each in study.models] == pytest.approx(comparison.holm(raw).tolist())


def test_published_figures_are_placed_among_ours(folder: Path) -> None:
    first, second = summarise(folder).networks[:2]
    ours = [run.epochs[-1].val_accuracy for run in first.runs]
    assert first.position == comparison.position(0.88, ours)
    assert first.position_training is not None
    assert first.position_training.published == 0.9
    assert second.position is None
    assert second.position_training is None


@pytest.mark.parametrize("status", ["training", "interrupted", "diverged"])
def test_runs_that_did_not_end_count_in_no_mean(copy: Path, status: str) -> None:
    change(copy / "beta-s1" / "run.json", status=status, sentence="it broke")
    study = summarise(copy)
    assert [run.seed for run in study.networks[1].runs] == [0, 2]
    (left_out,) = study.left_out
    assert (left_out.name, left_out.seed, left_out.left_out) == ("beta", 1, "it broke")
    assert math.isnan(left_out.test_accuracy)


def test_a_network_without_an_ended_run_is_named(copy: Path) -> None:
    for seed in range(3):
        change(copy / f"beta-s{seed}" / "run.json", status="diverged")
    study = summarise(copy)
    assert [network.name for network in study.networks] == ["alpha", "gamma"]
    assert study.missing == ("beta",)
    assert [run.left_out for run in study.left_out] == ["it is diverged"] * 3


def test_runs_of_other_data_are_left_out(copy: Path) -> None:
    record = json.loads((copy / "gamma-s0" / "run.json").read_text())
    record["data"]["digest"] = "f" * 64
    (copy / "gamma-s0" / "run.json").write_text(json.dumps(record))
    study = summarise(copy)
    assert [(run.name, run.seed) for run in study.left_out] == [("gamma", 0)]
    assert "other data" in study.left_out[0].left_out


def test_runs_of_another_configuration_are_left_out(copy: Path) -> None:
    change(copy / "alpha-s2" / "experiment.json", batch=7)
    study = summarise(copy)
    assert [(run.name, run.seed) for run in study.left_out] == [("alpha", 2)]
    assert "configuration" in study.left_out[0].left_out


def test_validation_on_test_images_is_noticed(folder: Path, tmp_path: Path) -> None:
    study = summarise(folder)
    assert study.on_test
    assert study.test_is_validation
    held = made_study.experiment("held", validation=0.1, epochs=2)
    chosen = Study(name="h", experiments=(held, made_study.experiment("test", epochs=2)), seeds=1)
    mixed = summarise(made_study.write(tmp_path / "s", chosen=chosen))
    assert not mixed.on_test
    assert not mixed.test_is_validation


def test_test_accuracy_may_differ_from_the_last_validation_accuracy(copy: Path) -> None:
    # Early stopping that restores the best weights leaves the two apart.
    path = copy / "alpha-s0" / "metrics.jsonl"
    lines = path.read_text().splitlines()
    last = {**json.loads(lines[-1]), "val_accuracy": 0.5}
    path.write_text("\n".join([*lines[:-1], json.dumps(last)]) + "\n")
    study = summarise(copy)
    assert study.on_test
    assert not study.test_is_validation


def test_the_data_are_described(folder: Path) -> None:
    data, kept = summarise(folder).data, made_study.dataset()
    assert data.train.class_counts.tolist() == np.bincount(kept.train_labels).tolist()
    assert data.test.class_counts.sum() == data.test.size == 200
    assert data.train.pixel_mean == pytest.approx(kept.train_images.mean())
    assert sum(data.histogram) == pytest.approx(1)
    assert data.histogram[0] == pytest.approx((kept.test_images < 8).mean())
    assert data.samples.shape == (10, 10, 8, 8)


def test_how_to_make_the_runs_again(folder: Path, tmp_path: Path) -> None:
    assert summarise(folder).command == (
        "rowwise study study.json --seeds 3 --data FOLDER --out again"
    )
    classic = config.shipped_studies()["classic"]
    some = classic.model_copy(update={"experiments": classic.experiments[:1], "seeds": 1})
    data = made_study.dataset(name="mnist")
    made = made_study.write(tmp_path / "s", data=data, chosen=some)
    runs.save_study(made, classic)
    assert summarise(made).meant_for == ""
    assert summarise(made).command == (
        "rowwise study classic --only rnn-relu --seeds 3 --dataset mnist --out again"
    )


def test_the_data_set_that_a_study_is_about(copy: Path) -> None:
    change(copy / "study.json", dataset="mnist")
    assert summarise(copy).meant_for == "mnist"


def test_a_folder_of_runs_without_a_study(copy: Path) -> None:
    (copy / "study.json").unlink()
    study = summarise(copy)
    assert study.title == "study"  # the folder's name
    assert study.command == ""
    assert [network.name for network in study.networks] == ["alpha", "beta", "gamma"]


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="a report needs runs"):
        summarise(tmp_path)


def test_a_folder_without_an_ended_run_is_refused(copy: Path) -> None:
    for run in copy.glob("*-s*"):
        change(run / "run.json", status="interrupted")
    with pytest.raises(RunError, match=r"a run that ended.*alpha-s0 is interrupted"):
        summarise(copy)


def test_missing_and_damaged_data_are_refused(copy: Path) -> None:
    (kept,) = copy.glob("data-*")
    description = kept / "description.json"
    change(description, train={})
    with pytest.raises(RunError, match="damaged"):
        summarise(copy)
    shutil.rmtree(kept)
    with pytest.raises(RunError, match="keeps no data-"):
        summarise(copy)


def test_predictions_of_other_images_are_refused(copy: Path) -> None:
    for file in copy.glob("*/predictions.csv"):
        lines = file.read_text().splitlines()
        index, label, rest = lines[1].split(",", 2)
        lines[1] = f"{index},{(int(label) + 1) % 10},{rest}"
        file.write_text("\n".join(lines) + "\n")
    with pytest.raises(RunError, match="their labels differ"):
        summarise(copy)


def test_confusions_both_ways() -> None:
    matrix = np.array([[50, 1, 0], [7, 40, 2], [0, 4, 30]])
    assert confused_both_ways(matrix, 2) == [Confused(1, 0, 3.5, 0.5), Confused(2, 1, 2.0, 1.0)]
    assert confused_both_ways(np.diag([3, 4]), 1) == []
    assert len(confused_both_ways(matrix, 2, most=1)) == 1


def test_no_engine_is_needed(folder: Path) -> None:
    code = (
        "import sys; from rowwise.summary import summarise; summarise(sys.argv[1]); "
        "heavy = {'torch', 'matplotlib', 'keras', 'jinja2'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)

"""Files of every version that was ever released are read, and their trainings go on."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from make_released import MODEL, RELEASED, make
from small_training import assert_whole, torch_or_skip, trainer_or_skip

from rowwise import __version__, album, calibration, data, runs
from rowwise import study as studies
from rowwise.model import Model
from rowwise.recognise import Recogniser
from rowwise.runs import Run
from rowwise.train import evaluate

VERSIONS = sorted(path.name for path in RELEASED.iterdir())


@pytest.fixture(params=VERSIONS)
def released(request):
    """The folder of a version's files, not to be changed."""
    return RELEASED / request.param


def test_this_version_is_among_them():
    assert __version__ in VERSIONS


def test_its_data_are_the_same_data(released):
    digits = data.load(path=released / "pictures")
    assert digits.shape == (4, 4)
    for run in runs.find(released / "study"):
        assert run.record.data.digest == digits.digest


def test_its_study_opens(released):
    study = runs.study(released / "study")
    assert (study.name, study.seeds) == ("released", 2)
    assert [experiment.name for experiment in study.experiments] == ["everything"]
    assert study.experiments[0].published.val_accuracy == 0.9


def test_its_pictures_open(released):
    digits = data.load(path=released / "pictures")
    kept = album.find(released / "study", digits.digest)
    assert np.array_equal(kept.test_images, digits.test_images)
    assert np.array_equal(kept.test_labels, digits.test_labels)
    assert kept.description["test"]["count"] == 40
    assert kept.means.shape == (10, 4, 4)


def test_its_finished_run_opens(released):
    run = Run.open(released / "study" / "everything-s0")
    assert (run.status, run.seed, run.ended) == ("finished", 0, True)
    assert run.experiment.digest == run.record.experiment_digest
    assert run.network.count == run.record.parameters
    assert [row.epoch for row in run.metrics] == [1, 2]
    assert all(0 < row.val_loss < 5 for row in run.metrics)
    assert run.environment["threads"] == 1
    said = run.predictions()
    assert (said.predicted == said.labels).mean() == run.record.test_accuracy


def test_its_digests_are_those_of_today(released):
    """Keys that came since are left out, or no run of this version would go on."""
    for run in runs.find(released / "study"):
        assert run.experiment.digest == run.record.experiment_digest
        smoothed = run.experiment.with_overrides(["label_smoothing=0.1"])
        assert smoothed.digest != run.record.experiment_digest


def test_its_weights_still_say_the_same(released):
    run = Run.open(released / "study" / "everything-s0")
    images = data.load(path=released / "pictures").test_images
    said, _ = evaluate(run.network, run.weights(), images, engine="plain")
    np.testing.assert_allclose(said, run.predictions().probabilities, atol=1e-5)


def test_its_model_reads(released):
    """Models are packed since 0.3.0."""
    if not (released / MODEL).exists():
        assert released.name in ("0.1.0", "0.2.0")
        return
    model = Model.load(released / MODEL)
    images = data.load(path=released / "pictures").test_images
    said = Recogniser(model, engine="plain").probabilities(images)
    run = Run.open(released / "study" / "everything-s0")
    told = calibration.temper(run.predictions().probabilities, model.card.temperature)
    np.testing.assert_allclose(said, told, atol=1e-5)


def test_its_interrupted_run_opens(released):
    run = Run.open(released / "study" / "everything-s1")
    assert (run.status, run.ended, len(run.metrics)) == ("interrupted", False, 1)
    saved = run.checkpoint()
    assert (saved.progress["epoch"], saved.progress["step"]) == (1, 3)
    assert saved.best.keys() == run.network.parameters.keys()
    assert any(name.startswith("slots/velocity/") for name in saved.state)


def test_its_study_goes_on_to_the_end(released, tmp_path):
    torch_or_skip()
    shutil.copytree(released / "study", tmp_path / "study")
    digits = data.load(path=released / "pictures")
    study = runs.study(tmp_path / "study")
    outcome = studies.run(study, digits, out=tmp_path / "study", threads=1)
    assert [run.status for run in outcome.ended] == ["finished", "finished"]
    assert [len(run.metrics) for run in outcome.ended] == [2, 2]


def test_this_version_writes_the_same_kinds_of_files(tmp_path):
    trainer_or_skip()
    pytest.importorskip("sklearn", reason="needs scikit-learn's digits: rowwise[study]")
    make(tmp_path)
    assert_whole(tmp_path / "study")
    kinds = {
        path.relative_to(place)
        for place in (tmp_path, RELEASED / __version__)
        for path in place.rglob("*")
        if path.is_file()
    }
    assert all((tmp_path / kind).exists() for kind in kinds)
    assert all((RELEASED / __version__ / kind).exists() for kind in kinds)

"""A model of a run: calibrated on what the run held out, and on nothing else."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import small_training
from small_training import DATA, OTHER_DATA, StopAfter, experiment, one_step_a_call, train

from rowwise import calibration, metrics, session
from rowwise.errors import ModelError
from rowwise.model import Model
from rowwise.packing import pack
from rowwise.runs import Run

pytest.importorskip("scipy", reason="needs SciPy: pip install 'rowwise[study]'")
small_training.trainer_or_skip()

HELD_OUT = experiment(
    validation=0.3,
    epochs=15,
    layers=[{"kind": "lstm", "units": 12}],
    optimizer={"kind": "adam", "learning_rate": 0.02},
    augmentation={"shift_px": 0.5, "outlier_share": 0.1},
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("packing") / "run"
    train(HELD_OUT, out=folder)
    return Run.open(folder)


def test_a_model_is_calibrated_on_the_pictures_that_its_run_held_out(run):
    model = pack(run, DATA, error_rates=(0.7, 0.001), threads=1)
    held = session.parts(HELD_OUT, DATA).validation
    told = session.beliefs(
        "plain", run.network, run.weights(), held.images, threads=1, stop=lambda: False
    )[:, -1]
    temperature = calibration.fit_temperature(held.labels, told)
    assert model.card.temperature == pytest.approx(temperature, rel=1e-3)
    figures = dict(model.card.figures)
    assert figures["held-out accuracy"] == metrics.accuracy(held.labels, told)
    (promise,) = model.card.promises  # one in a thousand is too much for 45 pictures
    assert promise.error_rate == 0.7
    tempered = calibration.temper(told, temperature)
    accepted = tempered.max(1) >= promise.confidence
    assert promise.pictures == 45
    assert figures["held-out accuracy"] > 0.5
    assert promise.accepted == pytest.approx(accepted.sum(), abs=1)
    wrong = (accepted & (tempered.argmax(1) != held.labels)).sum()
    assert promise.wrong == pytest.approx(wrong, abs=1)


def test_a_model_keeps_the_runs_weights_and_says_where_it_comes_from(run, tmp_path):
    model = pack(run, DATA, threads=1)
    model.save(tmp_path / "m.safetensors")
    found = Model.load(tmp_path / "m.safetensors")
    for name, value in run.weights().items():
        np.testing.assert_array_equal(found.weights[name], value)
    card = found.card
    assert (card.name, card.seed, card.data_digest) == ("small", 0, DATA.digest)


def test_the_test_pictures_are_not_read(run):
    blind = replace(DATA, test_images=np.zeros_like(DATA.test_images))
    assert pack(run, blind, threads=1).card == pack(run, DATA, threads=1).card


def test_what_cannot_be_calibrated_is_refused(run, tmp_path, monkeypatch):
    with pytest.raises(ModelError, match=r"calibrated on the data of its run, .* got"):
        pack(run, OTHER_DATA)
    train(experiment(epochs=1), out=tmp_path / "none")
    with pytest.raises(ModelError, match=r"held out none; train it with --set validation=0\.1"):
        pack(Run.open(tmp_path / "none"), DATA)
    one_step_a_call(monkeypatch)
    train(HELD_OUT, out=tmp_path / "part", stop=StopAfter(2))
    with pytest.raises(ModelError, match=r"made of a finished run, .* is interrupted"):
        pack(Run.open(tmp_path / "part"), DATA)


def test_the_command_packs_and_says_what_is_promised(run, tmp_path, monkeypatch, capsys):
    from rowwise import cli, data

    monkeypatch.setattr(data, "load", lambda *arguments, **options: DATA)
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.main(["pack", str(run.folder), "--threads", "1", *words])
        assert ended.value.code == 0
        return capsys.readouterr().out

    assert call().startswith("small.safetensors: small (")
    told = json.loads(call("--json", "--out", "other.safetensors"))
    assert told["file"] == "other.safetensors"
    assert told["temperature"] == Model.load("small.safetensors").card.temperature
    assert Model.load("other.safetensors").card == Model.load("small.safetensors").card

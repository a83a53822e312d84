"""A model is calibrated on what was not learnt from, read as a recogniser reads it."""

from __future__ import annotations

import json
from dataclasses import replace

import made_models
import numpy as np
import pytest
import small_training
from made_models import field
from small_training import DATA, OTHER_DATA, StopAfter, experiment, one_step_a_call, train

from rowwise import blend, calibration, data, image, packing, session
from rowwise.data import Dataset, Labelled
from rowwise.errors import ModelError
from rowwise.model import Card, Model
from rowwise.network import Network
from rowwise.packing import opened, pack
from rowwise.recognise import Recogniser
from rowwise.runs import Run

pytest.importorskip("scipy", reason="needs SciPy: pip install 'rowwise[study]'")

HELD_OUT = experiment(validation=0.3, epochs=1)
LOOSE = (0.05, 0.001)


def made_data(name: str = "made", *, seed: int = 0, count: int = 500) -> Dataset:
    """Digits like MNIST's, more or less dark; each is what the model reads in it, or the next."""
    rng = np.random.default_rng(seed)
    digits = [field(d, width=w) for w in np.arange(0.05, 0.15, 0.01) for d in range(10)]
    digits = np.stack([one for one in digits if image.is_mnist((0.83 * one).astype(np.uint8))])
    shades = rng.uniform(0.83, 1, (count, 1, 1))
    images = (digits[np.arange(count) % len(digits)] * shades).astype(np.uint8)
    readings = Recogniser(made_models.best(), threads=1).read_many(images)
    labels = np.asarray([one.digit for one in readings])
    sure = np.asarray([one.confidence for one in readings])
    wrong = (rng.random(count) < 0.8) & (sure < np.quantile(sure, 0.15))
    labels[wrong] = (labels[wrong] + 1) % 10
    test = count // 10
    parts = images[test:], labels[test:], images[:test], labels[:test]
    return Dataset(name, *parts, made_models.DIGITS, "made up", f"{seed:x}".ljust(64, "b"))


MADE, OTHERS = made_data(), made_data("others", seed=1)
HELD = data.split(MADE.train_labels, share=0.3)[1]


def learnt(seen: Dataset = MADE, *, validation: float | str = 0.3, **card) -> Model:
    """A model whose training saw a data set."""
    model = made_models.best(data=seen.name, data_digest=seen.digest, **card)
    told = model.network.experiment.model_copy(update={"validation": validation})
    return Model(Network(told, (28, 28), 10), model.weights, model.classes, model.card)


def packed(model: Model, seen: Dataset, error_rates=LOOSE) -> Model:
    return pack(model, seen, error_rates=error_rates, threads=1)


def check(model: Model, images, labels, *, rate: float = 0.05) -> None:
    """The card is that of what a recogniser reads in these pictures."""
    cold = Model(model.network, model.weights, model.classes, Card(name="cold"))
    told = np.stack([r.probabilities for r in Recogniser(cold, threads=1).read_many(images)])
    card = model.card
    assert card.temperature == pytest.approx(calibration.fit_temperature(labels, told), rel=1e-3)
    readings = Recogniser(model, error_rate=rate, threads=1).read_many(images)
    accepted = np.asarray([one.accepted for one in readings])
    wrong = np.asarray([one.digit for one in readings]) != labels
    promise = card.promise(rate)
    assert promise.pictures == len(labels)
    assert 0 < promise.accepted < len(labels)
    assert promise.accepted == accepted.sum()
    assert promise.wrong == (accepted & wrong).sum()
    assert card.figures[0][1] == pytest.approx(1 - wrong.mean())


# --- on which pictures ------------------------------------------------------------------------


def test_on_its_own_data_it_is_calibrated_on_what_its_training_held_out():
    model = packed(learnt(), MADE)
    check(model, MADE.train_images[HELD], MADE.train_labels[HELD])
    held = session.parts(model.network.experiment, MADE).validation
    np.testing.assert_array_equal(held.images, MADE.train_images[HELD])
    assert [one.error_rate for one in model.card.promises] == [0.05]  # too few for the other
    assert [name.split()[0] for name, _ in model.card.figures] == ["held-out", "held-out"]
    blind = replace(MADE, test_images=np.zeros_like(MADE.test_images))
    assert packed(learnt(), blind).card == model.card


def test_on_other_data_all_its_training_pictures_are_taken():
    model = packed(learnt(validation="test"), OTHERS)
    rest, _ = data.split(OTHERS.train_labels, share=packing.SHARE)
    check(model, OTHERS.train_images[rest], OTHERS.train_labels[rest])
    assert model.card.figures[0][0] == "others accuracy"
    assert (model.card.data, model.card.data_digest) == (MADE.name, MADE.digest)
    # What was added to the first data set is there several times: no evidence of its own.
    more = Labelled(OTHERS.train_images[:9], OTHERS.train_labels[:9], OTHERS.classes, "nine")
    joined = blend.add(OTHERS, more, name="nine")
    assert packed(learnt(), joined).card.promises == model.card.promises


def test_data_that_is_partly_what_was_learnt_from_is_refused():
    more = Labelled(MADE.train_images[:9], MADE.train_labels[:9], MADE.classes, "nine")
    joined = blend.add(MADE, more, name="nine")
    for model, seen in ((learnt(), joined), (learnt(joined), MADE)):
        with pytest.raises(ModelError, match=r"or on other data, .* shares made; leave that out"):
            pack(model, seen, threads=1)
    assert packed(learnt(joined), joined).card.promises


# --- what is promised -------------------------------------------------------------------------


def test_a_model_is_calibrated_anew():
    once = packed(learnt(), MADE)
    stale = learnt(temperature=7.0, promises=(made_models.PROMISE,), version="0.1.0")
    assert packed(stale, MADE).card == once.card.model_copy(update={"version": "0.1.0"})
    assert packed(once, MADE).card == once.card
    for name, value in once.weights.items():
        np.testing.assert_array_equal(value, learnt().weights[name])


def test_what_is_not_read_is_left_out():
    blank = MADE.train_images.copy()
    blank[HELD[:20]] = 0
    model = packed(learnt(), replace(MADE, train_images=blank))
    assert model.card.promise(0.05).pictures == len(HELD) - 20
    whole = packed(learnt(), MADE)
    assert model.card.figures[0][1] < whole.card.figures[0][1] - 0.05
    with pytest.raises(ModelError, match="made has none that can be read"):
        pack(learnt(), replace(MADE, train_images=np.zeros_like(blank)), threads=1)


def test_it_is_for_the_present_way_of_reading(monkeypatch):
    old = packed(learnt(), MADE)
    monkeypatch.setattr(image, "READER", image.READER + 1)
    assert old.card.kept == ()
    card = packed(old, MADE).card
    assert card.reader == image.READER
    assert card.kept == old.card.promises


# --- of runs ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    small_training.trainer_or_skip()
    folder = tmp_path_factory.mktemp("packing") / "run"
    train(HELD_OUT, out=folder)
    return Run.open(folder)


def test_a_model_keeps_the_runs_weights_and_says_where_it_comes_from(run, tmp_path):
    model = pack(run, DATA, threads=1)
    model.save(tmp_path / "m.safetensors")
    found = Model.load(tmp_path / "m.safetensors")
    for name, value in run.weights().items():
        np.testing.assert_array_equal(found.weights[name], value)
    card = found.card
    assert (card.name, card.seed, card.data_digest) == ("small", 0, DATA.digest)


def test_what_cannot_be_calibrated_is_refused(run, tmp_path, monkeypatch):
    letters = replace(OTHER_DATA, classes=tuple("abcdefghij"))
    with pytest.raises(ModelError, match=r"pictures of its classes \(0, 1, .*made has a, b, "):
        pack(run, letters)
    with pytest.raises(ModelError, match=r"on the very data that it learnt from"):
        pack(run, OTHER_DATA)  # of the same name
    train(experiment(epochs=1), out=tmp_path / "none")
    with pytest.raises(ModelError, match=r"held out none; train it with --set validation=0\.1"):
        pack(Run.open(tmp_path / "none"), DATA)
    one_step_a_call(monkeypatch)
    train(HELD_OUT, out=tmp_path / "part", stop=StopAfter(2))
    with pytest.raises(ModelError, match=r"made of a finished run, .* is interrupted"):
        pack(Run.open(tmp_path / "part"), DATA)
    with pytest.raises(ModelError, match=r"made of a finished run, .* is interrupted"):
        opened(tmp_path / "part")


# --- the command ------------------------------------------------------------------------------


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """`rowwise pack …`; whatever is known by a name is a made data set."""
    from rowwise import cli

    def called(*words: object, found: Dataset = MADE, code: int = 0) -> str:
        monkeypatch.setattr(data, "load", lambda *arguments, **options: found)
        with pytest.raises(SystemExit) as ended:
            cli.main(["pack", *map(str, words), "--threads", "1"])
        told = capsys.readouterr()
        assert ended.value.code == code, told.err
        return told.err if code else told.out

    monkeypatch.setitem(pack.__kwdefaults__, "error_rates", LOOSE)
    monkeypatch.chdir(tmp_path)
    return called


def test_the_command_packs_a_run(run, call):
    assert call(run.folder, found=DATA).startswith("small.safetensors: small (")
    told = json.loads(call(run.folder, "--json", "--out", "other.safetensors", found=DATA))
    assert told["file"] == "other.safetensors"
    assert told["temperature"] == Model.load("small.safetensors").card.temperature
    assert Model.load("other.safetensors").card == Model.load("small.safetensors").card


def test_the_command_packs_a_model_that_ships_and_a_file(call, tmp_path, monkeypatch):
    made_models.ship(tmp_path / "models", monkeypatch, learnt())
    told = call("best")
    assert "held-out accuracy: " in told
    assert "at most 5 % wrong: accepted from a confidence of" in told
    assert "at most 0.1 % wrong: not promised" in told
    assert "an output overwrites no input" in call("best.safetensors", code=1)
    call("best.safetensors", "--out", "again.safetensors")
    assert Model.load("again.safetensors").card == Model.load("best.safetensors").card
    assert Model.load("again.safetensors").card.promises
    learnt(replace(MADE, name="")).save(tmp_path / "imported.safetensors")
    told = call("imported.safetensors", code=1)
    assert "learned from data that it does not name, not found by a name" in told

"""A model as a file: what was saved is read again, what is no model is refused by name."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.numpy
import small_training
from small_training import experiment, train

from rowwise import image
from rowwise import model as models
from rowwise.config import shipped_studies
from rowwise.errors import ModelError
from rowwise.model import Card, Model, Promise
from rowwise.network import Network

CLASSES = tuple("0123456789")
PROMISE = Promise(
    error_rate=0.001, level=0.95, confidence=0.9, pictures=6000, accepted=5800, wrong=1
)
CARD = Card(
    name="small",
    temperature=1.5,
    promises=(PROMISE,),
    data="mnist",
    seed=3,
    reader=image.READER,
)


def made() -> Model:
    network = Network(experiment(), (6, 5), 10)
    return Model(network, network.initialise(seed=3), CLASSES, CARD)


def test_a_saved_model_is_read_again(tmp_path):
    made().save(tmp_path / "small.safetensors")
    found = Model.load(tmp_path / "small.safetensors")
    assert found.card == CARD
    assert found.name == "small"
    assert found.classes == CLASSES
    assert found.network.experiment == experiment()
    for name, value in made().weights.items():
        np.testing.assert_array_equal(found.weights[name], value)


def test_a_promise_is_found_by_its_error_rate():
    assert CARD.promise(0.001) == PROMISE
    assert CARD.promise(0.002) is None
    assert CARD.why_not() == ""


def test_a_card_of_before_was_made_for_the_first_way_of_reading(monkeypatch):
    told = {"name": "old", "promises": [PROMISE.model_dump()]}
    card = Card.model_validate(told)
    assert card.reader == 1
    for reader, kept in ((1, (PROMISE,)), (2, ())):
        monkeypatch.setattr(image, "READER", reader)
        assert card.kept == kept
        assert (card.promise(0.001) is None) == (not kept)
        assert ("an older way" in card.why_not()) == (not kept)


def test_a_run_is_a_model_that_promises_nothing(tmp_path):
    small_training.trainer_or_skip()
    result = train(experiment(epochs=1), out=tmp_path / "run")
    found = Model.load(tmp_path / "run")
    assert found.name == "small"
    assert found.card.promises == ()
    for name, value in result.weights.items():
        np.testing.assert_array_equal(found.weights[name], value)


def test_every_model_that_ships_is_of_an_experiment_that_ships():
    study = {one.name: one for one in shipped_studies()["recognisers"].experiments}
    assert all(one.validation == 0.1 for one in study.values())
    assert study["rows"].target_replication > 0
    for name in models.shipped():
        found = Model.load(name)
        seed = {"seed": found.card.seed}
        assert found.network.experiment == study[name].model_copy(update=seed)
        assert found.name == name


def rewritten(path, **changes):
    """The file at `path` with other metadata."""
    with safetensors.safe_open(path, framework="numpy") as file:
        told = file.metadata()
    weights = safetensors.numpy.load_file(path)
    kept = {k: v for k, v in {**told, **changes}.items() if v is not None}
    path.write_bytes(safetensors.numpy.save(weights, kept))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "another"}, "must be of the format rowwise model 1, got 'another'"),
        ({"card": None}, "is damaged: it lacks the network's description"),
        ({"card": "{"}, "is damaged: its card: it is not valid JSON"),
        ({"shape": "[6]"}, "is damaged: it lacks the network's description"),
        ({"classes": "7"}, "is damaged: it lacks the network's description"),
        ({"shape": "[1e999, 6]"}, "is damaged: its shape: it is not valid JSON (it: a number is"),
        ({"shape": "[true, 6]"}, "must have the shape"),
        ({"card": "[" * 5000}, "is damaged: its card: it is not valid JSON"),
        ({"card": "[" * 60 + "]" * 60}, "should be a table of keys"),
        ({"shape": "[7, 6]"}, "must have the shape"),
        ({"card": json.dumps({"name": "x", "temperature": 0})}, "temperature: should be greater"),
        ({"card": json.dumps({"name": "x", "code": "print()"})}, "unknown key 'code'"),
        ({"experiment": json.dumps({"name": "x"})}, "a network needs at least one layer"),
    ],
)
def test_a_file_with_other_metadata_is_refused_in_one_line(changes, message, tmp_path):
    path = tmp_path / "small.safetensors"
    made().save(path)
    rewritten(path, **changes)
    with pytest.raises(ModelError, match=r"small\.safetensors") as caught:
        Model.load(path)
    assert message in str(caught.value)


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "small.safetensors"
    made().save(path)
    whole = path.read_bytes()
    for size in (0, 7, 8, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError, match="is damaged"):
            Model.load(path)


def test_what_is_no_model_is_refused_with_what_there_is(tmp_path):
    for place in ("bset", tmp_path, tmp_path / "none"):
        with pytest.raises(ModelError, match="a model is one that ships"):
            Model.load(place)

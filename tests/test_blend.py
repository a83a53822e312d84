"""Data sets learnt from as one, and trainings that start from a model: nothing held out is touched,
and a correction is learnt without forgetting."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import made_models
import made_pictures
import made_study
import numpy as np
import pytest
from made_models import DIGITS, field
from small_training import trainer_or_skip

from rowwise import blend, corrections, data, session, start
from rowwise.data import Labelled
from rowwise.errors import DataError, ModelError, RunError
from rowwise.model import Model
from rowwise.network import Network
from rowwise.recognise import Recogniser
from rowwise.train import Start, evaluate, fit

trainer_or_skip()

FIRST = made_study.dataset(shape=(28, 28), train=400, test=90)
FINE = ("--threads", "1", "--json")


def labelled(*digits: int) -> Labelled:
    images = np.stack([field(d) for d in digits])
    return Labelled(images, np.array(digits, np.int64), DIGITS, "mine")


def saved(folder: Path, whole: data.Dataset) -> Path:
    """A data set as a file that `data.load` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        "x_train": whole.train_images, "y_train": whole.train_labels.astype(np.uint8),
        "x_test": whole.test_images, "y_test": whole.test_labels.astype(np.uint8),
    }  # fmt: skip
    np.savez(folder / "made.npz", **parts)
    return folder / "made.npz"


# --- joined ------------------------------------------------------------------------------------


def test_what_is_added_stands_last_and_is_repeated():
    joined = blend.add(FIRST, labelled(7, 1, 7), name="mine")
    times = joined.added // 3
    assert times == 8  # 24 of 424 is the first that is 5 %
    np.testing.assert_array_equal(joined.train_images[:400], FIRST.train_images)
    for i in range(times):
        cut = slice(400 + 3 * i, 403 + 3 * i)
        np.testing.assert_array_equal(joined.train_images[cut], labelled(7, 1, 7).images)
        assert joined.train_labels[cut].tolist() == [7, 1, 7]
    assert joined.test_images is FIRST.test_images
    assert joined.name == "made+mine"
    assert joined.source == "made up + mine (3 pictures, 8 times)"
    assert not joined.train_images.flags.writeable


def test_repeating_has_its_bounds():
    many = Labelled(FIRST.train_images, FIRST.train_labels, DIGITS, "again")
    assert blend.add(FIRST, many, name="b").added == 400
    large = made_study.dataset(shape=(2, 2), train=60_000)
    one = Labelled(large.train_images[:1], large.train_labels[:1], DIGITS, "one")
    assert blend.add(large, one, name="b").added == 100


def test_each_addition_has_its_digest():
    one = blend.add(FIRST, labelled(7), name="a")
    digests = {
        FIRST.digest,
        one.digest,
        blend.add(FIRST, labelled(1), name="a").digest,
        blend.add(one, labelled(7), name="a").digest,
        blend.add(FIRST, replace(labelled(7), labels=np.array([1])), name="a").digest,
    }
    assert len(digests) == 5
    assert blend.add(FIRST, labelled(7), name="b").digest == one.digest


def test_nothing_added_is_held_out():
    held = made_study.experiment("a", validation=0.25)
    joined = blend.add(FIRST, labelled(7, 1, 3), name="mine")
    before, after = session.parts(held, FIRST), session.parts(held, joined)
    np.testing.assert_array_equal(after.validation.images, before.validation.images)
    count = len(before.train.labels)
    np.testing.assert_array_equal(after.train.images[:count], before.train.images)
    assert len(after.train.labels) == count + joined.added


def test_places_are_files_folders_and_names(home, tmp_path):
    first = saved(tmp_path / "first", FIRST)
    corrections.keep(tmp_path / "mine", field(7), label="7", classes=DIGITS)
    joined = blend.load([str(first), str(tmp_path / "mine")])
    assert joined.name == "made+mine"
    assert joined.train_labels[400:].tolist() == [7] * 22
    np.testing.assert_array_equal(joined.train_images[-1], field(7))
    small = blend.load(["digits", "digits"])
    assert small.shape == (8, 8)
    assert small.added == len(data.load("digits").train_labels)
    Path("digits").mkdir()
    with pytest.raises(DataError, match="digits: expected four IDX files"):
        blend.load(["digits"])


@pytest.mark.parametrize(
    ("places", "told"),
    [
        (["{first}", "nowhere"], "nowhere: expected a file or folder of data, found nothing"),
        (
            ["{first}", "digits"],
            r"digits: expected the classes and size of made \(.*28×28\), .*8×8",
        ),
        (["{first}", "{letters}"], r"expected the classes of the network \(0, 1, .*\), found a"),
        (
            ["{mine}"],
            "hold out 20% of them, found 1; give more, or add .* --data mnist --data mine",
        ),
    ],
)
def test_what_does_not_fit_is_refused(home, tmp_path, places, told):
    at = {"first": saved(tmp_path / "first", FIRST)} | {
        name: tmp_path / name for name in ("mine", "letters")
    }
    corrections.keep(at["mine"], field(7), label="7", classes=DIGITS)
    corrections.keep(at["letters"], field(7), label="a", classes=("a", "b"))
    with pytest.raises(DataError, match=told):
        blend.load([place.format(**at) for place in places])


# --- from a model ------------------------------------------------------------------------------


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    models = made_models.rows(), made_models.best()
    return made_models.ship(tmp_path / "models", monkeypatch, *models)


def test_a_start_is_a_model_by_name_its_file_or_a_run(shipped, home, tmp_path):
    for place in ("rows", str(shipped / "rows.safetensors")):
        found = start.find(place)
        assert found.source == place
        assert (found.experiment.name, found.classes, found.shape) == ("rows", DIGITS, (28, 28))
    result = fit(made_study.experiment("a", epochs=1), FIRST, out=tmp_path / "a-s0", threads=1)
    found = start.find(str(tmp_path / "a-s0"))
    np.testing.assert_array_equal(found.weights["dense.kernel"], result.weights["dense.kernel"])
    with pytest.raises(
        RunError, match=r"a model that ships \(best, rows\), .* nowhere is not there"
    ):
        start.find("nowhere")
    (tmp_path / "text").write_text("no model")
    with pytest.raises(ModelError, match="text"):
        start.find(str(tmp_path / "text"))


@pytest.mark.parametrize(
    ("classes", "shape", "told"),
    [
        (DIGITS, (28, 20), "reads pictures of 28 x 28, got 28 x 20 from made; name other --data"),
        (
            DIGITS[:5],
            (28, 28),
            r"knows 10 classes \(0, .*\), got 5 from made \(0, 1, 2, 3, 4\); wh",
        ),
        (DIGITS[::-1], (28, 28), "its classes stand in the order 0, 1, .* in another; write that"),
    ],
)
def test_data_that_do_not_fit_the_model_are_refused(classes, shape, told):
    model = made_models.rows()
    given = Start(model.weights, "rows", model.network.experiment, DIGITS, (28, 28))
    start.check(given, FIRST)
    start.check(given, made_study.dataset(classes=tuple("abcdefghij"), shape=(28, 28)))
    with pytest.raises(ModelError, match=f"--init-from rows: .*{told}"):
        start.check(given, made_study.dataset(classes=classes, shape=shape))


def test_training_starts_from_a_model_and_its_own_experiment(shipped, rowwise, tmp_path):
    place = saved(tmp_path / "first", FIRST)
    answer = rowwise("train", "--init-from", "rows", "--data", place, *FINE)
    assert answer.code == 0, answer.err
    told = json.loads(Path("runs/rows-s0/run.json").read_text())
    assert told["initialised_from"] == "rows"
    own = Path("runs/rows-s0/experiment.json").read_text()
    recipe = Model.load("rows").network.experiment
    rate = recipe.optimizer.learning_rate / 10
    expected = recipe.with_overrides(["epochs=2", f"optimizer.learning_rate={rate}"])
    assert json.loads(own) == json.loads(expected.model_dump_json())
    assert f"going on from rows: epochs=2, learning rate {rate:g}" in answer.err
    assert rowwise("train", "--data", place).code == 2


def test_a_run_on_joined_data_is_packed_with_the_same_data(shipped, rowwise, tmp_path):
    digits = [made_pictures.mnist_like(made_pictures.drawn(digit)) for digit in range(10)]
    read = replace(  # pictures that a recogniser takes for one digit each
        FIRST, train_images=np.stack(digits * 40), train_labels=np.arange(400) % 10
    )
    place, mine = saved(tmp_path / "first", read), tmp_path / "mine"
    corrections.keep(mine, field(7), label="7", classes=DIGITS)
    both = ("--data", place, "--data", mine)
    assert (
        rowwise("train", "--init-from", "rows", *both, *FINE, "--set", "validation=0.2").code == 0
    )
    alone = rowwise("pack", "runs/rows-s0")
    assert alone.code == 1
    assert "several data sets" in alone.err
    assert "name the same ones in the same order with --data" in alone.err
    answer = rowwise("pack", "runs/rows-s0", *both, "--out", "mine.safetensors")
    assert answer.code == 0, answer.err
    assert Model.load("mine.safetensors").card.data == "made+mine"
    corrections.keep(mine, field(1), label="1", classes=DIGITS)
    other = rowwise("pack", "runs/rows-s0", *both).err
    assert "is calibrated on the very data that it learnt from" in other


@pytest.mark.slow
def test_the_real_rows_learns_a_correction_and_forgets_nothing(home, mnist, tmp_path):
    """Three test images that it misread are read after two epochs, and the others as before."""
    before = Recogniser.load("rows", threads=2)
    said = before.probabilities(mnist.test_images).argmax(1)
    misread = np.flatnonzero(said != mnist.test_labels)[:3]
    for i in misread:
        label = str(mnist.test_labels[i])
        corrections.keep(tmp_path / "mine", mnist.test_images[i], label=label, classes=DIGITS)
    part = data.load_labelled(tmp_path / "mine", classes=DIGITS, shape=(28, 28), part="train")
    few = mnist.train_images[:12_000], mnist.train_labels[:12_000]
    less = data.Dataset("few", *few, mnist.test_images, mnist.test_labels, DIGITS, "", "a" * 64)
    found = start.find("rows")
    chosen = start.onward(found.experiment)
    result = fit(chosen, blend.add(less, part, name="mine"), init_from=found)
    after = evaluate(before.model.network, result.weights, mnist.test_images)[0].argmax(1)
    assert (after[misread] == mnist.test_labels[misread]).sum() >= 2
    wrong = [(one != mnist.test_labels).sum() for one in (said, after)]
    assert wrong[1] <= wrong[0] + 15


def test_a_correction_is_learnt_and_nothing_is_forgotten(tmp_path):
    taught = fit(_quick(), FIRST, threads=1)
    assert taught.test_accuracy is not None
    picture, label = FIRST.test_images[0], int(FIRST.test_labels[0])
    other = (label + 3) % 10
    odd = np.roll(picture, 3, axis=0)  # in the likeness of no class
    assert _says(taught.weights, odd) != other
    corrections.keep(tmp_path / "mine", odd, label=str(other), classes=DIGITS)
    part = data.load_labelled(tmp_path / "mine", classes=DIGITS, shape=(28, 28), part="train")
    again = fit(_quick(), blend.add(FIRST, part, name="mine"), init_from=taught.weights, threads=1)
    assert _says(again.weights, odd) == other
    assert again.test_accuracy is not None
    assert again.test_accuracy >= taught.test_accuracy - 0.02


def _quick():
    return made_study.experiment("quick", units=24, epochs=6, batch=20).with_overrides(
        ["optimizer.learning_rate=0.01"]
    )


def _says(weights, picture) -> int:
    network = Network(_quick(), (28, 28), 10)
    return int(evaluate(network, weights, picture[None], threads=1)[0].argmax())

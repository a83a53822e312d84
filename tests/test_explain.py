"""Explaining: the belief by row, the ink that mattered, the digits that are like it; and the truth
of each."""

from __future__ import annotations

import made_models
import made_study
import numpy as np
import pytest
from made_models import field, page

from rowwise import data, explain, image
from rowwise.errors import DataMissing, ModelError
from rowwise.explain import decision, importance, log_odds
from rowwise.recognise import Recogniser


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    """No test sees the training pictures of another."""
    monkeypatch.setattr(explain, "_kept", {})


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    made_models.ship(tmp_path / "models", monkeypatch, made_models.rows(), made_models.best())


# --- belief by row ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "row"),
    [([3, 3, 3], 1), ([1, 3, 3], 2), ([3, 3, 1], 3), ([3, 1, 3], 3), ([2, 3, 1, 3, 3, 3], 4)],
)
def test_the_decision_is_the_row_from_which_on_the_answer_stays(answers, row):
    beliefs = np.full((len(answers), 5), 0.1, np.float32)
    beliefs[np.arange(len(answers)), answers] = 0.6
    assert decision(beliefs) == row


def test_the_row_reader_explains_itself():
    reader = Recogniser(made_models.rows(), threads=1)
    told = reader.explain(page(5))
    assert told.belief_model == "rows"
    assert told.remark == ""
    assert told.beliefs.shape == (28, 10)
    np.testing.assert_allclose(told.beliefs.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(told.beliefs[-1], told.reading.probabilities, atol=1e-5)
    assert told.decided_at == decision(told.beliefs)
    assert told.beliefs[told.decided_at - 1 :].argmax(1).tolist() == (
        [told.reading.digit] * (29 - told.decided_at)
    )


def test_beliefs_of_a_model_that_answers_once_are_those_of_rows(shipped):
    reader = Recogniser.load("best", threads=1)
    alone = Recogniser.load("rows", threads=1)
    remarks = set()
    for d in range(10):
        told = reader.explain(page(d))
        seen = image.normalise(page(d)).digit
        np.testing.assert_allclose(told.beliefs, alone.beliefs(seen[None])[0], atol=1e-5)
        assert told.belief_model == "rows"
        end = int(told.beliefs[-1].argmax())
        assert bool(told.remark) == (end != told.reading.digit)
        if told.remark:
            share = f"{100 * told.beliefs[-1, end]:.0f} %"
            assert told.remark == (
                f"rows, which reads row by row, ends with {end} ({share}); "
                f"best read {told.reading.digit}"
            )
        remarks.add(bool(told.remark))
    assert remarks == {True, False}, "the seeds must give pictures of both kinds"


def test_without_rows_there_is_no_explanation(tmp_path, monkeypatch):
    made_models.ship(tmp_path / "models", monkeypatch, made_models.best())
    with pytest.raises(ModelError, match="got 'rows'"):
        Recogniser.load("best", threads=1).explain(page(5))


def test_rows_says_nothing_of_classes_that_it_does_not_know(shipped):
    letters = made_models.best(name="letters")
    letters.classes = tuple("abcdefghij")
    told = Recogniser(letters, threads=1).explain(page(5))
    assert told.beliefs.shape == (0, 10)
    assert told.decided_at is None
    assert told.remark == "no belief by row: rows, which has one, knows other classes"
    assert told.classes == letters.classes
    assert told.ink.max() == 1


def test_of_a_picture_without_ink_the_steps_are_told():
    reader = Recogniser(made_models.rows(), threads=1)
    told = reader.explain(np.full((60, 40), 200, np.uint8))
    assert told.reading.digit is None
    assert told.remark == image.NO_INK
    assert told.beliefs.shape == (0, 10)
    assert not told.ink.any()
    assert told.neighbours == ()
    assert told.picture.shape == (60, 40)
    assert [step.name for step in told.steps] == ["grey"]


def test_the_steps_are_those_of_the_picture():
    reader = Recogniser(made_models.rows(), threads=1)
    told = reader.explain(page(7, "ruled"))
    assert [s.name for s in told.steps] == [
        s.name for s in image.normalise(page(7, "ruled"), steps=True).steps
    ]
    np.testing.assert_array_equal(told.steps[-1].picture, told.reading.picture)
    np.testing.assert_array_equal(told.picture, page(7, "ruled"))


# --- which ink mattered -----------------------------------------------------------------------


def test_log_odds_are_against_the_likeliest_other():
    p = np.array([[0.2, 0.5, 0.3], [0.9, 0.06, 0.04]], np.float32)
    np.testing.assert_allclose(log_odds(p, 0), [np.log(0.2 / 0.5), np.log(0.9 / 0.06)], rtol=1e-5)
    assert np.isfinite(log_odds(np.array([[0, 1, 0]], np.float32), 0)).all()


def test_the_ink_that_a_network_looks_at_is_found():
    reader = Recogniser(made_models.looker(), threads=1)
    digit = field(1)
    assert digit[4:10].any()
    assert digit[14:].any()
    assert reader.read(digit).digit == 1
    found = importance(reader, digit, 1)
    assert found.dtype == np.float32
    assert found.max() == 1
    assert found.min() == 0
    assert not found[digit == 0].any()
    inked = digit >= explain.LEAST_INK
    # Windows of up to five pixels reach four rows beyond what the network looks at.
    assert not found[14:].any()
    assert found[4:10][inked[4:10]].min() > 0.1
    assert found[4:9][inked[4:9]].mean() > 5 * found[10:][inked[10:]].mean()


def test_taking_the_ink_that_mattered_takes_the_reading_away():
    reader = Recogniser(made_models.looker(), threads=1)
    digit = field(1)
    order = np.argsort(-importance(reader, digit, 1), axis=None)
    most = digit.copy()
    most.ravel()[order[: int((digit > 0).sum() * 0.4)]] = 0
    least = digit.copy()
    inked = [place for place in order if digit.ravel()[place]]
    least.ravel()[inked[-int((digit > 0).sum() * 0.4) :]] = 0
    before, without_most, without_least = log_odds(
        reader.probabilities(np.stack([digit, most, least])), 1
    )
    assert before - without_most > 4
    assert before - without_least < 0.1


def test_no_ink_matters_to_a_network_that_says_the_same_of_all():
    model = made_models.looker()
    model.weights["dense.kernel"] = np.zeros((784, 10), np.float32)
    assert not importance(Recogniser(model, threads=1), field(4), 0).any()
    assert not importance(Recogniser(model, threads=1), np.zeros((28, 28), np.uint8), 0).any()


# --- the nearest training pictures ------------------------------------------------------------


def training(monkeypatch, *, digest: str = "d" * 64) -> data.Dataset:
    """A data set "made" of each digit in five widths, on this machine."""
    widths = (0.05, 0.08, 0.1, 0.12, 0.15)
    fields = [field(d, width=w) for w in widths for d in range(10)]
    images = np.stack([image.normalise(one).digit for one in fields])
    labels = np.tile(np.arange(10), 5)
    made = made_study.dataset(shape=(28, 28))
    found = data.Dataset(
        "made", images, labels, images, labels, made.classes, made.source, digest, ""
    )

    def load(name, *, download):
        assert not download
        if name != "made":
            raise DataMissing(f"{name} is not there")
        return found

    monkeypatch.setattr(data, "load", load)
    return found


def explained(name: str, *, digest: str = ""):
    model = made_models.rows(data=name, data_digest=digest)
    return Recogniser(model, threads=1).explain(field(7))


def test_the_nearest_training_pictures_are_the_most_alike(monkeypatch):
    found = training(monkeypatch)
    told = explained("made", digest=found.digest)
    assert told.why_no_neighbours == ""
    assert len(told.neighbours) == explain.NEIGHBOURS
    assert [n.label for n in told.neighbours[:3]] == ["7", "7", "7"]
    first = told.neighbours[0]
    assert first.place == 27  # the 7 of the same width
    assert first.distance == pytest.approx(0, abs=1e-5)
    np.testing.assert_array_equal(first.picture, told.reading.picture)
    distances = [n.distance for n in told.neighbours]
    assert distances == sorted(distances)
    assert distances[-1] > 0.05


@pytest.mark.parametrize(
    ("name", "digest", "why"),
    [
        ("mnist", "", "the training pictures (mnist) are not on this machine"),
        ("", "", "the model does not say which pictures it learnt from"),
        ("made", "e" * 64, "the training pictures (made) on this machine are not those"),
    ],
)
def test_why_there_are_no_neighbours_is_said(name, digest, why, monkeypatch):
    training(monkeypatch)
    told = explained(name, digest=digest)
    assert told.neighbours == ()
    assert told.why_no_neighbours.startswith(why)


def test_neighbours_of_another_size_are_none(monkeypatch):
    monkeypatch.setattr(data, "load", lambda name, *, download: made_study.dataset())
    assert explained("made").why_no_neighbours == "the training pictures of made have another size"


def test_mnists_own_digit_is_its_own_nearest(mnist, monkeypatch):
    monkeypatch.setattr(data, "load", lambda name, *, download: mnist)
    model = made_models.rows(data="mnist", data_digest=mnist.digest)
    told = Recogniser(model, threads=1).explain(mnist.train_images[123])
    assert told.neighbours[0].place == 123
    assert told.neighbours[0].label == str(mnist.train_labels[123])
    np.testing.assert_array_equal(told.neighbours[0].picture, mnist.train_images[123])

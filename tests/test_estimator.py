"""RowwiseClassifier: scikit-learn's own checks, its pipelines and searches, and the digits."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
from small_training import trainer_or_skip

from rowwise import RowwiseClassifier, engines, shipped_studies
from rowwise.config import Experiment
from rowwise.errors import EngineError, EstimatorError

sklearn = pytest.importorskip("sklearn", reason="needs scikit-learn: pip install 'rowwise[study]'")
trainer_or_skip()

from sklearn.base import clone  # noqa: E402
from sklearn.datasets import load_digits, load_iris, load_wine  # noqa: E402
from sklearn.model_selection import (  # noqa: E402
    GridSearchCV,
    cross_val_score,
    train_test_split,
)
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

QUICK = {"units": 4, "epochs": 2, "random_state": 0}
X, Y = load_digits(return_X_y=True)
FEW, LABELS = X[:200], Y[:200]


@parametrize_with_checks([RowwiseClassifier()])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def test_the_defaults_learn_the_digits():
    train, test, known, asked = train_test_split(X, Y, test_size=0.2, random_state=0, stratify=Y)
    model = RowwiseClassifier(random_state=0).fit(train, known)
    assert model.score(test, asked) >= 0.97
    assert len(model.loss_curve_) == model.n_iter_ == 20
    assert model.loss_curve_[-1] < 0.05 < model.loss_curve_[0]


@pytest.mark.parametrize("load", [load_iris, load_wine])
def test_tables_of_numbers_of_any_size_are_learned(load):
    """Iris has four features, a square; wine has thirteen of which one is near 1,000."""
    table, labels = load(return_X_y=True)
    train, test, known, asked = train_test_split(table, labels, random_state=0, stratify=labels)
    model = RowwiseClassifier(random_state=0, epochs=60).fit(train, known)
    assert model.score(test, asked) >= 0.9


def test_a_square_is_a_picture_and_anything_else_one_step():
    def shape(features: int) -> tuple[int, int]:
        given = np.random.default_rng(0).random((20, features))
        return RowwiseClassifier(**QUICK).fit(given, np.arange(20) % 2)._shape()

    assert [shape(n) for n in (1, 2, 63, 64, 65)] == [(1, 1), (1, 2), (1, 63), (8, 8), (1, 65)]


@pytest.mark.parametrize("kind", ["lstm", "gru", "simple_rnn"])
def test_a_network_by_its_cell(kind):
    model = RowwiseClassifier(kind, **QUICK).fit(FEW, LABELS)
    kinds = {layer.kind for b in model.experiment_.branches for layer in b.layers}
    assert kinds == {"batch_norm", kind}
    assert model.predict_proba(FEW).shape == (200, 10)


def test_a_network_by_the_name_of_an_experiment_that_ships():
    [shipped] = [e for e in shipped_studies()["classic"].experiments if e.name == "rnn-tanh"]
    model = RowwiseClassifier("rnn-tanh", epochs=1, random_state=0).fit(FEW, LABELS)
    assert model.experiment_.layers == shipped.layers
    assert model.experiment_.optimizer == shipped.optimizer
    assert (model.experiment_.batch, model.experiment_.epochs) == (64, 1)


def test_an_experiment_of_ones_own_and_what_is_changed_of_it():
    own = Experiment(
        name="own",
        layers=[
            {"kind": "gru", "units": 5, "return_sequences": True},
            {"kind": "lstm", "units": 3},
        ],
        batch=50,
        epochs=3,
    )
    whole = RowwiseClassifier(own, random_state=0).fit(FEW, LABELS).experiment_
    assert whole.model_copy(update={"seed": 0}).digest == own.digest
    changed = RowwiseClassifier(
        own, units=np.int64(6), epochs=1, batch_size=20, learning_rate=np.float32(0.25)
    )
    other = changed.fit(FEW, LABELS).experiment_
    assert [layer.units for layer in other.layers] == [6, 6]
    assert (other.batch, other.epochs, other.optimizer.learning_rate) == (20, 1, 0.25)


@pytest.mark.parametrize("labels", [np.array(["a", "b", "zz"]), np.array([-7, 3, 900])])
def test_labels_are_of_any_kind(labels):
    given = labels[LABELS % 3]
    model = RowwiseClassifier(**QUICK).fit(FEW, given)
    np.testing.assert_array_equal(model.classes_, labels)
    assert set(model.predict(FEW)) <= set(labels)


def test_a_feature_that_never_varied_does_not_break_what_comes_later():
    blank = FEW.copy()
    blank[:, 5] = 3.0
    model = RowwiseClassifier(**QUICK).fit(blank, LABELS)
    before = model.predict_proba(blank)
    blank[:, 5] = 1e6
    np.testing.assert_array_equal(model.predict_proba(blank), before)


def test_the_same_seed_gives_the_same_classifier():
    def shares(seed) -> np.ndarray:
        model = RowwiseClassifier(units=4, epochs=2, random_state=seed).fit(FEW, LABELS)
        return model.predict_proba(FEW)

    np.testing.assert_array_equal(shares(1), shares(1))
    assert np.abs(shares(1) - shares(2)).max() > 1e-3
    np.testing.assert_array_equal(
        shares(np.random.RandomState(3)), shares(np.random.RandomState(3))
    )


def test_it_pickles_and_clones():
    model = RowwiseClassifier(Experiment(name="own", layers=["flatten"]), epochs=1, random_state=0)
    model.fit(FEW, LABELS)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(FEW), model.predict_proba(FEW))
    fresh = clone(model)
    assert not hasattr(fresh, "weights_")
    np.testing.assert_array_equal(
        fresh.fit(FEW, LABELS).predict_proba(FEW), model.predict_proba(FEW)
    )


def test_a_pipeline():
    model = make_pipeline(StandardScaler(), RowwiseClassifier(**{**QUICK, "epochs": 10}))
    assert model.fit(FEW, LABELS).score(FEW, LABELS) > 0.6


def test_a_search_over_a_grid():
    grid = {"units": [2, 8], "network": ["gru", "lstm"]}
    search = GridSearchCV(RowwiseClassifier(epochs=3, random_state=0), grid, cv=2).fit(FEW, LABELS)
    assert len(search.cv_results_["mean_test_score"]) == 4
    assert search.best_params_["units"] == 8


def test_cross_validation():
    scores = cross_val_score(
        RowwiseClassifier(epochs=8, units=16, random_state=0), FEW, LABELS, cv=3
    )
    assert scores.shape == (3,)
    assert scores.min() > 0.6


@pytest.mark.parametrize("name", [n for n in engines.ENGINES if n != "plain"])
def test_an_engine_by_its_name(name):
    if (reason := engines.missing(name)) is not None:
        pytest.skip(reason)
    model = RowwiseClassifier(**QUICK, engine=name).fit(FEW, LABELS)
    assert model.engine_ == name
    np.testing.assert_allclose(model.predict_proba(FEW).sum(axis=1), 1, atol=1e-5)


def test_the_training_is_told_when_asked(capfd):
    RowwiseClassifier(**QUICK, verbose=True).fit(FEW, LABELS)
    assert "Epoch 2/2" in capfd.readouterr().err
    RowwiseClassifier(**QUICK).fit(FEW, LABELS)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"network": "lsmt"}, r"one of simple_rnn, lstm, gru, .*'lsmt'; did you mean 'lstm'"),
        ({"network": None}, r"network is an Experiment or one of .* got None"),
        ({"epochs": 0}, r"epochs"),
        ({"units": 1.5}, r"units"),
        ({"batch_size": "many"}, r"batch"),
        ({"learning_rate": -1}, r"learning_rate"),
        ({"n_jobs": 0}, r"n_jobs is None, -1 or a number of threads, got 0"),
    ],
)
def test_a_wrong_parameter_is_told_in_one_line(parameters, told):
    with pytest.raises(EstimatorError, match=told) as refused:
        RowwiseClassifier(**parameters).fit(FEW, LABELS)
    assert isinstance(refused.value, ValueError)
    assert "\n" not in str(refused.value)


def test_one_class_is_no_task():
    with pytest.raises(EstimatorError, match=r"y must tell 2 to 100 classes apart, got 1 class"):
        RowwiseClassifier(**QUICK).fit(FEW, np.zeros(200))


def test_an_engine_that_cannot_train_says_so():
    with pytest.raises(EngineError, match="the engine plain cannot train"):
        RowwiseClassifier(**QUICK, engine="plain").fit(FEW, LABELS)


def test_importing_rowwise_does_not_import_scikit_learn():
    script = "import sys, rowwise; print('sklearn' in sys.modules, rowwise.RowwiseClassifier)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False <class 'rowwise.estimator.RowwiseClassifier'>"

"""Networks as Keras files: Keras opens them, has the same layers, and gives the same answers."""

from __future__ import annotations

import os
import sys
import warnings

import numpy as np
import pytest
from conformance import CASES, CELL_CASES, KERAS_LACKS, Case
from keras_twin import KERAS_WARNING, KerasTwin, keras_in, keras_optimizer

from rowwise import config, keras_model
from rowwise.engines import plain
from rowwise.errors import MissingExtra, ModelError

pytest.importorskip("h5py", reason="needs h5py: pip install 'rowwise[export]'")
pytestmark = KERAS_WARNING

# Float32 sums in another order; the largest difference seen here is 1.5e-7.
TOLERANCE = 1e-6
BY_NAME = {case.name: case for case in CASES}
# Each cell, activation and direction once; Keras takes half a second for a network.
TRIED = [case for case in CELL_CASES if "sequence-stacked" in case.name]
TRIED += [case for case in CASES if case.name.startswith(("read-", "branches", "batch-norm-be"))]
TRIED += [BY_NAME[name] for name in ("dropout", "pool-mean", "pool-max", "dense-on-sequence")]
REFUSED = [BY_NAME[name] for name in sorted(KERAS_LACKS)]
TRIED = [case for case in TRIED if case.name not in KERAS_LACKS]
OPTIMIZERS = [
    config.Adam(learning_rate=0.005, beta_2=0.99),
    config.AdamW(weight_decay=0.01),
    config.RMSprop(rho=0.8, momentum=0.5),
    config.RMSprop(),
    config.SGD(momentum=0.9, nesterov=True),
    config.SGD(),
]


@pytest.fixture(scope="module", autouse=True)
def keras():
    with keras_in("float32") as module:
        yield module


def drawn(case: Case, count: int = 7) -> np.ndarray:
    rng = np.random.default_rng(count)
    return rng.integers(0, 256, (count, *case.shape), dtype=np.uint8)


def opened(keras, path, case: Case):
    """Keras' model of a case, which it must open without a warning."""
    path.write_bytes(keras_model.build(case.network, case.weights))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = keras.saving.load_model(path, safe_mode=True)
    assert [str(w.message) for w in told if "__array__" not in str(w.message)] == []
    return model


@pytest.mark.parametrize("case", TRIED, ids=str)
def test_keras_gives_the_probabilities_of_the_equations(case, keras, tmp_path):
    model = opened(keras, tmp_path / "model.keras", case)
    expected = plain.predict(case.network, case.weights, drawn(case))
    np.testing.assert_allclose(
        keras_model.read(tmp_path / "model.keras", drawn(case)), expected, atol=TOLERANCE
    )
    assert isinstance(model, keras.Sequential) == (not case.experiment.branches)


@pytest.mark.parametrize("name", ["lstm-relu-both-ways-sequence-stacked", "branches", "dropout"])
def test_keras_has_the_layers_that_its_own_user_would_write(name, keras, tmp_path):
    case = BY_NAME[name]
    model = opened(keras, tmp_path / "model.keras", case)
    ours = {layer.name: layer for layer in model.layers}
    for node_name, layer in KerasTwin(case.network)._layers.items():
        expected, got = layer.get_config(), ours[node_name].get_config()
        if node_name == case.network.nodes[-1].name:
            expected["activation"] = "softmax"
        named = ("layer", "backward_layer")  # inner layers have names and seeds of their own
        for config_ in (expected, got):
            for key in named:
                if key in config_:
                    config_[key]["config"].pop("name")
            config_.pop("name")
            config_.pop("dtype")
        for key in named:
            if key in expected:
                kept = ("units", "activation", "go_backwards", "return_sequences")
                assert [got[key]["config"][k] for k in kept] == [
                    expected[key]["config"][k] for k in kept
                ]
                del got[key], expected[key]
        assert got == expected


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: f"{o.kind}-{len(str(o))}")
def test_the_model_is_compiled_as_it_was_trained(optimizer, keras, tmp_path):
    clipping = config.Clipping(by="norm", limit=0.7)
    case = BY_NAME["batch-norm-between"].with_settings(optimizer=optimizer, clipping=clipping)
    model = opened(keras, tmp_path / "model.keras", case)
    expected = keras_optimizer(case.experiment).get_config()
    got = model.optimizer.get_config()
    for key in ("learning_rate", "beta_1", "beta_2", "rho", "momentum", "nesterov", "clipnorm"):
        assert got.get(key) == pytest.approx(expected.get(key)), key
    assert type(model.optimizer) is type(keras_optimizer(case.experiment))
    assert model.loss == "sparse_categorical_crossentropy"
    model.jit_compile = False
    labels = np.arange(7) % case.classes
    model.fit(drawn(case) / np.float32(255), labels, verbose=0)  # goes on


def test_label_smoothing_is_in_the_loss(keras, tmp_path):
    case = BY_NAME["pool-mean"].with_settings(label_smoothing=0.1)
    loss = opened(keras, tmp_path / "model.keras", case).loss
    assert loss.get_config()["label_smoothing"] == 0.1


def test_the_same_network_gives_the_same_bytes():
    case = BY_NAME["branches"]
    first, second = (keras_model.build(case.network, case.weights) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_what_keras_has_no_layer_of_its_own_for_is_refused(case):
    with pytest.raises(ModelError, match=r"there is none for .* in case; take --to onnx"):
        keras_model.build(case.network, case.weights)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtra, match=r"package h5py, .*rowwise\[export\]"):
        keras_model.build(BY_NAME["pool-max"].network, BY_NAME["pool-max"].weights)


def test_a_file_that_keras_does_not_open_is_told_in_one_line(tmp_path):
    (tmp_path / "bad.keras").write_bytes(b"no archive")
    with pytest.raises(ModelError, match=r"Keras does not open .*bad\.keras \("):
        keras_model.read(tmp_path / "bad.keras", drawn(BY_NAME["pool-max"]))


def test_why_keras_cannot_be_asked(monkeypatch):
    assert keras_model.why_not() is None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert keras_model.why_not() == "Keras is not installed"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "keras" or None)
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    assert keras_model.why_not() == (
        "Keras needs one of tensorflow, torch, jax, and none is installed"
    )


def test_the_choice_of_a_backend_leaves_no_trace(monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", "mine")
    with keras_model._set_to("torch"):
        assert os.environ["KERAS_BACKEND"] == "torch"
        assert os.environ["KERAS_HOME"] != "mine"
    assert "KERAS_BACKEND" not in os.environ
    assert os.environ["KERAS_HOME"] == "mine"

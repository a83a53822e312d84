"""Every engine gives Keras' outputs, torch.nn's, and those of the equations in float64.

An engine joins by an entry in `conformance.READERS`. Training is `test_conformance_training.py`.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from conformance import (
    CASES,
    FLOAT32_OUTPUT,
    FLOAT64_OUTPUT,
    KINDS,
    READERS,
    TOLERANCES,
    TORCH_CASES,
    Array,
    Case,
    ReaderEntry,
    as_floats,
    assert_close,
    asymmetric_weights,
    case,
    last_step,
    own_weights,
    reader,
    take_path,
)
from keras_twin import KERAS_WARNING, KerasTwin, keras_in, keras_outputs
from references import equation_logits, tensor, torch, torch_nn_outputs, torch_recurrent

from rowwise import config, engines
from rowwise.config import Dropout, Flatten, Recurrent
from rowwise.engines import plain
from rowwise.network import Network

pytestmark = [KERAS_WARNING, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(params=READERS, ids=str)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    entry: ReaderEntry = request.param
    take_path(entry.path, monkeypatch)
    return entry.engine


every_case = pytest.mark.parametrize("case", CASES, ids=str)


def log_odds(probabilities: Array) -> Array:
    """Logits up to a shift by picture, from probabilities: log p less its mean over the classes.

    Where p is 1e-6, an error of 1e-5 in it would hide anything; its logarithm hides nothing.
    """
    logs = np.log(probabilities.astype(np.float64))
    return np.asarray(logs - logs.mean(-1, keepdims=True))


def assert_probabilities(got: Array, logits: Array, what: str) -> None:
    """float32 probabilities that are those of the reference's float64 logits."""
    assert got.dtype == np.float32
    assert_close(got, plain.softmax(logits), FLOAT32_OUTPUT, f"{what}: probabilities")
    centred = logits - logits.mean(-1, keepdims=True)
    assert_close(log_odds(got), centred, FLOAT32_OUTPUT, f"{what}: logits")


# --- outputs ----------------------------------------------------------------------------------


@every_case
def test_probabilities_are_those_of_keras(keras: ModuleType, engine: str, case: Case) -> None:
    got = reader(engine, case.network).predict(case.network, case.weights, case.images)
    logits = last_step(keras_outputs(case)[case.network.nodes[-1].name])
    assert_probabilities(got, logits, "Keras")


@pytest.mark.parametrize("case", TORCH_CASES, ids=str)
def test_probabilities_are_those_of_torch_nn(engine: str, case: Case) -> None:
    got = reader(engine, case.network).predict(case.network, case.weights, case.images)
    logits = last_step(torch_nn_outputs(case)[case.network.nodes[-1].name])
    assert_probabilities(got, logits, "torch.nn")


@every_case
def test_probabilities_are_those_of_the_equations(engine: str, case: Case) -> None:
    got = reader(engine, case.network).predict(case.network, case.weights, case.images)
    assert_probabilities(got, last_step(equation_logits(case)), "equations")


@every_case
def test_beliefs_after_each_step_are_those_of_the_equations(engine: str, case: Case) -> None:
    """The closing layer's probabilities wherever it stands, the last of which is the answer."""
    told = reader(engine, case.network)
    got = told.beliefs(case.network, case.weights, case.images)
    logits = equation_logits(case).reshape(case.pictures, -1, case.classes)
    assert_probabilities(got, logits, "equations")
    answer = told.predict(case.network, case.weights, case.images)
    np.testing.assert_array_equal(answer, got[:, -1])


@every_case
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_layer_of_the_plain_engine_is_keras(
    keras: ModuleType, dtype: type, case: Case
) -> None:
    got = plain.forward(case.network, case.weights, case.images, dtype=dtype)
    reference = keras_outputs(case)
    assert got.keys() == reference.keys()
    for name, output in got.items():
        assert output.dtype == dtype
        assert_close(output, reference[name], TOLERANCES[dtype].output, name)


@pytest.mark.parametrize("case", TORCH_CASES, ids=str)
def test_every_layer_of_the_plain_engine_is_torch_nn(case: Case) -> None:
    got = plain.forward(case.network, case.weights, case.images, dtype=np.float64)
    for name, reference in torch_nn_outputs(case).items():
        assert_close(got[name], reference, FLOAT64_OUTPUT, name)


@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_stacked_layers_are_one_stacked_module_of_torch_nn(kind: str, both_ways: bool) -> None:
    layer = Recurrent(kind=kind, units=7, bidirectional=both_ways, return_sequences=True)
    stacked = case(f"stack-{kind}-{both_ways}", layer, layer, layer, Flatten())
    nodes = [n for n in stacked.network.nodes if n.layer == layer]
    module = torch_recurrent([(layer, own_weights(n, stacked.weights)) for n in nodes])
    with torch.no_grad():
        reference = module(tensor(stacked.images))[0].numpy()
    got = plain.forward(stacked.network, stacked.weights, stacked.images, dtype=np.float64)
    assert_close(got[nodes[-1].name], reference, FLOAT64_OUTPUT, "three layers")


def classic() -> list[config.Experiment]:
    return list(config.shipped_studies()["classic"].experiments)


@pytest.mark.parametrize("experiment", classic(), ids=lambda e: e.name)
def test_classic_networks_are_keras_as_its_users_run_it(
    engine: str, experiment: config.Experiment
) -> None:
    """In Keras' float32, on pictures of bytes with MNIST's black margin."""
    network = Network(experiment, (28, 28), 10)
    weights = asymmetric_weights(network, seed=28)
    images = np.random.default_rng(29).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    images[:, :4], images[:, :, :4], images[:, :, -4:] = 0, 0, 0
    recurrent = experiment.layers[1]
    assert isinstance(recurrent, Recurrent)
    if recurrent.activation == "relu":
        # Dense random weights would let 28 steps of relu grow to states in the thousands.
        weights[f"{recurrent.kind}.recurrent_kernel"] *= np.float32(0.5)
        weights[f"{recurrent.kind}.kernel"] *= np.float32(0.5)
    with keras_in("float32"):
        twin = KerasTwin(network)
        twin.load(weights)
        reference = twin.outputs(images)[network.nodes[-1].name]
    got = reader(engine, network).predict(network, weights, images)
    assert_close(got, plain.softmax(reference), FLOAT32_OUTPUT, experiment.name)


# --- what predict promises --------------------------------------------------------------------

READING = case(
    "reading", config.BatchNorm(), Recurrent(kind="lstm", units=7, bidirectional=True), pictures=11
)


@pytest.mark.parametrize("batch", [1, 3, 10, 11, 500])
def test_batches_change_nothing(engine: str, batch: int) -> None:
    """11 pictures: a partial batch of 2 after 3 x 3, of 1 after 10, none after 1 or 11."""
    network, weights = READING.network, READING.weights
    got = reader(engine, network).predict(network, weights, READING.images, batch=batch)
    assert_probabilities(got, equation_logits(READING), f"batches of {batch}")


def test_bytes_are_floats_times_255(engine: str) -> None:
    network, weights = READING.network, READING.weights
    images = np.random.default_rng(5).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    images[0], images[1] = 0, 255
    predict = reader(engine, network).predict
    from_bytes = predict(network, weights, images)
    for dtype in (np.float32, np.float64):
        from_floats = predict(network, weights, as_floats(images).astype(dtype))
        assert_close(from_bytes, from_floats.astype(np.float64), FLOAT32_OUTPUT, str(dtype))


def test_pictures_may_lie_anyhow_in_memory(engine: str) -> None:
    """Views backwards, strided, transposed and read-only are read as what they show."""
    network, weights, images = READING.network, READING.weights, READING.images
    fixed = images.copy()
    fixed.setflags(write=False)
    views = {
        "backwards": images[::-1].copy()[::-1],
        "strided": np.repeat(images, 2, axis=2)[:, :, ::2],
        "transposed": np.ascontiguousarray(images.transpose(2, 0, 1)).transpose(1, 2, 0),
        "read-only": fixed,
    }
    for how, view in views.items():
        got = reader(engine, network).predict(network, weights, view)
        assert_probabilities(got, equation_logits(READING), how)


def test_no_pictures_give_no_probabilities(engine: str) -> None:
    network = READING.network
    got = reader(engine, network).predict(network, READING.weights, READING.images[:0])
    assert (got.shape, got.dtype) == ((0, 10), np.float32)


def test_reading_changes_neither_weights_nor_pictures(engine: str) -> None:
    network = READING.network
    weights = {k: v.copy() for k, v in READING.weights.items()}
    images = READING.images.copy()
    reader(engine, network).predict(network, weights, images)
    assert all(np.array_equal(v, READING.weights[k]) for k, v in weights.items())
    assert np.array_equal(images, READING.images)


def test_the_number_of_threads_changes_nothing(engine: str) -> None:
    network, weights = READING.network, READING.weights
    predict = reader(engine, network).predict
    before = torch.get_num_threads()
    for threads in (1, 2):
        got = predict(network, weights, READING.images, threads=threads)
        assert_probabilities(got, equation_logits(READING), f"{threads} threads")
    assert torch.get_num_threads() == before


def test_dropout_is_nothing_when_reading(engine: str) -> None:
    states = Recurrent(kind="gru", units=5, return_sequences=True)
    bare = case("bare", states, Flatten())
    dropped = case("dropped", states, Dropout(rate=0.9), Flatten(), Dropout(rate=0.5))
    one = reader(engine, bare.network).predict(bare.network, bare.weights, bare.images)
    other = reader(engine, dropped.network).predict(dropped.network, bare.weights, bare.images)
    assert np.array_equal(one, other)


def test_probabilities_of_large_logits_are_finite_and_sum_to_one(engine: str) -> None:
    loud = case("loud", config.Flatten(), ink="saturated", head=50.0)
    got = reader(engine, loud.network).predict(loud.network, loud.weights, loud.images)
    assert np.isfinite(got).all()
    assert_close(got.sum(1), np.ones(len(got)), FLOAT32_OUTPUT, "sum of the probabilities")
    assert (got.argmax(1) == equation_logits(loud).argmax(1)).all()


@pytest.mark.parametrize("name", ["plain", "torch"])
def test_plain_and_torch_read_every_network(name: str) -> None:
    """A skip inside this suite is for engines that decline networks; these two decline none."""
    for each in CASES:
        assert engines.why_not(name, each.network, training=False) is None

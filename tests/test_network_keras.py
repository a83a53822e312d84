"""A network as Keras builds it: parameter counts, the summary, and the weights it starts from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from keras_twin import KERAS_WARNING, KerasTwin, keras_in
from scipy import stats

from rowwise import config
from rowwise.config import (
    BatchNorm,
    Branch,
    Columns,
    Dense,
    Dropout,
    Experiment,
    Flatten,
    Pool,
    Recurrent,
    Rows,
    shipped_studies,
)
from rowwise.network import Network

# Products of an orthogonal kernel's rows in float32, off by roundings of 2^-24.
ORTHOGONAL_TOLERANCE = 2e-6
# A Kolmogorov-Smirnov test of fixed seeds cannot fail by chance twice; below this, the
# distributions differ.
KS_LEAST_P = 1e-3


pytestmark = KERAS_WARNING


@pytest.fixture(scope="module")
def keras() -> Iterator[ModuleType]:
    with keras_in("float32") as module:
        yield module


def network(*layers: config.Layer, shape: tuple[int, int] = (6, 4), **settings: Any) -> Network:
    classes = settings.pop("classes", 10)
    return Network(Experiment(name="made", layers=layers, **settings), shape, classes)


def classic(name: str) -> Network:
    by_name = {e.name: e for e in shipped_studies()["classic"].experiments}
    return Network(by_name[name], (28, 28), 10)


LSTM = Recurrent(kind="lstm", units=5)
STATES = Recurrent(kind="lstm", units=5, return_sequences=True)

# --- the classic study's networks -------------------------------------------------------------

# Total, trainable, and layer by layer: batch normalisation, recurrent, dense layers.
CLASSIC = {
    "rnn-relu": (29_114, 29_058, [112, 20_096, 8_256, 650]),
    "rnn-tanh": (29_114, 29_058, [112, 20_096, 8_256, 650]),
    "lstm-tanh": (89_402, 89_346, [112, 80_384, 8_256, 650]),
    "lstm-relu": (294_522, 294_466, [112, 291_840, 2_570]),
}


@cache
def keras_classic(name: str) -> Any:
    """The study's own Sequential, as a Keras user writes it."""
    from keras import Input, Sequential, layers, utils

    utils.clear_session()  # layer names count from the start again
    model = Sequential([Input((28, 28)), layers.BatchNormalization()])
    match name:
        case "rnn-relu" | "rnn-tanh":
            activation = name.removeprefix("rnn-")
            model.add(layers.SimpleRNN(128, activation=activation))
            model.add(layers.Dense(64, activation=activation))
        case "lstm-tanh":
            model.add(layers.LSTM(128, activation="tanh"))
            model.add(layers.Dense(64, activation="tanh"))
        case "lstm-relu":
            model.add(layers.LSTM(256, activation="relu"))
    model.add(layers.Dense(10, activation="softmax"))
    return model


@pytest.mark.parametrize("name", CLASSIC)
def test_classic_parameter_counts_are_the_studys(name: str) -> None:
    total, trainable, by_layer = CLASSIC[name]
    ours = classic(name)
    assert (ours.count, ours.trainable_count) == (total, trainable)
    assert [node.count for node in ours.nodes if node.parameters] == by_layer


@pytest.mark.parametrize("name", CLASSIC)
def test_classic_parameter_counts_are_those_of_keras(keras: ModuleType, name: str) -> None:
    model, ours = keras_classic(name), classic(name)
    assert ours.count == model.count_params() == CLASSIC[name][0]
    assert ours.trainable_count == sum(w.numpy().size for w in model.trainable_weights)
    # Sequential holds no GRU here, so even the order and the shapes are one for one.
    assert [p.shape for p in ours.parameters.values()] == [tuple(w.shape) for w in model.weights]
    trained = {id(w) for w in model.trainable_weights}
    assert [p.trainable for p in ours.parameters.values()] == [
        id(w) in trained for w in model.weights
    ]


def table(text: str) -> list[list[str]]:
    """The cells of a summary's table, header first, whatever its rules are drawn with."""
    rows = [line.strip() for line in text.splitlines() if line.strip()[:1] in ("│", "┃")]
    return [[cell.strip() for cell in re.split("[│┃]", row)[1:-1]] for row in rows]


def totals(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if "params" in line]


def keras_summary(model: Any) -> str:
    """Wide enough for Keras to break no name over two lines."""
    told: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "160")  # of the terminal; rich cuts off what is beyond
        model.summary(line_length=140, print_fn=lambda text, **_: told.append(text))
    return "\n".join(told)


@pytest.mark.parametrize("name", CLASSIC)
def test_classic_summary_is_the_table_of_keras(keras: ModuleType, name: str) -> None:
    reference, ours = keras_summary(keras_classic(name)), classic(name).summary()
    assert len(table(ours)) > 3
    assert table(ours) == table(reference)
    assert len(totals(ours)) == 3
    assert totals(ours) == totals(reference)
    assert name in ours.splitlines()[0]


def test_summary_of_every_layer_has_the_types_shapes_and_counts_of_keras(keras: ModuleType) -> None:
    ours = network(
        BatchNorm(),
        Recurrent(kind="gru", units=300, bidirectional=True, return_sequences=True),
        Dropout(rate=0.2),
        Dense(units=7, activation="relu"),
        Recurrent(kind="simple_rnn", units=9, bidirectional=True, return_sequences=True),
        Pool(by="max"),
        Flatten(),
        Dense(units=2000, activation="relu"),
        classes=100,
    )
    reference = KerasTwin(ours).model
    rows = [row for row in table(keras_summary(reference))[1:] if "InputLayer" not in row[0]]
    kept = [row for row in rows if "Activation" not in row[0]]  # the softmax has a row there

    def essence(row: list[str]) -> tuple[str, ...]:
        kind = re.search(r"\((\w+)", row[0])
        assert kind is not None
        return kind[1], *row[1:3]

    assert [essence(r) for r in table(ours.summary())[1:]] == [essence(r) for r in kept]
    assert totals(ours.summary()) == totals(keras_summary(reference))
    assert "MB" in totals(ours.summary())[0]


def test_summary_of_branches_says_what_is_joined() -> None:
    one = Branch(reading=Rows(), layers=(Recurrent(kind="gru", units=3),))
    other = Branch(reading=Columns(), layers=(Recurrent(kind="gru", units=4),))
    rows = table(network(branches=(one, other)).summary())
    assert rows[0] == ["Layer (type)", "Output Shape", "Param #", "Connected to"]
    assert [row[0] for row in rows[1:]] == [
        "input_layer (InputLayer)",
        "gru (GRU)",
        "columns (Permute)",
        "gru_1 (GRU)",
        "concatenate (Concatenate)",
        "dense (Dense)",
    ]
    assert rows[5][1:] == ["(None, 7)", "0", "gru, gru_1"]
    drawn = network(branches=(one, other)).summary().split("\n")[1:-3]
    assert len({len(line) for line in drawn}) == 1


# --- initial weights --------------------------------------------------------------------------

EVERY_PARAMETER = network(
    BatchNorm(),
    Recurrent(kind="lstm", units=64, bidirectional=True, return_sequences=True),
    Recurrent(kind="gru", units=48, return_sequences=True),
    Recurrent(kind="simple_rnn", units=64),
    Dense(units=80, activation="relu"),
    shape=(5, 40),
)


@cache
def initial(seed: int) -> dict[str, Any]:
    return EVERY_PARAMETER.initialise(seed=seed)


@pytest.fixture(scope="module")
def keras_initial(keras: ModuleType) -> dict[str, Any]:
    keras.utils.set_random_seed(1)
    return KerasTwin(EVERY_PARAMETER).weights()


@pytest.mark.parametrize("name", EVERY_PARAMETER.parameters)
def test_initial_weights_have_the_distribution_of_keras(
    keras_initial: dict[str, Any], name: str
) -> None:
    ours, theirs = initial(2)[name], keras_initial[name]
    assert ours.dtype == np.float32
    assert ours.shape == theirs.shape
    if np.ptp(theirs) == 0 or name.endswith("bias"):  # Keras draws no bias
        assert np.array_equal(ours, theirs)
        return
    assert stats.ks_2samp(ours.ravel(), theirs.ravel()).pvalue > KS_LEAST_P


@pytest.mark.parametrize(
    ("name", "fans"),
    [
        ("bidirectional_lstm.forward.kernel", 40 + 4 * 64),
        ("bidirectional_lstm.backward.kernel", 40 + 4 * 64),
        ("gru.kernel", 128 + 3 * 48),
        ("simple_rnn.kernel", 48 + 64),
        ("dense.kernel", 64 + 80),
    ],
)
def test_kernels_are_glorot_uniform_over_all_gates(name: str, fans: int) -> None:
    """The limit counts every gate's columns: fan-out 4H for an LSTM (Glorot & Bengio 2010)."""
    drawn = initial(3)[name].ravel()
    limit = (6 / fans) ** 0.5
    assert 0.98 * limit < np.abs(drawn).max() <= limit
    assert stats.kstest(drawn, stats.uniform(-limit, 2 * limit).cdf).pvalue > KS_LEAST_P


@pytest.mark.parametrize("way", ["bidirectional_lstm.forward", "gru", "simple_rnn"])
def test_a_recurrent_kernel_is_orthogonal_as_a_whole(way: str) -> None:
    """One orthogonal [H, G·H], so that its rows are orthonormal; not one block a gate."""
    kernel = initial(4)[f"{way}.recurrent_kernel"].astype(np.float64)
    hidden, width = kernel.shape
    assert np.abs(kernel @ kernel.T - np.eye(hidden)).max() <= ORTHOGONAL_TOLERANCE
    if width > hidden:
        block = kernel[:, :hidden]
        assert np.abs(block @ block.T - np.eye(hidden)).max() > 0.3


def test_orthogonal_kernels_lean_to_no_side() -> None:
    """Uniform over all rotations and reflections: QR alone has signs of its own (Mezzadri 2007)."""
    made = network(Recurrent(kind="simple_rnn", units=3))
    drawn = [made.initialise(seed=s)["simple_rnn.recurrent_kernel"] for s in range(300)]
    five_deviations = 5 * 0.5 * 300**0.5
    for row in range(3):
        for column in range(3):
            positive = sum(kernel[row, column] > 0 for kernel in drawn)
            assert abs(positive - 150) < five_deviations, (row, column)
    turned = sum(np.linalg.det(kernel) > 0 for kernel in drawn)
    assert abs(turned - 150) < five_deviations
    # The square of a unit vector's element in three dimensions is Beta(1/2, 1).
    squares = [float(kernel[0, 0]) ** 2 for kernel in drawn]
    assert stats.kstest(squares, stats.beta(0.5, 1).cdf).pvalue > KS_LEAST_P


@pytest.mark.parametrize("both_ways", [False, True])
def test_only_the_forget_gates_start_open(both_ways: bool) -> None:
    made = network(Recurrent(kind="lstm", units=3, bidirectional=both_ways))
    biases = [v for k, v in made.initialise(seed=5).items() if "lstm" in k and k.endswith("bias")]
    assert len(biases) == 1 + both_ways
    for bias in biases:
        assert bias.tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0]


def test_initial_weights_depend_on_the_seed_alone() -> None:
    one, same, other = (EVERY_PARAMETER.initialise(seed=s) for s in (6, 6, 7))
    for name, p in EVERY_PARAMETER.parameters.items():
        assert np.array_equal(one[name], same[name])
        if p.initializer in ("glorot_uniform", "orthogonal"):
            assert not np.array_equal(one[name], other[name])
    forward, backward = (one[f"bidirectional_lstm.{w}.kernel"] for w in ("forward", "backward"))
    assert not np.array_equal(forward, backward)


def test_each_parameter_draws_from_a_stream_of_its_own() -> None:
    """A layer more at the end leaves what stands before it as it was."""
    short = network(LSTM).initialise(seed=8)
    long = network(LSTM, Dense(units=4)).initialise(seed=8)
    for name in ("lstm.kernel", "lstm.recurrent_kernel"):
        assert np.array_equal(short[name], long[name])
    twice = network(STATES, STATES, LSTM).initialise(seed=8)
    assert not np.array_equal(twice["lstm_1.kernel"], twice["lstm_2.kernel"])

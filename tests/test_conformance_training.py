"""Every engine that trains has the equations' gradients and takes Keras' steps.

An engine joins by an entry in `conformance.TRAINERS`; each entry is held to Keras in float64.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conformance import (
    CASES,
    FLOAT32_OUTPUT,
    KINDS,
    SATURATED_GRADIENT,
    TOLERANCES,
    TRAINERS,
    Array,
    Case,
    TrainerEntry,
    as_floats,
    assert_close,
    assert_gradients_close,
    case,
    gradients,
    take_path,
    trainer,
)
from keras_twin import KERAS_WARNING, compiled, targets
from references import equation_gradients, equation_logits, torch

from rowwise import engines
from rowwise.config import (
    SGD,
    Adam,
    AdamW,
    BatchNorm,
    Branch,
    Clipping,
    Columns,
    Dense,
    Dropout,
    Flatten,
    Layer,
    Pool,
    Recurrent,
    RMSprop,
    Rows,
)

pytestmark = [KERAS_WARNING, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(params=TRAINERS, ids=str)
def entry(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> TrainerEntry:
    entry: TrainerEntry = request.param
    take_path(entry.path, monkeypatch)
    return entry


def begin(entry: TrainerEntry, case: Case, **settings: Any) -> engines.Trainer:
    return trainer(entry, case.network, case.weights, case.images, case.labels, **settings)


# --- gradients --------------------------------------------------------------------------------


def _drops(case: Case) -> bool:
    return any(isinstance(n.layer, Dropout) and n.layer.rate for n in case.network.nodes)


NORMALISED_ALONE = case(
    "batch-norm-of-one", Recurrent(kind="gru", units=5), BatchNorm(), pictures=1
)
SMOOTHED = [
    case("smoothed", BatchNorm(), Recurrent(kind="gru", units=7), label_smoothing=0.1),
    case("smoothed-flat", Recurrent(kind="lstm", units=7), label_smoothing=0.9, classes=100),
    case("smoothed-two-classes", Recurrent(kind="lstm", units=7), label_smoothing=0.5, classes=2),
]
GRADIENT_CASES = [*(c for c in CASES if not _drops(c)), NORMALISED_ALONE, *SMOOTHED]


@pytest.mark.parametrize("case", GRADIENT_CASES, ids=str)
def test_gradients_are_those_of_the_equations(entry: TrainerEntry, case: Case) -> None:
    """And so are the loss and the moving statistics that the same step leaves."""
    loss, reference, moved = equation_gradients(case)
    got, state = gradients(entry, case, np.arange(case.pictures))
    tolerances = TOLERANCES[entry.dtype]
    room = SATURATED_GRADIENT if case.ink == "saturated" else 1
    assert_gradients_close(got, reference, room * tolerances.gradient)
    for name, value in moved.items():
        assert_close(state[name], value, tolerances.output, name)
    sums, _ = begin(entry, case).run(
        np.arange(case.pictures), batch=case.pictures, first_step=0, rates=np.ones(1)
    )
    assert_close(sums, np.array([loss * case.pictures]), tolerances.output, "loss")


def test_the_moving_variance_is_biased_unlike_that_of_torch_nn(entry: TrainerEntry) -> None:
    """torch.nn.BatchNorm1d keeps var · n / (n - 1), Keras and Rowwise var; torch's momentum is
    the weight of the new value, Keras' that of the old. The outputs are the same."""
    layer = BatchNorm(momentum=0.9, epsilon=0.01)
    normal = case("moving", layer, Flatten(), pictures=4, shape=(3, 5))
    network, weights, name = normal.network, normal.weights, "batch_normalization"
    norm = torch.nn.BatchNorm1d(5, eps=0.01, momentum=1 - 0.9).double()
    for key, buffer in (("mean", norm.running_mean), ("variance", norm.running_var)):
        buffer.copy_(torch.from_numpy(weights[f"{name}.moving_{key}"].astype(np.float64)))
    norm(torch.from_numpy(as_floats(normal.images)).reshape(-1, 5))
    own = begin(entry, normal)
    own.run(np.arange(4), batch=4, first_step=0, rates=np.zeros(1))
    state = own.state()
    tolerance = TOLERANCES[entry.dtype].output
    n = 4 * 3
    kept = 0.9 * weights[f"{name}.moving_variance"].astype(np.float64)
    biased = kept + (norm.running_var.numpy() - kept) * (n - 1) / n
    assert_close(state[f"{name}.moving_mean"], norm.running_mean.numpy(), tolerance, "mean")
    assert_close(state[f"{name}.moving_variance"], biased, tolerance, "variance")
    assert set(network.parameters) <= set(state)


def test_the_torch_trainer_tells_gradients_and_moves_nothing() -> None:
    normal = case("told", BatchNorm(), Recurrent(kind="lstm", units=7))
    own = begin(TrainerEntry("torch", np.float64), normal)
    before = own.state()
    got = own.gradients(np.arange(normal.pictures))  # type: ignore[attr-defined]
    assert_gradients_close(got, equation_gradients(normal)[1], TOLERANCES[np.float64].gradient)
    after = own.state()
    assert all(np.array_equal(after[k], v) for k, v in before.items())


# --- ten steps after Keras --------------------------------------------------------------------

# Two epochs of 22 pictures in batches of 5: the fifth and the tenth step have 2 pictures.
PICTURES, BATCH, STEPS = 22, 5, 10
# The rate differs at each step, so that its place in a momentum buffer shows.
FACTORS = np.array([1, 0.5, 2, 0.25, 1.5, 1, 3, 0.75, 0.1, 1.25])

OPTIMIZERS = {
    "adam": Adam(learning_rate=0.01),
    "adam-settings": Adam(learning_rate=0.01, beta_1=0.7, beta_2=0.9, epsilon=1e-3),
    "adamw": AdamW(learning_rate=0.01, weight_decay=0.5),
    "rmsprop": RMSprop(learning_rate=0.003),
    "rmsprop-momentum": RMSprop(learning_rate=0.003, rho=0.8, momentum=0.7, epsilon=1e-3),
    "sgd": SGD(learning_rate=0.1),
    "sgd-momentum": SGD(learning_rate=0.1, momentum=0.9),
    "sgd-nesterov": SGD(learning_rate=0.1, momentum=0.9, nesterov=True),
}
# Between the least and the largest that the ten steps meet, so that some are clipped and some not.
CLIPPINGS = {
    "": None,
    "value": Clipping(by="value", limit=0.02),
    "norm": Clipping(by="norm", limit=0.15),
    "global-norm": Clipping(by="global_norm", limit=0.6),
}


def orders() -> Array:
    """The pictures' order in each of the two epochs."""
    rng = np.random.default_rng(10)
    return np.stack([rng.permutation(PICTURES) for _ in range(2)])


def batches() -> list[Array]:
    return [order[i : i + BATCH] for order in orders() for i in range(0, PICTURES, BATCH)]


def _step_cases() -> list[Case]:
    small = (
        BatchNorm(),
        Recurrent(kind="simple_rnn", units=5),
        Dense(units=4, activation="tanh"),
    )
    cases = []
    for name, optimizer in OPTIMIZERS.items():
        for by, clipping in CLIPPINGS.items():
            how = {"optimizer": optimizer, "clipping": clipping}
            title = "-".join(filter(None, [name, by]))
            cases.append(case(title, *small, shape=(4, 3), pictures=PICTURES, **how))
    for kind in KINDS:
        for activation in ("tanh", "relu"):
            layers: tuple[Layer, ...] = (
                BatchNorm(),
                Recurrent(
                    kind=kind,
                    units=5,
                    activation=activation,
                    bidirectional=True,
                    return_sequences=True,
                ),
                BatchNorm(momentum=0.7),
                Recurrent(kind=kind, units=7, activation=activation),
                BatchNorm(),
            )
            title = f"steps-{kind}-{activation}"
            cases.append(case(title, *layers, shape=(3, 4), pictures=PICTURES))
    smoothed = {"optimizer": SGD(learning_rate=0.1), "label_smoothing": 0.2}
    cases.append(case("sgd-smoothed", *small, shape=(4, 3), pictures=PICTURES, **smoothed))
    branches = (
        Branch(reading=Rows(), layers=(BatchNorm(), Recurrent(kind="gru", units=3))),
        Branch(
            reading=Columns(),
            layers=(Recurrent(kind="lstm", units=3, return_sequences=True), Pool(by="max")),
        ),
    )
    cases.append(
        case("steps-branches", branches=branches, shape=(4, 3), pictures=PICTURES, ink="bytes")
    )
    return cases


@cache
def keras_steps(case: Case) -> list[dict[str, Array]]:
    """Keras' weights after each of the ten steps."""
    twin = compiled(case)
    images, after = as_floats(case.images), []
    for part, factor in zip(batches(), FACTORS, strict=True):
        twin.model.optimizer.learning_rate = case.experiment.optimizer.learning_rate * factor
        twin.model.train_on_batch(images[part], targets(case, case.labels[part]))
        after.append(twin.weights())
    return after


STEP_CASES = _step_cases()


def _step_parameters() -> list[Any]:
    """All of them; clipping comes before the optimiser, so two will do where time is short."""
    crossed = {f"{name}-{by}" for name in OPTIMIZERS for by in CLIPPINGS if by}
    kept = {f"{name}-{by}" for name in ("adam", "sgd-momentum") for by in CLIPPINGS}
    return [
        pytest.param(c, marks=pytest.mark.slow if c.name in crossed - kept else ())
        for c in STEP_CASES
    ]


@pytest.mark.parametrize("case", _step_parameters(), ids=str)
def test_ten_steps_follow_keras(keras: ModuleType, entry: TrainerEntry, case: Case) -> None:
    if entry.dtype is np.float32 and not case.smooth:
        pytest.skip("in float32 a relu near its kink may take either slope")
    own = begin(entry, case)
    rates = case.experiment.optimizer.learning_rate * FACTORS
    for step, (part, reference) in enumerate(zip(batches(), keras_steps(case), strict=True)):
        own.run(part, batch=BATCH, first_step=step, rates=rates[step : step + 1])
        state = own.state()
        for name, value in reference.items():
            assert_close(
                state[name], value, TOLERANCES[entry.dtype].steps, f"{name}, step {step + 1}"
            )


def test_torch_trains_every_network() -> None:
    """A skip inside this suite is for engines that decline networks; torch declines none."""
    for each in [*GRADIENT_CASES, *STEP_CASES]:
        assert engines.why_not("torch", each.network, training=True) is None


@pytest.mark.parametrize("by", ["value", "norm", "global-norm"])
def test_each_clipping_bites_in_the_ten_steps(keras: ModuleType, by: str) -> None:
    """So that the test above tells the kinds of clipping, and none at all, apart."""
    named = {c.name: c for c in STEP_CASES}
    ends = {k: keras_steps(named[f"sgd-{k}" if k else "sgd"])[-1] for k in CLIPPINGS}
    for other in CLIPPINGS.keys() - {by}:
        apart = max(float(np.abs(v - ends[other][k]).max()) for k, v in ends[by].items())
        assert apart > 20 * TOLERANCES[np.float32].steps, (by, other)


def test_label_smoothing_bites_in_the_ten_steps(keras: ModuleType) -> None:
    """So that the test above tells it from none, from twice as much, and from s/(C - 1)."""
    named = {c.name: c for c in STEP_CASES}
    smoothed = named["sgd-smoothed"]
    end = keras_steps(smoothed)[-1]
    for other in (0.0, 0.4, 0.2 * 10 / 9):
        ends = keras_steps(smoothed.with_settings(label_smoothing=other))[-1]
        apart = max(float(np.abs(v - ends[k]).max()) for k, v in end.items())
        assert apart > 20 * TOLERANCES[np.float32].steps, other


# --- a training epoch -------------------------------------------------------------------------

EPOCH = case(
    "epoch",
    BatchNorm(),
    Recurrent(kind="gru", units=7, bidirectional=True),
    Dense(units=6, activation="tanh"),
    pictures=50,
    optimizer=Adam(learning_rate=0.02),
)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_an_epoch_reports_what_keras_fit_reports(
    keras: ModuleType, entry: TrainerEntry, smoothing: float
) -> None:
    """Means weighted by samples, taken while the weights move: 50 pictures are 7 x 7 and 1.

    Keras' compiled loss, label smoothing included, is also that of its evaluation.
    """
    epoch_case = EPOCH.with_settings(label_smoothing=smoothing)
    twin = compiled(epoch_case)
    images, truth = as_floats(EPOCH.images), targets(epoch_case, EPOCH.labels)
    history = twin.model.fit(
        images, truth, batch_size=7, epochs=2, shuffle=False, verbose=0
    ).history
    own = begin(entry, epoch_case)
    tolerance = TOLERANCES[entry.dtype].steps
    for epoch in range(2):
        losses, right = own.run(
            np.arange(50), batch=7, first_step=8 * epoch, rates=np.full(8, 0.02)
        )
        assert (len(losses), len(right)) == (8, 8)
        assert abs(losses.sum() / 50 - history["loss"][epoch]) <= tolerance
        assert right.sum() / 50 == pytest.approx(history["accuracy"][epoch], abs=1e-9)
    for name, value in twin.weights().items():
        assert_close(own.state()[name], value, tolerance, name)
    loss, accuracy = twin.model.evaluate(images, truth, batch_size=7, verbose=0)
    summed, correct = own.evaluate(EPOCH.images, EPOCH.labels)
    assert abs(summed / 50 - loss) <= tolerance
    assert correct / 50 == pytest.approx(accuracy, abs=1e-9)


def test_evaluating_sums_the_loss_of_the_weights_as_they_are(entry: TrainerEntry) -> None:
    own = begin(entry, EPOCH)
    before = own.state()
    logits = equation_logits(EPOCH)
    picked = logits[np.arange(50), EPOCH.labels]
    loss = float((np.log(np.exp(logits).sum(1)) - picked).sum())
    summed, right = own.evaluate(EPOCH.images, EPOCH.labels)
    assert summed == pytest.approx(loss, rel=FLOAT32_OUTPUT)
    assert right == int((logits.argmax(1) == EPOCH.labels).sum())
    after = own.state()
    assert all(np.array_equal(after[k], v) for k, v in before.items())


def test_evaluating_more_than_one_batch_leaves_none_out(entry: TrainerEntry) -> None:
    many = case("many", Recurrent(kind="simple_rnn", units=3), shape=(2, 3), pictures=1201)
    logits = equation_logits(many)
    loss = np.log(np.exp(logits).sum(1)) - logits[np.arange(1201), many.labels]
    summed, right = begin(entry, many).evaluate(many.images, many.labels)
    assert summed == pytest.approx(float(loss.sum()), rel=FLOAT32_OUTPUT)
    assert right == int((logits.argmax(1) == many.labels).sum())


def test_each_step_tells_its_own_loss_and_right_answers(entry: TrainerEntry) -> None:
    """With a rate of zero nothing moves, so the eight steps are eight evaluations."""
    frozen = case("frozen", Recurrent(kind="lstm", units=7), pictures=50)
    own = begin(entry, frozen)
    order = np.random.default_rng(3).permutation(50)
    losses, right = own.run(order, batch=7, first_step=0, rates=np.zeros(8))
    for step, start in enumerate(range(0, 50, 7)):
        part = order[start : start + 7]
        summed, correct = own.evaluate(frozen.images[part], frozen.labels[part])
        assert losses[step] == pytest.approx(summed, rel=FLOAT32_OUTPUT)
        assert right[step] == correct
    assert (losses.dtype, right.dtype.kind) == (np.float64, "i")


# --- going on ---------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
@pytest.mark.parametrize("cut", [1, 7])
def test_training_goes_on_from_its_state_bit_for_bit(
    entry: TrainerEntry, optimizer: Any, cut: int
) -> None:
    """One call over the epoch, and two trainers, the second from the first's state."""
    layers = (BatchNorm(), Recurrent(kind="gru", units=5), Dropout(rate=0.3))
    gone = case("going-on", *layers, pictures=50, optimizer=optimizer)
    order = np.random.default_rng(4).permutation(50)
    rates = optimizer.learning_rate * FACTORS[:8]
    whole = begin(entry, gone, seed=7)
    losses, right = whole.run(order, batch=7, first_step=20, rates=rates)

    first = begin(entry, gone, seed=7)
    part = first.run(order[: cut * 7], batch=7, first_step=20, rates=rates[:cut])
    images, labels = gone.images, gone.labels
    second = trainer(entry, gone.network, first.state(), images, labels, seed=7)
    rest = second.run(order[cut * 7 :], batch=7, first_step=20 + cut, rates=rates[cut:])

    assert np.array_equal(np.concatenate([part[0], rest[0]]), losses)
    assert np.array_equal(np.concatenate([part[1], rest[1]]), right)
    state, resumed = whole.state(), second.state()
    assert state.keys() == resumed.keys()
    assert all(np.array_equal(v, resumed[k]) for k, v in state.items())


def test_the_same_seed_trains_alike_and_another_drops_otherwise(entry: TrainerEntry) -> None:
    dropped = case("seeds", Flatten(), Dropout(rate=0.5), pictures=20)

    def end(seed: int) -> Array:
        own = begin(entry, dropped, seed=seed)
        own.run(np.arange(20), batch=8, first_step=0, rates=np.full(3, 0.1))
        return own.state()["dense.kernel"]

    assert np.array_equal(end(1), end(1))
    assert not np.array_equal(end(1), end(2))


def test_weights_are_copies_in_float32_that_the_network_accepts(entry: TrainerEntry) -> None:
    own = begin(entry, EPOCH)
    weights = own.weights()
    kept = EPOCH.network.check(weights, where="trainer")
    assert list(weights) == list(EPOCH.network.parameters)
    assert all(v.dtype == np.float32 for v in weights.values())
    assert all(np.array_equal(v, EPOCH.weights[k]) for k, v in weights.items())
    kept = {k: v.copy() for k, v in weights.items()}
    own.run(np.arange(50), batch=25, first_step=0, rates=np.full(2, 0.1))
    assert all(np.array_equal(v, weights[k]) for k, v in kept.items())
    assert all(not np.array_equal(v, weights[k]) for k, v in own.weights().items())
    for value in own.weights().values():
        value[...] = 0
    assert all(v.any() for v in own.weights().values())


def test_training_changes_neither_the_given_weights_nor_the_pictures(entry: TrainerEntry) -> None:
    given = {k: v.copy() for k, v in EPOCH.weights.items()}
    images, labels = EPOCH.images.copy(), EPOCH.labels.copy()
    own = trainer(entry, EPOCH.network, given, images, labels)
    own.run(np.arange(50), batch=25, first_step=0, rates=np.full(2, 0.1))
    assert all(np.array_equal(v, EPOCH.weights[k]) for k, v in given.items())
    assert np.array_equal(images, EPOCH.images)
    assert np.array_equal(labels, EPOCH.labels)


def test_training_on_bytes_is_training_on_floats(entry: TrainerEntry) -> None:
    as_bytes = case("on-bytes", Recurrent(kind="lstm", units=7), pictures=12, ink="bytes")
    ends = []
    for images in (as_bytes.images, as_floats(as_bytes.images)):
        own = trainer(entry, as_bytes.network, as_bytes.weights, images, as_bytes.labels)
        own.run(np.arange(12), batch=5, first_step=0, rates=np.full(3, 0.01))
        ends.append(own.state())
    for name, value in ends[0].items():
        assert_close(value, ends[1][name], TOLERANCES[entry.dtype].output, name)


def test_the_number_of_threads_moves_no_weight_apart(entry: TrainerEntry) -> None:
    before = torch.get_num_threads()
    ends = []
    for threads in (1, 2):
        own = begin(entry, EPOCH, threads=threads)
        own.run(np.arange(50), batch=25, first_step=0, rates=np.full(2, 0.01))
        ends.append(own.state())
    assert torch.get_num_threads() == before
    for name, value in ends[0].items():
        assert_close(value, ends[1][name], TOLERANCES[entry.dtype].steps, name)

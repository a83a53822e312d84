"""The native engine against the equations at any size, and its promises.

What every engine is held to is in `test_conformance*.py`; here is what this one promises besides.
What it is given and refuses is in `test_native_input.py`; threads, forks and signals are in
`test_native_threads.py`.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import references
from conformance import (
    CASES,
    FLOAT32_GRADIENT,
    FLOAT32_OUTPUT,
    FLOAT32_STEPS,
    KINDS,
    SATURATED_GRADIENT,
    Array,
    Case,
    TrainerEntry,
    assert_close,
    assert_gradients_close,
    asymmetric_weights,
    case,
    gradients,
    last_step,
)
from drawn_networks import drawn_networks, sizes
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from native_cases import FITTING, READING, assert_same_bits, begin
from references import equation_gradients, equation_logits, torch
from small_training import experiment, train

from rowwise import config, core, engines
from rowwise.config import (
    SGD,
    BatchNorm,
    Branch,
    Columns,
    Dense,
    Dropout,
    Flatten,
    Patches,
    Pool,
    Recurrent,
    Rows,
)
from rowwise.engines import native, plain
from rowwise.errors import EngineError

if core.why_not() is not None:
    pytest.skip(f"needs the native engine: {core.why_not()}", allow_module_level=True)

pytestmark = pytest.mark.usefixtures("one_thread")

NATIVE = TrainerEntry("native", np.float32)
OBSTACLES = core.paths()
RUNNABLE = [path for path, obstacle in OBSTACLES.items() if obstacle is None]
# What is the same picture by picture, whoever sums it: a few roundings of 2^-24.
SAME = 1e-6
# Of a network that chance has drawn, a tensor of one element or two may be a small rest of large
# terms: it is measured against a tenth of the network's largest gradient. Of 800 networks two were
# then off by more than 1.3e-5, none by 2e-5; a search for the worst finds 5e-5.
DRAWN_GRADIENT, SMALLEST_SHARE = 10 * FLOAT32_GRADIENT, 0.1
MAGNIFIED = 30  # times the error of PyTorch in float32, whose tanh is a few times nearer


# --- every path that this processor has -------------------------------------------------------

# The best one is what `test_conformance*.py` runs.
OTHERS = [path for path in RUNNABLE if path != core.best()]


@pytest.mark.parametrize("path", core.PATHS)
def test_each_path_is_loaded_as_itself(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if OBSTACLES[path] is not None:
        pytest.skip(f"the path {path} cannot run here: {OBSTACLES[path]}")
    monkeypatch.setenv(core.FORCED, path)
    assert core.load().rowwise_path() == path.encode()
    got = native.predict(FITTING.network, FITTING.weights, FITTING.images)
    assert_close(got, plain.softmax(equation_logits(FITTING)), FLOAT32_OUTPUT, path)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("path", OTHERS)
def test_every_path_gives_the_equations(
    path: str, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs, the loss' gradients and the moving statistics, as in the conformance suite."""
    monkeypatch.setenv(core.FORCED, path)
    got = native.predict(case.network, case.weights, case.images)
    assert_close(
        got, plain.softmax(last_step(equation_logits(case))), FLOAT32_OUTPUT, "probabilities"
    )
    if any(isinstance(n.layer, Dropout) and n.layer.rate for n in case.network.nodes):
        return
    _, reference, moved = equation_gradients(case)
    slopes, state = gradients(NATIVE, case, np.arange(case.pictures))
    room = SATURATED_GRADIENT if case.ink == "saturated" else 1
    assert_gradients_close(slopes, reference, room * FLOAT32_GRADIENT)
    for name, value in moved.items():
        assert_close(state[name], value, FLOAT32_OUTPUT, name)


# --- any size ---------------------------------------------------------------------------------


def reference_away_from_kinks(chosen: Case) -> tuple[float, dict[str, Array], dict[str, Array]]:
    """The equations in float64, unless a relu is so near its kink that float32 may take a side."""
    nearest = [np.inf]
    relu = torch.relu

    def watched(x: Any) -> Any:
        nearest.append(float(x.detach().abs().min()))
        return relu(x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "relu", watched)
        reference = equation_gradients.__wrapped__(chosen)
    assume(min(nearest) > 3e-6)
    return reference  # type: ignore[no-any-return]


def farthest(got: dict[str, Array], reference: dict[str, Array]) -> tuple[float, str]:
    """The largest error of a gradient as a share of its tensor's largest, and which tensor's."""
    least = SMALLEST_SHARE * max(float(np.abs(value).max()) for value in reference.values())
    errors = {key: np.abs(got[key] - value).max() for key, value in reference.items()}
    shares = {key: e / max(np.abs(reference[key]).max(), least) for key, e in errors.items()}
    assert np.isfinite(list(shares.values())).all()
    worst = max(shares, key=lambda key: float(shares[key]))
    return float(shares[worst]), worst


def check_any_network(chosen: Case, threads: int, batch: int, path: str) -> None:
    loss, reference, moved = reference_away_from_kinks(chosen)
    own = begin(chosen, threads=threads, path=path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(core.FORCED, path)
        reader = native.Reader(chosen.network, chosen.weights, threads=threads)
    everything = np.arange(chosen.pictures)
    got = own.gradients(everything)
    assert got.keys() == reference.keys()
    off, name = farthest(got, reference)
    if off > DRAWN_GRADIENT:
        # Some networks magnify every rounding: the same equations in float32 tell by how much.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(references, "tensor", lambda a: torch.from_numpy(np.array(a, np.float32)))
            rounded = equation_gradients.__wrapped__(chosen)[1]
        assert off < MAGNIFIED * farthest(rounded, reference)[0], (name, off)
    assert_same_bits(own.weights(), chosen.weights)
    logits = equation_logits.__wrapped__(chosen)
    read = reader.predict(chosen.images, batch=batch)
    assert_close(read, plain.softmax(logits), FLOAT32_OUTPUT, "probabilities")
    summed, right = own.evaluate(chosen.images, chosen.labels, batch=batch)
    targets = np.full(logits.shape, chosen.experiment.label_smoothing / chosen.classes)
    targets[everything, chosen.labels] += 1 - chosen.experiment.label_smoothing
    total = np.log(np.exp(logits).sum(1)).sum() - (targets * logits).sum()
    assert summed == pytest.approx(total, rel=FLOAT32_OUTPUT, abs=FLOAT32_OUTPUT)
    assert right == (read.argmax(1) == chosen.labels).sum()
    size = chosen.pictures
    losses, _ = own.run(everything, batch=size, first_step=0, rates=np.zeros(1))
    assert losses[0] == pytest.approx(loss * size, rel=FLOAT32_OUTPUT, abs=FLOAT32_OUTPUT)
    for name, value in moved.items():
        assert_close(own.weights()[name], value, FLOAT32_OUTPUT, name)


any_network = given(
    drawn_networks(), st.integers(1, 4), st.integers(1, 41), st.sampled_from(RUNNABLE)
)


@settings(max_examples=50)
@any_network
def test_any_size_gives_the_equations(chosen: Case, threads: int, batch: int, path: str) -> None:
    check_any_network(chosen, threads, batch, path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=1500)
@any_network
def test_a_thousand_sizes_give_the_equations(
    chosen: Case, threads: int, batch: int, path: str
) -> None:
    check_any_network(chosen, threads, batch, path)


# --- the same seed, the same bits -------------------------------------------------------------

OPTIMIZERS = (
    config.Adam(),
    config.AdamW(weight_decay=0.1),
    config.RMSprop(),
    config.RMSprop(momentum=0.5),
    SGD(learning_rate=0.1),
    SGD(learning_rate=0.1, momentum=0.9, nesterov=True),
)
STEPS, BATCH = 9, 8  # 67 pictures: the last step has 3


def run_some(own: native.Trainer, first: int, last: int) -> list[float]:
    """The steps [first, last) of an epoch of FITTING; their losses."""
    order = np.random.default_rng(1).permutation(67)[first * BATCH : last * BATCH]
    rates = np.linspace(0.001, 0.01, STEPS)[first:last]
    return own.run(order, batch=BATCH, first_step=first, rates=rates)[0].tolist()


@settings(max_examples=25)
@given(
    optimizer=st.sampled_from(OPTIMIZERS),
    threads=st.integers(1, 4),
    precision=st.sampled_from(engines.PRECISIONS),
    path=st.sampled_from(RUNNABLE),
    cuts=st.dictionaries(st.integers(0, STEPS), st.booleans(), max_size=4),
)
def test_steps_cut_into_any_calls_give_the_same_bits(
    optimizer: config.Optimizer,
    threads: int,
    precision: engines.Precision,
    path: str,
    cuts: dict[int, bool],
) -> None:
    """At each cut the same trainer goes on, or a new one from its state."""
    fitting = FITTING.with_settings(optimizer=optimizer)
    how: dict[str, Any] = {"threads": threads, "seed": 3, "precision": precision, "path": path}
    whole = begin(fitting, **how)
    losses = run_some(whole, 0, STEPS)
    own, told = begin(fitting, **how), []
    for first, last in itertools.pairwise([0, *sorted(cuts), STEPS]):
        if cuts.get(first):
            own = begin(fitting, **how, state=own.state())
        told += run_some(own, first, last)
    assert told == losses
    assert_same_bits(own.state(), whole.state())
    assert_same_bits(own.weights(), whole.weights())


def test_another_seed_or_another_step_drops_otherwise() -> None:
    def first_loss(*, seed: int, step: int) -> float:
        own = begin(FITTING, seed=seed)
        losses, _ = own.run(np.arange(8), batch=8, first_step=step, rates=np.zeros(1))
        return float(losses[0])

    places = [(1, 0), (2, 0), (1, 1), (1, 2**40), (2**32 + 1, 0)]
    losses = [first_loss(seed=seed, step=step) for seed, step in places]
    assert losses[0] == first_loss(seed=1, step=0)
    assert len(set(losses)) == len(places)


def test_the_number_of_threads_draws_no_other_dropout() -> None:
    """Who draws for a picture does not matter, only which picture it is."""
    losses = [run_some(begin(FITTING, threads=threads, seed=3), 0, 3) for threads in (1, 2, 3, 5)]
    for other in losses[1:]:
        assert other == pytest.approx(losses[0], rel=FLOAT32_STEPS)


WHOLE_TRAININGS: dict[str, dict[str, Any]] = {
    "smoothed and clipped": {
        "label_smoothing": 0.2,
        "clipping": {"by": "global_norm", "limit": 0.5},
        "schedule": {"kind": "cosine", "warmup": 0.2},
    },
    "one cycle": {"optimizer": {"kind": "sgd", "learning_rate": 0.1, "momentum": 0.9},
                  "clipping": {"by": "value", "limit": 0.01}, "schedule": "one_cycle"},
    "held out": {"optimizer": "rmsprop", "validation": 0.2, "schedule": "exponential",
                 "clipping": {"by": "norm", "limit": 0.05}},
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE_TRAININGS)
def test_a_whole_training_is_that_of_the_torch_engine(name: str) -> None:
    """From the order of the pictures over schedule and clipping to the test accuracy."""
    layers = [
        {"kind": "batch_norm"},
        {"kind": "gru", "units": 9, "bidirectional": True},
        {"kind": "dense", "units": 8, "activation": "tanh"},
    ]
    chosen = experiment(layers=layers, epochs=2, **WHOLE_TRAININGS[name])
    own, other = train(chosen, engine="native", threads=2), train(chosen, engine="torch")
    for mine, its in zip(own.metrics, other.metrics, strict=True):
        assert mine.loss == pytest.approx(its.loss, rel=FLOAT32_STEPS)
        assert mine.val_loss == pytest.approx(its.val_loss, rel=FLOAT32_STEPS)
    for key, value in other.weights.items():
        assert_close(own.weights[key], value.astype(np.float64), 10 * FLOAT32_STEPS, key)
    assert own.probabilities is not None
    assert other.probabilities is not None
    assert_close(own.probabilities, other.probabilities.astype(np.float64), FLOAT32_STEPS, "test")


def test_reading_between_steps_changes_nothing() -> None:
    alone, read = begin(FITTING), begin(FITTING)
    run_some(alone, 0, STEPS)
    for step in range(STEPS):
        run_some(read, step, step + 1)
        read.evaluate(FITTING.images, FITTING.labels)
        read.gradients(np.arange(5))
        read.state()
    assert_same_bits(alone.state(), read.state())


def test_a_reader_keeps_the_weights_that_it_was_given() -> None:
    weights = {k: v.copy() for k, v in FITTING.weights.items()}
    reader = native.Reader(FITTING.network, weights)
    before = reader.predict(FITTING.images)
    for value in weights.values():
        value[...] = 0
    assert np.array_equal(reader.predict(FITTING.images), before)


# --- reading ----------------------------------------------------------------------------------


def test_reading_depends_neither_on_batch_nor_on_threads() -> None:
    network, weights, images = READING.network, READING.weights, READING.images[:101]
    labels = READING.labels[:101]
    first = native.predict(network, weights, images, batch=101, threads=1)
    trainer = native.Trainer(network, weights, images, labels, seed=0, threads=1)
    loss, right = trainer.evaluate(images, labels, batch=101)
    for batch, threads in itertools.product((1, 2, 5, 16, 64, 100, 101, 10**9), (1, 2, 3, 5)):
        got = native.predict(network, weights, images, batch=batch, threads=threads)
        assert_close(got, first.astype(np.float64), SAME, f"batch {batch}, {threads} threads")
        own = native.Trainer(network, weights, images, labels, seed=0, threads=threads)
        summed, hits = own.evaluate(images, labels, batch=batch)
        assert summed == pytest.approx(loss, rel=SAME)
        assert hits == right


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_one_picture_and_thousands_are_read_as_plain_reads_them(kind: Any, activation: Any) -> None:
    chosen = case(
        f"as-plain-{kind}-{activation}",
        BatchNorm(),
        Recurrent(kind=kind, units=33, activation=activation, bidirectional=True),
        shape=(8, 6),
        pictures=2000,
        ink="bytes",
        head=0.5,
    )
    network, weights = chosen.network, chosen.weights
    reader = native.Reader(network, weights)
    expected = plain.predict(network, weights, chosen.images).astype(np.float64)
    assert_close(reader.predict(chosen.images), expected, FLOAT32_OUTPUT, "2000 pictures")
    alone = [reader.predict(chosen.images[i : i + 1])[0] for i in range(20)]
    assert_close(np.stack(alone), expected[:20], FLOAT32_OUTPUT, "one by one")


@settings(max_examples=15)
@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=3),
    units=st.lists(sizes, min_size=3, max_size=3),
    both=st.lists(st.booleans(), min_size=3, max_size=3),
    wanted=st.integers(0, 2),
    keeps=st.booleans(),
    threads=st.integers(1, 3),
)
def test_states_are_the_hidden_states_of_the_plain_engine(
    kinds: list[Any],
    units: list[int],
    both: list[bool],
    wanted: int,
    keeps: bool,
    threads: int,
) -> None:
    """Of the last layer all states too, though the network itself reads on from the last alone."""
    layers = [
        Recurrent(kind=k, units=u, bidirectional=b, return_sequences=True)
        for k, u, b in zip(kinds, units, both, strict=False)
    ]
    whole = case("states", BatchNorm(), *layers, Flatten(), pictures=7, shape=(4, 5))
    names = [n.name for n in whole.network.nodes if isinstance(n.layer, Recurrent)]
    name = names[wanted % len(names)]
    chosen, weights = whole.network, dict(whole.weights)
    if not keeps:
        last = layers[-1].model_copy(update={"return_sequences": False})
        chosen = case("last", BatchNorm(), *layers[:-1], last, shape=(4, 5)).network
        weights |= {
            k: v for k, v in asymmetric_weights(chosen, seed=1).items() if k.startswith("dense")
        }
    got = native.Reader(chosen, weights, threads=threads).states(whole.images, name, batch=3)
    expected = plain.forward(whole.network, whole.weights, whole.images, dtype=np.float64)[name]
    assert got.dtype == np.float32
    assert_close(got, expected, FLOAT32_OUTPUT, name)


def test_states_of_a_branch_are_in_the_order_of_its_reading() -> None:
    sequence = Recurrent(kind="gru", units=5, return_sequences=True)
    branches = (
        Branch(reading=Rows(), layers=(BatchNorm(), Recurrent(kind="lstm", units=7))),
        Branch(reading=Columns(), layers=(sequence, Pool())),
        Branch(reading=Patches(height=2, width=3), layers=(sequence, Pool(by="max"))),
    )
    chosen = case("branch-states", branches=branches, shape=(4, 6), pictures=5)
    reader = native.Reader(chosen.network, chosen.weights)
    expected = plain.forward(chosen.network, chosen.weights, chosen.images, dtype=np.float64)
    names = [n.name for n in chosen.network.nodes if isinstance(n.layer, Recurrent)]
    assert len(names) == 3
    assert reader.states(chosen.images, names[0]).shape == (5, 4, 7)
    for name in names[1:]:
        assert_close(reader.states(chosen.images, name), expected[name], FLOAT32_OUTPUT, name)


def test_states_of_no_pictures_and_of_what_has_none() -> None:
    reader = native.Reader(READING.network, READING.weights)
    assert reader.states(READING.images[:0], "bidirectional_lstm").shape == (0, 8, 66)
    for name in ("dense", "batch_normalization", "lstm", "bidirectional"):
        with pytest.raises(
            EngineError, match=r"states are those of a .*\(bidirectional_lstm\), got"
        ):
            reader.states(READING.images, name)


# --- what is not a number is seen -------------------------------------------------------------


@pytest.mark.parametrize("precision", engines.PRECISIONS)
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_that_is_no_number_is_seen_in_every_loss(
    kind: Any, activation: Any, precision: Any
) -> None:
    """No maximum, clamp or zero on its way hides it, so the training is known to have diverged."""
    how: dict[str, Any] = {"kind": kind, "activation": activation, "bidirectional": True}
    layers = (
        BatchNorm(),
        Recurrent(units=5, return_sequences=True, **how),
        Dense(units=4, activation="sigmoid"),
        BatchNorm(),
        Recurrent(units=6, return_sequences=True, **how),
        Pool(by="max"),
        Dense(units=5, activation=activation),
    )
    chosen = case(f"nan-{kind}-{activation}", *layers, pictures=6)
    hidden = []
    for name, parameter in chosen.network.parameters.items():
        spoilt = {k: v.copy() for k, v in chosen.weights.items()}
        spoilt[name].flat[-1] = np.nan
        own = begin(chosen, state=spoilt, precision=precision)
        loss, _ = own.evaluate(chosen.images, chosen.labels)
        read = native.predict(chosen.network, spoilt, chosen.images)
        losses, _ = own.run(np.arange(6), batch=6, first_step=0, rates=np.zeros(1))
        if not (np.isnan(loss) and np.isnan(read).any()):
            hidden.append(f"{name} when reading")
        # Moving statistics are not used in training.
        if parameter.trainable and not np.isnan(losses[0]):
            hidden.append(f"{name} when training")
    assert hidden == []


@pytest.mark.parametrize("by", ["value", "norm", "global_norm"])
def test_clipping_does_not_hide_what_is_no_number(by: Any) -> None:
    clipped = case("clipped", Recurrent(kind="lstm", units=5), optimizer=SGD())
    clipped = clipped.with_settings(clipping=config.Clipping(by=by, limit=0.1))
    spoilt = {k: v.copy() for k, v in clipped.weights.items()}
    spoilt["lstm.kernel"][0, 0] = np.nan
    own = begin(clipped, state=spoilt)
    own.run(np.arange(4), batch=4, first_step=0, rates=np.ones(1))
    assert np.isnan(own.weights()["dense.bias"]).all()

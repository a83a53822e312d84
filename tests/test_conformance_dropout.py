"""Every engine that trains draws dropout's masks at their rate, by seed and step alone."""

from __future__ import annotations

import numpy as np
import pytest
from conformance import (
    FLOAT32_OUTPUT,
    TRAINERS,
    Array,
    TrainerEntry,
    as_floats,
    assert_close,
    case,
    gradients,
    take_path,
    trainer,
)
from references import equation_logits

from rowwise.config import Dense, Dropout, Flatten, Layer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=TRAINERS, ids=str)
def entry(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> TrainerEntry:
    entry: TrainerEntry = request.param
    take_path(entry.path, monkeypatch)
    return entry


RATE, FEATURES, AT_ONCE = 0.3, 48 * 40, 4
# Five standard deviations of a binomial share over AT_ONCE x FEATURES = 7680 draws.
SHARE_TOLERANCE = 5 * (RATE * (1 - RATE) / (AT_ONCE * FEATURES)) ** 0.5


def dropped_inputs(
    entry: TrainerEntry, *layers: Layer, step: int = 0, seed: int = 0, rounds: int = 1
) -> Array:
    """What reaches the head [AT_ONCE, FEATURES] over what the picture holds.

    With a head of zeros every picture's output gradient d [B, C] is known, and the gradient of the
    head's kernel is Σ_b x_b ⊗ d_b: with more classes than pictures it gives every x_b back.
    """
    seen = case("dropped", *layers, shape=(48, 40), pictures=AT_ONCE)
    rng = np.random.default_rng(11)
    seen.images[...] = rng.uniform(0.5, 1, seen.images.shape)
    seen.labels[...] = np.arange(AT_ONCE)
    for value in seen.weights.values():
        value[...] = 0
    got, _ = gradients(entry, seen, np.arange(AT_ONCE), step=step, seed=seed)
    output = (np.full((AT_ONCE, 10), 0.1) - np.eye(10)[:AT_ONCE]) / AT_ONCE
    reached = np.linalg.lstsq(output.T, got["dense.kernel"].astype(np.float64).T, rcond=None)[0]
    return reached / as_floats(seen.images).reshape(AT_ONCE, -1)


@pytest.mark.parametrize("where", ["on-vector", "on-sequence"])
def test_dropout_zeroes_its_share_and_scales_the_rest(entry: TrainerEntry, where: str) -> None:
    layers = [Flatten(), Dropout(rate=RATE)]
    ratio = dropped_inputs(entry, *(layers if where == "on-vector" else reversed(layers)))
    kept = ratio > 0.5
    assert_close(ratio, kept / (1 - RATE), 10 * FLOAT32_OUTPUT, "kept inputs")
    assert abs((~kept).mean() - RATE) <= SHARE_TOLERANCE
    # Each element by itself: no picture, row, column or place is dropped with its neighbours.
    grid = kept.reshape(AT_ONCE, 48, 40)
    for axes in ((1, 2), (0, 2), (0, 1)):
        drawn = grid.size / np.prod([n for a, n in enumerate(grid.shape) if a not in axes])
        spread = grid.mean(axis=axes).std() / (RATE * (1 - RATE) / drawn) ** 0.5
        assert 0.2 < spread < 2.2, axes
    assert len({row.tobytes() for row in kept}) == AT_ONCE


def test_dropout_draws_by_seed_and_step(entry: TrainerEntry) -> None:
    layers = (Flatten(), Dropout(rate=RATE))

    def kept(**place: int) -> Array:
        return dropped_inputs(entry, *layers, **place) > 0.5

    assert np.array_equal(kept(step=3, seed=5), kept(step=3, seed=5))
    for other in ({"step": 4, "seed": 5}, {"step": 3, "seed": 6}, {"step": 5, "seed": 3}):
        agree = (kept(step=3, seed=5) == kept(**other)).mean()
        expected = RATE**2 + (1 - RATE) ** 2
        assert abs(agree - expected) <= 2 * SHARE_TOLERANCE, other


def test_two_dropouts_draw_apart(entry: TrainerEntry) -> None:
    ratio = dropped_inputs(entry, Flatten(), Dropout(rate=RATE), Dropout(rate=RATE))
    kept = (ratio > 0.5).mean()
    assert abs(kept - (1 - RATE) ** 2) <= 2 * SHARE_TOLERANCE


def test_dropout_of_nothing_is_nothing(entry: TrainerEntry) -> None:
    ratio = dropped_inputs(entry, Flatten(), Dropout(rate=0.0))
    assert_close(ratio, np.ones_like(ratio), 10 * FLOAT32_OUTPUT, "kept inputs")


def test_evaluating_drops_nothing(entry: TrainerEntry) -> None:
    dropped = case("evaluated", Flatten(), Dropout(rate=0.9), Dense(units=6), pictures=30)
    logits = equation_logits(dropped)
    loss = np.log(np.exp(logits).sum(1)) - logits[np.arange(30), dropped.labels]
    own = trainer(entry, dropped.network, dropped.weights, dropped.images, dropped.labels)
    summed, _ = own.evaluate(dropped.images, dropped.labels)
    assert summed == pytest.approx(float(loss.sum()), rel=FLOAT32_OUTPUT)

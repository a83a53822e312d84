"""Temperatures and thresholds: against what they were drawn from, and the promise itself."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rowwise import metrics
from rowwise.calibration import fit_temperature, promise, quantile_candidates, temper


def drawn(count: int, *, seed: int, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and probabilities that are right about them once they are tempered so."""
    rng = np.random.default_rng(seed)
    logits = 3 * rng.standard_normal((count, 10))
    true = temper(np.exp(logits), 1.0)
    labels = (true.cumsum(1) > rng.random((count, 1))).argmax(1)
    return labels, temper(np.exp(logits), 1 / temperature)


def test_a_temperature_of_one_changes_nothing_and_others_keep_the_order():
    _, probabilities = drawn(50, seed=0)
    np.testing.assert_allclose(temper(probabilities, 1.0), probabilities, atol=1e-12)
    for temperature in (0.3, 4.0):
        other = temper(probabilities, temperature)
        np.testing.assert_allclose(other.sum(-1), 1)
        np.testing.assert_array_equal(other.argsort(-1), probabilities.argsort(-1))
        assert ((other.max(-1) > probabilities.max(-1)) == (temperature < 1)).all()


def test_tempering_survives_zeros_and_float32():
    sure = np.array([[1.0, 0.0, 0.0]], np.float32)
    for temperature in (0.1, 1.0, 10.0):
        got = temper(sure, temperature)
        assert np.isfinite(got).all()
        assert got[0, 0] > 0.9


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_was_used_is_found(temperature):
    labels, probabilities = drawn(20_000, seed=1, temperature=temperature)
    assert fit_temperature(labels, probabilities) == pytest.approx(temperature, rel=0.05)
    tempered = temper(probabilities, fit_temperature(labels, probabilities))
    assert metrics.calibration(labels, tempered).expected_error < 0.015


@pytest.mark.parametrize(("right", "limit"), [(True, 0.1), (False, 10.0)])
def test_a_temperature_ends_at_its_bounds(right, limit):
    """A network that is never wrong could be ever surer, and one that always is ever less sure."""
    probabilities = np.tile([0.6, 0.3, 0.1], (50, 1))
    labels = np.full(50, 0 if right else 2)
    assert fit_temperature(labels, probabilities) == pytest.approx(limit, rel=1e-3)


def test_where_not_even_the_first_candidate_passes_nothing_is_promised():
    """Ten thousand pictures of falling confidence, errors at known places."""
    confidence = np.linspace(0.999, 0.6, 10_000)
    labels = np.zeros(10_000, np.int64)
    labels[[2000, 5000, 7000, 7001, 7002, 7003, 7004, 7005]] = 1
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    candidates = [float(confidence[k - 1]) for k in (3000, 4000, 6000, 6500, 8000, 10_000)]
    # 3000 with one error: e^-3 (1 + 3) = 0.2 > 0.05, so not even the first passes at 1 in 1000.
    assert promise(labels, probabilities, candidates=candidates[:1]) is None
    assert promise(labels, probabilities, candidates=candidates) is None


def test_the_sequence_stops_at_the_first_failure():
    confidence = np.linspace(0.999, 0.6, 10_000)
    labels = np.zeros(10_000, np.int64)
    labels[[5000, 7000, 7001, 7002, 7003, 7004, 7005, 7006]] = 1
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    places = (3500, 4500, 6000, 6900, 7500, 9999)
    candidates = [float(confidence[k - 1]) for k in places]
    found = promise(labels, probabilities, candidates=candidates[::-1], error_rate=0.001)
    assert found == (candidates[3], 0.001, 0.95, 10_000, 6900, 1)
    passes = [stats.binom.cdf((labels[:k] == 1).sum(), k, 0.001) <= 0.05 for k in places]
    assert passes[:5] == [True, True, True, True, False]


def test_the_promise_is_kept_as_often_as_it_says():
    """Many calibrations on readings whose error rate at each confidence is known."""
    rng = np.random.default_rng(3)
    levels = np.linspace(0.90, 0.9999, 40)  # a reading of this confidence is right so often
    broken = made = 0
    for _ in range(400):
        confidence = rng.choice(levels, 3000)
        wrong = rng.random(3000) > confidence
        probabilities = np.stack([confidence, 1 - confidence], axis=1)
        found = promise(
            wrong.astype(int),
            probabilities,
            candidates=list(levels[:25]),
            error_rate=0.03,
            level=0.9,
        )
        if found is not None:
            made += 1
            broken += (1 - levels[levels >= found.confidence]).mean() > 0.03
    assert made > 200
    assert broken / made < 0.14  # 0.1, and three standard errors


def test_candidates_accept_the_shares_asked_for():
    confidence = np.random.default_rng(0).random(5000)
    found = quantile_candidates(confidence, coverages=[0.5, 0.9])
    assert [(confidence >= one).mean() for one in found] == pytest.approx([0.5, 0.9], abs=0.001)


@pytest.mark.parametrize("bad", [{"error_rate": 0.0}, {"error_rate": 1.0}, {"level": 1.0}])
def test_shares_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match="must be above 0 and below 1"):
        promise([0], [[1.0, 0.0]], candidates=[0.5], **bad)

"""Equivalence: against one-sided tests of scipy, published power, quadrature and simulation."""

import json
import math
import sys
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from rowwise import equivalence
from rowwise.equivalence import seeds_for_power, spread_limit, tost, tost_power
from rowwise.errors import MissingExtra

# Hours of sleep that the second drug added beyond the first: Student 1908, table of ten patients.
DRUGS = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]

# the test


def test_tost_of_students_sleep_data():
    # mean 1.58, s = 1.229995; t(9; 0.95) = 1.833113; e = 0.388959
    found = tost(DRUGS, margin=2.5)
    assert (found.mean, found.std) == pytest.approx((1.58, 1.229995), abs=5e-7)
    assert (found.low, found.high) == pytest.approx((0.866995, 2.293005), abs=5e-6)
    assert found.p == pytest.approx(stats.ttest_1samp(DRUGS, 2.5, alternative="less").pvalue)
    assert (found.equivalent, found.margin, found.alpha, found.n) == (True, 2.5, 0.05, 10)
    assert tost(DRUGS, margin=2.2).equivalent is False


differences = st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=2, max_size=9)


@settings(max_examples=60)
@given(differences, st.floats(0.01, 2), st.sampled_from([0.01, 0.05, 0.1]))
def test_tost_is_two_one_sided_t_tests_and_its_interval(values, margin, alpha):
    found = tost(values, margin=margin, alpha=alpha)
    if found.std < 1e-9:
        assert found.equivalent == (abs(found.mean) < margin)
        return
    above = stats.ttest_1samp(values, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(values, margin, alternative="less").pvalue
    assert found.p == pytest.approx(max(above, below), rel=1e-7, abs=1e-12)
    if abs(found.p - alpha) > 1e-9:
        assert found.equivalent == (found.p < alpha)
        assert found.equivalent == (-margin < found.low and found.high < margin)
    mirrored = tost([-value for value in values], margin=margin, alpha=alpha)
    assert mirrored.p == pytest.approx(found.p, rel=1e-9)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low), rel=1e-9)


def test_differences_without_spread_and_a_single_one():
    same = tost([0.0, 0.0, 0.0], margin=0.002)
    assert (same.p, same.equivalent, same.low, same.high) == (0, True, 0, 0)
    at_the_margin = tost([0.25, 0.25], margin=0.25)
    assert (at_the_margin.p, at_the_margin.equivalent) == (1, False)
    assert tost([0.5, 0.5], margin=0.25).equivalent is False
    alone = tost([0.0], margin=0.002)
    assert alone.equivalent is None
    assert all(math.isnan(value) for value in (alone.low, alone.high, alone.std, alone.p))


def test_a_difference_as_large_as_the_margin_is_called_equivalent_at_most_alpha_often():
    draws = np.random.default_rng(3).normal(0.002, 0.001, (1200, 6))
    called = np.mean([tost(draw, margin=0.002).equivalent for draw in draws])
    assert called == pytest.approx(0.05, abs=0.022)  # three and a half standard errors


# its power


def quadrature(reach, shift, df, alpha=0.05):
    """The same probability by an adaptive rule over the standard deviation."""
    critical, scaled = stats.t.ppf(1 - alpha, df), stats.chi(df, scale=df**-0.5)

    def density(s):
        half = reach - critical * s
        return (stats.norm.cdf(half - shift) - stats.norm.cdf(-half - shift)) * scaled.pdf(s)

    end = reach / critical
    points = [min(1.0, 0.99 * end)]
    return integrate.quad(density, 0, end, epsabs=1e-13, limit=500, points=points)[0]


def test_the_reference_gives_a_published_power():
    # A 2x2 crossover of 40 subjects with a coefficient of variation of 0.3, a ratio of 0.95 and
    # the bounds 0.8 and 1.25: 0.815845, the first example of the R package PowerTOST.
    error = math.sqrt(2 / 40 * math.log(1 + 0.3**2))
    found = quadrature(math.log(1.25) / error, math.log(0.95) / error, 38)
    assert found == pytest.approx(0.815845, abs=5e-7)


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1])
@pytest.mark.parametrize(
    ("spread", "n", "difference"),
    [(1, 2, 0), (1, 13, 0), (1, 12, 0.3), (3, 100, 0), (0.2, 3, 0), (0.5, 6, -0.9), (2, 6, 1.5)],
)
def test_power_equals_an_adaptive_quadrature(spread, n, difference, alpha):
    found = tost_power(spread, 1.0, n, difference=difference, alpha=alpha)
    scale = math.sqrt(n) / spread
    assert found == pytest.approx(quadrature(scale, difference * scale, n - 1, alpha), abs=1e-11)
    assert tost_power(spread / 500, 0.002, n, difference=difference / 500, alpha=alpha) == (
        pytest.approx(found, abs=1e-12)
    )


@pytest.mark.parametrize("n", [4, 25, 400])
def test_near_one_margin_the_power_is_that_of_a_single_t_test(n):
    """The other margin is out of reach there, and one noncentral t decides."""
    spread, difference = 0.02, 0.98
    shift = (1 - difference) * math.sqrt(n) / spread
    alone = stats.nct.sf(stats.t.ppf(0.95, n - 1), n - 1, shift)
    assert tost_power(spread, 1.0, n, difference=difference) == pytest.approx(alone, abs=1e-9)


@pytest.mark.parametrize(("spread", "n", "difference"), [(1.0, 13, 0.0), (0.6, 5, 0.2), (2, 40, 0)])
def test_power_is_how_often_tost_says_so(spread, n, difference):
    draws = np.random.default_rng(4).normal(difference, spread, (60_000, n))
    half = stats.t.ppf(0.95, n - 1) * draws.std(axis=1, ddof=1) / math.sqrt(n)
    said = np.abs(draws.mean(axis=1)) + half < 1
    wanted = tost_power(spread, 1.0, n, difference=difference)
    assert said.mean() == pytest.approx(wanted, abs=3.5 * math.sqrt(0.25 / 60_000))
    checked = [tost(draw, margin=1.0).equivalent for draw in draws[:300]]
    assert checked == said[:300].tolist()


def test_power_at_its_ends():
    assert tost_power(0.0, 1.0, 2) == 1
    assert tost_power(0.0, 1.0, 2, difference=-1.0) == 0
    assert tost_power(1e9, 1.0, 5) == pytest.approx(0, abs=1e-9)
    assert tost_power(1e-9, 1.0, 2) == pytest.approx(1)
    # At the margin itself the power is the size of the test.
    assert tost_power(0.1, 1.0, 50, difference=1.0) == pytest.approx(0.05, abs=1e-9)


# the number of seeds


@cache
def power_of(ratio, n):
    return tost_power(ratio, 1.0, n)


@pytest.mark.parametrize("power", [0.5, 0.8, 0.9, 0.99])
@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.5, 1, 2.7])
def test_the_number_of_seeds_is_the_least_that_will_do(ratio, power):
    n = seeds_for_power(0.002 * ratio, 0.002, power=power)
    powers = [power_of(ratio, k) for k in range(2, n + 5)]
    assert next(k for k, reached in enumerate(powers, 2) if reached >= power) == n
    assert min(powers[n - 2 :]) >= power


def test_the_number_of_seeds_nears_that_of_a_known_spread():
    # (z(0.95) + z(0.95))²·σ²/margin² at a power of 0.9, where many seeds tell the spread.
    z = stats.norm.ppf(0.95)
    assert seeds_for_power(10, 1) == pytest.approx(100 * (2 * z) ** 2, rel=0.005)
    assert seeds_for_power(0, 1) == 2
    assert seeds_for_power(1, 1, alpha=0.01) > seeds_for_power(1, 1) > seeds_for_power(1, 2)


def test_the_limit_of_a_spread_holds_as_often_as_it_says():
    # χ²(4; 0.2) = 1.64878: √(4 / 1.64878) = 1.55757
    assert spread_limit(1.0, 5) == pytest.approx(1.55757, abs=1e-5)
    assert spread_limit(0.0, 5) == 0
    draws = np.random.default_rng(5).normal(0, 2.0, (4000, 5)).std(axis=1, ddof=1)
    covered = np.mean([spread_limit(s, 5) >= 2.0 for s in draws])
    assert covered == pytest.approx(0.8, abs=0.023)


# bad arguments, missing packages


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tost([], margin=1), r"^values must be a 1-D array"),
        (lambda: tost([0, math.nan], margin=1), r"finite, got nan for run 1"),
        (lambda: tost([0, 1], margin=0), r"^margin must be above 0 .* got 0; 0\.2 points is"),
        (lambda: tost([0, 1], margin=math.nan), r"got nan"),
        (lambda: tost([0, 1], margin=1, alpha=0.5), r"^alpha must .* got 0\.5; 5 % is 0\.05$"),
        (lambda: tost_power(-1, 1, 5), r"^spread must be 0 or more and finite, got -1$"),
        (lambda: tost_power(math.inf, 1, 5), r"got inf$"),
        (lambda: tost_power(1, 1, 1), r"^n must be 2 or more and difference finite, got 1 and 0"),
        (lambda: tost_power(1, 1, 3, difference=math.nan), r"got 3 and nan$"),
        (lambda: seeds_for_power(1, 1, power=90), r"^power must .* got 90; 90 % is 0\.9$"),
        (lambda: seeds_for_power(1, 1, power=0.4), r"^power must be from 0\.5, below 1, got 0\.4"),
        (lambda: seeds_for_power(1, -1), r"^margin must be above 0"),
        (lambda: spread_limit(1, 1), r"^n must be 2 or more and level between 0 and 1, got 1"),
        (lambda: spread_limit(1, 5, level=1), r"got 5 and 1$"),
    ],
)
def test_a_bad_argument_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_seeds_beyond_reason_are_refused(monkeypatch):
    monkeypatch.setattr(equivalence, "MOST_SEEDS", 100)
    assert seeds_for_power(2.9, 1.0) <= 100
    with pytest.raises(ValueError, match=r"^more than 100 seeds .* spread of 3\.2 and a margin of"):
        seeds_for_power(3.2, 1.0)


def test_the_verdict_is_plain_enough_for_json():
    found = tost(np.float32([0.001, -0.001, 0.0005]), margin=0.002)
    assert json.loads(json.dumps(found)) == list(found)


@pytest.mark.parametrize(
    "call",
    [
        lambda: tost([1, 2], margin=1),
        lambda: tost_power(1, 1, 5),
        lambda: seeds_for_power(1, 1),
        lambda: spread_limit(1, 5),
    ],
)
def test_without_scipy_the_extra_is_named(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MissingExtra, match=r"scikit-learn.*rowwise\[study\]"):
        call()

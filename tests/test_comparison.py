"""Intervals and tests, against published examples, scipy, brute force and coverage counted out."""

import doctest
import json
import math
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from scipy.special import xlogy

from rowwise import comparison
from rowwise.errors import MissingExtra

# Hours of sleep that two drugs added to ten patients' nights: Student 1908, "The probable error
# of a mean", Biometrika 6.
DRUG_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
DRUG_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]

# Fat content of ten hot dogs: Devore, "Probability and Statistics for Engineering and the
# Sciences", prediction interval for a single future value.
HOT_DOGS = [25.2, 21.3, 22.8, 17.0, 29.8, 21.0, 25.5, 16.0, 20.9, 19.5]

figures = st.floats(-1e6, 1e6, allow_subnormal=False)
samples = st.lists(figures, min_size=2, max_size=8)


# intervals of runs


def test_mean_and_prediction_intervals_of_the_published_hot_dogs():
    mean = comparison.mean_interval(HOT_DOGS)
    assert (mean.mean, mean.n, mean.level) == (21.90, 10, 0.95)
    assert mean.std == pytest.approx(4.134, abs=5e-4)
    assert (mean.low, mean.high) == pytest.approx((18.94, 24.86), abs=5e-3)
    further = comparison.prediction_interval(HOT_DOGS)
    assert (further.low, further.high) == pytest.approx((12.09, 31.71), abs=5e-3)


def test_the_interval_of_three_seeds_by_hand():
    # mean 0.98, s = 0.01, t(2; 0.975) = 4.302653
    found = comparison.mean_interval([0.97, 0.98, 0.99])
    assert found.std == pytest.approx(0.01)
    assert (found.low, found.high) == pytest.approx((0.98 - 0.0248414, 0.98 + 0.0248414), abs=1e-7)
    wider = comparison.prediction_interval([0.97, 0.98, 0.99])
    assert wider.high - 0.98 == pytest.approx(2 * 0.0248414, abs=2e-7)  # √(1 + 1/3) = 2·√(1/3)


@settings(max_examples=30)
@given(samples, st.sampled_from([0.5, 0.9, 0.99]))
def test_mean_interval_equals_scipys(values, level):
    found = comparison.mean_interval(values, level=level)
    error = stats.sem(values)
    low, high = stats.t.interval(level, len(values) - 1, loc=np.mean(values), scale=error or 1)
    if error > 1e-6:
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9, abs=1e-6)
    assert found.low <= found.mean <= found.high


@pytest.mark.parametrize("interval", [comparison.mean_interval, comparison.prediction_interval])
def test_one_run_has_no_interval_and_equal_runs_one_of_no_width(interval):
    one = interval([0.98])
    assert (one.mean, one.n) == (0.98, 1)
    assert all(math.isnan(value) for value in (one.low, one.high, one.std))
    equal = interval([0.1, 0.1, 0.1])
    assert tuple(equal[:4]) == (0.1, 0.1, 0.1, 0.0)


def test_student_intervals_cover_as_often_as_they_say():
    rng = np.random.default_rng(5)
    draws = rng.normal(0.98, 0.002, (800, 4))
    means = [comparison.mean_interval(draw[:3]) for draw in draws]
    further = [comparison.prediction_interval(draw[:3]) for draw in draws]
    covered = np.mean([found.low <= 0.98 <= found.high for found in means])
    predicted = np.mean([f.low <= v <= f.high for f, v in zip(further, draws[:, 3], strict=True)])
    assert covered == pytest.approx(0.95, abs=0.027)  # three and a half standard errors
    assert predicted == pytest.approx(0.95, abs=0.027)


# a published figure among ours


def test_position_of_a_published_figure_by_hand():
    # s·√(4/3) = 0.0115470; (1.00 − 0.98) / that = 1.7320508 = √3. With two degrees of freedom
    # p = 1 − t/√(2 + t²) = 1 − √(3/5).
    found = comparison.position(1.00, [0.97, 0.98, 0.99])
    assert found.z == pytest.approx(math.sqrt(3))
    assert found.p == pytest.approx(1 - math.sqrt(3 / 5))
    assert found.inside is True
    assert found.rank == 4
    ours = comparison.prediction_interval([0.97, 0.98, 0.99])
    assert (found.low, found.high) == (ours.low, ours.high)
    far = comparison.position(0.90, [0.97, 0.98, 0.99])
    assert (far.inside, far.rank) == (False, 1)
    assert far.z == pytest.approx(-0.08 / 0.0115470, rel=1e-5)


def test_position_ranks_ties_by_halves():
    assert comparison.position(0.98, [0.97, 0.98, 0.98, 0.99]).rank == 3
    assert comparison.position(0.98, [0.97, 0.98, 0.99]).rank == 2.5


def test_position_without_spread_or_without_repeats():
    alone = comparison.position(0.98, [0.98])
    assert alone.inside is None
    assert math.isnan(alone.z)
    assert math.isnan(alone.p)
    same = comparison.position(0.1, [0.1, 0.1, 0.1])
    assert (same.z, same.p, same.inside) == (0, 1, True)
    other = comparison.position(0.2, [0.1, 0.1, 0.1])
    assert (other.z, other.p, other.inside) == (math.inf, 0, False)


@settings(max_examples=30)
@given(figures, samples)
def test_inside_means_a_p_above_one_minus_the_level(published, values):
    found = comparison.position(published, values)
    if abs(found.p - 0.05) > 1e-6 and found.high > found.low:
        assert found.inside == (found.p > 0.05)
    mirrored = comparison.position(-published, [-value for value in values])
    assert mirrored.z == -found.z
    assert mirrored.rank == pytest.approx(len(values) + 2 - found.rank)


# one accuracy


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),  # Newcombe 1998, Statistics in Medicine 17:857, method 3
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_of_published_examples(correct, n, low, high):
    found = comparison.proportion_interval(correct, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


@settings(max_examples=30)
@given(st.integers(1, 10_000), st.data(), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_interval_equals_scipys(n, data, level):
    correct = data.draw(st.integers(0, n))
    found = comparison.proportion_interval(correct, n, level=level)
    wanted = stats.binomtest(correct, n).proportion_ci(level, method="wilson")
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_wilson_interval_covers_on_average_as_often_as_it_says():
    n, rates = 200, np.linspace(0.8, 0.99, 39)
    bounds = np.array([comparison.proportion_interval(k, n)[1:3] for k in range(n + 1)])
    covers = (bounds[:, :1] <= rates) & (rates <= bounds[:, 1:])
    chances = stats.binom.pmf(np.arange(n + 1)[:, None], n, rates)
    coverage = (covers * chances).sum(axis=0)
    assert coverage.mean() == pytest.approx(0.95, abs=0.006)
    assert coverage.min() > 0.91


# differences of means


def test_paired_difference_of_students_sleep_data():
    found = comparison.paired_difference(DRUG_1, DRUG_2)
    assert found.difference == pytest.approx(-1.58)
    assert found.t == pytest.approx(-4.0621, abs=5e-5)
    assert found.p == pytest.approx(0.002833, abs=5e-7)
    assert (found.low, found.high) == pytest.approx((-2.4598858, -0.7001142), abs=5e-8)
    assert (found.df, found.n_a, found.n_b) == (9, 10, 10)


def test_welch_difference_of_the_same_data_taken_as_unpaired():
    found = comparison.welch_difference(DRUG_1, DRUG_2)
    assert found.t == pytest.approx(-1.8608, abs=5e-5)
    assert found.df == pytest.approx(17.776, abs=5e-4)
    assert found.p == pytest.approx(0.07939, abs=5e-6)
    assert (found.low, found.high) == pytest.approx((-3.3654832, 0.2054832), abs=5e-8)


def test_both_differences_equal_scipys():
    rng = np.random.default_rng(6)
    for n_a, n_b in ((2, 2), (3, 3), (3, 9), (5, 2)):
        a, b = rng.normal(0.985, 0.001, n_a), rng.normal(0.98, 0.004, n_b)
        pairs = [
            (comparison.welch_difference(a, b, level=0.9), stats.ttest_ind(a, b, equal_var=False))
        ]
        if n_a == n_b:
            pairs.append((comparison.paired_difference(a, b, level=0.9), stats.ttest_rel(a, b)))
        for ours, theirs in pairs:
            bounds = theirs.confidence_interval(0.9)
            found = (ours.t, ours.df, ours.p, ours.low, ours.high)
            wanted = (theirs.statistic, theirs.df, theirs.pvalue, bounds.low, bounds.high)
            assert found == pytest.approx(wanted, rel=1e-9)


DIFFERENCES = [comparison.paired_difference, comparison.welch_difference]


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_runs_that_agree_exactly_divide_nothing_by_zero(difference):
    same = difference([0.5, 0.5], [0.5, 0.5])
    assert (same.difference, same.low, same.high, same.t, same.p) == (0, 0, 0, 0, 1)
    apart = difference([0.75, 0.75, 0.75], [0.5, 0.5, 0.5])
    assert (apart.low, apart.high, apart.t, apart.p) == (0.25, 0.25, math.inf, 0)


def test_paired_differences_that_only_rounding_tells_apart_are_equal():
    found = comparison.paired_difference([0.96, 0.9602, 0.97], [0.9588, 0.959, 0.9688])
    assert 0.96 - 0.9588 != 0.9602 - 0.959
    assert found.low == found.high == pytest.approx(0.0012)
    none = comparison.paired_difference([0.1 + 0.2, 0.5], [0.3, 0.5])
    assert (none.difference, none.low, none.high, none.p) == (0, 0, 0, 1)


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_a_single_run_gives_the_difference_and_nothing_more(difference):
    found = difference([0.75], [0.5])
    assert found.difference == 0.25
    assert all(math.isnan(value) for value in (found.low, found.high, found.t, found.p))


def test_welch_survives_one_side_without_spread_and_spreads_too_small_to_square():
    found = comparison.welch_difference([0.1, 0.2, 0.3], [0.5, 0.5])
    assert found.df == pytest.approx(2)
    tiny = comparison.welch_difference([0.0, 1e-150], [0.0, 3e-150])
    assert tiny.df == pytest.approx(
        1.21951, abs=1e-5
    )  # (1 + 9)² / (1 + 81): the shape alone decides
    assert math.isfinite(tiny.p)


def test_welch_covers_as_often_as_it_says_when_spreads_differ():
    rng = np.random.default_rng(7)
    found = [
        comparison.welch_difference(rng.normal(0.98, 0.001, 5), rng.normal(0.97, 0.004, 8))
        for _ in range(600)
    ]
    covered = np.mean([one.low <= 0.01 <= one.high for one in found])
    assert covered == pytest.approx(0.95, abs=0.031)


@settings(max_examples=30)
@given(samples, samples)
def test_swapping_the_sides_mirrors_the_difference(a, b):
    for difference in DIFFERENCES:
        size = min(len(a), len(b))
        there, back = difference(a[:size], b[:size]), difference(b[:size], a[:size])
        assert (there.low, there.high, there.t, there.p) == pytest.approx(
            (-back.high, -back.low, -back.t, back.p), rel=1e-9
        )
        order = np.random.default_rng(size).permutation(size)
        shuffled = difference(np.array(a)[order], np.array(b)[order])
        assert shuffled == pytest.approx(there, rel=1e-12)


# two networks on the same pictures


def networks(both, only_a, only_b, neither):
    """Labels and two networks' answers with these counts of right and wrong."""
    counts = (both, only_a, only_b, neither)
    said_a = np.repeat([1, 1, 0, 0], counts)
    said_b = np.repeat([1, 0, 1, 0], counts)
    return np.ones(sum(counts), int), said_a, said_b


def test_mcnemar_of_the_presidents_approval():
    # Agresti, "Categorical Data Analysis", the same 1600 voters asked twice: Wald interval of
    # the change 0.021 to 0.059, z = 4.17.
    found = comparison.mcnemar(*networks(794, 150, 86, 570))
    assert (found.only_a, found.only_b, found.n) == (150, 86, 1600)
    assert found.difference == pytest.approx(0.04)
    tail = sum(math.comb(236, k) for k in range(87))
    assert found.p == pytest.approx(2 * tail / 2**236, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((0.021, 0.059), abs=5e-4)


def test_mcnemar_of_a_published_trial():
    # Fagerland, Lydersen and Laake, "Statistical Analysis of Contingency Tables" (2017), chapter
    # 8, data of Cavo et al. 2012: exact p 0.052479, Tango's interval -0.1240 to -0.0054.
    found = comparison.mcnemar(*networks(59, 6, 16, 80))
    assert found.p == pytest.approx(0.052479, abs=5e-7)
    assert found.difference == pytest.approx(-0.0621, abs=5e-5)
    assert (found.low, found.high) == pytest.approx((-0.1240, -0.0054), abs=5e-5)


def test_tangos_own_example():
    # Tango 1998, section 6.1: 44 pairs, one discordant; the 90 % interval starts at -0.096.
    found = comparison.mcnemar(*networks(43, 0, 1, 0), level=0.9)
    assert found.low == pytest.approx(-0.096, abs=5e-4)


def score(only_a, only_b, n, delta):
    """Tango's statistic with the constrained likelihood maximised by search, not by formula."""

    counts = (only_a, only_b, n - only_a - only_b)

    def minus_log_likelihood(q):
        chances = (q + delta, q, 1 - 2 * q - delta)
        return -sum(xlogy(k, c) for k, c in zip(counts, chances, strict=True))

    least, most = max(0.0, -delta) + 1e-12, (1 - delta) / 2 - 1e-12
    found = optimize.minimize_scalar(
        minus_log_likelihood, bounds=(least, most), method="bounded", options={"xatol": 1e-13}
    )
    return (only_a - only_b - n * delta) / math.sqrt(n * (2 * found.x + delta - delta**2))


@pytest.mark.parametrize("counts", [(40, 20, 160), (3, 9, 50), (60, 45, 10_000), (7, 1, 12)])
def test_the_limits_are_where_tangos_score_is_z(counts):
    only_a, only_b, n = counts
    found = comparison.mcnemar(*networks(n - only_a - only_b, only_a, only_b, 0))
    z = stats.norm.ppf(0.975)
    assert score(only_a, only_b, n, found.low) == pytest.approx(z, abs=1e-4)
    assert score(only_a, only_b, n, found.high) == pytest.approx(-z, abs=1e-4)


@settings(max_examples=40)
@given(*[st.integers(0, 30)] * 4)
def test_mcnemar_mirrors_and_agrees_with_its_score_test(both, only_a, only_b, neither):
    if both + only_a + only_b + neither == 0:
        return
    labels, said_a, said_b = networks(both, only_a, only_b, neither)
    found, back = (
        comparison.mcnemar(labels, said_a, said_b),
        comparison.mcnemar(labels, said_b, said_a),
    )
    assert (found.low, found.high) == pytest.approx((-back.high, -back.low), abs=1e-12)
    assert found.p == pytest.approx(back.p)
    assert -1 <= found.low <= found.difference <= found.high <= 1
    # The interval leaves 0 out exactly where McNemar's (b − c)²/(b + c) passes z².
    statistic = (only_a - only_b) ** 2 / max(only_a + only_b, 1)
    assert (found.low > 0 or found.high < 0) == (statistic > stats.norm.ppf(0.975) ** 2)


def test_networks_that_never_differ():
    found = comparison.mcnemar(*networks(90, 0, 0, 10))
    z_squared = stats.norm.ppf(0.975) ** 2
    assert (found.p, found.difference) == (1, 0)
    assert (found.low, found.high) == pytest.approx(
        (-z_squared / (100 + z_squared), z_squared / (100 + z_squared))
    )
    assert comparison.mcnemar(*networks(0, 5, 0, 0)).high == 1
    assert comparison.mcnemar(*networks(0, 0, 5, 0)).low == -1


def test_mcnemar_reads_probabilities_too():
    by_class = comparison.mcnemar([0, 1, 1], [0, 1, 0], [1, 1, 0])
    sure = np.eye(2)
    assert comparison.mcnemar([0, 1, 1], sure[[0, 1, 0]], sure[[1, 1, 0]]) == by_class


@pytest.mark.parametrize("chances", [(0.05, 0.02), (0.10, 0.10), (0.15, 0.05)])
def test_tangos_interval_covers_as_often_as_it_says_counted_out(chances):
    """Every outcome of 40 pictures with its probability: no luck in this coverage."""
    n, (chance_a, chance_b) = 40, chances
    coverage = 0.0
    for only_a in range(15):
        for only_b in range(15):
            outcome = (only_a, only_b, n - only_a - only_b)
            weight = stats.multinomial.pmf(outcome, n, [*chances, 1 - sum(chances)])
            if weight > 1e-5:
                found = comparison.mcnemar(*networks(outcome[2], only_a, only_b, 0))
                coverage += weight * (found.low <= chance_a - chance_b <= found.high)
    assert 0.935 < coverage < 0.99  # the last where only three discordant pictures are expected


def test_tangos_interval_and_the_exact_p_on_ten_thousand_pictures():
    """Two networks of 98.5 % as the study has them: coverage, and false alarms without one."""
    rng = np.random.default_rng(8)
    n, draws = 10_000, 300
    covered, alarms = 0, 0
    for only_a, only_b, _ in rng.multinomial(n, [0.007, 0.006, 0.987], draws):
        found = comparison.mcnemar(*networks(n - only_a - only_b, only_a, only_b, 0))
        covered += found.low <= 0.001 <= found.high
    for only_a, only_b, _ in rng.multinomial(n, [0.006, 0.006, 0.988], draws):
        alarms += comparison.mcnemar(*networks(n - only_a - only_b, only_a, only_b, 0)).p <= 0.05
    assert covered / draws == pytest.approx(0.95, abs=0.038)  # three standard errors
    assert alarms / draws < 0.05 + 0.038


# many tests at once


def test_holm_of_a_worked_example():
    # 4·0.005, then 3·0.01, then 2·0.03, then 1·0.04 raised to what came before it.
    assert comparison.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def by_closure(p_values, i):
    """Holm's adjusted p as the closed test that it is: the worst Bonferroni p with i in it."""
    others = [p for j, p in enumerate(p_values) if j != i]
    families = (
        [p_values[i], *some] for size in range(len(p_values)) for some in combinations(others, size)
    )
    return max(min(1.0, len(family) * min(family)) for family in families)


p_lists = st.lists(st.floats(0, 1) | st.sampled_from([0.01, 0.05, 1.0]), max_size=6)


@given(p_lists)
def test_holm_is_the_closed_bonferroni_test(p_values):
    wanted = [by_closure(p_values, i) for i in range(len(p_values))]
    assert comparison.holm(p_values) == pytest.approx(wanted)


@given(p_lists, st.randoms(use_true_random=False))
def test_holm_keeps_the_order_and_never_lowers_a_p(p_values, random):
    found, raw = comparison.holm(p_values), np.array(p_values)
    assert ((found >= raw) & (found <= 1)).all()
    assert (np.diff(found[np.argsort(raw, kind="stable")]) >= 0).all()
    order = random.sample(range(len(p_values)), len(p_values))
    assert (comparison.holm(raw[order]) == found[order]).all()
    with_gap = comparison.holm([math.nan, *p_values])
    assert math.isnan(with_gap[0])
    assert (with_gap[1:] == found).all()


def test_holm_keeps_false_alarms_among_five_tests_at_their_level():
    draws = np.random.default_rng(9).uniform(size=(10_000, 5))
    assert (draws.min(axis=1) <= 0.05).mean() > 0.2
    alarms = np.mean([(comparison.holm(draw) <= 0.05).any() for draw in draws])
    assert alarms == pytest.approx(1 - 0.99**5, abs=0.008)  # nearly four standard errors


# the page that explains it, what leaves this module, bad arguments, missing packages


def test_the_examples_of_the_statistics_page_give_what_it_prints():
    page = Path(__file__).parents[1] / "docs" / "statistics.md"
    done = doctest.testfile(
        str(page), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE
    )
    assert done.attempted >= 8
    assert done.failed == 0


def test_what_is_returned_is_frozen_and_plain_enough_for_json():
    for found in (
        comparison.mean_interval(np.float32([0.5, 0.75])),
        comparison.position(np.float64(0.5), [0.5, 0.75]),
        comparison.proportion_interval(3, 4),
        comparison.welch_difference([0.5, 0.75], [0.25, 0.5]),
        comparison.mcnemar([0, 1], [0, 0], [1, 1]),
    ):
        assert json.loads(json.dumps(found)) == list(found)
        with pytest.raises(AttributeError):
            found.low = 0.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: comparison.mean_interval([]), r"^values must be a 1-D array .* got shape \[0\]$"),
        (lambda: comparison.mean_interval([[1]]), r"got shape \[1, 1\]$"),
        (lambda: comparison.mean_interval([1, math.nan]), r"finite, got nan for run 1; leave it"),
        (lambda: comparison.mean_interval([1, 2], level=95), r"got 95; 95 % is 0\.95$"),
        (lambda: comparison.mean_interval([1], level=0), r"^level must lie between 0 and 1"),
        (lambda: comparison.prediction_interval([1], level=1), r"^level must lie between 0 and 1"),
        (lambda: comparison.position(math.nan, [1, 2]), r"^published must be a finite number"),
        (lambda: comparison.proportion_interval(5, 4), r"^correct must lie in 0\.\.n .* 5 of 4$"),
        (lambda: comparison.proportion_interval(-1, 4), r"got -1 of 4$"),
        (lambda: comparison.proportion_interval(0, 0), r"got 0 of 0$"),
        (lambda: comparison.paired_difference([1, 2], [1]), r"same seeds, got 2 and 1; .*welch"),
        (lambda: comparison.welch_difference([1, 2], []), r"^b must be a 1-D array"),
        (lambda: comparison.mcnemar([1], [1], [1, 2]), r"one length, got 1 and 2$"),
        (lambda: comparison.mcnemar([1], [1], [1], level=2), r"^level must lie between 0 and 1"),
        (lambda: comparison.holm([[0.5]]), r"^p_values must be 1-D and in 0\.\.1"),
        (lambda: comparison.holm([0.5, 1.1]), r"got \[0\.5, 1\.1\]$"),
        (lambda: comparison.holm([-0.1]), r"got \[-0\.1\]$"),
    ],
)
def test_a_bad_argument_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda: comparison.mean_interval([1, 2]),
        lambda: comparison.position(1, [1, 2]),
        lambda: comparison.paired_difference([1, 2], [2, 4]),
        lambda: comparison.mcnemar([0, 1], [0, 0], [0, 1]),
    ],
)
def test_without_scipy_the_extra_is_named(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MissingExtra, match=r"scikit-learn.*rowwise\[study\]"):
        call()

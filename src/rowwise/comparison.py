"""Comparison: what repeated runs, or the same pictures, allow to be said about networks.

Axes: R runs (seeds), N pictures. One run gives no interval: its bounds are NaN, never a made-up
number. Runs that agree to the last digit give an interval of zero width. Every p is two-sided.
What each figure compares and assumes, with its references: docs/statistics.md.
"""

from __future__ import annotations

import math
import statistics
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rowwise.errors import importing
from rowwise.metrics import is_correct

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """Mean and standard deviation (n − 1) of `n` runs with an interval; NaN bounds if n = 1."""

    mean: float
    low: float
    high: float
    std: float
    n: int
    level: float


class Position(NamedTuple):
    """Where a published figure falls among repeated runs, with their prediction interval."""

    published: float
    z: float
    p: float
    rank: float  # 1: below all runs, n + 1: above all; halves where it ties with runs
    inside: bool | None  # None: a single run says nothing
    low: float
    high: float
    n: int
    level: float


class Proportion(NamedTuple):
    """An accuracy measured on `n` pictures, with its interval."""

    value: float
    low: float
    high: float
    correct: int
    n: int
    level: float


class Difference(NamedTuple):
    """A difference of means a − b with its t interval and p; NaN where runs are too few."""

    difference: float
    low: float
    high: float
    t: float
    df: float
    p: float
    n_a: int
    n_b: int
    level: float


class McNemar(NamedTuple):
    """Two networks on the same `n` pictures: accuracy a − b, its interval, and McNemar's p."""

    only_a: int  # pictures that a reads rightly and b wrongly
    only_b: int
    p: float
    difference: float
    low: float
    high: float
    n: int
    level: float


def mean_interval(values: ArrayLike, *, level: float = 0.95) -> Interval:
    """Return the mean of repeated runs with Student's interval mean ± t·s/√n, t of n − 1 degrees.

    The interval is about the mean of all seeds, and may pass 0 or 1. Source: Student 1908.

    Args:
        values: one figure a run, floats [R], R 1 or more.
        level: 0 < level < 1.

    Raises:
        ValueError: `values` is empty, not 1-D or not finite, or `level` is out of range.
        MissingExtra: scipy is not installed.
    """
    mean, std, n = _moments("values", values)
    half = _half_width(std / math.sqrt(n), n - 1, level)
    return Interval(mean, mean - half, mean + half, std, n, level)


def prediction_interval(values: ArrayLike, *, level: float = 0.95) -> Interval:
    """Return the interval in which one further run should fall: mean ± t·s·√(1 + 1/n).

    Source: Hahn and Meeker 1991, prediction of one further normal observation.

    Args:
        values: one figure a run, floats [R], R 1 or more.
        level: 0 < level < 1.

    Raises:
        ValueError: `values` is empty, not 1-D or not finite, or `level` is out of range.
        MissingExtra: scipy is not installed.
    """
    mean, std, n = _moments("values", values)
    half = _half_width(std * math.sqrt(1 + 1 / n), n - 1, level)
    return Interval(mean, mean - half, mean + half, std, n, level)


def position(published: float, values: ArrayLike, *, level: float = 0.95) -> Position:
    """Say whether a published figure lies where a further run of ours would fall.

    z = (published − mean) / (s·√(1 + 1/n)); p is the probability, under t of n − 1 degrees,
    that a further run falls as far out; `inside` says whether the prediction interval holds it.

    Args:
        published: the figure, in the unit of `values`.
        values: one figure a run of ours, floats [R], R 1 or more.
        level: 0 < level < 1.

    Returns:
        The position; of a single run z, p and the bounds are NaN and `inside` is None.

    Raises:
        ValueError: a figure is not finite, `values` is empty, or `level` is out of range.
        MissingExtra: scipy is not installed.
    """
    if not math.isfinite(published):
        raise ValueError(f"published must be a finite number, got {published}")
    published, ours = float(published), prediction_interval(values, level=level)
    z, p = _t_test(published - ours.mean, ours.std * math.sqrt(1 + 1 / ours.n), ours.n - 1)
    runs = np.asarray(values, dtype=np.float64)
    rank = 1 + int((runs < published).sum()) + int((runs == published).sum()) / 2
    inside = None if ours.n == 1 else ours.low <= published <= ours.high
    return Position(published, z, p, rank, inside, ours.low, ours.high, ours.n, level)


def proportion_interval(correct: int, n: int, *, level: float = 0.95) -> Proportion:
    """Return one accuracy with Wilson's score interval: how it would move on other pictures.

    (p̂ + z²/2n ± z·√(p̂(1−p̂)/n + z²/4n²)) / (1 + z²/n). Sources: Wilson 1927; recommended by
    Brown, Cai and DasGupta 2001.

    Args:
        correct: pictures read rightly, 0..n.
        n: pictures read, 1 or more.
        level: 0 < level < 1.

    Raises:
        ValueError: an argument is out of range.
    """
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"correct must lie in 0..n with n 1 or more, got {correct} of {n}")
    value, z = correct / n, _normal_quantile(level)
    centre = value + z * z / (2 * n)
    half = z * math.sqrt(value * (1 - value) / n + (z / (2 * n)) ** 2)
    scale = 1 + z * z / n
    # Exact at the ends, where rounding would leave 1e-18.
    low = 0.0 if correct == 0 else (centre - half) / scale
    high = 1.0 if correct == n else (centre + half) / scale
    return Proportion(value, low, high, int(correct), int(n), level)


def paired_difference(a: ArrayLike, b: ArrayLike, *, level: float = 0.95) -> Difference:
    """Return the mean of aᵢ − bᵢ, runs paired by their seeds, with Student's t interval and p.

    Differences that agree to within float64's rounding of `a` and `b` count as equal.

    Args:
        a: one figure a seed, floats [R], R 1 or more.
        b: figures of the same seeds in the same order, floats [R].
        level: 0 < level < 1.

    Returns:
        The difference; of a single pair the bounds, t and p are NaN.

    Raises:
        ValueError: the lengths differ, a figure is not finite, or `level` is out of range.
        MissingExtra: scipy is not installed.
    """
    first, second = _sample("a", a), _sample("b", b)
    if len(first) != len(second):
        raise ValueError(
            f"a and b must hold one figure for each of the same seeds, got {len(first)} and "
            f"{len(second)}; compare unpaired runs with welch_difference"
        )
    mean, std, n = _moments("a - b", first - second)
    # 0.96 - 0.9588 and 0.9602 - 0.959 differ in their last bits: a spread that is no evidence.
    rounding = 4 * np.finfo(np.float64).eps * max(np.abs(first).max(), np.abs(second).max())
    mean, std = (0.0 if abs(value) <= rounding else value for value in (mean, std))
    return _difference(mean, std / math.sqrt(n), n - 1, (n, n), level)


def welch_difference(a: ArrayLike, b: ArrayLike, *, level: float = 0.95) -> Difference:
    """Return mean(a) − mean(b) of unpaired runs with Welch's t interval and p.

    Standard error √(s_a²/n_a + s_b²/n_b), its degrees of freedom estimated from the same two
    terms. Sources: Satterthwaite 1946; Welch 1947.

    Args:
        a: one figure a run, floats [R_a], R_a 1 or more.
        b: one figure a run, floats [R_b], R_b 1 or more.
        level: 0 < level < 1.

    Returns:
        The difference; if either has a single run the bounds, t, df and p are NaN.

    Raises:
        ValueError: a figure is not finite, `a` or `b` is empty, or `level` is out of range.
        MissingExtra: scipy is not installed.
    """
    mean_a, std_a, n_a = _moments("a", a)
    mean_b, std_b, n_b = _moments("b", b)
    error_a, error_b = std_a / math.sqrt(n_a), std_b / math.sqrt(n_b)
    error = math.hypot(error_a, error_b)
    if math.isnan(error):
        df = math.nan
    elif error == 0:
        df = float(n_a + n_b - 2)
    else:
        # Shares of the variance, so that no fourth power of a small error underflows.
        share_a, share_b = (error_a / error) ** 2, (error_b / error) ** 2
        df = 1 / (share_a**2 / (n_a - 1) + share_b**2 / (n_b - 1))
    return _difference(mean_a - mean_b, error, df, (n_a, n_b), level)


def mcnemar(
    labels: ArrayLike, predicted_a: ArrayLike, predicted_b: ArrayLike, *, level: float = 0.95
) -> McNemar:
    """Compare two trained networks on the same pictures.

    p is exact: the binomial probability that the pictures which only one of them reads rightly
    split at least so unevenly. The interval of accuracy a − b is Tango's score interval.
    Sources: McNemar 1947; Tango 1998, equations 24 to 26.

    Args:
        labels: true classes, integers [N].
        predicted_a: what network a said: classes, integers [N], or probabilities [N, C].
        predicted_b: what network b said, likewise.
        level: 0 < level < 1.

    Raises:
        ValueError: the shapes differ, or a value is out of range.
        MissingExtra: scipy is not installed.
    """
    right_a, right_b = is_correct(labels, predicted_a), is_correct(labels, predicted_b)
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    discordant, n = only_a + only_b, len(right_a)
    p = float(scipy_stats().binomtest(only_a, discordant, 0.5).pvalue) if discordant else 1.0
    low, high = _tango_limits(only_a, only_b, n, level)
    return McNemar(only_a, only_b, p, (only_a - only_b) / n, low, high, n, level)


def holm(p_values: ArrayLike) -> Floats:
    """Return Holm's adjusted p-values, float64 [m], in the order given.

    The i-th smallest becomes the maximum over j ≤ i of min(1, (m − j + 1)·p₍ⱼ₎). Calling real
    what stays at or below α keeps the chance of any false alarm among the m at or below α,
    however the tests depend on each other. Source: Holm 1979.

    Args:
        p_values: one family of tests, floats [m] in 0..1, m 0 or more; NaN, a test that could
            not be made, stays NaN and does not count in m.

    Raises:
        ValueError: `p_values` is not 1-D, or a value is out of range.
    """
    raw = np.asarray(p_values, dtype=np.float64)
    if raw.ndim != 1 or ((raw < 0) | (raw > 1)).any():
        raise ValueError(f"p_values must be 1-D and in 0..1 (or NaN), got {raw.tolist()}")
    order = np.argsort(raw, kind="stable")[: np.count_nonzero(~np.isnan(raw))]
    scaled = raw[order] * np.arange(len(order), 0, -1)
    adjusted = np.full_like(raw, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


def scipy_stats() -> Any:
    """Return scipy's module of distributions. Raises MissingExtra where it is not installed."""
    with importing("scikit-learn", "study", module="scipy"):
        from scipy import stats
    return stats


def _sample(name: str, values: ArrayLike) -> Floats:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise ValueError(
            f"{name} must be a 1-D array with one figure a run, got shape {list(sample.shape)}"
        )
    if not np.isfinite(sample).all():
        run = int(np.argmin(np.isfinite(sample)))
        raise ValueError(f"{name} must be finite, got {sample[run]} for run {run}; leave it out")
    return sample


def _moments(name: str, values: ArrayLike) -> tuple[float, float, int]:
    # `statistics` sums exactly: equal values deviate by exactly 0, and the order never matters.
    sample = _sample(name, values).tolist()
    std = statistics.stdev(sample) if len(sample) > 1 else math.nan
    return statistics.mean(sample), std, len(sample)


def _normal_quantile(level: float) -> float:
    _check_level(level)
    return statistics.NormalDist().inv_cdf((1 + level) / 2)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}; 95 % is 0.95")


def _half_width(error: float, df: float, level: float) -> float:
    _check_level(level)
    if math.isnan(error) or error == 0:
        return error
    return float(scipy_stats().t.ppf((1 + level) / 2, df)) * error


def _t_test(distance: float, error: float, df: float) -> tuple[float, float]:
    if math.isnan(error):
        return math.nan, math.nan
    if error == 0:
        return (0.0, 1.0) if distance == 0 else (math.copysign(math.inf, distance), 0.0)
    t = distance / error
    return t, float(2 * scipy_stats().t.sf(abs(t), df))


def _difference(
    mean: float, error: float, df: float, runs: tuple[int, int], level: float
) -> Difference:
    half = _half_width(error, df, level)
    t, p = _t_test(mean, error, df)
    return Difference(mean, mean - half, mean + half, t, float(df), p, *runs, level)


def _tango_limits(only_a: int, only_b: int, n: int, level: float) -> tuple[float, float]:
    z_squared = _normal_quantile(level) ** 2
    estimate = (only_a - only_b) / n

    def holds(delta: float) -> bool:
        # 2q, q the likeliest P(only b) if P(only a) − P(only b) were delta.
        linear = (2 * n - only_a + only_b) * delta - only_a - only_b
        root = math.sqrt(max(0.0, linear**2 + 8 * n * only_b * delta * (1 - delta)))
        variance = (root - linear) / (2 * n) + delta * (1 - delta)
        return n * (estimate - delta) ** 2 <= z_squared * variance

    def limit(outside: float) -> float:
        # Bisection outwards from the estimate: where no picture is discordant the equation is
        # met at the estimate too, and a root finder could stop there.
        inside = estimate
        for _ in range(64):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if holds(middle) else (inside, middle)
        return inside

    return limit(-1.0), limit(1.0)

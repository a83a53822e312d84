"""Equivalence: whether repeated runs show two ways to be the same, within a margin set beforehand.

A difference test that finds nothing has not shown sameness; here sameness is what must be shown.
The differences are those of runs paired by their seeds, a figure a seed, and are taken as normal.
What is compared and assumed, with its references: docs/statistics.md.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rowwise.comparison import mean_interval, scipy_stats

MOST_SEEDS = 1_000_000
# Of Gauss-Legendre; the power has 12 digits with half as many.
_NODES = 128
# What is left out of each tail of the standard deviation's distribution.
_TAIL = 1e-15


class Equivalence(NamedTuple):
    """A mean difference with its interval of level 1 − 2·alpha, and what TOST says of it."""

    mean: float
    low: float
    high: float
    std: float
    p: float  # the larger one of the two tests'
    equivalent: bool | None  # None: a single difference says nothing
    margin: float
    alpha: float
    n: int


def tost(differences: ArrayLike, *, margin: float, alpha: float = 0.05) -> Equivalence:
    """Test whether a mean difference lies within ± margin: two one-sided t tests.

    p = max(P(T > (mean + margin)/e), P(T < (mean − margin)/e)) with e = s/√n and T of n − 1
    degrees of freedom; equivalent where p < alpha, which is where the interval of level
    1 − 2·alpha lies inside ± margin. Where the true difference is as large as the margin or
    larger, "equivalent" is said with a chance of at most alpha. Source: Schuirmann 1987.

    Args:
        differences: one a pair of runs, floats [R] in the unit of `margin`, R 1 or more.
        margin: the largest difference that would not matter, above 0, chosen beforehand.
        alpha: 0 < alpha < 0.5.

    Returns:
        The verdict; of a single difference the bounds, the spread and p are NaN.

    Raises:
        ValueError: `differences` is empty, not 1-D or not finite, or an argument is out of range.
        MissingExtra: scipy is not installed.
    """
    _check(margin=margin, alpha=alpha)
    found = mean_interval(differences, level=1 - 2 * alpha)
    room = margin - abs(found.mean)  # to the nearer bound, whose test has the larger p
    error = found.std / math.sqrt(found.n)
    if math.isnan(error):
        p, equivalent = math.nan, None
    else:
        p = float(scipy_stats().t.sf(room / error, found.n - 1)) if error else float(room <= 0)
        equivalent = p < alpha
    return Equivalence(
        found.mean, found.low, found.high, found.std, p, equivalent, margin, alpha, found.n
    )


def tost_power(
    spread: float, margin: float, n: int, *, difference: float = 0.0, alpha: float = 0.05
) -> float:
    """Return the chance that `tost` of n differences says "equivalent".

    With c = t₁₋α of n − 1 degrees of freedom, the sample's standard deviation S and its mean M:
    P(|M| < margin − c·S/√n) = E_S[Φ(z₊) − Φ(z₋)], z± = (±(margin − c·S/√n) − difference)·√n/σ
    over the S for which the first is above 0; (n − 1)·S²/σ² is χ² of n − 1 degrees. It is exact
    for normal differences; the integral over S is Gauss and Legendre's. Sources: Owen 1965;
    Phillips 1990.

    Args:
        spread: σ, the standard deviation of one difference, 0 or more, in the unit of `margin`.
        margin: above 0.
        n: differences, 2 or more.
        difference: the true mean difference.
        alpha: 0 < alpha < 0.5.

    Raises:
        ValueError: an argument is out of range.
        MissingExtra: scipy is not installed.
    """
    _check(spread=spread, margin=margin, alpha=alpha)
    if n < 2 or not math.isfinite(difference):
        raise ValueError(f"n must be 2 or more and difference finite, got {n} and {difference}")
    if spread == 0:
        return float(abs(difference) < margin)
    stats = scipy_stats()
    root, df = math.sqrt(n), n - 1
    reach, shift = margin * root / spread, difference * root / spread
    critical = stats.t.ppf(1 - alpha, df)
    scaled = stats.chi(df, scale=1 / math.sqrt(df))  # the distribution of S/σ
    least, most = scaled.ppf(_TAIL), min(scaled.isf(_TAIL), reach / critical)
    if most <= least:
        return 0.0
    points, weights = np.polynomial.legendre.leggauss(_NODES)
    s = least + (most - least) * (points + 1) / 2
    half = reach - critical * s
    inside = stats.norm.cdf(half - shift) - stats.norm.cdf(-half - shift)
    return float((most - least) / 2 * (weights @ (inside * scaled.pdf(s))))


def seeds_for_power(
    spread: float, margin: float, *, power: float = 0.9, alpha: float = 0.05
) -> int:
    """Return the least number of seeds with which `tost` shows an absent difference to be absent.

    The least n for which `tost_power(spread, margin, n)` is `power` or more.

    Args:
        spread: the standard deviation of one difference, 0 or more, in the unit of `margin`;
            where a pilot gave it, rather its upper limit (`spread_limit`).
        margin: above 0.
        power: 0.5 ≤ power < 1. (A third seed can lower a power of a few percent.)
        alpha: 0 < alpha < 0.5.

    Raises:
        ValueError: an argument is out of range, or more than a million seeds would be needed.
        MissingExtra: scipy is not installed.
    """
    if not 0.5 <= power < 1:
        raise ValueError(f"power must be from 0.5, below 1, got {power}; 90 % is 0.9")

    def enough(n: int) -> bool:
        return tost_power(spread, margin, n, alpha=alpha) >= power

    short, long = 1, 2
    while not enough(long):
        if long >= MOST_SEEDS:
            raise ValueError(
                f"more than {MOST_SEEDS:,} seeds would be needed for a spread of {spread:g} and "
                f"a margin of {margin:g}; widen the margin"
            )
        short, long = long, min(2 * long, MOST_SEEDS)
    while long - short > 1:
        middle = (short + long) // 2
        short, long = (short, middle) if enough(middle) else (middle, long)
    return long


def spread_limit(spread: float, n: int, *, level: float = 0.8) -> float:
    """Return the upper limit of the true standard deviation, given that of n values.

    s·√((n − 1)/χ²₁₋level): a pilot's own spread is below the true one more often than not, and
    seeds chosen by it would be too few as often. Source: Browne 1995, who recommends 0.8.

    Args:
        spread: s, the standard deviation (n − 1) of `n` values, 0 or more.
        n: 2 or more.
        level: the chance that the true one is not above the limit, 0 < level < 1.

    Raises:
        ValueError: an argument is out of range.
        MissingExtra: scipy is not installed.
    """
    _check(spread=spread)
    if n < 2 or not 0 < level < 1:
        raise ValueError(f"n must be 2 or more and level between 0 and 1, got {n} and {level}")
    return float(spread * math.sqrt((n - 1) / scipy_stats().chi2.ppf(1 - level, n - 1)))


def _check(*, spread: float = 0.0, margin: float = 1.0, alpha: float = 0.05) -> None:
    if not 0 <= spread < math.inf:
        raise ValueError(f"spread must be 0 or more and finite, got {spread}")
    if not 0 < margin < math.inf:
        raise ValueError(f"margin must be above 0 and finite, got {margin}; 0.2 points is 0.002")
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha must lie between 0 and 0.5, got {alpha}; 5 % is 0.05")

"""Calibration: probabilities that mean what they say, and a threshold that keeps a promise.

Both are chosen on labelled pictures that the network did not learn from. What they promise holds
for pictures like those: digits drawn from the same source, prepared in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rowwise.metrics import SMALLEST_PROBABILITY, cross_entropy, is_correct
from rowwise.model import ERROR_RATE

Floats = NDArray[np.float64]

COLDEST, HOTTEST = 0.1, 10.0


class Threshold(NamedTuple):
    """A confidence from which on readings are accepted, and what is known of it.

    Of `pictures` held out, `accepted` reach `confidence`, and `wrong` of those are misread. The
    error rate among accepted readings is at most `error_rate`, at the level `level`.
    """

    confidence: float
    error_rate: float
    level: float
    pictures: int
    accepted: int
    wrong: int


def temper(probabilities: ArrayLike, temperature: float) -> Floats:
    """softmax(ln p / T) over the last axis, float64: T above 1 makes less sure, below 1 surer."""
    logs = np.log(np.maximum(np.asarray(probabilities, np.float64), SMALLEST_PROBABILITY))
    powers = np.exp((logs - logs.max(axis=-1, keepdims=True)) / temperature)
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def fit_temperature(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """The T in 0.1 to 10 whose tempered cross-entropy is least (Guo et al. 2017, section 4.2).

    Args:
        labels: true classes, integers [N].
        probabilities: floats [N, C], of pictures that were not learnt from.

    Raises:
        ValueError: the shapes differ, or a value is out of range.
        MissingExtra: SciPy is not installed.
    """
    from rowwise.comparison import scipy_stats

    scipy_stats()  # names the extra that lacks
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        return cross_entropy(labels, temper(probabilities, math.exp(log_temperature)))

    found: Any = minimize_scalar(loss, bounds=(math.log(COLDEST), math.log(HOTTEST)))
    return float(math.exp(found.x))


def promise(
    labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    candidates: Sequence[float],
    error_rate: float = ERROR_RATE,
    level: float = 0.95,
) -> Threshold | None:
    """The lowest threshold whose error rate among accepted readings is at most `error_rate`.

    The candidates are tested one after the other, highest first, each by the exact binomial test
    of "the error rate of what it accepts is above `error_rate`", until the first one fails; the
    one before is returned. That the promise is broken has a probability of at most 1 - `level`,
    however many candidates there are (fixed sequence testing: Angelopoulos et al. 2021, "Learn
    then Test", section 2; the test is Clopper and Pearson's of 1934).

    Args:
        labels: true classes, integers [N].
        probabilities: floats [N, C], of pictures that were not learnt from.
        candidates: confidences, chosen without a look at these pictures.
        error_rate: above 0, below 1.
        level: above 0, below 1.

    Returns:
        None where not even the first candidate passes: too few pictures, or too many errors.

    Raises:
        ValueError: the shapes differ, or a value is out of range.
        MissingExtra: SciPy is not installed.
    """
    from rowwise.comparison import scipy_stats

    for name, share in (("error_rate", error_rate), ("level", level)):
        if not 0 < share < 1:
            raise ValueError(f"{name} must be above 0 and below 1, got {share}")
    right = is_correct(labels, probabilities)
    confidence = np.asarray(probabilities, np.float64).max(axis=-1)
    found = None
    for candidate in sorted(candidates, reverse=True):
        taken = confidence >= candidate
        accepted, wrong = int(taken.sum()), int((taken & ~right).sum())
        if scipy_stats().binom.cdf(wrong, accepted, error_rate) > 1 - level:
            return found
        found = Threshold(float(candidate), error_rate, level, len(right), accepted, wrong)
    return found


def quantile_candidates(
    confidence: Floats, *, coverages: Sequence[float] = tuple(np.linspace(0.70, 0.99, 30))
) -> list[float]:
    """Thresholds that would accept these shares of pictures, by their confidences [N]."""
    return [float(np.quantile(confidence, 1 - coverage)) for coverage in coverages]

"""Metrics: how well one network reads labelled pictures, and how well it knows when it is wrong.

Axes: N pictures, C classes, M bins of confidence. A figure with nothing below the line is NaN,
never a made-up number. Accuracies and rates are fractions 0..1. What runs and networks allow to
be said about each other is in comparison.py; what every figure assumes, in docs/statistics.md.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rowwise.errors import importing

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Probabilities come from float32 engines: what underflows there counts as float32's smallest
# normal number, so one picture costs at most 87.3 nats, whatever dtype the caller kept.
SMALLEST_PROBABILITY = float(np.finfo(np.float32).tiny)

# The sum of a softmax in bfloat16 misses 1 by up to half a percent; logits miss it by far more.
SUM_TOLERANCE = 0.01


class ByClass(NamedTuple):
    """Precision, recall and F1 of each class (NaN where undefined) and its pictures (support)."""

    precision: Floats  # [C]
    recall: Floats  # [C]
    f1: Floats  # [C]
    support: Integers  # [C]


class ConfusedPair(NamedTuple):
    """So many `pictures` of class `true` were called `said`: the share `rate` of that class."""

    true: int
    said: int
    pictures: int
    rate: float


class Calibration(NamedTuple):
    """Confidence against accuracy by bin (NaN in empty bins), and the scores made of it."""

    edges: Floats  # [M + 1]; bin m is (edges[m], edges[m + 1]]
    confidence: Floats  # [M], mean of the bin
    accuracy: Floats  # [M]
    pictures: Integers  # [M]
    expected_error: float
    maximum_error: float
    brier: float
    cross_entropy: float


def is_correct(labels: ArrayLike, said: ArrayLike) -> NDArray[np.bool_]:
    """Return which pictures were read rightly, bool [N].

    Args:
        labels: true classes, integers [N], 0 or more.
        said: predicted classes, integers [N], or probabilities, floats [N, C] with rows that
            sum to 1 (the largest counts, the lowest class among equals).

    Raises:
        ValueError: the shapes differ, or a value is out of range.
    """
    if np.ndim(said) == 2:
        truth, probabilities = _scored(labels, said)
        return np.asarray(probabilities.argmax(axis=1) == truth)
    truth, predicted = _answers(labels, said)
    return np.asarray(predicted == truth)


def accuracy(labels: ArrayLike, said: ArrayLike) -> float:
    """Return the share of pictures read rightly; arguments and errors as in `is_correct`."""
    return float(is_correct(labels, said).mean())


def cross_entropy(
    labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    label_smoothing: float = 0.0,
    target_replication: float = 0.0,
) -> float:
    """Return the mean cross-entropy −(1/N) Σₙ Σ_c t_nc ln p_nc, in nats, in float64.

    The targets are t_nc = (1 − s)·[labelₙ = c] + s/C; without smoothing, s = 0, this is the mean
    negative log-likelihood −(1/N) Σₙ ln p(labelₙ). Source: Szegedy et al. 2016, section 7. Of
    several steps it is a·(mean of the steps) + (1 − a)·(the last one). Source: Lipton et al. 2016.

    Args:
        labels: true classes, integers [N] in 0..C-1.
        probabilities: floats [N, C], or [N, T, C] after each of T steps; rows that sum to 1 (they
            are not rescaled); values below `SMALLEST_PROBABILITY` (1.2e-38) count as that.
        label_smoothing: s, 0 ≤ s < 1.
        target_replication: a, 0 ≤ a ≤ 1.

    Raises:
        ValueError: the shapes differ, or a value is out of range.
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be from 0, below 1, got {label_smoothing}")
    if not 0 <= target_replication <= 1:
        raise ValueError(f"target_replication must be from 0 to 1, got {target_replication}")
    told = np.asarray(probabilities)
    if told.ndim == 3 and target_replication:
        each = [
            cross_entropy(labels, step, label_smoothing=label_smoothing)
            for step in told.swapaxes(0, 1)
        ]
        return target_replication * float(np.mean(each)) + (1 - target_replication) * each[-1]
    truth, checked = _scored(labels, told[:, -1] if told.ndim == 3 else told)
    surprise = -np.log(np.clip(checked, SMALLEST_PROBABILITY, 1.0))
    loss = surprise[np.arange(len(truth)), truth].mean()
    if label_smoothing:
        loss = (1 - label_smoothing) * loss + label_smoothing * surprise.mean()
    return abs(float(loss))


def confusion(labels: ArrayLike, predicted: ArrayLike, classes: int) -> Integers:
    """Return the confusion matrix, int64 [C, C]: rows are true classes, columns what was said.

    Args:
        labels: true classes, integers [N] in 0..C-1.
        predicted: predicted classes, integers [N] in 0..C-1.
        classes: C; a class that never occurs has its row and column too.

    Raises:
        ValueError: the shapes differ, or a value is out of range.
        MissingExtra: scikit-learn is not installed.
    """
    truth, answers = _answers(labels, predicted, classes)
    matrix = _scikit().confusion_matrix(truth, answers, labels=range(classes))
    return np.asarray(matrix, dtype=np.int64)


def by_class(labels: ArrayLike, predicted: ArrayLike, classes: int) -> ByClass:
    """Return precision TP/(TP+FP), recall TP/(TP+FN), F1 and support of each class.

    With nothing below the line a figure is NaN: the precision of a class never said, the recall
    of a class without pictures, F1 = 2TP/(2TP+FP+FN) of a class with neither.

    Args:
        labels: true classes, integers [N] in 0..C-1.
        predicted: predicted classes, integers [N] in 0..C-1.
        classes: C.

    Raises:
        ValueError: the shapes differ, or a value is out of range.
        MissingExtra: scikit-learn is not installed.
    """
    truth, answers = _answers(labels, predicted, classes)
    precision, recall, f1, support = _scikit().precision_recall_fscore_support(
        truth, answers, labels=range(classes), zero_division=np.nan
    )
    return ByClass(precision, recall, f1, np.asarray(support, dtype=np.int64))


def confused_pairs(matrix: ArrayLike, most: int = 10) -> list[ConfusedPair]:
    """Return the commonest errors, by count, then by rate, then by class; pairs of none left out.

    Args:
        matrix: confusion matrix, integers [C, C], rows true, columns said.
        most: how many pairs to return at most, 1 or more.

    Raises:
        ValueError: the matrix is not one of counts, or `most` is below 1.
    """
    counts = np.asarray(matrix)
    square = counts.ndim == 2 and counts.shape[0] == counts.shape[1]
    if not square or counts.dtype.kind not in "iu" or (counts < 0).any():
        raise ValueError(
            "matrix must be square and hold whole counts, 0 or more, "
            f"got {counts.dtype} of shape {list(counts.shape)}; pass what confusion() returns"
        )
    if most < 1:
        raise ValueError(f"most must be 1 or more, got {most}")
    totals = counts.sum(axis=1)
    pairs = [
        ConfusedPair(true, said, int(counts[true, said]), float(counts[true, said] / totals[true]))
        for true, said in np.argwhere(counts).tolist()
        if true != said
    ]
    return sorted(pairs, key=lambda pair: (-pair.pictures, -pair.rate, pair.true, pair.said))[:most]


def calibration(labels: ArrayLike, probabilities: ArrayLike, *, bins: int = 15) -> Calibration:
    """Compare how sure a network is with how often it is right.

    A picture's confidence is its largest probability. With M equal bins (m/M, (m+1)/M]:
    expected error = Σₘ (picturesₘ/N)·|accuracyₘ − confidenceₘ|; maximum error = the largest of
    these gaps; Brier = (1/N) Σₙ Σ_c (p_nc − [labelₙ = c])², 0..2. Sources: Guo, Pleiss, Sun and
    Weinberger 2017, equations 3 and 5; Brier 1950.

    Args:
        labels: true classes, integers [N] in 0..C-1.
        probabilities: floats [N, C], rows that sum to 1.
        bins: M, 1 or more.

    Raises:
        ValueError: the shapes differ, or a value is out of range.
    """
    if bins < 1:
        raise ValueError(f"bins must be 1 or more, got {bins}")
    truth, checked = _scored(labels, probabilities)
    confidence = np.minimum(checked.max(axis=1), 1.0)
    edges = np.arange(bins + 1) / bins
    bin_of = np.searchsorted(edges, confidence, side="left") - 1
    pictures = np.bincount(bin_of, minlength=bins)
    divisor = np.where(pictures, pictures, np.nan)
    right = checked.argmax(axis=1) == truth
    confidence_by_bin = np.bincount(bin_of, weights=confidence, minlength=bins) / divisor
    accuracy_by_bin = np.bincount(bin_of, weights=right, minlength=bins) / divisor
    gaps = np.nan_to_num(np.abs(accuracy_by_bin - confidence_by_bin))
    ideal = np.zeros_like(checked)
    ideal[np.arange(len(truth)), truth] = 1.0
    return Calibration(
        edges=edges,
        confidence=confidence_by_bin,
        accuracy=accuracy_by_bin,
        pictures=pictures.astype(np.int64),
        expected_error=float(gaps @ pictures) / len(truth),
        maximum_error=float(gaps.max()),
        brier=float(((checked - ideal) ** 2).sum(axis=1).mean()),
        cross_entropy=cross_entropy(truth, checked),
    )


def _scikit() -> Any:
    with importing("scikit-learn", "study", module="sklearn"):
        from sklearn import metrics
    return metrics


def _classes(name: str, values: ArrayLike, classes: int | None) -> Integers:
    array = np.asarray(values)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must be a non-empty 1-D array of whole numbers, "
            f"got {array.dtype} of shape {list(array.shape)}"
        )
    least, largest = int(array.min()), int(array.max())
    if least < 0 or (classes is not None and largest >= classes):
        rule = "0 or more" if classes is None else f"in 0..{classes - 1}"
        raise ValueError(f"{name} must be {rule}, got {least}..{largest}")
    return array.astype(np.int64)


def _answers(
    labels: ArrayLike, predicted: ArrayLike, classes: int | None = None
) -> tuple[Integers, Integers]:
    if classes is not None and classes < 1:
        raise ValueError(f"classes must be 1 or more, got {classes}")
    truth, answers = _classes("labels", labels, classes), _classes("predicted", predicted, classes)
    if len(truth) != len(answers):
        raise ValueError(
            f"labels and predicted must be of one length, got {len(truth)} and {len(answers)}"
        )
    return truth, answers


def _scored(labels: ArrayLike, probabilities: ArrayLike) -> tuple[Integers, Floats]:
    scores = np.asarray(probabilities, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[1] == 0:
        raise ValueError(f"probabilities must be of shape [N, C], got {list(scores.shape)}")
    truth = _classes("labels", labels, scores.shape[1])
    if len(truth) != len(scores):
        raise ValueError(
            f"labels and probabilities must be of one length, got {len(truth)} and {len(scores)}"
        )
    least, total = scores.min(axis=1), scores.sum(axis=1)
    bad = ~((least >= 0) & (np.abs(total - 1) <= SUM_TOLERANCE))  # so that NaN is bad too
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(
            f"probabilities must be 0 or more and sum to 1 in each row, row {row} has the least "
            f"{least[row]:.6g} and the sum {total[row]:.6g}; logits need a softmax first"
        )
    return truth, scores

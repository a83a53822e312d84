"""Metrics of one network, against scikit-learn, worked examples and their own definitions."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rowwise import metrics
from rowwise.errors import MissingExtra

CLASSES = 5


@st.composite
def readings(draw):
    """Labels and the probabilities of a network, certain and tied rows included."""
    n = draw(st.integers(1, 40))
    labels = draw(arrays.arrays(np.int64, n, elements=st.integers(0, CLASSES - 1)))
    weights = draw(arrays.arrays(np.float64, (n, CLASSES), elements=st.sampled_from([0, 1, 2, 9])))
    weights[weights.sum(axis=1) == 0] = 1.0
    return labels, weights / weights.sum(axis=1, keepdims=True)


def softmax_readings(n, seed, dtype=np.float32):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, n)
    logits = rng.normal(size=(n, CLASSES)) + 2 * np.eye(CLASSES)[labels]
    powers = np.exp(logits)
    return labels, (powers / powers.sum(axis=1, keepdims=True)).astype(dtype)


# accuracy and cross-entropy


def test_accuracy_counts_classes_and_probabilities_alike():
    labels = [0, 1, 2, 1]
    assert metrics.accuracy(labels, [0, 1, 1, 1]) == 0.75
    probabilities = [[0.6, 0.2, 0.2], [0.1, 0.8, 0.1], [0.2, 0.5, 0.3], [0.3, 0.4, 0.3]]
    assert metrics.accuracy(labels, probabilities) == 0.75
    assert metrics.is_correct(labels, probabilities).tolist() == [True, True, False, True]


def test_of_equal_probabilities_the_lowest_class_is_said():
    assert metrics.is_correct([0, 1], [[0.5, 0.5], [0.5, 0.5]]).tolist() == [True, False]


def test_cross_entropy_of_a_worked_example():
    # −(ln 1/2 + ln 1/4 + ln 1) / 3 = ln 8 / 3
    found = metrics.cross_entropy([0, 1, 1], [[0.5, 0.5], [0.75, 0.25], [0.0, 1.0]])
    assert found == pytest.approx(math.log(8) / 3, rel=1e-15)


def test_cross_entropy_with_label_smoothing_of_a_worked_example():
    # s = 0.3, C = 3: targets 0.8, 0.1, 0.1.
    found = metrics.cross_entropy([0, 2], [[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], label_smoothing=0.3)
    first = 0.8 * math.log(2) + 0.2 * math.log(4)
    second = 0.8 * -math.log(0.8) + 0.2 * math.log(10)
    assert found == pytest.approx((first + second) / 2, rel=1e-12)
    plain = metrics.cross_entropy([0, 2], [[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
    assert plain == pytest.approx((math.log(2) - math.log(0.8)) / 2, rel=1e-12)


def test_cross_entropy_equals_scikit_learns():
    from sklearn.metrics import log_loss

    labels, probabilities = softmax_readings(500, seed=1, dtype=np.float64)
    wanted = log_loss(labels, probabilities, labels=range(CLASSES))
    assert metrics.cross_entropy(labels, probabilities) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_impossible_label_costs_the_same_in_every_dtype(dtype):
    found = metrics.cross_entropy([1], np.array([[1, 0]], dtype))
    assert found == pytest.approx(126 * math.log(2), rel=1e-15)  # float32's least normal: 2^-126


def test_a_perfect_network_has_a_cross_entropy_of_plain_zero():
    found = metrics.cross_entropy([0], [[1.0000001, 0.0]])
    assert str(found) == "0.0"


# confusion


def test_confusion_has_true_rows_and_said_columns():
    assert metrics.confusion([0, 0, 1, 2], [1, 0, 1, 1], 4).tolist() == [
        [1, 1, 0, 0],
        [0, 1, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 0],
    ]


@settings(max_examples=30)
@given(readings(), st.randoms(use_true_random=False))
def test_confusion_counts_each_picture_once_in_any_order(reading, random):
    labels, probabilities = reading
    said = probabilities.argmax(axis=1)
    matrix = metrics.confusion(labels, said, CLASSES)
    assert matrix.dtype == np.int64
    assert matrix.sum() == len(labels)
    assert matrix.sum(axis=1).tolist() == np.bincount(labels, minlength=CLASSES).tolist()
    assert matrix.sum(axis=0).tolist() == np.bincount(said, minlength=CLASSES).tolist()
    assert matrix.trace() / len(labels) == pytest.approx(metrics.accuracy(labels, said))
    order = random.sample(range(len(labels)), len(labels))
    assert (metrics.confusion(labels[order], said[order], CLASSES) == matrix).all()


def test_by_class_of_a_worked_example():
    # Class 0: TP 2, FP 1, FN 1.  Class 1: never said.  Class 2: said but has no picture.
    # Class 3: neither.
    found = metrics.by_class([0, 0, 0, 1, 1], [0, 0, 2, 0, 2], 4)
    assert found.support.tolist() == [3, 2, 0, 0]
    np.testing.assert_allclose(found.precision, [2 / 3, np.nan, 0, np.nan])
    np.testing.assert_allclose(found.recall, [2 / 3, 0, np.nan, np.nan])
    np.testing.assert_allclose(found.f1, [2 / 3, 0, 0, np.nan])


@settings(max_examples=30)
@given(readings())
def test_by_class_follows_from_the_confusion_matrix(reading):
    labels, probabilities = reading
    said = probabilities.argmax(axis=1)
    matrix = metrics.confusion(labels, said, CLASSES)
    found = metrics.by_class(labels, said, CLASSES)
    hit, of_row, of_column = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    for c in range(CLASSES):
        for value, above, below in (
            (found.precision[c], hit[c], of_column[c]),
            (found.recall[c], hit[c], of_row[c]),
            (found.f1[c], 2 * hit[c], of_row[c] + of_column[c]),
        ):
            assert math.isnan(value) if below == 0 else value == pytest.approx(above / below)
    assert found.support.tolist() == of_row.tolist()


def test_confused_pairs_come_by_count_then_rate_then_class():
    matrix = [[90, 4, 0, 2], [2, 6, 2, 0], [0, 4, 36, 0], [0, 0, 0, 0]]
    found = metrics.confused_pairs(matrix)
    assert [tuple(pair) for pair in found] == [
        (2, 1, 4, 0.1),
        (0, 1, 4, 4 / 96),
        (1, 0, 2, 0.2),
        (1, 2, 2, 0.2),
        (0, 3, 2, 2 / 96),
    ]
    assert metrics.confused_pairs(matrix, 2) == found[:2]
    assert metrics.confused_pairs(np.diag([3, 4])) == []


# calibration


def test_calibration_of_a_worked_example():
    # Two bins. (0, 0.5]: confidences 0.4 and 0.5, one right: |0.5 − 0.45| = 0.05.
    # (0.5, 1]: 0.6, 0.8 and 1.0, two right: |2/3 − 0.8| = 2/15.
    probabilities = [
        [0.4, 0.3, 0.3],
        [0.5, 0.25, 0.25],
        [0.2, 0.6, 0.2],
        [0.1, 0.1, 0.8],
        [1, 0, 0],
    ]
    found = metrics.calibration([0, 1, 0, 2, 0], probabilities, bins=2)
    assert found.edges.tolist() == [0, 0.5, 1]
    assert found.pictures.tolist() == [2, 3]
    np.testing.assert_allclose(found.confidence, [0.45, 0.8], rtol=1e-15)
    np.testing.assert_allclose(found.accuracy, [0.5, 2 / 3], rtol=1e-15)
    assert found.expected_error == pytest.approx(0.4 * 0.05 + 0.6 * 2 / 15)
    assert found.maximum_error == pytest.approx(2 / 15)
    squares = (0.36 + 0.09 + 0.09) + (0.25 + 0.5625 + 0.0625) + (0.64 + 0.36 + 0.04) + 0.06 + 0
    assert found.brier == pytest.approx(squares / 5)
    assert found.cross_entropy == pytest.approx(-math.log(0.4 * 0.25 * 0.2 * 0.8) / 5)


def test_brier_equals_scikit_learns():
    from sklearn.metrics import brier_score_loss

    labels, probabilities = softmax_readings(300, seed=2, dtype=np.float64)
    wanted = brier_score_loss(labels, probabilities, labels=range(CLASSES), scale_by_half=False)
    assert metrics.calibration(labels, probabilities).brier == pytest.approx(wanted, rel=1e-12)


def test_bins_equal_scikit_learns_calibration_curve():
    from sklearn.calibration import calibration_curve

    labels, probabilities = softmax_readings(400, seed=3, dtype=np.float64)
    found = metrics.calibration(labels, probabilities, bins=10)
    right = metrics.is_correct(labels, probabilities)
    accuracy, confidence = calibration_curve(right, probabilities.max(axis=1), n_bins=10)
    filled = found.pictures > 0
    np.testing.assert_allclose(found.accuracy[filled], accuracy, rtol=1e-12)
    np.testing.assert_allclose(found.confidence[filled], confidence, rtol=1e-12)


def test_a_calibrated_network_has_a_small_expected_error_and_a_boastful_one_a_large():
    rng = np.random.default_rng(4)
    true = rng.uniform(0.5, 1, 20_000)
    labels = (rng.uniform(size=20_000) > true).astype(int)
    assert metrics.calibration(labels, np.stack([true, 1 - true], 1)).expected_error < 0.015
    boast = np.full((20_000, 2), [0.99, 0.01])
    assert metrics.calibration(labels, boast).expected_error == pytest.approx(0.24, abs=0.015)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    found = metrics.calibration([0, 0], [[0.5, 0.5], [1.0, 0.0]], bins=4)
    assert found.pictures.tolist() == [0, 1, 0, 1]
    assert np.isnan(found.accuracy[[0, 2]]).all()


def test_a_softmax_that_rounds_above_one_stays_in_the_last_bin():
    found = metrics.calibration([0], np.array([[1.0000001, 0]], np.float32))
    assert found.pictures.tolist() == [0] * 14 + [1]
    assert found.expected_error == 0


@given(readings(), st.integers(1, 20), st.randoms(use_true_random=False))
def test_calibration_stays_in_range_whatever_the_order(reading, bins, random):
    labels, probabilities = reading
    found = metrics.calibration(labels, probabilities, bins=bins)
    assert found.pictures.sum() == len(labels)
    assert 0 <= found.expected_error <= found.maximum_error + 1e-12 <= 1 + 2e-12
    assert 0 <= found.brier <= 2 + 1e-12
    filled = found.pictures > 0
    assert (found.confidence[filled] > found.edges[:-1][filled] - 1e-12).all()
    assert (found.confidence[filled] <= found.edges[1:][filled] + 1e-12).all()
    overall = found.accuracy[filled] @ found.pictures[filled] / len(labels)
    assert overall == pytest.approx(metrics.accuracy(labels, probabilities))
    order = random.sample(range(len(labels)), len(labels))
    again = metrics.calibration(labels[order], probabilities[order], bins=bins)
    for one, other in zip(found, again, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


# bad arguments and missing packages

ROW = [0.5, 0.5]
MATRIX = r"^matrix must be square and hold whole counts"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.accuracy([], []), r"^labels must be a non-empty 1-D array of whole"),
        (lambda: metrics.accuracy([0.5], [1]), r"^labels .* whole numbers, got float64 of shape"),
        (lambda: metrics.accuracy([True], [1]), r"^labels .* got bool"),
        (lambda: metrics.accuracy([-1], [1]), r"^labels must be 0 or more, got -1\.\.-1$"),
        (lambda: metrics.accuracy([1, 2], [1]), r"one length, got 2 and 1$"),
        (lambda: metrics.accuracy([1], [[[1]]]), r"^predicted must be a non-empty 1-D"),
        (lambda: metrics.accuracy([0], [ROW, ROW]), r"one length, got 1 and 2$"),
        (lambda: metrics.accuracy([2], [ROW]), r"^labels must be in 0\.\.1, got 2\.\.2$"),
        (lambda: metrics.confusion([0], [7], 5), r"^predicted must be in 0\.\.4, got 7\.\.7$"),
        (lambda: metrics.confusion([0], [0], 0), r"^classes must be 1 or more, got 0$"),
        (lambda: metrics.by_class([9], [0], 3), r"^labels must be in 0\.\.2"),
        (lambda: metrics.cross_entropy([0], [0.5]), r"shape \[N, C\], got \[1\]$"),
        (lambda: metrics.cross_entropy([0], [ROW], label_smoothing=1.0), r"below 1, got 1\.0$"),
        (lambda: metrics.cross_entropy([0], [ROW], label_smoothing=-0.1), r"got -0\.1$"),
        (lambda: metrics.cross_entropy([0], [[]]), r"shape \[N, C\], got \[1, 0\]$"),
        (lambda: metrics.cross_entropy([0, 0], [ROW, [3, -2]]), r"row 1 has the least -2"),
        (lambda: metrics.cross_entropy([0], [[3, 1]]), r"the sum 4; logits need a softmax"),
        (lambda: metrics.cross_entropy([0], [[np.nan, 1]]), r"the sum nan"),
        (lambda: metrics.calibration([0], [ROW], bins=0), r"^bins must be 1 or more, got 0$"),
        (lambda: metrics.confused_pairs([[1, 2]]), MATRIX),
        (lambda: metrics.confused_pairs([[0.5]]), MATRIX),
        (lambda: metrics.confused_pairs([[1, -2], [0, 1]]), MATRIX),
        (lambda: metrics.confused_pairs([[1]], 0), r"^most must be 1 or more, got 0$"),
    ],
)
def test_a_bad_argument_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("call", [metrics.confusion, metrics.by_class])
def test_without_scikit_learn_the_extra_is_named(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtra, match=r"scikit-learn.*rowwise\[study\]"):
        call([0, 1], [0, 1], 2)


def test_importing_the_modules_loads_neither_scikit_learn_nor_scipy():
    code = (
        "import sys, rowwise.metrics, rowwise.comparison;"
        "print([m for m in ('sklearn', 'scipy', 'torch', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

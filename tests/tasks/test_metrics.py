"""Figures of merit against scikit-learn, scipy and torch, and against sums done by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilenet.errors import ArgumentError
from mobilenet.tasks.metrics import (
    TEMPERATURE_BOUNDS,
    classification_metrics,
    confusion_matrix,
    expected_calibration_error,
    fit_temperature,
    reliability_bins,
    softmax,
    top_k_accuracy,
    worst_mistakes,
)


def example(images: int, classes: int, seed: int, strength: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Logits [N, C] that lean towards the truth, and the truth [N]."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, classes, images)
    logits = random.normal(size=(images, classes))
    logits[np.arange(images), targets] += strength
    return logits.astype(np.float32), targets


def names(count: int) -> list[str]:
    return [f"class {number}" for number in range(count)]


@pytest.mark.parametrize("temperature", [0.05, 0.7, 1.0, 3.0, 20.0])
def test_softmax_equals_torch(temperature: float) -> None:
    torch = pytest.importorskip("torch")
    logits, _ = example(50, 17, seed=0)
    expected = torch.softmax(torch.from_numpy(logits).double() / temperature, dim=1).float().numpy()
    ours = softmax(logits, temperature)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-12)


def test_softmax_of_huge_logits_neither_overflows_nor_loses_the_sum() -> None:
    ours = softmax(np.array([[1e30, -1e30, 1e30], [-1e30, -1e30, -1e30]]), 0.05)
    np.testing.assert_array_equal(ours, np.array([[0.5, 0, 0.5], [1 / 3] * 3], dtype=np.float32))


def test_softmax_takes_quantised_integers() -> None:
    np.testing.assert_allclose(softmax(np.array([[3, 3]], dtype=np.uint8)), [[0.5, 0.5]])


@pytest.mark.parametrize(("classes", "images", "seed"), [(2, 200, 1), (3, 60, 2), (10, 400, 3), (40, 300, 4)])
def test_all_figures_equal_scikit_learn(classes: int, images: int, seed: int) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    logits, targets = example(images, classes, seed)
    probabilities = softmax(logits, 0.8).astype(np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    ours = classification_metrics(probabilities, targets, names(classes))
    answers, every = probabilities.argmax(axis=1), np.arange(classes)

    precision, recall, f1, support = sklearn.precision_recall_fscore_support(
        targets, answers, labels=every, zero_division=0
    )
    rows = list(ours["per_class"].values())
    assert list(ours["per_class"]) == names(classes)
    np.testing.assert_allclose([row["precision"] for row in rows], precision)
    np.testing.assert_allclose([row["recall"] for row in rows], recall)
    np.testing.assert_allclose([row["f1"] for row in rows], f1)
    assert [row["images"] for row in rows] == support.tolist()
    assert ours["confusion"] == sklearn.confusion_matrix(targets, answers, labels=every).tolist()
    assert ours["top1"] == pytest.approx(sklearn.accuracy_score(targets, answers))
    assert ours["nll"] == pytest.approx(sklearn.log_loss(targets, probabilities, labels=every), rel=1e-6)
    for k in range(1, min(classes, 6)):
        scores = probabilities[:, 1] if classes == 2 else probabilities
        expected = sklearn.top_k_accuracy_score(targets, scores, k=k, labels=every)
        assert top_k_accuracy(probabilities, targets, k) == pytest.approx(expected)
    assert ours["top5"] == pytest.approx(top_k_accuracy(probabilities, targets, min(5, classes)))


@pytest.mark.parametrize("seed", range(6))
def test_bins_equal_scikit_learn_calibration_curve(seed: int) -> None:
    calibration = pytest.importorskip("sklearn.calibration")
    logits, targets = example(500, 6, seed)
    probabilities = softmax(logits)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    accuracy, mean = calibration.calibration_curve(right, confidence.astype(np.float64), n_bins=15)
    filled = [one for one in reliability_bins(probabilities, targets) if one.images]
    np.testing.assert_allclose([one.accuracy for one in filled], accuracy)
    np.testing.assert_allclose([one.confidence for one in filled], mean)
    assert sum(one.images for one in filled) == 500


def test_calibration_error_by_hand() -> None:
    # (0.5, 0.75]: 0.6 wrong, 0.75 right; (0.75, 1]: 0.8 right, 1.0 right; 4 bins
    probabilities = [[0.6, 0.4], [0.75, 0.25], [0.8, 0.2], [1.0, 0.0]]
    bins = reliability_bins(probabilities, [1, 0, 0, 0], bins=4)
    assert [one.images for one in bins] == [0, 0, 2, 2]
    assert bins[2] == pytest.approx((0.5, 0.75, 0.675, 0.5, 2))
    assert bins[0] == (0.0, 0.25, 0.0, 0.0, 0)
    expected = 0.5 * abs(0.5 - 0.675) + 0.5 * abs(1.0 - 0.9)
    assert expected_calibration_error(probabilities, [1, 0, 0, 0], bins=4) == pytest.approx(expected)


def test_calibration_error_of_one_bin_is_confidence_minus_accuracy() -> None:
    logits, targets = example(300, 5, seed=9)
    probabilities = softmax(logits, 0.3)
    gap = probabilities.max(axis=1).astype(np.float64).mean() - (probabilities.argmax(axis=1) == targets).mean()
    assert expected_calibration_error(probabilities, targets, bins=1) == pytest.approx(abs(gap))


@pytest.mark.parametrize(("true_temperature", "seed"), [(0.2, 0), (0.7, 1), (1.0, 2), (2.5, 3), (8.0, 4)])
def test_temperature_equals_scipy(true_temperature: float, seed: int) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    special = pytest.importorskip("scipy.special")
    random = np.random.default_rng(seed)
    calibrated = random.normal(size=(3000, 8)) * 2
    targets = (random.random((3000, 1)) > np.cumsum(special.softmax(calibrated, axis=1), axis=1)[:, :-1]).sum(
        axis=1
    )
    logits = calibrated * true_temperature

    def negative_log_likelihood(log_temperature: float) -> float:
        log_p = special.log_softmax(logits / math.exp(log_temperature), axis=1)
        return float(-log_p[np.arange(len(targets)), targets].mean())

    bounds = tuple(math.log(bound) for bound in TEMPERATURE_BOUNDS)
    best = optimize.minimize_scalar(
        negative_log_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-9}
    )
    ours = fit_temperature(logits, targets)
    assert ours == pytest.approx(math.exp(best.x), rel=1e-5)
    assert ours == pytest.approx(true_temperature, rel=0.1)  # and it finds what the data were made with
    before = expected_calibration_error(softmax(logits), targets)
    assert expected_calibration_error(softmax(logits, ours), targets) <= before + 0.005


def test_temperature_at_its_ends_and_where_the_data_say_nothing() -> None:
    logits = np.array([[5.0, 1.0], [0.0, 3.0]])
    assert fit_temperature(logits, [0, 1]) == pytest.approx(TEMPERATURE_BOUNDS[0])
    assert fit_temperature(logits, [1, 0]) == pytest.approx(TEMPERATURE_BOUNDS[1])
    assert fit_temperature(np.full((4, 3), 7.0), [0, 1, 2, 0]) == 1.0
    assert fit_temperature(np.zeros((0, 3)), []) == 1.0
    assert fit_temperature(np.ones((3, 1)), [0, 0, 0]) == 1.0


def test_equal_scores_go_to_the_lower_class() -> None:
    even = np.full((7, 7), 1 / 7)
    metrics = classification_metrics(even, np.arange(7), names(7))
    assert metrics["top1"] == pytest.approx(1 / 7)
    assert metrics["top5"] == pytest.approx(5 / 7)
    assert [row[0] for row in metrics["confusion"]] == [1] * 7


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_top_k_equals_a_stable_sort(classes: int, images: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.integers(0, 4, (images, classes)) / 4.0  # many ties
    targets = random.integers(0, classes, images)
    for k in range(1, classes + 2):
        ordered = [sorted(range(classes), key=lambda c, row=row: (-row[c], c)) for row in scores]
        expected = np.mean([targets[n] in order[:k] for n, order in enumerate(ordered)])
        assert top_k_accuracy(scores, targets, k) == pytest.approx(expected)


def test_fewer_than_five_classes_have_a_top5_of_one() -> None:
    logits, targets = example(30, 4, seed=5, strength=-3.0)
    assert classification_metrics(softmax(logits), targets, names(4))["top5"] == 1.0


def test_a_class_never_answered_or_never_seen_is_zero_not_nan() -> None:
    probabilities = [[0.9, 0.1, 0.0], [0.8, 0.2, 0.0]]
    metrics = classification_metrics(probabilities, [0, 1], ["a", "b", "c"])
    assert metrics["per_class"]["b"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "images": 1}
    assert metrics["per_class"]["c"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "images": 0}
    json.dumps(metrics, allow_nan=False)


def test_a_true_class_of_probability_zero_has_a_finite_likelihood() -> None:
    metrics = classification_metrics([[1.0, 0.0]], [1], ["a", "b"])
    assert metrics["nll"] == pytest.approx(-math.log(2**-23))


def test_uncalibrated_probabilities_have_their_own_error() -> None:
    logits, targets = example(400, 5, seed=11)
    sure, calm = softmax(logits, 0.1), softmax(logits, 1.0)
    metrics = classification_metrics(calm, targets, names(5), uncalibrated=sure)
    assert metrics["ece"] == expected_calibration_error(calm, targets)
    assert metrics["ece_uncalibrated"] == expected_calibration_error(sure, targets)
    assert metrics["ece_uncalibrated"] > metrics["ece"]
    assert classification_metrics(calm, targets, names(5))["ece_uncalibrated"] == metrics["ece"]


def test_worst_mistakes_come_surest_first() -> None:
    probabilities = [[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.4, 0.6], [0.2, 0.8]]
    assert worst_mistakes(probabilities, [0, 0, 0, 0, 1]).tolist() == [2, 1, 3]
    assert worst_mistakes(probabilities, [0, 0, 0, 0, 1], limit=1).tolist() == [2]
    assert worst_mistakes(probabilities, [0, 1, 1, 1, 1]).tolist() == []


def test_confusion_rows_are_the_truth() -> None:
    assert confusion_matrix([0, 0, 2], [1, 0, 2], 3).tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert confusion_matrix([], [], 2).tolist() == [[0, 0], [0, 0]]


GOOD = [[0.5, 0.5], [0.2, 0.8]]


@pytest.mark.parametrize(
    ("probabilities", "targets", "classes", "words"),
    [
        (GOOD, [0, 2], ["a", "b"], r"targets\[1\] is 2: class numbers are 0..1"),
        (GOOD, [-1, 0], ["a", "b"], r"targets\[0\] is -1"),
        (GOOD, [0], ["a", "b"], "1 entries for 2 pictures"),
        (GOOD, [0.0, 1.0], ["a", "b"], "integers"),
        (GOOD, [[0, 1]], ["a", "b"], "integers"),
        (GOOD, [0, 1], ["a", "b", "c"], "3 names for probabilities of 2 classes"),
        (GOOD, [0, 1], ["a", "a"], "'a' twice"),
        ([[0.5, float("nan")], [0, 1]], [0, 1], ["a", "b"], r"probabilities\[0, 1\] is nan"),
        ([[0.5, 0.5], [float("inf"), 1]], [0, 1], ["a", "b"], r"probabilities\[1, 0\] is inf"),
        ([[3.0, -2.0], [0, 1]], [0, 1], ["a", "b"], "softmax first"),
        ([[1.5, 0.0], [0, 1]], [0, 1], ["a", "b"], r"probabilities\[0, 0\] is 1.5, not in 0..1"),
        ([0.5, 0.5], [0, 1], ["a", "b"], r"\[N, C\]"),
        (np.zeros((0, 2)), [], ["a", "b"], "at least one picture"),
        (np.zeros((2, 0)), [0, 1], [], "one class"),
        ([["x", "y"]], [0], ["a", "b"], "real numbers"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    probabilities: object, targets: object, classes: list[str], words: str
) -> None:
    with pytest.raises(ArgumentError, match=words):
        classification_metrics(probabilities, targets, classes)  # type: ignore[arg-type]


def test_other_arguments_are_refused() -> None:
    with pytest.raises(ArgumentError, match="temperature is 0"):
        softmax(GOOD, 0.0)
    with pytest.raises(ArgumentError, match="temperature is nan"):
        softmax(GOOD, float("nan"))
    with pytest.raises(ArgumentError, match=r"logits\[0, 0\] is inf"):
        softmax([[float("inf"), 0.0]])
    with pytest.raises(ArgumentError, match="bins is 0"):
        reliability_bins(GOOD, [0, 1], bins=0)
    with pytest.raises(ArgumentError, match="k is 0"):
        top_k_accuracy(GOOD, [0, 1], 0)
    with pytest.raises(ArgumentError, match="uncalibrated has shape"):
        classification_metrics(GOOD, [0, 1], ["a", "b"], uncalibrated=[[0.5, 0.5]])
    with pytest.raises(ArgumentError, match=r"predictions\[0\] is 5"):
        confusion_matrix([0], [5], 3)
    with pytest.raises(ArgumentError, match="predictions has 2 entries"):
        confusion_matrix([0], [1, 2], 3)

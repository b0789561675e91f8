"""Figures of verification, against scikit-learn and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mobilenet.errors import ArgumentError
from mobilenet.tasks.verify import (
    area_under,
    at_threshold,
    best_threshold,
    cosine_similarities,
    equal_error_rate,
    fold_accuracies,
    rank1_identification,
    roc,
    tar_at_far,
    threshold_at_far,
    verification_metrics,
)


def drawn(count: int = 400, ties: bool = False, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    same = generator.random(count) < 0.4
    scores = generator.normal(np.where(same, 0.6, 0.3), 0.15)
    return np.round(scores, 2) if ties else scores, same


@pytest.mark.parametrize("ties", [False, True])
def test_the_curve_and_its_area_are_those_of_scikit_learn(ties: bool) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    scores, same = drawn(ties=ties)
    curve = roc(scores, same)
    far, tar, thresholds = metrics.roc_curve(same, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve.far, far)
    np.testing.assert_allclose(curve.tar, tar)
    np.testing.assert_allclose(curve.thresholds, thresholds)
    assert area_under(curve) == pytest.approx(metrics.roc_auc_score(same, scores), abs=1e-12)


def test_tar_at_far_takes_no_point_that_is_not_there() -> None:
    scores, same = np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([True, False, True, True, False])
    curve = roc(scores, same)
    assert tar_at_far(curve, 0.49) == pytest.approx(1 / 3)
    assert tar_at_far(curve, 0.5) == 1.0
    assert tar_at_far(curve, 0.0) == pytest.approx(1 / 3)


def test_the_equal_error_rate_lies_where_both_errors_meet() -> None:
    perfect = roc([0.9, 0.8, 0.2, 0.1], np.array([True, True, False, False]))
    assert equal_error_rate(perfect) == 0.0
    reverse = roc([0.1, 0.2, 0.8, 0.9], np.array([True, True, False, False]))
    assert equal_error_rate(reverse) == 1.0
    one_wrong = roc([0.9, 0.4, 0.5, 0.1], np.array([True, True, False, False]))
    assert equal_error_rate(one_wrong) == pytest.approx(0.5)
    scores, same = drawn(4000)
    rate = equal_error_rate(roc(scores, same))
    threshold = np.quantile(scores[~same], 1 - rate)
    assert np.mean(scores[same] < threshold) == pytest.approx(rate, abs=2e-3)


@pytest.mark.parametrize("far", [0.1, 0.02, 0.005])
def test_a_calibrated_threshold_keeps_its_far_and_is_the_laxest_that_does(far: float) -> None:
    scores, same = drawn(3000, ties=far == 0.1)
    threshold = threshold_at_far(scores, same, far)
    reached = at_threshold(scores, same, threshold)
    assert reached["far"] <= far
    laxer = scores[scores < threshold].max()
    assert (
        at_threshold(scores, same, laxer)["far"] > far
        or at_threshold(scores, same, laxer)["tar"] == reached["tar"]
    )
    assert reached["tar"] == pytest.approx(tar_at_far(roc(scores, same), far))


def test_a_far_that_cannot_be_seen_is_an_error_that_says_how_many_pairs_it_needs() -> None:
    scores, same = drawn(100)
    with pytest.raises(ArgumentError, match="10,000 are needed"):
        threshold_at_far(scores, same, 1e-4)
    for far in (0.0, 1.0, math.nan):
        with pytest.raises(ArgumentError, match="far is"):
            threshold_at_far(scores, same, far)


def test_the_best_threshold_is_that_of_trying_all() -> None:
    for seed in range(20):
        scores, same = drawn(30, ties=True, seed=seed)
        tried = [np.mean((scores >= one) == same) for one in np.append(scores, 9.0)]
        assert at_threshold(scores, same, best_threshold(scores, same))["accuracy"] == pytest.approx(max(tried))


def test_a_fold_is_judged_by_the_others_threshold() -> None:
    scores = np.array([0.9, 0.1, 0.9, 0.1, 0.3, 0.2])
    same = np.array([True, False, True, False, True, False])
    folds = np.array([0, 0, 1, 1, 2, 2])
    # the first two folds' best threshold is 0.5, by which the third has one right of two
    np.testing.assert_allclose(fold_accuracies(scores, same, folds), [1.0, 1.0, 0.5])
    with pytest.raises(ArgumentError, match="folds"):
        fold_accuracies(scores, same, np.array([0, 0, 2, 2, 2, 2]))
    with pytest.raises(ArgumentError, match="folds"):
        fold_accuracies(scores, same, np.zeros(6, int))


def test_ten_folds_as_a_plain_loop_does_them() -> None:
    scores, same = drawn(500)
    folds = np.arange(500) % 10
    expected = []
    for fold in range(10):
        train = folds != fold
        candidates = np.sort(scores[train])
        middles = (candidates[1:] + candidates[:-1]) / 2
        right = [np.mean((scores[train] >= one) == same[train]) for one in middles]
        best = middles[len(right) - 1 - int(np.argmax(right[::-1]))]
        expected.append(np.mean((scores[~train] >= best) == same[~train]))
    np.testing.assert_allclose(fold_accuracies(scores, same, folds), expected)


def test_cosines_and_rank_one() -> None:
    first, second = np.array([[3.0, 0.0], [1.0, 1.0]]), np.array([[0.0, 2.0], [5.0, 5.0]])
    np.testing.assert_allclose(cosine_similarities(first, second), [0.0, 1.0], atol=1e-12)
    with pytest.raises(ArgumentError, match="zero"):
        cosine_similarities(first, np.zeros((2, 2)))
    with pytest.raises(ArgumentError, match="finite"):
        cosine_similarities(first, np.full((2, 2), np.inf))
    vectors = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.8, 0.2]])
    assert rank1_identification(vectors, np.array([0, 0, 1, 1])) == 0.5
    assert rank1_identification(vectors[:1], np.array([0])) is None


def test_all_figures_are_numbers_that_json_can_hold_and_too_few_pairs_are_null() -> None:
    scores, same = drawn(60)
    figures = verification_metrics(scores, same, np.arange(60) % 10)
    assert figures["tar_at_far"]["0.1"] is not None
    assert figures["tar_at_far"]["0.001"] is None
    assert figures["pairs"] == 60
    assert all(math.isfinite(figures[key]) for key in ("accuracy", "accuracy_std", "auc", "eer"))


@pytest.mark.parametrize(
    ("scores", "same", "message"),
    [
        ([0.1, 0.2], np.array([True, True]), "different"),
        ([0.1, 0.2], np.array([False, False]), "same"),
        ([0.1, math.nan], np.array([True, False]), "not finite"),
        ([0.1, 0.2], np.array([1, 0]), "bool"),
        ([0.1], np.array([True, False]), "bool"),
    ],
)
def test_what_is_no_set_of_pairs_is_refused(scores: list[float], same: np.ndarray, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        roc(scores, same)

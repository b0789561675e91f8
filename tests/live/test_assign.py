"""The own assignment against an exhaustive search, and its groups."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from mobilenet.live.assign import best_pairs


def best_sum(weights: np.ndarray) -> float:
    """By trying every order."""
    if weights.shape[0] > weights.shape[1]:
        weights = weights.T
    rows, columns = weights.shape
    return max((weights[range(rows), list(p)].sum() for p in permutations(range(columns), rows)), default=0.0)


@pytest.mark.parametrize("seed", range(150))
def test_the_sum_of_the_pairs_is_the_largest(seed: int) -> None:
    generator = np.random.default_rng(seed)
    shape = generator.integers(0, 6, 2)
    weights = np.where(generator.random(shape) < generator.random(), generator.random(shape), 0.0)
    pairs = best_pairs(weights)
    assert sum(weights[pair] for pair in pairs) == pytest.approx(best_sum(weights))
    assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
    assert all(weights[pair] > 0 for pair in pairs)


def test_a_greedy_choice_would_be_worse() -> None:
    assert best_pairs(np.array([[0.9, 0.8], [0.8, 0.0]])) == [(0, 1), (1, 0)]


def test_against_scipy_where_all_overlap() -> None:
    optimise = pytest.importorskip("scipy.optimize", reason="scipy is not installed: pip install '.[train]'")
    weights = np.random.default_rng(0).random((60, 80))
    rows, columns = optimise.linear_sum_assignment(-weights)
    assert sum(weights[pair] for pair in best_pairs(weights)) == pytest.approx(weights[rows, columns].sum())


def test_equal_weights_give_whole_pairs() -> None:
    assert len(best_pairs(np.ones((7, 5)))) == 5

"""Exact and approximate neighbours of unit vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mobilenet.search.nearest import Approximate, exact, unit


def vectors(count: int, seed: int = 0) -> np.ndarray:
    centres = np.random.default_rng(9).normal(size=(20, 32))
    generator = np.random.default_rng(seed)
    return unit((centres[generator.integers(0, 20, count)] + 0.7 * generator.normal(size=(count, 32))).astype("f"))


def test_exact_is_a_full_sort_and_breaks_ties_by_the_row() -> None:
    many, query = vectors(300), vectors(1, 5)[0]
    rows, cosines = exact(many, query, 7)
    np.testing.assert_array_equal(rows, np.argsort(-(many @ query), kind="stable")[:7])
    np.testing.assert_array_equal(cosines, (many @ query)[rows])
    same = np.repeat(many[:1], 5, axis=0)
    assert exact(same, query, 3)[0].tolist() == [0, 1, 2]
    assert exact(many[:0], query, 3)[0].tolist() == []
    assert len(exact(many[:2], query, 3)[0]) == 2


def test_a_unit_vector_has_length_one_and_zero_stays_zero() -> None:
    assert unit(np.array([3.0, 4.0], np.float32)).tolist() == pytest.approx([0.6, 0.8])
    assert unit(np.zeros(3, np.float32)).tolist() == [0.0, 0.0, 0.0]


def test_approximate_recalls_nearly_all_after_saving_removing_and_adding(tmp_path: Path) -> None:
    pytest.importorskip("usearch", reason="usearch is not installed: pip install 'mobilenet[search]'")
    many, queries = vectors(2000), vectors(50, 5)
    graph = Approximate(32)
    graph.add(np.arange(1500), many[:1500])
    graph.save(tmp_path / "g")
    graph = Approximate(32)
    graph.load(tmp_path / "g")
    graph.add(np.arange(1500, 2000), many[1500:])
    graph.remove(np.arange(0, 100))
    graph.remove(np.array([5000]))  # unknown
    assert len(graph) == 1900
    graph.save(tmp_path / "g")
    graph = Approximate(32)
    graph.view(tmp_path / "g")
    right = 0
    for query in queries:
        keys, cosines = graph.search(query, 10)
        rows, expected = exact(many[100:], query, 10)
        right += len(set(keys.tolist()) & set((rows + 100).tolist()))
        np.testing.assert_allclose(cosines, np.sort(many[keys] @ query)[::-1], atol=2e-3)
        assert cosines[0] == pytest.approx(expected[0], abs=2e-2)
    assert right / 500 >= 0.98

"""Suppression against the plain definition, on boxes that are hard."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilenet.tasks.nms import CHUNK, ious, suppressed


def slow(boxes: np.ndarray, classes: np.ndarray | None, threshold: float, most: int) -> list[int]:
    """The definition of the module's text, one pair at a time."""
    kept: list[int] = []
    for i in range(len(boxes)):
        if len(kept) == most:
            break
        if all(
            (classes is not None and classes[k] != classes[i])
            or not iou(boxes[k], boxes[i]) > np.float32(threshold)
            for k in kept
        ):
            kept.append(i)
    return kept


def iou(a: np.ndarray, b: np.ndarray) -> np.float32:
    zero = np.float32(0)
    across = max(min(a[2], b[2]) - max(a[0], b[0]), zero)
    down = max(min(a[3], b[3]) - max(a[1], b[1]), zero)
    shared = across * down
    total = ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])) - shared
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.float32(shared / total)


def some_boxes(count: int, seed: int, side: float = 30.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    corner = random.uniform(0, 100, (count, 2))
    boxes = np.concatenate([corner, corner + random.uniform(0, side, (count, 2))], 1)
    return (np.round(boxes) if seed % 2 else boxes).astype(np.float32)  # whole numbers make equal IoUs


@pytest.mark.parametrize("count", [0, 1, 7, CHUNK, CHUNK + 1, 2 * CHUNK + 5])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("most", [1, 20, 1000])
def test_as_defined(count: int, seed: int, most: int) -> None:
    boxes = some_boxes(count, seed)
    for kinds in (1, 3, 40):  # many classes are looked at pair by pair
        groups = np.random.default_rng(seed).integers(0, kinds, count) if kinds > 1 else None
        assert suppressed(boxes, groups, 0.4, most).tolist() == slow(boxes, groups, 0.4, most)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.integers(1, 40))
def test_as_defined_for_any_boxes(seed: int, threshold: float, count: int) -> None:
    boxes = some_boxes(count, seed, side=8.0)
    assert suppressed(boxes, None, threshold, 1000).tolist() == slow(boxes, None, threshold, 1000)


def test_boxes_without_area_suppress_nothing() -> None:
    point = np.array([[5, 5, 5, 5]] * 3, np.float32)
    assert suppressed(point, None, 0.5, 10).tolist() == [0, 1, 2]
    assert np.isnan(ious(point[:, None], point)).all()


def test_at_the_threshold_both_stay() -> None:
    boxes = np.array([[0, 0, 2, 1], [1, 0, 3, 1], [0, 0, 2, 1]], np.float32)  # IoU 1/3 and 1
    assert suppressed(boxes, None, float(np.float32(1) / np.float32(3)), 10).tolist() == [0, 1]
    assert suppressed(boxes, None, 0.33, 10).tolist() == [0]

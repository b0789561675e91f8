"""Segmentation figures against scikit-learn and definitions written out pixel by pixel."""

from __future__ import annotations

from math import ceil, hypot

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilenet.errors import ArgumentError
from mobilenet.tasks.segmentation_metrics import SegmentationMeter, boundary, boundary_f, grown


def maps(seed: int, classes: int, count: int = 3) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs (found, truth) that mostly agree, in blobs, with pixels of no class in the truth."""
    random = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        height, width = random.integers(5, 30, 2)
        coarse = random.integers(0, classes, (4, 4)).astype(np.uint8)
        truth = coarse.repeat(8, 0).repeat(8, 1)[:height, :width].copy()
        found = np.where(random.random(truth.shape) < 0.2, random.integers(0, classes, truth.shape), truth)
        truth[random.random(truth.shape) < 0.1] = 255
        pairs.append((found.astype(np.uint8), truth))
    return pairs


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), classes=st.integers(2, 6))
def test_figures_are_those_of_scikit_learn(seed: int, classes: int) -> None:
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    meter, all_found, all_true = SegmentationMeter(classes, boundaries=False), [], []
    for found, truth in maps(seed, classes):
        meter.add(found, truth)
        all_found.append(found[truth != 255])
        all_true.append(truth[truth != 255])
    found, truth = np.concatenate(all_found), np.concatenate(all_true)
    names = tuple(map(str, range(classes)))
    figures = meter.results(names)
    present = np.union1d(found, truth)
    expected = sklearn.jaccard_score(truth, found, average=None, labels=present, zero_division=0)
    assert figures["miou"] == pytest.approx(expected.mean(), abs=1e-6)
    assert [figures["per_class"][str(n)]["iou"] for n in present] == pytest.approx(expected.tolist(), abs=1e-6)
    assert figures["pixel_accuracy"] == pytest.approx(sklearn.accuracy_score(truth, found), abs=1e-6)
    confusion = sklearn.confusion_matrix(truth, found, labels=range(classes))
    assert (np.array(figures["confusion"])[:, :-1] == confusion).all()
    for number in set(range(classes)) - set(present.tolist()):
        assert figures["per_class"][str(number)]["iou"] is None


def slow_boundary(mask: np.ndarray, ignored: np.ndarray) -> set[tuple[int, int]]:
    height, width = mask.shape
    edge = set()
    for y in range(height):
        for x in range(width):
            around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            inside = [(v, u) for v, u in around if 0 <= v < height and 0 <= u < width]
            if mask[y, x] and any(not mask[place] and not ignored[place] for place in inside):
                edge.add((y, x))
    return edge


def slow_f(found: set, truth: set, radius: int) -> float | None:
    if not found and not truth:
        return None
    if not found or not truth:
        return 0.0

    def near(these: set, others: set) -> float:
        hits = sum(any(hypot(y - v, x - u) <= radius for v, u in others) for y, x in these)
        return hits / len(these)

    precision, recall = near(found, truth), near(truth, found)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.sampled_from([0.0, 0.03, 0.1, 0.4]))
def test_boundary_f_is_its_definition(seed: int, share: float) -> None:
    meter = SegmentationMeter(3, boundary_share=share)
    sums: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for found, truth in maps(seed, 3, 2):
        meter.add(found, truth)
        ignored = truth == 255
        for number in range(3):
            edges = (slow_boundary((found == number) & ~ignored, ignored), slow_boundary(truth == number, ignored))
            figure = slow_f(*edges, ceil(share * hypot(*truth.shape)))
            if figure is not None:
                sums[number].append(figure)
    for number, figures in sums.items():
        if figures:
            assert meter.boundary()[number] == pytest.approx(np.mean(figures))
        else:
            assert np.isnan(meter.boundary()[number])


@pytest.mark.parametrize("radius", [0, 1, 2, 5, 50])
def test_growing_is_by_a_disk(radius: int) -> None:
    mask = np.zeros((21, 33), bool)
    mask[10, 12] = mask[0, 32] = True
    ys, xs = np.mgrid[:21, :33]
    expected = (np.hypot(ys - 10, xs - 12) <= radius) | (np.hypot(ys, xs - 32) <= radius)
    assert (grown(mask, radius) == expected).all()


def test_a_shift_within_the_distance_is_no_fault_of_the_boundary_but_of_the_iou() -> None:
    truth = np.zeros((100, 100), np.uint8)
    truth[20:60, 20:60] = 1
    found = np.roll(truth, 2, 1)
    meter = SegmentationMeter(2)  # 0.75% of the diagonal, rounded up: 2 pixels
    meter.add(found, truth)
    figures = meter.results(("a", "b"))
    assert figures["boundary_f"] == 1.0
    assert figures["per_class"]["b"]["iou"] == pytest.approx(38 / 42, abs=1e-6)


def test_an_edge_along_pixels_without_a_class_is_none() -> None:
    mask = np.zeros((5, 6), bool)
    mask[:, :3] = True
    ignored = np.zeros((5, 6), bool)
    ignored[:, 3:] = True
    assert not boundary(mask, ignored).any()
    assert boundary(mask, ~mask & ~ignored).sum() == 5
    assert boundary_f(mask, np.zeros_like(mask), 2) == 0.0


def test_what_was_not_seen_is_wrong_and_what_has_no_class_does_not_count() -> None:
    truth = np.array([[0, 0, 1, 1, 255, 255]], np.uint8)
    found = np.array([[0, 255, 1, 255, 0, 1]], np.uint8)
    meter = SegmentationMeter(2, boundaries=False)
    meter.add(found, truth)
    figures = meter.results(("a", "b"))
    assert figures["pixel_accuracy"] == 0.5
    assert figures["miou"] == 0.5
    assert figures["confusion"] == [[1, 0, 1], [0, 1, 1]]
    assert figures["boundary_f"] is None


def test_adding_a_picture_gives_its_own_iou() -> None:
    meter = SegmentationMeter(3, boundaries=False)
    truth = np.array([[0, 0, 1, 1, 255]], np.uint8)
    assert meter.add(np.array([[0, 0, 1, 1, 2]], np.uint8), truth) == 1.0
    assert meter.add(np.array([[0, 0, 0, 2, 2]], np.uint8), truth) == pytest.approx(2 / 9, abs=1e-6)
    assert meter.add(np.zeros((1, 5), np.uint8), np.full((1, 5), 255, np.uint8)) is None


def test_adding_in_parts_is_adding_at_once() -> None:
    found, truth = maps(3, 4, 1)[0]
    whole, parts = SegmentationMeter(4, boundaries=False), SegmentationMeter(4, boundaries=False)
    whole.add(found, truth)
    for row in range(len(found)):
        parts.add(found[row : row + 1], truth[row : row + 1])
    assert (whole.confusion == parts.confusion).all()


@pytest.mark.parametrize(
    ("found", "truth", "message"),
    [
        (np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8), "of one size"),
        (np.zeros((2, 2), np.int64), np.zeros((2, 2), np.uint8), "uint8"),
        (np.full((2, 2), 3, np.uint8), np.zeros((2, 2), np.uint8), "found holds class 3; there are 3"),
        (np.zeros((2, 2), np.uint8), np.full((2, 2), 9, np.uint8), "truth holds class 9"),
    ],
)
def test_maps_that_do_not_fit_are_refused(found: np.ndarray, truth: np.ndarray, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        SegmentationMeter(3).add(found, truth)


def test_impossible_meters_and_empty_ones() -> None:
    for classes in (0, 256, 2.0):
        with pytest.raises(ArgumentError, match="classes is"):
            SegmentationMeter(classes)
    with pytest.raises(ArgumentError, match="no pixel"):
        SegmentationMeter(2).results(("a", "b"))
    with pytest.raises(ArgumentError, match="1 names for 2"):
        SegmentationMeter(2).results(("a",))

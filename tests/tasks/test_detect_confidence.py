"""From which confidence on boxes are shown, on answers that can be counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mobilenet.pictures.boxes import BoxedPicture
from mobilenet.tasks.detect import Boxes
from mobilenet.tasks.detect_confidence import USUAL, at_confidence, best_confidence

SIZE = (100, 100)


def square(place: int) -> list[float]:
    """One of ten squares that do not touch."""
    return [place * 10.0, 0.0, place * 10.0 + 8, 8.0]


def picture(places: list[int], ignored: list[int] | None = None) -> BoxedPicture:
    every = [*places, *(ignored or [])]
    flags = np.array([place in (ignored or []) for place in every], bool)
    boxes = np.array([square(place) for place in every], np.float32).reshape(-1, 4)
    return BoxedPicture(Path("a"), SIZE, boxes, np.zeros(len(every), np.int64), flags)


def answer(found: list[tuple[int, float]], label: int = 0) -> Boxes:
    boxes = np.array([square(place) for place, _ in found], np.float32).reshape(-1, 4)
    conf = np.array([share for _, share in found], np.float32)
    return Boxes(boxes, conf, np.full(len(found), label, np.int64), SIZE)


def test_the_best_f1_lies_between_the_last_right_and_the_first_wrong_ones() -> None:
    at = best_confidence([picture([0, 1, 2])], [answer([(0, 0.9), (1, 0.8), (2, 0.6), (7, 0.4), (8, 0.3)])])
    assert at.confidence == pytest.approx(0.5)
    assert (at.precision, at.recall, at.f1) == (1.0, 1.0, 1.0)


def test_wrong_ones_that_come_first_are_paid_for() -> None:
    at = best_confidence([picture([0, 1])], [answer([(7, 0.9), (0, 0.8), (1, 0.7)])])
    assert at.precision == pytest.approx(2 / 3) and at.recall == 1.0 and at.confidence < 0.7


def test_an_object_is_found_once_and_by_its_own_class_only() -> None:
    truth = [picture([0])]
    assert at_confidence(truth, [answer([(0, 0.9), (0, 0.8)])], 0.5).precision == 0.5
    assert at_confidence(truth, [answer([(0, 0.9)], label=1)], 0.5).recall == 0.0
    shifted = answer([(0, 0.9)])
    shifted.xyxy[:, [0, 2]] += 5  # IoU 3 / 13
    assert at_confidence(truth, [shifted], 0.5).recall == 0.0


def test_ignored_objects_count_neither_way() -> None:
    at = at_confidence([picture([0], ignored=[1])], [answer([(0, 0.9), (1, 0.8)])], 0.5)
    assert (at.precision, at.recall) == (1.0, 1.0)


def test_nothing_to_go_by_gives_the_usual_one() -> None:
    for truth, found in ((picture([0]), answer([])), (picture([]), answer([(0, 0.9)]))):
        assert best_confidence([truth], [found]).confidence == USUAL
    assert best_confidence([picture([0])], [answer([(0, 0.01)])]).confidence == USUAL, "below what is ever shown"
    assert at_confidence([picture([0])], [answer([])], 0.5) == (0.5, 0.0, 0.0, 0.0)

"""The native way from raw outputs to boxes gives what the numpy definition gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mobilenet.errors import ArgumentError
from mobilenet.family.decoding import Decoding
from mobilenet.tasks.detect import Found, decoded, decoded_by_reference

pytest.importorskip("mobilenet._engine", reason="the engine is not built: pip install .")

SIZES = (((0.2, 0.2), (0.4, 0.3)), ((0.6, 0.5), (0.9, 0.8)))
SSD = Decoding("ssd", ((9, 7), (3, 4)), SIZES, score_threshold=0.05, candidates=20, detections=50)
YOLO = Decoding("yolo", ((9, 7), (3, 4)), scores="sigmoid", background=False, iou_threshold=0.5, candidates=40)
RULES = {
    "ssd": SSD,
    "of any class": replace(SSD, agnostic=True, iou_threshold=0.2),
    "everything": replace(SSD, score_threshold=0.0, candidates=1000, detections=2000, iou_threshold=1.0),
    "nothing": replace(SSD, score_threshold=1.0),
    "few": replace(SSD, detections=3, candidates=2),
    "sigmoid": replace(SSD, scores="sigmoid"),
    "no background": replace(SSD, background=False),
    "yolo": YOLO,
    "yolo, sure": replace(YOLO, score_threshold=0.9),
}


def both(rule: Decoding, boxes: np.ndarray, scores: np.ndarray) -> tuple[Found, Found]:
    outputs = {"boxes": boxes, "scores": scores}
    return decoded(outputs, rule, 120, 90), decoded_by_reference(boxes, scores, rule, 120, 90)


def assert_same(rule: Decoding, boxes: np.ndarray, scores: np.ndarray) -> int:
    found, wanted = both(rule, boxes, scores)
    for name in Found._fields:
        assert np.array_equal(getattr(found, name), getattr(wanted, name)), name
        assert getattr(found, name).dtype == getattr(wanted, name).dtype
    return len(found.scores)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("spread", [0.1, 2.0, 30.0])
def test_it_is_the_definition(rule: Decoding, spread: float) -> None:
    generator = np.random.default_rng(7)
    count = rule.prior_count
    boxes = generator.normal(0, spread, (count, 4)).astype(np.float32)
    for columns in (1 + rule.background, 5, 91):
        scores = generator.normal(0, spread, (count, columns)).astype(np.float32)
        assert_same(rule, boxes, scores)


def test_equal_probabilities_are_ordered_by_class_and_prior() -> None:
    scores = np.zeros((SSD.prior_count, 4), np.float32)
    assert assert_same(SSD, np.zeros((SSD.prior_count, 4), np.float32), scores) > 3


def test_boxes_without_area_do_not_suppress_each_other() -> None:
    boxes = np.zeros((SSD.prior_count, 4), np.float32)
    boxes[:, 0] = 1e4  # far outside: cut to a line at the border
    scores = np.tile(np.array([0, 3], np.float32), (SSD.prior_count, 1))
    rule = replace(SSD, candidates=100)
    assert assert_same(rule, boxes, scores) == min(rule.detections, SSD.prior_count)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", ["boxes", "scores"])
def test_what_is_no_number_is_refused(bad: float, which: str) -> None:
    outputs = {name: np.zeros((SSD.prior_count, 4), np.float32) for name in ("boxes", "scores")}
    outputs[which][-1, -1] = bad
    with pytest.raises(ArgumentError, match="NaN or an infinity"):
        decoded(outputs, SSD, 120, 90)

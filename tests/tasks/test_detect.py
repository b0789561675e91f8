"""From raw outputs to boxes in a picture: arithmetic, the order of equals, places, what a result can do."""

from __future__ import annotations

import json
from dataclasses import replace
from math import exp, log, log1p
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mobilenet
from mobilenet.errors import ArgumentError
from mobilenet.family.decoding import Decoding
from mobilenet.model import Answer
from mobilenet.pictures.decode import decode_image
from mobilenet.tasks.detect import Boxes, DetectionResult, candidates, decoded, detection_of

ONE = Decoding("ssd", ((1, 1),), (((0.5, 0.25),),), iou_threshold=0.5)
CELLS = Decoding("yolo", ((2, 2),), scores="sigmoid", background=False, score_threshold=0.05, iou_threshold=0.5)


def raw(boxes: Any, scores: Any) -> dict[str, np.ndarray]:
    return {"boxes": np.array(boxes, np.float32), "scores": np.array(scores, np.float32)}


def test_ssd_arithmetic() -> None:
    found = decoded(raw([[0.4, -0.2, 0.5, -1.0]], [[0.0, 2.0]]), ONE, 100, 200)
    centre = (0.5 + 0.4 * 0.1 * 0.5, 0.5 - 0.2 * 0.1 * 0.25)
    size = (0.5 * exp(0.1), 0.25 * exp(-0.2))
    expected = [
        (centre[0] - size[0] / 2) * 200,
        (centre[1] - size[1] / 2) * 100,
        (centre[0] + size[0] / 2) * 200,
        (centre[1] + size[1] / 2) * 100,
    ]
    assert found.boxes[0].tolist() == pytest.approx(expected, rel=1e-6)
    assert found.scores.tolist() == pytest.approx([1 / (1 + exp(-2))])
    assert found.classes.tolist() == [0]


def test_yolo_arithmetic() -> None:
    scores = [[-9.0, -9.0]] * 3 + [[-9.0, 1.0]]
    found = decoded(raw([[0.0, 1.0, -40.0, -1.0]] * 4, scores), CELLS, 64, 64)
    left, top, right, bottom = (log1p(exp(v)) * 32 for v in (0.0, 1.0, -40.0, -1.0))
    assert found.boxes.tolist() == [pytest.approx([48 - left, 48 - top, 48 + right, 48 + bottom], rel=1e-6)]
    assert found.classes.tolist() == [1] and found.scores.tolist() == pytest.approx([1 / (1 + exp(-1))])


def test_huge_values_stay_in_the_picture() -> None:
    found = decoded(raw([[1e30, -1e30, 1e30, 1e30]], [[-1e30, 1e30]]), ONE, 10, 20)
    assert np.isfinite(found.boxes).all() and found.scores.tolist() == [1.0]
    assert (found.boxes >= 0).all() and (found.boxes <= [20, 10, 20, 10]).all()


def test_equal_ones_come_by_class_and_prior() -> None:
    decoding = Decoding("ssd", ((1, 4),), (((0.01, 0.01),),), candidates=2, scores="sigmoid", background=False)
    scores = np.zeros((4, 3), np.float32)
    assert [part.tolist() for part in candidates(scores, decoding)[:2]] == [[0, 1] * 3, [0, 0, 1, 1, 2, 2]]
    found = decoded(raw(np.zeros((4, 4)), scores), decoding, 8, 8)
    assert found.classes.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.boxes[0].tolist() < found.boxes[1].tolist()


def test_only_the_most_probable_of_a_class_are_looked_at() -> None:
    random = np.random.default_rng(0)
    scores = random.standard_normal((500, 4)).astype(np.float32)
    decoding = Decoding("ssd", ((20, 25),), (((0.1, 0.1),),), candidates=30, score_threshold=0.01)
    wide = scores.astype(np.float64)
    chances = (np.exp(wide) / np.exp(wide).sum(1, keepdims=True))[:, 1:].astype(np.float32)
    priors, classes, values = candidates(scores, decoding)
    for number in range(3):
        best = np.argsort(-chances[:, number], kind="stable")[:30]
        assert priors[classes == number].tolist() == best.tolist()
        assert np.array_equal(values[classes == number], chances[best, number])


@pytest.mark.parametrize("threshold", [0.0, 0.001, 0.3, 0.999, 1.0])
@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
def test_the_threshold_is_exact(threshold: float, scores: str) -> None:
    raw_scores = (np.random.default_rng(1).standard_normal((300, 5)) * 3).astype(np.float32)
    if scores == "sigmoid":
        raw_scores[0, 1] = log(threshold / (1 - threshold)) if 0 < threshold < 1 else 0
    decoding = Decoding(
        "ssd", ((15, 20),), (((0.1, 0.1),),), scores=scores, score_threshold=threshold, candidates=1000
    )
    wide = raw_scores.astype(np.float64)
    if scores == "softmax":
        powers = np.exp(wide - wide.max(1, keepdims=True))
        chances = powers / powers.sum(1, keepdims=True)
    else:
        chances = 1 / (1 + np.exp(-wide))
    expected = int((chances[:, 1:].astype(np.float32) > np.float32(threshold)).sum())
    assert len(candidates(raw_scores, decoding)[0]) == expected


def test_class_agnostic_suppression() -> None:
    decoding = Decoding("ssd", ((1, 1),), (((0.5, 0.5), (0.5, 0.5)),))
    outputs = raw(np.zeros((2, 4)), [[0, 3, 0], [0, 0, 2]])
    assert set(decoded(outputs, decoding, 8, 8).classes.tolist()) == {0, 1}
    assert decoded(outputs, replace(decoding, agnostic=True), 8, 8).classes.tolist() == [0]


def test_bad_outputs_are_refused() -> None:
    with pytest.raises(ArgumentError, match="do not fit 1 priors"):
        decoded(raw(np.zeros((2, 4)), np.zeros((2, 2))), ONE, 8, 8)
    with pytest.raises(ArgumentError, match="do not fit"):
        decoded(raw(np.zeros((1, 4)), np.zeros((1, 1))), ONE, 8, 8)
    with pytest.raises(ArgumentError, match="NaN"):
        decoded(raw([[0, 0, np.nan, 0]], np.zeros((1, 2))), ONE, 8, 8)


@pytest.mark.parametrize(
    ("resize", "fraction", "expected"),
    [
        ("stretch", 1.0, (100, 25, 300, 75)),
        ("stretch", 0.5, (150, 37.5, 250, 62.5)),
        ("crop", 1.0, (175, 25, 225, 75)),
        ("pad", 1.0, (100, 0, 300, 100)),
    ],
)
def test_boxes_go_back_to_the_picture(resize: str, fraction: float, expected: tuple[float, ...]) -> None:
    """The middle half of a 64 x 64 input, of a picture of 400 x 100 pixels."""
    model = mobilenet.create("mobilenet_v1", head="ssd", classes=2, resolution=64, width_multiplier=0.25)
    assert model.preprocessing is not None
    model.preprocessing = replace(model.preprocessing, resize=resize, crop_fraction=fraction)
    model.decoding = Decoding("ssd", ((1, 1),), (((0.5, 0.5),),))
    result = detection_of(model, Answer(None, raw([[0] * 4], [[0, 5]]), {}, size=(100, 400)))
    assert result.boxes.xyxy.tolist() == [pytest.approx(expected)]
    assert result.boxes.xywhn.tolist() == [
        pytest.approx([0.5, 0.5, (expected[2] - expected[0]) / 400, (expected[3] - expected[1]) / 100])
    ]


def test_a_turned_picture_keeps_its_upright_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # turn by a quarter
    path = tmp_path / "turned.jpg"
    Image.fromarray(np.zeros((40, 80, 3), np.uint8)).save(path, exif=exif)
    once = decode_image(path)
    assert once.size == (40, 80) == decode_image(once).size  # not turned again
    model = mobilenet.create("mobilenet_v1", head="yolo", classes=2, resolution=64, width_multiplier=0.25)
    assert model.predict(path).boxes.size == (80, 40)


def a_result() -> DetectionResult:
    boxes = np.array([[1, 2, 11, 22], [0, 0, 30, 40], [5, 5, 6, 6]], np.float32)
    found = Boxes(boxes, np.array([0.9, 0.5, 0.1], np.float32), np.array([1, 0, 1]), (40, 30))
    return DetectionResult("a.jpg", found, ("cell", "plate"))


def test_what_a_result_says(tmp_path: Path) -> None:
    result = a_result()
    assert len(result) == 3 and str(result) == "a.jpg: 2 plate, 1 cell"
    assert result.boxes.xywh[0].tolist() == [6, 12, 10, 20]
    assert result.boxes.xyxyn[1].tolist() == [0, 0, 1, 1]
    said = json.loads(result.to_json())
    assert said["size"] == [40, 30] and said["boxes"][0]["label"] == "plate"
    assert said["boxes"][0]["xyxy"] == [1, 2, 11, 22]
    entry = result.to_coco(7)[0]
    assert (entry["image_id"], entry["category_id"], entry["bbox"]) == (7, 2, [1, 2, 10, 20])
    assert result.to_coco(7, [90, 3])[0]["category_id"] == 3
    assert result.at_least(0.5).boxes.conf.tolist() == [pytest.approx(0.9), 0.5]


def test_a_plot_is_the_picture_with_boxes(tmp_path: Path) -> None:
    result, picture = a_result(), np.full((40, 30, 3), 200, np.uint8)
    drawn = np.asarray(result.plot(picture, confidence=0.4))
    assert drawn.shape == picture.shape and (drawn != 200).any()
    assert (np.asarray(result.plot(picture, confidence=1.0)) == 200).all()
    assert Image.open(result.save(tmp_path / "plot.png", picture)).size == (30, 40)
    with pytest.raises(ArgumentError, match=r"saved as \.png"):
        result.save(tmp_path / "plot.txt", picture)
    with pytest.raises(ArgumentError, match="the result's had"):
        result.plot(np.zeros((3, 3, 3), np.uint8))
    with pytest.raises(ArgumentError, match="give the picture"):
        replace(result, path=None).plot()


def test_a_bad_picture_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    model = mobilenet.create("mobilenet_v1", head="yolo", classes=2, resolution=64, width_multiplier=0.25)
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(good)
    bad.write_bytes(good.read_bytes()[:30])
    answers = list(model.answers([good, bad, good]))
    assert [answer.error is None for answer in answers] == [True, False, True]
    assert detection_of(model, answers[2]).boxes.size == (20, 30)

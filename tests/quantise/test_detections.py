"""What is measured of a quantised detector: AP50 on people's boxes, or on those that the float model finds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip(
    "faster_coco_eval", reason="faster-coco-eval is not installed: pip install 'mobilenet[detect]'"
)

import mobilenet
from mobilenet.errors import ArgumentError, DataError
from mobilenet.model import Model
from mobilenet.quantise.detections import JOINED, as_truth, useful_scores, weighed_by
from mobilenet.quantise.measure import Measure, answers, read_pixels
from mobilenet.quantise.options import QuantiseOptions
from mobilenet.quantise.outcome import quantise_within
from mobilenet.quantise.pictures import draw_pictures

SIZE = (80, 120)  # height and width
OPTIONS = QuantiseOptions(max_drop=0.25, pictures=4, method="min-max", equalise=False, correct_bias=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey pictures with one box each, the middle half: six to calibrate on, five to measure on."""
    root = tmp_path_factory.mktemp("boxes")
    for split, count in (("train", 6), ("val", 5)):
        (root / split).mkdir()
        images, notes = [], []
        for number in range(count):
            grey = np.full((*SIZE, 3), 40 * number, np.uint8)
            Image.fromarray(grey).save(root / split / f"{number}.png")
            images.append({"id": number, "file_name": f"{number}.png", "height": SIZE[0], "width": SIZE[1]})
            notes.append({"id": number, "image_id": number, "category_id": 1, "bbox": [30, 20, 60, 40]})
        content = {"images": images, "annotations": notes, "categories": [{"id": 1, "name": "thing"}]}
        (root / split / "notes.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def model() -> Model:
    """It says the middle half of every picture, by the biases of one prior of its last map."""
    made = mobilenet.create("mobilenet_v1", head="ssd", classes=2, resolution=64, width_multiplier=0.25)
    assert made.decoding is not None
    silent = {key: np.zeros_like(a) for key, a in made.weights.items() if key.startswith("detect.")}
    for key in silent:
        if key.endswith("scores.predict.bias"):
            silent[key][0::2] = 8.0  # background
    last = len(made.decoding.maps) - 1
    silent[f"detect.{last}.scores.predict.bias"][:2] = 0.0, 8.0
    size = made.decoding.sizes[last][0]
    silent[f"detect.{last}.boxes.predict.bias"][2:4] = np.log(0.5 / np.array(size)) / 0.2
    made.weights = {**made.weights, **silent}
    made.labels = ("thing",)
    return made


def pictures(data: Path) -> list[Path]:
    return sorted((data / "val").glob("*.png"))


def test_val_with_its_boxes_measures_and_objects_count_for_the_budget(data: Path, model: Model) -> None:
    drawn = draw_pictures(model, model.names, data, OPTIONS)
    assert drawn.boxes is not None and [p.path for p in drawn.boxes] == list(drawn.held_out)
    assert {path.parent.name for path in drawn.held_out} == {"val"}
    assert {path.parent.name for path in (*drawn.calibration, *drawn.learning)} == {"train"}
    with pytest.raises(DataError, match=r"5 objects to measure on; a drop of 0\.1 needs at least 4 and 10"):
        draw_pictures(model, model.names, data, replace(OPTIONS, max_drop=0.1))


def test_the_figure_is_ap50(data: Path, model: Model) -> None:
    drawn = draw_pictures(model, model.names, data, OPTIONS)
    pixels = read_pixels(model, drawn.held_out)
    measure = Measure.of(model, pixels, None, drawn.boxes)
    assert (measure.kind, measure.output) == ("AP50", JOINED) and measure.float_score == pytest.approx(1.0)
    moved = measure.reference.copy()
    moved[..., :4] += 30.0
    assert measure.score(moved) < 0.1 < measure.drop(moved)
    assert measure.noise(moved) > measure.noise(measure.reference) == 0


def test_without_boxes_the_float_model_says_what_is_there(data: Path, model: Model) -> None:
    pixels = read_pixels(model, pictures(data))
    measure = Measure.of(model, pixels, None)
    assert measure.kind == "AP50 against the float model" and measure.float_score == pytest.approx(1.0)
    (first, *_) = as_truth(model, answers(model, pixels, JOINED), 0.25)
    np.testing.assert_allclose(first.boxes, [[16, 16, 48, 48]], atol=0.1)  # pixels of the input of 64 x 64
    with pytest.raises(ArgumentError, match="finds nothing with a confidence of 1"):
        as_truth(model, answers(model, pixels, JOINED), 1.0)


def test_a_detector_keeps_to_its_budget_in_integers(data: Path, model: Model) -> None:
    outcome = quantise_within(model, data, OPTIONS)
    assert outcome.measure == "AP50" and outcome.drop <= OPTIONS.max_drop
    small = outcome.model
    assert small.decoding == model.decoding
    boxes = small.predict(pictures(data)[0]).at_least(0.5).boxes
    np.testing.assert_allclose(boxes.xyxy, [[30, 20, 90, 60]], atol=3)


def test_noise_of_a_detector_is_that_of_what_it_finds() -> None:
    made = mobilenet.create("mobilenet_v2", head="yolo", classes=2, resolution=64, width_multiplier=0.35)
    places = sum(rows * columns for rows, columns in made.decoding.maps)
    random = np.random.default_rng(0)
    wanted = random.normal(0, 1, (3, places, 6)).astype(np.float32)
    wanted[..., 4:] -= 12  # nothing there, but in one place
    wanted[:, 5, 4] = 3
    measure = Measure("AP50", JOINED, wanted, figure=lambda rows: 0.0, weighed=weighed_by(made, wanted))
    nothing, something, surer = wanted.copy(), wanted.copy(), wanted.copy()
    nothing[:, 6:, :4] += 1
    nothing[:, 6:, 4:] -= 5
    something[:, 5, 0] += 1
    surer[:, 5, 4] -= 3
    assert measure.noise(wanted) == 0
    assert measure.noise(nothing) < 1e-6 < 1e-2 < min(measure.noise(something), measure.noise(surer))


def test_scores_far_below_the_threshold_are_not_told_apart() -> None:
    yolo = mobilenet.create("mobilenet_v2", head="yolo", classes=2, resolution=64, width_multiplier=0.35)
    low, high = useful_scores(yolo)["scores"]
    assert 1 / (1 + np.exp(-low)) < 0.0005 and high == np.inf
    ssd = mobilenet.create("mobilenet_v1", head="ssd", classes=2, resolution=64, width_multiplier=0.25)
    assert useful_scores(ssd) == {}  # a softmax compares them

"""Segmenters in integers: parts of a concatenation share its scale, and masks measure what the integers lose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilenet.graph.ops import Concat, Reshape, Resize
from mobilenet.model import Model
from mobilenet.pictures.palette import save_class_map
from mobilenet.quantise import quantise
from mobilenet.quantise.measure import Measure, answers, read_pixels
from mobilenet.quantise.options import QuantiseOptions
from mobilenet.quantise.outcome import quantise_within
from mobilenet.quantise.random import random_batch, random_model
from mobilenet.quantise.ranges import Range, joined
from mobilenet.quantise.segments import mean_iou
from mobilenet.run import reference

NAMES = ("background", "left", "right")


@pytest.fixture(scope="module")
def segmenter() -> Model:
    contents = random_model("lraspp_mobilenet_v3_small", classes=3, resolution=64, width_multiplier=0.35)
    assert contents.preprocessing is not None
    whole = replace(contents.preprocessing, resize="stretch", crop_fraction=1.0)
    return Model.of(replace(contents, labels=NAMES, preprocessing=whole))


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 pictures of two colours beside each other, with masks."""
    root = tmp_path_factory.mktemp("halves")
    generator = np.random.default_rng(0)
    for name in ("images", "masks"):
        (root / name).mkdir()
    (root / "labels.txt").write_text("\n".join(NAMES) + "\n")
    for number in range(36):
        picture = np.repeat(generator.integers(0, 256, (1, 2, 3), dtype=np.uint8), 20, 1).repeat(30, 0)
        mask = np.repeat(np.array([[1, 2]], np.uint8), 20, 1).repeat(30, 0)
        mask[:4], mask[4] = 0, 255
        Image.fromarray(picture).save(root / "images" / f"{number}.png")
        save_class_map(mask, root / "masks" / f"{number}.png")
    return root


@pytest.mark.parametrize("head", ["deeplabv3", "deeplabv3plus"])
def test_parts_of_a_concatenation_have_its_scale(head: str) -> None:
    """What runtimes of the TFLite family want; the integers of engine and reference stay the same."""
    model = random_model("mobilenet_v2", head=head, classes=3, resolution=96, width_multiplier=0.1)
    integers = Model.of(quantise(model, [random_batch(model, seed=seed) for seed in range(2)]))
    graph = integers.graph
    joins = [node for node in graph.nodes if isinstance(node.operator, Concat)]
    assert joins
    for node in joins:
        for part in node.inputs:
            while isinstance(graph.node(part).operator, Resize | Reshape):
                assert graph.types[part].quantisation == node.quantisation
                part = graph.node(part).inputs[0]
            assert graph.types[part].quantisation == node.quantisation, part
    quanta = integers.to_input(np.random.default_rng(0).integers(0, 256, (1, 96, 96, 3), dtype=np.uint8))
    expected = reference.run(graph, integers.weights, quanta)["logits"]
    np.testing.assert_array_equal(integers.run(quanta)["logits"], expected)


def test_what_others_read_too_keeps_its_own_range() -> None:
    graph = random_model("deeplabv3plus_mobilenet_v2", classes=3, resolution=64, width_multiplier=0.1).graph
    ranges = {name: Range(0.0, float(number)) for number, name in enumerate(graph.types)}
    found = joined(graph, ranges)
    shared = {name for name in ranges if found[name] != ranges[name]}
    assert "segment.enlarge" in shared
    for name in shared:
        readers = [node for node in graph.nodes if name in node.inputs]
        assert len(readers) == 1, f"{name} is read by others"
    assert {name for name in ranges if name.startswith("blocks.")}.isdisjoint(shared)


def test_masks_measure_a_segmenter(segmenter: Model, halves: Path) -> None:
    options = QuantiseOptions(
        "min-max", max_drop=1.0, pictures=8, equalise=False, correct_bias=False, compensate=False
    )
    outcome = quantise_within(segmenter, halves, options)
    assert outcome.measure == "mIoU"
    assert len(outcome.drawn.held_out) < 36 - 8
    pixels = read_pixels(segmenter, outcome.drawn.held_out)
    assert outcome.drawn.masks is not None
    figure = mean_iou(outcome.drawn.masks, 3)
    assert outcome.float_score == pytest.approx(figure(answers(segmenter, pixels, "logits")))
    assert outcome.score == pytest.approx(figure(answers(outcome.model, pixels, "logits")))


def test_without_masks_pixels_are_compared_with_the_float_model(segmenter: Model, halves: Path) -> None:
    options = QuantiseOptions(
        "min-max", max_drop=1.0, pictures=8, equalise=False, correct_bias=False, compensate=False
    )
    outcome = quantise_within(segmenter, halves / "images", options)
    assert outcome.measure == "agreement"
    pixels = read_pixels(segmenter, outcome.drawn.held_out)
    real, near = (answers(model, pixels, "logits") for model in (segmenter, outcome.model))
    assert outcome.float_score == 1
    assert outcome.score == pytest.approx((real.argmax(-1) == near.argmax(-1)).mean())
    assert outcome.score > 0.5


def test_mean_iou_of_known_scores() -> None:
    """Two classes in four pixels, one of them wrong; the mask is twice as large as the scores."""
    mask = np.kron(np.array([[0, 0], [1, 255]], np.uint8), np.ones((2, 2), np.uint8))
    scores = np.eye(2, dtype=np.float32)[np.array([[[0, 1], [1, 0]]])]
    assert mean_iou((mask,), 2)(scores) == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert mean_iou((mask[::2, ::2],), 2)(scores) == pytest.approx(1 / 2)
    measure = Measure("agreement", "logits", scores)
    assert measure.score(scores[..., ::-1]) == 0

"""Detectors' graphs: the peers' counts and maps, any member of the family, any size, what is refused."""

from __future__ import annotations

import json
from math import sqrt
from pathlib import Path

import numpy as np
import pytest

import mobilenet
from mobilenet.errors import ArgumentError
from mobilenet.family.decoding import feature_maps
from mobilenet.family.detectors import NAMED, PriorRow
from mobilenet.family.names import build, list_models
from mobilenet.graph.cost import cost
from mobilenet.graph.fold import fold
from mobilenet.graph.graph import trainable_parameters
from mobilenet.graph.ops import BatchNorm
from mobilenet.run import reference

HEADS = ("ssdlite", "ssd", "ssdlite_tf", "ssd_tf", "yolo")


def test_torchvision_counts(shared: Path) -> None:
    facts = json.loads((shared / "reference" / "measured_counts.json").read_text())
    fact = facts["torchvision"]["ssdlite320_mobilenet_v3_large"]
    graph = build("ssdlite320_mobilenet_v3_large", classes=91)
    assert trainable_parameters(graph) == fact["params"] == 3_440_060
    assert cost(graph).macs == fact["macs"]["320"]["total"]
    assert feature_maps(graph) == tuple((s[2], s[3]) for s in fact["feature_maps"].values())
    norms = [node.operator for node in graph.nodes if isinstance(node.operator, BatchNorm)]
    assert len(norms) == fact["bn"]["n"]
    assert {norm.epsilon for norm in norms} == set(fact["bn"]["eps"])
    assert {norm.momentum for norm in norms} == set(fact["bn"]["momentum"])


@pytest.mark.parametrize(
    ("name", "folded", "maps"),
    [
        ("ssd300_mobilenet_v1", 6_807_000, (19, 10, 5, 3, 2, 1)),
        ("ssdlite300_mobilenet_v2", 4_475_000, (19, 10, 5, 3, 2, 1)),
    ],
)
def test_tensorflow_counts(name: str, folded: int, maps: tuple[int, ...]) -> None:
    """Weights of the frozen graphs with their norms folded, as OpenVINO's model zoo publishes them (millions)."""
    model = mobilenet.create(name, classes=91)
    _, weights = fold(model.graph, model.weights)
    assert sum(array.size for array in weights.values()) == pytest.approx(folded, abs=600)
    assert model.decoding is not None
    assert model.decoding.maps == tuple((side, side) for side in maps)
    assert model.decoding.prior_count == 1917


def test_tensorflow_priors_of_the_first_map() -> None:
    sizes = PriorRow(reduced_first=True, squares_apart=True, in_pixels=True, clipped=False).sizes(6, 300, 300)
    assert [len(of_map) for of_map in sizes] == [3, 6, 6, 6, 6, 6]
    assert np.allclose(sizes[0], [(0.1, 0.1), (0.2 * sqrt(2), 0.2 / sqrt(2)), (0.2 / sqrt(2), 0.2 * sqrt(2))])
    assert np.allclose(sizes[1][-1], [sqrt(0.35 * 0.5)] * 2)


def test_ratios_hold_in_pixels_where_tensorflow_has_them_so() -> None:
    in_pixels = PriorRow(in_pixels=True, clipped=False).sizes(2, 200, 400)
    in_shares = PriorRow(clipped=False).sizes(2, 200, 400)
    assert in_pixels[0][0] == pytest.approx((0.1, 0.2)) and in_shares[0][0] == pytest.approx((0.2, 0.2))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", [name for name in list_models() if "facenet" not in name])
def test_any_member_of_the_family(name: str, head: str) -> None:
    graph = build(name, head=head, classes=5, resolution=(96, 160), width_multiplier=None)
    rows = graph.types[graph.outputs["boxes"]].shape[0]
    assert graph.types[graph.outputs["boxes"]].shape == (rows, 4)
    assert graph.types[graph.outputs["scores"]].shape == (rows, 5)
    assert feature_maps(graph)[0] == ((12, 20) if head == "yolo" else (6, 10))


@pytest.mark.parametrize("head", HEADS)
def test_another_size_gives_other_priors(head: str) -> None:
    model = mobilenet.create("mobilenet_v2", head=head, classes=4, resolution=160, width_multiplier=0.35)
    graph = model.graph.resized(96, 224)
    assert model.decoding is not None
    fitted = model.decoding.fitted(graph)
    assert fitted.prior_count == graph.types[graph.outputs["scores"]].shape[0] == len(fitted.priors)
    assert fitted.prior_count != model.decoding.prior_count


@pytest.mark.parametrize("name", sorted(NAMED))
def test_named_detectors_predict(name: str) -> None:
    model = mobilenet.create(name, classes=4, resolution=96)
    model.validate()
    picture = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    result = model.predict(picture)
    assert result.boxes.size == (50, 70) and result.names == ("0", "1", "2")
    assert model.preprocessing is not None and model.preprocessing.resize == "stretch"


def test_the_engine_gives_what_the_reference_gives() -> None:
    for head in ("ssdlite", "yolo"):
        model = mobilenet.create("mobilenet_v3_small", head=head, classes=3, resolution=96, width_multiplier=0.35)
        batch = np.random.default_rng(1).standard_normal((2, 96, 96, 3)).astype(np.float32)
        expected, found = reference.run(model.graph, model.weights, batch), model.run(batch)
        for output in ("boxes", "scores"):
            assert np.abs(found[output] - expected[output]).max() <= 1e-4 * np.abs(expected[output]).max()


def test_rows_are_in_the_order_of_the_priors() -> None:
    """A predictor's bias of one prior reaches exactly the rows of that prior."""
    model = mobilenet.create("mobilenet_v1", head="ssd", classes=2, resolution=64, width_multiplier=0.25)
    assert model.decoding is not None
    weights = {key: np.zeros_like(a) if key.startswith("detect.") else a for key, a in model.weights.items()}
    weights["detect.1.boxes.predict.bias"][2 * 4 + 1] = 7.0  # map 1, prior 2, dy
    rows = reference.run(model.graph, weights, np.zeros((1, 64, 64, 3), np.float32))["boxes"][0]
    first = model.decoding.maps[0][0] * model.decoding.maps[0][1] * 6
    places = model.decoding.maps[1][0] * model.decoding.maps[1][1]
    expected = np.zeros_like(rows)
    expected[first + 2 : first + places * 6 : 6, 1] = 7.0
    assert np.array_equal(rows, expected)


def test_first_biases() -> None:
    model = mobilenet.create("mobilenet_v2", head="yolo", classes=2, resolution=96, width_multiplier=0.35)
    for number, places in enumerate((144, 36, 9)):  # one object of each class a map
        chance = 1 / (1 + np.exp(-model.weights[f"detect.{number}.scores.predict.bias"]))
        assert np.allclose(chance * places, places / (places + 1), atol=1e-4)
    assert (model.weights["detect.2.boxes.predict.bias"] == 1).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"head": "ssdlite", "classes": 1}, "classes 1: this head needs 2"),
        ({"head": "ssdlite", "output_stride": 16}, "needs output_stride 32"),
        ({"head": "ssd", "head_options": {"kernel": 2}}, "'kernel' is 1, 3 or 5, not 2"),
        ({"head": "ssd", "head_options": {"extras": (0,)}}, "'extras' is up to 8"),
        ({"head": "yolo", "head_options": {"kernel": 4}}, "'kernel' is odd"),
        ({"head": "yolo", "head_options": {"depth": 0}}, "'depth' is a whole number above 0"),
        ({"head": "ssd", "head_options": {"score_threshold": 2.0}}, "score_threshold is a number from 0 to 1"),
        ({"head": "yolov9"}, "unknown head 'yolov9'; did you mean 'yolo'"),
    ],
)
def test_what_is_refused(words: dict[str, object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        mobilenet.create("mobilenet_v2", **{"classes": 4, "resolution": 96, **words})  # type: ignore[arg-type]

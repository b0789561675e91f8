"""`Decoding`: its checks, its place in the model file, and that it fits the graph."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mobilenet
from mobilenet.errors import ArgumentError, GraphError, ModelFileError
from mobilenet.family.decoding import Decoding, feature_maps
from mobilenet.files.model_file import KEY, read_model_file
from mobilenet.model import Model

SSD = Decoding("ssd", ((2, 3), (1, 1)), (((0.2, 0.3), (0.4, 0.1)), ((0.9, 0.9),)))


def small(**words: Any) -> Model:
    return mobilenet.create(
        "mobilenet_v1", **{"head": "ssdlite", "classes": 4, "resolution": 64, "width_multiplier": 0.25, **words}
    )


def test_priors_are_the_places_of_maps_in_order() -> None:
    assert SSD.prior_count == 13 == len(SSD.priors)
    assert SSD.priors[0].tolist() == pytest.approx([1 / 6, 1 / 4, 0.2, 0.3])
    assert SSD.priors[3].tolist() == pytest.approx([3 / 6, 1 / 4, 0.4, 0.1])
    assert SSD.priors[6].tolist() == pytest.approx([1 / 6, 3 / 4, 0.2, 0.3])
    assert SSD.priors[-1].tolist() == [0.5, 0.5, 0.9, 0.9]
    assert not SSD.priors.flags.writeable


def test_an_anchor_free_prior_is_its_cell() -> None:
    cells = Decoding("yolo", ((2, 4),), scores="sigmoid", background=False).priors
    assert cells[5].tolist() == [3 / 8, 3 / 4, 1 / 4, 1 / 2]


def test_it_survives_json() -> None:
    assert Decoding.from_dict(json.loads(json.dumps(SSD.to_dict()))) == SSD


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "rcnn"}, "kind is one of ssd, yolo"),
        ({"scores": None}, "scores is one of"),
        ({"maps": ()}, "maps is empty"),
        ({"maps": ((2, 3),)}, "2 lists of sizes do not fit 1 maps"),
        ({"maps": ((0, 3), (1, 1))}, "maps is a whole number from 1 to 4096, not 0"),
        ({"maps": ((2, 3, 4), (1, 1))}, "maps is a list of at most 2"),
        ({"maps": ((4096, 4096), (1, 1))}, "priors; at most"),
        ({"sizes": (((0.2, 0.3),), ())}, "map 1 has no sizes"),
        ({"sizes": (((float("nan"), 1.0),), ((1.0, 1.0),))}, "sizes is a number from"),
        ({"variances": (0.1, 0.1, 0.2)}, "variances is 4 numbers"),
        ({"variances": (0.1, 0.1, 0.2, "x")}, "variances is a number"),
        ({"score_threshold": -0.1}, "score_threshold is a number from 0 to 1"),
        ({"candidates": 0}, "candidates is a whole number from 1"),
        ({"detections": True}, "detections is a whole number"),
        ({"agnostic": 1}, "agnostic is true or false"),
    ],
)
def test_bad_values_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        replace(SSD, **changes)
    with pytest.raises(ModelFileError, match=message):
        Decoding.from_dict(SSD.to_dict() | changes)


def test_unknown_and_missing_fields_are_named() -> None:
    with pytest.raises(ModelFileError, match="unknown field 'anchors'"):
        Decoding.from_dict(SSD.to_dict() | {"anchors": []})
    with pytest.raises(ModelFileError, match="lacks the field 'kind'"):
        Decoding.from_dict({k: v for k, v in SSD.to_dict().items() if k != "kind"})
    with pytest.raises(ModelFileError, match="not list"):
        Decoding.from_dict([])


def test_it_travels_in_the_model_file(tmp_path: Path) -> None:
    model, path = small(), tmp_path / "detector.safetensors"
    model.labels = ("a", "b", "c")
    model.save(path)
    loaded = mobilenet.load(path)
    assert (loaded.task, loaded.decoding, loaded.names) == ("detect", model.decoding, ("a", "b", "c"))
    loaded.verify()
    assert read_model_file(path).decoding == model.decoding
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    assert np.array_equal(loaded.predict(picture).boxes.xyxy, model.predict(picture).boxes.xyxy)


def test_a_classifier_has_no_such_field(tmp_path: Path) -> None:
    path = tmp_path / "classifier.safetensors"
    mobilenet.create("mobilenet_v1", classes=3, resolution=64, width_multiplier=0.25).save(path)
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert "decoding" not in json.loads(header["__metadata__"][KEY])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: setattr(m, "decoding", None), "task 'detect' has no decoding"),
        (lambda m: setattr(m, "task", "features"), "task 'features' has a decoding"),
        (lambda m: setattr(m, "labels", ("a", "b")), "2 labels do not name the 3 classes"),
        (lambda m: setattr(m, "decoding", SSD), "but the decoding has 13 priors"),
    ],
)
def test_parts_that_do_not_fit_are_not_written(tmp_path: Path, change: Any, message: str) -> None:
    model = small()
    change(model)
    model.checks = mobilenet.model.make_checks(small())
    with pytest.raises(ModelFileError, match=message):
        model.save(tmp_path / "bad.safetensors")


def test_a_graph_without_maps_is_refused() -> None:
    with pytest.raises(GraphError, match="no output 'boxes'"):
        feature_maps(mobilenet.create("mobilenet_v1", resolution=64, width_multiplier=0.25).graph)

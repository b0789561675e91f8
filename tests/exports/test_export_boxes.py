"""Files that give boxes: the runtime's own suppression beside ours, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mobilenet
from mobilenet.errors import ArgumentError, ModelFileError, UnsupportedOperatorError
from mobilenet.exports import Options, export
from mobilenet.exports.export import onnx_bytes, tflite_bytes
from mobilenet.exports.prepare import exported, source_of
from mobilenet.exports.prove import cases, prove, run_onnx, run_tflite
from mobilenet.exports.prove_boxes import BoxProof, as_tflite, prove_boxes, rows_of, same_boxes, with_area
from mobilenet.model import Model
from mobilenet.quantise.random import random_quantised_model
from mobilenet.tasks.detect import Found, decoded

pytest.importorskip("onnx", reason="needs mobilenet[export]")
pytest.importorskip("onnxruntime", reason="needs mobilenet[export] and onnxruntime")
pytest.importorskip("ai_edge_litert", reason="needs mobilenet[export]")

WRITERS: dict[str, Any] = {"onnx": onnx_bytes, "tflite": tflite_bytes}
TFLITE = ("boxes", "classes", "scores", "count")
NMS = Options(nms=True)


@pytest.fixture(scope="module")
def detectors() -> dict[str, Model]:
    """Small detectors in floats ("ssdlite", "yolo") and in integers ("ssdlite int8", "yolo int8")."""
    found = {}
    for head, classes in (("ssdlite", 4), ("yolo", 3)):
        words = {"head": head, "classes": classes, "resolution": 96, "width_multiplier": 0.35, "pictures": 2}
        pair = random_quantised_model("mobilenet_v3_small", **words)
        for name, model in zip((head, f"{head} int8"), pair, strict=True):
            found[name] = Model.of(replace(model, labels=("a", "b", "c")))
    return found


def other(model: Model, **changes: Any) -> Model:
    """The model with other thresholds."""
    assert model.decoding is not None
    return Model.of(replace(model, decoding=replace(model.decoding, **changes)))


def inputs(count: int = 2) -> np.ndarray:
    return np.random.default_rng(3).uniform(-1, 1, (count, 96, 96, 3)).astype(np.float32)


def file_of(model: Model, to: str, options: Options = NMS) -> bytes:
    return bytes(WRITERS[to](exported(source_of(model, options), options), options))


def found_in(data: bytes, to: str, batch: np.ndarray) -> list[Found]:
    """Each picture's boxes as the runtime gives them."""
    names = ["boxes", "scores", "classes"]
    outputs = run_onnx(data, batch, names) if to == "onnx" else run_tflite(data, batch, list(TFLITE))
    return [rows_of({name: array[n] for name, array in outputs.items()}, to, 96, 96) for n in range(len(batch))]


def own(model: Model, batch: np.ndarray) -> list[Found]:
    """The same by the model itself, as shares of the input's sides."""
    assert model.decoding is not None
    outputs = model.run(batch)
    return [
        decoded({name: array[n] for name, array in outputs.items()}, model.decoding, 1, 1)
        for n in range(len(batch))
    ]


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("head", ["ssdlite", "yolo"])
def test_onnx_gives_the_models_boxes(head: str, agnostic: bool, detectors: dict[str, Model]) -> None:
    model = other(detectors[head], agnostic=agnostic)
    data = file_of(model, "onnx", Options(nms=True, batch=None))
    pictures = inputs(3)
    for one, two in zip(own(model, pictures), found_in(data, "onnx", pictures), strict=True):
        if agnostic:  # where a box outside of the picture may stand for several classes
            one, two = with_area(one), with_area(two)
        assert len(one.scores) == len(two.scores) > 20 and len(set(two.classes.tolist())) > 1
        assert same_boxes(one, two) >= 0.98 * len(one.scores)
        assert (np.diff(two.scores) <= 0).all()
        assert two.boxes.min() >= 0 and two.boxes.max() <= 1


@pytest.mark.parametrize("changes", [{}, {"agnostic": True}, {"scores": "sigmoid"}, {"score_threshold": 0.3}])
def test_tflite_gives_boxes_as_its_operator_means_them(
    changes: dict[str, Any], detectors: dict[str, Model]
) -> None:
    model = other(detectors["ssdlite"], **changes)
    assert model.decoding is not None
    data, picture = file_of(model, "tflite"), inputs(1)
    (found,) = found_in(data, "tflite", picture)
    raw = {name: array[0] for name, array in model.run(picture).items()}
    expected = as_tflite(raw, model.decoding)
    assert len(found.scores) == len(expected.scores) > 20
    assert same_boxes(expected, found) >= 0.98 * len(found.scores)
    cut = found._replace(boxes=found.boxes.clip(0, 1))
    assert same_boxes(own(model, picture)[0], cut) >= 0.7 * len(found.scores)  # many of these lie at borders


def test_the_rows_of_an_onnx_file(detectors: dict[str, Model]) -> None:
    """Pixels of the input; rows that are not needed are marked, also if there are no boxes at all."""
    model = detectors["ssdlite"]
    picture = inputs(1)
    scores = own(model, picture)[0].scores
    few = other(model, score_threshold=float(scores[9]))
    outputs = run_onnx(file_of(few, "onnx"), picture, ["boxes", "scores", "classes"])
    assert outputs["boxes"].shape == (1, 300, 4) and outputs["boxes"].dtype == np.float32
    assert outputs["classes"].dtype == np.int64 and outputs["scores"].shape == (1, 300)
    assert (outputs["classes"][0] >= 0).tolist() == [True] * 9 + [False] * 291
    assert not outputs["boxes"][0, 9:].any() and not outputs["scores"][0, 9:].any()
    expected = own(few, picture)[0].boxes * 96
    assert np.abs(outputs["boxes"][0, :9] - expected).max() < 0.01
    nothing = run_onnx(file_of(other(model, score_threshold=1.0), "onnx"), picture, ["boxes", "scores", "classes"])
    assert (nothing["classes"] == -1).all() and not nothing["scores"].any()


def test_the_rows_of_a_tflite_file(detectors: dict[str, Model]) -> None:
    """In the operator's own order: (top, left, bottom, right), classes, scores, and how many there are."""
    model = other(detectors["ssdlite"], detections=20)
    outputs = run_tflite(file_of(model, "tflite"), inputs(1), list(TFLITE))
    shapes = {name: array.shape for name, array in outputs.items()}
    assert shapes == {"boxes": (1, 20, 4), "classes": (1, 20), "scores": (1, 20), "count": (1,)}
    assert outputs["count"][0] == 20 and (np.diff(outputs["scores"][0]) <= 0).all()
    assert model.decoding is not None
    raw = {name: array[0] for name, array in model.run(inputs(1)).items()}
    left, top, right, bottom = as_tflite(raw, model.decoding).boxes[0]
    assert outputs["boxes"][0, 0].tolist() == pytest.approx([top, left, bottom, right], abs=1e-4)


def test_only_the_candidates_of_a_class_are_looked_at_in_onnx(detectors: dict[str, Model]) -> None:
    model = other(detectors["ssdlite"], candidates=4, iou_threshold=0.1)
    (one,), (two,) = own(model, inputs(1)), found_in(file_of(model, "onnx"), "onnx", inputs(1))
    assert same_boxes(one, two) == len(one.scores) == len(two.scores) <= 12
    assert len(own(other(model, candidates=300), inputs(1))[0].scores) > len(one.scores)


@pytest.mark.parametrize("name", ["ssdlite int8", "yolo int8"])
@pytest.mark.parametrize("to", ["onnx", "tflite"])
def test_integers_and_pixels(name: str, to: str, detectors: dict[str, Model], tmp_path: Path) -> None:
    if name.startswith("yolo") and to == "tflite":
        pytest.skip("the operator does not take these boxes: tested below")
    options = Options(nms=True, picture_input=True, resolution=64)
    done = export(detectors[name], tmp_path / f"m.{to}", to=to, options=options)
    assert isinstance(done.proof, BoxProof) and done.proof.integer
    assert done.proof.boxes > 100 and done.proof.same >= 0.98
    assert "boxes" in str(done.proof) and ("the model's own" in str(done.proof)) == (to == "tflite")


@pytest.mark.parametrize("to", ["onnx", "tflite"])
def test_a_file_with_other_boxes_does_not_pass(to: str, detectors: dict[str, Model]) -> None:
    model = detectors["ssdlite"]
    network = exported(source_of(model, NMS), NMS)
    tested = cases(source_of(model, NMS), network)
    raw = WRITERS[to](network, Options())
    proof = prove(raw, to, tested, batch=1)
    assert model.decoding is not None
    prove_boxes(WRITERS[to](network, NMS), raw, to, tested, proof, model.decoding, 1)
    for changes in ({"iou_threshold": 0.3}, {"variances": (0.1, 0.1, 0.1, 0.2)}, {"score_threshold": 0.9}):
        wrong = replace(network, decoding=replace(model.decoding, **changes))
        with pytest.raises(ModelFileError, match="boxes are those of the raw outputs"):
            prove_boxes(WRITERS[to](wrong, NMS), raw, to, tested, proof, model.decoding, 1)


def test_nothing_is_counted_twice() -> None:
    """One box of two equal ones stands for one."""
    box = np.array([[0, 0, 0.5, 0.5]], np.float32)
    one = Found(box.repeat(2, 0), np.ones(2, np.float32), np.zeros(2, np.int64))
    two = Found(box, np.ones(1, np.float32), np.zeros(1, np.int64))
    none = Found(box[:0], np.ones(0, np.float32), np.zeros(0, np.int64))
    assert (same_boxes(one, one), same_boxes(one, two), same_boxes(two, one)) == (2, 1, 1)
    assert same_boxes(one, none) == same_boxes(none, one) == 0
    for changed in (two._replace(boxes=box + 0.01), two._replace(classes=two.classes + 1)):
        assert same_boxes(two, changed) == 0


@pytest.mark.parametrize(
    ("name", "to", "options", "said"),
    [
        ("yolo", "tflite", NMS, "not those of a 'yolo' head"),
        ("ssdlite", "tflite", Options(nms=True, batch=2), "one picture at a time"),
        ("ssdlite", "c", NMS, "files for onnx and tflite, not c"),
        ("", "onnx", NMS, "this model's task is 'classify'"),
    ],
)
def test_what_cannot_be_is_refused(
    name: str, to: str, options: Options, said: str, detectors: dict[str, Model], tmp_path: Path
) -> None:
    model = detectors[name] if name else mobilenet.create("mobilenet_v2", resolution=64, width_multiplier=0.35)
    with pytest.raises(ArgumentError, match=said):
        export(model, tmp_path / "m.file", to=to, options=options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", ["onnx", "tflite"])
def test_such_a_file_says_what_it_is_and_is_not_read_back(
    to: str, detectors: dict[str, Model], tmp_path: Path
) -> None:
    path = tmp_path / f"m.{to}"
    export(detectors["ssdlite"], path, to=to, options=NMS)
    named = {"onnx": "NonMaxSuppression", "tflite": "TFLite_Detection_PostProcess"}[to]
    with pytest.raises(UnsupportedOperatorError, match=named):
        mobilenet.load(path)
    if to == "onnx":
        import onnx

        model = onnx.load(path)
        said = json.loads({entry.key: entry.value for entry in model.metadata_props}["mobilenet"])
        assert said["outputs"] == [output.name for output in model.graph.output] == ["boxes", "scores", "classes"]
        assert said["labels"] == ["a", "b", "c"] and said["decoding"]["kind"] == "ssd"
    else:
        from ai_edge_litert.interpreter import Interpreter

        runner = Interpreter(str(path)).get_signature_runner("serving_default")
        assert sorted(runner.get_output_details()) == sorted(TFLITE)

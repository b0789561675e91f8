"""TFLite Metadata as the tools that read it find it: by the schema's numbers, and with zipfile."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mobilenet
from mobilenet.exports import Options, export
from mobilenet.files.flatbuffer import Table, root_table
from mobilenet.files.tflite_schema import parse_tflite
from mobilenet.model import Model

Interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="needs mobilenet[export]").Interpreter


@pytest.fixture
def exported(models: dict[str, Model], tmp_path: Path) -> Path:
    path = tmp_path / "m.tflite"
    export(models["fp32"], path, to="tflite")
    return path


def metadata(path: Path) -> Table:
    entry = parse_tflite(memoryview(path.read_bytes())).metadata["TFLITE_METADATA"]
    return root_table(memoryview(entry.tobytes()), b"M001")


def test_labels_are_packed_behind_the_model_and_named_by_the_output(
    exported: Path, models: dict[str, Model]
) -> None:
    (subgraph,) = metadata(exported).tables(3, "subgraphs")
    (output,) = subgraph.tables(3, "outputs")
    (file,) = output.tables(6, "files")
    assert (output.text(0), file.text(0), file.number(2, "int8")) == ("logits", "labels.txt", 2)
    with zipfile.ZipFile(io.BytesIO(exported.read_bytes())) as archive:
        assert archive.testzip() is None
        assert archive.getinfo("labels.txt").compress_type == zipfile.ZIP_STORED
        assert archive.read("labels.txt").decode().splitlines() == list(models["fp32"].labels)


def test_the_input_says_what_pictures_go_through(exported: Path) -> None:
    root = metadata(exported)
    assert (root.text(5), root.text(7)) == ("Apache-2.0", "1.0.0")
    (picture,) = root.tables(3, "subgraphs")[0].tables(2, "inputs")
    content = picture.table(3)
    assert content is not None and content.number(0, "uint8") == 2  # ImageProperties
    image = content.table(1)
    assert image is not None and image.number(0, "int8") == 1  # RGB
    size = image.table(1)
    assert size is not None and (size.number(0, "uint32"), size.number(1, "uint32")) == (64, 64)
    (unit,) = picture.tables(4, "process units")
    values = unit.table(1)
    assert unit.number(0, "uint8") == 1 and values is not None  # NormalizationOptions
    assert values.vector(0, "float32").tolist() == [127.5] * 3 == values.vector(1, "float32").tolist()
    stats = picture.table(5)
    assert stats is not None
    assert (stats.vector(0, "float32").tolist(), stats.vector(1, "float32").tolist()) == ([1.0] * 3, [-1.0] * 3)


def test_a_file_that_takes_pixels_says_so(models: dict[str, Model], tmp_path: Path) -> None:
    export(models["fp32"], tmp_path / "m.tflite", to="tflite", options=Options(picture_input=True))
    again = mobilenet.load(tmp_path / "m.tflite")
    assert again.input.dtype == "uint8" and again.preprocessing is not None
    assert (again.preprocessing.mean, again.preprocessing.std) == ((0.0,) * 3, (1.0,) * 3)
    picture = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    first, second = models["fp32"].predict(picture), again.predict(picture)
    assert np.abs(first.probs.data - second.probs.data).max() < 1e-4 and first.label == second.label


def test_an_integer_file_that_takes_pixels_takes_uint8(models: dict[str, Model], tmp_path: Path) -> None:
    for picture_input, dtype in ((False, np.int8), (True, np.uint8)):
        export(models["int8"], tmp_path / "m.tflite", to="tflite", options=Options(picture_input=picture_input))
        (place,) = Interpreter(str(tmp_path / "m.tflite")).get_input_details()
        assert place["dtype"] == dtype
    again = mobilenet.load(tmp_path / "m.tflite")
    picture = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    assert np.array_equal(again.predict(picture).probs.data, models["int8"].predict(picture).probs.data)


def test_labels_that_a_text_file_cannot_hold_come_back_whole(models: dict[str, Model], tmp_path: Path) -> None:
    labels = ("", "two\nlines", " spaces  inside ", "ünïcode 🦉", *models["fp32"].labels[4:])
    model = Model.of(replace(models["fp32"], labels=labels))
    export(model, tmp_path / "m.tflite", to="tflite")
    assert mobilenet.load(tmp_path / "m.tflite").labels == labels
    with zipfile.ZipFile(tmp_path / "m.tflite") as archive:
        lines = archive.read("labels.txt").decode().splitlines()
    assert lines[:4] == ["class 0", "two lines", "spaces inside", "ünïcode 🦉"]


def test_a_model_without_labels_has_no_archive(tmp_path: Path) -> None:
    export(mobilenet.create("mobilenet_v2", width_multiplier=0.35, resolution=64), tmp_path / "m", to="tflite")
    assert not zipfile.is_zipfile(tmp_path / "m")


def test_boxes_are_described_as_object_detectors_are(tmp_path: Path) -> None:
    model = mobilenet.create("mobilenet_v2", head="ssdlite", classes=3, resolution=96, width_multiplier=0.35)
    model.labels = ("cat", "dog")
    export(model, tmp_path / "m.tflite", to="tflite", options=Options(nms=True))
    root = metadata(tmp_path / "m.tflite")
    (subgraph,) = root.tables(3, "subgraphs")
    outputs = subgraph.tables(3, "outputs")
    names = ["location", "category", "score", "number of detections"]
    assert ([output.text(0) for output in outputs], root.text(7)) == (names, "1.2.0")
    contents = [output.table(3) for output in outputs]
    assert [content and content.number(0, "uint8") for content in contents] == [3, 1, 1, 1]  # boxes, features
    location, category = contents[0], outputs[1]
    assert location is not None
    boxes, span = location.table(1), location.table(2)
    assert boxes is not None and boxes.vector(0, "uint32").tolist() == [1, 0, 3, 2]  # top, left, bottom, right
    assert (boxes.number(1, "int8"), boxes.number(2, "int8")) == (1, 0)  # boundaries, as shares
    assert span is not None and (span.number(0, "int32"), span.number(1, "int32")) == (2, 2)
    (file,) = category.tables(6, "files")
    assert (file.text(0), file.number(2, "int8")) == ("labels.txt", 3)  # a label for each value
    (group,) = subgraph.tables(8, "groups")
    assert group.text(0) == "detection_result"

"""Evaluating a detector on a data set, and what the command line prints of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import mobilenet
from mobilenet.cli import app
from mobilenet.errors import ArgumentError, DataError
from mobilenet.model import Model

pytest.importorskip(
    "faster_coco_eval", reason="faster-coco-eval is not installed: pip install 'mobilenet[detect]'"
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Pictures with one box each: the middle half, which the model below finds whatever it sees."""
    images, notes = [], []
    for number in range(4):
        Image.fromarray(np.full((80, 120, 3), 60 * number, np.uint8)).save(tmp_path / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 80, "width": 120})
        notes.append({"id": number, "image_id": number, "category_id": 1, "bbox": [30, 20, 60, 40]})
    content = {"images": images, "annotations": notes, "categories": [{"id": 1, "name": "thing"}]}
    (tmp_path / "test.json").write_text(json.dumps(content))
    return tmp_path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """All predictors are silent but the one of the last map's prior, whose box is the middle half."""
    made = mobilenet.create("mobilenet_v1", head="ssd", classes=2, resolution=64, width_multiplier=0.25)
    assert made.decoding is not None
    silent = {key: np.zeros_like(a) for key, a in made.weights.items() if key.startswith("detect.")}
    for key in silent:
        if key.endswith("scores.predict.bias"):
            silent[key][0::2] = 20.0  # background
    last = len(made.decoding.maps) - 1
    silent[f"detect.{last}.scores.predict.bias"][:2] = 0.0, 20.0
    size = made.decoding.sizes[last][0]
    silent[f"detect.{last}.boxes.predict.bias"][2:4] = np.log(0.5 / np.array(size)) / 0.2
    made.weights = {**made.weights, **silent}
    path = tmp_path / "model.safetensors"
    made.save(path)
    return path


def test_what_it_finds_is_measured(data: Path, model: Path) -> None:
    done: list[tuple[int, int]] = []
    metrics = mobilenet.load(model).evaluate(data, on_progress=lambda *at: done.append(at))
    assert (metrics["images"], metrics["objects"], metrics["skipped"]) == (4, 4, 0)
    assert metrics["ap"] == metrics["ap50"] == pytest.approx(1.0) and metrics["ap_small"] is None
    assert metrics["per_class"]["thing"]["objects"] == 4 and done[-1] == (4, 4)


def test_the_command_line(data: Path, model: Path) -> None:
    runner = CliRunner()
    shown = runner.invoke(app, ["evaluate", str(model), str(data)])
    assert (
        shown.exit_code == 0 and "AP50 1.0000" in shown.output and "4 objects in 4 pictures (test)" in shown.output
    )
    values = json.loads(runner.invoke(app, ["evaluate", str(model), str(data), "--json"]).output)
    assert values["ap75"] == pytest.approx(1.0)
    picture = str(data / "0.png")
    assert f"{picture}: 1 0" in runner.invoke(app, ["predict", str(model), picture]).output
    row = runner.invoke(app, ["predict", str(model), picture, "--csv"]).output.splitlines()[1].split(",")
    assert [float(value) for value in row[3:]] == pytest.approx([30, 20, 90, 60], abs=0.02)
    line = json.loads(runner.invoke(app, ["predict", str(model), picture, "--json"]).output)
    assert line["boxes"][0]["xyxy"] == pytest.approx([30, 20, 90, 60], abs=0.02)
    saved = runner.invoke(app, ["predict", str(model), picture, "--save", str(data / "plots")])
    assert saved.exit_code == 0 and Image.open(data / "plots" / "0.png").size == (120, 80)


def test_a_report_is_written_and_named(data: Path, model: Path) -> None:
    target = data / "r.html"
    words = ["evaluate", str(model), str(data), "--report", str(target)]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0 and f"report: {target}" in shown.output.replace("\n", "").replace(
        "report:/", "report: /"
    )
    text = target.read_text("utf-8")
    assert "4 of 4 objects are found, and 4 of 4 boxes are right" in text
    assert "<img" not in text and "There are none" in text
    json.loads(CliRunner().invoke(app, [*words, "--json"]).output)


def test_what_is_wrong_is_said(data: Path, model: Path) -> None:
    loaded = mobilenet.load(model)
    with pytest.raises(DataError, match="has no split 'val'; it has test, all"):
        loaded.evaluate(data, split="val")
    with pytest.raises(ArgumentError, match=r"no/r\.html: cannot be written: there is no folder no"):
        loaded.evaluate(
            data, report="no/r.html", on_progress=lambda *_: pytest.fail("it is measured all the same")
        )
    with pytest.raises(ArgumentError, match="is a folder"):
        loaded.evaluate(data, report=data)
    with pytest.raises(ArgumentError, match="stop or skip"):
        loaded.evaluate(data, on_bad_picture="maybe")
    other = Model.of(mobilenet.create("mobilenet_v1", head="ssd", classes=4, resolution=64, width_multiplier=0.25))
    with pytest.raises(ArgumentError, match="finds 3 classes, the data have 1"):
        other.evaluate(data)
    (data / "1.png").write_bytes((data / "1.png").read_bytes()[:60])  # its header is whole
    with pytest.raises(DataError, match=r"1\.png.*on_bad_picture=skip"):
        loaded.evaluate(data)
    assert loaded.evaluate(data, on_bad_picture="skip")["skipped"] == 1

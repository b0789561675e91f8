"""Detectors as other runtimes' files: checked there, and read back with all that their boxes need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mobilenet
from mobilenet.exports.export import export
from mobilenet.exports.prepare import Options

FORMATS = {"onnx": ("onnx", "onnxruntime"), "tflite": ("ai_edge_litert", "flatbuffers")}


@pytest.fixture(params=list(FORMATS))
def to(request: pytest.FixtureRequest) -> str:
    """A format whose packages are installed."""
    for module in FORMATS[request.param]:
        pytest.importorskip(module, reason=f"{module} is not installed: pip install 'mobilenet[export]'")
    return str(request.param)


def detector(head: str) -> Any:
    model = mobilenet.create("mobilenet_v3_small", head=head, classes=4, resolution=96, width_multiplier=0.35)
    model.labels = ("a", "b", "c") if head == "ssdlite" else ("a", "b", "c", "d")
    return model


@pytest.mark.parametrize("head", ["ssdlite", "yolo"])
def test_a_file_is_checked_where_it_runs(tmp_path: Path, head: str, to: str) -> None:
    done = export(detector(head), str(tmp_path / f"model.{to}"), to=to)
    assert "checked with" in str(done.proof)


def test_what_is_read_back_finds_the_same(tmp_path: Path, to: str) -> None:
    model, path = detector("ssdlite"), tmp_path / f"model.{to}"
    export(model, str(path), to=to)
    back = mobilenet.load(path)
    assert (back.task, back.decoding, back.names) == ("detect", model.decoding, model.names)
    picture = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    ours, theirs = model.predict(picture).boxes, back.predict(picture).boxes
    assert np.allclose(ours.conf, theirs.conf, atol=1e-5)


def test_another_resolution_has_its_own_priors(tmp_path: Path, to: str) -> None:
    path = tmp_path / f"model.{to}"
    export(detector("ssdlite"), str(path), to=to, options=Options(resolution=128))
    back = mobilenet.load(path)
    assert back.decoding is not None and back.decoding.maps[0] == (8, 8)
    back.validate()

"""What was exported to ONNX or .tflite is read as the same network, with all that it said."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import mobilenet
from mobilenet.exports import Options
from mobilenet.exports.export import onnx_bytes, tflite_bytes
from mobilenet.exports.prepare import exported, source_of
from mobilenet.files.contents import ModelContents
from mobilenet.graph.graph import Graph, Node
from mobilenet.graph.ops import ArgMax
from mobilenet.model import Model
from mobilenet.quantise.random import random_quantised_model
from mobilenet.run.reference import run

pytest.importorskip("ai_edge_litert", reason="needs mobilenet[export]")
SCRIPT = Path(__file__).resolve().parents[2] / "bench" / "export_parity.py"
FORMATS = ("onnx", "tflite")
NAMES = (
    "mobilenet_v1", "mobilenet_v2", "mobilenetv3_large_100", "mobilenet_v3_large_rw", "mobilenet_v3_small",
    "mobilenet_edgetpu", "mobilenet_multi_avg", "mobilenet_v4_conv_small", "mobilenetv4_conv_blur_medium",
    "mobilenet_v4_hybrid_medium", "mobilefacenet",
)  # fmt: skip
HEADS: list[tuple[str, dict[str, Any]]] = [
    ("ssdlite320_mobilenet_v3_small", {"classes": 4}),
    ("mobilenet_v1", {"head": "ssd_tf", "classes": 3}),
    ("mobilenet_v4_conv_small", {"head": "yolo", "classes": 3}),
    ("lraspp_mobilenet_v3_small", {"classes": 5}),
    ("mobilenet_v2", {"head": "deeplabv3", "classes": 5}),
    ("mobilenet_v2", {"head": "deeplabv3plus", "classes": 5}),
]


@pytest.fixture(scope="module")
def parity() -> ModuleType:
    if not SCRIPT.exists():
        pytest.skip("an installed package has no bench programs")
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason="needs mobilenet[export] and onnxruntime")
    specification = importlib.util.spec_from_file_location("bench_export_parity", SCRIPT)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


def there_and_back(model: ModelContents, folder: Path, to: str) -> tuple[ModelContents, Model]:
    """What went into the file, and what is read from it; whether the runtimes agree is tested elsewhere."""
    source = exported(source_of(model, Options()), Options())
    path = folder / f"m.{to}"
    path.write_bytes({"onnx": onnx_bytes, "tflite": tflite_bytes}[to](source, Options()))
    return source, mobilenet.load(path)


@pytest.mark.parametrize("name", NAMES)
def test_a_float_network_comes_back_the_same(name: str, tmp_path: Path, parity: ModuleType) -> None:
    words = {"resolution": 112} if "face" in name else {"resolution": 64}
    narrow = {} if "face" in name or name[-1].isdigit() else {"width_multiplier": 0.35}
    model = mobilenet.create(name, **words, **narrow)
    picture = np.random.default_rng(0).standard_normal((1, *model.input.shape)).astype(np.float32)
    answers = run(model.graph, model.weights, picture)
    for to in FORMATS:
        written, again = there_and_back(model, tmp_path, to)
        assert parity.same_network(written, again), to
        outputs = model.graph.outputs if to == "tflite" else written.graph.outputs
        assert list(again.graph.outputs) == list(outputs) and again.task == model.task
        assert again.preprocessing == model.preprocessing
        found = run(again.graph, again.weights, picture)
        for output in outputs:
            assert np.abs(found[output] - answers[output]).max() <= 1e-5 * np.abs(answers[output]).max()


@pytest.mark.parametrize("to", FORMATS)
def test_a_quantised_network_comes_back_with_what_it_said(
    models: dict[str, Model], to: str, tmp_path: Path, parity: ModuleType
) -> None:
    written, again = there_and_back(models["int8"], tmp_path, to)
    assert parity.same_network(written, again)
    for field in ("labels", "licence", "calibration", "metrics", "preprocessing", "task"):
        assert getattr(again, field) == getattr(models["int8"], field), field


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "mobilenet_v4_hybrid_medium", "mobilefacenet"])
def test_integers_of_every_operator_come_back_the_same(name: str, tmp_path: Path, parity: ModuleType) -> None:
    words = {} if "face" in name else {"width_multiplier": 0.35, "resolution": 64}
    _, model = random_quantised_model(name, pictures=1, **words)
    for to in FORMATS:
        written, again = there_and_back(model, tmp_path, to)
        assert parity.same_network(written, again), to


@pytest.mark.parametrize(("name", "words"), HEADS)
def test_heads_come_back_the_same_in_floats_and_integers(
    name: str, words: dict[str, Any], tmp_path: Path, parity: ModuleType
) -> None:
    """A pyramid's and a segmenter's resizes, and the concatenation of integers of several scales."""
    for model in random_quantised_model(name, pictures=1, resolution=64, width_multiplier=0.35, **words):
        for to in FORMATS:
            written, again = there_and_back(model, tmp_path, to)
            assert parity.same_network(written, again), to
            assert (again.task, again.decoding) == (model.task, model.decoding)
            assert list(again.graph.outputs) == list(model.graph.outputs)


@pytest.mark.parametrize("to", FORMATS)
def test_classes_of_pixels_come_back_with_their_scores(to: str, tmp_path: Path, parity: ModuleType) -> None:
    model = mobilenet.create("lraspp_mobilenet_v3_small", classes=5, resolution=64, width_multiplier=0.35)
    pixels = Node("pixels", ArgMax(), (model.graph.outputs["logits"],), "int64")
    ends = {"classes": "pixels", "logits": model.graph.outputs["logits"]}
    graph = Graph(model.graph.inputs, (*model.graph.nodes, pixels), ends)
    written, again = there_and_back(replace(model, graph=graph, labels=()), tmp_path, to)
    assert list(written.graph.outputs) == ["classes"]
    assert parity.same_network(written, again) and again.graph.outputs.keys() == ends.keys()
    picture = np.random.default_rng(0).standard_normal((1, 64, 64, 3)).astype(np.float32)
    expected = run(graph, model.weights, picture)
    answers = run(again.graph, again.weights, picture)
    assert answers["classes"].dtype == np.int64 and (answers["classes"] == expected["classes"]).mean() > 0.999


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v1_0.25_128_quant",
        "mobilenet_v1_0.5_160_quant",
        "mobilenet_v1_0.75_192_quant",
        "mobilenet_v2_1.0_224_quant",
        "tf2_mobilenet_v2_1.0_224_ptq",
        "deeplabv3_mnv2_pascal_quant",
    ],
)
def test_an_official_file_comes_back_the_same(
    name: str, to: str, tmp_path: Path, shared: Path, parity: ModuleType
) -> None:
    model = mobilenet.load(shared / f"weights/coral/{name}.tflite")
    written, again = there_and_back(model, tmp_path, to)
    assert parity.same_network(written, again)
    whole = to == "tflite" or model.task == "segment"  # an ONNX file's classifier is read with its last word alone
    assert again.graph.outputs.keys() == (model if whole else written).graph.outputs.keys()


def test_two_networks_that_differ_are_told_apart(models: dict[str, Model], parity: ModuleType) -> None:
    model = mobilenet.create("mobilenet_v2", resolution=64)
    other = mobilenet.create("mobilenet_v2", resolution=64, seed=1)
    assert parity.same_network(model, model) and not parity.same_network(model, other)
    assert not parity.same_network(model, models["int8"])

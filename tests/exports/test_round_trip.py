"""What was exported to ONNX or .tflite is read as the same network, with all that it said."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import mobilenet
from mobilenet.exports import Options
from mobilenet.exports.export import onnx_bytes, tflite_bytes
from mobilenet.exports.prepare import exported, source_of
from mobilenet.files.contents import ModelContents
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


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("name", NAMES)
def test_a_float_network_comes_back_the_same(name: str, to: str, tmp_path: Path, parity: ModuleType) -> None:
    model = mobilenet.create(name, resolution=112 if "face" in name else 64)
    written, again = there_and_back(model, tmp_path, to)
    assert parity.same_network(written, again)
    outputs = model.graph.outputs if to == "tflite" else written.graph.outputs
    assert list(again.graph.outputs) == list(outputs) and again.task == model.task
    assert again.preprocessing == model.preprocessing
    picture = np.random.default_rng(0).standard_normal((1, *model.input.shape)).astype(np.float32)
    answers = run(again.graph, again.weights, picture)
    for output, expected in run(model.graph, model.weights, picture).items():
        found = answers.get(output, expected)
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("to", FORMATS)
def test_a_quantised_network_comes_back_with_what_it_said(
    models: dict[str, Model], to: str, tmp_path: Path, parity: ModuleType
) -> None:
    written, again = there_and_back(models["int8"], tmp_path, to)
    assert parity.same_network(written, again)
    for field in ("labels", "licence", "calibration", "metrics", "preprocessing", "task"):
        assert getattr(again, field) == getattr(models["int8"], field), field


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("name", ["mobilenet_v3_small", "mobilenet_v4_hybrid_medium", "mobilefacenet"])
def test_integers_of_every_operator_come_back_the_same(
    name: str, to: str, tmp_path: Path, parity: ModuleType
) -> None:
    words = {} if "face" in name else {"width_multiplier": 0.35, "resolution": 64}
    written, again = there_and_back(random_quantised_model(name, pictures=1, **words)[1], tmp_path, to)
    assert parity.same_network(written, again)


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
    if to == "onnx" and "deeplab" in name:
        pytest.skip("the ONNX importer does not read a segmenter's resize and argmax")
    model = mobilenet.load(shared / f"weights/coral/{name}.tflite")
    written, again = there_and_back(model, tmp_path, to)
    assert parity.same_network(written, again)
    assert again.graph.outputs.keys() == (model if to == "tflite" else written).graph.outputs.keys()


def test_two_networks_that_differ_are_told_apart(models: dict[str, Model], parity: ModuleType) -> None:
    model = mobilenet.create("mobilenet_v2", resolution=64)
    other = mobilenet.create("mobilenet_v2", resolution=64, seed=1)
    assert parity.same_network(model, model) and not parity.same_network(model, other)
    assert not parity.same_network(model, models["int8"])

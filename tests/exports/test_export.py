"""Exported files: that other runtimes give the model's answers, and that nothing is written where they do not."""

from __future__ import annotations

import errno
import importlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mobilenet
from mobilenet.errors import ArgumentError, MobilenetError, ModelFileError, UnsupportedOperatorError
from mobilenet.exports import Options, export
from mobilenet.exports.export import default_path
from mobilenet.exports.prepare import parse_batch
from mobilenet.exports.prove import run_onnx, run_tflite
from mobilenet.graph.graph import Graph, Node, TensorType
from mobilenet.graph.ops import AveragePool
from mobilenet.model import Model
from mobilenet.quantise.random import random_quantised_model
from mobilenet.run.quanta import dequantise_array
from mobilenet.run.reference import run

onnx = pytest.importorskip("onnx", reason="needs mobilenet[export]")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is the runtime that checks ONNX files")
interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="needs mobilenet[export]")

TARGETS = ("onnx", "tflite")
RUN = {"onnx": run_onnx, "tflite": run_tflite}


def real_answer(model: Model, batch: np.ndarray, output: str) -> np.ndarray:
    """The reference's, as real numbers."""
    found = run(model.graph, model.weights, batch)[output]
    quantisation = model.graph.types[model.graph.outputs[output]].quantisation
    return found if quantisation is None else dequantise_array(found, quantisation)


@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("picture_input", [False, True])
@pytest.mark.parametrize("batch", [1, 3, None])
def test_a_file_gives_the_models_answer(
    models: dict[str, Model], tmp_path: Path, to: str, precision: str, picture_input: bool, batch: int | None
) -> None:
    model, path = models[precision], tmp_path / f"m.{to}"
    done = export(model, path, to=to, options=Options(batch=batch, picture_input=picture_input))
    assert (
        done.size == path.stat().st_size
        and done.proof.pictures == 10
        and done.proof.integer == (precision == "int8")
    )
    count = batch or 5
    pixels = np.random.default_rng(3).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
    expected = real_answer(model, model.to_input(pixels), "logits")
    given = pixels if picture_input else model.to_input(pixels)
    found = RUN[to](path.read_bytes(), given, ["logits"])["logits"]
    quantisation = model.graph.types[model.graph.outputs["logits"]].quantisation
    tolerance = 1e-4 * np.abs(expected).max() if quantisation is None else 1.01 * quantisation.scale
    assert np.abs(found - expected).max() <= tolerance


@pytest.mark.parametrize("to", TARGETS)
def test_means_of_each_channel_go_into_a_quantised_file(tmp_path: Path, to: str) -> None:
    """ImageNet's means are another number of quanta for each channel, so the file counts in floats first."""
    _, model = random_quantised_model("mobilenetv2_035", resolution=64, classes=250, pictures=2)
    assert model.preprocessing is not None and len(set(model.preprocessing.mean)) == 3
    path = tmp_path / "m"
    export(model, path, to=to, options=Options(picture_input=True))
    pixels = np.random.default_rng(3).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    expected = real_answer(model, model.to_input(pixels), "logits")
    found = RUN[to](path.read_bytes(), pixels, ["logits"])["logits"]
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999


def test_a_quantised_onnx_file_runs_in_onnxruntimes_integer_kernels(
    models: dict[str, Model], tmp_path: Path
) -> None:
    path, optimised = tmp_path / "m.onnx", tmp_path / "optimised.onnx"
    export(models["int8"], path, to="onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(optimised), 3
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(optimised).graph.node]
    convolutions = sum(node.operator.kind in ("conv", "depthwise_conv") for node in models["int8"].graph.nodes)
    assert kinds.count("QLinearConv") == convolutions and "Conv" not in kinds and "Clip" not in kinds


def test_onnx_operators_are_the_runtimes_own(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    export(mobilenet.create("mobilenet_v3_small", resolution=64), path, to="onnx")
    model = onnx.load(path)
    kinds = {node.op_type for node in model.graph.node}
    assert {"HardSwish", "HardSigmoid", "Conv", "Gemm"} <= kinds
    assert not kinds & {"Transpose", "BatchNormalization", "Erf"}
    assert (model.opset_import[0].version, model.ir_version) == (17, 8)


def test_tflite_operators_are_the_runtimes_own(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    export(mobilenet.create("mobilenet_v3_small", resolution=64), path, to="tflite")
    kinds = {call["op_name"] for call in interpreter.Interpreter(path)._get_ops_details()}
    assert {"HARD_SWISH", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"} <= kinds
    assert not kinds & {"TRANSPOSE", "RELU", "RELU6"}


def test_an_onnx_file_carries_labels_and_preprocessing(models: dict[str, Model], tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    export(models["fp32"], path, to="onnx")
    said = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert said["labels"].splitlines() == list(models["fp32"].labels)
    values = json.loads(said["mobilenet"])
    assert values["preprocessing"]["mean"] == [127.5] * 3 and values["task"] == "classify"
    assert values["calibration"] == {"temperature": 1.5} and values["licence"] == "Apache-2.0"


def test_an_integer_model_is_written_in_floats(models: dict[str, Model], tmp_path: Path) -> None:
    done = export(models["int8"], tmp_path / "m.onnx", to="onnx", options=Options(precision="fp32"))
    bytes_of_floats = 4 * sum(array.size for array in models["fp32"].weights.values())
    assert not done.proof.integer and done.size > 0.9 * bytes_of_floats


@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_model_that_takes_arrays(models: dict[str, Model], tmp_path: Path, to: str, precision: str) -> None:
    model = Model.of(replace(models[precision], preprocessing=None))
    assert export(model, tmp_path / "m", to=to).proof.pictures == 10
    with pytest.raises(ArgumentError, match="no preprocessing that could go into the file"):
        export(model, tmp_path / "m", to=to, options=Options(picture_input=True))


@pytest.mark.parametrize("to", TARGETS)
def test_another_resolution(models: dict[str, Model], tmp_path: Path, to: str) -> None:
    export(models["fp32"], tmp_path / "m", to=to, options=Options(resolution=96))
    pixels = np.random.default_rng(3).integers(0, 256, (1, 96, 96, 3), dtype=np.uint8)
    batch = models["fp32"].to_input(pixels)
    larger = models["fp32"].graph.resized(96, 96)
    expected = run(larger, models["fp32"].weights, batch)["logits"]
    found = RUN[to]((tmp_path / "m").read_bytes(), batch, ["logits"])["logits"]
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def refused(
    model: Model, path: Path, error: type[MobilenetError], match: str, to: str = "onnx", **words: Any
) -> None:
    """Nothing is left behind, and what was there survives."""
    path.write_bytes(b"before")
    with pytest.raises(error, match=match):
        export(model, path, to=to, options=Options(**words))
    assert path.read_bytes() == b"before" and list(path.parent.iterdir()) == [path]


def test_what_does_not_fit_is_refused(models: dict[str, Model], tmp_path: Path) -> None:
    path, model = tmp_path / "m.onnx", models["fp32"]
    refused(model, path, ArgumentError, "quantise it first", precision="int8")
    refused(model, path, ArgumentError, "onnx, tflite, c, hub, not to 'coreml'", to="coreml")
    refused(mobilenet.create("mobilefacenet"), path, ArgumentError, "resolution of 64.*head", resolution=64)
    with pytest.raises(ArgumentError, match="fp32, int8, not 'fp16'"):
        Options(precision="fp16")
    with pytest.raises(ArgumentError, match="1 to 4096, not 0"):
        Options(batch=0)
    with pytest.raises(ArgumentError, match="not 'many'"):
        parse_batch("many")
    assert parse_batch("dynamic") is None and parse_batch("7") == 7


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("to", [*TARGETS, "hub"])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: float, to: str) -> None:
    model = mobilenet.create("mobilenetv2_035", resolution=64)
    name = next(name for name in model.weights if name.endswith(".weight"))
    model.weights = {**model.weights, name: np.full_like(model.weights[name], value)}
    with pytest.raises(ModelFileError, match=f"'{name}' holds NaN or infinity"):
        export(model, tmp_path / "m", to=to)
    assert not list(tmp_path.iterdir())


def test_an_operator_that_the_target_lacks_is_named_with_it(tmp_path: Path) -> None:
    node = Node("pool", AveragePool((3, 3), padding=(0, 0, 1, 0)), ("image",))
    graph = Graph({"image": TensorType((8, 8, 3))}, (node,), {"features": "pool"})
    model = Model(graph, {}, None, task="features")
    refused(
        model, tmp_path / "m", UnsupportedOperatorError, r"tflite file has no average pool.*'pool'", to="tflite"
    )
    export(model, tmp_path / "m", to="onnx")  # which has one


@pytest.mark.parametrize("to", TARGETS)
def test_a_file_that_answers_otherwise_is_not_written(
    models: dict[str, Model], tmp_path: Path, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("mobilenet.exports.export")

    def damaged(contents: Any, options: Options) -> bytes:
        name = next(name for name in contents.weights if name.endswith("classifier.weight"))
        weights = {**contents.weights, name: np.roll(contents.weights[name], 1, 0)}
        return writer(replace(contents, weights=weights), options)

    writer = module._WRITERS[to]
    monkeypatch.setitem(module._WRITERS, to, damaged)
    refused(models["fp32"], tmp_path / "m", ModelFileError, "not written: .*'logits' is up to .* away", to=to)
    refused(models["int8"], tmp_path / "m", ModelFileError, "not written: .*more than 1 quantum away", to=to)


def test_without_the_runtime_the_file_is_written_and_said_to_be_unchecked(
    models: dict[str, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    done = export(models["fp32"], tmp_path / "m.onnx", to="onnx")
    assert str(done.proof) == "not checked: onnxruntime is not installed" and (tmp_path / "m.onnx").is_file()


def test_a_full_disk_leaves_what_was_there(
    models: dict[str, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "m.onnx"
    path.write_bytes(b"before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        export(models["fp32"], path, to="onnx")
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


def test_a_target_that_cannot_be_written_is_named(models: dict[str, Model], tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"no folder '.*absent'"):
        export(models["fp32"], tmp_path / "absent" / "m.onnx", to="onnx")
    with pytest.raises(ArgumentError, match="is a folder"):
        export(models["fp32"], tmp_path, to="onnx")


def test_the_same_model_gives_the_same_bytes(models: dict[str, Model], tmp_path: Path) -> None:
    for to in TARGETS:
        paths = [tmp_path / f"{number}.{to}" for number in range(2)]
        for path in paths:
            export(models["int8"], path, to=to)
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_the_default_file_lies_beside_the_model() -> None:
    assert default_path("a/b.safetensors", "onnx") == Path("a/b.onnx")
    assert default_path("a/b.safetensors", "hub") == Path("a/b-hub")
    with pytest.raises(ArgumentError, match="would be overwritten"):
        default_path("a/b.tflite", "tflite")

"""ONNX files of integers: those of onnxruntime's quantiser run as it does, and hostile scales are refused."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mobilenet
from mobilenet.errors import ModelFileError, UnsupportedOperatorError
from mobilenet.exports.prepare import Options, exported, source_of
from mobilenet.files.imports.read import read_import
from mobilenet.quantise.random import random_model
from mobilenet.run.quanta import dequantise_array

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'mobilenet[import]'")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from mobilenet.exports.export import onnx_bytes  # noqa: E402


def pictures(count: int, seed: int) -> np.ndarray:
    """float32 (count, 3, 64, 64) of large squares."""
    coarse = np.random.default_rng(seed).standard_normal((count, 3, 4, 4))
    return coarse.repeat(16, 2).repeat(16, 3).astype(np.float32)


def quantised_by_onnxruntime(name: str, folder: Path, dtype: str) -> Path:
    """Our float file in onnxruntime's integers, with nothing in it that says what it is."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is the peer that quantises")
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest: Iterator[np.ndarray] = iter(pictures(4, 0))

        def get_next(self) -> dict[str, np.ndarray] | None:
            picture = next(self.rest, None)
            return None if picture is None else {"image": picture[None]}

    model = random_model(name, resolution=64, width_multiplier=0.35, classes=100)
    plain, ready, path = (folder / part for part in ("plain.onnx", "ready.onnx", "quantised.onnx"))
    plain.write_bytes(onnx_bytes(exported(source_of(model, Options()), Options()), Options()))
    logging.disable(logging.WARNING)
    try:
        quant_pre_process(plain, ready)
        values = QuantType[dtype]
        words: dict[str, Any] = {"activation_type": values, "weight_type": QuantType.QInt8}
        quantize_static(ready, path, Reader(), quant_format=QuantFormat.QDQ, per_channel=True, **words)
    finally:
        logging.disable(logging.NOTSET)
    written = onnx.load(path)
    del written.metadata_props[:]
    onnx.save(written, path)
    return path


@pytest.mark.parametrize("dtype", ["QUInt8", "QInt8"])
@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v3_small"])
def test_a_file_of_onnxruntimes_quantiser_runs_as_there(name: str, dtype: str, tmp_path: Path) -> None:
    path = quantised_by_onnxruntime(name, tmp_path, dtype)
    model = mobilenet.load(path)
    layers = [node for node in model.graph.nodes if node.operator.kind in ("conv", "depthwise_conv", "dense")]
    assert layers and all(node.quantisation is not None for node in layers)
    assert model.task == "classify" and model.input.dtype == "float32"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    kind = model.graph.types[model.graph.outputs["logits"]].quantisation
    assert kind is not None
    batch = pictures(12, 5)
    expected = np.concatenate([session.run(None, {"image": one[None]})[0] for one in batch])
    found = np.concatenate([model.run(one.transpose(1, 2, 0)[None].copy())["logits"] for one in batch])
    quanta = np.rint(np.abs(dequantise_array(found, kind) - expected) / kind.scale)
    assert (quanta > 1).mean() <= 0.005
    ordered = np.sort(expected, axis=1)
    clear = (ordered[:, -1] - ordered[:, -2]) / kind.scale > 20
    assert clear.any() and (found.argmax(1) == expected.argmax(1))[clear].all()


CONSTANTS = {
    "s": np.array(0.5, np.float32),
    "z": np.array(3, np.uint8),
    "w": np.arange(-6, 6, dtype=np.int8).reshape(4, 3, 1, 1),
    "ws": np.array([0.1, 0.2, 0.3, 0.4], np.float32),
    "wz": np.zeros(4, np.int8),
    "b": np.array([2**30 + 1, -(2**30) - 3, 5, 0], np.int32),  # more digits than a float32 has
    "bs": np.float32(0.5) * np.array([0.1, 0.2, 0.3, 0.4], np.float32),
    "bz": np.zeros(4, np.int32),
    "ys": np.array(0.75, np.float32),
}


def node(kind: str, inputs: str, output: str, **words: Any) -> Any:
    return helper.make_node(kind, inputs.split(), [output], **words)


def layer(**changes: np.ndarray) -> Any:
    """One convolution on integers, from uint8 to float."""
    nodes = [
        node("DequantizeLinear", "x s z", "real"),
        node("DequantizeLinear", "w ws wz", "weight", axis=0),
        node("DequantizeLinear", "b bs bz", "bias", axis=0),
        node("Conv", "real weight bias", "conv"),
        node("QuantizeLinear", "conv ys z", "quanta"),
        node("DequantizeLinear", "quanta ys z", "y"),
    ]
    given = helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 3, 8, 8])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    constants = [numpy_helper.from_array(array, name) for name, array in {**CONSTANTS, **changes}.items()]
    graph = helper.make_graph(nodes, "g", [given], [result], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def read(model: Any, folder: Path) -> Any:
    (folder / "x.onnx").write_bytes(model.SerializeToString())
    return read_import(folder / "x.onnx")


def test_weights_and_biases_are_those_that_are_stored(tmp_path: Path) -> None:
    contents = read(layer(), tmp_path)
    conv = contents.graph.nodes[0]
    assert (conv.dtype, conv.quantisation.scale, conv.quantisation.zero_point) == ("uint8", 0.75, 3)
    assert contents.graph.inputs["image"].quantisation.zero_point == 3
    np.testing.assert_array_equal(contents.weights[f"{conv.name}.weight"][:, 0, 0], CONSTANTS["w"][:, :, 0, 0])
    np.testing.assert_array_equal(contents.weights[f"{conv.name}.bias"], CONSTANTS["b"])
    np.testing.assert_array_equal(contents.weights[f"{conv.name}.weight_scale"], CONSTANTS["ws"])


def test_a_bias_at_a_scale_of_its_own_stays_in_floats(tmp_path: Path) -> None:
    contents = read(layer(bs=3 * CONSTANTS["bs"]), tmp_path)
    kinds = [(node.operator.kind, node.dtype) for node in contents.graph.nodes]
    assert kinds[:3] == [("dequantise", "float32"), ("conv", "float32"), ("quantise", "uint8")]


def test_weights_of_one_scale_and_of_floats_that_are_quantised_in_the_file(tmp_path: Path) -> None:
    model = layer(ws=np.array(0.1, np.float32), wz=np.array(0, np.int8), bs=np.full(4, 0.05, np.float32))
    single = read(model, tmp_path)
    name = single.graph.nodes[0].name
    assert single.weights[f"{name}.weight_scale"].shape == (1,)
    stored = next(tensor for tensor in model.graph.initializer if tensor.name == "w")
    stored.CopyFrom(numpy_helper.from_array(CONSTANTS["w"].astype(np.float32) * np.float32(0.1), "floats"))
    model.graph.node.insert(0, node("QuantizeLinear", "floats ws wz", "w"))
    again = read(model, tmp_path)
    np.testing.assert_array_equal(
        again.weights[f"{again.graph.nodes[0].name}.weight"], single.weights[f"{name}.weight"]
    )


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"s": np.array(0, np.float32)}, ModelFileError, "scales that are not all above 0"),
        ({"s": np.array(-1, np.float32)}, ModelFileError, "scales that are not all above 0"),
        ({"s": np.array(np.nan, np.float32)}, ModelFileError, "tensor 's' holds values that are NaN"),
        ({"ys": np.array(np.inf, np.float32)}, ModelFileError, "tensor 'ys' holds values that are NaN"),
        ({"ws": np.ones(3, np.float32)}, ModelFileError, "4 zero points and scales"),
        ({"ws": np.ones(5, np.float32), "wz": np.zeros(5, np.int8)}, ModelFileError, "5 scales for a constant"),
        ({"s": np.ones(3, np.float32)}, UnsupportedOperatorError, "3 scales for a value; one is supported"),
        ({"z": np.array(3.0, np.float32)}, UnsupportedOperatorError, "no constant of integers"),
        ({"z": np.array(3, np.int8)}, UnsupportedOperatorError, "an input that is not of uint8"),
        ({"b": np.ones(4, np.float32)}, ModelFileError, "a constant of float32; integers are expected"),
    ],
)
def test_scales_that_lie_are_refused(
    changes: dict[str, np.ndarray], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        read(layer(**changes), tmp_path)


def test_integers_that_are_read_as_others_are_refused(tmp_path: Path) -> None:
    model = layer()
    model.graph.node[-1].input[1] = "s"
    with pytest.raises(UnsupportedOperatorError, match=r"reads uint8 Quantisation\(scale=0.75"):
        read(model, tmp_path)
    model = layer()
    model.graph.node[-1].input[0] = "conv"
    with pytest.raises(UnsupportedOperatorError, match="reads what no QuantizeLinear has written"):
        read(model, tmp_path)
    model = layer()
    model.graph.node[3].input[0] = "x"
    with pytest.raises((UnsupportedOperatorError, ModelFileError)):
        read(model, tmp_path)

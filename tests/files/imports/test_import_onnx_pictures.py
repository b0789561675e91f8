"""Resize and ArgMax of ONNX files, in every form that a MobileNet's heads have, beside onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mobilenet
from mobilenet.errors import MobilenetError, ModelFileError, UnsupportedOperatorError
from mobilenet.run.reference import run

onnx = pytest.importorskip("onnx", reason="needs mobilenet[import]")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

SHAPE = (1, 3, 5, 7)
GENERATOR = np.random.default_rng(0)
WEIGHT = GENERATOR.standard_normal((4, 3, 1, 1)).astype(np.float32)


def network(
    constants: dict[str, Any], inputs: str, kind: str = "Resize", opset: int = 17, **attributes: Any
) -> Any:
    """A convolution, then the operator; `inputs` are its further ones, "-" stands for none."""
    names = ["features", *("" if name == "-" else name for name in inputs.split())]
    nodes = [
        helper.make_node("Conv", ["x", "weight"], ["features"]),
        helper.make_node(kind, names, ["y"], **attributes),
    ]
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    output = TensorProto.INT64 if kind == "ArgMax" else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", output, None)],
        [numpy_helper.from_array(WEIGHT, "weight"), *stored],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def answers(model: Any, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Ours and onnxruntime's, channels last."""
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is the peer that says what is right")
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    read = mobilenet.load(path)
    picture = GENERATOR.standard_normal(SHAPE).astype(np.float32)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": picture})
    outputs = run(read.graph, read.weights, np.ascontiguousarray(picture.transpose(0, 2, 3, 1)))
    (found,) = (array for name, array in outputs.items() if name != "logits")
    return found, expected.transpose(0, 2, 3, 1) if expected.ndim == 4 else expected


def sizes(*values: int) -> dict[str, Any]:
    return {"sizes": np.array(values, np.int64)}


def scales(*values: float) -> dict[str, Any]:
    return {"scales": np.array(values, np.float32)}


@pytest.mark.parametrize("size", [(11, 9), (10, 14), (3, 4), (5, 7)])
@pytest.mark.parametrize("position", ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"])
def test_linear(position: str, size: tuple[int, int], tmp_path: Path) -> None:
    model = network(sizes(1, 4, *size), "- - sizes", mode="linear", coordinate_transformation_mode=position)
    found, expected = answers(model, tmp_path)
    assert found.shape == (1, *size, 4) and np.abs(found - expected).max() < 1e-5


@pytest.mark.parametrize("factor", [2, 3, 0.4, 1])
@pytest.mark.parametrize("rounding", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
@pytest.mark.parametrize("position", ["half_pixel", "align_corners", "asymmetric"])
def test_the_nearest_pixels_are_onnxruntimes_or_the_form_is_refused(
    position: str, rounding: str, factor: float, tmp_path: Path
) -> None:
    words = {"mode": "nearest", "coordinate_transformation_mode": position, "nearest_mode": rounding}
    try:
        found, expected = answers(network(scales(1, 1, factor, 2), "- scales", **words), tmp_path)
    except UnsupportedOperatorError as error:
        assert f"'{position}' and '{rounding}'" in str(error)
        assert (position, rounding) not in {
            ("half_pixel", "round_prefer_ceil"),
            ("asymmetric", "floor"),  # torch's
            ("align_corners", "round_prefer_ceil"),
        }
        return
    assert found.shape == expected.shape and np.abs(found - expected).max() < 1e-5


@pytest.mark.parametrize("dims", [(1, 4, 11, 9), (1, 4, 5, 7)])
def test_forms_of_other_opsets(dims: tuple[int, ...], tmp_path: Path) -> None:
    """Opset 10 has the factors as the second input and one rule; opset 18 may name axes."""
    ratio = [new / old for new, old in zip(dims, (1, 4, 5, 7), strict=True)]
    if dims[2] == 5:  # other ratios are cut to other sizes by float32
        found, expected = answers(network(scales(*ratio), "scales", opset=10, mode="linear"), tmp_path)
        assert np.abs(found - expected).max() < 1e-5
    model = network(sizes(*dims[2:]), "- - sizes", opset=18, mode="linear", axes=[2, 3])
    found, expected = answers(model, tmp_path)
    assert found.shape == expected.shape and np.abs(found - expected).max() < 1e-5


def test_the_class_of_every_pixel(tmp_path: Path) -> None:
    found, expected = answers(network({}, "", "ArgMax", axis=1, keepdims=0), tmp_path)
    assert found.dtype == np.int64 and found.shape == (1, 5, 7) and np.array_equal(found, expected)
    assert mobilenet.load(tmp_path / "m.onnx").task == "segment"


BAD: dict[str, tuple[Any, type[MobilenetError], str]] = {
    "cubic": (network(sizes(1, 4, 9, 9), "- - sizes", mode="cubic"), UnsupportedOperatorError, "'cubic'"),
    "a region": (
        network(
            {"roi": np.array([0, 0, 0, 0, 1, 1, 1, 1], np.float32), **sizes(1, 4, 9, 9)},
            "roi - sizes",
            mode="linear",
            coordinate_transformation_mode="tf_crop_and_resize",
        ),
        UnsupportedOperatorError,
        "tf_crop_and_resize",
    ),
    "channels": (network(sizes(1, 8, 9, 9), "- - sizes", mode="linear"), UnsupportedOperatorError, "channels"),
    "no size": (network({}, "", mode="linear"), UnsupportedOperatorError, "computes its size"),
    "few sizes": (network(sizes(9, 9), "- - sizes", mode="linear"), UnsupportedOperatorError, "2 sizes"),
    "huge": (network(sizes(1, 4, 2**40, 9), "- - sizes", mode="linear"), ModelFileError, "makes"),
    "nothing": (network(sizes(1, 4, 0, 9), "- - sizes", mode="linear"), ModelFileError, "makes"),
    "endless": (network(scales(1, 1, np.inf, 1), "- scales", mode="linear"), UnsupportedOperatorError, "size"),
    "rows": (network({}, "", "ArgMax", axis=2, keepdims=0), UnsupportedOperatorError, "axis 2"),
    "kept axis": (network({}, "", "ArgMax", axis=1), UnsupportedOperatorError, "keeps"),
    "last one": (
        network({}, "", "ArgMax", axis=1, keepdims=0, select_last_index=1),
        UnsupportedOperatorError,
        "last",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_such_form_is_refused(name: str, tmp_path: Path) -> None:
    model, error, said = BAD[name]
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(error, match=said):
        mobilenet.load(path)


def test_factors_that_leave_a_rest(tmp_path: Path) -> None:
    """The places of pixels go by the factor, not by the size that it is cut to, unless corners are aligned."""
    model = network(scales(1, 1, 1.7, 2.3), "- scales", mode="linear")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UnsupportedOperatorError, match="factor 1.7 for 5 pixels, which leaves a rest"):
        mobilenet.load(tmp_path / "m.onnx")
    words = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    found, expected = answers(network(scales(1, 1, 1.7, 2.3), "- scales", **words), tmp_path)
    assert found.shape == expected.shape == (1, 8, 16, 4) and np.abs(found - expected).max() < 1e-5

"""ONNX files: nets of several exporters give the peers' answers; hostile files are refused."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from import_peers import parity, peer

import mobilenet
from mobilenet.errors import ModelFileError, UnsupportedOperatorError
from mobilenet.family.initialise import initialise
from mobilenet.family.names import build
from mobilenet.files.imports.read import read_import
from mobilenet.graph.fold import fold
from mobilenet.graph.graph import Graph, Weights
from mobilenet.run import reference

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'mobilenet[import]'")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from mobilenet.exports.onnx_writer import to_onnx  # noqa: E402

LIMIT = 1e-4


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.abs(found - expected).max() <= LIMIT * np.abs(expected).max())


def shaken(graph: Graph) -> Weights:
    """Weights whose batch norms do something."""
    generator = np.random.default_rng(0)
    weights = initialise(graph)
    for name, array in weights.items():
        if name.endswith((".gamma", ".variance")):
            weights[name] = generator.uniform(0.6, 1.4, array.shape).astype(np.float32)
        elif name.endswith((".beta", ".mean", ".bias")):
            weights[name] = generator.normal(0, 0.2, array.shape).astype(np.float32)
        elif array.ndim == 1:  # a layer scale
            weights[name] = generator.uniform(0.2, 0.6, array.shape).astype(np.float32)
    return weights


FAMILY = [
    ("mobilenet_v1", 0.25),
    ("mobilenet_v2", 0.35),
    ("mobilenet_v3_small", 0.5),
    ("mobilenet_v3_large_minimalistic", 0.35),
    ("mobilenet_v4_conv_small", 0.35),
    ("mobilenet_v4_hybrid_medium", 0.35),
    ("mobilenet_v4_conv_blur_medium", 0.25),
    ("mobilenet_edgetpu", 0.25),
    ("mobilefacenet", 0.25),
]


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize(("name", "width"), FAMILY)
def test_what_this_package_exports_comes_back_as_the_same_network(
    name: str, width: float, folded: bool, tmp_path: Path
) -> None:
    graph = build(name, width_multiplier=width, resolution=64, classes=11)
    weights = shaken(graph)
    if folded:
        graph, weights = fold(graph, weights)
    path = tmp_path / "x.onnx"
    path.write_bytes(to_onnx(graph, weights).SerializeToString())
    contents = read_import(path)
    assert set(contents.graph.outputs) == set(graph.outputs)
    batch = np.random.default_rng(1).standard_normal((1, 64, 64, 3)).astype(np.float32)
    expected = reference.run(graph, weights, batch)
    found = reference.run(contents.graph, contents.weights, batch)
    assert all(close(found[output], expected[output]) for output in graph.outputs)
    if folded and "hybrid" not in name:
        kinds = [sorted(node.operator.kind for node in g.nodes) for g in (contents.graph, graph)]
        assert kinds[0] == kinds[1]


def torch_onnx(net: Any, side: int, opset: int) -> bytes:
    import warnings

    import torch

    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (torch.zeros(1, 3, side, side),), stream, opset_version=opset, dynamo=False)
    return stream.getvalue()


@pytest.mark.parametrize("opset", [12, 17])
@pytest.mark.parametrize(
    ("project", "name"),
    [
        ("timm", "mobilenetv3_small_050"),
        ("timm", "tf_mobilenetv3_small_075"),  # counts its padding inside the file
        ("timm", "mobilenetv4_conv_small_035"),
        ("torchvision", "mobilenet_v2 0.35"),
    ],
)
def test_what_torch_exports_gives_the_peers_logits(project: str, name: str, opset: int, tmp_path: Path) -> None:
    found = peer(project, name)
    net = found.build()
    (tmp_path / "x.onnx").write_bytes(torch_onnx(net, 96, opset))
    model = mobilenet.load(tmp_path / "x.onnx")
    assert model.task == "classify"
    batch = np.random.default_rng(0).standard_normal((1, 96, 96, 3)).astype(np.float32)
    assert close(model.run(batch)["logits"], found.answer(net, batch))


def test_attention_that_torch_exports_gives_the_peers_logits(tmp_path: Path) -> None:
    found = peer("timm", "mobilenetv4_hybrid_medium_075")
    net = found.build()
    (tmp_path / "x.onnx").write_bytes(torch_onnx(net, 224, 17))
    model = mobilenet.load(tmp_path / "x.onnx")
    batch = np.random.default_rng(0).standard_normal((1, 224, 224, 3)).astype(np.float32)
    assert close(model.run(batch)["logits"], found.answer(net, batch))


def test_gelu_of_several_operators_is_one(tmp_path: Path) -> None:
    parity()
    import torch

    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.GELU(), torch.nn.Conv2d(4, 5, 3), torch.nn.GELU())
    (tmp_path / "x.onnx").write_bytes(torch_onnx(net.eval(), 8, 17))
    contents = read_import(tmp_path / "x.onnx")
    assert [node.operator.activation for node in contents.graph.nodes] == ["gelu", "gelu"]  # type: ignore[attr-defined]
    batch = np.random.default_rng(0).standard_normal((1, 8, 8, 3)).astype(np.float32)
    (found,) = reference.run(contents.graph, contents.weights, batch).values()
    assert close(found, parity().torch_answer(net, batch).transpose(0, 2, 3, 1))


def model_of(
    nodes: list[Any], constants: dict[str, np.ndarray], shape: list[Any] | None = None, output: str = "y"
) -> Any:
    """An ONNX model of these nodes from "x" to "y"."""
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape or [1, 3, 8, 8])
    result = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    stored = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", [given], [result], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def written(model: Any, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def conv_weight(out: int = 4, channels: int = 3, side: int = 1) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((out, channels, side, side)).astype(np.float32)


def node(kind: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def run_onnx(model: Any, batch: np.ndarray) -> np.ndarray:
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(model).run(None, {"x": batch})[0]


SIXTH, THREE, SIX = (np.array(n, np.float32) for n in (1 / 6, 3, 6))
ZERO = np.array(0, np.float32)
PATTERNS: dict[str, tuple[list[Any], dict[str, np.ndarray], set[str]]] = {
    "h-swish, divided last": (
        [
            node("Conv", "x w", "a"),
            node("Add", "a three", "b"),
            node("Clip", "b zero six", "c"),
            node("Mul", "a c", "d"),
            node("Div", "d six", "y"),
        ],
        {"w": conv_weight(), "three": THREE, "six": SIX, "zero": ZERO},
        {"hard_swish"},
    ),
    "h-swish, gate first": (
        [
            node("Conv", "x w", "a"),
            node("Add", "three a", "b"),
            node("Clip", "b zero six", "c"),
            node("Mul", "c sixth", "d"),
            node("Mul", "d a", "y"),
        ],
        {"w": conv_weight(), "three": THREE, "six": SIX, "zero": ZERO, "sixth": SIXTH},
        {"hard_swish"},
    ),
    "h-swish by HardSigmoid": (
        [
            node("Conv", "x w", "a"),
            node("HardSigmoid", "a", "b", alpha=1 / 6, beta=0.5),
            node("Mul", "a b", "y"),
        ],
        {"w": conv_weight()},
        {"hard_swish"},
    ),
    "ReLU6 by Max and Min": (
        [node("Conv", "x w", "a"), node("Max", "a zero", "b"), node("Min", "b six", "y")],
        {"w": conv_weight(), "zero": ZERO, "six": SIX},
        {"relu6"},
    ),
    "a Pad before, a bias and a scale after": (
        [
            node("Pad", "x pads", "p"),
            node("Conv", "p w", "a", strides=[2, 2]),
            node("Add", "a bias", "b"),
            node("Mul", "b scale", "c"),
            node("Relu", "c", "y"),
        ],
        {
            "w": conv_weight(side=3),
            "pads": np.array([0, 0, 0, 1, 0, 0, 1, 0]),
            "bias": np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1),
            "scale": np.arange(1, 5, dtype=np.float32).reshape(4, 1, 1),
        },
        {"none", "relu"},
    ),
    "a shared value keeps its own form": (
        [node("Conv", "x w", "a"), node("Relu", "a", "b"), node("Add", "a b", "y")],
        {"w": conv_weight()},
        {"none", "relu"},
    ),
    "PReLU": (
        [node("Conv", "x w", "a"), node("PRelu", "a slope", "y")],
        {"w": conv_weight(), "slope": np.linspace(0.1, 0.4, 4, dtype=np.float32).reshape(4, 1, 1)},
        {"prelu"},
    ),
    "groups of a multiple": (
        [node("Conv", "x w", "y", group=3, pads=[1, 0, 0, 1])],
        {"w": conv_weight(6, 1, 2)},
        {"none"},
    ),
    "a mean of several steps": (
        [
            node("Conv", "x w", "a"),
            node("ReduceMean", "a", "b", axes=[2, 3], keepdims=1),
            node("Reshape", "b shape", "c"),
            node("Gemm", "c g h", "y", transB=1),
        ],
        {
            "w": conv_weight(),
            "shape": np.array([1, -1]),
            "g": conv_weight(5, 4)[..., 0, 0],
            "h": np.ones(5, np.float32),
        },
        {"none"},
    ),
    "a picture flattened in ONNX's order": (
        [node("Conv", "x w", "a"), node("Flatten", "a", "b"), node("MatMul", "b m", "c"), node("Add", "c h", "y")],
        {
            "w": conv_weight(2),
            "m": np.random.default_rng(3).standard_normal((128, 5)).astype(np.float32),
            "h": np.ones(5, np.float32),
        },
        {"none"},
    ),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_operators_in_several_spellings(name: str, tmp_path: Path) -> None:
    nodes, constants, activations = PATTERNS[name]
    model = model_of(nodes, constants)
    contents = read_import(written(model, tmp_path / "x.onnx"))
    assert {getattr(n.operator, "activation", "none") for n in contents.graph.nodes} == activations
    batch = 4 * np.random.default_rng(2).standard_normal((1, 3, 8, 8)).astype(np.float32)
    expected = run_onnx(model, batch)
    found = reference.run(contents.graph, contents.weights, np.ascontiguousarray(batch.transpose(0, 2, 3, 1)))
    answer = next(iter(found.values()))
    assert close(answer.transpose(0, 3, 1, 2) if answer.ndim == 4 else answer, expected)


def test_arithmetic_on_pixels_becomes_preprocessing(tmp_path: Path) -> None:
    mean = np.array([10, 20, 30], np.float32).reshape(1, 3, 1, 1)
    nodes = [node("Sub", "x mean", "a"), node("Div", "a std", "b"), node("Conv", "b w", "y")]
    constants = {"mean": mean, "std": np.array(50, np.float32), "w": conv_weight()}
    contents = read_import(written(model_of(nodes, constants), tmp_path / "x.onnx"))
    assert contents.preprocessing is not None
    assert contents.preprocessing.mean == pytest.approx((10, 20, 30))
    assert contents.preprocessing.std == pytest.approx((50, 50, 50))
    assert [n.operator.kind for n in contents.graph.nodes] == ["conv"]


def test_pictures_with_channels_last(tmp_path: Path) -> None:
    nodes = [
        node("Transpose", "x", "a", perm=[0, 3, 1, 2]),
        node("Conv", "a w", "b", auto_pad="SAME_UPPER", strides=[2, 2]),
        node("Transpose", "b", "y", perm=[0, 2, 3, 1]),
    ]
    model = model_of(nodes, {"w": conv_weight(side=3)}, ["batch", 9, 7, 3])
    contents = read_import(written(model, tmp_path / "x.onnx"))
    assert [n.operator.kind for n in contents.graph.nodes] == ["conv"]
    assert contents.graph.inputs["image"].shape == (9, 7, 3)


@pytest.mark.parametrize(("batch", "first"), [(2, 2), (2, -1), (2, 0), ("n", -1), (1, 1)])
def test_the_files_own_batch_is_taken_off(batch: object, first: int, tmp_path: Path) -> None:
    nodes = [node("Conv", "x w", "a"), node("GlobalAveragePool", "a", "b"), node("Reshape", "b s", "y")]
    model = model_of(nodes, {"w": conv_weight(), "s": np.array([first, 4])}, [batch, 3, 8, 8])
    graph = read_import(written(model, tmp_path / "x.onnx")).graph
    assert [graph.types[value].shape for value in graph.outputs.values()] == [(4,)]


def test_an_open_size_is_the_callers(tmp_path: Path) -> None:
    model = model_of([node("Conv", "x w", "y")], {"w": conv_weight()}, ["n", 3, "h", "w"])
    path = written(model, tmp_path / "x.onnx")
    assert read_import(path).graph.inputs["image"].shape == (224, 224, 3)
    assert read_import(path, resolution=(64, 96)).graph.inputs["image"].shape == (64, 96, 3)


def with_external(model: Any, location: str, offset: int = 0, length: int | None = None) -> Any:
    """The first constant moved to another file."""
    tensor = model.graph.initializer[0]
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length or size))):
        tensor.external_data.add(key=key, value=value)
    return model


def test_constants_in_a_file_beside_it(tmp_path: Path) -> None:
    weight = conv_weight()
    (tmp_path / "x.data").write_bytes(b"1234" + weight.tobytes())
    model = with_external(model_of([node("Conv", "x w", "y")], {"w": weight}), "x.data", offset=4)
    contents = read_import(written(model, tmp_path / "x.onnx"))
    assert np.array_equal(next(iter(contents.weights.values())), weight.transpose(0, 2, 3, 1))


@pytest.mark.parametrize(
    "location", ["../secret", "{absolute}", "sub/../../secret", "link", "", "a\0b", ".", "sub/x"]
)
def test_constants_outside_of_the_folder_are_not_read(location: str, tmp_path: Path) -> None:
    weight = conv_weight()
    (tmp_path / "secret").write_bytes(weight.tobytes())
    home = tmp_path / "home"
    (home / "sub").mkdir(parents=True)
    (home / "sub" / "x").write_bytes(weight.tobytes())
    (home / "link").symlink_to(tmp_path / "secret")
    place = location.replace("{absolute}", str(tmp_path / "secret"))
    model = with_external(model_of([node("Conv", "x w", "y")], {"w": weight}), place)
    with pytest.raises(ModelFileError, match=r"tensor 'w'.*(outside of the file's folder|has not as many)"):
        read_import(written(model, home / "x.onnx"))


def _lie(change: Callable[[Any], None]) -> Any:
    model = model_of([node("Conv", "x w", "y")], {"w": conv_weight()})
    change(model)
    return model


def _huge(model: Any) -> None:
    model.graph.initializer[0].dims[:] = [2**20, 2**20, 1, 1]


def _more(model: Any) -> None:
    model.graph.initializer[0].dims[:] = [8, 3, 1, 1]


def _negative(model: Any) -> None:
    model.graph.initializer[0].dims[:] = [-4, -3, 1, 1]


def _other_channels(model: Any) -> None:
    model.graph.initializer[0].dims[:] = [3, 4, 1, 1]


def _unknown(model: Any) -> None:
    model.graph.initializer[0].data_type = 8


def _not_a_number(model: Any) -> None:
    array = conv_weight()
    array[1] = np.nan
    model.graph.initializer[0].raw_data = array.tobytes()


def _cycle(model: Any) -> None:
    model.graph.node[0].input[0] = "y"


def _twice(model: Any) -> None:
    model.graph.node.append(node("Relu", "x", "y"))


def _no_channels(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "c"


def _vector_input(model: Any) -> None:
    del model.graph.input[0].type.tensor_type.shape.dim[2:]


def _two_inputs(model: Any) -> None:
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1]))


def _padding(model: Any) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("pads", [2**40, 0, 0, 0]))


def _groups(model: Any) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("group", 0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_huge, "tensor 'w' .* larger than the file can hold"),
        (_more, "tensor 'w' .* needs 96 bytes, but holds 48"),
        (_negative, "tensor 'w' of shape"),
        (_other_channels, "has weights 'w' of shape .* for 3 channels"),
        (_unknown, "tensor 'w' has the type 8"),
        (_not_a_number, "tensor 'w' holds values that are NaN"),
        (_cycle, "'y' is read, but nothing in the file writes it before"),
        (_twice, "'y' is written twice"),
        (_no_channels, "its channels must be known|for .* channels"),
        (_vector_input, "a picture is expected"),
        (_two_inputs, "has 2 inputs; one picture is expected"),
        (_padding, "padding|pads"),
        (_groups, "in 0 groups"),
    ],
)
def test_lies_are_found(change: Callable[[Any], None], message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=message) as error:
        read_import(written(_lie(change), tmp_path / "x.onnx"))
    assert str(error.value).startswith(str(tmp_path / "x.onnx"))


def test_a_small_file_cannot_ask_for_much_memory(tmp_path: Path) -> None:
    """Many operators may share one constant, but each would hold its own copy."""
    chain = [node("Conv", f"{'b' if n == 0 else f'c{n}'} w", f"c{n + 1}") for n in range(99)]
    nodes = [node("Conv", "x a", "b"), *chain, node("Relu", "c99", "y")]
    constants = {"a": np.zeros((2000, 3, 1, 1), np.float32), "w": np.zeros((2000, 2000, 1, 1), np.float32)}
    with pytest.raises(ModelFileError, match="many times the size of the file"):
        read_import(written(model_of(nodes, constants), tmp_path / "x.onnx"))


@pytest.mark.parametrize("kind", ["Loop", "Einsum", "LSTM", "QLinearConv"])
def test_operators_that_no_mobilenet_needs_are_named(kind: str, tmp_path: Path) -> None:
    model = model_of([node("Conv", "x w", "a"), node(kind, "a", "y")], {"w": conv_weight()})
    with pytest.raises(UnsupportedOperatorError, match=f"does not have: {kind}"):
        mobilenet.load(written(model, tmp_path / "x.onnx"))


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9, 0.999])
def test_a_truncated_file(share: float, tmp_path: Path) -> None:
    graph, weights = fold(
        *(lambda g: (g, initialise(g)))(build("mobilenet_v2", width_multiplier=0.35, resolution=32))
    )
    data = to_onnx(graph, weights).SerializeToString()
    (tmp_path / "x.onnx").write_bytes(data[: int(share * len(data))])
    with pytest.raises((ModelFileError, UnsupportedOperatorError)):
        read_import(tmp_path / "x.onnx")

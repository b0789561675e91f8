"""Float .tflite files: activations and padding that TFLite writes as operators of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mobilenet.errors import UnsupportedOperatorError
from mobilenet.files.tflite import read_tflite
from mobilenet.graph.graph import Graph, Node, TensorType, Weights
from mobilenet.graph.ops import Activation, AveragePool, Conv, Dense, MatMul, Mul, Operator, Pad, Reshape
from mobilenet.run.reference import run

pytest.importorskip("ai_edge_litert", reason="needs mobilenet[export]")

from mobilenet.exports.tflite_builder import TfliteBuilder
from mobilenet.exports.tflite_writer import to_tflite

PICTURE = (5, 7, 4)


def chain(*operators: Operator) -> Graph:
    nodes, source = [], "image"
    for place, operator in enumerate(operators):
        nodes.append(Node(f"n{place}", operator, (source,)))
        source = f"n{place}"
    return Graph({"image": TensorType(PICTURE)}, tuple(nodes), {"output": source})


def weights_of(graph: Graph) -> Weights:
    generator = np.random.default_rng(0)
    return {name: generator.normal(size=p.shape).astype(np.float32) for name, p in graph.parameters().items()}


def read_back(graph: Graph, weights: Weights, folder: Path) -> tuple[Graph, Weights]:
    path = folder / "m.tflite"
    path.write_bytes(to_tflite(graph, weights))
    contents = read_tflite(path)
    return contents.graph, contents.weights


def kinds(graph: Graph) -> list[str]:
    return [node.operator.kind for node in graph.nodes]


@pytest.mark.parametrize(
    "activation", ["hard_swish", "hard_sigmoid", "hard_sigmoid_slim", "sigmoid", "gelu", "prelu"]
)
def test_a_layers_activation_is_its_field_again(activation: str, tmp_path: Path) -> None:
    graph = chain(Conv((3, 3), padding=(1, 1, 1, 1), out_channels=6, bias=True, activation=activation))
    weights = weights_of(graph)
    again, read = read_back(graph, weights, tmp_path)
    (node,) = again.nodes
    assert isinstance(node.operator, Conv) and node.operator.activation == activation
    picture = np.random.default_rng(1).normal(size=(1, *PICTURE)).astype(np.float32)
    expected = run(graph, weights, picture)["output"]
    np.testing.assert_array_equal(next(iter(run(again, read, picture).values())), expected)


def test_padding_in_front_of_a_convolution_is_its_own_again(tmp_path: Path) -> None:
    graph = chain(Conv((3, 3), (2, 2), padding=(2, 0, 1, 3), out_channels=6, bias=True))
    again, _ = read_back(graph, weights_of(graph), tmp_path)
    (node,) = again.nodes
    assert isinstance(node.operator, Conv) and node.operator.padding == (2, 0, 1, 3) and not node.operator.same


@pytest.mark.parametrize(
    "graph",
    [
        chain(Pad((1, 1, 1, 1)), AveragePool((2, 2))),  # zeros count in a mean, padding does not
        chain(Pad((1, 1, 1, 1)), Activation("relu")),
    ],
)
def test_other_padding_stays(graph: Graph, tmp_path: Path) -> None:
    again, _ = read_back(graph, {}, tmp_path)
    assert kinds(again)[0] == "pad" and len(again.nodes) == 2


def test_what_two_nodes_read_is_not_joined(tmp_path: Path) -> None:
    first = Node("a", Conv((1, 1), out_channels=4, bias=True), ("image",))
    gate = Node("b", Activation("sigmoid"), ("a",))
    graph = Graph({"image": TensorType(PICTURE)}, (first, gate, Node("c", Mul(), ("a", "b"))), {"output": "c"})
    weights = weights_of(graph)
    again, read = read_back(graph, weights, tmp_path)
    assert kinds(again) == ["conv", "activation", "mul"]
    picture = np.random.default_rng(1).normal(size=(1, *PICTURE)).astype(np.float32)
    found = next(iter(run(again, read, picture).values()))
    np.testing.assert_array_equal(found, run(graph, weights, picture)["output"])


def test_a_constant_for_each_channel_is_a_layer_scale(tmp_path: Path) -> None:
    graph = chain(AveragePool((2, 2)), Mul(constant=True))
    weights = weights_of(graph)
    again, read = read_back(graph, weights, tmp_path)
    assert kinds(again) == ["average_pool", "mul"]
    np.testing.assert_array_equal(read[f"{again.nodes[1].name}.weight"], weights["n1.weight"])


@pytest.mark.parametrize("transposed", [False, True])
def test_a_matrix_product(transposed: bool, tmp_path: Path) -> None:
    rows = Node("rows", Reshape((35, 4)), ("image",))
    shape = (9, 4) if transposed else (4, 9)
    dense = Node("mean", Dense(36), ("flat",))
    flat = Node("flat", Reshape((-1,)), ("image",))
    nodes = (rows, flat, dense, Node("other", Reshape(shape), ("mean",)))
    product = Node("product", MatMul(transpose_second=transposed), ("rows", "other"))
    graph = Graph({"image": TensorType(PICTURE)}, (*nodes, product), {"output": "product"})
    weights = weights_of(graph)
    again, read = read_back(graph, weights, tmp_path)
    picture = np.random.default_rng(1).normal(size=(1, *PICTURE)).astype(np.float32)
    found = next(iter(run(again, read, picture).values()))
    np.testing.assert_array_equal(found, run(graph, weights, picture)["output"])


def hard_sigmoid_like(three: float, slope: float, *, activation: int = 3, product: bool = True) -> bytes:
    file = TfliteBuilder()
    source, clipped, result = (file.value(name, (1, 4), "float32") for name in ("x", "clipped", "y"))
    first = file.constant("three", np.array([three], np.float32))
    second = file.constant("slope", np.array([slope], np.float32))
    file.emit("ADD", [first, source], clipped, "AddOptions", fusedActivationFunction=activation)
    if product:
        file.emit("MUL", [second, clipped], result, "MulOptions")
    return file.pack({"x": source}, {"y": result if product else clipped}, {})


def test_a_hard_sigmoid_is_known_with_its_constants_first(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(hard_sigmoid_like(3, 1 / 6))
    (node,) = read_tflite(tmp_path / "m").graph.nodes
    assert node.operator == Activation("hard_sigmoid")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (hard_sigmoid_like(2.9, 1 / 6), "adds a constant"),
        (hard_sigmoid_like(3, 1 / 6, activation=0), "adds a constant"),
        (hard_sigmoid_like(3, 0.17), "by 0.17, which is no hard sigmoid"),
        (hard_sigmoid_like(3, 0, product=False), "unless for a hard sigmoid"),
    ],
)
def test_what_only_looks_like_one_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(data)
    with pytest.raises(UnsupportedOperatorError, match=message):
        read_tflite(tmp_path / "m")

"""What is not a consistent network is refused, and the message says where."""

from __future__ import annotations

import json
from dataclasses import fields

import numpy as np
import pytest

from mobilenet.errors import GraphError
from mobilenet.family.names import build, list_models
from mobilenet.graph.graph import Graph, Node, Quantisation, TensorType, trainable_parameters
from mobilenet.graph.ops import (
    OPERATORS,
    Add,
    AveragePool,
    BatchNorm,
    Conv,
    Dense,
    DepthwiseConv,
    MatMul,
    Mean,
    Mul,
    Pad,
    Reshape,
    Resize,
    Transpose,
    operator_from_dict,
    same_sides,
    symmetric_sides,
)


def small() -> Graph:
    """A stem, a depthwise layer, a residual and a classifier."""
    return Graph(
        {"image": TensorType((32, 32, 3))},
        (
            Node(
                "conv",
                Conv(kernel=(3, 3), stride=(2, 2), padding=(0, 1, 0, 1), same=True, out_channels=8),
                ("image",),
            ),
            Node("norm", BatchNorm(activation="relu6"), ("conv",)),
            Node("depthwise", DepthwiseConv(kernel=(3, 3), padding=(1, 1, 1, 1), bias=True), ("norm",)),
            Node("sum", Add(), ("norm", "depthwise")),
            Node("mean", Mean(), ("sum",)),
            Node("classifier", Dense(out_features=5), ("mean",)),
        ),
        {"logits": "classifier"},
    )


def test_shapes_and_parameters_follow_from_the_rows() -> None:
    graph = small()
    assert [graph.types[n].shape for n in ("conv", "depthwise", "mean", "classifier")] == [
        (16, 16, 8),
        (16, 16, 8),
        (8,),
        (5,),
    ]
    assert graph.parameters()["conv.weight"].shape == (8, 3, 3, 3)
    assert graph.parameters()["depthwise.weight"].shape == (3, 3, 8)
    assert trainable_parameters(graph) == 8 * 27 + 16 + 8 * 9 + 8 + 5 * 8 + 5


def test_json_and_back_is_the_same_graph() -> None:
    graph = small()
    assert Graph.from_dict(json.loads(json.dumps(graph.to_dict()))) == graph


@pytest.mark.parametrize("kind", OPERATORS.values(), ids=OPERATORS.keys())
def test_every_operator_survives_json(kind: type) -> None:
    operator = kind(axes=(1, 0)) if kind is Transpose else kind()
    assert operator_from_dict(json.loads(json.dumps(operator.to_dict()))) == operator
    with pytest.raises(GraphError, match="has no field 'colour'"):
        operator_from_dict({"kind": kind.kind, "colour": 1})


@pytest.mark.parametrize("kind", [k for k in OPERATORS.values() if fields(k)])
@pytest.mark.parametrize("value", ["x", None, [1, 2, 3, 4, 5, 6, 7, 8, 9], {"a": 1}, 1e400, True, -5, 2**60])
def test_no_field_takes_just_anything(kind: type, value: object) -> None:
    """Every field refuses at least what is of a wrong type, with an error of ours."""
    for field in fields(kind):
        try:
            operator_from_dict({"kind": kind.kind, field.name: value})
        except GraphError as error:
            assert field.name in str(error) or kind.kind in str(error) or str(value) in str(error)


def test_nodes_may_come_in_any_order() -> None:
    graph = small()
    shuffled = Graph(graph.inputs, graph.nodes[::-1], graph.outputs)
    assert [node.name for node in shuffled.nodes] == [node.name for node in graph.nodes]


def broken(nodes: list[Node], outputs: dict[str, str] | None = None) -> Graph:
    return Graph({"image": TensorType((8, 8, 4))}, tuple(nodes), outputs or {"out": nodes[-1].name})


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([Node("a", Add(), ("b", "image")), Node("b", Add(), ("a", "image"))], "'a' is part of a cycle"),
        ([Node("a", Mean(), ("nowhere",))], "'a' reads 'nowhere'"),
        ([Node("a", Mean(), ("image",)), Node("a", Mean(), ("image",))], "'a': its name is empty or taken"),
        ([Node("image", Mean(), ("image",))], "'image': its name is empty or taken"),
        ([Node("m", Mean(), ("image",)), Node("a", Add(), ("image", "m"))], r"'a' \(add\).*cannot be added"),
        ([Node("a", Add(), ("image",))], r"'a' \(add\): takes 2 to 2 inputs, not 1"),
        ([Node("a", Conv(kernel=(9, 9)), ("image",))], r"'a' \(conv\).*larger than the padded input"),
        ([Node("m", Mean(), ("image",)), Node("a", Conv(), ("m",))], r"'a' \(conv\): needs an input of"),
        ([Node("a", Reshape(shape=(7, -1)), ("image",))], r"'a' \(reshape\).*does not fit"),
        ([Node("a", Reshape(shape=(16, 16)), ("image",)), Node("b", MatMul(), ("a", "image"))], r"'b' \(matmul\)"),
        ([Node("a", Mul(), ("image",))], r"'a' \(mul\): takes 2 inputs"),
        ([Node("a", Resize(), ("image",))], r"'a' \(resize\): takes one input if"),
        ([Node("a", Transpose(axes=(0, 0, 1)), ("image",))], r"'a' \(transpose\).*no order"),
        ([Node("a", Pad(padding=(2**19,) * 4), ("image",))], r"'a' \(pad\): shape"),
        ([Node("a", Conv(padding=(1, 1, 1, 1), same=True), ("image",))], r"'a' \(conv\).*is not SAME"),
        (
            [Node("a", Mean(), ("image",), "int8", Quantisation(1.0))],
            r"'a' \(mean\): cannot turn float32 into int8",
        ),
        ([Node("a", Mean(), ("image",), "int8")], r"'a' \(mean\): dtype int8 and quantisation"),
    ],
)
def test_broken_graphs_name_the_node(nodes: list[Node], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        broken(nodes)


def test_an_output_must_exist() -> None:
    with pytest.raises(GraphError, match="output 'logits' refers to 'b'"):
        broken([Node("a", Mean(), ("image",))], {"logits": "b"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"nodes": [{"name": "a", "operator": {"kind": "warp"}, "inputs": ["image"]}]},
            "'a': unknown operator 'warp'",
        ),
        (
            {"nodes": [{"name": "a", "operator": {"kind": "conv"}, "inputs": ["image"], "colour": 1}]},
            "field 'colour'",
        ),
        ({"nodes": [{"name": "a", "operator": {"kind": "conv", "stride": "2"}, "inputs": ["image"]}]}, "'stride'"),
        ({"nodes": [{"name": "a", "operator": {"kind": "mean"}}]}, "'a': field 'inputs' is missing"),
        ({"nodes": ["a"]}, "must be an object"),
        ({"nodes": {}}, "nodes a list"),
        ({"inputs": {"image": {"shape": [8, 8, -3], "dtype": "float32"}}}, "input 'image': shape"),
        ({"inputs": {"image": {"shape": [8, 8, 3], "dtype": "complex64"}}}, "unknown dtype 'complex64'"),
        ({"inputs": {"image": {"shape": [2**30, 2**30, 3], "dtype": "float32"}}}, "input 'image': shape"),
        ({"outputs": {"logits": ["a"]}}, "output 'logits'"),
        ({"author": "me"}, "unknown field 'author'"),
    ],
)
def test_bad_json_names_the_place(change: dict[str, object], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        Graph.from_dict({**small().to_dict(), **change})


def test_weights_must_fit() -> None:
    graph = small()
    weights = {name: np.zeros(p.shape, np.float32) for name, p in graph.parameters().items()}
    graph.check_weights(weights)
    with pytest.raises(GraphError, match=r"'norm.gamma' of shape \(8,\) is missing"):
        graph.check_weights({k: v for k, v in weights.items() if k != "norm.gamma"})
    with pytest.raises(GraphError, match=r"'norm.gamma' has shape \(9,\); the graph needs \(8,\)"):
        graph.check_weights({**weights, "norm.gamma": np.zeros(9, np.float32)})
    with pytest.raises(GraphError, match=r"'norm.gamma' has dtype float64"):
        graph.check_weights({**weights, "norm.gamma": np.zeros(8)})
    with pytest.raises(GraphError, match=r"'extra' belongs to no node"):
        graph.check_weights({**weights, "extra": np.zeros(8, np.float32)})


def test_resizing_counts_same_padding_anew_and_names_what_cannot_follow() -> None:
    odd = small().resized(33, 47)
    assert odd.types["conv"].shape == (17, 24, 8)
    assert odd.node("conv").operator.padding == (1, 1, 1, 1)  # type: ignore[attr-defined]
    fixed = broken(
        [Node("pool", AveragePool(kernel=(8, 8)), ("image",)), Node("flat", Reshape(shape=(4,)), ("pool",))]
    )
    with pytest.raises(GraphError, match="'flat'"):
        fixed.resized(16, 16)


@pytest.mark.parametrize("name", list_models())
def test_a_resized_family_member_is_the_one_built_at_that_size(name: str) -> None:
    if name.startswith("mobilefacenet"):
        pytest.skip("its last depthwise kernel is as large as the feature map")
    assert build(name, resolution=64).resized(96, 80) == build(name, resolution=(96, 80))


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (224, 3, 2, (0, 1)),  # TensorFlow: even size, kernel 3, stride 2
        (225, 3, 2, (1, 1)),
        (224, 5, 2, (1, 2)),
        (7, 3, 1, (1, 1)),
        (8, 2, 2, (0, 0)),
        (1, 5, 1, (2, 2)),
    ],
)
def test_same_padding_is_tensorflows(size: int, kernel: int, stride: int, expected: tuple[int, int]) -> None:
    sides = same_sides((size, size), (kernel, kernel), (stride, stride), (1, 1))
    assert sides == (*expected, *expected)


def test_symmetric_padding_grows_with_dilation() -> None:
    assert symmetric_sides((3, 5), (2, 1)) == (2, 2, 2, 2)

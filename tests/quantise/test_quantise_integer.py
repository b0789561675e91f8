"""The choices of the quantiser, layer by layer, and what it does with ranges and weights that are no use."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mobilenet.errors import ArgumentError, GraphError
from mobilenet.graph.graph import Graph, Node, TensorType, Weights
from mobilenet.graph.ops import (
    Activation,
    Add,
    ArgMax,
    AveragePool,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    DepthwiseConv,
    L2Normalise,
    MatMul,
    MaxPool,
    Mean,
    Mul,
    Operator,
    Pad,
    Reshape,
    Resize,
    Softmax,
    Transpose,
)
from mobilenet.quantise import quantise_graph
from mobilenet.quantise.integer import quantisation_of
from mobilenet.quantise.lower import lower
from mobilenet.quantise.ranges import Range, measure_ranges
from mobilenet.run import reference

SHAPE = (6, 6, 4)


def chain(*operators: Operator, shape: tuple[int, ...] = SHAPE) -> Graph:
    """Nodes n0, n1, ... one after the other."""
    nodes, before = [], "x"
    for number, operator in enumerate(operators):
        nodes.append(Node(f"n{number}", operator, (before,)))
        before = f"n{number}"
    return Graph({"x": TensorType(shape)}, tuple(nodes), {"y": before})


def random_weights(graph: Graph, seed: int = 0) -> Weights:
    generator = np.random.default_rng(seed)
    weights = {}
    for name, parameter in graph.parameters().items():
        value = generator.standard_normal(parameter.shape).astype(np.float32)
        weights[name] = np.abs(value) + np.float32(0.1) if name.endswith("variance") else value
    return weights


def inputs(shape: tuple[int, ...] = SHAPE, count: int = 4, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-2, 3, (count, *shape)).astype(np.float32)


def both(
    graph: Graph, weights: Weights, batch: np.ndarray, **options: Any
) -> tuple[np.ndarray, np.ndarray, float]:
    """The float output, the integer output as real numbers, and the step of the integer output."""
    integer, tensors = quantise_graph(graph, weights, [batch], **options)
    integer.check_weights(tensors)
    kind = integer.inputs["x"]
    assert kind.quantisation is not None
    quanta = reference.quantise_array(batch, kind.quantisation, kind.dtype)
    written = integer.types[integer.outputs["y"]].quantisation
    assert written is not None
    found = reference.dequantise_array(reference.run(integer, tensors, quanta)["y"], written)
    return reference.run(graph, weights, batch)["y"], found, written.scale


LAYERS: list[tuple[Operator, float]] = [
    (Conv((3, 3), padding=(1, 1, 1, 1), out_channels=8, bias=True), 4),
    (Conv(out_channels=8, activation="relu6"), 4),
    (DepthwiseConv((3, 3), (2, 2), padding=(0, 1, 0, 1), bias=True, activation="relu"), 4),
    (DepthwiseConv((3, 3), multiplier=2), 4),
    (Conv(out_channels=8, bias=True, activation="hard_swish"), 5),
    (Conv(out_channels=8, bias=True, activation="sigmoid"), 9),
    (Conv(out_channels=8, bias=True, activation="gelu"), 5),
    (Conv(out_channels=8, bias=True, activation="prelu"), 5),
    (BatchNorm(activation="hard_swish"), 4),
    (BatchNorm(activation="prelu"), 5),
    (Mul(constant=True), 3),
    (AveragePool((2, 2), (2, 2)), 1.5),
    (MaxPool((3, 3), (2, 2), activation="relu"), 1.5),
    (AveragePool((2, 2), activation="hard_swish"), 3),
    (Mean(), 1.5),
    (Pad((1, 2, 0, 3)), 1.5),
    (Resize((9, 13)), 2),
    (Reshape((-1,)), 1.5),
    (Transpose((2, 0, 1)), 1.5),
    (Dense(7, activation="hard_swish"), 5),
    (Activation("relu6"), 1.5),
    (Activation("hard_sigmoid"), 4),
    (Softmax(), 3),
    (L2Normalise(), 3),
    (Activation("prelu"), 2),
]


@pytest.mark.parametrize(("operator", "steps"), LAYERS, ids=lambda value: str(value)[:60])
def test_an_operator_is_within_a_few_steps_of_float(operator: Operator, steps: float) -> None:
    graph = chain(operator)
    expected, found, scale = both(graph, random_weights(graph), inputs())
    assert np.abs(expected - found).max() <= steps * scale
    assert np.ptp(found) > 20 * scale  # and it is no constant


def test_two_inputs() -> None:
    for operator in (Add(), Add(activation="relu"), Mul(), Concat(), MatMul()):
        shape = (4, 4) if isinstance(operator, MatMul) else SHAPE
        nodes = (
            Node("a", Dense(4), ("x",)),
            Node("b", Dense(4, activation="relu"), ("x",)),
            Node("c", operator, ("a", "b")),
        )
        graph = Graph({"x": TensorType(shape)}, nodes, {"y": "c"})
        expected, found, scale = both(graph, random_weights(graph), inputs(shape))
        assert np.abs(expected - found).max() <= 6 * scale, operator
        assert np.ptp(found) > 50 * scale


def test_values_outside_of_the_calibrated_range_saturate() -> None:
    graph = chain(Conv(out_channels=2, bias=True))
    weights = random_weights(graph)
    integer, tensors = quantise_graph(graph, weights, [inputs()], input_range=Range(-50, 50))
    kind = integer.inputs["x"]
    assert kind.quantisation is not None
    lowest, highest = 255, 0
    for value in (-50.0, 50.0):
        quanta = reference.quantise_array(np.full((1, *SHAPE), value, np.float32), kind.quantisation, kind.dtype)
        result = reference.run(integer, tensors, quanta)["y"]
        lowest, highest = min(lowest, int(result.min())), max(highest, int(result.max()))
    assert (lowest, highest) == (0, 255)


def test_relu6_that_is_nearly_reached_gets_the_scale_that_clamps_for_free() -> None:
    weights = {"n0.weight": np.ones((1, 1, 1, 4), np.float32)}
    graph = chain(Conv(activation="relu6"))
    near, _ = quantise_graph(graph, weights, [np.full((1, *SHAPE), 1.4, np.float32)])
    far, _ = quantise_graph(graph, weights, [np.full((1, *SHAPE), 0.5, np.float32)])
    assert near.node("n0").quantisation == quantisation_of(Range(0, 6))
    assert far.node("n0").quantisation == quantisation_of(Range(0, 2))


def test_zero_is_exact_and_the_ends_are_reached() -> None:
    for low, high in ((-1.0, 1.0), (0.0, 6.0), (-3.0, 0.0), (2.0, 5.0), (-7.0, -2.0), (-1e-3, 1e3), (0.0, 0.0)):
        quantisation = quantisation_of(Range(low, high))
        ends = np.array([low, 0.0, high], np.float32)
        back = reference.dequantise_array(reference.quantise_array(ends, quantisation, "uint8"), quantisation)
        assert back[1] == 0
        assert np.abs(back - ends).max() <= quantisation.scale


def test_an_activation_narrows_the_range_of_what_it_alone_reads() -> None:
    graph = chain(Activation("relu6"), Activation("hard_swish"))
    ranges = measure_ranges(graph, {}, [np.array([-9.0, 9.0] * 72, np.float32).reshape(1, *SHAPE)])
    assert ranges == {"x": Range(0, 6), "n0": Range(0, 6), "n1": Range(0, 6)}
    shared = Graph(graph.inputs, graph.nodes, {"y": "n1", "raw": "x"})
    assert measure_ranges(shared, {}, [np.full((1, *SHAPE), -9, np.float32)])["x"] == Range(-9, 0)


def test_lowering_keeps_what_the_network_computes() -> None:
    nodes = (
        Node("norm", BatchNorm(), ("x",)),
        Node("left", Conv(out_channels=4, bias=True, activation="gelu"), ("norm",)),
        Node("left.activation", Conv(out_channels=4), ("norm",)),  # the name that the split would take
        Node("relu", Activation("relu"), ("left.activation",)),
        Node("scale", Mul(constant=True, activation="prelu"), ("relu",)),
        Node("sum", Add(activation="hard_swish"), ("left", "scale")),
    )
    graph = Graph({"x": TensorType(SHAPE)}, nodes, {"y": "sum", "inner": "left"})
    weights = random_weights(graph)
    lowered, lowered_weights = lower(graph, weights)
    lowered.check_weights(lowered_weights)
    assert len(lowered.nodes) == 8  # relu joined its convolution; gelu, prelu and hard_swish are nodes
    before, after = (reference.run(g, w, inputs()) for g, w in ((graph, weights), (lowered, lowered_weights)))
    for name in before:
        np.testing.assert_allclose(before[name], after[name], rtol=1e-4, atol=1e-5)


def test_a_batch_norm_that_is_no_pictures_stays_in_float() -> None:
    graph = chain(Mean(), BatchNorm(activation="relu"), Dense(3))
    expected, found, scale = both(graph, random_weights(graph), inputs())
    assert np.abs(expected - found).max() <= 4 * scale


def test_argmax_is_of_the_integers() -> None:
    nodes = (Node("conv", Conv(out_channels=5), ("x",)), Node("index", ArgMax(), ("conv",), "int64"))
    graph = Graph({"x": TensorType(SHAPE)}, nodes, {"y": "index"})
    weights = random_weights(graph)
    integer, tensors = quantise_graph(graph, weights, [inputs()])
    kind = integer.inputs["x"]
    assert kind.quantisation is not None
    quanta = reference.quantise_array(inputs(), kind.quantisation, kind.dtype)
    found = reference.run(integer, tensors, quanta)["y"]
    assert found.dtype == np.int64
    assert (found == reference.run(graph, weights, inputs())["y"]).mean() > 0.9


def test_dead_channels_and_huge_biases_keep_their_bias() -> None:
    graph = chain(Conv(out_channels=3, bias=True))
    weight = np.zeros((3, 1, 1, 4), np.float32)
    weight[1] = 1e-30
    weight[2] = 1e-6
    weights = {"n0.weight": weight, "n0.bias": np.array([5.0, -3.0, 1e4], np.float32)}
    expected, found, scale = both(graph, weights, inputs())
    assert np.abs(expected - found).max() <= scale


def test_sums_that_cancel_do_not_break_the_rule_of_sums() -> None:
    nodes = (
        Node("plus", Conv(out_channels=4), ("x",)),
        Node("minus", Conv(out_channels=4), ("x",)),
        Node("sum", Add(), ("plus", "minus")),
    )
    graph = Graph({"x": TensorType(SHAPE)}, nodes, {"y": "sum"})
    weight = random_weights(graph)["plus.weight"]
    expected, found, _ = both(graph, {"plus.weight": weight, "minus.weight": -weight}, inputs())
    assert np.abs(expected).max() == 0
    assert np.abs(found).max() < 0.2  # one step of a summand is the best that there is


def test_a_network_of_zeros() -> None:
    graph = chain(Conv(out_channels=4, activation="relu"), Mul(constant=True), Mean(), Dense(2), Softmax())
    weights = {name: np.zeros(p.shape, np.float32) for name, p in graph.parameters().items()}
    expected, found, scale = both(graph, weights, np.zeros((1, *SHAPE), np.float32))
    assert np.abs(expected - found).max() <= scale


def test_what_cannot_be_quantised_says_so() -> None:
    graph = chain(Conv(out_channels=2))
    weights = random_weights(graph)
    with pytest.raises(ArgumentError, match="at least one picture"):
        quantise_graph(graph, weights, [])
    with pytest.raises(ArgumentError, match=r"float32 \(N, 6, 6, 4\)"):
        quantise_graph(graph, weights, [np.zeros((1, 5, 6, 4), np.float32)])
    with pytest.raises(ArgumentError, match="uint8"):
        quantise_graph(graph, weights, [np.zeros((1, *SHAPE), np.uint8)])
    with pytest.raises(ArgumentError, match="'n0' is not finite"):
        quantise_graph(graph, {"n0.weight": np.full((2, 1, 1, 4), np.nan, np.float32)}, [inputs()])
    with pytest.raises(ArgumentError, match="'x' is not finite"):
        quantise_graph(graph, weights, [np.full((1, *SHAPE), np.inf, np.float32)])
    with pytest.raises(GraphError, match="'n0.weight'"):
        quantise_graph(graph, {}, [inputs()])
    integer, tensors = quantise_graph(graph, weights, [inputs()])
    with pytest.raises(ArgumentError, match="quantised already"):
        quantise_graph(integer, tensors, [inputs()])
    two = Graph({"x": TensorType(SHAPE), "z": TensorType(SHAPE)}, (Node("a", Add(), ("x", "z")),), {"y": "a"})
    with pytest.raises(ArgumentError, match="x, z"):
        quantise_graph(two, {}, [inputs()])
    long = chain(Dense(1), shape=(70_000,))
    with pytest.raises(GraphError, match="70000 products"):
        quantise_graph(long, random_weights(long), [inputs((70_000,), 1)])

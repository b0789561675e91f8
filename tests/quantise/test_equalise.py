"""Equalisation changes no answer and makes channels alike; bias correction moves means to where they were."""

from __future__ import annotations

import numpy as np
import pytest

from mobilenet.graph.graph import Graph, Node, TensorType, Weights
from mobilenet.graph.ops import Activation, Add, Conv, Dense, DepthwiseConv, Operator
from mobilenet.quantise.bias import correct_biases
from mobilenet.quantise.equalise import equalise, pairs
from mobilenet.quantise.integer import to_integers
from mobilenet.quantise.lower import lower
from mobilenet.quantise.methods import choose_ranges
from mobilenet.quantise.observe import observe
from mobilenet.quantise.random import random_batch, random_model
from mobilenet.run import reference

SHAPE = (6, 6, 3)


def two_layers(first: Operator, second: Operator, *, spread: float = 50.0) -> tuple[Graph, Weights]:
    """x -> first -> second, where the channels between them differ by up to `spread` times in size."""
    nodes = (Node("first", first, ("x",)), Node("second", second, ("first",)))
    graph = Graph({"x": TensorType(SHAPE)}, nodes, {"y": "second"})
    generator = np.random.default_rng(0)
    weights = {
        name: generator.standard_normal(parameter.shape).astype(np.float32)
        for name, parameter in graph.parameters().items()
    }
    sizes = np.geomspace(1 / spread, 1, graph.types["first"].shape[-1]).astype(np.float32)
    last = isinstance(first, DepthwiseConv)
    shaped = sizes if last else sizes.reshape(-1, *(1,) * (weights["first.weight"].ndim - 1))
    weights["first.weight"] = weights["first.weight"] * shaped
    if "first.bias" in weights:
        weights["first.bias"] = weights["first.bias"] * sizes
    return graph, weights


def pictures(seed: int = 1, count: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, *SHAPE)).astype(np.float32)


def equalised(graph: Graph, weights: Weights) -> Weights:
    return equalise(graph, weights, observe(graph, weights, [pictures()]).peaks)


PAIRS: list[tuple[Operator, Operator]] = [
    (Conv(out_channels=8, bias=True, activation="relu"), Conv(out_channels=4)),
    (Conv(out_channels=8, bias=True), DepthwiseConv((3, 3), multiplier=2, bias=True)),
    (DepthwiseConv((3, 3), multiplier=2, bias=True, activation="relu"), Conv((2, 2), out_channels=4)),
    (Dense(8, activation="relu"), Dense(5)),
]


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=lambda value: value.kind)
def test_answers_stay_and_channels_become_alike(first: Operator, second: Operator) -> None:
    graph, weights = two_layers(first, second)
    before = {name: array.copy() for name, array in weights.items()}
    changed = equalised(graph, weights)
    assert all(np.array_equal(before[name], weights[name]) for name in weights)  # what came in is untouched
    graph.check_weights(changed)
    for seed in (1, 7):  # seen and unseen pictures
        old, new = (reference.run(graph, w, pictures(seed), keep=["first"]) for w in (weights, changed))
        np.testing.assert_allclose(new["y"], old["y"], rtol=0, atol=1e-4 * np.abs(old["y"]).max())

    def unevenness(values: np.ndarray) -> float:
        peaks = np.abs(values).max(axis=tuple(range(values.ndim - 1)))
        return float(peaks.max() / peaks[peaks > 0].min())

    old, new = (reference.run(graph, w, pictures(), keep=["first"])["first"] for w in (weights, changed))
    assert unevenness(new) < 0.5 * unevenness(old)
    assert np.abs(new).max() <= 1.001 * np.abs(old).max()


def test_relu6_lets_channels_grow_that_stay_below_it_and_leaves_the_others() -> None:
    first = Conv(out_channels=8, bias=True, activation="relu6")
    graph, weights = two_layers(first, DepthwiseConv((3, 3), bias=True))
    weights["first.weight"] *= 8  # the largest channels are clamped at 6
    peaks = observe(graph, weights, [pictures()]).peaks["first"]
    assert peaks.max() == 6
    changed = equalised(graph, weights)
    clamped = peaks * 1.25 >= 6
    assert clamped.any() and (~clamped).any()
    np.testing.assert_array_equal(changed["first.weight"][clamped], weights["first.weight"][clamped])
    assert (np.abs(changed["first.weight"][~clamped]) >= np.abs(weights["first.weight"][~clamped])).all()
    assert not np.array_equal(changed["first.weight"], weights["first.weight"])
    old, new = (reference.run(graph, w, pictures())["y"] for w in (weights, changed))
    np.testing.assert_allclose(new, old, rtol=0, atol=1e-4 * np.abs(old).max())


@pytest.mark.parametrize("activation", ["hard_swish", "sigmoid", "gelu"])
def test_curves_forbid_it(activation: str) -> None:
    graph, weights = two_layers(Conv(out_channels=8, bias=True, activation=activation), Conv(out_channels=4))
    lowered, lowered_weights = lower(graph, weights)
    assert pairs(lowered) == []
    assert pairs(graph) == []
    assert isinstance(lowered.nodes[1].operator, Activation)
    same = equalise(lowered, lowered_weights, observe(lowered, lowered_weights, [pictures()]).peaks)
    assert all(np.array_equal(same[name], lowered_weights[name]) for name in same)


def test_a_value_that_others_read_too_is_left_alone() -> None:
    nodes = (
        Node("first", Conv(out_channels=3), ("x",)),
        Node("second", Conv(out_channels=3), ("first",)),
        Node("sum", Add(), ("first", "second")),
    )
    assert pairs(Graph({"x": TensorType(SHAPE)}, nodes, {"y": "sum"})) == []
    assert pairs(Graph({"x": TensorType(SHAPE)}, nodes[:2], {"y": "second", "inner": "first"})) == []
    assert len(pairs(Graph({"x": TensorType(SHAPE)}, nodes[:2], {"y": "second"}))) == 1


def test_dead_channels() -> None:
    graph, weights = two_layers(Conv(out_channels=4, bias=True, activation="relu"), Conv(out_channels=4))
    weights["first.weight"][1], weights["first.bias"][1] = 0, 0
    weights["second.weight"][..., 2] = 0
    changed = equalised(graph, weights)
    assert all(np.isfinite(array).all() for array in changed.values())
    old, new = (reference.run(graph, w, pictures())["y"] for w in (weights, changed))
    np.testing.assert_allclose(new, old, rtol=0, atol=1e-4 * np.abs(old).max())


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v4_conv_small"])
def test_whole_networks_answer_as_before(name: str) -> None:
    model = random_model(name, width_multiplier=0.5, resolution=64, classes=10)
    graph, weights = lower(model.graph, model.weights)
    changed = equalise(
        graph, weights, observe(graph, weights, [random_batch(model, seed=s) for s in (0, 1)]).peaks
    )
    assert any(not np.array_equal(changed[key], weights[key]) for key in weights) == bool(pairs(graph))
    for seed in (0, 1):
        old, new = (reference.run(graph, w, random_batch(model, seed=seed)) for w in (weights, changed))
        for output in old:
            assert np.abs(old[output] - new[output]).max() <= 1e-4 * np.abs(old[output]).max(), output


def test_equalising_makes_integers_better_where_channels_differ() -> None:
    graph, weights = two_layers(
        Conv(out_channels=16, bias=True, activation="relu"), DepthwiseConv((3, 3), bias=True), spread=60
    )
    used = []
    for own in (weights, equalised(graph, weights)):
        ranges = choose_ranges(graph, observe(graph, own, [pictures()]).histograms, "min-max")
        integer, tensors = to_integers(graph, own, ranges)
        kind = integer.inputs["x"].quantisation
        assert kind is not None
        found = reference.run(
            integer, tensors, reference.quantise_array(pictures(7), kind, "uint8"), keep=["first"]
        )
        first = found["first"].astype(np.float64)
        used.append((np.ptp(first, axis=(0, 1, 2)) > 40).sum())  # channels that use more than a few integers
    assert used[1] > used[0] + 2


def test_corrected_biases_bring_the_means_back() -> None:
    model = random_model("mobilenet_v3_small", width_multiplier=0.5, resolution=64, classes=10)
    graph, weights = lower(model.graph, model.weights)
    batch = random_batch(model, count=4)
    ranges = choose_ranges(graph, observe(graph, weights, [batch]).histograms, "min-max")
    linear = [
        node.name
        for node in graph.nodes
        if isinstance(node.operator, Conv) and node.operator.bias and node.operator.activation == "none"
    ][:6]
    before = dict(weights)
    corrected = correct_biases(graph, weights, ranges, batch)
    assert all(weights[name] is before[name] for name in weights)
    assert {name for name in weights if not np.array_equal(weights[name], corrected[name])} <= {
        name for name in weights if name.endswith(".bias")
    }
    expected = reference.run(graph, weights, batch, keep=linear)
    shifts = []
    for own in (weights, corrected):
        integer, tensors = to_integers(graph, own, ranges)
        kind = integer.inputs["image"].quantisation
        assert kind is not None
        found = reference.run(integer, tensors, reference.quantise_array(batch, kind, "uint8"), keep=linear)
        total = 0.0
        for name in linear:
            written = integer.types[name].quantisation
            assert written is not None
            mean = reference.dequantise_array(found[name], written).mean(axis=(0, 1, 2))
            total += float(np.square(mean - expected[name].mean(axis=(0, 1, 2))).sum())
        shifts.append(total)
    assert shifts[1] < 0.5 * shifts[0]

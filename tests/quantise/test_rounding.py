"""Weights that make up for each other's rounding are nearer to what the layer gave, and are whole steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mobilenet.graph.graph import Graph, Node, TensorType, Weights
from mobilenet.graph.ops import Conv, Dense, DepthwiseConv, Operator
from mobilenet.quantise import rounding
from mobilenet.quantise.bias import correct_biases
from mobilenet.quantise.budget import Prepared
from mobilenet.quantise.integer import to_integers
from mobilenet.quantise.lower import lower
from mobilenet.quantise.methods import choose_ranges
from mobilenet.quantise.observe import observe
from mobilenet.quantise.random import random_batch, random_model
from mobilenet.quantise.rounding import compensated, measure_products, steps_of
from mobilenet.run import reference

SHAPE = (9, 8, 12)
LAYERS: list[Operator] = [
    Conv(out_channels=16, bias=True),
    Conv((3, 3), (2, 1), padding=(1, 1, 0, 2), out_channels=8, bias=True),
    Conv((2, 3), (1, 2), dilation=(2, 1), out_channels=8),
    DepthwiseConv((3, 3), (2, 2), padding=(1, 0, 1, 0), bias=True),
    DepthwiseConv((3, 2), multiplier=2, dilation=(1, 2)),
    Dense(10, bias=True),
]


def one_layer(operator: Operator) -> tuple[Graph, Weights]:
    graph = Graph({"x": TensorType(SHAPE)}, (Node("layer", operator, ("x",)),), {"y": "layer"})
    generator = np.random.default_rng(0)
    return graph, {
        name: generator.standard_normal(parameter.shape).astype(np.float32)
        for name, parameter in graph.parameters().items()
    }


def pictures(seed: int, count: int = 6) -> np.ndarray:
    """As behind a relu: never below zero, and what is bright in one channel is bright in the others."""
    generator = np.random.default_rng(seed)
    common = generator.uniform(0, 2, (count, *SHAPE[:2], 1))
    return np.asarray(common + generator.uniform(0, 0.5, (count, *SHAPE)), np.float32)


def plainly_rounded(weights: Weights, scales: Weights, operator: Operator) -> Weights:
    weight = weights["layer.weight"]
    last = isinstance(operator, DepthwiseConv)
    unit = scales["layer"] if last else scales["layer"].reshape(-1, *(1,) * (weight.ndim - 1))
    return {**weights, "layer.weight": (np.rint(weight / unit) * unit).astype(np.float32)}


@pytest.mark.parametrize("operator", LAYERS, ids=lambda one: f"{one.kind}-{getattr(one, 'kernel', '')}")
def test_less_error_on_unseen_pictures_than_rounding_to_the_nearest(operator: Operator) -> None:
    graph, weights = one_layer(operator)
    before = {name: array.copy() for name, array in weights.items()}
    found, scales = compensated(graph, weights, lambda: [pictures(1), pictures(2)])
    assert all(np.array_equal(before[name], weights[name]) for name in weights)  # what came in is untouched
    graph.check_weights(found)
    unseen = pictures(3)
    wanted = reference.run(graph, weights, unseen)["y"]
    errors = [
        float(np.square(reference.run(graph, own, unseen)["y"] - wanted).mean())
        for own in (found, plainly_rounded(weights, scales, operator))
    ]
    assert errors[0] < 0.7 * errors[1]


@pytest.mark.parametrize("operator", LAYERS, ids=lambda one: f"{one.kind}-{getattr(one, 'kernel', '')}")
def test_integers_are_made_of_them_as_they_are(operator: Operator) -> None:
    graph, weights = one_layer(operator)
    found, scales = compensated(graph, weights, lambda: [pictures(1)])
    ranges = choose_ranges(graph, observe(graph, weights, [pictures(1)]).histograms, "min-max")
    _, tensors = to_integers(graph, found, ranges, weight_scales=scales)
    scale = tensors["layer.weight_scale"]
    last = isinstance(operator, DepthwiseConv)
    shaped = scale if last else scale.reshape(-1, *(1,) * (found["layer.weight"].ndim - 1))
    np.testing.assert_allclose(tensors["layer.weight"] * shaped, found["layer.weight"], rtol=1e-6, atol=0)
    steps = np.abs(found["layer.weight"] - weights["layer.weight"]) / shaped
    assert 0.5 < steps.max() < 20  # some are not rounded to the nearest, none goes far


@pytest.mark.parametrize("operator", LAYERS, ids=lambda one: f"{one.kind}-{getattr(one, 'kernel', '')}")
def test_products_are_those_of_the_terms_that_the_layer_sums(operator: Operator) -> None:
    """w' P w is the energy of an output, whatever the window."""
    graph, weights = one_layer(operator)
    weights.pop("layer.bias", None)
    if hasattr(operator, "bias"):
        graph = replace(graph, nodes=(replace(graph.nodes[0], operator=replace(operator, bias=False)),))  # type: ignore[call-arg]
    ((_, products),) = measure_products(graph, weights, graph.nodes, [pictures(1), pictures(2)])
    rows = rounding._rows(graph.nodes[0], weights["layer.weight"].astype(np.float64))
    energy = np.einsum("grs,gst,grt->gr", rows, products, rows).reshape(-1)
    outputs = np.concatenate([reference.run(graph, weights, pictures(seed))["y"] for seed in (1, 2)])
    expected = np.square(outputs.astype(np.float64)).sum(axis=tuple(range(outputs.ndim - 1)))
    np.testing.assert_allclose(energy, expected, rtol=1e-4)


def test_without_relations_it_is_rounding_to_the_nearest() -> None:
    rows = np.random.default_rng(0).uniform(-130, 130, (2, 5, 7))
    alone = np.broadcast_to(np.eye(7), (2, 7, 7))
    np.testing.assert_array_equal(steps_of(rows, alone), np.clip(np.rint(rows), -127, 127))
    np.testing.assert_array_equal(steps_of(rows, np.zeros((2, 7, 7))), np.clip(np.rint(rows), -127, 127))


def test_dead_inputs_and_dead_outputs() -> None:
    graph, weights = one_layer(Conv(out_channels=4, bias=True))
    weights["layer.weight"][1] = 0
    batch = pictures(1)
    batch[..., :5] = 0
    found, scales = compensated(graph, weights, lambda: [batch])
    assert all(np.isfinite(array).all() for array in found.values())
    assert (found["layer.weight"][1] == 0).all()
    assert scales["layer"][1] == 0
    silent, _ = compensated(graph, weights, lambda: [np.zeros_like(batch)])
    np.testing.assert_array_equal(
        silent["layer.weight"], plainly_rounded(weights, np_ones(scales), Conv())["layer.weight"]
    )


def np_ones(scales: Weights) -> Weights:
    return {name: np.where(scale > 0, scale, 1.0) for name, scale in scales.items()}


def test_little_memory_gives_the_same_in_several_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model("mobilenet_v2", width_multiplier=0.35, resolution=32, classes=10)
    graph, weights = lower(model.graph, model.weights)
    batch, calls = random_batch(model, count=4), []

    def batches() -> list[np.ndarray]:
        calls.append(1)
        return [batch]

    first = compensated(graph, weights, batches)[0]
    assert len(calls) == 1
    monkeypatch.setattr(rounding, "MEMORY", 10**6)
    second = compensated(graph, weights, batches)[0]
    assert len(calls) > 3
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_layers_that_are_too_large_are_rounded_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, weights = one_layer(Dense(10, bias=True))
    monkeypatch.setattr(rounding, "LARGEST_LAYER", SHAPE[-1] - 1)
    found, scales = compensated(graph, weights, lambda: [pictures(1)])
    np.testing.assert_array_equal(found["layer.weight"], weights["layer.weight"])
    assert scales["layer"].shape == (10,)


def test_layers_in_float_keep_the_weights_that_they_had() -> None:
    model = random_model("mobilenet_v2", width_multiplier=0.35, resolution=32, classes=10)
    graph, weights = lower(model.graph, model.weights)
    batch = random_batch(model, count=4)
    ranges = choose_ranges(graph, observe(graph, weights, [batch]).histograms, "min-max")
    found, scales = compensated(graph, weights, lambda: [batch])
    made = {"rounded": found, "weight_scales": scales}
    corrected = correct_biases(graph, weights, ranges, batch, **made)  # type: ignore[arg-type]
    prepared = Prepared(graph, corrected, ranges, "min-max", weight_scales=scales, exact=weights)
    every = {node.name for node in graph.nodes}
    _, tensors = prepared.integers(every)
    assert all(np.array_equal(tensors[name], weights[name]) for name in weights)
    linear = next(node.name for node in graph.nodes if isinstance(node.operator, DepthwiseConv))
    _, tensors = prepared.integers({linear})
    assert np.array_equal(tensors[f"{linear}.weight"], weights[f"{linear}.weight"])
    assert np.array_equal(tensors[f"{linear}.bias"], weights[f"{linear}.bias"])
    assert sum(array.dtype == np.int8 for array in tensors.values()) > 40

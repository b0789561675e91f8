"""Initial weights: repeatable tensor by tensor, of the size that the references use."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mobilenet.errors import ArgumentError
from mobilenet.family.initialise import initialise
from mobilenet.family.names import build, list_models
from mobilenet.graph.graph import Graph, Node, Quantisation, TensorType
from mobilenet.graph.ops import Conv
from mobilenet.run import reference


@pytest.mark.parametrize("name", [*list_models("*v?_*small*"), "mobilenet_v4_hybrid_medium", "mobilefacenet_s"])
def test_weights_fit_and_repeat(name: str) -> None:
    graph = build(name, width_multiplier=0.5, resolution=64)
    weights = initialise(graph, 7)
    graph.check_weights(weights)
    again, other = initialise(graph, 7), initialise(graph, 8)
    assert all(np.array_equal(weights[k], again[k]) for k in weights)
    random = [k for k in weights if k.endswith("conv.weight")]
    assert not any(np.array_equal(weights[k], other[k]) for k in random)
    assert len({weights[k].tobytes() for k in random}) == len(random)


def test_a_tensor_depends_on_its_own_name_only() -> None:
    """Another head, number of classes or depth leaves the rest as it was."""
    few = initialise(build("mobilenet_v2", resolution=64, classes=3), 0)
    trunk = initialise(build("mobilenet_v2", resolution=64, features_only=True), 0)
    many = initialise(build("mobilenet_v2", resolution=64, classes=1000), 0)
    differing = {k for k in many if not np.array_equal(few[k], many[k])}
    assert differing == {"classifier.weight", "classifier.bias"}
    assert all(np.array_equal(trunk[k], many[k]) for k in trunk)


def test_deviations() -> None:
    """Normal, sqrt(2 / fan-out): 9 * 32 outputs for the stem, 9 for one depthwise filter, 64 for a 1x1."""
    weights = initialise(build("mobilenet_v1"), 0)
    for name, deviation in (
        ("stem.conv.weight", (2 / (9 * 32)) ** 0.5),
        ("blocks.12.depthwise.conv.weight", (2 / 9) ** 0.5),
        ("blocks.12.pointwise.conv.weight", (2 / 1024) ** 0.5),
        ("classifier.weight", 0.01),
    ):
        assert weights[name].std() == pytest.approx(deviation, rel=0.05), name
        assert abs(weights[name].mean()) < 0.1 * deviation
        assert weights[name].dtype == np.float32


def test_constants() -> None:
    weights = initialise(build("mobilenet_v4_hybrid_medium", resolution=64), 0)
    assert {float(v) for v in np.unique(weights["blocks.7.layer_scale.weight"])} == {float(np.float32(1e-5))}
    for name, value in (("gamma", 1), ("beta", 0), ("mean", 0), ("variance", 1)):
        assert (weights[f"stem.batch_norm.{name}"] == value).all()
    assert (weights["classifier.bias"] == 0).all()
    faces = initialise(build("mobilefacenet"), 0)
    assert (faces["stem.batch_norm.alpha"] == 0.25).all()


def test_signal_neither_dies_nor_explodes() -> None:
    graph = build("mobilenet_v3_small", resolution=64)
    image = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype(np.float32)
    embedding = reference.run(graph, initialise(graph, 0), image)["embedding"]
    assert np.isfinite(embedding).all() and 1e-6 < embedding.std() < 1e4


@pytest.mark.parametrize("seed", [-1, 1.0, None, True, "0"])
def test_seeds(seed: Any) -> None:
    with pytest.raises(ArgumentError, match="must be a whole number, at least 0"):
        initialise(build("mobilenet_v1", resolution=32), seed)
    assert initialise(build("mobilenet_v1", resolution=32), 2**70)


def test_a_quantised_graph_is_refused() -> None:
    quantisation = Quantisation(0.1, 3)
    kind = TensorType((4, 4, 3), "uint8", quantisation)
    graph = Graph({"image": kind}, (Node("conv", Conv(), ("image",), "uint8", quantisation),), {"out": "conv"})
    with pytest.raises(ArgumentError, match="quantised graph cannot be initialised"):
        initialise(graph, 0)

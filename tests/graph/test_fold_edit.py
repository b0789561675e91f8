"""Folding changes nothing that can be seen, and stays away from what it cannot fold."""

from __future__ import annotations

import numpy as np
import pytest

from mobilenet.errors import GraphError
from mobilenet.family.initialise import initialise
from mobilenet.family.names import build, list_models
from mobilenet.graph.edit import classifier_node, pruned, with_classes
from mobilenet.graph.fold import fold
from mobilenet.graph.graph import Graph, Node, TensorType, Weights, has_batch_norm
from mobilenet.graph.ops import Add, BatchNorm, Conv, Dense, Mul, Reshape, Softmax
from mobilenet.run import reference


def with_statistics(graph: Graph, weights: Weights) -> Weights:
    """Weights as training leaves them: no statistic is trivial."""
    generator = np.random.default_rng(1)
    changed = {}
    for name, array in weights.items():
        last = name.rsplit(".", 1)[1]
        if last in ("gamma", "variance"):
            array = generator.uniform(0.5, 1.5, array.shape).astype(np.float32)
        elif last in ("beta", "mean"):
            array = generator.normal(0, 0.2, array.shape).astype(np.float32)
        changed[name] = array
    graph.check_weights(changed)
    return changed


@pytest.mark.parametrize(
    "name", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v4_hybrid_medium", "mobilefacenet"]
)
def test_a_folded_family_member_answers_the_same(name: str) -> None:
    graph = build(name, width_multiplier=0.5, resolution=64, classes=7)
    weights = with_statistics(graph, initialise(graph, 0))
    folded, fewer = fold(graph, weights)
    folded.check_weights(fewer)
    attentions = sum(isinstance(n.operator, Softmax) for n in folded.nodes)  # the norm before each stays
    assert sum(isinstance(n.operator, BatchNorm) for n in folded.nodes) == attentions
    image = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype(np.float32)
    for output, expected in reference.run(graph, weights, image).items():
        found = reference.run(folded, fewer, image)[output]
        assert np.abs(found - expected).max() <= 2e-5 * np.abs(expected).max(), output


def test_most_of_the_family_folds_wholly() -> None:
    for name in ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v4_conv_small"):
        assert name in list_models()
        graph = build(name, resolution=64)
        assert not has_batch_norm(fold(graph, initialise(graph, 0))[0])


def test_what_is_read_twice_is_not_folded() -> None:
    """The convolution's own output is used: folding would change it."""
    graph = Graph(
        {"image": TensorType((4, 4, 3))},
        (
            Node("conv", Conv(out_channels=2), ("image",)),
            Node("norm", BatchNorm(), ("conv",)),
            Node("sum", Add(), ("conv", "norm")),
        ),
        {"out": "sum"},
    )
    weights = with_statistics(graph, {k: np.ones(p.shape, np.float32) for k, p in graph.parameters().items()})
    assert fold(graph, weights)[0] == graph


def test_an_activation_in_between_keeps_the_norm() -> None:
    graph = Graph(
        {"image": TensorType((4, 4, 3))},
        (Node("conv", Conv(out_channels=2, activation="relu"), ("image",)), Node("norm", BatchNorm(), ("conv",))),
        {"out": "norm"},
    )
    weights = {k: np.ones(p.shape, np.float32) for k, p in graph.parameters().items()}
    assert fold(graph, weights)[0] == graph


def test_bias_norm_scale_and_prelu_fold_into_one_layer() -> None:
    graph = Graph(
        {"image": TensorType((4, 4, 3))},
        (
            Node("conv", Conv(out_channels=2, bias=True), ("image",)),
            Node("norm", BatchNorm(), ("conv",)),
            Node("scale", Mul(constant=True, activation="prelu"), ("norm",)),
        ),
        {"out": "scale"},
    )
    generator = np.random.default_rng(3)
    weights = {k: generator.uniform(0.5, 1, p.shape).astype(np.float32) for k, p in graph.parameters().items()}
    folded, fewer = fold(graph, weights)
    assert [node.name for node in folded.nodes] == ["conv"]
    image = generator.normal(size=(2, 4, 4, 3)).astype(np.float32)
    expected = reference.run(graph, weights, image)["out"]
    np.testing.assert_allclose(reference.run(folded, fewer, image)["out"], expected, rtol=1e-5, atol=1e-6)


def tail(*nodes: Node, **outputs: str) -> Graph:
    return Graph({"image": TensorType((1, 1, 8))}, nodes, outputs)


def test_a_convolution_that_ends_in_softmax_gets_other_classes() -> None:
    graph = tail(
        Node("conv", Conv(out_channels=1001, bias=True), ("image",)),
        Node("flat", Reshape(shape=(1001,)), ("conv",)),
        Node("softmax", Softmax(), ("flat",)),
        probabilities="softmax",
        logits="flat",
    )
    changed = with_classes(graph, 3)
    assert changed.types[changed.outputs["logits"]].shape == (3,)
    assert changed.outputs == {"logits": "flat", "embedding": "image"}
    assert classifier_node(changed).name == "conv"


def test_a_family_member_keeps_all_but_its_last_layer() -> None:
    graph = build("mobilenet_v3_large", resolution=64, classes=1000)
    changed = with_classes(graph, 4).parameters()
    differing = {name for name, p in graph.parameters().items() if changed[name].shape != p.shape}
    assert differing == {f"{classifier_node(graph).name}.{p}" for p in ("weight", "bias")}


def test_what_is_no_classifier_says_so() -> None:
    graph = tail(Node("conv", Conv(out_channels=4), ("image",)), embedding="conv")
    with pytest.raises(GraphError, match="no output 'logits'"):
        classifier_node(graph)
    graph = tail(Node("soft", Softmax(), ("image",)), logits="soft")
    with pytest.raises(GraphError, match="which no classifier layer feeds"):
        with_classes(graph, 3)


def test_pruning_keeps_what_the_outputs_need() -> None:
    graph = tail(
        Node("a", Dense(out_features=2), ("image",)),
        Node("b", Dense(out_features=2), ("a",)),
        Node("c", Dense(out_features=2), ("a",)),
        logits="b",
    )
    assert [node.name for node in pruned(graph, {"embedding": "c"}).nodes] == ["a", "c"]
    with pytest.raises(GraphError, match="'nowhere'"):
        pruned(graph, {"embedding": "nowhere"})

"""A narrow network out of a wide one: which channels go together, which stay, that the others do not matter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mobilenet.errors import ArgumentError, GraphError
from mobilenet.family.initialise import initialise
from mobilenet.family.names import build
from mobilenet.files.contents import ModelContents
from mobilenet.graph.fold import fold
from mobilenet.graph.graph import Graph, Node, TensorType, Weights
from mobilenet.graph.ops import Add, BatchNorm, Concat, Conv, Dense, DepthwiseConv, Mean
from mobilenet.learn.channels import channel_groups
from mobilenet.learn.narrow import member_of, narrowed
from mobilenet.learn.slicing import importance, kept_channels, sliced_weights
from mobilenet.learn.unfold import with_batch_norms
from mobilenet.run import reference

NETWORKS = [
    ("mobilenet_v1", None),
    ("mobilenet_v2", "torchvision"),
    ("mobilenet_v3_large", "torchvision"),
    ("mobilenet_v3_small", "paper"),
    ("mobilenet_v3_small", "d_li14"),
    ("mobilenet_v4_conv_small", None),
    ("mobilenet_v4_hybrid_medium", None),
    ("mobilenet_edgetpu", None),
]


def made(name: str, width: float = 1.0, dialect: str | None = None, seed: int = 0) -> tuple[Graph, Weights]:
    """A member of the family at 64 pixels with random weights and statistics."""
    graph = build(name, width_multiplier=width, resolution=64, classes=11, dialect=dialect)
    weights = initialise(graph, seed)
    generator = np.random.default_rng(seed)
    for key, value in weights.items():
        if key.endswith((".gamma", ".variance")):
            weights[key] = generator.uniform(0.5, 1.5, value.shape).astype(np.float32)
        elif key.endswith((".beta", ".mean", ".bias")):
            weights[key] = generator.normal(0, 0.2, value.shape).astype(np.float32)
    return graph, weights


def pictures(graph: Graph, count: int = 2) -> np.ndarray:
    shape = next(iter(graph.inputs.values())).shape
    return np.random.default_rng(1).uniform(-1, 1, (count, *shape)).astype(np.float32)


@pytest.mark.parametrize(("name", "dialect"), NETWORKS)
def test_at_its_own_width_nothing_changes(name: str, dialect: str | None) -> None:
    graph, weights = made(name, dialect=dialect)
    target = narrowed(graph, 1.0, dialect=dialect)
    assert target == graph
    same = sliced_weights(graph, weights, target)
    assert same.keys() == weights.keys()
    for key, value in weights.items():
        np.testing.assert_array_equal(same[key], value, err_msg=key)


@pytest.mark.parametrize("width", [0.5, 0.75, 0.35, 0.62])
@pytest.mark.parametrize(("name", "dialect"), NETWORKS[:6] + NETWORKS[7:])
def test_any_width_has_the_familys_own_shapes(name: str, dialect: str | None, width: float) -> None:
    graph, weights = made(name, dialect=dialect)
    target = narrowed(graph, width, dialect=dialect)
    own = build(name, width_multiplier=width, resolution=64, classes=11, dialect=dialect)
    assert {n: p.shape for n, p in target.parameters().items()} == {
        n: p.shape for n, p in own.parameters().items()
    }
    target.check_weights(sliced_weights(graph, weights, target))


def test_a_residual_that_the_family_drops_at_a_width_is_kept() -> None:
    """timm's stem stays 16 wide at 0.5, the first block becomes 8 wide, so that its residual would be no sum."""
    graph, weights = made("mobilenet_v3_large", dialect="timm")
    target = narrowed(graph, 0.5, dialect="timm")
    assert target.types["stem.conv"].shape == target.types["blocks.0.add"].shape == (32, 32, 16)
    target.check_weights(sliced_weights(graph, weights, target))
    own = build("mobilenet_v3_large", width_multiplier=0.5, resolution=64, classes=11, dialect="timm")
    assert "blocks.0.add" not in own.types
    after = [name for name in own.types if name.startswith("blocks.1.")]
    assert [target.types[name] for name in after] == [own.types[name] for name in after]


def test_a_hybrid_keeps_its_heads() -> None:
    graph, weights = made("mobilenet_v4_hybrid_medium")
    target = narrowed(graph, 0.5)
    narrow = sliced_weights(graph, weights, target)
    target.check_weights(narrow)
    outputs = reference.run(target, narrow, pictures(target, 1))
    assert np.isfinite(outputs["logits"]).all()
    for node in graph.nodes:
        if node.name.endswith(("query.conv", "key.conv", "value.conv")):
            assert target.types[node.name].shape[-1] == graph.types[node.name].shape[-1]


@pytest.mark.parametrize(("name", "dialect"), [*NETWORKS[:4], NETWORKS[5]])
@pytest.mark.parametrize("folded", [False, True])
def test_channels_that_are_zero_are_the_ones_that_go(name: str, dialect: str | None, folded: bool) -> None:
    """A narrow network hidden in a wide one, at random places, comes out again with the same answers."""
    wide_graph, _ = made(name, dialect=dialect)
    graph, weights = made(name, 0.5, dialect, seed=3)
    if folded:
        wide_graph, _ = fold(*made(name, dialect=dialect))
        graph, weights = fold(graph, weights)
    wide = hidden(wide_graph, graph, weights)
    target = narrowed(wide_graph, 0.5, dialect=dialect)
    assert {n: p.shape for n, p in target.parameters().items()} == {n: w.shape for n, w in weights.items()}
    found = sliced_weights(wide_graph, wide, target)
    batch = pictures(graph)
    wanted = reference.run(wide_graph, wide, batch)
    answers = reference.run(target, found, batch)
    for output, values in wanted.items():
        if output == "logits":
            np.testing.assert_allclose(answers[output], values, atol=1e-5 * np.abs(values).max())
    for key, value in weights.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)


def hidden(wide: Graph, narrow: Graph, weights: Weights) -> Weights:
    """Weights of the wide network that are the narrow one's at some channels of each group, and 0 elsewhere."""
    generator = np.random.default_rng(5)
    places: dict[str, np.ndarray] = {}
    for group in channel_groups(wide):
        count = narrow.types[group.values[0]].shape[-1]
        chosen = np.sort(generator.permutation(group.channels)[:count])
        places.update(dict.fromkeys(group.values, chosen))
    found: Weights = {}
    for name, parameter in wide.parameters().items():
        node_name, _, kind = name.rpartition(".")
        node = wide.node(node_name)
        array = np.zeros(parameter.shape, np.float32)
        if kind == "variance":
            array[:] = 1
        own = places[node_name]
        if isinstance(node.operator, Conv | Dense) and kind == "weight":
            rows = array[own]
            rows[..., places[node.inputs[0]]] = weights[name]
            array[own] = rows
        else:
            array[..., own] = weights[name]
        found[name] = array
    return found


def test_a_residual_group_is_ranked_once() -> None:
    graph, weights = made("mobilenet_v2")
    target = narrowed(graph, 0.5)
    kept = kept_channels(graph, weights, target)
    for node in graph.nodes:
        if isinstance(node.operator, Add):
            np.testing.assert_array_equal(kept[node.inputs[0]], kept[node.inputs[1]])
            np.testing.assert_array_equal(kept[node.inputs[0]], kept[node.name])
        if isinstance(node.operator, DepthwiseConv):
            np.testing.assert_array_equal(kept[node.inputs[0]], kept[node.name])


def test_gates_are_one_group_with_what_they_gate() -> None:
    graph, _ = made("mobilenet_v3_large")
    group = next(g for g in channel_groups(graph) if "blocks.3.squeeze_excite.expand" in g.values)
    assert "blocks.3.squeeze_excite.multiply" in group.values
    assert "blocks.3.expand.conv" in group.values and "blocks.3.depthwise.conv" in group.values
    assert "blocks.3.squeeze_excite.reduce" not in group.values


def test_every_value_is_in_one_group() -> None:
    for name, dialect in NETWORKS:
        graph, _ = made(name, dialect=dialect)
        values = [value for group in channel_groups(graph) for value in group.values]
        assert sorted(values) == sorted(graph.types), name


def test_importance_is_variation_times_reading() -> None:
    graph = Graph(
        {"image": TensorType((8, 8, 3))},
        (
            Node("a", Conv(out_channels=4), ("image",)),
            Node("n", BatchNorm(activation="relu"), ("a",)),
            Node("m", Mean(), ("n",)),
            Node("d", Dense(2), ("m",)),
        ),
        {"logits": "d", "embedding": "m"},
    )
    weights = {
        "a.weight": np.ones((4, 1, 1, 3), np.float32) * np.array([9, 1, 1, 1], np.float32)[:, None, None, None],
        "n.gamma": np.array([1, 2, 0, 1], np.float32),
        "n.beta": np.zeros(4, np.float32),
        "n.mean": np.zeros(4, np.float32),
        "n.variance": np.ones(4, np.float32),
        "d.weight": np.array([[3, 0, 9, 1], [4, 1, 9, 0]], np.float32),
        "d.bias": np.zeros(2, np.float32),
    }
    group = next(g for g in channel_groups(graph) if "a" in g.values)
    np.testing.assert_allclose(importance(graph, weights, group), [5, 2, 0, 1])


def test_a_classifier_without_weights_yet_does_not_hide_what_varies() -> None:
    graph, weights = made("mobilenet_v2")
    weights["classifier.weight"][:] = 0  # as fine-tuning starts
    group = next(g for g in channel_groups(graph) if "head.mean" in g.values)
    assert (importance(graph, weights, group) > 0).all()


def test_a_concatenation_keeps_all_its_channels() -> None:
    graph = Graph(
        {"image": TensorType((8, 8, 3))},
        (
            Node("a", Conv(out_channels=16), ("image",)),
            Node("b", Conv(out_channels=16), ("image",)),
            Node("c", Concat(), ("a", "b")),
            Node("d", Conv(out_channels=32), ("c",)),
            Node("m", Mean(), ("d",)),
            Node("e", Dense(2), ("m",)),
        ),
        {"logits": "e", "embedding": "m"},
    )
    target = narrowed(graph, 0.5)
    assert [target.types[name].shape[-1] for name in "abcdme"] == [16, 16, 32, 16, 16, 2]


def test_another_graph_is_refused() -> None:
    graph, weights = made("mobilenet_v2")
    with pytest.raises(GraphError, match="in one of the graphs only"):
        sliced_weights(graph, weights, build("mobilenet_v1", resolution=64, classes=11))
    with pytest.raises(GraphError, match="which are more"):
        sliced_weights(graph, weights, build("mobilenet_v2", width_multiplier=1.4, resolution=64, classes=11))
    with pytest.raises(GraphError, match="must keep its 11"):
        sliced_weights(graph, weights, build("mobilenet_v2", resolution=64, classes=10))
    del weights["stem.conv.weight"]
    with pytest.raises(GraphError, match="'stem.conv.weight'"):
        sliced_weights(graph, weights, graph)


def test_slicing_never_widens() -> None:
    graph, _ = made("mobilenet_v2", 0.5)
    with pytest.raises(ArgumentError, match=r"--width 0.75: the network is of width 0.5"):
        narrowed(graph, 0.75)


@pytest.mark.parametrize(
    ("name", "width"), [("mobilenet_v2", 0.75), ("mobilenet_v1", 0.5), ("mobilenet_v3_small", 1)]
)
def test_a_folded_network_is_recognised_by_its_layers(name: str, width: float) -> None:
    graph, _ = fold(*made(name, width))
    member = member_of(graph)
    assert member is not None and (member.table, member.width_multiplier) == (name, width)


def test_a_width_of_a_narrow_network_is_the_familys() -> None:
    graph, _ = made("mobilenet_v2", 0.75)
    own = build("mobilenet_v2", width_multiplier=0.35, resolution=64, classes=11)
    target = narrowed(graph, 0.35)
    assert {n: p.shape for n, p in target.parameters().items()} == {
        n: p.shape for n, p in own.parameters().items()
    }


def test_what_is_no_member_is_narrowed_by_its_own_channels() -> None:
    graph = Graph(
        {"image": TensorType((8, 8, 3))},
        (
            Node("a", Conv(out_channels=40, kernel=(5, 5)), ("image",)),
            Node("m", Mean(), ("a",)),
            Node("d", Dense(2), ("m",)),
        ),
        {"logits": "d", "embedding": "m"},
    )
    assert member_of(graph) is None
    assert narrowed(graph, 0.5).types["m"].shape == (24,)
    assert narrowed(graph, 1.0) == graph


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large"])
def test_batch_norms_that_are_put_back_change_no_answer(name: str) -> None:
    graph, weights = fold(*made(name))
    contents = ModelContents(graph, weights, None)
    normed = with_batch_norms(contents)
    norms = [node for node in normed.graph.nodes if isinstance(node.operator, BatchNorm)]
    unfolded = sum(isinstance(node.operator, BatchNorm) for node in made(name)[0].nodes)
    assert len(norms) == unfolded, "as many as were folded"
    normed.graph.check_weights(normed.weights)
    batch = pictures(graph)
    for output, values in reference.run(graph, weights, batch).items():
        again = reference.run(normed.graph, normed.weights, batch)[output]
        np.testing.assert_allclose(again, values, atol=1e-5 * np.abs(values).max())


def test_a_network_with_batch_norms_keeps_its_own() -> None:
    contents = ModelContents(*made("mobilenet_v2"), None)
    assert with_batch_norms(contents) is contents


def test_official_weights_are_sliced(shared: Path) -> None:
    from mobilenet.files.tflite import read_tflite

    path = shared / "weights" / "coral" / "tf2_mobilenet_v2_1.0_224_ptq.tflite"
    contents = with_batch_norms(read_tflite(path, to_float=True))
    target = narrowed(contents.graph, 0.5)
    own = build("mobilenet_v2", width_multiplier=0.5, classes=1000)
    learnt = [p.shape for p in own.parameters().values() if len(p.shape) == 4]
    sliced = [p.shape for p in target.parameters().values() if len(p.shape) == 4]
    assert sliced[: len(learnt)] == learnt
    target.check_weights(sliced_weights(contents.graph, contents.weights, target))

"""A head on a graph that exists already stands on the same values as one that is built with the network."""

from __future__ import annotations

import numpy as np
import pytest

from mobilenet.errors import GraphError
from mobilenet.family.detectors import Ssd, Yolo
from mobilenet.family.graft import found_trunk, grafted
from mobilenet.family.initialise import initialise
from mobilenet.family.names import build, list_models
from mobilenet.graph.fold import fold
from mobilenet.graph.graph import Graph, Node
from mobilenet.run.reference import run

WITHOUT_CLASSIFIER = ("mobilefacenet",)


def anonymous(graph: Graph) -> Graph:
    """The graph with names that say nothing, as a file of somebody else has them."""
    names = {node.name: f"layer_{number}" for number, node in enumerate(graph.nodes)}
    nodes = [Node(names[n.name], n.operator, tuple(names.get(i, i) for i in n.inputs)) for n in graph.nodes]
    return Graph(graph.inputs, tuple(nodes), {name: names[value] for name, value in graph.outputs.items()})


@pytest.mark.parametrize("name", [n for n in list_models() if not n.startswith(WITHOUT_CLASSIFIER)])
def test_every_member_has_the_places_that_its_table_says(name: str) -> None:
    trunk = found_trunk(build(name))
    features = build(name, features_only=True).outputs
    assert {f"features_{stride}": value for stride, value in trunk.last.items()} == features


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"])
@pytest.mark.parametrize("head", [Yolo(), Ssd(light=True), Ssd()], ids=["yolo", "ssdlite", "ssd"])
def test_names_are_not_needed(name: str, head: Yolo | Ssd) -> None:
    """Of a folded network without names the same values are found, by shape alone."""
    small = {"width_multiplier": 0.35, "resolution": 96}
    whole = build(name, **small, classes=4)
    folded, _ = fold(whole, initialise(whole, 1))
    hidden = anonymous(folded)
    graph = grafted(hidden, head, 4, width_multiplier=0.35)
    named = {"yolo": "yolo", True: "ssdlite", False: "ssd"}["yolo" if isinstance(head, Yolo) else head.light]
    own = build(name, **small, classes=4, head=named, dialect="paper")
    assert [graph.types[v].shape for v in graph.outputs.values()] == [
        own.types[v].shape for v in own.outputs.values()
    ]
    theirs = [node for node in graph.nodes if node.name.startswith("layer_")]
    read = {name for node in graph.nodes if not node.name.startswith("layer_") for name in node.inputs}
    taps = [node.name for node in theirs if node.name in read]
    shapes = sorted(graph.types[tap].shape for tap in taps)
    inside = {node.name for node in own.nodes if node.name.startswith(("stem", "blocks.", "head."))}
    wanted = {i for node in own.nodes if node.name not in inside for i in node.inputs if i in inside}
    assert shapes == sorted(own.types[tap].shape for tap in wanted)


def test_the_trunk_computes_what_it_did() -> None:
    graph = build("mobilenet_v2", width_multiplier=0.1, resolution=64, classes=5)
    changed = grafted(graph, Yolo(channels=8), 3)
    weights = initialise(changed, 0)
    picture = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype(np.float32)
    tap = found_trunk(graph).last[16]
    seen = {"tap": tap}
    kept = {name: weights[name] for name in graph.parameters() if name in weights}
    other = Graph(graph.inputs, graph.nodes, seen)
    missing = initialise(graph, 0)
    before = run(other, {**missing, **kept}, {"image": picture})["tap"]
    after = run(Graph(changed.inputs, changed.nodes, seen), weights, {"image": picture})["tap"]
    np.testing.assert_array_equal(before, after)


def test_what_no_head_can_stand_on_is_said() -> None:
    with pytest.raises(GraphError, match="no feature map at stride 32"):
        grafted(build("mobilefacenet"), Yolo(), 3)
    with pytest.raises(GraphError, match="stride 32"):
        grafted(build("mobilenet_v2", output_stride=16), Yolo(), 3)


def test_another_size_is_no_matter_of_the_classifier_that_goes() -> None:
    """Whose pool is as large as the maps were."""
    from mobilenet.graph.ops import AveragePool

    graph = build("mobilenet_v1", width_multiplier=0.25)
    nodes = [Node(n.name, AveragePool((7, 7)), n.inputs) if n.name == "head.mean" else n for n in graph.nodes]
    fixed = Graph(graph.inputs, tuple(n for n in nodes if n.name != "classifier"), {"embedding": "head.mean"})
    with pytest.raises(GraphError):
        fixed.resized(96, 96)
    changed = grafted(fixed, Yolo(), 3, side=96)
    assert changed.types[changed.outputs["scores"]].shape == (12 * 12 + 6 * 6 + 3 * 3, 3)

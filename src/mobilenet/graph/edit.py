"""New graphs from old ones: cut what no output needs, give a classifier another number of classes."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from mobilenet.errors import GraphError
from mobilenet.graph.graph import Graph, Node
from mobilenet.graph.ops import Conv, Dense, Reshape


def pruned(graph: Graph, outputs: dict[str, str]) -> Graph:
    """The part of a graph that these outputs (name -> node) need; raises `GraphError` if a node is unknown."""
    needed = set(outputs.values())
    for node in reversed(graph.nodes):
        if node.name in needed:
            needed.update(node.inputs)
    nodes = tuple(node for node in graph.nodes if node.name in needed)
    return Graph(graph.inputs, nodes, outputs)


def classifier_node(graph: Graph) -> Node:
    """The dense layer (or 1x1 convolution of one pixel) whose output, perhaps reshaped, is "logits".

    Raises:
        GraphError: the graph is no classifier.
    """
    if "logits" not in graph.outputs:
        raise GraphError(f"the graph has no output 'logits'; it has {', '.join(graph.outputs)}")
    name = graph.outputs["logits"]
    while name not in graph.inputs:
        node = graph.node(name)
        if isinstance(node.operator, Dense | Conv) and prod(graph.types[name].shape[:-1]) == 1:
            return node
        if not isinstance(node.operator, Reshape):
            break
        name = node.inputs[0]
    raise GraphError(f"output 'logits' is '{graph.outputs['logits']}', which no classifier layer feeds")


def with_classes(graph: Graph, classes: int) -> Graph:
    """The same network with another number of classes, and outputs "logits" and "embedding" only.

    "embedding" is what the classifier layer reads. The weights of the classifier layer no longer fit.

    Raises:
        GraphError: the graph is no classifier of floats.
    """
    classifier = classifier_node(graph)
    outputs = {"logits": graph.outputs["logits"], "embedding": classifier.inputs[0]}
    kept = pruned(graph, outputs)
    nodes = [_with_classes(node, classifier.name, classes, outputs["logits"]) for node in kept.nodes]
    return Graph(kept.inputs, tuple(nodes), outputs)


def _with_classes(node: Node, classifier: str, classes: int, logits: str) -> Node:
    if node.name == classifier and isinstance(node.operator, Dense):
        return replace(node, operator=replace(node.operator, out_features=classes))
    if node.name == classifier and isinstance(node.operator, Conv):
        return replace(node, operator=replace(node.operator, out_channels=classes))
    if node.name == logits and isinstance(node.operator, Reshape):
        return replace(node, operator=Reshape(shape=(classes,)))
    return node

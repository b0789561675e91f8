"""Batch norms for a network whose file has folded them into its layers.

The function stays the same: a new batch norm begins with mean 0 and variance 1, the layer's bias as beta and the
layer's activation. `renew.measured` then gives it the mean and variance that its values really have.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mobilenet.files.contents import ModelContents
from mobilenet.graph.graph import Graph, Node, Weights
from mobilenet.graph.ops import Add, BatchNorm, Conv, DepthwiseConv, Mean, Mul

SUFFIX = "norm"
EPSILON, MOMENTUM = 1e-3, 0.1


def with_batch_norms(contents: ModelContents) -> ModelContents:
    """The same function with a batch norm after each convolution of a picture; as it is if there is any already.

    Layers behind a mean over the picture (gates, the head) get none: one value a picture is too little to measure
    by. The batch norm of layer "x" is called "x.norm"; an output that was the layer's is the batch norm's.
    """
    graph = contents.graph
    if any(isinstance(node.operator, BatchNorm) for node in graph.nodes):
        return contents
    behind = _behind_a_mean(graph)
    weights = dict(contents.weights)
    nodes: list[Node] = []
    renamed: dict[str, str] = {}
    for node in graph.nodes:
        node = replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs))
        if isinstance(node.operator, Conv | DepthwiseConv) and node.name not in behind:
            linear, norm = _split(node, graph.types[node.name].shape[-1], weights)
            renamed[node.name] = norm.name
            nodes += [linear, norm]
        else:
            nodes.append(node)
    outputs = {name: renamed.get(value, value) for name, value in graph.outputs.items()}
    return replace(contents, graph=Graph(graph.inputs, tuple(nodes), outputs), weights=weights)


def _behind_a_mean(graph: Graph) -> set[str]:
    """Nodes that see one value a channel: a mean, a pool as large as the picture, and what only reads such."""
    found: set[str] = set()
    for node in graph.nodes:
        first = node.inputs[:1] if isinstance(node.operator, Add | Mul) else node.inputs  # a gate is not the value
        pools = isinstance(node.operator, Mean) or _is_single(graph, node)
        if pools or not found.isdisjoint(first):
            found.add(node.name)
    return found


def _is_single(graph: Graph, node: Node) -> bool:
    shape = graph.types[node.name].shape
    return len(shape) == 1 or (shape[:-1] == (1, 1) and not isinstance(node.operator, Conv | DepthwiseConv | Add))


def _split(node: Node, channels: int, weights: Weights) -> tuple[Node, Node]:
    """A layer without bias and activation, and the batch norm that has them; moves their tensors."""
    operator = node.operator
    assert isinstance(operator, Conv | DepthwiseConv)
    name = f"{node.name}.{SUFFIX}"
    ones, zeros = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    beta = weights.pop(f"{node.name}.bias", zeros)
    values = {"gamma": ones, "beta": beta, "mean": zeros, "variance": ones - np.float32(EPSILON)}
    if operator.activation == "prelu":
        values["alpha"] = weights.pop(f"{node.name}.alpha")
    weights.update({f"{name}.{key}": value.copy() for key, value in values.items()})
    norm = BatchNorm(epsilon=EPSILON, momentum=MOMENTUM, activation=operator.activation)
    linear = replace(node, operator=replace(operator, bias=False, activation="none"))
    return linear, Node(name, norm, (node.name,))

"""The same float network in operators that have an integer form: what is calibrated and then quantised.

Integers are wanted for every layer, so before anything is measured

- batch norms and layer scales are folded; one that cannot be (the norm before an attention) becomes a depthwise
  convolution of 1x1, which is the same thing;
- a relu or relu6 of its own joins the layer before it, where it costs nothing;
- every other activation that a layer carries becomes a node after it, because in integers it is a table
  (rule 9 of `run/reference_integer.py`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from mobilenet.graph.fold import fold
from mobilenet.graph.graph import Graph, Node, Weights
from mobilenet.graph.ops import (
    Activation,
    Add,
    AveragePool,
    BatchNorm,
    Conv,
    Dense,
    DepthwiseConv,
    Mul,
    Operator,
)
from mobilenet.run.reference_integer import FUSED, INTEGER_RULES

Layer = Conv | DepthwiseConv | Dense | Add | Mul  # what a relu of its own joins
Carrier = Layer | AveragePool  # a pool's scale is its input's: a relu of its own gets a better one


def has_integer_form(operator: Operator) -> bool:
    """Whether the reference runs this operator on integers; the others stay in float between their neighbours."""
    if isinstance(operator, Mul):
        return not operator.constant
    return type(operator) in INTEGER_RULES and getattr(operator, "activation", "none") != "prelu"


def lower(graph: Graph, weights: Weights) -> tuple[Graph, Weights]:
    """An equal float graph, up to rounding, whose layers carry no activation but relu and relu6.

    Outputs keep their names; a node whose activation was split off is followed by "<node>.activation".

    Args:
        graph: a float graph; batch norms may be folded or not.
        weights: of the graph.
    """
    lowering = _Lowering(*fold(graph, weights))
    for node in lowering.graph.nodes:
        lowering.add(node)
    outputs = {name: lowering.renamed.get(node, node) for name, node in lowering.graph.outputs.items()}
    lowered = Graph(graph.inputs, tuple(lowering.nodes.values()), outputs)
    return lowered, {name: lowering.weights[name] for name in lowered.parameters()}


class _Lowering:
    def __init__(self, graph: Graph, weights: Weights) -> None:
        self.graph = graph
        self.weights = dict(weights)
        self.nodes: dict[str, Node] = {}
        self.renamed: dict[str, str] = {}
        self.read_once = read_once(graph)

    def add(self, node: Node) -> None:
        source = node.inputs[0]
        layer = self.nodes.get(self.renamed.get(source, source))
        node = replace(node, inputs=tuple(self.renamed.get(name, name) for name in node.inputs))
        if layer is not None and source in self.read_once and _joins(layer, node):
            self.nodes[layer.name] = replace(layer, operator=_with_activation(layer.operator, node.operator))
            self.renamed[node.name] = layer.name
            return
        node = self._as_depthwise(node)
        activation = getattr(node.operator, "activation", "none")
        carried = activation not in FUSED and isinstance(node.operator, Carrier)
        if carried and has_integer_form(_plain(node.operator)):
            self._split(node, activation)
        else:
            self.nodes[node.name] = node

    def _split(self, node: Node, activation: str) -> None:
        name = f"{node.name}.activation"
        while name in self.graph.types or name in self.nodes:
            name += "_"
        self.nodes[node.name] = replace(node, operator=_plain(node.operator))
        self.nodes[name] = Node(name, Activation(activation), (node.name,))
        self.renamed[node.name] = name
        if activation == "prelu":
            self.weights[f"{name}.alpha"] = self.weights[f"{node.name}.alpha"]

    def _as_depthwise(self, node: Node) -> Node:
        """A batch norm or layer scale of a picture as a depthwise convolution of 1x1; other nodes as they are."""
        operator = node.operator
        affine = isinstance(operator, BatchNorm) or (isinstance(operator, Mul) and operator.constant)
        shape = self.graph.types[node.name].shape
        if not affine or len(shape) != 3:
            return node
        weight, bias = self.weights.get(f"{node.name}.weight"), None
        if weight is None:
            weight, bias = self._affine(node)
            self.weights[f"{node.name}.bias"] = bias
        self.weights[f"{node.name}.weight"] = weight.reshape(1, 1, -1)
        activation = getattr(operator, "activation", "none")
        return replace(node, operator=DepthwiseConv(bias=bias is not None, activation=activation))

    def _affine(self, node: Node) -> tuple[np.ndarray, np.ndarray]:
        assert isinstance(node.operator, BatchNorm)
        gamma, beta, mean, variance = (
            self.weights[f"{node.name}.{name}"].astype(np.float64)
            for name in ("gamma", "beta", "mean", "variance")
        )
        scale = gamma / np.sqrt(variance + node.operator.epsilon)
        return scale.astype(np.float32), (beta - mean * scale).astype(np.float32)


def read_once(graph: Graph) -> set[str]:
    """The values that exactly one node or output reads."""
    readers = Counter(name for node in graph.nodes for name in node.inputs)
    readers.update(graph.outputs.values())
    return {name for name, times in readers.items() if times == 1}


def _joins(layer: Node, node: Node) -> bool:
    alone = isinstance(node.operator, Activation) and node.operator.activation in ("relu", "relu6")
    return alone and isinstance(layer.operator, Layer) and layer.operator.activation == "none"


def _with_activation(layer: Operator, activation: Operator) -> Operator:
    assert isinstance(layer, Carrier) and isinstance(activation, Activation)
    return replace(layer, activation=activation.activation)


def _plain(layer: Operator) -> Operator:
    return _with_activation(layer, Activation("none"))

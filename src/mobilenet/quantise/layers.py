"""The layers of a lowered graph: what can be in integers or in float on its own."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from mobilenet.graph.graph import Graph, Node
from mobilenet.graph.ops import Activation, ArgMax
from mobilenet.quantise.integer import MOVES
from mobilenet.quantise.lower import has_integer_form, read_once


@dataclass(frozen=True)
class Layer:
    """Nodes that are quantised, or kept in float, together: an operator and the activation that alone reads it.

    Attributes:
        name: of the operator's node.
        kind: of the operator, with its activation.
        nodes: their names.
        macs: multiply-accumulates of one picture.
        parameters: how many numbers.
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    macs: int
    parameters: int


def layers(graph: Graph) -> list[Layer]:
    """The layers of a lowered graph that have an integer form, in the graph's order.

    What only moves numbers (pools, pads, reshapes) is in the form of what it reads, and is no layer.
    """
    alone = read_once(graph)
    joined = {
        node.inputs[0]: node
        for node in graph.nodes
        if isinstance(node.operator, Activation) and node.inputs[0] in alone and has_integer_form(node.operator)
    }
    found: list[Layer] = []
    members: set[str] = set()
    for node in graph.nodes:
        if node.name in members or isinstance(node.operator, (*MOVES, ArgMax)):
            continue
        if has_integer_form(node.operator):
            layer = _layer(graph, node, joined.get(node.name))
            members.update(layer.nodes)
            found.append(layer)
    return found


def _layer(graph: Graph, node: Node, activation: Node | None) -> Layer:
    operator, shapes = node.operator, graph.input_shapes(node)
    fused = getattr(operator, "activation", "none")
    if isinstance(activation, Node) and isinstance(activation.operator, Activation):
        fused = activation.operator.activation
    own = isinstance(operator, Activation)
    words = operator.kind if fused == "none" else fused if own else f"{operator.kind} + {fused}"
    names = (node.name,) if activation is None else (node.name, activation.name)
    parameters = sum(prod(p.shape) for p in operator.parameters(shapes).values())
    return Layer(node.name, words, names, operator.macs(shapes, graph.types[node.name].shape), parameters)

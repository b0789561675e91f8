"""Which values of a graph have the same channels, so that one cannot lose a channel without the others.

A convolution or a dense layer makes channels of its own; what follows it (batch norm, activation, depthwise
convolution, pool) keeps them, and a sum or a gate joins those of both its inputs. Such a set is a group: the
stages of a network between which a residual runs are one group, each widened inside another.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from mobilenet.graph.graph import Graph, Node
from mobilenet.graph.ops import (
    Activation,
    Add,
    AveragePool,
    BatchNorm,
    Conv,
    Dense,
    DepthwiseConv,
    L2Normalise,
    Mean,
    Mul,
    Operator,
    Pad,
    Reshape,
    Resize,
    Shape,
    Transpose,
)

LINEAR = (Conv, Dense)
KEEPING = (Activation, BatchNorm, AveragePool, Mean, Pad, Resize, L2Normalise)


@dataclass(frozen=True)
class Group:
    """Values with the same channels.

    Attributes:
        values: names of inputs and nodes, in the order in which they run.
        channels: how many there are.
        whole: whether none can be left out (the picture, the classes, the heads of an attention).
    """

    values: tuple[str, ...]
    channels: int
    whole: bool


def channel_groups(graph: Graph) -> list[Group]:
    """The groups in the order of their first values; every input and node is in exactly one."""
    sets = _Sets(graph)
    for node in graph.nodes:
        sets.add(node)
    found: dict[str, list[str]] = defaultdict(list)
    for name in graph.types:
        found[sets.root(name)].append(name)
    fixed = {sets.root(name) for name in sets.fixed}
    groups = []
    for root, values in found.items():
        shape = graph.types[values[0]].shape
        groups.append(Group(tuple(values), shape[-1] if shape else 1, root in fixed))
    return groups


class _Sets:
    """Disjoint sets of values; those of `fixed` keep all their channels."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.parents = {name: name for name in graph.types}
        self.fixed = set(graph.inputs)
        self.fixed.update(value for name, value in graph.outputs.items() if name in ("logits", "probabilities"))

    def root(self, name: str) -> str:
        while self.parents[name] != name:
            self.parents[name] = self.parents[self.parents[name]]
            name = self.parents[name]
        return name

    def join(self, first: str, second: str) -> None:
        self.parents[self.root(second)] = self.root(first)

    def add(self, node: Node) -> None:
        shapes = self.graph.input_shapes(node)
        if isinstance(node.operator, LINEAR):
            return
        if isinstance(node.operator, Add | Mul):
            for name, shape in zip(node.inputs, shapes, strict=True):
                if shape[-1:] == self.graph.types[node.name].shape[-1:]:  # a gate of one channel is for all
                    self.join(name, node.name)
        elif _keeps_channels(node.operator, shapes[0], self.graph.types[node.name].shape):
            self.join(node.inputs[0], node.name)
        else:
            read = node.inputs[:1] if isinstance(node.operator, Reshape) else node.inputs  # the second is a size
            self.fixed.update((*read, node.name))


def _keeps_channels(operator: Operator, before: Shape, after: Shape) -> bool:
    """Whether channel i of the output is made of channel i of the input alone."""
    if isinstance(operator, DepthwiseConv):
        return operator.multiplier == 1
    if isinstance(operator, Reshape):
        return bool(before and after) and before[-1] == after[-1]
    if isinstance(operator, Transpose):
        return bool(operator.axes) and operator.axes[-1] == len(before) - 1
    return isinstance(operator, KEEPING)

"""A network at a smaller width: how many channels each of its layers gets.

What the table of the family says is followed where the network is recognised, by its layers and not by its name:
then the result has exactly the shape of the family's own at that width. Any other network gets the nearest
multiples of 8.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from mobilenet.errors import ArgumentError, GraphError
from mobilenet.family.dialects import DIALECTS, Rounding
from mobilenet.family.names import build
from mobilenet.family.tables import TABLES
from mobilenet.graph.edit import classifier_node
from mobilenet.graph.graph import Graph, Node
from mobilenet.graph.ops import Conv, Dense, DepthwiseConv, Reshape, Window
from mobilenet.learn.channels import Group, channel_groups

# Of published weights, the most usual first: several can give the same channels.
WIDTHS = (1.0, 0.75, 0.5, 0.25, 0.35, 1.4, 1.3, 1.25, 1.1, 1.2, 1.5, 2.0, 0.1)
Signature = tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class Member:
    """What a network is: a table of the family, in a dialect, at a width."""

    table: str
    dialect: str
    width_multiplier: float


def narrowed(graph: Graph, width: float, *, dialect: str | None = None) -> Graph:
    """The same network with fewer channels.

    Args:
        graph: of floats; a classifier, or what embeds.
        width: the width multiplier, as the family counts it (a network of width 0.75 at 0.5 keeps two thirds).
            Of what is no member of the family: the share of its own channels, at most 1.
        dialect: whose rounding is followed where several fit; default: the first.

    Returns:
        A graph with the same nodes, inputs and outputs.

    Raises:
        ArgumentError: the network is narrower than that already.
    """
    member = member_of(graph, dialect)
    counts = _family_counts(graph, member, width) if member else {}
    changes = {}
    for group in channel_groups(graph):
        count = group.channels if group.whole else _count(group, counts, width)
        if count > group.channels:
            own = f"of width {member.width_multiplier:g}" if member else "at its own width"
            raise ArgumentError(
                f"--width {width:g}: the network is {own}: '{group.values[0]}' has {group.channels} channels and "
                f"would need {count}; slicing only makes it narrower"
            )
        changes.update(dict.fromkeys(group.values, count))
    return _with_channels(graph, changes)


def _count(group: Group, counts: Mapping[str, int], width: float) -> int:
    """What the family gives a group; the most if it gives several numbers, as it drops a residual there."""
    known = [counts[name] for name in group.values if name in counts]
    if known:
        return max(known)
    return Rounding()(group.channels, width) if width != 1 else group.channels


def _with_channels(graph: Graph, counts: Mapping[str, int]) -> Graph:
    nodes = []
    for node in graph.nodes:
        operator, count = node.operator, counts[node.name]
        if isinstance(operator, Conv):
            operator = replace(operator, out_channels=count)
        elif isinstance(operator, Dense):
            operator = replace(operator, out_features=count)
        elif isinstance(operator, Reshape) and operator.shape[-1] == graph.types[node.name].shape[-1] != 1:
            operator = replace(operator, shape=(*operator.shape[:-1], count))
        nodes.append(replace(node, operator=operator))
    return Graph(graph.inputs, tuple(nodes), graph.outputs)


def member_of(graph: Graph, dialect: str | None = None) -> Member | None:
    """Which member of the family a network is, by its layers; none if it is none.

    Batch norms may be folded, names and padding may be anybody's. The number of classes does not matter.
    """
    wanted = _signature(graph)
    shape = _without_channels(wanted)
    for table, own in _dialects(dialect):
        if shape != _without_channels(_built(table, own, TABLES[table].width_multiplier)[0]):
            continue
        for width in _widths(table):
            if _built(table, own, width)[0] == wanted:
                return Member(table, own, width)
    return None


def _dialects(preferred: str | None) -> Iterator[tuple[str, str]]:
    for table, rows in TABLES.items():
        for name in sorted(DIALECTS[rows.family], key=lambda name: name != preferred):
            yield table, name


def _widths(table: str) -> tuple[float, ...]:
    own = TABLES[table].width_multiplier
    return WIDTHS if own == 1 else (own,)


def _family_counts(graph: Graph, member: Member, width: float) -> dict[str, int]:
    """Layer of the graph -> its channels in the family's network at that width, where that has the layer."""
    wide = _built(member.table, member.dialect, member.width_multiplier)[1]
    narrow = dict(_built(member.table, member.dialect, width)[1])
    names = [node.name for node in _layers(graph)]
    return {name: narrow[theirs] for name, (theirs, _) in zip(names, wide, strict=True) if theirs in narrow}


@cache
def _built(table: str, dialect: str, width: float) -> tuple[Signature, tuple[tuple[str, int], ...]]:
    """The signature of a member, and its layers with their channels."""
    own = TABLES[table].width_multiplier
    given = None if own != 1 and width == own else width
    graph = build(table, width_multiplier=given, dialect=dialect)
    layers = tuple((node.name, graph.types[node.name].shape[-1]) for node in _layers(graph))
    return _signature(graph), layers


def _layers(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if isinstance(node.operator, Conv | Dense | DepthwiseConv)]


def _signature(graph: Graph) -> Signature:
    """Kind, kernel, stride and channels of each layer; a dense layer is a convolution of one pixel."""
    try:
        classifier = classifier_node(graph).name
    except GraphError:
        classifier = ""
    rows = []
    for node in _layers(graph):
        operator = node.operator
        depthwise = isinstance(operator, DepthwiseConv)
        kernel, stride = (operator.kernel, operator.stride) if isinstance(operator, Window) else ((1, 1), (1, 1))
        channels = 0 if node.name == classifier else graph.types[node.name].shape[-1]
        rows.append((depthwise, kernel, stride, channels))
    return tuple(rows)


def _without_channels(signature: Signature) -> Signature:
    return tuple(row[:-1] for row in signature)

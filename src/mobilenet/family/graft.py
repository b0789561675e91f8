"""A new head on a network that exists already: its graph may be anybody's, and its weights stay as they are.

Where a network of the family is built, its table says what each stride ends with. Of a graph from a file nothing
is known but its nodes, so the places are found by shape: where the picture becomes half as large, and what was
there before a block widened it.
"""

from __future__ import annotations

import re

from mobilenet.errors import GraphError
from mobilenet.family.dialects import find_dialect
from mobilenet.family.dilate import dilated
from mobilenet.family.draft import Draft
from mobilenet.family.tables import TABLES
from mobilenet.family.trunk import Head, Trunk
from mobilenet.graph.edit import pruned
from mobilenet.graph.graph import Graph, Node
from mobilenet.graph.ops import Activation, BatchNorm, Conv, Pad

STRIDES = (2, 4, 8, 16, 32)
_LARGE = 320  # pixels: at this size a feature map of stride 32 is not taken for a single pixel
_BLOCK = re.compile(r"blocks\.(\d+)\.")
_TABLE = "mobilenet_v2"  # whose paper's rules the new layers follow: SAME padding, its batch norm
_PASSING = (BatchNorm, Activation, Pad)  # they do not change what a value means


def grafted(
    graph: Graph,
    head: Head,
    classes: int,
    width_multiplier: float = 1.0,
    output_stride: int = 32,
    side: int | None = None,
) -> Graph:
    """The trunk of a classifier (or of whatever has one) under a new head; the trunk's nodes keep their names.

    Args:
        graph: of floats, with one picture as input, that reaches stride 32 step by step.
        head: what is put on it.
        classes: columns of its scores.
        width_multiplier: of the head's own layers.
        output_stride: below 32, the trunk's last strides become dilation: see `dilate`.
        side: of the picture in pixels; default: as it is.

    Raises:
        GraphError: the graph takes no picture, does not reach a stride, cannot work at this size, or has nodes
            named like the head's.
        ArgumentError: the head does not accept the number of classes.
    """
    trunk = found_trunk(graph)
    ends = {*trunk.last.values(), *(name for name in (trunk.wide, trunk.features) if name)}
    kept = pruned(graph, {name: name for name in ends})
    kept = kept if side is None else kept.resized(side, side)
    if output_stride < max(STRIDES):
        kept, trunk = dilated(kept, output_stride), trunk.up_to(output_stride)
    ((image, kind),) = kept.inputs.items()
    draft = Draft(kind.shape, find_dialect("paper", TABLES[_TABLE].family), width_multiplier)
    draft.nodes = list(kept.nodes)
    draft.shapes = {image: kind.shape, **{node.name: kept.types[node.name].shape for node in kept.nodes}}
    outputs = head.add(draft, TABLES[_TABLE], trunk, classes)
    return pruned(Graph(kept.inputs, tuple(draft.nodes), outputs), outputs)


def found_trunk(graph: Graph) -> Trunk:
    """What a graph has at each stride, found by the shapes of its values.

    Raises:
        GraphError: as `grafted`.
    """
    if len(graph.inputs) != 1 or len(next(iter(graph.inputs.values())).shape) != 3:
        raise GraphError("a head needs a network that takes one picture")
    graph = _large(graph)
    spatial = _spatial(graph)
    found = {stride for stride, _ in spatial}
    for stride in STRIDES:
        if stride not in found:
            raise GraphError(f"the network has no feature map at stride {stride}, which a head needs")
    ends = {stride: [node for s, node in spatial if s == stride][-1] for stride in STRIDES}
    last = _named_ends(spatial) or {stride: _before_widening(graph, node) for stride, node in ends.items()}
    first = {stride: next(node.name for s, node in spatial if s == stride) for stride in STRIDES}
    return Trunk(
        first,
        last,
        nominal=graph.types[last[32]].shape[-1],
        wide=_wide(ends[16], last[16]),
        features=ends[32].name if _BLOCK.match(ends[32].name) is None else last[32],
    )


def _named_ends(spatial: list[tuple[int, Node]]) -> dict[int, str]:
    """What the last block at each stride gives, where blocks are named as the family names them; else nothing."""
    blocks = {int(match[1]): (s, node) for s, node in spatial if (match := _BLOCK.match(node.name))}
    ends = {stride: node.name for _, (stride, node) in sorted(blocks.items())}
    stems = {stride: node.name for stride, node in spatial if not node.name.startswith(("blocks.", "head."))}
    named = {**stems, **ends}
    return named if blocks and set(STRIDES) <= named.keys() else {}


def _wide(end: Node, last: str) -> str:
    """The last value at a stride if it is what a block widens its input to, else the last block's."""
    named = _BLOCK.match(end.name)
    return end.name if named is None or end.name.endswith(".expand.batch_norm") else last


def _large(graph: Graph) -> Graph:
    """The graph for a large picture, where its strides can be told apart; as it is if its layers forbid that."""
    try:
        return graph.resized(_LARGE, _LARGE)
    except GraphError:
        return graph


def _spatial(graph: Graph) -> list[tuple[int, Node]]:
    """(stride, node) of the feature maps from the picture to where it becomes one pixel, in order."""
    ((name, kind),) = graph.inputs.items()
    height, width, _ = kind.shape
    found: list[tuple[int, Node]] = []
    followed = {name}
    for node in graph.nodes:
        shape = graph.types[node.name].shape
        if len(shape) != 3 or max(shape[:2]) == 1 or followed.isdisjoint(node.inputs):
            continue
        stride = next((s for s in (1, *STRIDES) if shape[:2] == (-(-height // s), -(-width // s))), None)
        followed.add(node.name)
        if stride is not None and not isinstance(node.operator, Pad):
            found.append((stride, node))
    return found


def _before_widening(graph: Graph, node: Node) -> str:
    """The value itself, or what a 1x1 convolution made it of, if that was narrower."""
    name = node.name
    while isinstance((reader := graph.node(name)).operator, _PASSING):
        name = reader.inputs[0]
        if name in graph.inputs:
            return node.name
    operator = reader.operator
    if not isinstance(operator, Conv) or operator.kernel != (1, 1) or operator.stride != (1, 1):
        return node.name
    before = reader.inputs[0]
    if before in graph.inputs or graph.types[before].shape[-1] >= operator.out_channels:
        return node.name
    return before

"""Which layers `--freeze` keeps as they are."""

from __future__ import annotations

import re
from collections.abc import Collection

from mobilenet.errors import ArgumentError
from mobilenet.graph.graph import Graph
from mobilenet.graph.ops import Activation, Add, BatchNorm, Conv, DepthwiseConv

_BLOCK = re.compile(r"blocks\.(\d+)\.")


def frozen_nodes(graph: Graph, new: Collection[str], freeze: str) -> set[str]:
    """The nodes that do not learn: none ("0"), the stem and the first N blocks ("N"), or all but those that are
    new.

    Blocks are counted by their names "blocks.<number>."; in networks that have no such names a block is a
    depthwise convolution with what widens before it and the convolution (and sum) after it.

    Raises:
        ArgumentError: the network has fewer blocks.
    """
    if freeze == "features":
        return {node.name for node in graph.nodes if node.name not in new}
    count = int(freeze)
    blocks = block_of_nodes(graph)
    total = max(blocks.values(), default=-1) + 1
    if count > total:
        raise ArgumentError(f"--freeze {count}: this network has {total} blocks")
    return {name for name, block in blocks.items() if block < count} if count else set()


def block_of_nodes(graph: Graph) -> dict[str, int]:
    """Node -> number of its block; the stem is -1, and the head, which is in no block, is left out."""
    names = [node.name for node in graph.nodes]
    numbered = {name: int(match[1]) for name in names if (match := _BLOCK.match(name))}
    if not numbered:
        numbered = _counted_blocks(graph)
    first = next((i for i, name in enumerate(names) if name in numbered), 0)
    return {**dict.fromkeys(names[:first], -1), **numbered}


def _counted_blocks(graph: Graph) -> dict[str, int]:
    """A block for each depthwise convolution: from the end of the block before it to its own end."""
    depthwise = [i for i, node in enumerate(graph.nodes) if isinstance(node.operator, DepthwiseConv)]
    blocks: dict[str, int] = {}
    start = depthwise[0] if depthwise else 0
    for number, place in enumerate(depthwise):
        following = depthwise[number + 1] if number + 1 < len(depthwise) else len(graph.nodes)
        end = _end_of_block(graph, place, following)
        blocks.update((node.name, number) for node in graph.nodes[start:end])
        start = end
    return blocks


def _end_of_block(graph: Graph, place: int, following: int) -> int:
    """One past the block's last node: the convolution that follows, with its norm, activation and sum."""
    after = range(place + 1, following)
    end = next((i + 1 for i in after if isinstance(graph.nodes[i].operator, Conv)), following)
    while end < following and isinstance(graph.nodes[end].operator, BatchNorm | Activation | Add):
        end += 1
    return end

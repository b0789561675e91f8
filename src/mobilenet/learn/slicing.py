"""Weights of a narrow network from those of a wide one: the channels that matter most stay, the others go.

What a channel matters is estimated from the weights alone: how much it varies (the deviation that its batch norm
gives it; where batch norms are folded, the norm of the filter that writes it) times how strongly it is read (the
norm of all weights that multiply it). The product is an estimate that needs no pictures. In a group
(`channels.channel_groups`) that several layers write or read, squares are added up, so that the whole group is
ranked at once and all its layers keep the same channels. The scale of a layer does not matter, since channels are
compared within their group only.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mobilenet.errors import GraphError
from mobilenet.graph.graph import Graph, Node, Weights
from mobilenet.graph.ops import BatchNorm, Conv, Dense, DepthwiseConv, Mul
from mobilenet.learn.channels import LINEAR, Group, channel_groups

Reals = NDArray[np.float64]
Kept = Mapping[str, NDArray[np.int64]]
"""Value -> numbers of the channels that stay, rising."""


def sliced_weights(graph: Graph, weights: Weights, target: Graph) -> Weights:
    """Weights for `target`, which has the nodes of `graph` with as many channels or fewer.

    Args:
        graph: the wide network, of floats.
        weights: its weights.
        target: the narrow one: the same nodes by name, kind and inputs.

    Returns:
        The rows and columns of `weights` that belong to the channels that stay; at the same width, all of them.

    Raises:
        GraphError: the graphs differ in more than their channels, or the target is wider somewhere.
    """
    graph.check_weights(weights)
    _check_same_nodes(graph, target)
    kept = kept_channels(graph, weights, target)
    narrow = {}
    for name, parameter in target.parameters().items():
        node_name, _, kind = name.rpartition(".")
        narrow[name] = _cut(graph.node(node_name), kind, weights[name], kept)
        if narrow[name].shape != parameter.shape:
            raise GraphError(f"tensor '{name}' becomes {narrow[name].shape}; the target needs {parameter.shape}")
    return narrow


def kept_channels(graph: Graph, weights: Weights, target: Graph) -> Kept:
    """Which channels of every value stay; of equally important ones the first.

    Raises:
        GraphError: as `sliced_weights`.
    """
    kept = {}
    readers = _readers(graph)
    for group in channel_groups(graph):
        count = _count(group, target)
        chosen = np.arange(group.channels)
        if count < group.channels:
            order = np.argsort(-importance(graph, weights, group, readers), kind="stable")
            chosen = np.sort(order[:count])
        kept.update(dict.fromkeys(group.values, chosen))
    return kept


def importance(
    graph: Graph, weights: Weights, group: Group, readers: Mapping[str, list[Node]] | None = None
) -> Reals:
    """How much each channel of a group matters, float64 (channels); see the head of this file."""
    readers = _readers(graph) if readers is None else readers
    written, read = np.zeros(group.channels), np.zeros(group.channels)
    for name in group.values:
        if name not in graph.inputs:
            written += _written(weights, graph.node(name), readers)
        for reader in readers.get(name, ()):
            if isinstance(reader.operator, LINEAR):
                read += _squares(weights[f"{reader.name}.weight"], -1)
    if not read.any():  # an embedding at the end of the network
        read[:] = 1
    return np.sqrt(written * read)


def _readers(graph: Graph) -> dict[str, list[Node]]:
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    return readers


def _written(weights: Weights, node: Node, readers: Mapping[str, list[Node]]) -> Reals | float:
    """The square of what a node makes of each channel's variation; 0 for what passes a value on.

    Inside of a widened block the depthwise convolution follows the expansion, and both write the group: a channel
    that is faint after either matters less.
    """
    if isinstance(node.operator, BatchNorm):
        gamma: Reals = weights[f"{node.name}.gamma"].astype(np.float64) ** 2
        return gamma
    normed = any(isinstance(reader.operator, BatchNorm) for reader in readers.get(node.name, ()))
    if normed or not isinstance(node.operator, Conv | Dense | DepthwiseConv):
        return 0.0
    axis = -1 if isinstance(node.operator, DepthwiseConv) else 0
    return _squares(weights[f"{node.name}.weight"], axis)


def _squares(array: np.ndarray, axis: int) -> Reals:
    """Sum of squares over all other axes."""
    moved = np.moveaxis(array.astype(np.float64), axis, 0).reshape(array.shape[axis], -1)
    total: Reals = np.square(moved).sum(axis=1)
    return total


def _cut(node: Node, kind: str, array: np.ndarray, kept: Kept) -> np.ndarray:
    """One tensor without the rows and columns of channels that go."""
    own = kept[node.name]
    if isinstance(node.operator, Conv | Dense) and kind == "weight":
        cut = array[own][..., kept[node.inputs[0]]]
    elif isinstance(node.operator, DepthwiseConv | BatchNorm | Mul | Conv | Dense):
        cut = array[..., own]
    elif array.shape[-1:] == own.shape:  # slopes of a prelu
        cut = array
    else:
        cut = array[..., own]
    return np.ascontiguousarray(cut)


def _count(group: Group, target: Graph) -> int:
    """How many channels the target gives a group."""
    counts = {target.types[name].shape[-1] if target.types[name].shape else 1: name for name in group.values}
    name = group.values[0]
    if len(counts) > 1:
        both = " and ".join(f"'{value}' {count}" for count, value in counts.items())
        raise GraphError(f"these have the same channels, but the target gives {both}")
    (count,) = counts
    if count > group.channels:
        raise GraphError(f"'{name}' has {group.channels} channels; the target cannot have {count}, which are more")
    if count < group.channels and group.whole:
        raise GraphError(f"'{name}' must keep its {group.channels} channels; the target has {count}")
    return count


def _check_same_nodes(graph: Graph, target: Graph) -> None:
    if graph.inputs.keys() != target.inputs.keys():
        raise GraphError(f"the inputs differ: {', '.join(graph.inputs)} and {', '.join(target.inputs)}")
    names, wanted = ([node.name for node in g.nodes] for g in (graph, target))
    different = set(names) ^ set(wanted)
    if different:
        raise GraphError(f"node '{min(different)}' is in one of the graphs only")
    for node in graph.nodes:
        other = target.node(node.name)
        if (node.operator.kind, node.inputs) != (other.operator.kind, other.inputs):
            raise GraphError(f"node '{node.name}' is another one in the target")

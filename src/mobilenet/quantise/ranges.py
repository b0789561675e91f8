"""Which real values flow along every edge: measured by running the float network on real inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from math import inf
from typing import NamedTuple

import numpy as np

from mobilenet.errors import ArgumentError
from mobilenet.graph.graph import Graph, Weights
from mobilenet.graph.ops import Activation, Concat, Pad, Reshape, Resize, Transpose
from mobilenet.quantise.lower import read_once
from mobilenet.run.reference import run_node

# Outside of these inputs an activation is constant, or within half a step of 8 bits of it; the integers of a
# value that only such a table reads need not reach further.
_USEFUL = {
    "relu": (0.0, inf),
    "relu6": (0.0, 6.0),
    "hard_swish": (-3.0, inf),
    "hard_sigmoid": (-3.0, 3.0),
    "hard_sigmoid_slim": (-3.0, 3.0),
    "sigmoid": (-6.25, 6.25),
    "gelu": (-4.0, inf),
}


class Range(NamedTuple):
    """The lowest and highest real value; 0 is always within."""

    low: float = 0.0
    high: float = 0.0


def measure_ranges(graph: Graph, weights: Weights, batches: Iterable[np.ndarray]) -> dict[str, Range]:
    """The range of every float value of a graph, inputs included, over all batches.

    Args:
        graph: a float graph with one input.
        weights: of the graph; checked.
        batches: float32 arrays (N, ...) of the input's shape, at least one.

    Raises:
        ArgumentError: no batch, one of another shape or dtype, or values that are not finite.
        GraphError: the weights do not fit.
    """
    graph.check_weights(weights)
    ranges: dict[str, Range] = {}
    for batch in batches:
        for name, value in values_of_run(graph, weights, batch):
            if value.dtype == np.float32:
                ranges[name] = _widened(name, ranges.get(name, Range()), value)
    if not ranges:
        raise ArgumentError("quantisation needs at least one picture to measure the ranges of values on")
    return _narrowed(graph, ranges)


def values_of_run(graph: Graph, weights: Weights, batch: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Every value of a run of the reference, by name and in order; what nothing reads any more is forgotten.

    Raises:
        ArgumentError: the batch is of another shape or dtype than the one input.
    """
    ((name, kind),) = graph.inputs.items()
    if batch.dtype != np.float32 or batch.shape[1:] != kind.shape or len(batch) == 0:
        expected = ", ".join(map(str, kind.shape))
        raise ArgumentError(
            f"a batch is {batch.dtype} {batch.shape}; input '{name}' takes float32 (N, {expected})"
        )
    values = {name: batch}
    yield name, batch
    readers = Counter(name for node in graph.nodes for name in node.inputs)
    for node in graph.nodes:
        values[node.name] = run_node(node, graph, weights, [values[name] for name in node.inputs])
        yield node.name, values[node.name]
        readers.subtract(node.inputs)
        for name in {node.name, *node.inputs}:
            if readers[name] == 0:
                del values[name]


def _widened(name: str, known: Range, value: np.ndarray) -> Range:
    low, high = float(value.min()), float(value.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ArgumentError(f"value '{name}' is not finite on a calibration picture, so it has no range")
    return Range(min(known.low, low), max(known.high, high))


def _narrowed(graph: Graph, ranges: dict[str, Range]) -> dict[str, Range]:
    """Ranges cut to what the activation that alone reads a value can tell apart."""
    narrowed = dict(ranges)
    for name, (low, high) in useful_limits(graph).items():
        narrowed[name] = Range(max(ranges[name].low, low), min(ranges[name].high, high))
    return joined(graph, narrowed)


def joined(graph: Graph, ranges: dict[str, Range]) -> dict[str, Range]:
    """Ranges in which whatever a concatenation alone reads, perhaps enlarged or reshaped, has that of the result.

    The result has one scale, so a finer one of a part would be lost in being requantised to it; runtimes of the
    TFLite family want the parts at the result's scale. Parts that a softmax or another concatenation's rule fixes
    keep theirs.
    """
    shared, alone = dict(ranges), read_once(graph)
    for node in reversed(graph.nodes):
        if not isinstance(node.operator, Concat) or node.name not in shared:
            continue
        for part in node.inputs:
            for name in moved_from(graph, part, alone):
                shared[name] = shared[node.name]
    return shared


def moved_from(graph: Graph, name: str, alone: set[str]) -> Iterator[str]:
    """A value and what it is an enlarged or reshaped copy of, as long as nothing else reads these."""
    while name in alone and name not in graph.inputs:
        yield name
        node = graph.node(name)
        if not isinstance(node.operator, Resize | Reshape | Transpose | Pad):
            return
        name = node.inputs[0]


def useful_limits(graph: Graph) -> dict[str, tuple[float, float]]:
    """Between which numbers a value matters, for those that one activation alone reads."""
    alone = read_once(graph)
    return {
        node.inputs[0]: _USEFUL[node.operator.activation]
        for node in graph.nodes
        if isinstance(node.operator, Activation)
        and node.operator.activation in _USEFUL
        and node.inputs[0] in alone
    }

"""What flows along every edge of the float network on the calibration pictures: one pass, bounded memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mobilenet.errors import ArgumentError
from mobilenet.graph.graph import Graph, Weights
from mobilenet.graph.ops import Conv, Dense, DepthwiseConv
from mobilenet.quantise.histogram import Histogram
from mobilenet.quantise.ranges import values_of_run


@dataclass(frozen=True)
class Observed:
    """Of the values of a lowered graph.

    Attributes:
        histograms: of every float value, inputs included; 33 KB each.
        peaks: of every conv, depthwise conv and dense layer the largest |output| by channel, float64 (channels).
    """

    histograms: dict[str, Histogram]
    peaks: dict[str, np.ndarray]


def observe(graph: Graph, weights: Weights, batches: Iterable[np.ndarray]) -> Observed:
    """Runs the float network on all batches.

    Args:
        graph: a float graph with one input.
        weights: of the graph; checked.
        batches: float32 arrays (N, ...) of the input's shape, at least one.

    Raises:
        ArgumentError: no batch, one of another shape or dtype, or values that are not finite.
        GraphError: the weights do not fit.
    """
    graph.check_weights(weights)
    linear = {node.name for node in graph.nodes if isinstance(node.operator, Conv | DepthwiseConv | Dense)}
    histograms: dict[str, Histogram] = {}
    peaks: dict[str, np.ndarray] = {}
    for batch in batches:
        for name, value in values_of_run(graph, weights, batch):
            if value.dtype != np.float32:
                continue
            if not np.isfinite(value).all():
                raise ArgumentError(f"value '{name}' is not finite on a calibration picture, so it has no range")
            histograms.setdefault(name, Histogram()).add(value)
            if name in linear:
                peak = np.abs(value).max(axis=tuple(range(value.ndim - 1))).astype(np.float64)
                peaks[name] = np.maximum(peaks.get(name, 0.0), peak)
    if not histograms:
        raise ArgumentError("quantisation needs at least one picture to measure the ranges of values on")
    return Observed(histograms, peaks)

"""Bias correction: rounding moves the mean of a layer's outputs, and its bias moves it back.

Empirical, as in Nagel et al. 2019, section 4.2 and appendix D: before the activation, the mean over calibration
pictures and positions of what the float layer gives, less that of what the same layer gives from the integers
that reach it and its rounded weights. Layers are corrected in order, so that each one sees corrected inputs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from mobilenet.graph.graph import Graph, Node, Weights
from mobilenet.graph.ops import Conv, Dense, DepthwiseConv
from mobilenet.quantise.integer import to_integers
from mobilenet.quantise.ranges import Range
from mobilenet.run.quanta import dequantise_array, quantise_array
from mobilenet.run.reference import run_node

Values = dict[str, np.ndarray]
_SILENT = 1e-60


def correct_biases(
    graph: Graph,
    weights: Weights,
    ranges: dict[str, Range],
    batch: np.ndarray,
    keep_float: Collection[str] = (),
    *,
    rounded: Weights | None = None,
    weight_scales: Mapping[str, np.ndarray] | None = None,
) -> Weights:
    """Weights of the float graph whose integer form has the float network's mean outputs.

    Args:
        graph: a lowered float graph with one input.
        weights: of the graph; they are not changed.
        ranges: of every value of the graph.
        batch: float32 (N, ...): the pictures whose mean counts. All of them are held at each layer at once.
        keep_float: as for `to_integers`.
        rounded: what integers are made of, where that is not `weights`.
        weight_scales: as for `to_integers`.

    Returns:
        The weights that integers are made of, with other biases where a layer has one.
    """
    (source,) = graph.inputs
    rounded = weights if rounded is None else rounded
    integer, tensors = to_integers(graph, rounded, ranges, keep_float, weight_scales)
    correcting = _Correcting(graph, weights, integer, tensors)
    kind = integer.inputs[source]
    assert kind.quantisation is not None
    correcting.start(source, batch, quantise_array(batch, kind.quantisation, kind.dtype))
    for node in integer.nodes:
        correcting.step(node)
    return {**rounded, **correcting.corrected}


class _Correcting:
    """Both networks, node by node; the integer graph has the float graph's nodes and some that convert."""

    def __init__(self, graph: Graph, weights: Weights, integer: Graph, tensors: Weights) -> None:
        self.graph, self.weights, self.integer = graph, weights, integer
        self.tensors = dict(tensors)
        self.corrected: Weights = {}
        self.real: Values = {}
        self.stored: Values = {}
        self.own = {node.name: node for node in graph.nodes}
        self.waiting = Counter(name for node in integer.nodes for name in node.inputs)
        self.waiting.update(name for node in graph.nodes for name in node.inputs)

    def start(self, name: str, real: np.ndarray, stored: np.ndarray) -> None:
        self.real[name], self.stored[name] = real, stored

    def step(self, node: Node) -> None:
        inputs = [self.stored[name] for name in node.inputs]
        mine = self.own.get(node.name)
        if mine is not None:
            given = [self.real[name] for name in mine.inputs]
            if _is_corrected(node, self.tensors):
                self._correct(mine, node, given[0], inputs[0])
            self.real[node.name] = run_node(mine, self.graph, self.weights, given)
        self.stored[node.name] = run_node(node, self.integer, self.tensors, inputs)
        for name in (*node.inputs, *(mine.inputs if mine else ())):
            self.waiting[name] -= 1
            if not self.waiting[name]:
                self.real.pop(name, None)
                self.stored.pop(name, None)

    def _correct(self, mine: Node, node: Node, real: np.ndarray, stored: np.ndarray) -> None:
        """Moves the bias, in float and in the integers that the layers behind it will read."""
        kind = self.integer.types[node.inputs[0]]
        assert kind.quantisation is not None
        weight, bias = f"{node.name}.weight", f"{node.name}.bias"
        scale = self.tensors[f"{node.name}.weight_scale"]
        shaped = (
            scale
            if isinstance(node.operator, DepthwiseConv)
            else scale.reshape(-1, *(1,) * (self.tensors[weight].ndim - 1))
        )
        rounded = {weight: (self.tensors[weight] * shaped).astype(np.float32), bias: self.weights[bias]}
        wanted = self._means(mine, self.weights, real)
        found = self._means(mine, rounded, dequantise_array(stored, kind.quantisation))
        self.corrected[bias] = (self.weights[bias] + _certain(wanted - found)).astype(np.float32)
        steps = np.rint(self.corrected[bias] / (kind.quantisation.scale * scale.astype(np.float64)))
        self.tensors[bias] = np.clip(steps, -(2**30), 2**30).astype(np.int32)

    def _means(self, node: Node, weights: Weights, x: np.ndarray) -> np.ndarray:
        """Of each picture, of a layer without its activation: float64 (N, channels)."""
        assert isinstance(node.operator, Conv | DepthwiseConv | Dense)
        plain = replace(node, operator=replace(node.operator, activation="none"))
        y = run_node(plain, self.graph, weights, [x])
        return np.asarray(y.mean(axis=tuple(range(1, y.ndim - 1)), dtype=np.float64))


def _certain(shifts: np.ndarray) -> np.ndarray:
    """The mean shift of each channel, less what chance explains: (N, channels) -> (channels).

    A squeeze-excite or the last layer sees one position a picture, so that the mean of a few pictures is mostly
    noise, which would be added to every picture. The mean is shrunk as James and Stein do: by the share of its
    square that its own variance makes up, and to nothing where that is all.
    """
    mean = shifts.mean(axis=0)
    if len(shifts) < 2:
        return np.asarray(mean)
    variance = shifts.var(axis=0, ddof=1) / len(shifts)
    return np.asarray(mean * np.maximum(1 - variance / np.maximum(mean * mean, _SILENT), 0))


def _is_corrected(node: Node, tensors: Weights) -> bool:
    linear = isinstance(node.operator, Conv | DepthwiseConv | Dense)
    return linear and f"{node.name}.bias" in tensors and f"{node.name}.weight_scale" in tensors

"""From a float graph and the ranges of its values to the integer graph: post-training static quantisation.

Values are uint8 with one scale and zero point each, weights symmetric int8 with one scale an output channel,
biases int32: a subset of the TFLite 8-bit specification that every int8 runtime has fast kernels for. What the
integers then compute is defined by `run/reference_integer.py`, whose rules decide here which values share a scale.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from mobilenet.errors import GraphError
from mobilenet.graph.graph import Graph, Node, Quantisation, TensorType, Weights
from mobilenet.graph.ops import (
    Add,
    ArgMax,
    AveragePool,
    Conv,
    Dense,
    DepthwiseConv,
    Dequantise,
    MatMul,
    Pad,
    Quantise,
    Reshape,
    Resize,
    Softmax,
    Transpose,
)
from mobilenet.quantise.lower import has_integer_form
from mobilenet.quantise.ranges import Range

DTYPE = "uint8"
STEPS = 255  # from the lowest to the highest integer
WEIGHT_LEVELS = 127  # -128 is left out: weights are symmetric

# Rule 7, MaxPool too. These are no layers: integers or floats, as what they read is.
MOVES = (AveragePool, Pad, Resize, Reshape, Transpose)
_NARROWEST = 1e-8  # a value that never changes still needs a scale above 0
NEAR_SIX = 0.9  # of 6: from here on a relu6 gets all of 0..6, so that its clamp is the integer's own
# Rule 6 takes an input's scale of 2^-10 to 2^8 times the output's; half of it is left to rounding.
ADD_RATIOS = (2.0**-9, 2.0**7)
SMALLEST_MULTIPLIER = 2.0**-32  # of a requantisation: any int32 times this rounds to 0


def to_integers(
    graph: Graph,
    weights: Weights,
    ranges: dict[str, Range],
    keep_float: Collection[str] = (),
    weight_scales: Mapping[str, np.ndarray] | None = None,
) -> tuple[Graph, Weights]:
    """The integer form of a lowered float graph.

    Operators without an integer form (prelu; an affine node that is no picture's) keep float between a dequantise
    and a quantise node. Inputs become uint8; outputs keep their names and are uint8 (argmax: int64).

    Args:
        graph: what `lower.lower` returns.
        weights: of the graph.
        ranges: of every float value of the graph.
        keep_float: names of nodes that keep float too; an output that one of them writes is float32.
        weight_scales: node -> float64 (channels), where they were learnt; default: the largest weight is 127.

    Raises:
        GraphError: a sum of products is too long for int32; the node is named.
    """
    making = _Making(graph, weights, ranges, keep_float, weight_scales or {})
    for node in graph.nodes:
        making.add(node)
    outputs = {name: making.final(value) for name, value in graph.outputs.items()}
    integer = Graph(making.inputs, tuple(making.nodes), outputs)
    return integer, making.tensors


def quantisation_of(span: Range) -> Quantisation:
    """The uint8 scale and zero point that cover a range, to which 0 is added: 0 is always exact."""
    low, high = min(span.low, 0.0), max(span.high, 0.0)
    scale = _float32(max(high - low, _NARROWEST) / STEPS)
    return Quantisation(scale, int(np.clip(np.rint(-low / scale), 0, STEPS)))


def _float32(value: float) -> float:
    return float(np.float32(value))


class _Making:
    """The integer graph so far; `integers` and `floats` name where a value of the float graph is found now."""

    def __init__(
        self,
        graph: Graph,
        weights: Weights,
        ranges: dict[str, Range],
        keep_float: Collection[str],
        weight_scales: Mapping[str, np.ndarray],
    ) -> None:
        self.graph, self.weights, self.ranges = graph, weights, ranges
        self.weight_scales = weight_scales
        self.kept = set(keep_float)
        self.nodes: list[Node] = []
        self.tensors: Weights = {}
        self.quantisations = {name: quantisation_of(ranges[name]) for name in graph.inputs}
        self.inputs = {
            name: TensorType(kind.shape, DTYPE, self.quantisations[name]) for name, kind in graph.inputs.items()
        }
        self.integers = {name: name for name in graph.inputs}
        self.floats: dict[str, str] = {}
        self.multiplied = {
            name for node in graph.nodes if isinstance(node.operator, MatMul) for name in node.inputs
        }

    def add(self, node: Node) -> None:
        if isinstance(node.operator, MOVES) and node.inputs[0] in self.kept:
            self.kept.add(node.name)
        if has_integer_form(node.operator) and node.name not in self.kept:
            self._add_integer(node)
        else:
            self._add_float(node)

    def final(self, name: str) -> str:
        """Where an output of the float graph is found: in integers, unless it is no real number or kept."""
        return name if self.graph.types[name].dtype == "int64" or name in self.kept else self._integer(name)

    def _add_integer(self, node: Node) -> None:
        inputs = tuple(self._integer(name) for name in node.inputs)
        if isinstance(node.operator, ArgMax):
            self.nodes.append(replace(node, inputs=inputs))
            return
        quantisation = self._quantisation(node)
        self.quantisations[node.name] = quantisation
        self.integers[node.name] = node.name
        self.nodes.append(replace(node, inputs=inputs, dtype=DTYPE, quantisation=quantisation))
        if isinstance(node.operator, Conv | DepthwiseConv | Dense):
            self._add_weights(node, self.quantisations[node.inputs[0]].scale, quantisation.scale)

    def _add_float(self, node: Node) -> None:
        self.nodes.append(replace(node, inputs=tuple(self._float(name) for name in node.inputs)))
        self.floats[node.name] = node.name
        for name in node.operator.parameters(self.graph.input_shapes(node)):
            self.tensors[f"{node.name}.{name}"] = self.weights[f"{node.name}.{name}"]

    def _integer(self, name: str) -> str:
        if name not in self.integers:
            self.quantisations[name] = quantisation_of(self.ranges[name])
            self.integers[name] = self._converted(name, "quantised")
            quantise = Node(self.integers[name], Quantise(), (name,), DTYPE, self.quantisations[name])
            self.nodes.append(quantise)
        return self.integers[name]

    def _float(self, name: str) -> str:
        if name not in self.floats:
            self.floats[name] = self._converted(name, "dequantised")
            self.nodes.append(Node(self.floats[name], Dequantise(), (self.integers[name],)))
        return self.floats[name]

    def _converted(self, name: str, how: str) -> str:
        wanted = f"{name}.{how}"
        while wanted in self.graph.types:
            wanted += "_"
        return wanted

    def _quantisation(self, node: Node) -> Quantisation:
        operator, span = node.operator, self.ranges[node.name]
        if isinstance(operator, MOVES):
            return self.quantisations[node.inputs[0]]
        if isinstance(operator, Softmax):  # an attention may be flat over many keys: then it needs finer steps
            high = span.high if node.name in self.multiplied else 1.0
            return Quantisation(min(_float32(high / STEPS), 1 / 256))
        if getattr(operator, "activation", "none") == "relu6" and span.high > 6 * NEAR_SIX:
            span = Range(0.0, 6.0)
        quantisation = quantisation_of(span)
        return self._for_sum(node, quantisation) if isinstance(operator, Add) else quantisation

    def _for_sum(self, node: Node, quantisation: Quantisation) -> Quantisation:
        """The same, unless the sum cancels so far that rule 6 could not scale its inputs to it."""
        largest = max(self.quantisations[name].scale for name in node.inputs)
        low, high = ADD_RATIOS
        scale = _float32(min(max(quantisation.scale, largest / high), largest / low))
        return replace(quantisation, scale=scale)

    def _add_weights(self, node: Node, scale_in: float, scale_out: float) -> None:
        weight = self.weights[f"{node.name}.weight"].astype(np.float64)
        bias = self.weights.get(f"{node.name}.bias", np.zeros(1)).astype(np.float64)
        channels_last = isinstance(node.operator, DepthwiseConv)
        by_channel = weight.reshape(-1, weight.shape[-1]).T if channels_last else weight.reshape(len(weight), -1)
        room = room_for_bias(node, by_channel.shape[1])
        scale = self.weight_scales.get(node.name, np.abs(by_channel).max(axis=1) / WEIGHT_LEVELS)
        scale = np.maximum(scale, np.abs(bias) / (scale_in * room))
        scale = np.maximum(scale, scale_out / scale_in * SMALLEST_MULTIPLIER).astype(np.float32)
        shaped = scale if channels_last else scale.reshape(-1, *(1,) * (weight.ndim - 1))
        integers = np.clip(np.rint(weight / shaped), -WEIGHT_LEVELS, WEIGHT_LEVELS)
        tensors = {
            "weight": integers.astype(np.int8),
            "weight_scale": scale,
            "weight_zero_point": np.zeros(1, np.int32),
        }
        if f"{node.name}.bias" in self.weights:
            steps = np.rint(bias / (scale_in * scale.astype(np.float64)))
            tensors["bias"] = np.clip(steps, -room, room).astype(np.int32)
        self.tensors |= {f"{node.name}.{name}": tensor for name, tensor in tensors.items()}


def room_for_bias(node: Node, terms: int) -> int:
    """How large a bias may be so that bias and `terms` products together fit int32."""
    room = 2**31 - 1 - terms * STEPS * WEIGHT_LEVELS
    if room < 2**24:
        raise GraphError(
            f"node '{node.name}' ({node.operator.kind}) sums {terms} products, which int32 cannot hold; "
            "quantise a network with a smaller input or narrower layers"
        )
    return room

"""What a graph costs: parameters, multiply-accumulates, bytes of weights and activations."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from mobilenet.graph.graph import Graph, Node
from mobilenet.graph.memory import Layers, peak_activation_bytes, value_bytes
from mobilenet.graph.ops import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv,
    DepthwiseConv,
    MatMul,
    Mul,
    Pad,
    Shape,
)

# What a depthwise convolution's output passes through on its way to its pointwise convolution.
_BETWEEN = (BatchNorm, Activation, Mul, AveragePool, Pad)
# No numbers that are learnt: running statistics, and how integers stand for real numbers.
_NOT_COUNTED = ("mean", "variance", "weight_scale", "weight_zero_point")


@dataclass(frozen=True)
class NodeCost:
    """What one node costs for one picture.

    Args:
        name: of the node.
        kind: of its operator.
        shape: of its output, without the batch.
        params: learnt numbers.
        macs: multiply-accumulates.
        activation_bytes: of its output; 0 where it is written over the input (see `in_place`).
        in_place: whether it runs inside of the layer before it: a batch norm that will be folded, an activation,
            a layer scale, a reshape.
    """

    name: str
    kind: str
    shape: Shape
    params: int
    macs: int
    activation_bytes: int
    in_place: bool


@dataclass(frozen=True)
class Cost:
    """What a whole graph costs for one picture.

    Args:
        nodes: in running order.
        params: learnt numbers: weights, biases, gamma and beta; no running statistics.
        macs: multiply-accumulates of convolutions and dense layers, as the papers count.
        attention_macs: those of matrix products, which the papers leave out.
        standard_convolution_macs: `macs` if each depthwise convolution, together with the pointwise one that
            reads it, were one standard convolution (V1, 3.1).
        weights_bytes: of all tensors of the graph as it is, running statistics too.
        peak_activation_bytes: see `mobilenet.graph.memory`.
        peak_activation_bytes_banded: the same with inverted residuals evaluated in bands.
    """

    nodes: tuple[NodeCost, ...]
    params: int
    macs: int
    attention_macs: int
    standard_convolution_macs: int
    weights_bytes: int
    peak_activation_bytes: int
    peak_activation_bytes_banded: int

    @property
    def ratio(self) -> float:
        """`macs` over `standard_convolution_macs`: 1/N + 1/K^2 for one depthwise separable layer (V1, 3.1)."""
        return self.macs / self.standard_convolution_macs if self.standard_convolution_macs else 1.0


def cost(graph: Graph, *, float_bytes: int = 4) -> Cost:
    """What the graph costs for one picture.

    Args:
        graph: float or quantised; integers count 1 byte, indices 8.
        float_bytes: of a float activation: 4, or 2 for half precision.
    """
    layers = Layers(graph)
    nodes = tuple(_node_cost(layers, node, float_bytes) for node in graph.nodes)
    attention = sum(n.macs for n in nodes if n.kind == MatMul.kind)
    macs = sum(n.macs for n in nodes) - attention
    return Cost(
        nodes=nodes,
        params=sum(n.params for n in nodes),
        macs=macs,
        attention_macs=attention,
        standard_convolution_macs=macs + _standard_convolution_excess(graph, {n.name: n.macs for n in nodes}),
        weights_bytes=_weights_bytes(graph),
        peak_activation_bytes=peak_activation_bytes(graph, float_bytes=float_bytes),
        peak_activation_bytes_banded=peak_activation_bytes(graph, float_bytes=float_bytes, banded=True),
    )


def _node_cost(layers: Layers, node: Node, float_bytes: int) -> NodeCost:
    kind, shapes = layers.graph.types[node.name], layers.graph.input_shapes(node)
    parameters = node.operator.parameters(shapes)
    in_place = layers.runs_in_place(node.name)
    return NodeCost(
        name=node.name,
        kind=node.operator.kind,
        shape=kind.shape,
        params=sum(prod(p.shape) for name, p in parameters.items() if name not in _NOT_COUNTED),
        macs=node.operator.macs(shapes, kind.shape),
        activation_bytes=0 if in_place else value_bytes(kind, float_bytes),
        in_place=in_place,
    )


def _weights_bytes(graph: Graph) -> int:
    sizes = {"int8": 1, "uint8": 1}
    return sum(prod(p.shape) * sizes.get(p.dtypes[0], 4) for p in graph.parameters().values())


def _standard_convolution_excess(graph: Graph, macs: dict[str, int]) -> int:
    """How many more multiply-accumulates standard convolutions in the place of depthwise ones would take."""
    pointwise = _pointwise_readers(graph)
    excess = 0
    for node in graph.nodes:
        if isinstance(node.operator, DepthwiseConv):
            reader = pointwise.get(node.name)
            outputs = graph.types[reader or node.name].shape[-1]
            excess += macs[node.name] // node.operator.multiplier * outputs
            excess -= macs[node.name] + (macs[reader] if reader else 0)
    return excess


def _pointwise_readers(graph: Graph) -> dict[str, str]:
    """Depthwise convolution -> the 1x1 convolution that reads it."""
    nodes = {node.name: node for node in graph.nodes}
    readers: dict[str, str] = {}
    for node in graph.nodes:
        if not isinstance(node.operator, Conv) or (node.operator.kernel, node.operator.stride) != ((1, 1), (1, 1)):
            continue
        source = nodes.get(node.inputs[0])
        while source is not None and isinstance(source.operator, _BETWEEN):
            source = nodes.get(source.inputs[0])
        if source is not None and isinstance(source.operator, DepthwiseConv):
            readers[source.name] = node.name
    return readers

"""What TFLite writes as operators of their own, in the fields where a graph has it: padding and activations.

A PAD that only a convolution without padding reads is that convolution's padding, and a float activation of a
layer that nothing else reads is the layer's. An operator that is counted in floats between a DEQUANTIZE and a
QUANTIZE, as files have it where TFLite's integer form is missing or coarse, is the integer operator. Integers that
a QUANTIZE brings to the one scale of a CONCATENATION are converted by it. The numbers stay the same.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from mobilenet.graph.graph import Graph, Node, Weights
from mobilenet.graph.ops import (
    Activation,
    Add,
    Concat,
    Conv,
    Dense,
    DepthwiseConv,
    Dequantise,
    L2Normalise,
    Mul,
    Pad,
    Quantise,
    Softmax,
)

Carrier = Conv | DepthwiseConv | Dense | Add | Mul


def tidied(graph: Graph, weights: Weights) -> tuple[Graph, Weights]:
    """An equal graph; nodes that remain keep their names, and a layer with its activation goes by the layer's."""
    readers = Counter(name for node in graph.nodes for name in node.inputs)
    readers.update(graph.outputs.values())
    nodes: dict[str, Node] = {}
    renamed: dict[str, str] = {}
    kept = dict(weights)
    for node in graph.nodes:
        node = replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs))
        before = nodes.get(node.inputs[0])
        alone = before is not None and readers[before.name] == 1
        if alone and before is not None and _is_its_padding(before, node):
            del nodes[before.name]
            node = _with_padding(node, before)
        elif alone and before is not None and _is_its_activation(before, node):
            _join(before, node, nodes, kept)
            renamed[node.name] = before.name
            readers[before.name] = readers[node.name]
            continue
        elif alone and before is not None and _is_counted_in_floats(nodes, before, node):
            source = nodes[before.inputs[0]]
            del nodes[before.name]
            if readers[source.name] == 1:
                del nodes[source.name]
            node = replace(node, operator=before.operator, inputs=source.inputs)
        elif isinstance(node.operator, Concat):
            node = _converting(graph, nodes, readers, node)
        nodes[node.name] = node
    outputs = {output: renamed.get(value, value) for output, value in graph.outputs.items()}
    return Graph(graph.inputs, tuple(nodes.values()), outputs), kept


def _is_its_padding(pad: Node, node: Node) -> bool:
    operator = node.operator
    fits = isinstance(operator, Conv | DepthwiseConv) and not any(operator.padding)
    return isinstance(pad.operator, Pad) and fits


def _with_padding(node: Node, pad: Node) -> Node:
    assert isinstance(node.operator, Conv | DepthwiseConv) and isinstance(pad.operator, Pad)
    operator = replace(node.operator, padding=pad.operator.padding, same=False)
    return replace(node, operator=operator, inputs=pad.inputs)


def _is_its_activation(layer: Node, node: Node) -> bool:
    alone = isinstance(node.operator, Activation) and node.quantisation is None and layer.quantisation is None
    return alone and isinstance(layer.operator, Carrier) and layer.operator.activation == "none"


def _is_counted_in_floats(nodes: dict[str, Node], layer: Node, node: Node) -> bool:
    """Whether a node quantises what an operator, which has an integer form, makes of dequantised integers."""
    operator, source = layer.operator, nodes.get(layer.inputs[0])
    table = isinstance(operator, Activation) and operator.activation != "prelu"
    counts = table or isinstance(operator, Softmax | L2Normalise)
    both = source is not None and isinstance(source.operator, Dequantise) and isinstance(node.operator, Quantise)
    return counts and both and layer.quantisation is None


def _converting(graph: Graph, nodes: dict[str, Node], readers: Counter[str], node: Node) -> Node:
    """A concatenation that reads its inputs at their own scales; what converted them for it goes."""
    inputs = []
    for name in node.inputs:
        before, kind = nodes.get(name), graph.types[name]
        converts = before is not None and isinstance(before.operator, Quantise) and readers[name] == 1
        same = (kind.dtype, kind.quantisation) == (node.dtype, node.quantisation)
        if converts and same and before is not None and graph.types[before.inputs[0]].integer:
            del nodes[name]
            name = before.inputs[0]
        inputs.append(name)
    return replace(node, inputs=tuple(inputs))


def _join(layer: Node, node: Node, nodes: dict[str, Node], weights: Weights) -> None:
    assert isinstance(layer.operator, Carrier) and isinstance(node.operator, Activation)
    operator = replace(layer.operator, activation=node.operator.activation)
    nodes[layer.name] = replace(layer, operator=operator)
    if f"{node.name}.alpha" in weights:
        weights[f"{layer.name}.alpha"] = weights.pop(f"{node.name}.alpha")

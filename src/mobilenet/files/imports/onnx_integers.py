"""From the quantise and dequantise nodes of a QDQ file to layers on integers.

A layer whose inputs are all integers in real form, and whose result is quantised and read in no other way, is a
layer on integers. What only moves elements works on integers as they are. Everything else stays in float, between
the nodes that convert for it.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import TypeGuard

import numpy as np

from mobilenet.errors import UnsupportedOperatorError
from mobilenet.files.imports.onnx_graph import INPUT, Conversion
from mobilenet.files.imports.onnx_quantised import Integers
from mobilenet.graph import ops
from mobilenet.graph.graph import Node, Quantisation, Weights

MOVING = (ops.MaxPool, ops.Pad, ops.Reshape, ops.Transpose)  # each output is an input, or a zero
AVERAGING = (ops.AveragePool, ops.Resize)  # on integers at the scale that they have
LINEAR = (ops.Conv, ops.DepthwiseConv, ops.Dense)
COUNTING = (*LINEAR, ops.Add, ops.Mul, ops.Mean, ops.MatMul, ops.Concat, ops.Softmax, ops.L2Normalise)
FUSED = ("none", "relu", "relu6")
BIAS_TOLERANCE = 1e-3  # of a bias' scale from the product of the input's and the weight's


def settle(conversion: Conversion, outputs: dict[str, str], *, ends: bool) -> dict[str, str]:
    """Puts the integer layers together, in the conversion's nodes and weights.

    Args:
        conversion: all of the file.
        outputs: name -> node.
        ends: whether outputs that are integers in real form are to be the integers.

    Returns:
        the outputs.

    Raises:
        UnsupportedOperatorError: an integer input is read as if it were real.
    """
    if not any(isinstance(node.operator, ops.Quantise | ops.Dequantise) for node in conversion.nodes.values()):
        return outputs
    settling = _Settling(conversion, outputs)
    for node in conversion.nodes.values():
        settling.add(replace(node, inputs=tuple(settling.renamed.get(name, name) for name in node.inputs)))
    conversion.nodes = settling.nodes
    found = {name: settling.renamed.get(value, value) for name, value in outputs.items()}
    return {name: settling.integers.get(value, value) for name, value in found.items()} if ends else found


class _Settling:
    def __init__(self, conversion: Conversion, outputs: dict[str, str]) -> None:
        self.conversion = conversion
        self.nodes: dict[str, Node] = {}
        self.integers: dict[str, str] = {}  # a value in real form -> the integers that it stands for
        self.renamed: dict[str, str] = {}
        self.moved: set[str] = set()  # integers that were only moved
        self.readers = Counter(name for node in conversion.nodes.values() for name in node.inputs)
        self.readers.update(outputs.values())

    def add(self, node: Node) -> None:
        if isinstance(node.operator, ops.Dequantise):
            self.integers[node.name] = node.inputs[0]
            self.nodes[node.name] = node
        elif isinstance(node.operator, ops.Quantise):
            self._quantise(node)
        elif _moves(node.operator) and node.inputs[0] in self.integers:
            self._move(node)
        elif isinstance(node.operator, ops.ArgMax) and node.inputs[0] in self.integers:
            self.nodes[node.name] = replace(node, inputs=(self.integers[node.inputs[0]],))
        elif INPUT in node.inputs and self.conversion.inputs[INPUT].integer:
            raise UnsupportedOperatorError(f"node '{node.name}' reads the integers of the input as real numbers")
        else:
            self.nodes[node.name] = node

    def _kind(self, name: str) -> tuple[str, Quantisation]:
        kind = self.nodes.get(name, self.conversion.inputs.get(name))
        assert kind is not None and kind.quantisation is not None
        return kind.dtype, kind.quantisation

    def _quantise(self, node: Node) -> None:
        (source,) = node.inputs
        held, layer = self.integers.get(source), self.nodes.get(source)
        if self._is_written_twice(held) and self._kind(held) == (node.dtype, node.quantisation):
            self.renamed[node.name] = held
        elif held is not None:  # integers of another scale, or of another dtype
            self.nodes[node.name] = replace(node, inputs=(held,))
        elif layer is not None and self.readers[source] == 1 and self._turned(layer, node):
            self.renamed[node.name] = source
        else:
            self.nodes[node.name] = node

    def _is_written_twice(self, name: str | None) -> TypeGuard[str]:
        """Whether a file may have these integers a second time: where they were moved, or on the way to a sum."""
        return name in self.moved or (name in self.nodes and isinstance(self.nodes[name].operator, LINEAR))

    def _move(self, node: Node) -> None:
        held = self.integers[node.inputs[0]]
        dtype, quantisation = self._kind(held)
        self.nodes[node.name] = Node(node.name, node.operator, (held,), dtype, quantisation)
        self.moved.add(node.name)
        real = f"{node.name}.real"
        self.nodes[real] = Node(real, ops.Dequantise(), (node.name,))
        self.integers[real], self.renamed[node.name] = node.name, real

    def _turned(self, layer: Node, written: Node) -> bool:
        """Makes a float layer one on integers; false if it has no such form."""
        if not all(name in self.integers for name in layer.inputs) or not _counts(layer.operator):
            return False
        inputs = tuple(self.integers[name] for name in layer.inputs)
        kinds = [self._kind(name)[1] for name in inputs]
        assert written.quantisation is not None
        if isinstance(layer.operator, AVERAGING) and self._kind(inputs[0]) != (
            written.dtype,
            written.quantisation,
        ):
            return False
        if isinstance(layer.operator, ops.Add) and not _in_fixed_point(kinds, written.quantisation):
            return False
        if isinstance(layer.operator, LINEAR):
            weights = _integer_weights(self.conversion, layer, kinds[0])
            if weights is None:
                return False
            self.conversion.weights |= weights
        self.nodes[layer.name] = Node(layer.name, layer.operator, inputs, written.dtype, written.quantisation)
        return True


def _moves(operator: ops.Operator) -> bool:
    plain = getattr(operator, "activation", "none") == "none"
    return plain and (
        isinstance(operator, MOVING) or (isinstance(operator, ops.Resize) and operator.method == "nearest")
    )


def _counts(operator: ops.Operator) -> bool:
    if isinstance(operator, ops.Activation):
        return operator.activation != "prelu"
    if isinstance(operator, ops.Mul) and operator.constant:
        return False
    fused = getattr(operator, "activation", "none") in FUSED
    return fused and isinstance(operator, (*COUNTING, *AVERAGING))


def _in_fixed_point(summands: list[Quantisation], total: Quantisation) -> bool:
    """Whether an integer sum has room for the ratio of its scales (`reference_integer`, rule 6)."""
    ratio = max(np.float32(kind.scale) / np.float32(total.scale) for kind in summands)
    return 12 < 20 - math.frexp(float(ratio))[1] + 1 <= 30


def _integer_weights(conversion: Conversion, layer: Node, read: Quantisation) -> Weights | None:
    """The parameters of a layer as they are stored; none if they are not, or not with scales by output channel."""
    weight = _part(conversion, f"{layer.name}.weight")
    if weight is None or str(weight.values.dtype) not in ("int8", "uint8") or np.ptp(weight.zero_point):
        return None
    found = {
        "weight": np.ascontiguousarray(weight.values),
        "weight_scale": weight.scale,
        "weight_zero_point": np.array([weight.zero_point[0]], np.int32),
    }
    if layer.operator.bias:  # type: ignore[attr-defined]
        bias = _part(conversion, f"{layer.name}.bias")
        if bias is None or bias.values.dtype != np.int32 or bias.zero_point.any():
            return None
        products = np.float32(read.scale) * weight.scale
        if not np.allclose(bias.scale, products, rtol=BIAS_TOLERANCE, atol=0):
            return None
        found["bias"] = np.ascontiguousarray(bias.values)
    return {f"{layer.name}.{name}": array for name, array in found.items()}


def _part(conversion: Conversion, name: str) -> Integers | None:
    """A parameter of a node as it is stored, in the order that our graph has."""
    if name not in conversion.parts:
        return None
    source, layout, axis = conversion.parts[name]
    stored = conversion.stored.get(conversion.root(source))
    if stored is None or (stored.scale.size > 1 and stored.axis != axis):
        return None
    return replace(stored, values=layout(stored.values))

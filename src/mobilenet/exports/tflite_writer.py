"""A float or integer graph as a .tflite file, in TFLite's own operators.

TFLite's kernels take int8 values with int8 weights, one scale for each output channel, or uint8 values with uint8
weights. Of a graph with uint8 values and int8 weights, each value is therefore shifted by 128, zero point and all:
it stands for the same real number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mobilenet.errors import UnsupportedOperatorError
from mobilenet.exports.tflite_builder import Scales, TfliteBuilder
from mobilenet.exports.ties import SLOPES, gate_offset
from mobilenet.family.decoding import Decoding
from mobilenet.graph import ops
from mobilenet.graph.graph import Graph, Node, Quantisation, TensorType, Weights

FUSED = {
    "none": schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}
ACTIVATIONS = {
    "relu": "RELU",
    "relu6": "RELU6",
    "hard_swish": "HARD_SWISH",
    "sigmoid": "LOGISTIC",
    "gelu": "GELU",
}
SHIFT = 128  # from uint8 to int8
UNIT = (1 / 256, -128)  # scale and zero point (in int8) that TFLite's softmax and sigmoid have to have
CENTRED = (1 / 128, 0)  # the same of its l2 normalisation
# LiteRT's integer h-swish counts in 16 bits: up to 1.4% of a layer's outputs are one quantum away, which the
# layers behind it make more of, and XNNPACK does not have it. In floats it is exact, and stays with the layers
# around it.
NO_SCALE = (0.0, 0)


def to_tflite(
    graph: Graph,
    weights: Weights,
    *,
    batch: int | None = 1,
    float_ends: bool = True,
    pixels: bool = False,
    metadata: Mapping[str, bytes] | None = None,
    decoding: Decoding | None = None,
) -> bytes:
    """The same network as a .tflite file.

    Args:
        graph: of floats, of integers, or of both; TFLite has no batch norm, so one that is not folded becomes a
            product and a sum.
        weights: "<node>.<parameter>" -> array; `graph.check_weights` must hold.
        batch: how many pictures at once; None leaves it open: 1, until the runtime is told another number.
        float_ends: whether a quantised network takes and gives float32 (it converts them itself).
        pixels: whether a uint8 input stays uint8, as pictures are; else it becomes int8, as all other values do.
        metadata: what the file says beside the network, by the names of the schema's metadata entries.
        decoding: of a detector whose file is to give boxes (`tflite_boxes.add_boxes`), not its raw outputs.

    Returns:
        the bytes of the file. Inputs and outputs are in the graph's order; values are (N, height, width,
        channels) as in the graph.

    Raises:
        UnsupportedOperatorError: an operator that TFLite's format cannot hold; the node is named.
        GraphError: the weights do not fit the graph.
    """
    graph.check_weights(weights)
    writer = TfliteWriter(graph, weights, batch, float_ends, pixels)
    for name, kind in graph.inputs.items():
        writer.add_input(name, kind)
    for node in graph.nodes:
        writer.add_node(node)
    if decoding is None:
        return writer.pack(metadata or {}, writer.outputs())
    from mobilenet.exports.tflite_boxes import add_boxes

    return writer.pack(metadata or {}, add_boxes(writer, decoding))


@dataclass
class TfliteWriter:
    """The file so far; a value's tensor has the value's name."""

    graph: Graph
    weights: Weights
    batch: int | None
    float_ends: bool
    pixels: bool
    file: TfliteBuilder = field(default_factory=TfliteBuilder)
    values: dict[str, int] = field(default_factory=dict)  # the graph's name -> tensor
    inputs: list[int] = field(default_factory=list)
    shifted: bool = False
    kept: set[str] = field(default_factory=set)  # values at the ends that are not shifted

    def __post_init__(self) -> None:
        unsigned = any(array.dtype == np.uint8 for name, array in self.weights.items() if name.endswith(".weight"))
        self.shifted = not unsigned
        readers: dict[str, list[Node]] = {name: [] for name in self.graph.types}
        for node in self.graph.nodes:
            for name in node.inputs:
                readers[name].append(node)
        given = {n for n in self.graph.inputs if readers[n] and all(map(_only_converts, readers[n]))}
        made = {node.name for node in self.graph.nodes if _only_converts(node) and not readers[node.name]}
        self.kept = given | made

    def shape(self, kind: TensorType) -> list[int]:
        """With the batch, which is -1 where it is open."""
        return [-1 if self.batch is None else self.batch, *kind.shape]

    def add_input(self, name: str, kind: TensorType) -> None:
        if kind.quantisation is not None and self._is_converted(name, kind):
            given = ("float32", None) if self.float_ends else (kind.dtype, Scales.of(kind.quantisation))
            source = self.file.value(name, self.shape(kind), *given)
            self.values[name] = self.file.emit("QUANTIZE", [source], self.tensor(f"{name}/quantised", kind))
        else:
            source = self.values[name] = self.tensor(name, kind)
        self.inputs.append(source)

    def _is_converted(self, name: str, kind: TensorType) -> bool:
        """Whether a quantised input is given in another form than the network reads."""
        return self.float_ends or (self.pixels and name not in self.kept and self.stored(kind)[0] != kind.dtype)

    def add_node(self, node: Node) -> None:
        from mobilenet.exports.tflite_rules import RULES

        operator = node.operator
        rule = RULES.get(type(operator))
        if rule is None:
            raise UnsupportedOperatorError(
                f"the .tflite writer does not have '{operator.kind}' (node '{node.name}')"
            )
        self.values[node.name] = self.tensor(node.name, self.graph.types[node.name])
        rule(self, node, operator)

    def tensor(self, name: str, kind: TensorType) -> int:
        """A new value of this type."""
        if kind.quantisation is None:
            return self.file.value(name, self.shape(kind), kind.dtype)
        dtype, quantisation = (kind.dtype, kind.quantisation) if name in self.kept else self.stored(kind)
        return self.file.value(name, self.shape(kind), dtype, Scales.of(quantisation))

    def stored(self, kind: TensorType) -> tuple[str, Quantisation]:
        """The dtype and quantisation that the file has for integers of this type."""
        assert kind.quantisation is not None
        if kind.dtype == "uint8" and self.shifted:
            return "int8", replace(kind.quantisation, zero_point=kind.quantisation.zero_point - SHIFT)
        return kind.dtype, kind.quantisation

    def kind(self, node: Node, position: int = 0) -> TensorType:
        """The type of what a node reads."""
        return self.graph.types[node.inputs[position]]

    def weight(self, node: Node, parameter: str) -> np.ndarray:
        return self.weights[f"{node.name}.{parameter}"]

    def emit(self, kind: str, node: Node, options: Any = None, *more: int, **fields: Any) -> None:
        """Adds the operator that a node is: it reads the node's inputs, then `more`, and writes its value."""
        inputs = [*(self.values[name] for name in node.inputs), *more]
        self.file.emit(kind, inputs, self.values[node.name], options, **fields)

    def integers(self, node: Node, what: str, values: Any) -> int:
        """A constant of whole numbers: a shape, axes, paddings."""
        return self.file.constant(f"{node.name}.{what}", np.array(values, np.int32))

    def real(self, node: Node, what: str, value: float, like: TensorType) -> int:
        """A constant for arithmetic with values of a type: float, or an integer that stands for it exactly."""
        if not like.integer:
            return self.file.constant(f"{node.name}.{what}", np.array([value], np.float32))
        dtype, _ = self.stored(like)
        top = np.iinfo(dtype).max
        scales = Scales.of(Quantisation(value / top))
        return self.file.constant(f"{node.name}.{what}", np.array([top], dtype), scales)

    def before_activation(self, node: Node, activation: str) -> int:
        """The tensor that a layer writes: the node's own if TFLite's operator can carry its activation."""
        if activation in FUSED:
            return self.values[node.name]
        return self.tensor(f"{node.name}/linear", self.graph.types[node.name])

    def activate(self, node: Node, activation: str, source: int) -> None:
        """Applies what TFLite's operators cannot carry."""
        output, kind = self.values[node.name], self.graph.types[node.name]
        if activation in FUSED and source == output:
            return
        if activation in SLOPES:
            self._hard_sigmoid(node, source, output, SLOPES[activation])
        elif activation == "prelu":
            alpha = self.weight(node, "alpha").reshape((1,) * (len(kind.shape) - 1) + (-1,))
            self.file.emit("PRELU", [source, self.file.constant(f"{node.name}.alpha", alpha)], output)
        elif activation == "gelu":
            self.file.emit("GELU", [source], output, "GeluOptions", approximate=False)
        elif activation in ACTIVATIONS:
            fixed = {"sigmoid": UNIT, "hard_swish": NO_SCALE}.get(activation)
            self.emit_with_scale(ACTIVATIONS[activation], source, kind, node, fixed)
        else:
            raise UnsupportedOperatorError(f"a .tflite file does not have '{activation}' (node '{node.name}')")

    def emit_with_scale(
        self,
        kind: str,
        source: int,
        read: TensorType,
        node: Node,
        fixed: tuple[float, int] | None,
        *options: Any,
        **fields: Any,
    ) -> None:
        """Adds an operator that TFLite has in integers for one output scale only; for others it counts in floats.

        Args:
            kind: of the operator.
            source, read: the tensor that it reads, and its type.
            node: which it writes.
            fixed: the scale, and the zero point in int8; none: any will do.
            *options, **fields: of the operator.
        """
        output, made = self.values[node.name], self.graph.types[node.name]
        if made.quantisation is None or fixed is None or self._has_scale(made, *fixed):
            self.file.emit(kind, [source], output, *options, **fields)
            return
        real = self.file.value(f"{node.name}/real_input", self.shape(read), "float32")
        result = self.file.value(f"{node.name}/real", self.shape(made), "float32")
        self.file.emit("DEQUANTIZE", [source], real)
        self.file.emit("QUANTIZE", [self.file.emit(kind, [real], result, *options, **fields)], output)

    def _has_scale(self, kind: TensorType, scale: float, zero_point: int) -> bool:
        assert kind.quantisation is not None
        zero = kind.quantisation.zero_point - (SHIFT if kind.dtype == "uint8" else 0)
        return scale > 0 and abs(kind.quantisation.scale / scale - 1) < 1e-6 and zero == zero_point

    def _hard_sigmoid(self, node: Node, source: int, output: int, slope: float) -> None:
        """relu6(x + 3) * slope: TFLite has no operator for it.

        In integers the sum is rounded to the very quanta of the result, so that the product changes none of them.
        """
        kind = between = self.graph.types[node.name]
        if kind.quantisation is not None:
            quantum = float(np.float32(kind.quantisation.scale)) / slope
            between = replace(kind, quantisation=replace(kind.quantisation, scale=quantum))
        clipped = self.tensor(f"{node.name}/clipped", between)
        three = self.real(node, "three", gate_offset(self.kind(node), kind, slope), kind)
        factor = self.real(node, "slope", slope, kind)
        relu6 = FUSED["relu6"]
        self.file.emit("ADD", [source, three], clipped, "AddOptions", fusedActivationFunction=relu6)
        self.file.emit("MUL", [clipped, factor], output, "MulOptions")

    def outputs(self) -> dict[str, int]:
        """The tensors of the graph's outputs by their names."""
        outputs: dict[str, int] = {}
        for output, name in self.graph.outputs.items():
            outputs[output], kind = self.values[name], self.graph.types[name]
            if kind.integer and self.float_ends:
                real = self.file.value(f"{output}/real", self.shape(kind), "float32")
                outputs[output] = self.file.emit("DEQUANTIZE", [outputs[output]], real)
        return outputs

    def pack(self, metadata: Mapping[str, bytes], outputs: dict[str, int]) -> bytes:
        """The bytes of the file."""
        return self.file.pack(dict(zip(self.graph.inputs, self.inputs, strict=True)), outputs, metadata)


def _only_converts(node: Node) -> bool:
    """Whether a node takes and gives both int8 and uint8 in TFLite."""
    return isinstance(node.operator, ops.Quantise | ops.Dequantise)

"""A graph as an ONNX model: float, or integers in ONNX's QDQ form.

Pictures are (N, channels, height, width) there, so a value of rank 3 has its channels moved to the front; all
others keep the graph's order of axes behind the batch. The weights are part of the model.

In the QDQ form ("quantise, dequantise") every integer value is stored as such, and an operator on integers is the
float operator between the DequantizeLinear of what it reads and the QuantizeLinear of what it writes: the pattern
that onnxruntime and openvino replace by their integer kernels. An int8 value is stored as uint8, 128 higher, zero
point and all, and stands for the same real number: onnxruntime's x86 kernels want it so, and its own conversion
leaves layers in float.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mobilenet.errors import GraphError, UnsupportedOperatorError
from mobilenet.exports.ties import clear_factor, exact_summands
from mobilenet.family.decoding import Decoding
from mobilenet.graph import ops
from mobilenet.graph.graph import Graph, Node, Quantisation, TensorType, Weights

OPSET = 17
IR_VERSION = 8  # the format of that opset's time
TYPES = {
    "float32": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.UINT8,
}
SHIFT = 128  # from int8 to uint8
PIXELS = Quantisation(1.0, 0)  # uint8 numbers that stand for themselves
TO_NCHW, TO_NHWC = [0, 3, 1, 2], [0, 2, 3, 1]
Layout = Callable[[np.ndarray], np.ndarray]  # from the graph's layout of a weight to ONNX's


def to_onnx(
    graph: Graph,
    weights: Weights,
    *,
    batch: int | None = 1,
    pictures_nhwc: bool = False,
    metadata: Mapping[str, str] | None = None,
    decoding: Decoding | None = None,
) -> onnx.ModelProto:
    """The same network as an ONNX model of opset 17.

    Args:
        graph: of floats, of integers, or of both; fold batch norms first (`graph.fold`) if the model is to be fast
            everywhere.
        weights: "<node>.<parameter>" -> array; `graph.check_weights` must hold.
        batch: how many pictures at once; None leaves it open, as the dimension "batch".
        pictures_nhwc: whether inputs (height, width, channels) stay so, and the model turns them itself.
        metadata: texts by their keys, kept in the model's `metadata_props`.
        decoding: of a detector whose file is to give boxes (`onnx_boxes.add_boxes`), not its raw outputs.

    Returns:
        a checked model. Its inputs and outputs have the graph's names and dtypes (but uint8 for int8); a value
        (height, width, channels) is (N, channels, height, width), an index map (height, width) (N, height, width).

    Raises:
        UnsupportedOperatorError: ONNX has no form of an operator; the node is named.
        GraphError: the weights do not fit the graph.
    """
    graph.check_weights(weights)
    writer = OnnxWriter(graph, weights, batch, pictures_nhwc)
    for node in graph.nodes:
        writer.add_node(node)
    if decoding is not None:
        from mobilenet.exports.onnx_boxes import add_boxes

        model = writer.model(add_boxes(writer, decoding))
    else:
        model = writer.model(writer.outputs())
    helper.set_model_props(model, dict(metadata or {}))
    onnx.checker.check_model(model)
    return model


@dataclass
class OnnxWriter:
    """The ONNX nodes and constants so far; what a value is called there is its name in the graph."""

    graph: Graph
    weights: Weights
    batch: int | None
    pictures_nhwc: bool = False
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    real: dict[str, str] = field(default_factory=dict)  # an integer value -> its dequantised form, if it has one
    apart: set[str] = field(default_factory=set)  # integers that are written once more, for a sum
    turned: dict[str, str] = field(default_factory=dict)  # an input in the graph's order -> channels first

    def add_node(self, node: Node) -> None:
        """Adds what an operator is in ONNX, with its activation."""
        from mobilenet.exports.onnx_rules import RULES, activate

        operator = node.operator
        if isinstance(operator, ops.Quantise | ops.Dequantise):
            self._convert(node)
            return
        rule = RULES.get(type(operator))
        if rule is None:
            raise UnsupportedOperatorError(f"ONNX does not have '{operator.kind}' (node '{node.name}')")
        of_two = isinstance(operator, ops.Add | ops.Mul) and len(node.inputs) == 2
        inputs = self._operands(node) if node.quantisation and of_two else self._read(node)
        target = f"{node.name}/real" if node.quantisation else node.name
        activation = str(getattr(operator, "activation", "none"))
        fused = activation == "none" or isinstance(operator, ops.Activation)
        rule(self, node, operator, inputs, target if fused else f"{node.name}/linear")
        if not fused:
            activate(self, node, activation, f"{node.name}/linear", target)
        if node.quantisation:
            self.quantise(target, node.name, node.dtype, node.quantisation)

    def _convert(self, node: Node) -> None:
        """A node that only changes how numbers are stored; integers go by way of the real numbers."""
        source = node.inputs[0]
        if node.quantisation:
            self.quantise(self.read(source), node.name, node.dtype, node.quantisation)
        elif source in self.real:
            self.emit("Identity", [self.real[source]], node.name)
        else:
            self.real[source] = self._dequantise(source, node.name)

    def _read(self, node: Node) -> list[str]:
        return [self.read(name) for name in node.inputs]

    def _operands(self, node: Node) -> list[str]:
        """What an integer sum or product reads, at scales with which it is rounded as the reference does."""
        assert node.quantisation is not None
        kinds = [self.graph.types[name] for name in node.inputs]
        if isinstance(node.operator, ops.Add):
            exact = exact_summands(kinds, node.quantisation)
        else:
            exact = [clear_factor(kinds[0], kinds[1], self.graph.types[node.name])]
        names = []
        for place, (name, kind, quantisation) in enumerate(zip(node.inputs, kinds, exact, strict=False)):
            scales = self.scales(f"{node.name}/{place}", kind.dtype, quantisation)
            stored = self._kept_apart(name) if isinstance(node.operator, ops.Add) else self._turned(name)
            names.append(self.emit("DequantizeLinear", [stored, *scales], f"{node.name}/operand{place}"))
        return [*names, *(self.read(name) for name in node.inputs[len(names) :])]

    def _kept_apart(self, name: str) -> str:
        """What a sum reads: of a convolution, by way of real numbers and back to the same integers.

        openvino counts a convolution and the sum behind it as one otherwise, and leaves out the rounding between.
        """
        kind, again = self.graph.types[name], f"{name}/again"
        if name in self.graph.inputs or not isinstance(
            self.graph.node(name).operator, ops.Conv | ops.DepthwiseConv
        ):
            return self._turned(name)
        if again not in self.apart:
            assert kind.quantisation is not None
            self.quantise(self.read(name), again, kind.dtype, kind.quantisation)
            self.apart.add(again)
        return again

    def read(self, name: str) -> str:
        """A value of the graph in real numbers, channels first."""
        if self.graph.types[name].quantisation is None:
            return self._turned(name)
        if name not in self.real:
            self.real[name] = self._dequantise(name, f"{name}/dequantised")
        return self.real[name]

    def _dequantise(self, name: str, output: str) -> str:
        kind = self.graph.types[name]
        assert kind.quantisation is not None
        if kind.dtype == "uint8" and kind.quantisation == PIXELS:
            # Behind a DequantizeLinear, onnxruntime would quantise float weights by rules of its own.
            return self.emit("Cast", [self._turned(name)], output, to=TensorProto.FLOAT)
        scales = self.scales(name, kind.dtype, kind.quantisation)
        return self.emit("DequantizeLinear", [self._turned(name), *scales], output)

    def _turned(self, name: str) -> str:
        """An input in the graph's order with its channels first; everything else as it is."""
        if not self.pictures_nhwc or name not in self.graph.inputs or self.rank(name) != 3:
            return name
        if name not in self.turned:
            self.turned[name] = self.emit("Transpose", [name], f"{name}/nchw", perm=TO_NCHW)
        return self.turned[name]

    def relu6_limit(self, node: Node) -> float:
        """Where a relu6 ends. If the integers end there too, it is what their highest one stands for.

        That may be the rounding of a scale above 6, and onnxruntime leaves a clamp out only if it clamps nothing.
        """
        if node.quantisation is None:
            return 6.0
        zero, scale, highest = node.quantisation.zero_point, node.quantisation.scale, np.iinfo(node.dtype).max
        saturates = zero + round(6 / scale) >= highest
        top = np.float32(scale) * np.float32(highest - zero)
        return max(6.0, float(np.nextafter(top, np.float32(np.inf)))) if saturates else 6.0

    def quantise(self, source: str, output: str, dtype: str, quantisation: Quantisation) -> None:
        """Real numbers to integers."""
        self.emit("QuantizeLinear", [source, *self.scales(output, dtype, quantisation)], output)

    def scales(self, name: str, dtype: str, quantisation: Quantisation) -> tuple[str, str]:
        """The constants for the scale and zero point of a value, which is stored as uint8."""
        scale = self.constant(f"{name}/scale", np.array(quantisation.scale, np.float32))
        zero = quantisation.zero_point + (SHIFT if dtype == "int8" else 0)
        return scale, self.constant(f"{name}/zero_point", np.array(zero, np.uint8))

    def emit(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Adds an ONNX node; returns the name of what it writes."""
        self.nodes.append(helper.make_node(kind, list(inputs), [output], output, **attributes))
        return output

    def constant(self, name: str, array: np.ndarray) -> str:
        """The name of a stored tensor; the same name stands for the same values."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        return name

    def scalar(self, value: float) -> str:
        """A float32 constant."""
        return self.constant(f"constant/{value:.9g}", np.array(value, np.float32))

    def integers(self, name: str, values: Sequence[int]) -> str:
        """An int64 constant: a shape, paddings."""
        return self.constant(name, np.array(values, np.int64))

    def weight(self, node: Node, parameter: str) -> np.ndarray:
        """A node's parameter as the graph has it."""
        return self.weights[f"{node.name}.{parameter}"]

    def linear_parameters(self, node: Node, axis: int, layout: Layout) -> list[str]:
        """Weight and, if there is one, bias in real numbers; `axis` is where ONNX has the output channels."""
        weight, read = layout(self.weight(node, "weight")), self.graph.types[node.inputs[0]].quantisation
        has_bias = bool(getattr(node.operator, "bias", False))
        if read is None:
            names = [self.constant(f"{node.name}.weight", weight)]
            return [*names, self.constant(f"{node.name}.bias", self.weight(node, "bias"))] if has_bias else names
        scale = np.asarray(self.weight(node, "weight_scale"), np.float32)
        zero = self.weight(node, "weight_zero_point").astype(weight.dtype)
        names = [self._dequantised(f"{node.name}.weight", weight, scale, zero, axis)]
        if has_bias:
            products = np.float32(read.scale) * scale
            bias = self.weight(node, "bias")
            names.append(self._dequantised(f"{node.name}.bias", bias, products, np.zeros(1, np.int32), 0))
        return names

    def _dequantised(self, name: str, values: np.ndarray, scale: np.ndarray, zero: np.ndarray, axis: int) -> str:
        """A stored tensor of integers in real numbers, with one scale or one for each place along an axis."""
        many = scale.size > 1
        scale = scale.ravel() if many else scale.reshape(())
        zero = np.broadcast_to(zero.ravel(), scale.shape) if many else zero.reshape(())
        inputs = [self.constant(name, values), self.constant(f"{name}/scale", scale)]
        inputs.append(self.constant(f"{name}/zero_point", zero))
        return self.emit("DequantizeLinear", inputs, f"{name}/real", **({"axis": axis} if many else {}))

    def rank(self, name: str) -> int:
        """Of a value, without the batch."""
        return len(self.graph.types[name].shape)

    def last_axis(self, name: str) -> int:
        """Where ONNX has what is the graph's last axis."""
        return 1 if self.rank(name) == 3 else self.rank(name)

    def by_channel(self, node: Node, parameter: str, like: str) -> str:
        """A parameter (channels) in the shape that ONNX broadcasts against the value `like`."""
        array = self.weight(node, parameter)
        shape = (-1, 1, 1) if self.rank(like) == 3 else (-1,)
        return self.constant(f"{node.name}.{parameter}", array.reshape(shape))

    def outputs(self) -> list[onnx.ValueInfoProto]:
        """The graph's outputs under their names."""
        outputs = []
        for name, value in self.graph.outputs.items():
            if name != value:
                self.check_free(name)
                self.emit("Identity", [value], name)
            outputs.append(
                self._info(name, self.graph.types[value], self.pictures_nhwc and value in self.graph.inputs)
            )
        return outputs

    def model(self, outputs: list[onnx.ValueInfoProto]) -> onnx.ModelProto:
        """All of it."""
        inputs = [self._info(name, kind, self.pictures_nhwc) for name, kind in self.graph.inputs.items()]
        graph = helper.make_graph(self.nodes, "mobilenet", inputs, outputs, list(self.constants.values()))
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="mobilenet",
        )

    def check_free(self, output: str) -> None:
        """Raises `GraphError` if an output would have the name of another value."""
        if output in self.graph.types:
            raise GraphError(f"output '{output}' has the name of another value, which ONNX does not allow")

    def _info(self, name: str, kind: TensorType, as_it_is: bool) -> onnx.ValueInfoProto:
        batch = "batch" if self.batch is None else self.batch
        shape = kind.shape if as_it_is else onnx_shape(kind.shape)
        return helper.make_tensor_value_info(name, TYPES[kind.dtype], [batch, *shape])


def onnx_shape(shape: ops.Shape) -> ops.Shape:
    """The shape, without the batch, that a value has in an ONNX model: pictures have their channels first."""
    return (shape[2], *shape[:2]) if len(shape) == 3 else shape

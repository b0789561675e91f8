"""A float or integer graph as a .tflite file, in TFLite's own operators.

TFLite's kernels take int8 values with int8 weights, one scale for each output channel, or uint8 values with uint8
weights. Of a graph with uint8 values and int8 weights, each value is therefore shifted by 128, zero point and all:
it stands for the same real number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mobilenet.bench.tflite_builder import Scales, TfliteBuilder
from mobilenet.errors import UnsupportedOperatorError
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
SLOPES = {"hard_sigmoid": 1 / 6, "hard_sigmoid_slim": 0.16667}
SHIFT = 128  # from uint8 to int8


def to_tflite(graph: Graph, weights: Weights, *, batch: int = 1, float_ends: bool = True) -> bytes:
    """The same network as a .tflite file.

    Args:
        graph: of floats, of integers, or of both; TFLite has no batch norm, so one that is not folded becomes a
            product and a sum.
        weights: "<node>.<parameter>" -> array; `graph.check_weights` must hold.
        batch: how many pictures at once.
        float_ends: whether a quantised network takes and gives float32 (it converts them itself).

    Returns:
        the bytes of the file. Inputs and outputs are in the graph's order; values are (N, height, width,
        channels) as in the graph.

    Raises:
        UnsupportedOperatorError: an operator that TFLite's format cannot hold; the node is named.
        GraphError: the weights do not fit the graph.
    """
    graph.check_weights(weights)
    writer = _Writer(graph, weights, batch, float_ends)
    for name, kind in graph.inputs.items():
        writer.add_input(name, kind)
    for node in graph.nodes:
        writer.add_node(node)
    return writer.pack()


@dataclass
class _Writer:
    graph: Graph
    weights: Weights
    batch: int
    float_ends: bool
    file: TfliteBuilder = field(default_factory=TfliteBuilder)
    values: dict[str, int] = field(default_factory=dict)  # the graph's name -> tensor
    inputs: list[int] = field(default_factory=list)
    shifted: bool = False

    def __post_init__(self) -> None:
        unsigned = any(array.dtype == np.uint8 for name, array in self.weights.items() if name.endswith(".weight"))
        self.shifted = not unsigned

    def add_input(self, name: str, kind: TensorType) -> None:
        if kind.integer and self.float_ends:
            source = self.file.value(name, (self.batch, *kind.shape), "float32")
            self.values[name] = self.file.emit("QUANTIZE", [source], self.tensor(f"{name}/quantised", kind))
        else:
            source = self.values[name] = self.tensor(name, kind)
        self.inputs.append(source)

    def add_node(self, node: Node) -> None:
        operator = node.operator
        rule = _RULES.get(type(operator))
        if rule is None:
            raise UnsupportedOperatorError(
                f"the .tflite writer does not have '{operator.kind}' (node '{node.name}')"
            )
        self.values[node.name] = self.tensor(node.name, self.graph.types[node.name])
        rule(self, node, operator)

    def tensor(self, name: str, kind: TensorType) -> int:
        """A new value of this type."""
        if kind.quantisation is None:
            return self.file.value(name, (self.batch, *kind.shape), kind.dtype)
        dtype, quantisation = self.stored(kind)
        return self.file.value(name, (self.batch, *kind.shape), dtype, Scales.of(quantisation))

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
            self.file.emit(ACTIVATIONS[activation], [source], output)
        else:
            raise UnsupportedOperatorError(f"a .tflite file does not have '{activation}' (node '{node.name}')")

    def _hard_sigmoid(self, node: Node, source: int, output: int, slope: float) -> None:
        """relu6(x + 3) * slope: TFLite has no operator for it."""
        kind = self.graph.types[node.name]
        between = kind
        if kind.quantisation is not None:
            low = np.iinfo(kind.dtype).min
            between = replace(kind, quantisation=Quantisation(6 / 255, int(low)))
        clipped = self.tensor(f"{node.name}/clipped", between)
        three, factor = self.real(node, "three", 3, kind), self.real(node, "slope", slope, kind)
        relu6 = FUSED["relu6"]
        self.file.emit("ADD", [source, three], clipped, "AddOptions", fusedActivationFunction=relu6)
        self.file.emit("MUL", [clipped, factor], output, "MulOptions")

    def pack(self) -> bytes:
        outputs = []
        for output, name in self.graph.outputs.items():
            tensor, kind = self.values[name], self.graph.types[name]
            if kind.integer and self.float_ends:
                real = self.file.value(f"{output}/real", (self.batch, *kind.shape), "float32")
                tensor = self.file.emit("DEQUANTIZE", [tensor], real)
            outputs.append(tensor)
        return self.file.pack(self.inputs, outputs)


def _window(
    writer: _Writer, node: Node, operator: ops.Window, options: str, **fields: Any
) -> tuple[int, dict[str, Any]]:
    """The tensor that the window slides over, and the options; padding that is not SAME is a node before it."""
    source, shape = writer.values[node.inputs[0]], writer.kind(node).shape
    same = operator.padding == operator.same_sides(shape)
    if any(operator.padding) and not same:
        source = _padded(writer, node, operator, source)
    padding = schema.Padding.SAME if same else schema.Padding.VALID
    return source, {
        "options": options,
        "padding": padding,
        "strideH": operator.stride[0],
        "strideW": operator.stride[1],
        **fields,
    }


def _padded(writer: _Writer, node: Node, operator: ops.Window, source: int) -> int:
    """The source with borders of zeros, or for a maximum of the lowest value of the dtype, which never wins."""
    kind = writer.kind(node)
    if isinstance(operator, ops.AveragePool) and not isinstance(operator, ops.MaxPool):
        raise UnsupportedOperatorError(
            f"a .tflite file has no average pool with the padding {operator.padding} (node '{node.name}')"
        )
    shape = ops.Pad(operator.padding).output_shape([kind.shape])
    target = writer.tensor(f"{node.name}/padded", replace(kind, shape=shape))
    sides = _sides(writer, node, operator.padding)
    if isinstance(operator, ops.MaxPool):
        return writer.file.emit("PADV2", [source, sides, _lowest(writer, node, kind)], target, "PadV2Options")
    return writer.file.emit("PAD", [source, sides], target, "PadOptions")


def _sides(writer: _Writer, node: Node, padding: ops.Sides) -> int:
    return writer.integers(node, "sides", [[0, 0], padding[:2], padding[2:], [0, 0]])


def _lowest(writer: _Writer, node: Node, kind: TensorType) -> int:
    if kind.quantisation is None:
        return writer.file.constant(f"{node.name}.lowest", np.array([np.finfo(np.float32).min], np.float32))
    dtype, quantisation = writer.stored(kind)
    lowest = np.array([np.iinfo(dtype).min], dtype)
    return writer.file.constant(f"{node.name}.lowest", lowest, Scales.of(quantisation))


def _linear(
    writer: _Writer, node: Node, kind: str, source: int, weight: np.ndarray, axis: int, **fields: Any
) -> None:
    """A layer with weights and bias; `axis` is where the file's weights have the output channels."""
    activation = node.operator.activation  # type: ignore[attr-defined]
    output = writer.before_activation(node, activation)
    read = writer.kind(node)
    channels = weight.shape[axis]
    if read.quantisation is None:
        parameters = [writer.file.constant(f"{node.name}.weight", weight)]
        bias = writer.weights.get(f"{node.name}.bias", np.zeros(channels, np.float32))
        parameters.append(writer.file.constant(f"{node.name}.bias", bias))
    else:
        parameters = _integer_parameters(writer, node, weight, axis, read.quantisation)
    fields["fusedActivationFunction"] = FUSED.get(activation, FUSED["none"])
    writer.file.emit(kind, [source, *parameters], output, **fields)
    writer.activate(node, activation, output)


def _integer_parameters(
    writer: _Writer, node: Node, weight: np.ndarray, axis: int, read: Quantisation
) -> list[int]:
    scale = np.asarray(writer.weight(node, "weight_scale"), np.float32).ravel()
    zero = int(writer.weight(node, "weight_zero_point")[0])
    if weight.dtype == np.int8 and zero != 0:
        raise UnsupportedOperatorError(
            f"a .tflite file has no int8 weights with a zero point (node '{node.name}')"
        )
    scales = Scales(scale, np.full(len(scale), zero, np.int64), axis if len(scale) > 1 else 0)
    bias = writer.weights.get(f"{node.name}.bias", np.zeros(weight.shape[axis], np.int32))
    products = np.float32(read.scale) * scale
    of_bias = Scales(products, np.zeros(len(scale), np.int64))
    return [
        writer.file.constant(f"{node.name}.weight", weight, scales),
        writer.file.constant(f"{node.name}.bias", bias, of_bias),
    ]


def _dilation(operator: ops.Window) -> dict[str, int]:
    return {"dilationHFactor": operator.dilation[0], "dilationWFactor": operator.dilation[1]}


def _conv(writer: _Writer, node: Node, operator: ops.Conv) -> None:
    source, fields = _window(writer, node, operator, "Conv2DOptions", **_dilation(operator))
    _linear(writer, node, "CONV_2D", source, writer.weight(node, "weight"), 0, **fields)


def _depthwise_conv(writer: _Writer, node: Node, operator: ops.DepthwiseConv) -> None:
    fields: dict[str, Any] = {"depthMultiplier": operator.multiplier, **_dilation(operator)}
    source, fields = _window(writer, node, operator, "DepthwiseConv2DOptions", **fields)
    _linear(writer, node, "DEPTHWISE_CONV_2D", source, writer.weight(node, "weight")[None], 3, **fields)


def _dense(writer: _Writer, node: Node, operator: ops.Dense) -> None:  # noqa: ARG001
    deep = len(writer.kind(node).shape) > 1
    fields = {"options": "FullyConnectedOptions", "keepNumDims": deep}
    source = writer.values[node.inputs[0]]
    _linear(writer, node, "FULLY_CONNECTED", source, writer.weight(node, "weight"), 0, **fields)


def _batch_norm(writer: _Writer, node: Node, operator: ops.BatchNorm) -> None:
    names = ("gamma", "beta", "mean", "variance")
    gamma, beta, mean, variance = (writer.weight(node, name).astype(np.float64) for name in names)
    scale = gamma / np.sqrt(variance + operator.epsilon)
    kind = writer.graph.types[node.name]
    scaled = writer.tensor(f"{node.name}/scaled", kind)
    factor = writer.file.constant(f"{node.name}.scale", scale.astype(np.float32))
    shift = writer.file.constant(f"{node.name}.shift", (beta - mean * scale).astype(np.float32))
    writer.file.emit("MUL", [writer.values[node.inputs[0]], factor], scaled, "MulOptions")
    output = writer.before_activation(node, operator.activation)
    fused = FUSED.get(operator.activation, FUSED["none"])
    writer.file.emit("ADD", [scaled, shift], output, "AddOptions", fusedActivationFunction=fused)
    writer.activate(node, operator.activation, output)


def _activation(writer: _Writer, node: Node, operator: ops.Activation) -> None:
    writer.activate(node, operator.activation, writer.values[node.inputs[0]])


def _elementwise(writer: _Writer, node: Node, operator: ops.Add | ops.Mul) -> None:
    inputs = [writer.values[name] for name in node.inputs]
    if isinstance(operator, ops.Mul) and operator.constant:
        inputs.append(writer.file.constant(f"{node.name}.weight", writer.weight(node, "weight")))
    output = writer.before_activation(node, operator.activation)
    kind = "MUL" if isinstance(operator, ops.Mul) else "ADD"
    fused = FUSED.get(operator.activation, FUSED["none"])
    writer.file.emit(kind, inputs, output, f"{kind.title()}Options", fusedActivationFunction=fused)
    writer.activate(node, operator.activation, output)


def _mean(writer: _Writer, node: Node, operator: ops.Mean) -> None:
    axes = writer.integers(node, "axes", [1, 2])
    writer.emit("MEAN", node, "ReducerOptions", axes, keepDims=operator.keep_axes)


def _pool(writer: _Writer, node: Node, operator: ops.AveragePool) -> None:
    sizes = {"filterHeight": operator.kernel[0], "filterWidth": operator.kernel[1]}
    source, fields = _window(writer, node, operator, "Pool2DOptions", **sizes)
    output = writer.before_activation(node, operator.activation)
    fused = FUSED.get(operator.activation, FUSED["none"])
    kind = "MAX_POOL_2D" if isinstance(operator, ops.MaxPool) else "AVERAGE_POOL_2D"
    writer.file.emit(kind, [source], output, fusedActivationFunction=fused, **fields)
    writer.activate(node, operator.activation, output)


def _pad(writer: _Writer, node: Node, operator: ops.Pad) -> None:
    writer.emit("PAD", node, "PadOptions", _sides(writer, node, operator.padding))


def _concat(writer: _Writer, node: Node, operator: ops.Concat) -> None:  # noqa: ARG001
    """Integers side by side need one scale in TFLite, so those of another are converted first."""
    output = writer.graph.types[node.name]
    inputs = []
    for place, name in enumerate(node.inputs):
        kind, tensor = writer.graph.types[name], writer.values[name]
        if (kind.dtype, kind.quantisation) != (output.dtype, output.quantisation):
            wanted = replace(kind, dtype=output.dtype, quantisation=output.quantisation)
            tensor = writer.file.emit("QUANTIZE", [tensor], writer.tensor(f"{node.name}/{place}", wanted))
        inputs.append(tensor)
    rank = len(output.shape)
    writer.file.emit("CONCATENATION", inputs, writer.values[node.name], "ConcatenationOptions", axis=rank)


def _resize(writer: _Writer, node: Node, operator: ops.Resize) -> None:
    bilinear = operator.method == "bilinear"
    kind = "RESIZE_BILINEAR" if bilinear else "RESIZE_NEAREST_NEIGHBOR"
    size = writer.integers(node, "size", writer.graph.types[node.name].shape[:2])
    writer.file.emit(
        kind,
        [writer.values[node.inputs[0]], size],
        writer.values[node.name],
        "ResizeBilinearOptions" if bilinear else "ResizeNearestNeighborOptions",
        alignCorners=operator.align_corners,
        halfPixelCenters=operator.half_pixel_centers,
    )


def _reshape(writer: _Writer, node: Node, operator: ops.Reshape) -> None:  # noqa: ARG001
    shape: Sequence[int] = (writer.batch, *writer.graph.types[node.name].shape)
    target = writer.integers(node, "shape", shape)
    inputs = [writer.values[node.inputs[0]], target]
    writer.file.emit("RESHAPE", inputs, writer.values[node.name], "ReshapeOptions", newShape=list(shape))


def _transpose(writer: _Writer, node: Node, operator: ops.Transpose) -> None:
    axes = writer.integers(node, "axes", [0, *(axis + 1 for axis in operator.axes)])
    writer.emit("TRANSPOSE", node, "TransposeOptions", axes)


def _matmul(writer: _Writer, node: Node, operator: ops.MatMul) -> None:
    writer.emit("BATCH_MATMUL", node, "BatchMatMulOptions", adjY=operator.transpose_second)


def _softmax(writer: _Writer, node: Node, operator: ops.Softmax) -> None:
    writer.emit("SOFTMAX", node, "SoftmaxOptions", beta=operator.beta)


def _l2_normalise(writer: _Writer, node: Node, operator: ops.L2Normalise) -> None:  # noqa: ARG001
    writer.emit("L2_NORMALIZATION", node, "L2NormOptions")


def _argmax(writer: _Writer, node: Node, operator: ops.ArgMax) -> None:  # noqa: ARG001
    axis = writer.integers(node, "axis", [len(writer.kind(node).shape)])
    writer.emit("ARG_MAX", node, "ArgMaxOptions", axis, outputType=schema.TensorType.INT64)


_RULES: dict[type[ops.Operator], Callable[[_Writer, Node, Any], None]] = {
    ops.Conv: _conv,
    ops.DepthwiseConv: _depthwise_conv,
    ops.Dense: _dense,
    ops.BatchNorm: _batch_norm,
    ops.Activation: _activation,
    ops.Add: _elementwise,
    ops.Mul: _elementwise,
    ops.Mean: _mean,
    ops.AveragePool: _pool,
    ops.MaxPool: _pool,
    ops.Pad: _pad,
    ops.Concat: _concat,
    ops.Resize: _resize,
    ops.Reshape: _reshape,
    ops.Transpose: _transpose,
    ops.MatMul: _matmul,
    ops.Softmax: _softmax,
    ops.L2Normalise: _l2_normalise,
    ops.ArgMax: _argmax,
    ops.Quantise: lambda writer, node, _: writer.emit("QUANTIZE", node),
    ops.Dequantise: lambda writer, node, _: writer.emit("DEQUANTIZE", node),
}

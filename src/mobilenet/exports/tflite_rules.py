"""What each operator is in TFLite: one function each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mobilenet.errors import UnsupportedOperatorError
from mobilenet.exports.tflite_builder import Scales
from mobilenet.exports.tflite_writer import CENTRED, FUSED, UNIT, TfliteWriter
from mobilenet.graph import ops
from mobilenet.graph.graph import Node, Quantisation, TensorType

ABSENT = -1  # a tensor that an operator can do without


def _window(
    writer: TfliteWriter, node: Node, operator: ops.Window, options: str, **fields: Any
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


def _padded(writer: TfliteWriter, node: Node, operator: ops.Window, source: int) -> int:
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


def _sides(writer: TfliteWriter, node: Node, padding: ops.Sides) -> int:
    return writer.integers(node, "sides", [[0, 0], padding[:2], padding[2:], [0, 0]])


def _lowest(writer: TfliteWriter, node: Node, kind: TensorType) -> int:
    if kind.quantisation is None:
        return writer.file.constant(f"{node.name}.lowest", np.array([np.finfo(np.float32).min], np.float32))
    dtype, quantisation = writer.stored(kind)
    lowest = np.array([np.iinfo(dtype).min], dtype)
    return writer.file.constant(f"{node.name}.lowest", lowest, Scales.of(quantisation))


def _linear(
    writer: TfliteWriter, node: Node, kind: str, source: int, weight: np.ndarray, axis: int, **fields: Any
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
    if kind == "FULLY_CONNECTED" and not node.operator.bias:  # type: ignore[attr-defined]
        parameters[1] = ABSENT
    fields["fusedActivationFunction"] = FUSED.get(activation, FUSED["none"])
    writer.file.emit(kind, [source, *parameters], output, **fields)
    writer.activate(node, activation, output)


def _integer_parameters(
    writer: TfliteWriter, node: Node, weight: np.ndarray, axis: int, read: Quantisation
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


def _conv(writer: TfliteWriter, node: Node, operator: ops.Conv) -> None:
    source, fields = _window(writer, node, operator, "Conv2DOptions", **_dilation(operator))
    _linear(writer, node, "CONV_2D", source, writer.weight(node, "weight"), 0, **fields)


def _depthwise_conv(writer: TfliteWriter, node: Node, operator: ops.DepthwiseConv) -> None:
    fields: dict[str, Any] = {"depthMultiplier": operator.multiplier, **_dilation(operator)}
    source, fields = _window(writer, node, operator, "DepthwiseConv2DOptions", **fields)
    _linear(writer, node, "DEPTHWISE_CONV_2D", source, writer.weight(node, "weight")[None], 3, **fields)


def _dense(writer: TfliteWriter, node: Node, operator: ops.Dense) -> None:  # noqa: ARG001
    deep = len(writer.kind(node).shape) > 1
    fields = {"options": "FullyConnectedOptions", "keepNumDims": deep}
    source = writer.values[node.inputs[0]]
    _linear(writer, node, "FULLY_CONNECTED", source, writer.weight(node, "weight"), 0, **fields)


def _batch_norm(writer: TfliteWriter, node: Node, operator: ops.BatchNorm) -> None:
    """Of a picture a depthwise convolution of 1x1, otherwise a product and a sum."""
    names = ("gamma", "beta", "mean", "variance")
    gamma, beta, mean, variance = (writer.weight(node, name).astype(np.float64) for name in names)
    scale = gamma / np.sqrt(variance + operator.epsilon)
    kind, fused = writer.graph.types[node.name], FUSED.get(operator.activation, FUSED["none"])
    output, source = writer.before_activation(node, operator.activation), writer.values[node.inputs[0]]
    shape = (1, 1, 1, -1) if len(kind.shape) == 3 else (-1,)
    factor = writer.file.constant(f"{node.name}.scale", scale.astype(np.float32).reshape(shape))
    shift = writer.file.constant(f"{node.name}.shift", (beta - mean * scale).astype(np.float32))
    if len(kind.shape) == 3:
        fields = {"padding": schema.Padding.VALID, "strideH": 1, "strideW": 1, "depthMultiplier": 1}
        fields |= {"dilationHFactor": 1, "dilationWFactor": 1, "fusedActivationFunction": fused}
        writer.file.emit("DEPTHWISE_CONV_2D", [source, factor, shift], output, "DepthwiseConv2DOptions", **fields)
    else:
        scaled = writer.tensor(f"{node.name}/scaled", kind)
        writer.file.emit("MUL", [source, factor], scaled, "MulOptions")
        writer.file.emit("ADD", [scaled, shift], output, "AddOptions", fusedActivationFunction=fused)
    writer.activate(node, operator.activation, output)


def _activation(writer: TfliteWriter, node: Node, operator: ops.Activation) -> None:
    writer.activate(node, operator.activation, writer.values[node.inputs[0]])


def _elementwise(writer: TfliteWriter, node: Node, operator: ops.Add | ops.Mul) -> None:
    inputs = [writer.values[name] for name in node.inputs]
    if isinstance(operator, ops.Mul) and operator.constant:
        inputs.append(writer.file.constant(f"{node.name}.weight", writer.weight(node, "weight")))
    output = writer.before_activation(node, operator.activation)
    kind = "MUL" if isinstance(operator, ops.Mul) else "ADD"
    fused = FUSED.get(operator.activation, FUSED["none"])
    writer.file.emit(kind, inputs, output, f"{kind.title()}Options", fusedActivationFunction=fused)
    writer.activate(node, operator.activation, output)


def _mean(writer: TfliteWriter, node: Node, operator: ops.Mean) -> None:
    axes = writer.integers(node, "axes", [1, 2])
    writer.emit("MEAN", node, "ReducerOptions", axes, keepDims=operator.keep_axes)


def _pool(writer: TfliteWriter, node: Node, operator: ops.AveragePool) -> None:
    sizes = {"filterHeight": operator.kernel[0], "filterWidth": operator.kernel[1]}
    source, fields = _window(writer, node, operator, "Pool2DOptions", **sizes)
    output = writer.before_activation(node, operator.activation)
    fused = FUSED.get(operator.activation, FUSED["none"])
    kind = "MAX_POOL_2D" if isinstance(operator, ops.MaxPool) else "AVERAGE_POOL_2D"
    writer.file.emit(kind, [source], output, fusedActivationFunction=fused, **fields)
    writer.activate(node, operator.activation, output)


def _pad(writer: TfliteWriter, node: Node, operator: ops.Pad) -> None:
    writer.emit("PAD", node, "PadOptions", _sides(writer, node, operator.padding))


def _concat(writer: TfliteWriter, node: Node, operator: ops.Concat) -> None:  # noqa: ARG001
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


def _resize(writer: TfliteWriter, node: Node, operator: ops.Resize) -> None:
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


def _reshape(writer: TfliteWriter, node: Node, operator: ops.Reshape) -> None:  # noqa: ARG001
    shape = writer.shape(writer.graph.types[node.name])
    target = writer.integers(node, "shape", shape)
    inputs = [writer.values[node.inputs[0]], target]
    writer.file.emit("RESHAPE", inputs, writer.values[node.name], "ReshapeOptions", newShape=shape)


def _transpose(writer: TfliteWriter, node: Node, operator: ops.Transpose) -> None:
    axes = writer.integers(node, "axes", [0, *(axis + 1 for axis in operator.axes)])
    writer.emit("TRANSPOSE", node, "TransposeOptions", axes)


def _matmul(writer: TfliteWriter, node: Node, operator: ops.MatMul) -> None:
    writer.emit("BATCH_MATMUL", node, "BatchMatMulOptions", adjY=operator.transpose_second)


def _softmax(writer: TfliteWriter, node: Node, operator: ops.Softmax) -> None:
    source, read = writer.values[node.inputs[0]], writer.kind(node)
    writer.emit_with_scale("SOFTMAX", source, read, node, UNIT, "SoftmaxOptions", beta=operator.beta)


def _l2_normalise(writer: TfliteWriter, node: Node, operator: ops.L2Normalise) -> None:  # noqa: ARG001
    source, read = writer.values[node.inputs[0]], writer.kind(node)
    writer.emit_with_scale("L2_NORMALIZATION", source, read, node, CENTRED, "L2NormOptions")


def _argmax(writer: TfliteWriter, node: Node, operator: ops.ArgMax) -> None:  # noqa: ARG001
    axis = writer.integers(node, "axis", [len(writer.kind(node).shape)])
    writer.emit("ARG_MAX", node, "ArgMaxOptions", axis, outputType=schema.TensorType.INT64)


RULES: dict[type[ops.Operator], Callable[[TfliteWriter, Node, Any], None]] = {
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

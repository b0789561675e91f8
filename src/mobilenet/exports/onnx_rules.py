"""What each operator is in ONNX: a function each, from the real values that it reads to the one that it writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mobilenet.exports.onnx_writer import TO_NCHW, TO_NHWC, OnnxWriter, onnx_shape
from mobilenet.exports.ties import SLOPES, gate_offset
from mobilenet.graph import ops
from mobilenet.graph.graph import Node

Inputs = list[str]  # what a node reads, in real numbers


def activate(writer: OnnxWriter, node: Node, activation: str, source: str, output: str) -> None:
    """Adds an activation of a node."""
    if activation == "prelu":
        writer.emit("PRelu", [source, writer.by_channel(node, "alpha", node.name)], output)
    elif activation == "none":
        writer.emit("Identity", [source], output)
    elif activation == "relu6":
        _clip(writer, source, output, writer.relu6_limit(node))
    elif activation in SLOPES:
        _hard_sigmoid(writer, node, activation, source, output)
    else:
        _ACTIVATIONS[activation](writer, source, output)


def _clip(writer: OnnxWriter, source: str, output: str, limit: float) -> None:
    writer.emit("Clip", [source, writer.scalar(0), writer.scalar(limit)], output)


def _window(operator: ops.Window) -> dict[str, Any]:
    top, bottom, left, right = operator.padding
    fields = {"kernel_shape": operator.kernel, "strides": operator.stride, "pads": (top, left, bottom, right)}
    return fields if isinstance(operator, ops.AveragePool) else {**fields, "dilations": operator.dilation}


def _conv(writer: OnnxWriter, node: Node, operator: ops.Conv, inputs: Inputs, output: str) -> None:
    parameters = writer.linear_parameters(node, 0, lambda weight: weight.transpose(0, 3, 1, 2))
    writer.emit("Conv", [*inputs, *parameters], output, **_window(operator))


def _depthwise_conv(
    writer: OnnxWriter, node: Node, operator: ops.DepthwiseConv, inputs: Inputs, output: str
) -> None:
    parameters = writer.linear_parameters(node, 0, lambda weight: weight.transpose(2, 0, 1)[:, None])
    groups = writer.graph.types[node.inputs[0]].shape[2]
    writer.emit("Conv", [*inputs, *parameters], output, group=groups, **_window(operator))


def _dense(writer: OnnxWriter, node: Node, operator: ops.Dense, inputs: Inputs, output: str) -> None:
    rank = writer.rank(node.inputs[0])
    if rank == 3:  # over the channels of every pixel
        parameters = writer.linear_parameters(node, 0, lambda weight: weight[:, :, None, None])
        writer.emit("Conv", [*inputs, *parameters], output, kernel_shape=(1, 1))
    elif rank == 1:
        writer.emit("Gemm", [*inputs, *writer.linear_parameters(node, 0, lambda weight: weight)], output, transB=1)
    else:
        transposed, *bias = writer.linear_parameters(node, 1, np.transpose)
        product = writer.emit("MatMul", [*inputs, transposed], f"{output}/product" if bias else output)
        if operator.bias:
            writer.emit("Add", [product, *bias], output)


def _batch_norm(writer: OnnxWriter, node: Node, operator: ops.BatchNorm, inputs: Inputs, output: str) -> None:
    names = ("gamma", "beta", "mean", "variance")
    tensors = [writer.constant(f"{node.name}.{name}", writer.weight(node, name)) for name in names]
    if writer.last_axis(node.name) == 1:
        writer.emit("BatchNormalization", [*inputs, *tensors], output, epsilon=operator.epsilon)
        return
    gamma, beta, mean, variance = (writer.weight(node, name).astype(np.float64) for name in names)
    scale = gamma / np.sqrt(variance + operator.epsilon)
    shift = writer.constant(f"{node.name}.shift", (beta - mean * scale).astype(np.float32))
    factor = writer.constant(f"{node.name}.scale", scale.astype(np.float32))
    writer.emit("Add", [writer.emit("Mul", [*inputs, factor], f"{output}/scaled"), shift], output)


def _activation(writer: OnnxWriter, node: Node, operator: ops.Activation, inputs: Inputs, output: str) -> None:
    activate(writer, node, operator.activation, inputs[0], output)


def _add(writer: OnnxWriter, node: Node, operator: ops.Add, inputs: Inputs, output: str) -> None:  # noqa: ARG001
    writer.emit("Add", inputs, output)


def _mul(writer: OnnxWriter, node: Node, operator: ops.Mul, inputs: Inputs, output: str) -> None:
    second = writer.by_channel(node, "weight", node.name) if operator.constant else inputs[1]
    writer.emit("Mul", [inputs[0], second], output)


def _mean(writer: OnnxWriter, node: Node, operator: ops.Mean, inputs: Inputs, output: str) -> None:  # noqa: ARG001
    pooled = output if operator.keep_axes else f"{output}/pooled"
    writer.emit("GlobalAveragePool", inputs, pooled)
    if not operator.keep_axes:
        writer.emit("Flatten", [pooled], output)


def _average_pool(writer: OnnxWriter, node: Node, operator: ops.AveragePool, inputs: Inputs, output: str) -> None:  # noqa: ARG001
    writer.emit("AveragePool", inputs, output, count_include_pad=0, **_window(operator))


def _max_pool(writer: OnnxWriter, node: Node, operator: ops.MaxPool, inputs: Inputs, output: str) -> None:  # noqa: ARG001
    writer.emit("MaxPool", inputs, output, **_window(operator))


def _pad(writer: OnnxWriter, node: Node, operator: ops.Pad, inputs: Inputs, output: str) -> None:
    top, bottom, left, right = operator.padding
    pads = writer.integers(f"{node.name}.pads", (0, 0, top, left, 0, 0, bottom, right))
    writer.emit("Pad", [*inputs, pads], output, mode="constant")


def _concat(writer: OnnxWriter, node: Node, operator: ops.Concat, inputs: Inputs, output: str) -> None:  # noqa: ARG001
    writer.emit("Concat", inputs, output, axis=writer.last_axis(node.name))


def _resize(writer: OnnxWriter, node: Node, operator: ops.Resize, inputs: Inputs, output: str) -> None:
    """Rounding of nearest neighbours as in `run/reference_window.nearest_index`."""
    position = "align_corners" if operator.align_corners else "asymmetric"
    position = "half_pixel" if operator.half_pixel_centers else position
    attributes = {"coordinate_transformation_mode": position, "mode": "linear"}
    if operator.method == "nearest":
        rounding = "floor" if position == "asymmetric" else "round_prefer_ceil"
        attributes |= {"mode": "nearest", "nearest_mode": rounding}
    height, width, channels = writer.graph.types[node.name].shape
    if writer.batch is None:  # ONNX wants all four sizes or the factors
        rows, columns, _ = writer.graph.types[node.inputs[0]].shape
        factors = np.array([1, 1, height / rows, width / columns], np.float32)
        scales = writer.constant(f"{node.name}.factors", factors)
        writer.emit("Resize", [inputs[0], "", scales], output, **attributes)
    else:
        sizes = writer.integers(f"{node.name}.sizes", (writer.batch, channels, height, width))
        writer.emit("Resize", [inputs[0], "", "", sizes], output, **attributes)


def _reshape(writer: OnnxWriter, node: Node, operator: ops.Reshape, inputs: Inputs, output: str) -> None:  # noqa: ARG001
    """Elements are in the order of height, width, channels, so pictures are turned before and after."""
    source, shape = inputs[0], writer.graph.types[node.name].shape
    read = writer.graph.types[node.inputs[0]].shape
    if len(read) == 3 and _order_matters(read):
        source = writer.emit("Transpose", [source], f"{output}/nhwc", perm=TO_NHWC)
    if len(shape) == 3 and _order_matters(shape):
        target = writer.integers(f"{node.name}.shape", (0, *shape))
        turned = writer.emit("Reshape", [source, target], f"{output}/reshaped")
        writer.emit("Transpose", [turned], output, perm=TO_NCHW)
    else:
        target = writer.integers(f"{node.name}.shape", (0, *onnx_shape(shape)))
        writer.emit("Reshape", [source, target], output)


def _order_matters(picture: ops.Shape) -> bool:
    """Whether channels first and channels last differ in the order of the elements."""
    return picture[2] > 1 and picture[0] * picture[1] > 1


def _transpose(writer: OnnxWriter, node: Node, operator: ops.Transpose, inputs: Inputs, output: str) -> None:  # noqa: ARG001
    axes = [0, *(axis + 1 for axis in operator.axes)]
    if len(operator.axes) == 3:  # from channels first to last, the node's own order, and back
        to_graph = [TO_NHWC[axis] for axis in axes]
        axes = [to_graph[axis] for axis in TO_NCHW]
    writer.emit("Transpose", inputs, output, perm=axes)


def _matmul(writer: OnnxWriter, node: Node, operator: ops.MatMul, inputs: Inputs, output: str) -> None:  # noqa: ARG001
    first, second = inputs
    if operator.transpose_second:
        second = writer.emit("Transpose", [second], f"{output}/transposed", perm=[0, 2, 1])
    writer.emit("MatMul", [first, second], output)


def _softmax(writer: OnnxWriter, node: Node, operator: ops.Softmax, inputs: Inputs, output: str) -> None:
    source = inputs[0]
    if operator.beta != 1:
        source = writer.emit("Mul", [source, writer.scalar(operator.beta)], f"{output}/scaled")
    writer.emit("Softmax", [source], output, axis=writer.last_axis(node.name))


def _l2_normalise(writer: OnnxWriter, node: Node, operator: ops.L2Normalise, inputs: Inputs, output: str) -> None:
    axis, source = writer.last_axis(node.name), inputs[0]
    squares = writer.emit("ReduceSumSquare", [source], f"{output}/squares", axes=[axis], keepdims=1)
    limited = writer.emit("Max", [squares, writer.scalar(operator.epsilon)], f"{output}/limited")
    writer.emit("Div", [source, writer.emit("Sqrt", [limited], f"{output}/length")], output)


def _argmax(writer: OnnxWriter, node: Node, operator: ops.ArgMax, inputs: Inputs, output: str) -> None:  # noqa: ARG001
    writer.emit("ArgMax", inputs, output, axis=writer.last_axis(node.inputs[0]), keepdims=0)


def _hard_sigmoid(writer: OnnxWriter, node: Node, activation: str, source: str, output: str) -> None:
    slope = SLOPES[activation]
    three = gate_offset(writer.graph.types[node.inputs[0]], writer.graph.types[node.name], slope)
    if activation == "hard_sigmoid":
        writer.emit("HardSigmoid", [source], output, alpha=slope, beta=three * slope)
        return
    shifted = writer.emit("Add", [source, writer.scalar(three)], f"{output}/shifted")
    _clip(writer, shifted, f"{output}/clipped", 6)
    writer.emit("Mul", [f"{output}/clipped", writer.scalar(slope)], output)


def _gelu(writer: OnnxWriter, source: str, output: str) -> None:
    """x / 2 * (1 + erf(x / sqrt(2))), the arrangement that runtimes recognise."""
    scaled = writer.emit("Div", [source, writer.scalar(2**0.5)], f"{output}/scaled")
    error = writer.emit("Erf", [scaled], f"{output}/erf")
    share = writer.emit("Add", [error, writer.scalar(1)], f"{output}/share")
    product = writer.emit("Mul", [source, share], f"{output}/product")
    writer.emit("Mul", [product, writer.scalar(0.5)], output)


_ACTIVATIONS: dict[str, Callable[[OnnxWriter, str, str], object]] = {
    "relu": lambda writer, source, output: writer.emit("Relu", [source], output),
    "hard_swish": lambda writer, source, output: writer.emit("HardSwish", [source], output),
    "sigmoid": lambda writer, source, output: writer.emit("Sigmoid", [source], output),
    "gelu": _gelu,
}

RULES: dict[type[ops.Operator], Callable[[OnnxWriter, Node, Any, Inputs, str], None]] = {
    ops.Conv: _conv,
    ops.DepthwiseConv: _depthwise_conv,
    ops.Dense: _dense,
    ops.BatchNorm: _batch_norm,
    ops.Activation: _activation,
    ops.Add: _add,
    ops.Mul: _mul,
    ops.Mean: _mean,
    ops.AveragePool: _average_pool,
    ops.MaxPool: _max_pool,
    ops.Pad: _pad,
    ops.Concat: _concat,
    ops.Resize: _resize,
    ops.Reshape: _reshape,
    ops.Transpose: _transpose,
    ops.MatMul: _matmul,
    ops.Softmax: _softmax,
    ops.L2Normalise: _l2_normalise,
    ops.ArgMax: _argmax,
}

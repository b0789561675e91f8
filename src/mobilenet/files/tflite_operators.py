"""What each operator of a .tflite file is in a graph: one function each, and the table of all that are known."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenet.errors import ModelFileError, UnsupportedOperatorError
from mobilenet.files.flatbuffer import Table
from mobilenet.files.tflite_graph import Conversion
from mobilenet.files.tflite_schema import Call, tensor_type
from mobilenet.files.tflite_weights import linear_weights
from mobilenet.graph import ops
from mobilenet.graph.graph import Node, TensorType

ACTIVATIONS = {0: "none", 1: "relu", 3: "relu6"}  # by the schema's number
ACTIVATION_OPERATORS = {
    "RELU": "relu",
    "RELU6": "relu6",
    "LOGISTIC": "sigmoid",
    "HARD_SWISH": "hard_swish",
    "GELU": "gelu",
}
SLOPES = {"hard_sigmoid": 1 / 6, "hard_sigmoid_slim": 0.16667}  # of relu6(x + 3)
SAME = 0  # the schema's number of SAME padding; 1 is VALID


def _options(call: Call) -> Table:
    if call.options is None:
        raise ModelFileError(f"is damaged: {call} has no options")
    return call.options


def _activation(call: Call, field: int) -> str:
    number = _options(call).number(field, "int8")
    if number not in ACTIVATIONS:
        raise UnsupportedOperatorError(
            f"{call} has the activation {number}, which the import of .tflite files does not have"
        )
    return ACTIVATIONS[number]


def _window(call: Call, kind: TensorType, kernel: ops.Pair, dilation: ops.Pair = (1, 1)) -> dict[str, Any]:
    """The fields of a window; padding and strides are the first three options of all three that have one."""
    options = _options(call)
    stride = (options.number(2, "int32"), options.number(1, "int32"))
    same = options.number(0, "int8") == SAME
    if len(kind.shape) != 3:
        raise ModelFileError(f"is damaged: {call} reads a value of shape {kind.shape}, which is no picture")
    if min(*kernel, *stride, *dilation) < 1 or max(*kernel, *stride, *dilation) > ops.MAX_FIELD:
        raise ModelFileError(f"is damaged: {call} has kernel {kernel}, stride {stride}, dilation {dilation}")
    size = (kind.shape[0], kind.shape[1])
    padding = ops.same_sides(size, kernel, stride, dilation) if same else (0, 0, 0, 0)
    return {"kernel": kernel, "stride": stride, "dilation": dilation, "padding": padding, "same": same}


def _convolution(conversion: Conversion, call: Call, depthwise: bool) -> None:
    name, kind = conversion.value(call)
    weight = conversion.constant(call, 1)[1]
    if weight.ndim != 4 or 0 in weight.shape:
        raise ModelFileError(f"is damaged: {call} has weights of shape {list(weight.shape)}")
    activation, first = (4, 5) if depthwise else (3, 4)  # where the options have the activation and dilations
    options, kernel = _options(call), (weight.shape[1], weight.shape[2])
    dilation = (options.number(first + 1, "int32", 1), options.number(first, "int32", 1))
    fields = _window(call, kind, kernel, dilation)
    fields |= {"bias": _has_bias(call), "activation": _activation(call, activation)}
    channels, groups = kind.shape[2], weight.shape[0 if depthwise else 3]
    if groups != (1 if depthwise else channels) or (depthwise and weight.shape[3] % channels):
        raise UnsupportedOperatorError(f"{call} is grouped, which the import of .tflite files does not have")
    operator = (
        ops.DepthwiseConv(**fields, multiplier=weight.shape[3] // channels)
        if depthwise
        else ops.Conv(**fields, out_channels=weight.shape[0])
    )
    node = conversion.add(call, operator, name)
    axis = 3 if depthwise else 0
    _add_weights(conversion, call, node, kind, weight[0] if depthwise else weight, axis)


def _has_bias(call: Call) -> bool:
    return len(call.inputs) > 2 and call.inputs[2] >= 0


def _add_weights(
    conversion: Conversion, call: Call, node: str, kind: TensorType, weight: NDArray[Any], axis: int
) -> None:
    """The parameters of a linear node; `axis` is where the file's tensor has the output channels."""
    tensor = conversion.operand(call, 1)
    bias = conversion.constant(call, 2) if _has_bias(call) else None
    conversion.add_weights(node, linear_weights(call, kind.quantisation, tensor, weight, axis, bias))


def _dense(conversion: Conversion, call: Call) -> None:
    name, kind = conversion.value(call)
    weight = conversion.constant(call, 1)[1]
    options = _options(call)
    if weight.ndim != 2 or 0 in weight.shape or options.number(1, "int8"):
        raise ModelFileError(f"{call} has weights of shape {list(weight.shape)} or in an order that is not read")
    if not options.number(2, "bool"):
        name = _flattened(conversion, call, name, kind, weight.shape[1])
    operator = ops.Dense(weight.shape[0], bias=_has_bias(call), activation=_activation(call, 0))
    node = conversion.add(call, operator, name)
    _add_weights(conversion, call, node, kind, weight, 0)


def _flattened(conversion: Conversion, call: Call, name: str, kind: TensorType, features: int) -> str:
    """TFLite's dense layer flattens what it reads; here that is a node of its own."""
    if kind.shape == (features,):
        return name
    reshape = Node(
        conversion.node_name(call, "flatten"), ops.Reshape((features,)), (name,), kind.dtype, kind.quantisation
    )
    conversion.nodes.append(reshape)
    return reshape.name


def _pool(conversion: Conversion, call: Call, operator: type[ops.AveragePool]) -> None:
    name, kind = conversion.value(call)
    options = _options(call)
    kernel = (options.number(4, "int32"), options.number(3, "int32"))
    fields = _window(call, kind, kernel)
    conversion.add(call, operator(**fields, activation=_activation(call, 5)), name)


def _add(conversion: Conversion, call: Call) -> None:
    """relu6(x + 3) is the first half of a hard sigmoid; the product with 1/6 must follow."""
    position = _constant_operand(conversion, call)
    if position is None:
        _elementwise(conversion, call, ops.Add)
        return
    values, activation = _real_constant(conversion, call, position), _activation(call, 0)
    if values.size != 1 or abs(float(values.flat[0]) - 3) > 1e-5 or activation != "relu6":
        raise UnsupportedOperatorError(f"{call} adds a constant, which the import of .tflite files does not have")
    name, _ = conversion.value(call, 1 - position)
    output = conversion.output(call).index
    conversion.names[output] = conversion.halves[output] = name


def _mul(conversion: Conversion, call: Call) -> None:
    position = _constant_operand(conversion, call)
    if position is None:
        _elementwise(conversion, call, ops.Mul)
        return
    values, source = _real_constant(conversion, call, position), conversion.operand(call, 1 - position).index
    if source in conversion.halves:
        slope = float(values.flat[0]) if values.size == 1 else 0.0
        name = min(SLOPES, key=lambda known: abs(SLOPES[known] - slope))
        if abs(slope / SLOPES[name] - 1) > 1e-5 or _activation(call, 0) != "none":
            raise UnsupportedOperatorError(f"{call} scales relu6(x + 3) by {slope:g}, which is no hard sigmoid")
        conversion.add(call, ops.Activation(name), conversion.halves[source])
        conversion.finished.add(source)
        return
    name, kind = conversion.value(call, 1 - position)
    if kind.integer or not kind.shape or values.shape[-1:] != (values.size,) or values.size != kind.shape[-1]:
        raise UnsupportedOperatorError(
            f"{call} has no constant of floats for each channel, others are not supported"
        )
    node = conversion.add(call, ops.Mul(constant=True, activation=_activation(call, 0)), name)
    conversion.add_weights(node, {"weight": values.ravel().astype(np.float32)})


def _constant_operand(conversion: Conversion, call: Call) -> int | None:
    """Which of two operands the file holds, if one of them."""
    constant = [conversion.operand(call, position).constant for position in (0, 1)]
    return constant.index(True) if constant.count(True) == 1 else None


def _real_constant(conversion: Conversion, call: Call, position: int) -> NDArray[Any]:
    """A constant of floats, or of integers with one scale, in real numbers."""
    tensor, values = conversion.constant(call, position)
    if values.size == 0:
        raise ModelFileError(f"is damaged: {call} has an empty constant")
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    if len(tensor.scale) != 1:
        raise ModelFileError(f"{call} has a constant of integers with {len(tensor.scale)} scales, not one")
    return (values.astype(np.float64) - int(tensor.zero_point[0])) * float(tensor.scale[0])


def _elementwise(conversion: Conversion, call: Call, operator: type[ops.Add] | type[ops.Mul]) -> None:
    (first, first_kind), (second, second_kind) = conversion.value(call, 0), conversion.value(call, 1)
    if prod(first_kind.shape) < prod(second_kind.shape):  # a gate may stand on either side
        first, second = second, first
    conversion.add(call, operator(activation=_activation(call, 0)), first, second)


def _matmul(conversion: Conversion, call: Call) -> None:
    (first, _), (second, _) = conversion.value(call, 0), conversion.value(call, 1)
    if _options(call).number(0, "bool"):
        raise UnsupportedOperatorError(f"{call} transposes its first input, which is not supported")
    operator = ops.MatMul(transpose_second=bool(_options(call).number(1, "bool")))
    conversion.add(call, operator, first, second)


def _mean(conversion: Conversion, call: Call) -> None:
    name, kind = conversion.value(call)
    axes = sorted(int(axis) % (len(kind.shape) + 1) for axis in conversion.constant(call, 1)[1].ravel()[:8])
    if axes != [1, 2] or len(kind.shape) != 3:
        raise UnsupportedOperatorError(f"{call} is over the axes {axes}; only height and width are supported")
    conversion.add(call, ops.Mean(keep_axes=bool(_options(call).number(0, "bool"))), name)


def _pad(conversion: Conversion, call: Call) -> None:
    name, _ = conversion.value(call)
    amounts = conversion.constant(call, 1)[1].ravel()[:9].tolist()
    if len(amounts) != 8 or any(amounts[:2] + amounts[6:]):
        raise UnsupportedOperatorError(f"{call} pads by {amounts}; only height and width are supported")
    top, bottom, left, right = amounts[2:6]
    conversion.add(call, ops.Pad(padding=(top, bottom, left, right)), name)


def _concat(conversion: Conversion, call: Call) -> None:
    values = [conversion.value(call, position) for position in range(len(call.inputs))]
    axis, rank = _options(call).number(0, "int32"), len(values[0][1].shape) + 1 if values else 0
    if axis not in (-1, rank - 1) or _activation(call, 1) != "none":
        raise UnsupportedOperatorError(f"{call} is along axis {axis} or has an activation, which is not supported")
    conversion.add(call, ops.Concat(), *(name for name, _ in values))


def _resize(conversion: Conversion, call: Call, method: str) -> None:
    name, _ = conversion.value(call)
    size = conversion.constant(call, 1)[1].ravel()[:3].tolist()
    if len(size) != 2:
        raise ModelFileError(f"is damaged: {call} has the size {size}")
    first = 2 if method == "bilinear" else 0  # bilinear's options begin with two fields that are out of use
    aligned, centred = (bool(_options(call).number(first + i, "bool")) for i in (0, 1))
    conversion.add(call, ops.Resize((size[0], size[1]), method, aligned, centred), name)


def _reshape(conversion: Conversion, call: Call) -> None:
    name, _ = conversion.value(call)
    conversion.add(call, ops.Reshape(tensor_type(conversion.output(call)).shape), name)


def _transpose(conversion: Conversion, call: Call) -> None:
    name, _ = conversion.value(call)
    axes = conversion.constant(call, 1)[1].ravel()[:9].tolist()
    if axes[:1] != [0]:
        raise UnsupportedOperatorError(f"{call} moves the batch by the axes {axes}, which is not supported")
    conversion.add(call, ops.Transpose(tuple(axis - 1 for axis in axes[1:])), name)


def _softmax(conversion: Conversion, call: Call) -> None:
    conversion.add(call, ops.Softmax(beta=_options(call).real(0)), conversion.value(call)[0])


def _l2_normalise(conversion: Conversion, call: Call) -> None:
    if call.options is not None and _activation(call, 0) != "none":
        raise UnsupportedOperatorError(f"{call} has an activation, which is not supported")
    conversion.add(call, ops.L2Normalise(), conversion.value(call)[0])


def _argmax(conversion: Conversion, call: Call) -> None:
    name, kind = conversion.value(call)
    axis = conversion.constant(call, 1)[1].ravel()[:2].tolist()
    if axis not in ([-1], [len(kind.shape)]):
        raise UnsupportedOperatorError(f"{call} is along the axis {axis}; only the last one is supported")
    conversion.add(call, ops.ArgMax(), name)


def _activate(conversion: Conversion, call: Call) -> None:
    if call.kind == "GELU" and call.options is not None and call.options.number(0, "bool"):
        raise UnsupportedOperatorError(f"{call} is the approximation by tanh, which is not supported")
    operator = ops.Activation(ACTIVATION_OPERATORS[call.kind])
    conversion.add(call, operator, conversion.value(call)[0])


def _prelu(conversion: Conversion, call: Call) -> None:
    name, kind = conversion.value(call)
    alpha = conversion.constant(call, 1)[1]
    if kind.integer or alpha.dtype.kind != "f" or alpha.shape[-1:] != (alpha.size,) or not kind.shape:
        raise UnsupportedOperatorError(f"{call} has no slope of floats for each channel, others are not supported")
    node = conversion.add(call, ops.Activation("prelu"), name)
    conversion.add_weights(node, {"alpha": alpha.ravel().astype(np.float32)})


def _dequantise(conversion: Conversion, call: Call) -> None:
    """Of a float16 constant it only says how the constant is stored."""
    tensor = conversion.operand(call, 0)
    if tensor.constant and tensor.dtype == "float16":
        conversion.charge(4 * len(tensor.data))
        conversion.unpacked[conversion.output(call).index] = tensor.values().astype(np.float32)
    else:
        conversion.add(call, ops.Dequantise(), conversion.value(call)[0])


def _quantise(conversion: Conversion, call: Call) -> None:
    conversion.add(call, ops.Quantise(), conversion.value(call)[0])


CONVERTERS: dict[str, Callable[[Conversion, Call], None]] = {
    "CONV_2D": lambda conversion, call: _convolution(conversion, call, depthwise=False),
    "DEPTHWISE_CONV_2D": lambda conversion, call: _convolution(conversion, call, depthwise=True),
    "FULLY_CONNECTED": _dense,
    "AVERAGE_POOL_2D": lambda conversion, call: _pool(conversion, call, ops.AveragePool),
    "MAX_POOL_2D": lambda conversion, call: _pool(conversion, call, ops.MaxPool),
    "ADD": _add,
    "MUL": _mul,
    "BATCH_MATMUL": _matmul,
    "MEAN": _mean,
    "PAD": _pad,
    "CONCATENATION": _concat,
    "RESIZE_BILINEAR": lambda conversion, call: _resize(conversion, call, "bilinear"),
    "RESIZE_NEAREST_NEIGHBOR": lambda conversion, call: _resize(conversion, call, "nearest"),
    "RESHAPE": _reshape,
    "SQUEEZE": _reshape,
    "TRANSPOSE": _transpose,
    "SOFTMAX": _softmax,
    "L2_NORMALIZATION": _l2_normalise,
    "ARG_MAX": _argmax,
    "PRELU": _prelu,
    "QUANTIZE": _quantise,
    "DEQUANTIZE": _dequantise,
    **dict.fromkeys(ACTIVATION_OPERATORS, _activate),
}

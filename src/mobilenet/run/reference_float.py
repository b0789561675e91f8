"""What every operator computes in float32: the definition that torch, the engine and the exports are tested by."""

from __future__ import annotations

from math import sqrt

import numpy as np

from mobilenet.graph.ops import (
    Activation,
    Add,
    ArgMax,
    AveragePool,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    DepthwiseConv,
    L2Normalise,
    MatMul,
    MaxPool,
    Mean,
    Mul,
    Operator,
    Pad,
    Reshape,
    Resize,
    Softmax,
    Transpose,
)
from mobilenet.run.reference_call import Array, Call, Rule
from mobilenet.run.reference_window import (
    convolve,
    convolve_depthwise,
    nearest_index,
    padded,
    pixels_in_windows,
    reduce_windows,
    source_positions,
)


def activate(activation: str, x: Array, alpha: Array | None = None) -> Array:
    """An activation of float32 or float64 values, in their own dtype.

    Args:
        activation: one of `ops.ACTIVATIONS`.
        x: (N, ..., channels).
        alpha: (channels), the slope below zero; for prelu only.

    Source: relu6 Howard et al. 2017; hard_swish Howard et al. 2019, section 5.2; gelu (exact, with erf)
    Hendrycks and Gimpel 2016; prelu He et al. 2015.
    """
    if activation == "prelu":
        assert alpha is not None
        return np.where(x >= 0, x, x * alpha)
    return np.asarray(_ACTIVATIONS[activation](x))


def _relu6(x: Array) -> Array:
    return np.minimum(np.maximum(x, 0), 6)


def _sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))  # never overflows
    result: Array = np.where(x >= 0, 1, small) / (1 + small)
    return result


def _hard_sigmoid(x: Array) -> Array:
    return _relu6(x + 3) / 6


def _gelu(x: Array) -> Array:
    return (x * (0.5 + 0.5 * error_function(x / sqrt(2)))).astype(x.dtype)


_ACTIVATIONS = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": _relu6,
    "hard_sigmoid": _hard_sigmoid,
    "hard_sigmoid_slim": lambda x: _relu6(x + 3) * x.dtype.type(0.16667),
    "hard_swish": lambda x: x * _hard_sigmoid(x),
    "sigmoid": _sigmoid,
    "gelu": _gelu,
}

# Coefficients of two of the rational approximations in W. J. Cody, "Rational Chebyshev approximations for the
# error function", Mathematics of Computation 23 (1969), pages 631-637; the highest power first.
_ERF_ABOVE = (1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2, 3.77485237685302021e2,
              3.20937758913846947e3)  # fmt: skip
_ERF_BELOW = (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3)
_ERFC_ABOVE = (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1,
               2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3,
               1.23033935479799725e3)  # fmt: skip
_ERFC_BELOW = (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
               3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3,
               1.23033935480374942e3)  # fmt: skip


def error_function(x: Array) -> Array:
    """erf(x) in float64, to 1e-14; numpy has none. Source: Cody 1969 (the case |x| > 4 is not told apart)."""
    x = np.asarray(x, np.float64)
    size = np.minimum(np.abs(x), 6)  # from there on erf is 1 in float64
    square = np.minimum(size, 0.5) ** 2
    near = x * np.polyval(_ERF_ABOVE, square) / np.polyval(_ERF_BELOW, square)
    rest = np.exp(-size * size) * np.polyval(_ERFC_ABOVE, size) / np.polyval(_ERFC_BELOW, size)
    result: Array = np.where(size <= 0.46875, near, np.copysign(1 - rest, x))
    return result


def _finish(call: Call, x: Array) -> Array:
    """Adds the bias, in place, and applies the activation that the operator carries."""
    if "bias" in call.parameters:
        x += call.parameters["bias"]
    return activate(getattr(call.operator, "activation", "none"), x, call.parameters.get("alpha"))


def _conv(op: Conv, call: Call) -> Array:
    return _finish(call, convolve(op, call.first, call.parameters["weight"]))


def _depthwise_conv(op: DepthwiseConv, call: Call) -> Array:
    return _finish(call, convolve_depthwise(op, call.first, call.parameters["weight"]))


def _dense(op: Dense, call: Call) -> Array:  # noqa: ARG001
    return _finish(call, call.first @ call.parameters["weight"].T)


def _batch_norm(op: BatchNorm, call: Call) -> Array:
    mean, variance, gamma, beta = (call.parameters[name] for name in ("mean", "variance", "gamma", "beta"))
    return _finish(call, (call.first - mean) * (gamma / np.sqrt(variance + np.float32(op.epsilon))) + beta)


def _activation(op: Activation, call: Call) -> Array:
    return activate(op.activation, call.first, call.parameters.get("alpha"))


def _add(op: Add, call: Call) -> Array:  # noqa: ARG001
    return _finish(call, call.first + call.inputs[1])


def _mul(op: Mul, call: Call) -> Array:
    return _finish(call, call.first * (call.parameters["weight"] if op.constant else call.inputs[1]))


def _mean(op: Mean, call: Call) -> Array:
    return np.asarray(call.first.mean(axis=(1, 2), keepdims=op.keep_axes))


def _average_pool(op: AveragePool, call: Call) -> Array:
    count = pixels_in_windows(op, call.first).astype(np.float32)
    return _finish(call, reduce_windows(op, call.first, np.add, 0) / count)


def _max_pool(op: MaxPool, call: Call) -> Array:
    return _finish(call, reduce_windows(op, call.first, np.maximum, -np.inf))


def _pad(op: Pad, call: Call) -> Array:
    return padded(call.first, op.padding)


def _concat(op: Concat, call: Call) -> Array:  # noqa: ARG001
    return np.concatenate(call.inputs, axis=-1)


def _resize(op: Resize, call: Call) -> Array:
    height, width, _ = call.output.shape
    if op.method == "nearest":
        return nearest(op, call.first, height, width)
    return _interpolate(op, _interpolate(op, call.first, 1, height), 2, width)


def nearest(op: Resize, x: Array, height: int, width: int) -> Array:
    """Nearest neighbour of (N, H, W, C), whatever the dtype."""
    rows = nearest_index(x.shape[1], height, op.align_corners, op.half_pixel_centers)
    columns = nearest_index(x.shape[2], width, op.align_corners, op.half_pixel_centers)
    return x[:, rows[:, None], columns]


def _interpolate(op: Resize, x: Array, axis: int, target: int) -> Array:
    """Linear interpolation along one axis: low + (high - low) * fraction."""
    size = x.shape[axis]
    numerator, denominator = source_positions(size, target, op.align_corners, op.half_pixel_centers)
    index = numerator // denominator
    fraction = ((numerator % denominator) / denominator).astype(x.dtype)
    fraction = fraction.reshape((-1,) + (1,) * (x.ndim - axis - 1))
    low = np.take(x, index, axis)
    high = np.take(x, np.minimum(index + 1, size - 1), axis)
    return np.asarray(low + (high - low) * fraction)


def _reshape(op: Reshape, call: Call) -> Array:  # noqa: ARG001
    return call.first.reshape(len(call.first), *call.output.shape)


def _transpose(op: Transpose, call: Call) -> Array:
    return call.first.transpose(0, *(axis + 1 for axis in op.axes))


def _matmul(op: MatMul, call: Call) -> Array:
    second = call.inputs[1].swapaxes(1, 2) if op.transpose_second else call.inputs[1]
    return np.asarray(call.first @ second)


def _softmax(op: Softmax, call: Call) -> Array:
    x = call.first * np.float32(op.beta)
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _l2_normalise(op: L2Normalise, call: Call) -> Array:
    squares = np.square(call.first).sum(axis=-1, keepdims=True)
    return np.asarray(call.first / np.sqrt(np.maximum(squares, np.float32(op.epsilon))))


def _argmax(op: ArgMax, call: Call) -> Array:  # noqa: ARG001
    return np.asarray(call.first.argmax(axis=-1))


FLOAT_RULES: dict[type[Operator], Rule] = {
    Conv: _conv,
    DepthwiseConv: _depthwise_conv,
    Dense: _dense,
    BatchNorm: _batch_norm,
    Activation: _activation,
    Add: _add,
    Mul: _mul,
    Mean: _mean,
    AveragePool: _average_pool,
    MaxPool: _max_pool,
    Pad: _pad,
    Concat: _concat,
    Resize: _resize,
    Reshape: _reshape,
    Transpose: _transpose,
    MatMul: _matmul,
    Softmax: _softmax,
    L2Normalise: _l2_normalise,
    ArgMax: _argmax,
}

"""What every operator computes in integers (int8 or uint8): this defines exactness for every other place.

Written q for a stored integer, s for a scale, z for a zero point, i, j for inputs, w for weights, o for the
output; a stored q stands for the real s * (q - z). The rules, in words that leave no choice:

0. Scales are float32 numbers; one that is not is rounded to float32 first. What is counted out of scales alone is
   counted in float32, from left to right, every operation rounded, unless a rule says float64.
1. Sums of products (conv, depthwise_conv, dense, mean, matmul) are exact whole numbers (int32 holds them).
2. *Requantisation* of such a number a with the multiplier m: q = clamp(rint(float32(a) * m) + z_o). Here
   float32(a) is a rounded to the nearest float32, the product is one float32 multiplication, rint rounds to the
   nearest whole number, ties to even, z_o is added as a whole number and clamp limits to the output's range.
   Nothing is fused (no FMA).
3. An output's range is that of its dtype; after relu it begins at z_o, after relu6 it is also at most
   z_o + rint(6 / s_o). Other activations are a node of their own, a table (rule 9).
4. conv, depthwise_conv, dense: a = bias + sum of (q_i - z_i) * (q_w - z_w); padding adds nothing;
   m = s_i * s_w / s_o, by output channel or one for all. matmul: likewise, the second input is w.
5. mean: a = sum of (q_i - z_i) over n pixels; m = s_i / (s_o * n). mul: a = (q_i - z_i) * (q_j - z_j);
   m = s_i * s_j / s_o.
6. add, in int32: with r_i = s_i / s_o, r_j = s_j / s_o, k = 20 - floor(log2(max(r_i, r_j))) (12 < k <= 30, others
   are refused), t_i = rint(r_i * 2^k) and t_j likewise:
   q = clamp(floor(((q_i - z_i) * t_i + (q_j - z_j) * t_j + 2^(k - 1)) / 2^k) + z_o), an arithmetic shift.
7. average_pool, max_pool, pad, resize, reshape, transpose keep dtype, scale and zero point; the graph must say so.
   average_pool is the mean of the stored q over the n pixels that are no padding, rounded to the nearest whole
   number, ties away from zero. pad and the padding of a conv are z_i. max_pool's padding never wins.
   resize nearest copies. resize bilinear: the fraction of each axis (an exact quotient of whole numbers, see
   `reference_window.source_positions`) becomes f = floor(2048 * fraction + 1/2); first across, then down, each
   low * (2048 - f) + high * f; then floor((sum + 2^21) / 2^22).
8. quantise: from float, q = clamp(rint(float32(x) * (1 / s)) + z), NaN the lowest; from integers, requantisation
   of q_i - z_i with m = s_i / s_o. concat: inputs of another scale, zero point or dtype than the output's are
   requantised so, the others copied. dequantise: s * float32(q - z).
9. activation: a table of 256: the float activation of s_i * (q - z_i), divided by s_o, rint, + z_o, clamp; all of
   it in float64.
10. softmax, in float64: t[d] = rint(2^23 * exp(-beta * s_i * d)) for d = 0..255, d how far a q lies below the
    largest; q = clamp(rint(t / (sum of t * s_o)) + z_o).
11. l2_normalise: a = q_i - z_i; m = s_i / sqrt(max(s_i^2 * sum of a^2, epsilon)) / s_o in float64, rounded once to
    float32. argmax: of the stored q, the lowest index among equals.

Sources: the TFLite 8-bit quantisation specification (which values share a scale); XNNPACK (rules 2, 4 and 6 are
its own, interpolation with weights of 11 bits, exponents in a table), which is what LiteRT runs by default;
TFLite's reference kernels (rounding of the average pool, ranges of activations).
"""

from __future__ import annotations

import math

import numpy as np

from mobilenet.errors import GraphError
from mobilenet.graph.graph import Quantisation, TensorType
from mobilenet.graph.ops import (
    Activation,
    Add,
    ArgMax,
    AveragePool,
    Concat,
    Conv,
    Dense,
    DepthwiseConv,
    Dequantise,
    L2Normalise,
    MatMul,
    MaxPool,
    Mean,
    Mul,
    Operator,
    Pad,
    Quantise,
    Reshape,
    Resize,
    Softmax,
    Transpose,
)
from mobilenet.run.quanta import dequantise_array, quantise_array
from mobilenet.run.reference_call import Array, Call, Rule
from mobilenet.run.reference_float import activate, nearest
from mobilenet.run.reference_window import (
    convolve,
    convolve_depthwise,
    padded,
    pixels_in_windows,
    reduce_windows,
    source_positions,
)

FLOAT32_EXACT = 2**24  # whole numbers up to here are exact in float32, and so are sums that stay below
PRODUCT = 255 * 255  # the largest |q_i - z_i| * |q_w - z_w|
WEIGHT_BITS = 11  # of an interpolation weight
EXPONENT_BITS = 23  # of an entry of softmax's table
FUSED = ("none", "relu", "relu6")


def _quantisation(kind: TensorType) -> Quantisation:
    assert kind.quantisation is not None  # `Graph` lets no integers pass without
    return kind.quantisation


def _centred(q: Array, kind: TensorType, dtype: type = np.int32) -> Array:
    """q - zero point, exact in `dtype`."""
    result: Array = np.subtract(q, _quantisation(kind).zero_point, dtype=dtype)
    return result


def _range(call: Call) -> tuple[int, int]:
    """The lowest and highest stored integer of the output, with the operator's activation (rule 3)."""
    activation = getattr(call.operator, "activation", "none")
    if activation not in FUSED:
        raise call.unsupported(f"integer form with the activation '{activation}'; make it a node of its own")
    info, quantisation = np.iinfo(call.output.dtype), _quantisation(call.output)
    low, high = int(info.min), int(info.max)
    if activation != "none":
        low = max(low, quantisation.zero_point)
    if activation == "relu6":
        high = min(high, quantisation.zero_point + round(min(float(6 / np.float32(quantisation.scale)), 512)))
    return low, high


def _requantise(call: Call, total: Array, multiplier: Array | np.float32) -> Array:
    """Rule 2; total holds whole numbers in any dtype, the multiplier is float32, one or one a channel."""
    low, high = _range(call)
    zero = _quantisation(call.output).zero_point
    steps = total.astype(np.float32) * np.asarray(multiplier, np.float32)
    np.rint(steps, out=steps)
    np.clip(steps, low - zero, high - zero, out=steps)
    steps += np.float32(zero)
    return steps.astype(call.output.dtype)


def _scales(call: Call) -> list[np.float32]:
    """The scales of the inputs and, last, of the output."""
    return [np.float32(_quantisation(kind).scale) for kind in (*call.types, call.output)]


def _linear_operands(call: Call, terms: int) -> tuple[Array, Array]:
    """Input and weight without their zero points, in the smaller float type that sums `terms` products exactly."""
    bias = call.parameters.get("bias", np.zeros(1, np.int32))
    largest = terms * PRODUCT + int(np.abs(bias.astype(np.int64)).max())
    dtype = np.float32 if largest < FLOAT32_EXACT else np.float64
    weight = np.subtract(call.parameters["weight"], call.parameters["weight_zero_point"], dtype=dtype)
    return _centred(call.first, call.types[0], dtype), weight


def _finish_linear(call: Call, total: Array) -> Array:
    if "bias" in call.parameters:
        total += call.parameters["bias"].astype(total.dtype)
    scale_in, scale_out = _scales(call)
    return _requantise(call, total, scale_in * call.parameters["weight_scale"] / scale_out)


def _conv(op: Conv, call: Call) -> Array:
    x, weight = _linear_operands(call, call.parameters["weight"][0].size)
    return _finish_linear(call, convolve(op, x, weight))


def _depthwise_conv(op: DepthwiseConv, call: Call) -> Array:
    x, weight = _linear_operands(call, op.kernel[0] * op.kernel[1])
    return _finish_linear(call, convolve_depthwise(op, x, weight))


def _dense(op: Dense, call: Call) -> Array:  # noqa: ARG001
    x, weight = _linear_operands(call, call.first.shape[-1])
    return _finish_linear(call, x @ weight.T)


def _matmul(op: MatMul, call: Call) -> Array:
    first, second = (_centred(q, kind, np.float64) for q, kind in zip(call.inputs, call.types, strict=True))
    second = second.swapaxes(1, 2) if op.transpose_second else second
    scale_first, scale_second, scale_out = _scales(call)
    return _requantise(call, first @ second, scale_first * scale_second / scale_out)


def _mean(op: Mean, call: Call) -> Array:
    total = _centred(call.first, call.types[0]).sum(axis=(1, 2), dtype=np.int64, keepdims=op.keep_axes)
    pixels = call.first.shape[1] * call.first.shape[2]
    scale_in, scale_out = _scales(call)
    return _requantise(call, total, scale_in / (scale_out * np.float32(pixels)))


def _mul(op: Mul, call: Call) -> Array:  # noqa: ARG001
    first, second = (_centred(q, kind) for q, kind in zip(call.inputs, call.types, strict=True))
    scale_first, scale_second, scale_out = _scales(call)
    return _requantise(call, first * second, scale_first * scale_second / scale_out)


def _add(op: Add, call: Call) -> Array:  # noqa: ARG001
    scale_first, scale_second, scale_out = _scales(call)
    ratios = (scale_first / scale_out, scale_second / scale_out)
    shift = 20 - math.frexp(max(ratios))[1] + 1  # frexp gives 2^(e - 1) <= ratio < 2^e
    if not 12 < shift <= 30:
        raise call.unsupported(f"integer sum of scales {max(ratios):g} times the output's")
    total = np.full(call.first.shape, 1 << (shift - 1), np.int32)
    for q, kind, ratio in zip(call.inputs, call.types, ratios, strict=True):
        total += _centred(q, kind) * np.int32(np.rint(np.ldexp(ratio, shift)))
    low, high = _range(call)
    return np.asarray(
        np.clip((total >> shift) + _quantisation(call.output).zero_point, low, high), call.output.dtype
    )


def _keep_quantisation(call: Call) -> None:
    """Rule 7."""
    given, written = call.types[0], call.output
    if (given.dtype, given.quantisation) != (written.dtype, written.quantisation):
        raise GraphError(
            f"node '{call.name}' ({call.operator.kind}): writes {written.dtype} {written.quantisation}, but must "
            f"keep its input's {given.dtype} {given.quantisation}; put a quantise node after it"
        )


def _average_pool(op: AveragePool, call: Call) -> Array:
    _keep_quantisation(call)
    total = reduce_windows(op, call.first.astype(np.int64), np.add, 0)
    count = pixels_in_windows(op, call.first)
    size = (2 * np.abs(total) + count) // (2 * count)
    return np.asarray(np.clip(np.sign(total) * size, *_range(call)), call.output.dtype)


def _max_pool(op: MaxPool, call: Call) -> Array:
    _keep_quantisation(call)
    lowest = np.iinfo(call.output.dtype).min
    largest = reduce_windows(op, call.first, np.maximum, lowest)
    return np.asarray(np.clip(largest, *_range(call)), call.output.dtype)


def _pad(op: Pad, call: Call) -> Array:
    _keep_quantisation(call)
    return padded(call.first, op.padding, _quantisation(call.output).zero_point)


def _resize(op: Resize, call: Call) -> Array:
    _keep_quantisation(call)
    height, width, _ = call.output.shape
    if op.method == "nearest":
        return nearest(op, call.first, height, width)
    total = _interpolate(op, _interpolate(op, call.first.astype(np.int32), 2, width), 1, height)
    half = 1 << (2 * WEIGHT_BITS - 1)
    return ((total + half) >> (2 * WEIGHT_BITS)).astype(call.output.dtype)


def _interpolate(op: Resize, x: Array, axis: int, target: int) -> Array:
    """low * (2048 - f) + high * f along one axis, int32: 255 * 2^22 still fits."""
    size = x.shape[axis]
    numerator, denominator = source_positions(size, target, op.align_corners, op.half_pixel_centers)
    index, rest = numerator // denominator, numerator % denominator
    weight = ((rest << (WEIGHT_BITS + 1)) + denominator) // (2 * denominator)
    weight = weight.astype(np.int32).reshape((-1,) + (1,) * (x.ndim - axis - 1))
    high = np.take(x, np.minimum(index + 1, size - 1), axis) * weight
    result: Array = np.take(x, index, axis) * ((1 << WEIGHT_BITS) - weight) + high
    return result


def _reshape(op: Reshape, call: Call) -> Array:  # noqa: ARG001
    _keep_quantisation(call)
    return call.first.reshape(len(call.first), *call.output.shape)


def _transpose(op: Transpose, call: Call) -> Array:
    _keep_quantisation(call)
    return call.first.transpose(0, *(axis + 1 for axis in op.axes))


def _requantised(call: Call, q: Array, kind: TensorType) -> Array:
    """Integers of one type as those of the output (rule 8)."""
    if (kind.dtype, kind.quantisation) == (call.output.dtype, call.output.quantisation):
        return q
    ratio = np.float32(_quantisation(kind).scale) / np.float32(_quantisation(call.output).scale)
    return _requantise(call, _centred(q, kind), ratio)


def _concat(op: Concat, call: Call) -> Array:  # noqa: ARG001
    parts = [_requantised(call, q, kind) for q, kind in zip(call.inputs, call.types, strict=True)]
    return np.concatenate(parts, axis=-1)


def _quantise(op: Quantise, call: Call) -> Array:  # noqa: ARG001
    if call.types[0].integer:
        return _requantised(call, call.first, call.types[0])
    return quantise_array(call.first, _quantisation(call.output), call.output.dtype)


def _dequantise(op: Dequantise, call: Call) -> Array:  # noqa: ARG001
    return dequantise_array(call.first, _quantisation(call.types[0]))


def _activation(op: Activation, call: Call) -> Array:
    if op.activation == "prelu":
        raise call.unsupported("integer prelu")
    given, written = _quantisation(call.types[0]), _quantisation(call.output)
    scale_in, scale_out = map(np.float64, _scales(call))
    info, target = np.iinfo(call.types[0].dtype), np.iinfo(call.output.dtype)
    stored = np.arange(info.min, info.max + 1)
    real = activate(op.activation, scale_in * (stored - given.zero_point))
    steps = np.rint(real / scale_out) + written.zero_point
    table: Array = np.clip(steps, target.min, target.max).astype(call.output.dtype)
    return table[call.first.astype(np.int32) - info.min]


def _softmax(op: Softmax, call: Call) -> Array:
    written, target = _quantisation(call.output), np.iinfo(call.output.dtype)
    below = call.first.max(axis=-1, keepdims=True).astype(np.int32) - call.first
    scale_in, scale_out = map(np.float64, _scales(call))
    exponent = -op.beta * scale_in * np.arange(256)
    powers = np.rint(2**EXPONENT_BITS * np.exp(exponent)).astype(np.int64)[below]
    real = powers / (powers.sum(axis=-1, keepdims=True) * scale_out)
    return np.asarray(np.clip(np.rint(real) + written.zero_point, target.min, target.max), call.output.dtype)


def _l2_normalise(op: L2Normalise, call: Call) -> Array:
    total = _centred(call.first, call.types[0], np.int64)
    scale_in, scale_out = map(np.float64, _scales(call))
    squares = scale_in * scale_in * np.square(total).sum(axis=-1, keepdims=True)
    return _requantise(call, total, scale_in / np.sqrt(np.maximum(squares, op.epsilon)) / scale_out)


def _argmax(op: ArgMax, call: Call) -> Array:  # noqa: ARG001
    return np.asarray(call.first.argmax(axis=-1))


INTEGER_RULES: dict[type[Operator], Rule] = {
    Conv: _conv,
    DepthwiseConv: _depthwise_conv,
    Dense: _dense,
    MatMul: _matmul,
    Mean: _mean,
    Mul: _mul,
    Add: _add,
    AveragePool: _average_pool,
    MaxPool: _max_pool,
    Pad: _pad,
    Concat: _concat,
    Resize: _resize,
    Reshape: _reshape,
    Transpose: _transpose,
    Quantise: _quantise,
    Dequantise: _dequantise,
    Activation: _activation,
    Softmax: _softmax,
    L2Normalise: _l2_normalise,
    ArgMax: _argmax,
}

"""The integer rules against a second writing of them, number by number in plain Python; LiteRT is the judge of
whole operators and files in tests/files.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilenet.errors import GraphError, UnsupportedOperatorError
from mobilenet.graph import ops
from mobilenet.graph.graph import Graph, Node, Quantisation, TensorType
from mobilenet.run.reference import dequantise_array, quantise_array, run

EXAMPLES = settings(max_examples=30, deadline=None, derandomize=True)
DTYPES = st.sampled_from(["int8", "uint8"])
SCALES = st.floats(2**-10, 0.5, width=32)


def limits(dtype):
    return (0, 255) if dtype == "uint8" else (-128, 127)


@st.composite
def types(draw, shape, scale=None):
    dtype = draw(DTYPES)
    zero = draw(st.integers(*limits(dtype)))
    return TensorType(shape, dtype, Quantisation(scale or draw(SCALES), zero))


def integers(kind, seed=0, batch=2):
    low, high = limits(kind.dtype)
    return np.random.default_rng(seed).integers(low, high + 1, (batch, *kind.shape)).astype(kind.dtype)


def one(operator, out, *values, **weights):
    """The output of one operator; values are (type, array) pairs, out is the dtype and quantisation it writes."""
    inputs = {f"in{i}": kind for i, (kind, _) in enumerate(values)}
    node = Node("x", operator, tuple(inputs), out.dtype, out.quantisation)
    graph = Graph(inputs, (node,), {"out": "x"})
    named = {f"x.{name}": array for name, array in weights.items()}
    return run(graph, named, {f"in{i}": array for i, (_, array) in enumerate(values)})["out"]


def nearest_even(value):
    """A float32 to the nearest whole number, exactly."""
    return round(Fraction(float(value)))


def requantised(total, multiplier, out, activation="none"):
    """Rule 2 for one number."""
    low, high = limits(out.dtype)
    scale, zero = np.float32(out.quantisation.scale), out.quantisation.zero_point
    if activation != "none":
        low = max(low, zero)
    if activation == "relu6":
        high = min(high, zero + nearest_even(np.float32(6) / scale))
    return min(max(nearest_even(np.float32(total) * np.float32(multiplier)) + zero, low), high)


@st.composite
def linear(draw, shape):
    """A type, an array of it, a weight dtype, its zero point, a scale for each of two channels or for both."""
    kind = draw(types(shape))
    dtype = draw(DTYPES)
    zero = draw(st.integers(0, 255)) if dtype == "uint8" else 0
    scale = np.array(draw(st.lists(st.floats(2**-13, 2**-5, width=32), min_size=1, max_size=2)), np.float32)
    return kind, integers(kind), dtype, zero, scale


def products(picture, weight, places, kind, zero):
    """Sum of (q - z) * (w - z_w) over pairs of indices, as Python's whole numbers."""
    z = kind.quantisation.zero_point
    return sum((int(picture[i]) - z) * (int(weight[w]) - zero) for i, w in places)


@EXAMPLES
@given(
    linear((5, 4, 3)), st.data(), st.sampled_from(["none", "relu", "relu6"]), st.integers(1, 2), st.integers(1, 2)
)
def test_conv(drawn, data, activation, stride, dilation):
    kind, x, dtype, zero, scale = drawn
    low, high = limits(dtype)
    rng = np.random.default_rng(1)
    weight = rng.integers(low, high + 1, (2, 2, 2, 3)).astype(dtype)
    bias = rng.integers(-5000, 5000, 2).astype(np.int32)
    operator = ops.Conv(
        kernel=(2, 2), stride=(stride, stride), dilation=(dilation, dilation), padding=(1, 0, 0, 2),
        out_channels=2, bias=True, activation=activation,
    )  # fmt: skip
    height, width, _ = operator.output_shape([(5, 4, 3)])
    out = data.draw(types((height, width, 2)))
    parameters = {"weight": weight, "weight_scale": scale, "weight_zero_point": np.array([zero], np.int32)}
    ours = one(operator, out, (kind, x), **parameters, bias=bias)
    for n, y, column, channel in np.ndindex(*ours.shape):
        places = [
            ((y * stride - 1 + i * dilation, column * stride + j * dilation, c), (channel, i, j, c))
            for i in range(2) for j in range(2) for c in range(3)
        ]  # fmt: skip
        inside = [(p, w) for p, w in places if 0 <= p[0] < 5 and 0 <= p[1] < 4]
        total = int(bias[channel]) + products(x[n], weight, inside, kind, zero)
        multiplier = np.float32(kind.quantisation.scale) * scale[channel % len(scale)]
        multiplier = multiplier / np.float32(out.quantisation.scale)
        assert ours[n, y, column, channel] == requantised(total, multiplier, out, activation)


@EXAMPLES
@given(linear((4, 5, 1)), st.data(), st.sampled_from(["none", "relu", "relu6"]))
def test_depthwise_conv(drawn, data, activation):
    kind, x, dtype, zero, scale = drawn
    low, high = limits(dtype)
    weight = np.random.default_rng(1).integers(low, high + 1, (3, 3, 2)).astype(dtype)
    operator = ops.DepthwiseConv((3, 3), padding=(1, 1, 1, 1), multiplier=2, activation=activation)
    out = data.draw(types((4, 5, 2)))
    parameters = {"weight": weight, "weight_scale": scale, "weight_zero_point": np.array([zero], np.int32)}
    ours = one(operator, out, (kind, x), **parameters)
    for n, y, column, channel in np.ndindex(*ours.shape):
        places = [((y + i - 1, column + j - 1, 0), (i, j, channel)) for i in range(3) for j in range(3)]
        inside = [(p, w) for p, w in places if 0 <= p[0] < 4 and 0 <= p[1] < 5]
        multiplier = np.float32(kind.quantisation.scale) * scale[channel % len(scale)]
        multiplier = multiplier / np.float32(out.quantisation.scale)
        total = products(x[n], weight, inside, kind, zero)
        assert ours[n, y, column, channel] == requantised(total, multiplier, out, activation)


@EXAMPLES
@given(linear((300,)), st.data())
def test_dense_of_many_terms(drawn, data):
    """300 terms of up to 255 * 255 go past the whole numbers that float32 holds."""
    kind, x, dtype, zero, scale = drawn
    low, high = limits(dtype)
    weight = np.random.default_rng(1).integers(low, high + 1, (2, 300)).astype(dtype)
    weight[0], x[0] = high, limits(kind.dtype)[1]
    bias = np.array([2**30 + 1, -(2**30) - 1], np.int32)
    out = data.draw(types((2,), scale=float(np.float32(2**23))))
    parameters = {"weight": weight, "weight_scale": scale, "weight_zero_point": np.array([zero], np.int32)}
    ours = one(ops.Dense(2), out, (kind, x), **parameters, bias=bias)
    for n, channel in np.ndindex(*ours.shape):
        places = [(i, (channel, i)) for i in range(300)]
        total = int(bias[channel]) + products(x[n], weight, places, kind, zero)
        multiplier = np.float32(kind.quantisation.scale) * scale[channel % len(scale)]
        multiplier = multiplier / np.float32(out.quantisation.scale)
        assert ours[n, channel] == requantised(total, multiplier, out)


@EXAMPLES
@given(types((3, 4, 2)), types((3, 4, 2)), types((3, 4, 2)), st.sampled_from(["none", "relu"]))
def test_add(first, second, out, activation):
    x, y = integers(first), integers(second, 1)
    scale = np.float32(out.quantisation.scale)
    ratios = [np.float32(kind.quantisation.scale) / scale for kind in (first, second)]
    largest = Fraction(float(max(ratios)))
    shift = next(k for k in range(12, 40) if 2**20 <= largest * 2**k < 2**21)
    factors = [nearest_even(float(ratio) * 2**shift) for ratio in ratios]
    low, high = limits(out.dtype)
    zero = out.quantisation.zero_point
    ours = one(ops.Add(activation=activation), out, (first, x), (second, y))
    for place in np.ndindex(*ours.shape):
        total = (int(x[place]) - first.quantisation.zero_point) * factors[0]
        total += (int(y[place]) - second.quantisation.zero_point) * factors[1]
        q = math.floor(Fraction(total, 2**shift) + Fraction(1, 2)) + zero
        assert ours[place] == min(max(q, zero if activation == "relu" else low), high)


@EXAMPLES
@given(types((3, 4, 2)), types((1, 1, 2)), types((3, 4, 2)))
def test_mul_and_mean(first, second, out):
    x, y = integers(first), integers(second, 1)
    scale_x, scale_y, scale = (np.float32(kind.quantisation.scale) for kind in (first, second, out))
    product = one(ops.Mul(), out, (first, x), (second, y))
    for n, i, j, c in np.ndindex(*product.shape):
        total = int(x[n, i, j, c]) - first.quantisation.zero_point
        total *= int(y[n, 0, 0, c]) - second.quantisation.zero_point
        assert product[n, i, j, c] == requantised(total, scale_x * scale_y / scale, out)
    mean = one(ops.Mean(), TensorType((2,), out.dtype, out.quantisation), (first, x))
    for n, c in np.ndindex(*mean.shape):
        total = sum(int(q) - first.quantisation.zero_point for q in x[n, :, :, c].ravel())
        assert mean[n, c] == requantised(total, scale_x / (scale * np.float32(12)), out)


@EXAMPLES
@given(types((4, 6)), types((6, 3)), types((4, 3)))
def test_matmul(first, second, out):
    x, y = integers(first), integers(second, 1)
    multiplier = np.float32(first.quantisation.scale) * np.float32(second.quantisation.scale)
    multiplier = multiplier / np.float32(out.quantisation.scale)
    ours = one(ops.MatMul(), out, (first, x), (second, y))
    centred = [q.astype(object) - kind.quantisation.zero_point for q, kind in ((x, first), (y, second))]
    for n, i, j in np.ndindex(*ours.shape):
        total = sum(centred[0][n, i] * centred[1][n, :, j])
        assert ours[n, i, j] == requantised(total, multiplier, out)


@EXAMPLES
@given(types((5, 7, 2)), st.integers(2, 4), st.integers(1, 2))
def test_average_pool_is_the_rounded_mean_of_the_pixels(kind, size, stride):
    x = integers(kind)
    operator = ops.AveragePool((size, size), (stride, stride), padding=(1, 1, 0, 1))
    ours = one(operator, kind, (kind, x))
    largest = one(ops.MaxPool((size, size), (stride, stride), padding=(1, 1, 0, 1)), kind, (kind, x))
    for n, i, j, c in np.ndindex(*ours.shape):
        top, left = i * stride - 1, j * stride
        window = x[n, max(top, 0) : top + size, left : left + size, c].astype(int).ravel()
        mean = Fraction(int(window.sum()), len(window))
        away = math.floor(abs(mean) + Fraction(1, 2)) * (1 if mean > 0 else -1)
        assert ours[n, i, j, c] == away
        assert largest[n, i, j, c] == window.max()


@EXAMPLES
@given(types((3, 4, 2)), st.integers(1, 9), st.integers(1, 9), st.sampled_from(["aligned", "centred", "legacy"]))
def test_resize_bilinear_is_within_a_quantum_of_real_interpolation(kind, height, width, rule):
    x = integers(kind)
    fields = {"align_corners": rule == "aligned", "half_pixel_centers": rule == "centred"}
    ours = one(ops.Resize((height, width), **fields), kind, (kind, x))
    real = TensorType(kind.shape)
    node = Node("r", ops.Resize((height, width), **fields), ("x",))
    floats = run(Graph({"x": real}, (node,), {"out": "r"}), {}, x.astype(np.float32))["out"]
    assert np.abs(ours.astype(float) - floats).max() <= 0.5 + 255 * 2 / 4096


@EXAMPLES
@given(types((2, 3, 4)), types((2, 3, 4)))
def test_quantise_between_integers_and_concat(kind, out):
    x = integers(kind)
    ours = one(ops.Quantise(), out, (kind, x))
    ratio = np.float32(kind.quantisation.scale) / np.float32(out.quantisation.scale)
    expected = [requantised(int(q) - kind.quantisation.zero_point, ratio, out) for q in x.ravel()]
    assert ours.ravel().tolist() == expected
    y = integers(out, 3)
    joined = TensorType((2, 3, 8), out.dtype, out.quantisation)
    np.testing.assert_array_equal(
        one(ops.Concat(), joined, (kind, x), (out, y)), np.concatenate([ours, y], axis=-1)
    )


@EXAMPLES
@given(types((50,), scale=0.1), st.sampled_from([a for a in ops.ACTIVATIONS if a != "prelu"]), types((50,)))
def test_activations_are_the_float_ones_rounded(kind, name, out):
    x = integers(kind)
    ours = one(ops.Activation(name), out, (kind, x))
    node = Node("a", ops.Activation(name), ("x",))
    real = run(Graph({"x": TensorType((50,))}, (node,), {"out": "a"}), {}, dequantise_array(x, kind.quantisation))
    expected = quantise_array(real["out"], out.quantisation, out.dtype)
    assert np.abs(ours.astype(int) - expected).max() <= 1  # float32 can fall on the other side of a tie
    assert (ours != expected).mean() < 0.05


@EXAMPLES
@given(types((60,)))
def test_softmax(kind):
    x = integers(kind)
    out = TensorType((60,), "uint8", Quantisation(1 / 256, 0))
    ours = one(ops.Softmax(), out, (kind, x))
    real = dequantise_array(x, kind.quantisation).astype(np.float64)
    powers = np.exp(real - real.max(axis=-1, keepdims=True))
    exact = np.minimum(powers / powers.sum(axis=-1, keepdims=True) * 256, 255)
    assert np.abs(ours - exact).max() <= 0.501


def test_l2_normalise_and_argmax():
    kind = TensorType((4,), "uint8", Quantisation(0.1, 100))
    out = TensorType((4,), "int8", Quantisation(1 / 128, 0))
    x = np.array([[103, 104, 100, 100], [100, 100, 100, 100], [90, 100, 100, 100]], np.uint8)
    assert one(ops.L2Normalise(), out, (kind, x)).tolist() == [[77, 102, 0, 0], [0] * 4, [-128, 0, 0, 0]]
    index = one(ops.ArgMax(), TensorType((), "int64"), (kind, x))
    assert index.tolist() == [1, 0, 1]
    assert index.dtype == np.int64


def test_shapes_keep_their_integers():
    kind = TensorType((2, 3, 4), "int8", Quantisation(0.5, 7))
    x = integers(kind)
    padded = one(ops.Pad((1, 0, 0, 2)), kind, (kind, x))
    assert (padded[:, 0] == 7).all()
    assert (padded[:, :, 3:] == 7).all()
    np.testing.assert_array_equal(padded[:, 1:, :3], x)
    np.testing.assert_array_equal(one(ops.Reshape((24,)), kind, (kind, x)), x.reshape(2, 24))
    np.testing.assert_array_equal(one(ops.Transpose((2, 0, 1)), kind, (kind, x)), x.transpose(0, 3, 1, 2))
    nearest = one(ops.Resize((4, 3), "nearest"), kind, (kind, x))
    np.testing.assert_array_equal(nearest, x.repeat(2, axis=1))


def test_quantise_array_rounds_ties_to_even_and_saturates():
    quantisation = Quantisation(2.0, 10)
    x = np.array([-1e30, -27, -1, 1, 3, 5, 7, 1e30, np.inf, -np.inf, np.nan], np.float32)
    expected = [0, 0, 10, 10, 12, 12, 14, 255, 255, 0, 0]
    assert quantise_array(x, quantisation, "uint8").tolist() == expected
    assert quantise_array(x[:3], Quantisation(1.0, -128), "int8").tolist() == [-128, -128, -128]


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_dequantise_then_quantise_is_the_same(dtype):
    low, high = limits(dtype)
    q = np.arange(low, high + 1).astype(dtype)
    for scale in (0.0235, 1 / 128, 3e-5, 7.0):
        quantisation = Quantisation(scale, low + 100)
        np.testing.assert_array_equal(quantise_array(dequantise_array(q, quantisation), quantisation, dtype), q)


def test_requantisation_rounds_ties_to_even():
    """Multiplier 1/2: 1, 3, 5, 7 become 0, 2, 2, 4."""
    kind, out = TensorType((4,), "int8", Quantisation(1.0, 0)), TensorType((4,), "int8", Quantisation(2.0, 0))
    x = np.array([[1, 3, 5, 7], [-1, -3, -5, -7]], np.int8)
    assert one(ops.Quantise(), out, (kind, x)).tolist() == [[0, 2, 2, 4], [0, -2, -2, -4]]


def test_what_has_no_integer_form_is_named():
    kind = TensorType((2, 2, 3), "int8", Quantisation(0.5, 0))
    x = integers(kind)
    weights = {
        "weight": np.zeros((3, 1, 1, 3), np.int8),
        "weight_scale": np.ones(1, np.float32),
        "weight_zero_point": np.zeros(1, np.int32),
    }
    for activation in ("gelu", "hard_swish", "sigmoid"):
        with pytest.raises(UnsupportedOperatorError, match=rf"'x' \(conv\).*integer.*{activation}"):
            one(ops.Conv(out_channels=3, activation=activation), kind, (kind, x), **weights)
    with pytest.raises(GraphError, match="no integer form"):
        one(ops.BatchNorm(), kind, (kind, x))
    far = TensorType((2, 2, 3), "int8", Quantisation(1000.0, 0))
    with pytest.raises(UnsupportedOperatorError, match="integer sum"):
        one(ops.Add(), kind, (far, x), (far, x))


@pytest.mark.parametrize(
    "operator", [ops.AveragePool((2, 2)), ops.MaxPool((2, 2)), ops.Pad(), ops.Resize((4, 4)), ops.Reshape((12,))]
)
def test_what_keeps_its_scale_must_say_so(operator):
    kind = TensorType((2, 2, 3), "int8", Quantisation(0.5, 0))
    other = TensorType((2, 2, 3), "int8", Quantisation(0.25, 0))
    with pytest.raises(GraphError, match="quantise node"):
        one(operator, other, (kind, integers(kind)))


def test_a_batch_is_its_pictures_one_by_one():
    kind = TensorType((9, 9, 8), "uint8", Quantisation(0.05, 7))
    x = integers(kind, batch=3)
    rng = np.random.default_rng(0)
    weights = {
        "weight": rng.integers(0, 255, (5, 3, 3, 8)).astype(np.uint8),
        "weight_scale": np.array([0.003], np.float32),
        "weight_zero_point": np.array([120], np.int32),
        "bias": rng.integers(-999, 999, 5).astype(np.int32),
    }
    operator = ops.Conv((3, 3), out_channels=5, bias=True, activation="relu6")
    out = TensorType((7, 7, 5), "uint8", Quantisation(6 / 255, 0))
    whole = one(operator, out, (kind, x), **weights)
    parts = [one(operator, out, (kind, x[i : i + 1]), **weights) for i in range(3)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))

"""The float reference against torch, operator by operator, over drawn shapes, strides, dilations and paddings."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilenet.errors import ArgumentError, GraphError, UnsupportedOperatorError
from mobilenet.graph import ops
from mobilenet.graph.graph import Graph, Node, TensorType
from mobilenet.run.reference import run
from mobilenet.run.reference_float import error_function

torch = pytest.importorskip("torch")
F = torch.nn.functional

EXAMPLES = settings(max_examples=40, deadline=None, derandomize=True)
PAIRS = st.tuples(st.integers(1, 4), st.integers(1, 4))
SIDES = st.tuples(*[st.integers(0, 3)] * 4)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def one(operator, *arrays, **weights):
    """The output of one operator for float arrays (N, ...)."""
    inputs = {f"in{i}": TensorType(array.shape[1:]) for i, array in enumerate(arrays)}
    graph = Graph(inputs, (Node("x", operator, tuple(inputs)),), {"out": "x"})
    named = {f"x.{name}": array for name, array in weights.items()}
    return run(graph, named, {f"in{i}": array for i, array in enumerate(arrays)})["out"]


def channels_first(x):
    return torch.from_numpy(np.ascontiguousarray(x)).permute(0, 3, 1, 2)


def channels_last(x):
    return x.permute(0, 2, 3, 1).numpy()


def torch_padded(x, sides, value=0.0):
    top, bottom, left, right = sides
    return F.pad(channels_first(x), (left, right, top, bottom), value=value)


def assert_close(ours, theirs, tolerance=1e-5):
    assert ours.shape == theirs.shape
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


@st.composite
def windows(draw, dilations=PAIRS):
    kernel, stride, dilation = draw(PAIRS), draw(PAIRS), draw(dilations)
    padding = draw(SIDES)
    least = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    height = max(1, least[0] - padding[0] - padding[1]) + draw(st.integers(0, 9))
    width = max(1, least[1] - padding[2] - padding[3]) + draw(st.integers(0, 9))
    fields = {"kernel": kernel, "stride": stride, "dilation": dilation, "padding": padding}
    return fields, numbers(draw(st.integers(1, 3)), height, width, draw(st.integers(1, 5)), seed=height)


@EXAMPLES
@given(windows(), st.integers(1, 6), st.booleans())
def test_conv(drawn, out_channels, bias):
    fields, x = drawn
    weight, offset = numbers(out_channels, *fields["kernel"], x.shape[-1], seed=1), numbers(out_channels, seed=2)
    ours = one(
        ops.Conv(**fields, out_channels=out_channels, bias=bias),
        x,
        weight=weight,
        **({"bias": offset} if bias else {}),
    )
    theirs = F.conv2d(
        torch_padded(x, fields["padding"]),
        channels_first(weight),
        torch.from_numpy(offset) if bias else None,
        fields["stride"],
        dilation=fields["dilation"],
    )
    assert_close(ours, channels_last(theirs))


@EXAMPLES
@given(windows(), st.integers(1, 3))
def test_depthwise_conv(drawn, multiplier):
    fields, x = drawn
    channels = x.shape[-1] * multiplier
    weight, bias = numbers(*fields["kernel"], channels, seed=1), numbers(channels, seed=2)
    ours = one(ops.DepthwiseConv(**fields, multiplier=multiplier, bias=True), x, weight=weight, bias=bias)
    theirs = F.conv2d(
        torch_padded(x, fields["padding"]),
        torch.from_numpy(weight).permute(2, 0, 1)[:, None],
        torch.from_numpy(bias),
        fields["stride"],
        dilation=fields["dilation"],
        groups=x.shape[-1],
    )
    assert_close(ours, channels_last(theirs))


@pytest.mark.parametrize("rows", [1, 7, 300])
def test_depthwise_conv_is_the_same_however_large_the_picture(rows):
    """Large results are made in blocks of rows; the blocks must join."""
    x, weight = numbers(2, rows, 40, 64), numbers(3, 3, 64, seed=1)
    fields = {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1, 1, 1)}
    theirs = F.conv2d(channels_first(x), torch.from_numpy(weight).permute(2, 0, 1)[:, None], None, 2, 1, groups=64)
    assert_close(one(ops.DepthwiseConv(**fields), x, weight=weight), channels_last(theirs))


@EXAMPLES
@given(windows(st.just((1, 1))))
def test_average_pool_does_not_count_padding(drawn):
    fields, x = drawn
    (kh, kw), (top, bottom, left, right) = fields["kernel"], fields["padding"]
    fields["padding"] = sides = (min(top, kh - 1), min(bottom, kh - 1), min(left, kw - 1), min(right, kw - 1))
    if x.shape[1] + sum(sides[:2]) < kh or x.shape[2] + sum(sides[2:]) < kw:
        return
    total, count = (
        F.avg_pool2d(torch_padded(y, sides), fields["kernel"], fields["stride"]) for y in (x, np.ones_like(x))
    )
    assert_close(one(ops.AveragePool(**fields), x), channels_last(total / count))
    largest = F.max_pool2d(torch_padded(x, sides, -math.inf), fields["kernel"], fields["stride"])
    assert_close(one(ops.MaxPool(**fields), x), channels_last(largest))


def test_padding_never_wins_a_max_pool_of_negative_numbers():
    x = -np.ones((1, 3, 3, 1), np.float32)
    assert (one(ops.MaxPool(kernel=(3, 3), padding=(1, 1, 1, 1)), x) == -1).all()


SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))


@EXAMPLES
@given(SIZES, SIZES, st.booleans())
def test_resize_bilinear(size, target, align_corners):
    x = numbers(2, *size, 3)
    operator = ops.Resize(size=target, align_corners=align_corners, half_pixel_centers=not align_corners)
    theirs = F.interpolate(channels_first(x), target, mode="bilinear", align_corners=align_corners)
    assert_close(one(operator, x), channels_last(theirs))


@EXAMPLES
@given(SIZES, SIZES)
def test_resize_nearest_takes_the_pixel_at_the_centre(size, target):
    x = numbers(2, *size, 3)
    theirs = F.interpolate(channels_first(x), target, mode="nearest-exact")
    assert_close(one(ops.Resize(size=target, method="nearest"), x), channels_last(theirs), 0)


@EXAMPLES
@given(SIZES, st.integers(1, 4))
def test_resize_nearest_of_tensorflow_1_repeats_pixels(size, times):
    x = numbers(1, *size, 2)
    operator = ops.Resize(size=(size[0] * times, size[1] * times), method="nearest", half_pixel_centers=False)
    assert_close(one(operator, x), x.repeat(times, axis=1).repeat(times, axis=2), 0)


def test_resize_bilinear_of_tensorflow_1_by_hand():
    x = np.array([0, 10, 20], np.float32).reshape(1, 1, 3, 1)
    out = one(ops.Resize(size=(1, 6), half_pixel_centers=False), x)
    np.testing.assert_allclose(out.ravel(), [0, 5, 10, 15, 20, 20])


def test_resize_to_the_size_of_another_value():
    x, like = numbers(1, 3, 5, 2), numbers(1, 6, 7, 9)
    theirs = F.interpolate(channels_first(x), (6, 7), mode="bilinear")
    assert_close(one(ops.Resize(), x, like), channels_last(theirs))


TORCH_ACTIVATIONS = {
    "none": lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
    "hard_swish": F.hardswish,
    "hard_sigmoid": F.hardsigmoid,
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
    "hard_sigmoid_slim": lambda x: F.relu6(x + 3) * 0.16667,
}


def test_every_activation_has_a_test():
    assert {*TORCH_ACTIVATIONS, "prelu"} == set(ops.ACTIVATIONS)


@pytest.mark.parametrize("name", TORCH_ACTIVATIONS)
def test_activation(name):
    x = np.concatenate([np.linspace(-8, 8, 999), [-1e30, -200, 0, 200, 1e30]]).astype(np.float32).reshape(1, -1)
    expected = TORCH_ACTIVATIONS[name](torch.from_numpy(x)).numpy()
    assert_close(one(ops.Activation(activation=name), x), expected, 1e-6)
    assert_close(one(ops.Add(activation=name), x, np.zeros_like(x)), expected, 1e-6)


def test_prelu_has_one_slope_a_channel():
    x, alpha = numbers(2, 3, 3, 5), numbers(5, seed=3)
    theirs = channels_last(F.prelu(channels_first(x), torch.from_numpy(alpha)))
    assert_close(one(ops.Activation(activation="prelu"), x, alpha=alpha), theirs, 0)


def test_error_function():
    x = np.linspace(-8, 8, 20001)
    expected = np.array([math.erf(v) for v in x])
    np.testing.assert_allclose(error_function(x), expected, rtol=0, atol=1e-13)


def test_batch_norm():
    x, gamma, beta, mean = numbers(2, 4, 4, 6), *(numbers(6, seed=i) for i in (1, 2, 3))
    variance = np.abs(numbers(6, seed=4))
    names = {"mean": mean, "variance": variance, "gamma": gamma, "beta": beta}
    ours = one(ops.BatchNorm(epsilon=1e-3, activation="relu6"), x, **names)
    tensors = [torch.from_numpy(a) for a in (mean, variance, gamma, beta)]
    theirs = F.relu6(F.batch_norm(channels_first(x), *tensors, eps=1e-3))
    assert_close(ours, channels_last(theirs))


@pytest.mark.parametrize("shape", [(2, 8), (2, 5, 8), (2, 3, 4, 8)])
def test_dense_works_on_the_last_axis(shape):
    x, weight, bias = numbers(*shape), numbers(4, 8, seed=1), numbers(4, seed=2)
    theirs = F.linear(*(torch.from_numpy(a) for a in (x, weight, bias))).numpy()
    assert_close(one(ops.Dense(out_features=4, dropout=0.5), x, weight=weight, bias=bias), theirs)


def test_softmax_l2_normalise_and_matmul():
    x = numbers(3, 5, 7) * 30
    tensor = torch.from_numpy(x)
    assert_close(one(ops.Softmax(beta=0.5), x), F.softmax(tensor * 0.5, -1).numpy(), 1e-6)
    assert_close(one(ops.L2Normalise(), x), F.normalize(tensor, dim=-1).numpy(), 1e-6)
    assert (one(ops.L2Normalise(), np.zeros((1, 4), np.float32)) == 0).all()
    other = numbers(3, 7, 4, seed=1)
    assert_close(one(ops.MatMul(), x, other), x @ other)
    assert_close(one(ops.MatMul(transpose_second=True), x, other.swapaxes(1, 2).copy()), x @ other)


def test_elementwise_and_shapes():
    x, y, gate = numbers(2, 3, 4, 5), numbers(2, 3, 4, 5, seed=1), numbers(2, 1, 1, 5, seed=2)
    assert_close(one(ops.Add(drop_path=0.5), x, y), x + y, 0)
    assert_close(one(ops.Mul(), x, gate), x * gate, 0)
    assert_close(one(ops.Mul(constant=True), x, weight=gate[0, 0, 0]), x * gate[0, 0, 0], 0)
    assert_close(one(ops.Mean(), x), x.mean((1, 2)), 1e-6)
    assert_close(one(ops.Mean(keep_axes=True), x), x.mean((1, 2), keepdims=True), 1e-6)
    assert_close(one(ops.Concat(), x, y), np.concatenate([x, y], -1), 0)
    assert_close(one(ops.Pad(padding=(1, 0, 2, 3)), x), np.pad(x, ((0, 0), (1, 0), (2, 3), (0, 0))), 0)
    assert_close(one(ops.Reshape(shape=(-1, 5)), x), x.reshape(2, 12, 5), 0)
    assert_close(one(ops.Transpose(axes=(2, 0, 1)), x), x.transpose(0, 3, 1, 2), 0)


def test_argmax_takes_the_first_of_equals():
    x = np.array([[[1, 3, 3], [5, 0, 5]]], np.float32)
    graph = Graph({"x": TensorType((2, 3))}, (Node("a", ops.ArgMax(), ("x",), "int64"),), {"out": "a"})
    out = run(graph, {}, x)["out"]
    assert out.dtype == np.int64 and out.tolist() == [[1, 0]]


def chain():
    nodes = (
        Node("double", ops.Add(), ("x", "x")),
        Node("pool", ops.Mean(), ("double",)),
        Node("softmax", ops.Softmax(), ("pool",)),
    )
    return Graph({"x": TensorType((2, 2, 3))}, nodes, {"probabilities": "softmax", "embedding": "pool"})


def test_run_returns_outputs_and_what_is_kept():
    x = numbers(4, 2, 2, 3)
    out = run(chain(), {}, {"x": x}, keep=["double", "x"])
    assert set(out) == {"probabilities", "embedding", "double", "x"}
    np.testing.assert_array_equal(out["double"], 2 * x)
    assert set(run(chain(), {}, x)) == {"probabilities", "embedding"}


def test_a_batch_is_its_pictures_one_by_one_and_may_be_empty():
    x = numbers(5, 2, 2, 3)
    whole = run(chain(), {}, x)["probabilities"]
    for i in range(5):
        np.testing.assert_allclose(whole[i : i + 1], run(chain(), {}, x[i : i + 1])["probabilities"], rtol=1e-6)
    assert run(chain(), {}, x[:0])["probabilities"].shape == (0, 3)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (np.zeros((1, 2, 2, 4), np.float32), ["'x'", "(1, 2, 2, 4)", "(N, 2, 2, 3)"]),
        (np.zeros((2, 2, 3), np.float32), ["'x'", "(2, 2, 3)", "(N, 2, 2, 3)"]),
        (np.zeros((1, 2, 2, 3), np.float64), ["'x'", "float64", "float32"]),
        ({"y": np.zeros((1, 2, 2, 3), np.float32)}, ["'y'", "x"]),
        ({}, ["'x'", "missing"]),
        ([[1.0]], ["'x'", "list"]),
    ],
)
def test_wrong_inputs_are_named(inputs, words):
    with pytest.raises(ArgumentError) as error:
        run(chain(), {}, inputs)
    for word in words:
        assert word in str(error.value)


def test_inputs_of_different_batches_are_refused():
    with pytest.raises(ArgumentError, match="batch"):
        one(ops.Add(), numbers(1, 2), numbers(2, 2))


def test_unknown_or_ambiguous_keep_is_refused():
    with pytest.raises(ArgumentError, match="'nothing'"):
        run(chain(), {}, numbers(1, 2, 2, 3), keep=["nothing"])
    graph = Graph({"x": TensorType((2,))}, (Node("a", ops.Softmax(), ("x",)),), {"x": "a"})
    with pytest.raises(ArgumentError, match="output 'x'"):
        run(graph, {}, numbers(1, 2), keep=["x"])


def test_missing_weights_are_named():
    with pytest.raises(GraphError, match=r"'x.weight'"):
        one(ops.Dense(out_features=2, bias=False), numbers(1, 3))


def test_an_operator_without_a_rule_is_named(monkeypatch):
    monkeypatch.delitem(__import__("mobilenet.run.reference", fromlist=["x"]).FLOAT_RULES, ops.Softmax)
    with pytest.raises(UnsupportedOperatorError, match=r"'softmax'.*reference has no float softmax"):
        run(chain(), {}, numbers(1, 2, 2, 3))


def test_every_operator_of_the_set_has_a_float_rule():
    from mobilenet.run.reference_float import FLOAT_RULES

    assert set(FLOAT_RULES) | {ops.Quantise, ops.Dequantise} == set(ops.OPERATORS.values())

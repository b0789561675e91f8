"""The engine's plain code for every operator (isa="generic") against the reference: floats close, integers equal.

Each case also runs with other numbers of threads, which split the node's work elsewhere and must change no bit.
"""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from mobilenet.errors import UnsupportedOperatorError
from mobilenet.graph import ops
from mobilenet.graph.graph import Graph, Node, Quantisation, TensorType
from mobilenet.run import reference

pytest.importorskip("mobilenet._engine", reason="the engine is not built: pip install .")

from mobilenet.run.engine import Engine

EXAMPLES = settings(max_examples=50, deadline=None, derandomize=True)
THREADS = (1, 2, 5)
CHANNELS = st.one_of(st.integers(1, 9), st.sampled_from([16, 21, 32, 40, 67]))
FUSED = st.sampled_from(["none", "relu", "relu6"])
DTYPES = st.sampled_from(["int8", "uint8"])
# Powers of two make ties in rounding, which are rare otherwise.
SCALES = st.one_of(st.floats(2**-12, 0.5, width=32), st.integers(-10, -1).map(lambda e: 2.0**e))


def limits(dtype):
    return (0, 255) if dtype == "uint8" else (-128, 127)


def single(operator, kinds, out=None):
    """A graph of one node; `out` is a type that gives its dtype and quantisation."""
    inputs = {f"in{i}": kind for i, kind in enumerate(kinds)}
    out = out or TensorType((), "int64" if isinstance(operator, ops.ArgMax) else "float32")
    return Graph(inputs, (Node("x", operator, tuple(inputs), out.dtype, out.quantisation),), {"out": "x"})


def encode(graph, weights):
    """The bytes of a model file; `model_file.encode` writes graphs with one input only."""
    described = {
        "version": 1, "task": "features", "graph": graph.to_dict(), "preprocessing": {}, "labels": [],
        "calibration": {}, "metrics": {}, "licence": "", "provenance": {},
    }  # fmt: skip
    return save(weights, {"mobilenet": json.dumps(described)})


def floats(*shapes):
    return [TensorType(shape) for shape in shapes]


def batch_of(graph, rng, count):
    batch = {}
    for name, kind in graph.inputs.items():
        if kind.integer:
            low, high = limits(kind.dtype)
            batch[name] = rng.integers(low, high + 1, (count, *kind.shape)).astype(kind.dtype)
        else:
            batch[name] = (2 * rng.standard_normal((count, *kind.shape))).astype(np.float32)
    return batch


def float_weights(graph, rng):
    weights = {}
    for name, parameter in graph.parameters().items():
        values = rng.standard_normal(parameter.shape)
        weights[name] = (np.abs(values) + 0.5 if name.endswith("variance") else values).astype(np.float32)
    return weights


def assert_agrees(graph, weights, batch):
    """The engine's answer is the reference's, for every number of threads."""
    wanted = reference.run(graph, weights, batch)["out"]
    data = encode(graph, weights)
    answers = [Engine(data, isa="generic", threads=threads).run(batch)["out"] for threads in THREADS]
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer, answers[0])
    assert answers[0].dtype == wanted.dtype
    if wanted.dtype != np.float32:
        np.testing.assert_array_equal(answers[0], wanted)
        return
    finite = wanted[np.isfinite(wanted)]
    tolerance = 1e-5 * np.abs(finite).max() if finite.size else 0
    np.testing.assert_allclose(answers[0], wanted, rtol=0, atol=tolerance)


def check(operator, kinds, drawn, out=None, weights=None):
    """`drawn`: the batch and a seed."""
    graph, rng = single(operator, kinds, out), np.random.default_rng(drawn[1])
    weights = float_weights(graph, rng) if weights is None else {f"x.{n}": w for n, w in weights.items()}
    assert_agrees(graph, weights, batch_of(graph, rng, drawn[0]))


RUNS = st.tuples(st.integers(1, 3), st.integers(0, 2**16))


@st.composite
def quantised(draw, shape, scale=None):
    dtype = draw(DTYPES)
    return TensorType(shape, dtype, Quantisation(scale or draw(SCALES), draw(st.integers(*limits(dtype)))))


@st.composite
def windows(draw, pool=False):
    """The fields of a window, and a height and width that it fits."""
    pair = st.tuples(st.integers(1, 4), st.integers(1, 4))
    kernel = draw(st.one_of(st.just((1, 1)), st.just((3, 3)), pair))
    dilation = (1, 1) if pool else draw(st.one_of(st.just((1, 1)), pair))
    most = [(k - 1 if pool else 3) for k in (kernel[0], kernel[0], kernel[1], kernel[1])]
    padding = tuple(draw(st.integers(0, m)) for m in most)
    fields = {"kernel": kernel, "stride": draw(pair), "dilation": dilation, "padding": padding}
    size = []
    for axis in range(2):
        least = (kernel[axis] - 1) * dilation[axis] + 1 - sum(padding[2 * axis : 2 * axis + 2])
        size.append(draw(st.integers(max(1, least), max(1, least) + 6)))
    return fields, tuple(size)


@st.composite
def linear(draw, shape, weight_shape, channels, terms, bias):
    """Input and output types and weights of an integer layer whose sums use the output's range."""
    kind = draw(quantised(shape))
    dtype = draw(DTYPES)
    low, high = limits(dtype)
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    scales = rng.uniform(2**-13, 2**-5, channels if draw(st.booleans()) else 1).astype(np.float32)
    if draw(st.booleans()):
        scales = np.exp2(np.floor(np.log2(scales)))
    steps = draw(st.sampled_from([16, 300, 2**11])) * math.sqrt(terms)  # of a sum in one of the output
    if draw(st.booleans()):
        steps = 2.0 ** round(math.log2(steps))
    out = draw(quantised((), scale=float(np.float32(kind.quantisation.scale * scales.mean() * steps))))
    weights = {
        "weight": rng.integers(low, high + 1, weight_shape).astype(dtype),
        "weight_scale": scales,
        "weight_zero_point": np.array([draw(st.integers(low, high))], np.int32),
    }
    if bias:
        weights["bias"] = rng.integers(-3000, 3000, channels).astype(np.int32)
    return kind, out, weights


# Floats


@EXAMPLES
@given(windows(), CHANNELS, CHANNELS, st.booleans(), st.sampled_from(ops.ACTIVATIONS), RUNS)
def test_float_conv(window, channels, outputs, bias, activation, drawn):
    operator = ops.Conv(**window[0], out_channels=outputs, bias=bias, activation=activation)
    check(operator, floats((*window[1], channels)), drawn)


@EXAMPLES
@given(windows(), CHANNELS, st.integers(1, 3), st.booleans(), st.sampled_from(ops.ACTIVATIONS), RUNS)
def test_float_depthwise_conv(window, channels, multiplier, bias, activation, drawn):
    operator = ops.DepthwiseConv(**window[0], multiplier=multiplier, bias=bias, activation=activation)
    check(operator, floats((*window[1], channels)), drawn)


LEADING = st.lists(st.integers(1, 4), max_size=3).map(tuple)


@EXAMPLES
@given(LEADING, CHANNELS, CHANNELS, st.booleans(), st.sampled_from(ops.ACTIVATIONS), RUNS)
def test_float_dense(leading, terms, outputs, bias, activation, drawn):
    check(ops.Dense(outputs, bias=bias, activation=activation), floats((*leading, terms)), drawn)


@EXAMPLES
@given(st.integers(1, 9), CHANNELS, CHANNELS, st.booleans(), RUNS)
def test_float_matmul(rows, terms, columns, transposed, drawn):
    second = (columns, terms) if transposed else (terms, columns)
    check(ops.MatMul(transposed), floats((rows, terms), second), drawn)


@EXAMPLES
@given(LEADING, CHANNELS, st.sampled_from(ops.ACTIVATIONS), RUNS, st.data())
def test_float_elementwise(leading, channels, activation, drawn, data):
    shape = (*leading, channels)
    operator = data.draw(
        st.sampled_from(
            [ops.BatchNorm, ops.Activation, ops.Add, ops.Mul, ops.Softmax, ops.L2Normalise, ops.ArgMax]
        )
    )
    if operator is ops.Softmax:
        return check(ops.Softmax(data.draw(st.floats(-3, 3))), floats(shape), drawn)
    if operator in (ops.L2Normalise, ops.ArgMax):
        return check(operator(), floats(shape), drawn)
    constant = operator is ops.Mul and data.draw(st.booleans())
    made = operator(constant=True, activation=activation) if constant else operator(activation=activation)
    inputs = [shape]
    if operator is ops.Add:
        inputs.append(shape)
    if operator is ops.Mul and not constant:
        inputs.append(tuple(data.draw(st.sampled_from([1, n])) for n in shape))
    return check(made, floats(*inputs), drawn)


@EXAMPLES
@given(st.integers(1, 9), st.integers(1, 9), st.one_of(CHANNELS, st.integers(120, 200)), st.booleans(), RUNS)
def test_float_mean(height, width, channels, keep_axes, drawn):
    check(ops.Mean(keep_axes), floats((height, width, channels)), drawn)


@EXAMPLES
@given(windows(pool=True), CHANNELS, st.sampled_from(ops.ACTIVATIONS), st.booleans(), RUNS)
def test_float_pools(window, channels, activation, largest, drawn):
    pool = ops.MaxPool if largest else ops.AveragePool
    check(pool(**window[0], activation=activation), floats((*window[1], channels)), drawn)


RESIZES = st.sampled_from([(True, False), (False, True), (False, False)])
METHODS = st.sampled_from(["bilinear", "nearest"])
SIZES = st.tuples(st.integers(1, 20), st.integers(1, 20))


@EXAMPLES
@given(SIZES, SIZES, st.integers(1, 9), RESIZES, METHODS, st.booleans(), RUNS)
def test_float_resize(size, target, channels, rule, method, by_input, drawn):
    shapes = [(*size, channels), (*target, 2)] if by_input else [(*size, channels)]
    operator = ops.Resize(None if by_input else target, method, *rule)
    check(operator, floats(*shapes), drawn)


MOVES = st.sampled_from(["pad", "concat", "reshape", "transpose"])


def moved(kind, shape, draw):
    """An operator that only moves elements, and how many inputs of which shapes it takes."""
    if kind == "pad":
        return ops.Pad(draw(st.tuples(*[st.integers(0, 3)] * 4))), [shape]
    if kind == "concat":
        others = draw(st.lists(st.integers(1, 9), max_size=3))
        return ops.Concat(), [shape, *((*shape[:-1], n) for n in others)]
    if kind == "reshape":
        return ops.Reshape((-1,)), [shape]
    return ops.Transpose(tuple(draw(st.permutations(range(len(shape)))))), [shape]


SHAPES = st.lists(st.one_of(st.integers(1, 5), st.integers(15, 35)), min_size=1, max_size=5).map(tuple)


@EXAMPLES
@given(MOVES, SHAPES, st.data(), RUNS)
def test_float_moves(kind, shape, data, drawn):
    assume(math.prod(shape) < 2**16)
    shape = (*shape, 2, 3)[:3] if kind == "pad" else shape
    operator, shapes = moved(kind, shape, data.draw)
    check(operator, floats(*shapes), drawn)


def test_a_large_reshape_is_whole():
    shape = (90, 70, 13)
    check(ops.Reshape((70, -1)), floats(shape), (2, 0))


def test_reshape_and_transpose_of_no_axes():
    check(ops.Transpose(()), floats(()), (3, 0))
    check(ops.Reshape(()), floats((1, 1)), (3, 0))


SPECIAL = np.array([0.0, -0.0, 1.5, -2.5, np.inf, -np.inf, np.nan, 3e38, -3e38, 1e-40], np.float32)


@pytest.mark.parametrize("activation", [a for a in ops.ACTIVATIONS if a != "prelu"])
def test_float_activation_of_special_numbers(activation):
    graph = single(ops.Activation(activation), floats((1,)))
    data = encode(graph, {})
    x = SPECIAL[:, None]
    np.testing.assert_allclose(
        Engine(data, isa="generic").run(x)["out"], reference.run(graph, {}, x)["out"], rtol=1e-6
    )


@pytest.mark.parametrize(
    "operator",
    [ops.MaxPool((1, 2)), ops.AveragePool((1, 2)), ops.ArgMax(), ops.Softmax(), ops.Transpose((2, 1, 0))],
    ids=lambda operator: operator.kind,
)
def test_special_numbers(operator):
    rng = np.random.default_rng(0)
    graph = single(operator, floats((3, 4, 11)))
    data = encode(graph, {})
    x = np.where(rng.random((40, 3, 4, 11)) < 0.1, rng.choice(SPECIAL, (40, 3, 4, 11)), rng.random((40, 3, 4, 11)))
    x = x.astype(np.float32)
    ours, wanted = Engine(data, isa="generic").run(x)["out"], reference.run(graph, {}, x)["out"]
    np.testing.assert_allclose(ours, wanted, rtol=1e-6, atol=1e-30)


def test_argmax_takes_the_first_of_equals():
    graph = single(ops.ArgMax(), floats((2, 21)))
    x = np.random.default_rng(0).integers(0, 3, (50, 2, 21)).astype(np.float32)
    assert_agrees(graph, {}, {"in0": x})


@pytest.mark.parametrize("activation", ["sigmoid", "hard_swish", "gelu"])
def test_activations_over_a_wide_range(activation):
    graph = single(ops.Activation(activation), floats((60_001,)))
    x = np.linspace(-120, 120, 60_001, dtype=np.float32)[None]
    data = encode(graph, {})
    ours, wanted = Engine(data, isa="generic").run(x)["out"], reference.run(graph, {}, x)["out"]
    np.testing.assert_allclose(ours, wanted, rtol=1e-6, atol=1e-36)


# Integers


@EXAMPLES
@given(windows(), CHANNELS, CHANNELS, st.booleans(), FUSED, RUNS, st.data())
def test_integer_conv(window, channels, outputs, bias, activation, drawn, data):
    operator = ops.Conv(**window[0], out_channels=outputs, bias=bias, activation=activation)
    shape = (outputs, *operator.kernel, channels)
    terms = math.prod(shape[1:])
    kind, out, weights = data.draw(linear((*window[1], channels), shape, outputs, terms, bias))
    check(operator, [kind], drawn, out, weights)


@EXAMPLES
@given(windows(), CHANNELS, st.integers(1, 3), st.booleans(), FUSED, RUNS, st.data())
def test_integer_depthwise_conv(window, channels, multiplier, bias, activation, drawn, data):
    operator = ops.DepthwiseConv(**window[0], multiplier=multiplier, bias=bias, activation=activation)
    outputs = channels * multiplier
    shape = (*operator.kernel, outputs)
    terms = math.prod(operator.kernel)
    kind, out, weights = data.draw(linear((*window[1], channels), shape, outputs, terms, bias))
    check(operator, [kind], drawn, out, weights)


@EXAMPLES
@given(LEADING, CHANNELS, CHANNELS, st.booleans(), FUSED, RUNS, st.data())
def test_integer_dense(leading, terms, outputs, bias, activation, drawn, data):
    kind, out, weights = data.draw(linear((*leading, terms), (outputs, terms), outputs, terms, bias))
    check(ops.Dense(outputs, bias=bias, activation=activation), [kind], drawn, out, weights)


def extremes(weight, zero):
    return {
        "weight": np.full(weight, 255, np.uint8),
        "weight_scale": np.ones(1, np.float32),
        "weight_zero_point": np.array([zero], np.int32),
    }


@pytest.mark.parametrize("zero", [0, 255, 127])
def test_sums_beyond_int32(zero):
    kind = TensorType((40_000,), "uint8", Quantisation(1.0, 0))
    out = TensorType((), "uint8", Quantisation(2.0**24, 0))
    weights = extremes((3, 40_000), zero)
    weights["weight"][1] = np.arange(40_000) % 256
    weights["weight"][2] = 0
    graph = single(ops.Dense(3, bias=False), [kind], out)
    x = np.full((1, 40_000), 255, np.uint8)
    assert_agrees(graph, {f"x.{n}": w for n, w in weights.items()}, {"in0": x})


def test_a_bias_at_the_ends_of_int32():
    kind = TensorType((3,), "uint8", Quantisation(1.0, 0))
    out = TensorType((), "int8", Quantisation(2.0**25, 0))
    weights = extremes((2, 3), 0) | {"bias": np.array([2**31 - 1, -(2**31)], np.int32)}
    graph = single(ops.Dense(2), [kind], out)
    x = np.array([[255, 255, 255], [0, 0, 0]], np.uint8)
    assert_agrees(graph, {f"x.{n}": w for n, w in weights.items()}, {"in0": x})


def test_a_depthwise_kernel_beyond_int32():
    kind = TensorType((200, 200, 2), "uint8", Quantisation(1.0, 0))
    out = TensorType((), "uint8", Quantisation(2.0**24, 0))
    operator = ops.DepthwiseConv((200, 200))
    graph = single(operator, [kind], out)
    weights = {f"x.{n}": w for n, w in extremes((200, 200, 2), 0).items()}
    assert_agrees(graph, weights, {"in0": np.full((1, 200, 200, 2), 255, np.uint8)})


@EXAMPLES
@given(st.integers(1, 9), CHANNELS, CHANNELS, st.booleans(), RUNS, st.data())
def test_integer_matmul(rows, terms, columns, transposed, drawn, data):
    first = data.draw(quantised((rows, terms)))
    second = data.draw(quantised((columns, terms) if transposed else (terms, columns)))
    scale = first.quantisation.scale * second.quantisation.scale * data.draw(st.sampled_from([16, 300, 4096]))
    out = data.draw(quantised((), scale=float(np.float32(scale))))
    check(ops.MatMul(transposed), [first, second], drawn, out, {})


@pytest.mark.parametrize("transposed", [False, True])
def test_matmul_sums_beyond_int32(transposed):
    first = TensorType((2, 40_000), "uint8", Quantisation(1.0, 0))
    second = TensorType((3, 40_000) if transposed else (40_000, 3), "uint8", Quantisation(1.0, 0))
    graph = single(ops.MatMul(transposed), [first, second], TensorType((), "uint8", Quantisation(2.0**24, 0)))
    batch = {name: np.full((1, *kind.shape), 255, np.uint8) for name, kind in graph.inputs.items()}
    assert_agrees(graph, {}, batch)


@EXAMPLES
@given(st.integers(1, 9), st.integers(1, 9), st.one_of(CHANNELS, st.integers(120, 200)), st.booleans(), RUNS,
       st.data())  # fmt: skip
def test_integer_mean(height, width, channels, keep_axes, drawn, data):
    kind = data.draw(quantised((height, width, channels)))
    out = data.draw(quantised((), scale=float(np.float32(kind.quantisation.scale / data.draw(st.integers(1, 4))))))
    check(ops.Mean(keep_axes), [kind], drawn, out)


def test_the_mean_of_a_large_picture():
    kind = TensorType((1100, 1100, 2), "int8", Quantisation(0.1, 127))
    check(ops.Mean(), [kind], (1, 0), TensorType((), "int8", Quantisation(0.1, 100)))


@EXAMPLES
@given(LEADING, CHANNELS, FUSED, RUNS, st.data())
def test_integer_mul(leading, channels, activation, drawn, data):
    shape = (*leading, channels)
    first = data.draw(quantised(shape))
    second = data.draw(quantised(tuple(data.draw(st.sampled_from([1, n])) for n in shape)))
    scale = first.quantisation.scale * second.quantisation.scale * data.draw(st.sampled_from([16, 100, 128, 300]))
    out = data.draw(quantised((), scale=float(np.float32(scale))))
    check(ops.Mul(activation=activation), [first, second], drawn, out)


@EXAMPLES
@given(LEADING, CHANNELS, FUSED, RUNS, st.floats(0.01, 30), st.data())
def test_integer_add(leading, channels, activation, drawn, ratio, data):
    first, second = data.draw(quantised((*leading, channels))), data.draw(quantised((*leading, channels)))
    scale = max(first.quantisation.scale, second.quantisation.scale) * ratio
    out = data.draw(quantised((), scale=float(np.float32(scale))))
    check(ops.Add(activation=activation), [first, second], drawn, out)


@EXAMPLES
@given(windows(pool=True), CHANNELS, FUSED, st.booleans(), RUNS, st.data())
def test_integer_pools(window, channels, activation, largest, drawn, data):
    kind = data.draw(quantised((*window[1], channels)))
    pool = ops.MaxPool if largest else ops.AveragePool
    check(pool(**window[0], activation=activation), [kind], drawn, kind)


def test_an_average_of_more_than_four_million_pixels():
    kind = TensorType((2100, 2100, 1), "uint8", Quantisation(0.1, 0))
    graph = single(ops.AveragePool((2100, 2100)), [kind], kind)
    assert_agrees(graph, {}, {"in0": np.full((1, 2100, 2100, 1), 255, np.uint8)})


@EXAMPLES
@given(SIZES, SIZES, st.integers(1, 9), RESIZES, METHODS, st.booleans(), RUNS, st.data())
def test_integer_resize(size, target, channels, rule, method, by_input, drawn, data):
    kind = data.draw(quantised((*size, channels)))
    kinds = [kind, data.draw(quantised((*target, 2)))] if by_input else [kind]
    check(ops.Resize(None if by_input else target, method, *rule), kinds, drawn, kind)


@pytest.mark.parametrize("rule", [(True, False), (False, True), (False, False)])
@pytest.mark.parametrize(
    "kind", [TensorType((33, 17, 21)), TensorType((33, 17, 21), "int8", Quantisation(0.1, 3))]
)
def test_a_large_resize(rule, kind):
    check(ops.Resize((257, 129), "bilinear", *rule), [kind], (1, 0), kind)


@EXAMPLES
@given(MOVES, SHAPES, st.data(), RUNS)
def test_integer_moves(move, shape, data, drawn):
    assume(math.prod(shape) < 2**16)
    shape = (*shape, 2, 3)[:3] if move == "pad" else shape
    operator, shapes = moved(move, shape, data.draw)
    first = data.draw(quantised(shapes[0]))
    if move != "concat":
        return check(operator, [first], drawn, first)
    kinds = [first, *(data.draw(st.one_of(quantised(s), st.just(TensorType(s, first.dtype, first.quantisation))))
                      for s in shapes[1:])]  # fmt: skip
    out = data.draw(st.one_of(st.just(first), quantised(())))
    return check(operator, kinds, drawn, out)


@EXAMPLES
@given(LEADING, CHANNELS, RUNS, st.data())
def test_quantise_and_dequantise(leading, channels, drawn, data):
    shape = (*leading, channels)
    kind = data.draw(quantised(shape))
    check(ops.Quantise(), floats(shape), drawn, kind)
    check(ops.Quantise(), [kind], drawn, data.draw(quantised(())))
    check(ops.Dequantise(), [kind], drawn)


def test_quantise_of_special_numbers_and_ties():
    for kind in (
        TensorType((1,), "uint8", Quantisation(0.5, 7)),
        TensorType((1,), "int8", Quantisation(0.25, -3)),
    ):
        x = np.concatenate([SPECIAL, np.arange(-80, 80, dtype=np.float32) / 8])[:, None]
        assert_agrees(single(ops.Quantise(), floats((1,)), kind), {}, {"in0": x})


ALL = {dtype: np.arange(limits(dtype)[0], limits(dtype)[1] + 1).astype(dtype) for dtype in ("int8", "uint8")}
TABLES = [a for a in ops.ACTIVATIONS if a != "prelu"]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(quantised((256,)), st.data())
def test_every_entry_of_activation_tables(kind, data):
    out = data.draw(quantised(()))
    nodes = tuple(Node(a, ops.Activation(a), ("in",), out.dtype, out.quantisation) for a in TABLES)
    graph = Graph({"in": kind}, nodes, {a: a for a in TABLES})
    x = ALL[kind.dtype][None]
    ours = Engine(encode(graph, {}), isa="generic", threads=1).run(x)
    for activation, wanted in reference.run(graph, {}, x).items():
        np.testing.assert_array_equal(ours[activation], wanted, err_msg=activation)


@EXAMPLES
@given(quantised((3,)), st.floats(0.01, 4), st.data())
def test_integer_softmax_of_every_distance(kind, beta, data):
    low, high = limits(kind.dtype)
    dtype = data.draw(DTYPES)
    out = TensorType(
        (), dtype, Quantisation(data.draw(st.sampled_from([1 / 256, 1 / 300, 2**-12])), limits(dtype)[0])
    )
    rng = np.random.default_rng(0)
    x = np.stack([np.full(256, high), np.arange(low, high + 1), rng.integers(low, high + 1, 256)], 1)
    assert_agrees(single(ops.Softmax(beta), [kind], out), {}, {"in0": x.astype(kind.dtype)})


@EXAMPLES
@given(LEADING, CHANNELS, RUNS, st.data())
def test_integer_rows(leading, channels, drawn, data):
    kind = data.draw(quantised((*leading, channels)))
    out = data.draw(quantised((), scale=data.draw(st.sampled_from([1 / 128, 1 / 100, 1 / 256]))))
    check(ops.Softmax(data.draw(st.floats(0, 4))), [kind], drawn, out)
    check(ops.L2Normalise(data.draw(st.sampled_from([1e-12, 1e-3, 1.0]))), [kind], drawn, out)
    check(ops.ArgMax(), [kind], drawn)


# What has no rule is refused when the model is loaded.

KIND = TensorType((4, 4, 3), "int8", Quantisation(0.1, 0))
OTHER = TensorType((4, 4, 3), "int8", Quantisation(0.2, 0))


@pytest.mark.parametrize(
    ("operator", "kinds", "out"),
    [
        (ops.MaxPool((2, 2)), [KIND], OTHER),
        (ops.Pad((1, 1, 1, 1)), [KIND], OTHER),
        (ops.Transpose((1, 0, 2)), [KIND], OTHER),
        (ops.Add(activation="sigmoid"), [KIND, KIND], OTHER),
        (ops.Add(), [KIND, KIND], TensorType((), "int8", Quantisation(1e-6, 0))),
        (ops.Softmax(-1.0), [KIND], OTHER),
    ],
    ids=lambda value: value.kind if isinstance(value, ops.Operator) else "",
)
def test_refused(operator, kinds, out):
    data = encode(single(operator, kinds, out), {})
    with pytest.raises(UnsupportedOperatorError, match=f"node 'x' .*{operator.kind}"):
        Engine(data, isa="generic")

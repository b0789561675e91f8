"""Every operator that is imported, alone in a file, run here and by LiteRT.

Most integer results must be LiteRT's own; a tolerance is stated where LiteRT's kernels round in another way.
"""

from __future__ import annotations

import numpy as np
import pytest
from tflite_builder import TfliteBuilder

from mobilenet.errors import ModelFileError, UnsupportedOperatorError
from mobilenet.files.tflite import read_tflite
from mobilenet.run.reference import run

interpreter = pytest.importorskip("ai_edge_litert.interpreter")

SAME, VALID = 0, 1
RELU, RELU6 = 1, 3
DTYPES = ["int8", "uint8", "float32"]
RANDOM = np.random.default_rng(0)


def zero_of(dtype):
    return {"int8": 3, "uint8": 120}.get(dtype, 0)


class OneOperator:
    """A file with one input "x" of a dtype and one output; scales are used for integers only."""

    def __init__(self, dtype, shape, scale=0.0517):
        self.builder, self.dtype, self.shape = TfliteBuilder(), dtype, shape
        self.x = self.value(shape, scale)

    def value(self, shape, scale=0.0517, zero_point=None, dtype=None):
        dtype = dtype or self.dtype
        if dtype not in ("int8", "uint8"):
            return self.builder.tensor(shape, dtype)
        zero = zero_of(dtype) if zero_point is None else zero_point
        return self.builder.tensor(shape, dtype, scale=scale, zero_point=zero)

    def weights(self, shape, axis, x_scale=0.0517, per_channel=False):
        """(weights, bias): floats, per-tensor uint8 with a zero point, or int8, per channel if asked."""
        channels = shape[axis]
        if self.dtype == "float32":
            weight = self.builder.constant(RANDOM.standard_normal(shape) * 0.3, "float32")
            return weight, self.builder.constant(RANDOM.standard_normal(channels), "float32")
        info = np.iinfo(self.dtype)
        data = RANDOM.integers(max(info.min, -127), info.max + 1, shape)
        scale = RANDOM.uniform(0.001, 0.01, channels) if per_channel else 0.004
        zero = 110 if self.dtype == "uint8" else 0
        weight = self.builder.constant(data, self.dtype, scale=scale, zero_point=zero, axis=axis)
        bias_scale = np.float32(x_scale) * np.atleast_1d(np.asarray(scale, np.float32))
        bias = self.builder.constant(RANDOM.integers(-2000, 2000, channels), scale=bias_scale)
        return weight, bias

    def check(self, tmp_path, kind, inputs, output, options=None, *, within=0, share=0.0, **fields):
        """Runs both; integers must be equal but for a `share` of values that are at most `within` apart."""
        self.builder.operator(kind, inputs, output, options, **fields)
        path = tmp_path / "one.tflite"
        path.write_bytes(self.builder.finish([self.x], [output]))
        picture = random_values(self.dtype, self.shape)
        theirs = run_litert(path, picture)
        contents = read_tflite(path)
        ours = next(iter(run(contents.graph, contents.weights, picture).values()))
        assert ours.shape == theirs.shape
        if ours.dtype == np.float32:
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
            return
        difference = np.abs(ours.astype(np.int64) - theirs.astype(np.int64))
        assert difference.max() <= within
        assert (difference > 0).mean() <= share
        assert len(np.unique(theirs)) > 3, "the test would not see a wrong constant"


def rounded_twice(dtype):
    """XNNPACK leaves some linear operators of uint8 to LiteRT's own kernels, which round twice."""
    return {"within": 1, "share": 0.02} if dtype == "uint8" else {}


def random_values(dtype, shape):
    if dtype == "float32":
        return RANDOM.standard_normal(shape).astype(np.float32) * 2
    info = np.iinfo(dtype)
    return RANDOM.integers(info.min, info.max + 1, shape).astype(dtype)


def run_litert(path, picture):
    runtime = interpreter.Interpreter(str(path), num_threads=1)
    runtime.allocate_tensors()
    runtime.set_tensor(runtime.get_input_details()[0]["index"], picture)
    runtime.invoke()
    return runtime.get_tensor(runtime.get_output_details()[0]["index"])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "activation", "dilation"),
    [(1, 1, VALID, 0, 1), (3, 2, SAME, RELU6, 1), (3, 1, SAME, RELU, 2), (5, 2, VALID, 0, 1), (2, 1, SAME, 0, 1)],
)
def test_conv(tmp_path, dtype, kernel, stride, padding, activation, dilation):
    one = OneOperator(dtype, (1, 11, 12, 5))
    weight, bias = one.weights((7, kernel, kernel, 5), 0, per_channel=dtype == "int8")
    height, width = out_size((11, 12), kernel, stride, padding, dilation)
    out = one.value((1, height, width, 7), 0.1)
    one.check(
        tmp_path, "CONV_2D", [one.x, weight, bias], out, "Conv2DOptions", padding=padding, strideW=stride,
        strideH=stride, fusedActivationFunction=activation, dilationWFactor=dilation, dilationHFactor=dilation,
        **rounded_twice(dtype),
    )  # fmt: skip


def out_size(size, kernel, stride, padding, dilation=1):
    reach = (kernel - 1) * dilation + 1
    return [-(-n // stride) if padding == SAME else (n - reach) // stride + 1 for n in size]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("stride", "multiplier", "kernel"), [(1, 1, 3), (2, 1, 5), (1, 2, 3)])
def test_depthwise_conv(tmp_path, dtype, stride, multiplier, kernel):
    one = OneOperator(dtype, (1, 9, 10, 6))
    weight, bias = one.weights((1, kernel, kernel, 6 * multiplier), 3, per_channel=dtype == "int8")
    out = one.value((1, *out_size((9, 10), kernel, stride, SAME), 6 * multiplier), 0.1)
    one.check(
        tmp_path, "DEPTHWISE_CONV_2D", [one.x, weight, bias], out, "DepthwiseConv2DOptions", padding=SAME,
        strideW=stride, strideH=stride, depthMultiplier=multiplier, fusedActivationFunction=RELU6,
        dilationWFactor=1, dilationHFactor=1, **rounded_twice(dtype),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 60), (1, 3, 4, 5)])
def test_fully_connected_flattens(tmp_path, dtype, shape):
    one = OneOperator(dtype, shape)
    weight, bias = one.weights((9, 60), 0)
    out = one.value((1, 9), 0.1)
    inputs = [one.x, weight, bias]
    one.check(tmp_path, "FULLY_CONNECTED", inputs, out, "FullyConnectedOptions", **rounded_twice(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_fully_connected_without_bias_keeps_axes(tmp_path, dtype):
    one = OneOperator(dtype, (1, 3, 20))
    weight, _ = one.weights((9, 20), 0)
    out = one.value((1, 3, 9), 0.1)
    options = {"keepNumDims": True, **rounded_twice(dtype)}
    one.check(tmp_path, "FULLY_CONNECTED", [one.x, weight], out, "FullyConnectedOptions", **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", [0, RELU])
def test_add_of_two_scales(tmp_path, dtype, activation):
    one = OneOperator(dtype, (1, 8, 8, 16))
    y = one.builder.operator(
        "RESHAPE", [one.x, one.builder.constant([1, 8, 8, 16])], one.value((1, 8, 8, 16)), "ReshapeOptions"
    )
    pooled = one.value((1, 8, 8, 16))
    one.builder.operator(
        "MAX_POOL_2D", [y], pooled, "Pool2DOptions", padding=SAME, strideW=1, strideH=1, filterWidth=3,
        filterHeight=3,
    )  # fmt: skip
    out = one.value((1, 8, 8, 16), 0.083)
    one.check(tmp_path, "ADD", [one.x, pooled], out, "AddOptions", fusedActivationFunction=activation)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gate_first", [False, True])
def test_mul_by_a_gate(tmp_path, dtype, gate_first):
    one = OneOperator(dtype, (1, 6, 6, 8))
    gate = one.value((1, 1, 1, 8), 0.00613)
    axes = one.builder.constant([1, 2])
    one.builder.operator("MEAN", [one.x, axes], gate, "ReducerOptions", keepDims=True)
    inputs = [gate, one.x] if gate_first else [one.x, gate]
    one.check(tmp_path, "MUL", inputs, one.value((1, 6, 6, 8), 0.02), "MulOptions")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("keep", [False, True])
def test_mean(tmp_path, dtype, keep):
    one = OneOperator(dtype, (1, 7, 5, 64))
    out = one.value((1, 1, 1, 64) if keep else (1, 64), 0.00413)
    axes = one.builder.constant([-3, 2])
    one.check(tmp_path, "MEAN", [one.x, axes], out, "ReducerOptions", keepDims=keep)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["AVERAGE_POOL_2D", "MAX_POOL_2D"])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, SAME), (2, 2, VALID), (3, 1, SAME)])
def test_pools(tmp_path, dtype, kind, kernel, stride, padding):
    one = OneOperator(dtype, (1, 7, 8, 4))
    out = one.value((1, *out_size((7, 8), kernel, stride, padding), 4))
    # XNNPACK rounds ties to even, LiteRT's own kernels and ours away from zero
    ties = {"within": 1, "share": 0.2} if kind == "AVERAGE_POOL_2D" else {}
    one.check(
        tmp_path, kind, [one.x], out, "Pool2DOptions", padding=padding, strideW=stride, strideH=stride,
        filterWidth=kernel, filterHeight=kernel, **ties,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_pad_is_the_zero_point(tmp_path, dtype):
    one = OneOperator(dtype, (1, 3, 4, 2))
    amounts = one.builder.constant([[0, 0], [1, 2], [0, 3], [0, 0]])
    one.check(tmp_path, "PAD", [one.x, amounts], one.value((1, 6, 7, 2)), "PadOptions")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("aligned", "centred"), [(True, False), (False, True), (False, False)])
@pytest.mark.parametrize("size", [(9, 13), (3, 4), (7, 1)])
def test_resize_bilinear(tmp_path, dtype, aligned, centred, size):
    one = OneOperator(dtype, (1, 5, 6, 7))
    inputs = [one.x, one.builder.constant(size)]
    one.check(
        tmp_path, "RESIZE_BILINEAR", inputs, one.value((1, *size, 7)), "ResizeBilinearOptions",
        alignCorners=aligned, halfPixelCenters=centred, within=1, share=0.1,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("aligned", "centred"), [(True, False), (False, True), (False, False)])
def test_resize_nearest(tmp_path, dtype, aligned, centred):
    one = OneOperator(dtype, (1, 5, 6, 7))
    inputs = [one.x, one.builder.constant([8, 11])]
    one.check(
        tmp_path, "RESIZE_NEAREST_NEIGHBOR", inputs, one.value((1, 8, 11, 7)), "ResizeNearestNeighborOptions",
        alignCorners=aligned, halfPixelCenters=centred,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_shapes(tmp_path, dtype):
    one = OneOperator(dtype, (1, 4, 6, 5))
    axes = one.builder.constant([0, 3, 1, 2])
    one.check(tmp_path, "TRANSPOSE", [one.x, axes], one.value((1, 5, 4, 6)), "TransposeOptions")
    one = OneOperator(dtype, (1, 4, 6, 5))
    shape = one.builder.constant([1, 24, 5])
    one.check(tmp_path, "RESHAPE", [one.x, shape], one.value((1, 24, 5)), "ReshapeOptions")
    one = OneOperator(dtype, (1, 1, 30))
    one.check(tmp_path, "SQUEEZE", [one.x], one.value((1, 30)), "SqueezeOptions", squeezeDims=[1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_concat(tmp_path, dtype):
    one = OneOperator(dtype, (1, 4, 6, 5))
    out = one.value((1, 4, 6, 10))
    one.check(tmp_path, "CONCATENATION", [one.x, one.x], out, "ConcatenationOptions", axis=3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax(tmp_path, dtype):
    one = OneOperator(dtype, (1, 100), 0.1)
    out = one.value((1, 100), 1 / 256, zero_point=-128 if dtype == "int8" else 0)
    one.check(tmp_path, "SOFTMAX", [one.x], out, "SoftmaxOptions", beta=0.5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_l2_normalise(tmp_path, dtype):
    one = OneOperator(dtype, (1, 3, 3, 20), 0.1)
    out = one.value((1, 3, 3, 20), 1 / 128, zero_point=128 if dtype == "uint8" else 0)
    one.check(tmp_path, "L2_NORMALIZATION", [one.x], out, "L2NormOptions", within=1, share=0.05)


@pytest.mark.parametrize("dtype", DTYPES)
def test_argmax(tmp_path, dtype):
    one = OneOperator(dtype, (1, 9, 9, 20))
    axis, out = one.builder.constant(3), one.value((1, 9, 9), dtype="int64")
    one.check(tmp_path, "ARG_MAX", [one.x, axis], out, "ArgMaxOptions", outputType=4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["RELU", "RELU6", "LOGISTIC", "HARD_SWISH"])
def test_activations(tmp_path, dtype, kind):
    one = OneOperator(dtype, (1, 4, 64), 0.06)
    sigmoid = kind == "LOGISTIC"
    out = one.value((1, 4, 64), 1 / 256 if sigmoid else 0.03, {"int8": -128, "uint8": 0}.get(dtype))
    # LiteRT counts these in fixed point, we take the nearest quantum
    one.check(tmp_path, kind, [one.x], out, "HardSwishOptions" * (kind == "HARD_SWISH"), within=1, share=0.1)


def test_gelu_and_prelu(tmp_path):
    one = OneOperator("float32", (1, 4, 64))
    one.check(tmp_path, "GELU", [one.x], one.value((1, 4, 64)), "GeluOptions", approximate=False)
    one = OneOperator("float32", (1, 3, 4, 6))
    alpha = one.builder.constant(RANDOM.standard_normal((1, 1, 6)), "float32")
    one.check(tmp_path, "PRELU", [one.x, alpha], one.value((1, 3, 4, 6)))


@pytest.mark.parametrize(("source", "target"), [("float32", "int8"), ("float32", "uint8"), ("uint8", "int8"),
                                                ("int8", "uint8"), ("int8", "int8")])  # fmt: skip
def test_quantise(tmp_path, source, target):
    one = OneOperator(source, (1, 8, 8, 8), 0.05)
    out = one.value((1, 8, 8, 8), 0.031, dtype=target)
    # between integers XNNPACK counts with 8 bits of the ratio, LiteRT's own kernels and ours exactly
    inexact = {} if source == "float32" else {"within": 1, "share": 0.1}
    one.check(tmp_path, "QUANTIZE", [one.x], out, "QuantizeOptions", **inexact)


@pytest.mark.parametrize("source", ["int8", "uint8"])
def test_dequantise(tmp_path, source):
    one = OneOperator(source, (1, 8, 8, 8), 0.05)
    one.check(tmp_path, "DEQUANTIZE", [one.x], one.value((1, 8, 8, 8), dtype="float32"), "DequantizeOptions")


def test_float16_and_int8_constants_of_a_float_file_become_floats(tmp_path):
    one = OneOperator("float32", (1, 1, 1, 6))
    half = one.builder.constant(RANDOM.standard_normal((4, 1, 1, 6)), "float16")
    weight = one.builder.operator("DEQUANTIZE", [half], one.builder.tensor((4, 1, 1, 6)), "DequantizeOptions")
    bias = one.builder.constant(RANDOM.standard_normal(4), "float32")
    hidden = one.value((1, 1, 1, 4))
    one.builder.operator(
        "CONV_2D", [one.x, weight, bias], hidden, "Conv2DOptions", padding=VALID, strideW=1, strideH=1
    )
    data = RANDOM.integers(-127, 128, (5, 4))
    scale = np.array([0.01, 0.02, 0.03, 0.04, 0.05], np.float32)
    dense = one.builder.constant(data, "int8", scale=scale)
    out = one.value((1, 5))
    one.builder.operator("FULLY_CONNECTED", [hidden, dense], out, "FullyConnectedOptions")
    path = tmp_path / "weights.tflite"
    path.write_bytes(one.builder.finish([one.x], [out]))
    contents = read_tflite(path)
    assert {str(array.dtype) for array in contents.weights.values()} == {"float32"}
    np.testing.assert_allclose(contents.weights["layer_2.dense.weight"], data * scale[:, None], rtol=1e-6)
    picture = random_values("float32", (1, 1, 1, 6))
    ours = run(contents.graph, contents.weights, picture)["logits"]
    theirs = run_litert(path, picture)  # which quantises the activations of the second layer on the fly
    assert np.abs(ours - theirs).max() < 0.05 * np.abs(theirs).max()


def build_with(tmp_path, kind, extra, shape=(1, 4, 4, 3), options=None, dtype="float32", **fields):
    """A file whose one operator reads x and `extra(one)`."""
    one = OneOperator(dtype, shape)
    out = one.value(shape)
    one.builder.operator(kind, [one.x, *extra(one)], out, options, **fields)
    path = tmp_path / "one.tflite"
    path.write_bytes(one.builder.finish([one.x], [out]))
    return path


@pytest.mark.parametrize(
    ("kind", "extra", "options", "words"),
    [
        ("ADD", lambda one: [one.builder.constant(np.ones((1, 4, 4, 3)), "float32")], "AddOptions", "constant"),
        ("CUSTOM", lambda one: [], None, r"CUSTOM \(Mystery\)"),
        ("TANH", lambda one: [], None, "TANH"),
        ("CONV_2D", lambda one: [one.x], "Conv2DOptions", "must be a constant"),
        ("MEAN", lambda one: [one.builder.constant([3])], "ReducerOptions", "axes"),
        ("PAD", lambda one: [one.builder.constant([[0, 0], [0, 0], [0, 0], [1, 1]])], "PadOptions", "pads by"),
        ("PRELU", lambda one: [one.builder.constant(np.ones((4, 4, 3)), "float32")], None, "slope"),
        ("CONCATENATION", lambda one: [], "ConcatenationOptions", "axis 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_expressed_is_refused_by_name(tmp_path, kind, extra, options, words):
    path = build_with(tmp_path, kind, extra, options=options)
    with pytest.raises(UnsupportedOperatorError, match=words) as error:
        read_tflite(path)
    assert "one.tflite" in str(error.value)


def test_a_fused_activation_that_is_unknown_is_refused(tmp_path):
    path = build_with(tmp_path, "ADD", lambda one: [one.x], options="AddOptions", fusedActivationFunction=4)
    with pytest.raises(UnsupportedOperatorError, match=r"operator 0 \(ADD\) has the activation 4"):
        read_tflite(path)


def test_grouped_convolutions_are_refused(tmp_path):
    one = OneOperator("float32", (1, 4, 4, 4))
    weight, bias = one.weights((4, 1, 1, 2), 0)
    out = one.value((1, 4, 4, 4))
    one.builder.operator(
        "CONV_2D", [one.x, weight, bias], out, "Conv2DOptions", padding=VALID, strideW=1, strideH=1
    )
    path = tmp_path / "grouped.tflite"
    path.write_bytes(one.builder.finish([one.x], [out]))
    with pytest.raises(UnsupportedOperatorError, match="grouped"):
        read_tflite(path)


def test_a_batch_of_two_is_refused(tmp_path):
    path = build_with(tmp_path, "RELU", lambda one: [], shape=(2, 4, 4, 3))
    with pytest.raises(ModelFileError, match="batch"):
        read_tflite(path)


def test_a_bias_of_another_scale_is_refused(tmp_path):
    one = OneOperator("int8", (1, 10))
    weight, _ = one.weights((4, 10), 0)
    bias = one.builder.constant([1, 2, 3, 4], scale=0.5)
    out = one.value((1, 4))
    one.builder.operator("FULLY_CONNECTED", [one.x, weight, bias], out, "FullyConnectedOptions")
    path = tmp_path / "bias.tflite"
    path.write_bytes(one.builder.finish([one.x], [out]))
    with pytest.raises(ModelFileError, match="bias whose scale"):
        read_tflite(path)

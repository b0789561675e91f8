"""Graphs at the edges of what an engine plans for: tiny and odd pictures, windows larger than what they slide on,
values with many readers, sums and gates that no fusion fits. Each in floats and in integers.
"""

from __future__ import annotations

import json
import math

import numpy as np
from safetensors.numpy import save

from mobilenet.graph import ops
from mobilenet.graph.graph import Graph, Node, Quantisation, TensorType

KINDS = ("float32", "int8", "uint8")  # with uint8 activations come uint8 weights with zero points
PIXEL = Quantisation(2.0**-6, 3)
CASES = {}


def case(*kinds):
    """Adds a function to CASES: it gets a Net, builds the graph, and returns name of the output -> node."""

    def add(function):
        CASES.update({f"{function.__name__}-{kind}": (function, kind) for kind in kinds or KINDS})
        return function

    return add


def limits(dtype):
    return (0, 255) if dtype == "uint8" else (-128, 127)


class Net:
    """A graph under way: each method adds a node, returns its name. Integers get scales that use their range."""

    def __init__(self, dtype):
        self.dtype, self.integer = dtype, dtype != "float32"
        self.inputs, self.nodes, self.weights = {}, [], {}
        self.rng = np.random.default_rng(7)

    def input(self, *shape, dtype=None):
        name, dtype = f"in{len(self.inputs)}", dtype or self.dtype
        self.inputs[name] = TensorType(shape, dtype, None if dtype == "float32" else PIXEL)
        return name

    def graph(self, outputs):
        return Graph(self.inputs, tuple(self.nodes), outputs)

    def type(self, name):
        return self.graph({"out": name}).types[name]

    def add(self, operator, *inputs, scale=None, dtype=None):
        """`scale`: of an integer output; None keeps the quantisation of the first input."""
        kind = self.type(inputs[0])
        quantisation, dtype = kind.quantisation, dtype or kind.dtype
        if dtype in ("float32", "int64"):
            quantisation = None
        elif scale is not None:
            quantisation = Quantisation(float(np.float32(scale)), 120 if dtype == "uint8" else 5)
        name = f"n{len(self.nodes)}"
        self.nodes.append(Node(name, operator, inputs, dtype, quantisation))
        return name

    def linear(self, operator, source):
        """A convolution or dense layer with weights."""
        kind, scale = self.type(source), None
        if kind.integer:
            terms = math.prod(getattr(operator, "kernel", (1, 1)))
            terms *= 1 if isinstance(operator, ops.DepthwiseConv) else kind.shape[-1]
            scale = kind.quantisation.scale * 60 * 2.0**-7 * math.sqrt(terms)
        name = self.add(operator, source, scale=scale)
        for key, parameter in self.graph({"out": name}).parameters().items():
            node, _, what = key.partition(".")
            if node == name:
                self.weights[key] = self.values(what, parameter.shape, kind.integer)
        return name

    def values(self, what, shape, integer):
        if not integer:
            terms = math.prod(shape) / max(shape[0], shape[-1]) if what == "weight" else 4
            return (self.rng.standard_normal(shape) / math.sqrt(terms)).astype(np.float32)
        with_zeros = self.dtype == "uint8"
        if what == "weight":
            return self.rng.integers(0, 256, shape).astype("uint8" if with_zeros else "int8")
        if what == "weight_scale":
            count = 1 if with_zeros else shape[0]
            return self.rng.uniform(2**-8, 2**-6, count).astype(np.float32)
        if what == "weight_zero_point":
            return np.array([126 if with_zeros else 0], np.int32)
        return self.rng.integers(-3000, 3000, shape).astype(np.int32)

    def conv(self, source, channels, kernel=1, activation="none", **fields):
        return self.linear(ops.Conv(pair(kernel), **window(fields), out_channels=channels, bias=True,
                                    activation=activation), source)  # fmt: skip

    def depthwise(self, source, kernel=3, activation="none", multiplier=1, **fields):
        return self.linear(ops.DepthwiseConv(pair(kernel), **window(fields), multiplier=multiplier, bias=True,
                                             activation=activation), source)  # fmt: skip

    def dense(self, source, features):
        return self.linear(ops.Dense(features), source)

    def activation(self, source, name="hard_swish"):
        return self.add(ops.Activation(name), source)

    def sum(self, first, second, activation="none"):
        scale = 0 if not self.type(first).integer else max(
            self.type(name).quantisation.scale for name in (first, second))  # fmt: skip
        return self.add(ops.Add(activation=activation), first, second, scale=scale * 1.3 or None)

    def mul(self, first, second, activation="none"):
        scale = self.type(second).quantisation.scale * 40 if self.type(second).integer else 1
        kind = self.type(first).quantisation
        return self.add(ops.Mul(activation=activation), first, second, scale=kind and kind.scale * scale)


def pair(n):
    return n if isinstance(n, tuple) else (n, n)


def window(fields):
    """stride and dilation as one number or two; padding as one number or four."""
    padding = fields.get("padding", 0)
    fields = {name: pair(value) for name, value in fields.items()}
    return {**fields, "padding": padding if isinstance(padding, tuple) else (padding,) * 4}


def encode_graph(graph, weights):
    described = {
        "version": 1, "task": "features", "graph": graph.to_dict(), "preprocessing": {}, "labels": [],
        "calibration": {}, "metrics": {}, "licence": "", "provenance": {},
    }  # fmt: skip
    return save(weights, {"mobilenet": json.dumps(described)})


def batch_of(graph, rng, count):
    batch = {}
    for name, kind in graph.inputs.items():
        values = rng.standard_normal((count, *kind.shape)).astype(np.float32)
        if kind.integer:
            low, high = limits(kind.dtype)
            values = rng.integers(low, high + 1, values.shape).astype(kind.dtype)
        batch[name] = values
    return batch


def build(name):
    """The graph of a case, its weights, and a batch of two for it."""
    make, dtype = CASES[name]
    net = Net(dtype)
    found = make(net)
    if not isinstance(found, dict):
        found = {f"out{i}": value for i, value in enumerate(found if isinstance(found, tuple) else (found,))}
    graph = net.graph(found)
    return graph, net.weights, batch_of(graph, net.rng, 2)


# Sizes


@case()
def one_pixel(net):
    x = net.conv(net.input(1, 1, 24), 40, 3, "relu", padding=1)
    x = net.depthwise(x, 5, padding=2)
    x = net.conv(x, 33)
    return net.dense(net.add(ops.Mean(), x), 10), x


@case()
def one_channel(net):
    x = net.conv(net.input(9, 11, 1), 1)
    x = net.depthwise(x, 3, padding=1)
    return net.conv(x, 1, 3), net.conv(x, 17)


@case()
def many_channels(net):
    x = net.conv(net.input(3, 4, 1031), 1050, activation="relu")
    x = net.depthwise(x, 3, padding=1)
    x = net.conv(x, 1031)
    return x, net.dense(net.add(ops.Mean(), x), 1001)


@case()
def a_column_of_pixels(net):
    x = net.conv(net.input(50, 1, 7), 20, 3, stride=(2, 1), padding=1)
    return net.conv(net.depthwise(x, (5, 1), padding=(2, 2, 0, 0)), 9)


@case()
def a_row_of_pixels(net):
    x = net.conv(net.input(1, 301, 3), 20, 3, stride=(1, 2), padding=1)
    return net.conv(net.depthwise(x, (1, 5), padding=(0, 0, 2, 2)), 9)


@case()
def one_row_is_left(net):
    x = net.conv(net.input(3, 40, 8), 48, activation="relu6")
    return net.conv(net.depthwise(x, 3, activation="relu"), 8)


@case()
def pictures_of_few_channels(net):
    outputs = []
    for channels in (1, 2, 4, 5):
        picture = net.input(13, 10, channels)
        outputs += [net.conv(picture, 12, 3, "relu", stride=2, padding=(0, 1, 0, 1)), net.conv(picture, 6)]
    return tuple(outputs)


@case()
def pictures_of_few_channels_into_chains(net):
    outputs = []
    for channels in (1, 3, 4):
        x = net.conv(net.input(15, 12, channels), 40, 3, "relu", stride=2, padding=1)
        outputs.append(net.conv(net.depthwise(x, 3, padding=1), 9))
    return tuple(outputs)


# Windows


@case()
def kernels_larger_than_the_picture(net):
    picture = net.input(3, 2, 5)
    x = net.conv(picture, 20, 7, padding=3)
    y = net.depthwise(picture, 5, padding=2)
    return (
        x,
        y,
        net.conv(y, 18),
        net.depthwise(x, (7, 6), padding=(3, 3, 2, 3)),
        net.conv(picture, 4, 9, padding=7),
    )


@case()
def padding_beyond_the_kernel(net):
    picture = net.input(4, 5, 18)
    x = net.conv(picture, 7, 1, padding=(2, 1, 0, 3))
    y = net.depthwise(picture, 3, padding=(5, 4, 6, 3))
    return x, y, net.conv(y, 12), net.depthwise(net.conv(picture, 33), 2, stride=2, padding=(4, 0, 5, 0))


@case()
def strides_larger_than_the_kernel(net):
    picture = net.input(17, 22, 20)
    x = net.conv(picture, 24, 1, stride=3)
    y = net.conv(picture, 24, 2, stride=(5, 4))
    deep = net.depthwise(picture, 3, stride=4, padding=1)
    wide = net.depthwise(net.conv(picture, 40), (2, 1), stride=(5, 3))
    return x, y, deep, net.conv(wide, 6), net.depthwise(picture, 1, stride=2)


@case()
def strides_and_bands(net):
    """Rows that no band needs lie between those of one band and of the next."""
    x = net.conv(net.input(61, 70, 3), 20, 3, "relu", stride=(4, 1), padding=1)
    y = net.depthwise(net.conv(x, 40), (2, 3), stride=(5, 2), padding=(1, 0, 1, 1))
    return net.conv(y, 10)


@case()
def dilation(net):
    picture = net.input(15, 19, 12)
    x = net.conv(picture, 20, 3, dilation=(2, 3), padding=(2, 2, 3, 3))
    y = net.depthwise(picture, 3, dilation=4, padding=4)
    z = net.depthwise(net.conv(picture, 36), 3, "relu", dilation=(2, 3), stride=(2, 3), padding=(2, 1, 0, 3))
    wide = [net.depthwise(picture, 5, "relu6", dilation=d, padding=2 * d) for d in (2, 3, 9)]
    return x, y, *wide, net.conv(z, 9), net.conv(picture, 5, (2, 3), dilation=(7, 5), stride=(3, 2))


@case()
def dilation_of_a_picture(net):
    picture = net.input(21, 17, 3)
    return net.conv(picture, 20, 3, dilation=2), net.conv(picture, 20, 3, dilation=(3, 1), stride=2, padding=1)


@case()
def asymmetric_padding(net):
    picture = net.input(10, 12, 3)
    x = net.conv(picture, 22, 3, "relu6", stride=2, padding=(0, 2, 1, 0))
    y = net.depthwise(x, 3, padding=(2, 0, 0, 3))
    z = net.depthwise(net.conv(x, 37), (5, 3), stride=(2, 1), padding=(0, 4, 2, 1))
    return y, net.conv(z, 8), net.conv(x, 5, (3, 2), padding=(3, 0, 0, 1))


@case()
def a_large_kernel_at_a_large_stride(net):
    return net.conv(net.input(40, 37, 3), 16, 11, "relu", stride=4, padding=2), net.conv(net.input(9, 9, 4), 3, 9)


@case()
def pointwise_with_a_stride_on_the_picture(net):
    picture = net.input(11, 14, 3)
    return net.conv(picture, 21, stride=2), net.depthwise(net.conv(picture, 21, stride=(1, 3)), 3, padding=1)


@case()
def depthwise_of_one_pixel_windows(net):
    x = net.depthwise(net.input(7, 9, 19), 1)
    return x, net.conv(net.depthwise(net.conv(x, 25), 1, "relu", stride=(2, 1)), 11)


@case()
def depthwise_multipliers(net):
    picture = net.input(8, 9, 11)
    x = net.depthwise(picture, 3, "relu", multiplier=2, padding=1)
    return x, net.conv(x, 12), net.depthwise(net.conv(picture, 17), 3, multiplier=3, stride=2)


@case()
def depthwise_of_the_picture(net):
    picture = net.input(14, 13, 3)
    x = net.depthwise(picture, 3, "relu6", stride=2, padding=1)
    return x, net.conv(net.depthwise(picture, 5, padding=2), 20)


@case()
def pools_pads_and_sizes(net):
    x = net.conv(net.input(9, 10, 6), 21, activation="relu")
    padded = net.conv(net.add(ops.Pad((1, 0, 2, 3)), x), 8, 3)
    pooled = net.add(ops.MaxPool((3, 2), (2, 2), padding=(1, 1, 0, 1)), x)
    mean = net.add(ops.AveragePool((9, 10)), x)
    larger = net.depthwise(net.add(ops.Resize((13, 21)), pooled), 3)
    return padded, pooled, net.conv(mean, 5), larger, net.add(ops.Resize(method="nearest"), larger, x)


# Who reads what


@case()
def a_value_used_twice(net):
    x = net.conv(net.input(9, 9, 5), 24, 3, "relu")
    return net.sum(net.conv(x, 10), net.conv(x, 10, 3, padding=1)), net.depthwise(x)


@case()
def outputs_that_are_inputs(net):
    picture = net.input(6, 7, 3)
    return {"same": picture, "out": net.conv(picture, 9), "again": picture}


@case()
def nothing_but_an_input(net):
    return {"out": net.input(4, 5, 6)}


@case()
def two_outputs_of_one_node(net):
    x = net.conv(net.input(6, 7, 9), 21)
    mean = net.add(ops.Mean(), x)
    return {"a": x, "b": x, "mean": mean, "also": mean}


@case()
def a_value_with_itself(net):
    picture = net.input(6, 7, 19)
    x = net.conv(picture, 19)
    return net.sum(picture, picture), net.sum(x, x, "relu"), net.mul(x, x), net.add(ops.Concat(), x, x)


@case()
def middles_of_chains_are_outputs(net):
    expanded = net.conv(net.input(10, 9, 12), 40, activation="relu")
    deep = net.depthwise(expanded, padding=1)
    return {"deep": deep, "expanded": expanded, "out": net.conv(deep, 12)}


@case()
def the_middle_of_a_residual_is_an_output(net):
    picture = net.input(10, 9, 12)
    end = net.conv(net.depthwise(net.conv(picture, 40), padding=1), 12)
    return net.sum(end, picture), end


@case()
def residuals_of_every_order(net):
    x = net.conv(net.input(8, 10, 6), 20, activation="relu")
    first, second = net.conv(x, 26), net.conv(x, 26)
    third = net.conv(net.depthwise(net.conv(x, 40), padding=1), 26)
    fourth = net.depthwise(third, padding=1)
    return (net.sum(first, second, "relu"), net.sum(fourth, third), net.sum(second, fourth),
            net.sum(net.conv(x, 26), net.depthwise(net.conv(x, 26), padding=1)))  # fmt: skip


@case()
def residuals_of_the_picture(net):
    picture = net.input(8, 10, 4)
    x = net.sum(net.conv(picture, 4, 3, padding=1), picture, "relu")
    y = net.sum(picture, net.conv(net.depthwise(net.conv(picture, 24), padding=1), 4), "relu6")
    return x, y, net.sum(net.depthwise(picture, padding=1), picture)


@case()
def residuals_of_residuals(net):
    x = net.conv(net.input(8, 9, 3), 24, 3, padding=1)
    y = net.sum(net.conv(net.depthwise(net.conv(x, 72, activation="relu"), padding=1), 24), x)
    z = net.sum(y, net.conv(net.depthwise(net.conv(y, 72, activation="relu"), padding=1), 24))
    return net.sum(z, y), net.sum(z, x)


@case()
def a_residual_of_one_pixel(net):
    x = net.add(ops.Mean(), net.conv(net.input(5, 5, 3), 37, activation="relu"))
    return net.sum(net.dense(x, 37), x), net.sum(net.dense(x, 18), net.dense(x, 18), "relu")


@case()
def a_full_convolution_and_a_pointwise(net):
    x = net.conv(net.input(12, 13, 24), 96, 3, "relu", stride=2, padding=1)
    y = net.conv(x, 24)
    return net.sum(net.conv(net.conv(y, 96, 3, padding=1), 24), y)


@case()
def activations_of_their_own(net):
    x = net.activation(net.conv(net.input(8, 9, 3), 24, 3))
    y = net.activation(net.depthwise(x, padding=1), "hard_sigmoid")
    shared = net.activation(net.conv(y, 20), "sigmoid")
    return net.conv(shared, 8), net.depthwise(shared), net.add(ops.Mean(), y), shared


@case()
def an_activation_of_the_picture(net):
    picture = net.input(5, 6, 7)
    return net.conv(net.activation(picture, "gelu"), 18), net.activation(net.activation(picture, "relu6"))


@case()
def chains_of_activations(net):
    expanded = net.activation(net.conv(net.input(8, 9, 20), 72))
    deep = net.activation(net.depthwise(expanded, 5, stride=2, padding=2), "hard_swish")
    return net.activation(net.conv(deep, 30), "relu"), net.conv(expanded, 4)


@case()
def concat_of_odd_parts(net):
    x = net.conv(net.input(7, 6, 5), 19)
    y = net.depthwise(x, padding=1)
    joined = net.add(ops.Concat(), x, y, x)
    return joined, net.conv(joined, 9), net.add(ops.Concat(), y)


@case()
def gates_of_every_shape(net):
    x = net.conv(net.input(6, 9, 5), 21)
    rows, columns = net.add(ops.AveragePool((1, 9)), x), net.add(ops.AveragePool((6, 1)), x)
    pixel = net.add(ops.Mean(keep_axes=True), x)
    gates = [
        rows,
        columns,
        pixel,
        net.conv(x, 1),
        net.conv(rows, 1),
        net.conv(pixel, 1),
        net.depthwise(x, padding=1),
    ]
    return (*(net.mul(x, gate) for gate in gates), net.mul(pixel, pixel), net.mul(pixel, net.conv(pixel, 1)))


@case()
def gates_of_vectors(net):
    x = net.add(ops.Mean(), net.conv(net.input(4, 4, 3), 25))
    return net.mul(x, net.dense(x, 25)), net.mul(x, net.dense(x, 1)), net.mul(net.input(25), x)


@case()
def squeeze_and_excite(net):
    x = net.depthwise(net.conv(net.input(9, 11, 16), 40, activation="relu"), 5, stride=2, padding=2)
    gate = net.conv(net.conv(net.add(ops.Mean(keep_axes=True), x), 10, activation="relu"), 40)
    gated = net.mul(x, net.activation(gate, "hard_sigmoid"))
    return net.conv(gated, 24), net.conv(net.activation(gated), 3)


@case()
def reshapes(net):
    x = net.conv(net.input(6, 5, 4), 20)
    rows = net.add(ops.Reshape((-1, 20)), x)
    back = net.add(ops.Reshape((20,)), net.dense(rows, 20), x)
    flat = net.add(ops.Reshape((-1,)), x)
    odd = net.add(ops.Reshape((10, 60)), x)
    pixel = net.add(ops.Reshape((1, 1, 20)), net.add(ops.Mean(), x))
    return rows, net.conv(back, 7, 3), net.dense(flat, 9), net.dense(odd, 6), net.conv(pixel, 30)


@case()
def transposed(net):
    x = net.conv(net.input(6, 5, 4), 18)
    return net.add(ops.Transpose((2, 0, 1)), x), net.conv(net.add(ops.Transpose((1, 0, 2)), x), 5)


@case()
def inputs_of_every_rank(net):
    vector, rows, picture = net.input(37), net.input(5, 18), net.input(4, 3, 21)
    return net.dense(vector, 12), net.dense(rows, 33), net.dense(picture, 8), net.activation(vector, "sigmoid")


@case()
def heads(net):
    x = net.conv(net.input(5, 6, 3), 21)
    return (net.add(ops.Softmax(0.5), x, scale=1 / 256), net.add(ops.L2Normalise(), x, scale=1 / 128),
            net.add(ops.Softmax(), net.dense(net.add(ops.Mean(), x), 40), scale=1 / 256),
            net.add(ops.ArgMax(), x, dtype="int64"))  # fmt: skip


@case()
def a_mean_of_many_pixels(net):
    picture = net.input(260, 253, 1)
    return net.add(ops.Mean(), net.conv(picture, 18, activation="relu")), net.add(ops.Mean(), picture)


@case()
def the_same_twice(net):
    """Two branches alike: what one leaves in memory is where the other works."""
    picture = net.input(20, 22, 3)
    ends = []
    for _ in range(2):
        x = net.conv(picture, 18, 3, "relu", stride=2, padding=1)
        ends.append(net.conv(net.depthwise(net.conv(x, 60, activation="relu6"), padding=1), 18))
    return net.sum(*ends), net.add(ops.Concat(), *ends)


@case()
def a_segmenter(net):
    """As DeepLab: dilated inverted residuals, a pooled branch resized and joined, classes at its size."""
    picture = net.input(33, 41, 3)
    x = net.conv(picture, 16, 3, "relu6", stride=2, padding=1)
    for dilation in (1, 2, 4):
        deep = net.depthwise(net.conv(x, 40, activation="relu6"), activation="relu6", dilation=dilation,
                             padding=dilation)  # fmt: skip
        x = net.sum(net.conv(deep, 16), x)
    height, width, _ = net.type(x).shape
    pooled = net.conv(net.add(ops.AveragePool((height, width)), x), 24, activation="relu")
    joined = net.add(ops.Concat(), net.add(ops.Resize(), pooled, x), net.conv(x, 24, activation="relu"))
    classes = net.add(ops.Resize(align_corners=True, half_pixel_centers=False), net.conv(joined, 21), picture)
    return classes, net.add(ops.ArgMax(), classes, dtype="int64")


# Of one kind only


@case("float32")
def norms_that_cannot_be_folded(net):
    picture = net.input(7, 8, 5)
    x = net.linear(ops.BatchNorm(activation="prelu"), picture)
    net.weights[f"{x}.variance"] = np.abs(net.weights[f"{x}.variance"]) + 0.5
    y = net.conv(x, 20, activation="prelu")
    return net.linear(ops.Mul(constant=True), y), net.depthwise(y, activation="prelu"), net.activation(y, "relu")


@case("float32")
def every_activation_as_a_field(net):
    picture = net.input(6, 8, 6)
    names = [name for name in ops.ACTIVATIONS if name != "prelu"]
    return tuple(net.conv(net.depthwise(net.conv(picture, 20, 1, name), 3, name), 9, 1, name) for name in names)


@case("float32")
def every_activation_of_a_sum(net):
    x = net.conv(net.input(4, 5, 6), 20)
    names = [name for name in ops.ACTIVATIONS if name != "prelu"]
    return tuple(net.sum(net.conv(x, 20), x, name) for name in names)


@case("float32")
def attention(net):
    x = net.conv(net.input(5, 6, 4), 24)
    queries, keys = net.add(ops.Reshape((-1, 24)), x), net.add(ops.Reshape((-1, 24)), net.depthwise(x, padding=1))
    shares = net.add(ops.Softmax(0.2), net.add(ops.MatMul(transpose_second=True), queries, keys))
    mixed = net.add(ops.MatMul(), shares, net.dense(keys, 19))
    return shares, net.conv(net.add(ops.Reshape((19,)), mixed, x), 8)


@case("float32")
def matrices_of_odd_sizes(net):
    first, second = net.input(1, 3), net.input(3, 35)
    product = net.add(ops.MatMul(), first, second)
    return product, net.add(ops.MatMul(transpose_second=True), product, net.dense(net.input(17, 4), 35))


@case("int8", "uint8")
def quantised_pictures(net):
    picture = net.input(9, 10, 3, dtype="float32")
    quantised = net.add(ops.Quantise(), picture, scale=0.02, dtype=net.dtype)
    other = net.add(ops.Quantise(), picture, scale=0.03, dtype=net.dtype)
    return (
        net.conv(quantised, 20, 3, stride=2),
        net.add(ops.Dequantise(), net.conv(other, 7), dtype="float32"),
        other,
    )


@case("int8", "uint8")
def quantised_for_several_readers(net):
    picture = net.input(9, 10, 3, dtype="float32")
    quantised = net.add(ops.Quantise(), picture, scale=0.02, dtype=net.dtype)
    return net.conv(quantised, 20, 3), net.depthwise(quantised), net.dense(quantised, 4)


@case("int8", "uint8")
def quantised_again(net):
    x = net.conv(net.input(6, 7, 5), 20)
    real = net.add(ops.Dequantise(), x, dtype="float32")
    other = net.add(ops.Quantise(), real, scale=0.5, dtype="uint8")
    once_more = net.add(ops.Quantise(), other, scale=0.3, dtype="int8")
    return net.conv(other, 9), net.conv(once_more, 17, 3), net.activation(real, "hard_swish")

"""Every instruction set of this build and processor against the reference, and all of them against each other.

Integers must be equal, floats within 1e-4 of the largest value; the number of threads and the batch must change no
bit. The networks are members of the family at small resolutions and odd widths, and small graphs made at random.
"""

from __future__ import annotations

import json
import math
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from mobilenet.errors import UnsupportedOperatorError
from mobilenet.files.model_file import encode
from mobilenet.graph import ops
from mobilenet.graph.graph import Graph, Node, Quantisation, TensorType
from mobilenet.quantise.random import random_batch, random_quantised_model
from mobilenet.run import reference

pytest.importorskip("mobilenet._engine", reason="the engine is not built: pip install .")

from mobilenet.run.engine import Engine, isas

ISAS = [name for name in isas() if name != "generic"]  # test_generic.py has that one
THREADS = (1, 2, 3)
MEMBERS = [  # name, width multiplier, height and width of the picture
    ("mobilenet_v1", 0.35, (32, 32)),
    ("mobilenet_v1", 1.1, (64, 48)),
    ("mobilenet_v2", 0.6, (96, 96)),
    ("mobilenet_v2", 1.1, (33, 65)),
    ("mobilenet_v3_large", 0.6, (64, 64)),
    ("mobilenet_v3_small", 0.35, (96, 32)),
    ("mobilenet_v3_large_minimalistic", 1.1, (47, 47)),
    ("mobilenet_v4_conv_small", 0.6, (64, 96)),
    ("mobilenet_edgetpu", 0.35, (64, 64)),
    ("mobilefacenet_s", 1.1, (112, 112)),
]


def encode_graph(graph, weights):
    """The bytes of a model file of any graph."""
    described = {
        "version": 1, "task": "features", "graph": graph.to_dict(), "preprocessing": {}, "labels": [],
        "calibration": {}, "metrics": {}, "licence": "", "provenance": {},
    }  # fmt: skip
    return save(weights, {"mobilenet": json.dumps(described)})


class Case(NamedTuple):
    data: bytes
    batch: np.ndarray
    wanted: dict[str, np.ndarray]


@cache
def member(name, width, resolution, integer):
    pair = random_quantised_model(name, pictures=1, width_multiplier=width, resolution=resolution)
    model = pair[1] if integer else pair[0]
    batch = random_batch(pair[0], count=3, seed=5)
    if integer:
        scale, zero = model.input.quantisation.scale, model.input.quantisation.zero_point
        batch = np.clip(np.rint(batch / np.float32(scale)) + zero, 0, 255).astype(np.uint8)
    return Case(encode(model), batch, reference.run(model.graph, model.weights, batch))


def assert_near(found, wanted, part, what):
    assert found.dtype == wanted.dtype and found.shape == wanted.shape, what
    if wanted.dtype != np.float32:
        np.testing.assert_array_equal(found, wanted, err_msg=what)
    else:
        np.testing.assert_allclose(found, wanted, rtol=0, atol=part * np.abs(wanted).max(), err_msg=what)


def assert_agrees(case, isa, part=1e-4):
    """One instruction set says what the reference says; threads and batch change no bit. Returns its answer."""
    answer = Engine(case.data, isa=isa, threads=1).run(case.batch)
    for name, wanted in case.wanted.items():
        assert_near(answer[name], wanted, part, f"{isa}, output {name}")
    for threads in THREADS:
        engine = Engine(case.data, isa=isa, threads=threads)
        for first, last in ((0, len(case.batch)), (len(case.batch) - 1, len(case.batch))):
            for name, found in engine.run(case.batch[first:last]).items():
                what = f"{isa}, {threads} threads, pictures {first} to {last}, output {name}"
                np.testing.assert_array_equal(found, answer[name][first:last], err_msg=what)
    return answer


def assert_all_agree(case, part=1e-4):
    answers = [assert_agrees(case, isa, part) for isa in ISAS]
    for isa, answer in zip(ISAS[1:], answers[1:], strict=True):
        for name, found in answer.items():
            assert_near(found, answers[0][name], part, f"{isa} beside {ISAS[0]}, output {name}")


@pytest.mark.parametrize("integer", [False, True], ids=["float", "integer"])
@pytest.mark.parametrize(("name", "width", "resolution"), MEMBERS)
def test_family(name, width, resolution, integer):
    assert_all_agree(member(name, width, resolution, integer))


@pytest.mark.parametrize("isa", ISAS)
def test_bfloat16(isa):
    case = member("mobilenet_v2", 0.6, (96, 96), False)
    if "bf16" not in isa:
        with pytest.raises(UnsupportedOperatorError):
            Engine(case.data, isa=isa, precision="bf16").run(case.batch)
        return
    engines = [Engine(case.data, isa=isa, precision="bf16", threads=threads) for threads in THREADS]
    answers = [engine.run(case.batch) for engine in engines]
    for name, wanted in case.wanted.items():
        found = answers[0][name].ravel()
        cosine = found @ wanted.ravel() / (np.linalg.norm(found) * np.linalg.norm(wanted))
        assert cosine > 0.999, name
        for answer in answers[1:]:
            np.testing.assert_array_equal(answer[name], answers[0][name])


# Small graphs

CHANNELS = st.one_of(st.integers(1, 70), st.sampled_from([3, 8, 16, 24, 32, 40, 64]))
FUSED = st.sampled_from(["none", "relu", "relu6"])
NODES = [a for a in ops.ACTIVATIONS if a != "prelu"]


def limits(dtype):
    return (0, 255) if dtype == "uint8" else (-128, 127)


class Making:
    """A graph under way. Integers get scales with which the values use their range."""

    def __init__(self, draw, kind):
        self.draw, self.graph = draw, Graph({"in": kind}, (), {"out": "in"})
        self.weights = {}
        self.last = "in"
        self.rng = np.random.default_rng(draw(st.integers(0, 2**16)))

    @property
    def kind(self):
        return self.graph.types[self.last]

    def quantised(self, scale):
        dtype = self.draw(st.sampled_from(["int8", "uint8"]))
        low, high = limits(dtype)
        zero = self.draw(st.one_of(st.sampled_from([low, high]), st.integers(low, high)))
        return dtype, Quantisation(float(np.float32(scale)), zero)

    def add(self, operator, inputs=None, scale=None):
        """`scale`: of an integer output; None keeps the type of what is read."""
        name, inputs = f"n{len(self.graph.nodes)}", inputs or (self.last,)
        read = self.graph.types[inputs[0]]
        dtype, quantisation = read.dtype, read.quantisation
        if read.integer and scale is not None:
            dtype, quantisation = self.quantised(scale)
        node = Node(name, operator, inputs, dtype, quantisation)
        self.graph = Graph(self.graph.inputs, (*self.graph.nodes, node), {"out": name})
        self.last = name

    def linear(self, operator):
        """A convolution or dense layer with weights."""
        kind = self.kind
        if kind.integer:
            weight_scale = np.float32(2.0**-7)
            terms = math.prod(getattr(operator, "kernel", (1, 1)))
            if not isinstance(operator, ops.DepthwiseConv):
                terms *= kind.shape[-1]
            steps = self.draw(st.sampled_from([30, 60, 200]))
            self.add(operator, scale=kind.quantisation.scale * weight_scale * steps * math.sqrt(terms))
        else:
            self.add(operator)
        for name, parameter in self.graph.parameters().items():
            if name.startswith(f"{self.last}."):
                self.weights[name] = self.values(name.partition(".")[2], parameter)

    def values(self, name, parameter):
        shape, channels = parameter.shape, self.kind.shape[-1]
        if not self.kind.integer:
            terms = math.prod(shape) / channels if name == "weight" else 4
            return (self.rng.standard_normal(shape) / math.sqrt(terms)).astype(np.float32)
        if name == "weight":
            dtype = self.draw(st.sampled_from(["int8", "uint8"]))
            return self.rng.integers(limits(dtype)[0], limits(dtype)[1] + 1, shape).astype(dtype)
        if name == "weight_scale":
            count = channels if self.draw(st.booleans()) else 1
            return self.rng.uniform(2**-8, 2**-6, count).astype(np.float32)
        if name == "weight_zero_point":
            low, high = limits(str(self.weights[f"{self.last}.weight"].dtype))
            zero = 0 if low else 128
            return np.array([self.draw(st.one_of(st.just(zero), st.integers(low, high)))], np.int32)
        return self.rng.integers(-3000, 3000, shape).astype(np.int32)

    def activation(self):
        return self.draw(FUSED if self.kind.integer else st.sampled_from(ops.ACTIVATIONS))


def window(making, dilated=True):
    """The fields of a window that fits the picture."""
    draw, size = making.draw, making.kind.shape[:2]
    kernel = tuple(draw(st.integers(1, 7)) for _ in size)
    dilation = tuple(draw(st.integers(1, 3)) if dilated and draw(st.booleans()) else 1 for _ in size)
    padding = []
    for n, k, d in zip(size, kernel, dilation, strict=True):
        reach = (k - 1) * d + 1
        first = draw(st.integers(0, max(0, min(reach - 1, 6))))
        last = draw(st.integers(0, max(0, min(reach - 1, 6))))
        padding += [first, max(last, reach - n - first)]
    stride = tuple(draw(st.integers(1, 3)) for _ in size)
    return {"kernel": kernel, "stride": stride, "dilation": dilation, "padding": tuple(padding)}


def convolve(making):
    channels = making.draw(CHANNELS)
    making.linear(ops.Conv(**window(making), out_channels=channels, bias=True, activation=making.activation()))


def depthwise(making):
    making.linear(ops.DepthwiseConv(**window(making), bias=True, activation=making.activation()))


def pointwise(making, channels=None, activation=None):
    channels = making.draw(CHANNELS) if channels is None else channels
    activation = making.activation() if activation is None else activation
    making.linear(ops.Conv(out_channels=channels, bias=making.draw(st.booleans()), activation=activation))


def inverted_residual(making):
    start, kind = making.last, making.kind
    pointwise(making)
    kernel = making.draw(st.sampled_from([3, 5]))
    pads = (kernel // 2,) * 4
    making.linear(ops.DepthwiseConv((kernel, kernel), padding=pads, bias=True, activation=making.activation()))
    pointwise(making, kind.shape[-1], "none")
    ends = making.last
    scale = None
    if kind.integer:
        scale = max(making.kind.quantisation.scale, kind.quantisation.scale) * 1.3
    operands = (start, ends) if making.draw(st.booleans()) else (ends, start)
    making.add(ops.Add(activation=making.draw(FUSED)), operands, scale)


def squeeze_excite(making):
    start, kind = making.last, making.kind
    making.add(ops.Mean(keep_axes=True), scale=kind.integer and kind.quantisation.scale / 2)
    pointwise(making, making.draw(CHANNELS), "relu")
    pointwise(making, kind.shape[-1], "none")
    making.add(ops.Activation("hard_sigmoid"), scale=kind.integer and 1 / 256)
    making.add(ops.Mul(), (start, making.last), kind.integer and kind.quantisation.scale)


def activate(making):
    scale = making.kind.integer and making.kind.quantisation.scale
    making.add(ops.Activation(making.draw(st.sampled_from(NODES))), scale=scale)


def classify(making):
    making.add(ops.Mean(), scale=making.kind.integer and making.kind.quantisation.scale / 2)
    making.linear(ops.Dense(making.draw(CHANNELS), activation=making.activation()))


PARTS = [convolve, depthwise, pointwise, inverted_residual, squeeze_excite, activate]


@st.composite
def small_cases(draw, integer):
    shape = (draw(st.integers(1, 21)), draw(st.integers(1, 40)), draw(CHANNELS))
    kind = TensorType(shape)
    if integer:
        dtype = draw(st.sampled_from(["int8", "uint8"]))
        kind = TensorType(shape, dtype, Quantisation(2.0**-6, draw(st.integers(*limits(dtype)))))
    making = Making(draw, kind)
    for part in draw(st.lists(st.sampled_from(PARTS), min_size=1, max_size=3)):
        part(making)
    if draw(st.booleans()):
        classify(making)
    batch = making.rng.standard_normal((draw(st.sampled_from([1, 3])), *shape)).astype(np.float32)
    if integer:
        low, high = limits(kind.dtype)
        batch = making.rng.integers(low, high + 1, batch.shape).astype(kind.dtype)
    wanted = reference.run(making.graph, making.weights, batch)
    return Case(encode_graph(making.graph, making.weights), batch, wanted)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(small_cases(integer=True))
def test_small_integer_graphs(case):
    assert_all_agree(case)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(small_cases(integer=False))
def test_small_float_graphs(case):
    assert_all_agree(case)


# Numbers at their ends


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("depthwise", [False, True], ids=["conv", "depthwise"])
def test_the_largest_products_do_not_saturate(dtype, depthwise):
    """Neighbouring products of one sign are where multiplies that sum in 16 bits would stop short."""
    low, high = limits(dtype)
    channels, size = 37, 9
    operator = ops.DepthwiseConv((3, 3), bias=True) if depthwise else ops.Conv((3, 3), out_channels=5, bias=True)
    terms = 9 if depthwise else 9 * channels
    kind = TensorType((size, size, channels), dtype, Quantisation(1.0, low))
    node = Node("x", operator, ("in",), "uint8", Quantisation(float(255 * 128 * terms / 100), 128))
    graph = Graph({"in": kind}, (node,), {"out": "x"})
    shape = graph.parameters()["x.weight"].shape
    weights = {
        "x.weight": np.full(shape, -128, np.int8),
        "x.weight_scale": np.ones(1, np.float32),
        "x.weight_zero_point": np.zeros(1, np.int32),
        "x.bias": np.arange(shape[-1] if depthwise else shape[0], dtype=np.int32) * 1001,
    }
    weights["x.weight"][..., ::3] = 127
    batch = np.full((3, size, size, channels), high, dtype)
    batch[1] = low
    batch[2, :, ::2] = low
    wanted = reference.run(graph, weights, batch)
    assert len(np.unique(wanted["out"])) > 2
    assert_all_agree(Case(encode_graph(graph, weights), batch, wanted))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("channels", [3, 8, 11, 20])
def test_a_picture_of_no_numbers_leaves_nothing_behind(isa, channels):
    """Memory is used again: what one picture leaves in lanes past the last channel must not reach the next."""
    rng = np.random.default_rng(channels)
    nodes = (
        Node("expand", ops.Conv(out_channels=channels + 2, activation="relu6"), ("in",)),
        Node("across", ops.DepthwiseConv((3, 3), padding=(1, 1, 1, 1)), ("expand",)),
        Node("gate", ops.Mean(keep_axes=True), ("across",)),
        Node("gated", ops.Mul(activation="hard_swish"), ("across", "gate")),
        Node("project", ops.Conv(out_channels=channels), ("gated",)),
        Node("sum", ops.Add(), ("project", "in")),
        Node("mean", ops.Mean(), ("sum",)),
        Node("dense", ops.Dense(7), ("mean",)),
    )
    graph = Graph({"in": TensorType((12, 13, channels))}, nodes, {"out": "dense"})
    weights = {n: rng.standard_normal(p.shape).astype(np.float32) for n, p in graph.parameters().items()}
    data = encode_graph(graph, weights)
    picture = rng.standard_normal((1, 12, 13, channels)).astype(np.float32)
    for precision in ("fp32", "bf16") if "bf16" in isa else ("fp32",):
        wanted = Engine(data, isa=isa, precision=precision, threads=1).run(picture)["out"]
        assert np.isfinite(wanted).all()
        for rubbish in (np.nan, np.inf, 3e38):
            engine = Engine(data, isa=isa, precision=precision, threads=1)
            engine.run(np.full_like(picture, rubbish))
            np.testing.assert_array_equal(engine.run(picture)["out"], wanted)

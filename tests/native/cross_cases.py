"""What the engine must answer where it runs outside this Python: under an emulator, in node.

`Case`, members of the family and small graphs made at random are those of test_isas.py.
"""

from __future__ import annotations

import numpy as np
from test_isas import Case, encode_graph

from mobilenet.graph import ops
from mobilenet.graph.graph import Graph, Node, Quantisation, TensorType
from mobilenet.run import reference

MEMBERS = [  # name, width multiplier, height and width of the picture
    ("mobilenet_v1", 0.35, (64, 64)),
    ("mobilenet_v2", 0.6, (96, 80)),
    ("mobilenet_v3_large", 0.6, (64, 64)),
    ("mobilenet_v3_small", 1.1, (65, 33)),
    ("mobilenet_v4_conv_small", 0.6, (64, 96)),
]
FLOAT_PART = 1e-4  # of the largest value, that floats may be off


def split(data: bytes, case: Case) -> dict[str, np.ndarray]:
    """The outputs of a case from their raw elements, one output after the other."""
    found, start = {}, 0
    for name, wanted in case.wanted.items():
        found[name] = np.frombuffer(data, wanted.dtype, wanted.size, start).reshape(wanted.shape)
        start += wanted.nbytes
    assert start == len(data), f"{len(data)} bytes of outputs, {start} expected"
    return found


def assert_answers(data: bytes, case: Case, what: str) -> None:
    """Integers are equal, floats near."""
    for name, found in split(data, case).items():
        wanted = case.wanted[name]
        if wanted.dtype == np.float32:
            most = FLOAT_PART * np.abs(wanted).max()
            np.testing.assert_allclose(found, wanted, rtol=0, atol=most, err_msg=f"{what}, output {name}")
        else:
            np.testing.assert_array_equal(found, wanted, err_msg=f"{what}, output {name}")


def extreme_case(depthwise: bool) -> Case:
    """Inputs and weights at the ends of their ranges, whose neighbouring products leave int16 when added."""
    channels, side = 41, 11
    operator = ops.DepthwiseConv((5, 5), bias=True) if depthwise else ops.Conv((3, 3), out_channels=21, bias=True)
    terms = 25 if depthwise else 9 * channels
    kind = TensorType((side, side, channels), "int8", Quantisation(1.0, -128))
    node = Node("x", operator, ("in",), "uint8", Quantisation(float(255 * 128 * terms / 110), 130))
    graph = Graph({"in": kind}, (node,), {"out": "x"})
    shape = graph.parameters()["x.weight"].shape
    outputs = shape[-1] if depthwise else shape[0]
    weights = {
        "x.weight": np.full(shape, -128, np.int8),
        "x.weight_scale": np.ones(1, np.float32),
        "x.weight_zero_point": np.zeros(1, np.int32),
        "x.bias": np.arange(outputs, dtype=np.int32) * 997,
    }
    weights["x.weight"][..., 1::4] = 127
    batch = np.full((2, side, side, channels), 127, np.int8)
    batch[1, :, 1::2] = -128
    wanted = reference.run(graph, weights, batch)
    assert len(np.unique(wanted["out"])) > 2
    return Case(encode_graph(graph, weights), batch, wanted)

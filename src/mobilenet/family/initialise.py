"""Initial weights for training from scratch, from a seed, in numpy."""

from __future__ import annotations

from math import prod, sqrt
from zlib import crc32

import numpy as np

from mobilenet.errors import ArgumentError
from mobilenet.graph.graph import Graph, Weights
from mobilenet.graph.ops import Conv, Dense, DepthwiseConv, Mul, Operator, Shape

# alpha of PReLU: 0.25 (arXiv:1502.01852). Layer scale: 1e-5 (V4's code, after arXiv:2103.17239).
_CONSTANTS = {"gamma": 1.0, "variance": 1.0, "alpha": 0.25}
_LAYER_SCALE = 1e-5
# Dense layers start as normal noise of this size, so that all classes start about equal (torchvision, Keras).
_DENSE_DEVIATION = 0.01


def initialise(graph: Graph, seed: int = 0) -> Weights:
    """Initial weights for a float graph: name -> float32 array, of the shapes of `Graph.parameters`.

    Convolutions are normal with variance 2 / fan-out, the fan-out of one group (He et al., arXiv:1502.01852,
    as timm and torchvision initialise MobileNets); dense layers are normal with deviation 0.01; batch norm is the
    identity; biases are 0. A tensor depends on the seed and on its own name only: a layer that is added or
    removed elsewhere changes nothing.

    Args:
        seed: a whole number, 0 or more.

    Raises:
        ArgumentError: an impossible seed, or a quantised graph.
    """
    if type(seed) is not int or seed < 0:
        raise ArgumentError(f"seed {seed!r} must be a whole number, at least 0")
    if any(kind.integer for kind in graph.types.values()):
        raise ArgumentError("a quantised graph cannot be initialised: its weights come from a trained model")
    weights: Weights = {}
    for name, parameter in graph.parameters().items():
        node, kind = name.rsplit(".", 1)
        weights[name] = _tensor(graph.node(node).operator, kind, parameter.shape, [seed, crc32(name.encode())])
    return weights


def _tensor(operator: Operator, kind: str, shape: Shape, seeds: list[int]) -> np.ndarray:
    if kind != "weight" or isinstance(operator, Mul):
        value = _LAYER_SCALE if kind == "weight" else _CONSTANTS.get(kind, 0.0)
        return np.full(shape, value, np.float32)
    noise = np.random.default_rng(seeds).standard_normal(shape, np.float32)
    return noise * np.float32(_deviation(operator))


def _deviation(operator: Operator) -> float:
    if isinstance(operator, Dense):
        return _DENSE_DEVIATION
    assert isinstance(operator, Conv | DepthwiseConv)  # nothing else has a random weight
    outputs = operator.out_channels if isinstance(operator, Conv) else operator.multiplier
    return sqrt(2 / (prod(operator.kernel) * outputs))

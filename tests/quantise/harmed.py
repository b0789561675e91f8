"""A small network whose integers come out badly, and what it is quantised with."""

from __future__ import annotations

import numpy as np

from mobilenet.graph.graph import Graph, Node, TensorType
from mobilenet.graph.ops import Activation, Conv, Dense, Mean
from mobilenet.model import Model
from mobilenet.pictures.preprocess import Preprocessing
from mobilenet.quantise.options import QuantiseOptions
from mobilenet.run import reference

CLASSES = ("x", "y", "z")
QUICK = QuantiseOptions(
    method="min-max", pictures=12, max_drop=0.05, equalise=False, correct_bias=False, compensate=False
)


def harmed_model(constant: float = 1e5) -> Model:
    """One channel of layer `b` is a large constant that `c` ignores: integers then hold nothing else of `b`."""
    nodes = (
        Node("a", Conv((3, 3), (2, 2), out_channels=8, bias=True, activation="relu"), ("image",)),
        Node("b", Conv(out_channels=8, bias=True, activation="relu"), ("a",)),
        Node("c", Conv(out_channels=8, bias=True), ("b",)),
        Node("curve", Activation("hard_swish"), ("c",)),
        Node("mean", Mean(), ("curve",)),
        Node("logits", Dense(3), ("mean",)),
    )
    graph = Graph({"image": TensorType((16, 16, 3))}, nodes, {"logits": "logits"})
    generator = np.random.default_rng(3)
    weights = {
        name: generator.standard_normal(parameter.shape).astype(np.float32)
        for name, parameter in graph.parameters().items()
    }
    weights["b.weight"][0], weights["b.bias"][0] = 0, constant
    weights["c.weight"][..., 0] = 0
    preprocessing = Preprocessing(16, 16)
    coarse = generator.integers(0, 256, (64, 2, 2, 3), dtype=np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    logits = reference.run(graph, weights, preprocessing.normalise(coarse))["logits"]
    weights["logits.weight"] /= logits.std(axis=0)[:, None]
    weights["logits.bias"] = -(logits - weights["logits.bias"]).mean(axis=0) / logits.std(
        axis=0
    )  # so that every class is named now and then
    return Model(graph, weights, preprocessing, labels=CLASSES, provenance={"model": "harmed <&>"})

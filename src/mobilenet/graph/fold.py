"""Batch norm and layer scale folded into the layer before them, for running without training."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from mobilenet.graph.graph import Graph, Node, Weights
from mobilenet.graph.ops import BatchNorm, Conv, Dense, DepthwiseConv, Mul

Foldable = Conv | DepthwiseConv | Dense


def fold(graph: Graph, weights: Weights) -> tuple[Graph, Weights]:
    """An equal graph without the batch norms and layer scales that follow a linear layer of their own.

    gamma * (w x + b - mean) / sqrt(variance + epsilon) + beta is again w' x + b', counted in float64 and rounded
    once to float32. A batch norm stays where something else reads the layer before it, where that layer has an
    activation, or where there is none (the norm in front of an attention).
    """
    folding = _Folding(graph, dict(weights))
    for node in graph.nodes:
        folding.add(node)
    outputs = {name: folding.renamed.get(node, node) for name, node in graph.outputs.items()}
    folded = Graph(graph.inputs, tuple(folding.nodes.values()), outputs)
    return folded, {name: folding.weights[name] for name in folded.parameters()}


class _Folding:
    def __init__(self, graph: Graph, weights: Weights) -> None:
        self.weights = weights
        self.nodes: dict[str, Node] = {}
        self.renamed: dict[str, str] = {}
        readers = Counter(name for node in graph.nodes for name in node.inputs)
        readers.update(graph.outputs.values())
        self.read_once = {name for name, times in readers.items() if times == 1}

    def add(self, node: Node) -> None:
        source = node.inputs[0] if node.inputs else ""
        layer = self.nodes.get(self.renamed.get(source, source))
        if layer is not None and source in self.read_once and _can_fold(layer, node):
            self._fold_into(layer, node)
            return
        inputs = tuple(self.renamed.get(name, name) for name in node.inputs)
        self.nodes[node.name] = replace(node, inputs=inputs)

    def _fold_into(self, layer: Node, node: Node) -> None:
        operator = layer.operator
        assert isinstance(operator, Foldable) and isinstance(node.operator, BatchNorm | Mul)
        scale, shift = self._affine(node)
        weight = self.weights[f"{layer.name}.weight"].astype(np.float64)
        axes = (-1,) if isinstance(operator, DepthwiseConv) else (-1,) + (1,) * (weight.ndim - 1)
        bias = self.weights[f"{layer.name}.bias"].astype(np.float64) if operator.bias else np.zeros_like(scale)
        self.weights[f"{layer.name}.weight"] = (weight * scale.reshape(axes)).astype(np.float32)
        self.weights[f"{layer.name}.bias"] = (bias * scale + shift).astype(np.float32)
        if node.operator.activation == "prelu":
            self.weights[f"{layer.name}.alpha"] = self.weights[f"{node.name}.alpha"]
        operator = replace(operator, bias=True, activation=node.operator.activation)
        self.nodes[layer.name] = replace(layer, operator=operator)
        self.renamed[node.name] = layer.name

    def _affine(self, node: Node) -> tuple[np.ndarray, np.ndarray]:
        """The node as x * scale + shift, each (channels) float64."""
        values = {
            name: self.weights[f"{node.name}.{name}"].astype(np.float64)
            for name in ("gamma", "beta", "mean", "variance", "weight")
            if f"{node.name}.{name}" in self.weights
        }
        if not isinstance(node.operator, BatchNorm):
            return values["weight"], np.zeros_like(values["weight"])
        scale = values["gamma"] / np.sqrt(values["variance"] + node.operator.epsilon)
        return scale, values["beta"] - values["mean"] * scale


def _can_fold(layer: Node, node: Node) -> bool:
    affine = isinstance(node.operator, BatchNorm) or (isinstance(node.operator, Mul) and node.operator.constant)
    linear = isinstance(layer.operator, Foldable) and layer.operator.activation == "none"
    return affine and linear and layer.quantisation is None

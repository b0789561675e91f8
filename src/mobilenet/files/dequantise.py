"""A quantised model as a float one: what fine-tuning starts from.

Only the rounding of integers is left out. Weights and biases become the real numbers that they stand for, values
are float32, and activations stay where they are: a relu6 still clamps. What the range of an integer would have
clamped beyond that is no longer clamped.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mobilenet.files.contents import ModelContents
from mobilenet.graph.graph import Graph, Node, TensorType, Weights
from mobilenet.graph.ops import DepthwiseConv, Dequantise, Quantise


def to_float(contents: ModelContents) -> ModelContents:
    """The same model in float32; a float model is returned as it is.

    Quantise and dequantise nodes are dropped; all other nodes, and the outputs, keep their names. Metrics,
    calibration and checks are those of the quantised model and are dropped.

    Raises:
        GraphError: the weights do not fit the graph.
    """
    graph = contents.graph
    if not any(kind.integer for kind in graph.types.values()):
        return contents
    graph.check_weights(contents.weights)
    renamed: dict[str, str] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        inputs = tuple(renamed.get(name, name) for name in node.inputs)
        if isinstance(node.operator, Quantise | Dequantise):
            renamed[node.name] = inputs[0]
        else:
            nodes.append(replace(node, inputs=inputs, dtype=_float(node.dtype), quantisation=None))
    inputs_float = {name: TensorType(kind.shape, _float(kind.dtype)) for name, kind in graph.inputs.items()}
    outputs = {name: renamed.get(value, value) for name, value in graph.outputs.items()}
    return replace(
        contents,
        graph=Graph(inputs_float, tuple(nodes), outputs),
        weights=_float_weights(graph, contents.weights),
        calibration={},
        metrics={},
        checks=(),
        provenance={**contents.provenance, "dequantised": True},
    )


def _float(dtype: str) -> str:
    return dtype if dtype == "int64" else "float32"


def _float_weights(graph: Graph, weights: Weights) -> Weights:
    """Every float parameter as it is; of an integer layer, weight and bias as real numbers."""
    floats: Weights = {}
    for node in graph.nodes:
        names = node.operator.parameters(graph.input_shapes(node))
        tensors = {name: weights[f"{node.name}.{name}"] for name in names}
        if graph.types[node.inputs[0]].integer and names:
            tensors = _dequantised(node, graph, weights)
        floats |= {f"{node.name}.{name}": tensor for name, tensor in tensors.items()}
    return floats


def _dequantised(node: Node, graph: Graph, weights: Weights) -> Weights:
    """weight = weight scale * (q - zero point); bias = input scale * weight scale * q; counted in float64."""
    quantisation = graph.types[node.inputs[0]].quantisation
    assert quantisation is not None
    weight = weights[f"{node.name}.weight"].astype(np.float64)
    scale = weights[f"{node.name}.weight_scale"].astype(np.float64)
    zero_point = weights[f"{node.name}.weight_zero_point"]
    last = isinstance(node.operator, DepthwiseConv) or len(scale) == 1  # the channels are the last axis
    shaped = scale if last else scale.reshape(-1, *(1,) * (weight.ndim - 1))
    floats = {"weight": ((weight - zero_point) * shaped).astype(np.float32)}
    if f"{node.name}.bias" in weights:
        bias = weights[f"{node.name}.bias"] * (quantisation.scale * scale)
        floats["bias"] = bias.astype(np.float32)
    return floats

"""What a network takes and gives: which of its outputs, floats or integers, inputs or pictures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mobilenet.errors import ArgumentError
from mobilenet.files.contents import ModelContents
from mobilenet.graph.edit import pruned
from mobilenet.graph.graph import Graph, Node, Quantisation, TensorType, Weights
from mobilenet.graph.ops import DepthwiseConv, Dequantise, Quantise

# What a classifier, segmenter or embedder is asked for: a softmax inside the network has the last word.
MAIN_OUTPUTS = ("probabilities", "classes", "logits", "embedding")


def main_output_only(contents: ModelContents) -> ModelContents:
    """The model with its main output alone; one of the task "features" keeps all of its outputs."""
    outputs = contents.graph.outputs
    main = next((name for name in MAIN_OUTPUTS if name in outputs), None)
    if main is None or len(outputs) == 1 or contents.task == "features":
        return contents
    graph = pruned(contents.graph, {main: outputs[main]})
    return replace(contents, graph=graph, weights=_needed(graph, contents.weights))


def _needed(graph: Graph, weights: Weights) -> Weights:
    return {name: weights[name] for name in graph.parameters()}


def float_ends(graph: Graph, *, inputs: bool = True, outputs: bool = True) -> Graph:
    """A quantised network that takes or gives float32 and converts them itself; weights stay as they are."""
    kinds, first, ends, renamed = dict(graph.inputs), [], {}, {}
    for name, kind in graph.inputs.items():
        if kind.quantisation is not None and inputs:
            kinds[name] = TensorType(kind.shape)
            renamed[name] = f"{name}.quantised"
            first.append(Node(renamed[name], Quantise(), (name,), kind.dtype, kind.quantisation))
    nodes = _reading(graph, renamed)
    for output, value in graph.outputs.items():
        ends[output] = renamed.get(value, value)
        if graph.types[value].integer and outputs:
            ends[output] = f"{ends[output]}.real"
            if all(node.name != ends[output] for node in nodes):
                nodes.append(Node(ends[output], Dequantise(), (renamed.get(value, value),)))
    return Graph(kinds, (*first, *nodes), ends)


def _reading(graph: Graph, renamed: dict[str, str]) -> list[Node]:
    return [replace(n, inputs=tuple(renamed.get(name, name) for name in n.inputs)) for n in graph.nodes]


def takes_pixels(contents: ModelContents) -> bool:
    """Whether the input is uint8 and its integers are the pixels themselves."""
    return contents.preprocessing is not None and _is_pixels(contents) == 0


def with_picture_input(contents: ModelContents) -> ModelContents:
    """The model with the values of its preprocessing inside: its input is uint8 pixels (height, width, channels).

    Cutting, resizing and the order of channels stay the caller's. A quantised input whose integers are the pixels,
    or the pixels less 128, is only named so; otherwise a depthwise convolution of 1x1 normalises in floats.

    Raises:
        ArgumentError: the model has no preprocessing.
    """
    rule = contents.preprocessing
    if rule is None:
        raise ArgumentError("this model has no preprocessing that could go into the file: it takes arrays")
    shift = _is_pixels(contents)
    if shift == 0:
        return contents
    (name,), (kind,) = contents.graph.inputs, contents.graph.inputs.values()
    if shift is not None:
        assert kind.quantisation is not None
        pixels = replace(kind.quantisation, zero_point=kind.quantisation.zero_point + shift)
        given = TensorType(kind.shape, "uint8", pixels)
        return _behind(contents, given, [Node(f"{name}.int8", Quantise(), (name,), kind.dtype, kind.quantisation)])
    nodes = [
        Node(f"{name}.pixels", Dequantise(), (name,)),
        Node(f"{name}.normalised", DepthwiseConv(bias=True), (f"{name}.pixels",)),
    ]
    if kind.quantisation is not None:
        before = (nodes[-1].name,)
        nodes.append(Node(f"{name}.quantised", Quantise(), before, kind.dtype, kind.quantisation))
    std, mean = np.array(rule.std, np.float64), np.array(rule.mean, np.float64)
    values = {"weight": (1 / std).reshape(1, 1, -1), "bias": -mean / std}
    weights = {f"{name}.normalised.{key}": array.astype(np.float32) for key, array in values.items()}
    channels = len(rule.mean)
    as_pixels = replace(rule, mean=(0.0,) * channels, std=(1.0,) * channels)
    given = TensorType(kind.shape, "uint8", Quantisation(1.0, 0))
    return _behind(contents, given, nodes, weights=weights, preprocessing=as_pixels)


def _is_pixels(contents: ModelContents) -> int | None:
    """What is to be added to a quantised input to get the pixels: 0 (uint8), 128 (int8); none: it is no pixels."""
    rule, kind = contents.preprocessing, next(iter(contents.graph.inputs.values()))
    if rule is None or kind.quantisation is None:
        return None
    levels = np.arange(256, dtype=np.uint8)[:, None].repeat(len(rule.mean), 1)
    dtype, shift = ("int8", 128) if kind.dtype == "int8" else ("uint8", 0)
    quanta = rule.quantised(levels, kind.quantisation.scale, kind.quantisation.zero_point, dtype)  # type: ignore[arg-type]
    return shift if (quanta.astype(np.int16) + shift == levels).all() else None


def _behind(
    contents: ModelContents,
    given: TensorType,
    nodes: list[Node],
    *,
    weights: Weights | None = None,
    **changes: Any,
) -> ModelContents:
    """The model with another input, which nodes turn into what the input was."""
    (name,) = contents.graph.inputs
    rest = _reading(contents.graph, {name: nodes[-1].name})
    outputs = {key: nodes[-1].name if value == name else value for key, value in contents.graph.outputs.items()}
    graph = Graph({name: given}, (*nodes, *rest), outputs)
    return replace(contents, graph=graph, weights={**(weights or {}), **contents.weights}, **changes)

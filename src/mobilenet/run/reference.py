"""The reference: runs a graph in numpy, in floats and in integers. Short rather than fast, and the truth.

`reference_float.py` and `reference_integer.py` define every operator; this file walks the graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from mobilenet.errors import ArgumentError
from mobilenet.graph.graph import Graph, Node, TensorType, Weights
from mobilenet.graph.ops import Quantise
from mobilenet.run.quanta import dequantise_array, quantise_array
from mobilenet.run.reference_call import Array, Call
from mobilenet.run.reference_float import FLOAT_RULES
from mobilenet.run.reference_integer import INTEGER_RULES

__all__ = ["dequantise_array", "quantise_array", "run", "run_node"]


def run(
    graph: Graph, weights: Weights, inputs: Array | dict[str, Array], *, keep: Iterable[str] = ()
) -> dict[str, Array]:
    """The outputs of a graph for a batch.

    Args:
        graph: any graph, of floats, of integers or of both.
        weights: "<node>.<parameter>" -> array; `graph.check_weights` must hold.
        inputs: name -> array (N, ...) of the graph's shape and dtype, pictures (N, height, width, channels); or
            the one array of a graph with one input.
        keep: nodes (or inputs) whose values are returned as well, under their own names.

    Returns:
        Name of the output -> array (N, ...) in the graph's own dtype: integers stay integers.

    Raises:
        ArgumentError: an input is missing, unknown, or of another shape or dtype; `keep` names no value.
        GraphError: the weights do not fit, or an integer node's types break a rule of `reference_integer`.
        UnsupportedOperatorError: the reference has no rule for an operator in this dtype; it names both.
    """
    graph.check_weights(weights)
    values = _checked_inputs(graph, inputs)
    wanted = _wanted(graph, keep)
    readers = Counter(name for node in graph.nodes for name in node.inputs)
    for node in graph.nodes:
        values[node.name] = run_node(node, graph, weights, [values[name] for name in node.inputs])
        readers.subtract(node.inputs)
        for name in {node.name, *node.inputs}:
            if readers[name] == 0 and name not in wanted.values():
                del values[name]
    return {output: values[name] for output, name in wanted.items()}


def run_node(node: Node, graph: Graph, weights: Weights, inputs: list[Array]) -> Array:
    """What one node writes.

    Args:
        node: a node of `graph`.
        graph: gives the types of what the node reads and writes.
        weights: as for `run`; only this node's are read.
        inputs: arrays (N, ...) in the order of `node.inputs`.

    Returns:
        (N, ...) in the node's dtype.

    Raises:
        UnsupportedOperatorError: no rule for this operator in this dtype.
    """
    types = [graph.types[name] for name in node.inputs]
    integer = types[0].integer or isinstance(node.operator, Quantise)
    rule = (INTEGER_RULES if integer else FLOAT_RULES).get(type(node.operator))
    parameters = {name: weights[f"{node.name}.{name}"] for name in _parameter_names(node, graph)}
    call = Call(node.name, node.operator, inputs, types, parameters, graph.types[node.name])
    if rule is None:
        raise call.unsupported(f"{'integer' if integer else 'float'} {node.operator.kind}")
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        return rule(node.operator, call)


def _parameter_names(node: Node, graph: Graph) -> list[str]:
    names = list(node.operator.parameters(graph.input_shapes(node)))
    if names and graph.types[node.inputs[0]].integer:
        names += ["weight_scale", "weight_zero_point"]
    return names


def _checked_inputs(graph: Graph, inputs: Array | dict[str, Array]) -> dict[str, Array]:
    if not isinstance(inputs, dict):
        if len(graph.inputs) != 1:
            raise ArgumentError(f"the graph has the inputs {', '.join(graph.inputs)}; give a dictionary of arrays")
        inputs = {next(iter(graph.inputs)): inputs}
    for name in inputs.keys() - graph.inputs.keys():
        raise ArgumentError(f"the graph has no input '{name}'; it has {', '.join(graph.inputs)}")
    for name, kind in graph.inputs.items():
        if name not in inputs:
            raise ArgumentError(f"input '{name}' of shape (N, {', '.join(map(str, kind.shape))}) is missing")
        _check_input(name, inputs[name], kind)
    if len({len(array) for array in inputs.values()}) > 1:
        sizes = ", ".join(f"'{name}' {len(array)}" for name, array in inputs.items())
        raise ArgumentError(f"the inputs differ in their batch: {sizes}")
    return dict(inputs)


def _check_input(name: str, array: Array, kind: TensorType) -> None:
    if not isinstance(array, np.ndarray):
        raise ArgumentError(f"input '{name}' is a {type(array).__name__}; give a numpy array")
    if array.ndim != len(kind.shape) + 1 or array.shape[1:] != kind.shape:
        expected = ", ".join(map(str, ("N", *kind.shape)))
        raise ArgumentError(f"input '{name}' has shape {array.shape}; the graph needs ({expected})")
    if str(array.dtype) != kind.dtype:
        raise ArgumentError(f"input '{name}' has dtype {array.dtype}; the graph needs {kind.dtype}")


def _wanted(graph: Graph, keep: Iterable[str]) -> dict[str, str]:
    """Name in the result -> name of the value."""
    wanted = {}
    for name in keep:
        if name not in graph.types:
            raise ArgumentError(f"keep names '{name}', which is no node of the graph")
        if graph.outputs.get(name, name) != name:
            raise ArgumentError(f"keep names node '{name}', but output '{name}' is node '{graph.outputs[name]}'")
        wanted[name] = name
    return {**wanted, **graph.outputs}

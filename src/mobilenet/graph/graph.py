"""The one description of a network: nodes in order, each an operator with its inputs.

Every node has one output, which goes by the node's name. Parameters are not part of the graph: they are tensors
named "<node>.<parameter>" in a plain dictionary beside it, and `Graph.check_weights` says if the two fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite, prod
from typing import Any

import numpy as np

from mobilenet.errors import GraphError
from mobilenet.graph.ops import (
    INTEGER_DTYPES,
    MAX_ELEMENTS,
    ArgMax,
    BatchNorm,
    Conv,
    Dense,
    DepthwiseConv,
    Dequantise,
    Operator,
    Parameter,
    Quantise,
    Shape,
    Window,
    operator_from_dict,
)

Weights = dict[str, np.ndarray]
DTYPES = ("float32", "int64", *INTEGER_DTYPES)
MAX_NODES = 10_000


@dataclass(frozen=True)
class Quantisation:
    """real = scale * (q - zero_point), per tensor (TFLite quantisation specification)."""

    scale: float
    zero_point: int = 0

    def __post_init__(self) -> None:
        if not (isinstance(self.scale, int | float) and isfinite(self.scale) and self.scale > 0):
            raise GraphError(f"scale {self.scale!r} must be a finite number above 0")
        if not (isinstance(self.zero_point, int) and -128 <= self.zero_point <= 255):
            raise GraphError(f"zero point {self.zero_point!r} must be a whole number within -128..255")


@dataclass(frozen=True)
class TensorType:
    """What flows along an edge: shape without the batch, dtype, and how integers stand for real numbers."""

    shape: Shape
    dtype: str = "float32"
    quantisation: Quantisation | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise GraphError(f"unknown dtype '{self.dtype}'; accepted are {', '.join(DTYPES)}")
        if any(not isinstance(n, int) or n < 1 for n in self.shape) or prod(self.shape) > MAX_ELEMENTS:
            raise GraphError(f"shape {self.shape} must be sizes above 0 of at most {MAX_ELEMENTS} elements")
        if (self.dtype in INTEGER_DTYPES) != (self.quantisation is not None):
            raise GraphError(f"dtype {self.dtype} and quantisation {self.quantisation} do not go together")

    @property
    def integer(self) -> bool:
        """Whether the values are quantised."""
        return self.quantisation is not None


@dataclass(frozen=True)
class Node:
    """One operator in a graph: what it reads, and the dtype and quantisation of what it writes."""

    name: str
    operator: Operator
    inputs: tuple[str, ...]
    dtype: str = "float32"
    quantisation: Quantisation | None = None


@dataclass(frozen=True)
class Graph:
    """A network. Checked when made: whatever is a `Graph` has consistent names, shapes and dtypes.

    Args:
        inputs: name -> type. Pictures are (height, width, channels).
        nodes: in any order that has no cycle; kept in an order in which they can run.
        outputs: name of the output -> name of the node (or input) that it is.

    Raises:
        GraphError: unknown or doubled names, a cycle, sizes that do not fit; the message names the node.
    """

    inputs: dict[str, TensorType]
    nodes: tuple[Node, ...]
    outputs: dict[str, str]
    types: dict[str, TensorType] = field(init=False, compare=False, repr=False)
    _places: dict[str, int] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        _check_names(self)
        object.__setattr__(self, "nodes", _in_order(self.nodes, self.inputs))
        types = dict(self.inputs)
        for node in self.nodes:
            types[node.name] = _output_type(node, [types[name] for name in node.inputs])
        object.__setattr__(self, "types", types)
        object.__setattr__(self, "_places", {node.name: place for place, node in enumerate(self.nodes)})

    def node(self, name: str) -> Node:
        """The node of this name; raises `GraphError` if there is none."""
        if name not in self._places:
            raise GraphError(f"there is no node '{name}'")
        return self.nodes[self._places[name]]

    def input_shapes(self, node: Node) -> list[Shape]:
        """The shapes of what a node reads."""
        return [self.types[name].shape for name in node.inputs]

    def parameters(self) -> dict[str, Parameter]:
        """What every weight tensor must look like, by its name "<node>.<parameter>", in the nodes' order."""
        expected = {}
        for node in self.nodes:
            for name, parameter in _node_parameters(node, [self.types[i] for i in node.inputs]).items():
                expected[f"{node.name}.{name}"] = parameter
        return expected

    def check_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Raises `GraphError` naming the first tensor that is missing, left over, or of a wrong shape or dtype."""
        expected = self.parameters()
        for name, parameter in expected.items():
            if name not in weights:
                raise GraphError(f"tensor '{name}' of shape {parameter.shape} is missing")
            _check_tensor(name, weights[name], parameter)
        for name in weights:
            if name not in expected:
                raise GraphError(f"tensor '{name}' belongs to no node of the graph")

    def resized(self, height: int, width: int) -> Graph:
        """The same network for pictures of another size: SAME padding is counted anew.

        Raises:
            GraphError: a node cannot work at this size (it is named), or there is not exactly one picture input.
        """
        if len(self.inputs) != 1:
            raise GraphError("only a graph with one input can be resized")
        ((name, kind),) = self.inputs.items()
        if len(kind.shape) != 3:
            raise GraphError(f"input '{name}' of shape {kind.shape} is no picture")
        types = {name: replace(kind, shape=(height, width, kind.shape[2]))}
        inputs, nodes = dict(types), []
        for node in self.nodes:
            read = [types[i] for i in node.inputs]
            if isinstance(node.operator, Window):
                node = replace(node, operator=node.operator.fitted(read[0].shape))
            types[node.name] = _output_type(node, read)
            nodes.append(node)
        return Graph(inputs, tuple(nodes), self.outputs)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `Graph.from_dict` reads it back."""
        return {
            "inputs": {name: _type_to_dict(kind) for name, kind in self.inputs.items()},
            "nodes": [_node_to_dict(node) for node in self.nodes],
            "outputs": dict(self.outputs),
        }

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Graph:
        """The graph that `to_dict` wrote.

        Raises:
            GraphError: anything unknown, missing or of a wrong type.
        """
        _check_keys("graph", values, {"inputs", "nodes", "outputs"})
        inputs, nodes, outputs = values["inputs"], values["nodes"], values["outputs"]
        if not (isinstance(inputs, dict) and isinstance(nodes, list) and isinstance(outputs, dict)):
            raise GraphError("graph: inputs and outputs must be objects and nodes a list")
        types = {name: _type_from_dict(f"input '{name}'", kind) for name, kind in inputs.items()}
        return Graph(types, tuple(map(_node_from_dict, nodes)), outputs)


def _check_names(graph: Graph) -> None:
    if len(graph.nodes) > MAX_NODES:
        raise GraphError(f"the graph has {len(graph.nodes)} nodes; at most {MAX_NODES} are accepted")
    if not graph.inputs or not graph.outputs:
        raise GraphError("a graph needs at least one input and one output")
    names = set(graph.inputs)
    for node in graph.nodes:
        if not isinstance(node.name, str) or not node.name or node.name in names:
            raise GraphError(f"node '{node.name}': its name is empty or taken")
        names.add(node.name)
    for output, name in graph.outputs.items():
        if not isinstance(name, str) or name not in names:
            raise GraphError(f"output '{output}' refers to '{name}', which does not exist")


def _in_order(nodes: Iterable[Node], inputs: Iterable[str]) -> tuple[Node, ...]:
    """The nodes so that each comes after what it reads; the given order is kept where it can be."""
    done = set(inputs)
    waiting = list(nodes)
    names = done | {node.name for node in waiting}
    for node in waiting:
        for name in node.inputs:
            if name not in names:
                raise GraphError(f"node '{node.name}' reads '{name}', which does not exist")
    ordered: list[Node] = []
    while waiting:
        ready: list[Node] = []
        blocked: list[Node] = []
        for node in waiting:
            (ready if done.issuperset(node.inputs) else blocked).append(node)
            if ready and ready[-1] is node:
                done.add(node.name)
        if not ready:
            raise GraphError(f"node '{blocked[0].name}' is part of a cycle or waits for one")
        ordered += ready
        waiting = blocked
    return tuple(ordered)


def _output_type(node: Node, inputs: list[TensorType]) -> TensorType:
    least, most = node.operator.inputs
    try:
        if not least <= len(inputs) <= most:
            raise GraphError(f"takes {least} to {most} inputs, not {len(inputs)}")
        shape = node.operator.output_shape([kind.shape for kind in inputs])
        output = TensorType(shape, node.dtype, node.quantisation)
        _check_dtypes(node.operator, inputs, output)
    except GraphError as error:
        raise GraphError(f"node '{node.name}' ({node.operator.kind}): {error}") from None
    return output


def _check_dtypes(operator: Operator, inputs: list[TensorType], output: TensorType) -> None:
    integer = {kind.integer for kind in inputs}
    if isinstance(operator, ArgMax):
        fits = output.dtype == "int64"
    elif isinstance(operator, Dequantise):
        fits = integer == {True} and output.dtype == "float32"
    elif isinstance(operator, Quantise):
        fits = output.integer
    else:
        fits = integer == {output.integer} and output.dtype != "int64"
    if not fits:
        raise GraphError(f"cannot turn {', '.join(kind.dtype for kind in inputs)} into {output.dtype}")


def _node_parameters(node: Node, inputs: list[TensorType]) -> dict[str, Parameter]:
    parameters = node.operator.parameters([kind.shape for kind in inputs])
    if not parameters or not inputs[0].integer:
        return parameters
    if not isinstance(node.operator, Conv | DepthwiseConv | Dense) or "alpha" in parameters:
        raise GraphError(f"node '{node.name}' ({node.operator.kind}) has no integer form")
    return _integer_parameters(node, parameters)


def _integer_parameters(node: Node, parameters: dict[str, Parameter]) -> dict[str, Parameter]:
    """Integer weights with one scale per output channel or for all; a zero point is needed for uint8 only."""
    weight = parameters["weight"]
    channels = weight.shape[-1] if isinstance(node.operator, DepthwiseConv) else weight.shape[0]
    integer = {
        "weight": Parameter(weight.shape, INTEGER_DTYPES, trainable=False),
        "weight_scale": Parameter((channels,), trainable=False, or_single=True),
        "weight_zero_point": Parameter((1,), ("int32",), trainable=False),
    }
    if "bias" in parameters:
        integer["bias"] = Parameter((channels,), ("int32",), trainable=False)
    return integer


def _check_tensor(name: str, tensor: np.ndarray, parameter: Parameter) -> None:
    shapes = {parameter.shape, (1,)} if parameter.or_single else {parameter.shape}
    if tensor.shape not in shapes:
        raise GraphError(f"tensor '{name}' has shape {tensor.shape}; the graph needs {parameter.shape}")
    if str(tensor.dtype) not in parameter.dtypes:
        accepted = " or ".join(parameter.dtypes)
        raise GraphError(f"tensor '{name}' has dtype {tensor.dtype}; the graph needs {accepted}")


def trainable_parameters(graph: Graph) -> int:
    """How many numbers training would learn: all parameters but the batch norms' running statistics."""
    return sum(prod(p.shape) for p in graph.parameters().values() if p.trainable)


def has_batch_norm(graph: Graph) -> bool:
    """Whether any batch norm has not been folded yet."""
    return any(isinstance(node.operator, BatchNorm) for node in graph.nodes)


def _type_to_dict(kind: TensorType) -> dict[str, Any]:
    values: dict[str, Any] = {"shape": list(kind.shape), "dtype": kind.dtype}
    if kind.quantisation:
        values |= {"scale": kind.quantisation.scale, "zero_point": kind.quantisation.zero_point}
    return values


def _node_to_dict(node: Node) -> dict[str, Any]:
    values: dict[str, Any] = {
        "name": node.name,
        "operator": node.operator.to_dict(),
        "inputs": list(node.inputs),
    }
    if node.dtype != "float32":
        values["dtype"] = node.dtype
    if node.quantisation:
        values |= {"scale": node.quantisation.scale, "zero_point": node.quantisation.zero_point}
    return values


def _check_keys(where: str, values: Any, known: set[str], optional: Iterable[str] = ()) -> None:
    if not isinstance(values, dict):
        raise GraphError(f"{where}: must be an object, not {type(values).__name__}")
    for key in values.keys() - known - set(optional):
        raise GraphError(f"{where}: unknown field '{key}'")
    for key in known - values.keys():
        raise GraphError(f"{where}: field '{key}' is missing")


def _quantisation(values: dict[str, Any]) -> Quantisation | None:
    if "scale" not in values and "zero_point" not in values:
        return None
    return Quantisation(values.get("scale", 0), values.get("zero_point", 0))


def _type_from_dict(where: str, values: Any) -> TensorType:
    _check_keys(where, values, {"shape", "dtype"}, ("scale", "zero_point"))
    if not isinstance(values["shape"], list):
        raise GraphError(f"{where}: shape must be a list")
    try:
        return TensorType(tuple(values["shape"]), values["dtype"], _quantisation(values))
    except GraphError as error:
        raise GraphError(f"{where}: {error}") from None


def _node_from_dict(values: Any) -> Node:
    name = values.get("name") if isinstance(values, dict) else None
    where = f"node '{name}'"
    _check_keys(where, values, {"name", "operator", "inputs"}, ("dtype", "scale", "zero_point"))
    if not isinstance(values["operator"], dict) or not isinstance(values["inputs"], list):
        raise GraphError(f"{where}: operator must be an object and inputs a list")
    try:
        operator = operator_from_dict(values["operator"])
        quantisation = _quantisation(values)
    except GraphError as error:
        raise GraphError(f"{where}: {error}") from None
    return Node(values["name"], operator, tuple(values["inputs"]), values.get("dtype", "float32"), quantisation)

"""An ONNX graph in the making of ours: values, constants, and nodes that may still be fused with what follows.

ONNX keeps pictures as (N, channels, height, width), a graph as (height, width, channels). A value therefore knows
whether its ONNX form has the channels first; turning it costs nothing until an operator cares. The nodes are named
by their place in the file and their kind, as "layer_07.conv".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenet.errors import ModelFileError, UnsupportedOperatorError
from mobilenet.files.imports.onnx_tensors import tensor_values
from mobilenet.graph import ops
from mobilenet.graph.graph import Graph, Node, TensorType, Weights

if TYPE_CHECKING:
    from mobilenet.files.imports.onnx_quantised import Integers

Layout = Callable[[np.ndarray], np.ndarray]  # from ONNX's order of a weight's axes to ours
INPUT = "image"
NEARLY_ZERO = 1e-12  # the epsilon of a batch norm that only shifts
# Operators that hand on what they read, as far as a network that is not trained is concerned.
PASSING = ("Identity", "Dropout", "Cast", "CastLike")


@dataclass(frozen=True)
class Value:
    """What a node gives: its name and shape in our graph, and whether ONNX has its channels first."""

    name: str
    shape: ops.Shape
    first: bool = False


@dataclass(frozen=True)
class Pending:
    """Part of an operator that ONNX writes as several: `kind` says which, of the value `base`.

    Kinds: "scaled" (base * number), "plus" (base + number), "clip" (relu6(base + 3)), "product" (base * that),
    "erf", "erf_plus_1", "erf_product" of base / sqrt(2), and "padded" (zeros around base).
    """

    kind: str
    base: Value
    number: float = 0.0
    sides: ops.Sides = (0, 0, 0, 0)


@dataclass
class Conversion:
    """The state of reading one file."""

    model: Any
    folder: Path
    limit: int  # bytes that constants and weights may still take
    nodes: dict[str, Node] = field(default_factory=dict)
    weights: Weights = field(default_factory=dict)
    values: dict[str, Value | Pending] = field(default_factory=dict)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    readers: Counter[str] = field(default_factory=Counter)  # of an ONNX value, those that pass it on aside
    roots: dict[str, str] = field(default_factory=dict)  # ONNX value -> the one that it is passed on from
    tensors: dict[str, Any] = field(default_factory=dict)  # constants that were not yet asked for
    inputs: dict[str, TensorType] = field(default_factory=dict)
    made: dict[str, str] = field(default_factory=dict)  # our node -> the ONNX value that it is
    scale: np.ndarray = field(default_factory=lambda: np.ones(1, np.float64))  # of the pixels, inside the file
    shift: np.ndarray = field(default_factory=lambda: np.zeros(1, np.float64))
    normalises: bool = False
    input_names: set[str] = field(default_factory=set)  # the input, and what arithmetic made of it
    batch: int = 1  # pictures at once that the file is written for
    place: int = 0  # of the ONNX node that is being read
    stored: dict[str, Integers] = field(default_factory=dict)  # constants that a file has in integers
    parts: dict[str, tuple[str, Layout, int]] = field(default_factory=dict)  # our weight -> its constant, and axis
    quantised: set[str] = field(default_factory=set)  # ONNX values that a QuantizeLinear reads

    def __post_init__(self) -> None:
        graph = self.model.graph
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type in PASSING and node.input:
                self.roots[node.output[0]] = self.root(node.input[0])
            else:
                self.readers.update(self.root(name) for name in node.input)
            if node.op_type == "QuantizeLinear" and node.input:
                self.quantised.add(self.root(node.input[0]))
        self.readers.update(self.root(output.name) for output in graph.output)

    def root(self, name: str) -> str:
        return self.roots.get(name, name)

    def charge(self, size: int) -> None:
        """Counts bytes that are held; raises `ModelFileError` if they are too many."""
        self.limit -= size
        if self.limit < 0:
            raise ModelFileError("has weights that take many times the size of the file")

    # -- what a node reads ------------------------------------------------------------------------------------

    def constant(self, name: str) -> np.ndarray | None:
        """A constant by its ONNX name, or none if it is computed."""
        name = name if name in self.constants else self.root(name)
        if name in self.tensors and name not in self.constants:
            self.constants[name] = tensor_values(self.tensors[name], self.folder, self.limit)
            self.charge(self.constants[name].nbytes)
        return self.constants.get(name)

    def weight(self, node: Any, position: int) -> np.ndarray:
        """A float constant that a node reads; raises if it is computed or not finite."""
        if position >= len(node.input):
            raise ModelFileError(f"{title(node)} has only {len(node.input)} inputs")
        array = self.constant(node.input[position])
        if array is None:
            raise UnsupportedOperatorError(
                f"{title(node)} computes its input {position}, which must be a constant"
            )
        if array.dtype.kind != "f":
            raise UnsupportedOperatorError(f"{title(node)} reads {array.dtype} as input {position}, not floats")
        if not np.isfinite(array).all():
            raise ModelFileError(f"tensor '{node.input[position]}' holds values that are NaN or infinite")
        return array

    def integers(self, node: Any, position: int, attribute: str) -> list[int] | None:
        """Whole numbers from an input or, as older files have it, from an attribute; none if there are none."""
        given = attributes(node).get(attribute)
        if given is not None:
            return list(given)
        if position >= len(node.input) or not node.input[position]:
            return None
        array = self.constant(node.input[position])
        if array is None or array.size > 16:
            raise UnsupportedOperatorError(f"{title(node)} computes its '{attribute}', which must be a constant")
        return [int(number) for number in array.ravel()]

    def read(self, name: str) -> Value | Pending:
        """A computed value by its ONNX name, as it is."""
        root = self.root(name)
        if root not in self.values:
            raise ModelFileError(f"'{name}' is read, but nothing in the file writes it before")
        return self.values[root]

    def value(self, node: Any, position: int = 0) -> Value:
        """What a node reads, finished: a pending part becomes a node of its own."""
        if position >= len(node.input):
            raise ModelFileError(f"{title(node)} has only {len(node.input)} inputs")
        if self.constant(node.input[position]) is not None:
            raise UnsupportedOperatorError(
                f"{title(node)} reads a constant as input {position}, which is not read"
            )
        found = self.read(node.input[position])
        return found if isinstance(found, Value) else self.finished(node, found)

    def finished(self, node: Any, pending: Pending) -> Value:
        """A pending part as a node of our graph, if it can be one."""
        base, channels = pending.base, pending.base.shape[-1]
        if pending.kind == "padded":
            return self.add(node, ops.Pad(pending.sides), base, first=base.first, suffix="_before")
        if pending.kind in ("scaled", "plus"):
            numbers = np.full(channels, pending.number)
            return self.affine(node, base, numbers, multiply=pending.kind == "scaled", suffix="_before")
        raise UnsupportedOperatorError(f"{title(node)} reads part of an activation ('{pending.kind}') alone")

    def picture(self, node: Any, position: int = 0) -> Value:
        """What a node reads as (height, width, channels), whose ONNX form must have the channels first."""
        value = self.value(node, position)
        if len(value.shape) != 3:
            raise UnsupportedOperatorError(f"{title(node)} reads a value of {1 + len(value.shape)} axes, not 4")
        if value.first:
            return value
        rows, columns, last = value.shape
        if rows == 1 or columns * last == 1:  # the order of the elements is the same
            return self.add(node, ops.Reshape((columns, last, rows)), value, first=True, suffix="_turned")
        return self.add(node, ops.Transpose((1, 2, 0)), value, first=True, suffix="_turned")

    def plain(self, node: Any, value: Value) -> Value:
        """A value whose elements are in ONNX's own order."""
        rows, columns, channels = value.shape if len(value.shape) == 3 else (1, 1, 1)
        if not value.first or rows * columns == 1 or channels == 1:
            shape = (channels, rows, columns) if value.first else value.shape
            return Value(value.name, shape)
        return self.add(node, ops.Transpose((2, 0, 1)), value, suffix="_turned")

    # -- what a node gives ------------------------------------------------------------------------------------

    def add(
        self,
        node: Any,
        operator: ops.Operator,
        *inputs: Value,
        first: bool = False,
        suffix: str = "",
        weights: Weights | None = None,
    ) -> Value:
        """Adds a node to our graph, with its weights."""
        width = len(str(len(self.model.graph.node)))
        name = f"layer_{self.place:0{width}d}{suffix}.{operator.kind}"
        while name in self.nodes:  # both inputs of an operator may need a node before it
            name += "_2"
        self.nodes[name] = Node(name, operator, tuple(value.name for value in inputs))
        shape = operator.output_shape([value.shape for value in inputs])
        for kind, array in (weights or {}).items():
            self.set_weight(f"{name}.{kind}", array)
        self.made[name] = self.root(node.output[0])
        return Value(name, shape, first)

    def set_weight(self, name: str, array: np.ndarray) -> None:
        self.charge(array.nbytes)
        self.weights[name] = np.ascontiguousarray(array, np.float32)

    def set_parts(self, value: Value, **parts: tuple[str, Layout, int]) -> None:
        """Says which ONNX constants a node's parameters are, how they turn, and their axis of output channels."""
        self.parts |= {f"{value.name}.{name}": part for name, part in parts.items()}

    def write(self, node: Any, value: Value | Pending) -> None:
        """Says what the (first) output of an ONNX node is."""
        name = node.output[0]
        if name in self.values or name in self.tensors:
            raise ModelFileError(f"'{name}' is written twice")
        self.values[name] = value
        if isinstance(value, Value) and value.name in self.nodes:
            self.made[value.name] = name

    def affine(self, node: Any, value: Value, numbers: np.ndarray, *, multiply: bool, suffix: str = "") -> Value:
        """value * numbers, or value + numbers as a batch norm that only shifts; numbers are (channels)."""
        if multiply:
            operator: ops.Operator = ops.Mul(constant=True)
            weights = {"weight": numbers}
        else:
            operator, ones = ops.BatchNorm(NEARLY_ZERO), np.ones(value.shape[-1])
            weights = {"gamma": ones, "beta": numbers, "mean": 0 * ones, "variance": ones}
        return self.add(node, operator, value, first=value.first, suffix=suffix, weights=weights)

    def node_of(self, value: Value) -> Node | None:
        """The node whose value nothing else reads, so that it may still change; none if there is no such node."""
        alone = self.readers[self.made.get(value.name, "")] <= 1
        return self.nodes.get(value.name) if alone else None

    def activate(self, node: Any, value: Value, activation: str, *, alone: bool = False) -> Value:
        """An activation, as a field of the node that it follows where that has none yet.

        Args:
            alone: whether the caller knows that nothing else reads the value.
        """
        before = self.nodes.get(value.name) if alone else self.node_of(value)
        if before is not None and getattr(before.operator, "activation", "") == "none":
            operator = replace(before.operator, activation=activation)  # type: ignore[call-arg]
            self.nodes[before.name] = replace(before, operator=operator)
            return value
        return self.add(node, ops.Activation(activation), value, first=value.first)

    def outputs(self) -> dict[str, str]:
        """The nodes that the file's outputs are, by the names that it gives them."""
        outputs: dict[str, str] = {}
        for output in self.model.graph.output:
            found = self.read(output.name)
            if not isinstance(found, Value):
                raise UnsupportedOperatorError(f"output '{output.name}' is part of an operator ('{found.kind}')")
            outputs[output.name] = found.name
        if not outputs:
            raise ModelFileError("has no output")
        return outputs

    def finish(self, outputs: dict[str, str]) -> Graph:
        """The graph of what these outputs need."""
        needed = _needed(self.nodes, outputs)
        graph = Graph(self.inputs, tuple(node for node in self.nodes.values() if node.name in needed), outputs)
        self.weights = {name: self.weights[name] for name in graph.parameters() if name in self.weights}
        return graph


def _needed(nodes: dict[str, Node], outputs: dict[str, str]) -> set[str]:
    waiting, needed = list(outputs.values()), set()
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += nodes[name].inputs if name in nodes else ()
    return needed


def title(node: Any) -> str:
    """A node for messages: its operator and, if it has one, its name."""
    return f"{node.op_type} '{node.name or (node.output[0] if node.output else '')}'"


def attributes(node: Any) -> dict[str, Any]:
    """The attributes of an ONNX node by name: numbers, texts, lists and tensors."""
    fields = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints", 8: "strings"}
    found = {}
    for attribute in node.attribute:
        if attribute.type not in fields or attribute.ref_attr_name:
            raise UnsupportedOperatorError(
                f"{title(node)} has the attribute '{attribute.name}' of a kind not read"
            )
        value = getattr(attribute, fields[attribute.type])
        found[attribute.name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return found

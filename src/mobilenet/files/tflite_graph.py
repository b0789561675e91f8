"""The operators of a .tflite file as nodes of a graph, and its constants as their weights.

Every node is named after its place in the file and its kind, as "layer_07.conv": the names of TFLite's tensors are
joined from several layers and can contain those of unrelated ones. The batch of 1 is taken off every shape.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from mobilenet.errors import ModelFileError, UnsupportedOperatorError
from mobilenet.files.tflite_schema import Call, Tensor, TfliteModel, tensor_type
from mobilenet.files.tflite_tidy import tidied
from mobilenet.graph import ops
from mobilenet.graph.graph import Graph, Node, TensorType, Weights

INPUT = "image"


def build_graph(model: TfliteModel, weight_limit: int) -> tuple[Graph, Weights]:
    """The graph and weights of a file: input "image", output "output" (or "output_0", ... if there are several).

    Args:
        model: what is in the file.
        weight_limit: how many bytes the weights may take: operators can share a constant, but not so that a small
            file fills the memory.

    Raises:
        UnsupportedOperatorError: operators that cannot be expressed; all of them are named.
        ModelFileError: tensors that do not fit together.
        GraphError: a graph that is not valid.
    """
    from mobilenet.files.tflite_operators import CONVERTERS

    missing = sorted({call.kind for call in model.calls} - CONVERTERS.keys())
    if missing:
        raise UnsupportedOperatorError(f"the import of .tflite files does not have: {', '.join(missing)}")
    conversion = Conversion(model, weight_limit)
    conversion.add_input()
    for call in model.calls:
        CONVERTERS[call.kind](conversion, call)
    return tidied(*conversion.finish())


@dataclass
class Conversion:
    """The graph so far, and what is known of the file's tensors; methods are for `tflite_operators`."""

    model: TfliteModel
    weight_limit: int
    inputs: dict[str, TensorType] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    weights: Weights = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)  # tensor -> the value that it is
    unpacked: dict[int, NDArray[Any]] = field(default_factory=dict)  # float16 constants that became float32
    halves: dict[int, str] = field(default_factory=dict)  # relu6(x + 3) -> x
    finished: set[int] = field(default_factory=set)  # those of them that a hard sigmoid was made of

    def add_input(self) -> None:
        """The one input of the file."""
        if len(self.model.inputs) != 1:
            raise ModelFileError(f"has {len(self.model.inputs)} inputs; one picture is expected")
        index = self.model.inputs[0]
        self.names[index] = INPUT
        self.inputs[INPUT] = tensor_type(self.tensor(index, "the input"))

    def tensor(self, index: int, where: object) -> Tensor:
        """A tensor of the file; `where` names who wants it."""
        if index < 0:
            raise ModelFileError(f"is damaged: {where} lacks a tensor")
        return self.model.tensors[index]

    def operand(self, call: Call, position: int) -> Tensor:
        """An input of an operator, computed or constant."""
        if position >= len(call.inputs):
            raise ModelFileError(f"is damaged: {call} has only {len(call.inputs)} inputs")
        return self.tensor(call.inputs[position], call)

    def value(self, call: Call, position: int = 0) -> tuple[str, TensorType]:
        """An input that is computed: its name and type."""
        tensor = self.operand(call, position)
        if tensor.constant or tensor.index in self.unpacked:
            raise UnsupportedOperatorError(
                f"{call} reads a constant as input {position}, which the import of .tflite files does not have"
            )
        if tensor.index in self.halves:
            raise UnsupportedOperatorError(
                f"{call} reads relu6(x + 3), which the import of .tflite files only has for a hard sigmoid"
            )
        if tensor.index not in self.names:
            raise ModelFileError(f"is damaged: {call} reads tensor {tensor.index} before it is written")
        return self.names[tensor.index], tensor_type(tensor)

    def constant(self, call: Call, position: int) -> tuple[Tensor, NDArray[Any]]:
        """An input that the file holds, and its values."""
        tensor = self.operand(call, position)
        if tensor.index in self.unpacked:
            return tensor, self.unpacked[tensor.index]
        if not tensor.constant:
            raise UnsupportedOperatorError(
                f"{call} computes its input {position}, which must be a constant in an import of .tflite files"
            )
        return tensor, tensor.values()

    def output(self, call: Call) -> Tensor:
        """The one tensor that an operator writes."""
        if len(call.outputs) != 1:
            raise ModelFileError(f"is damaged: {call} has {len(call.outputs)} outputs")
        tensor = self.tensor(call.outputs[0], call)
        if tensor.index in self.names or tensor.constant or tensor.index in self.unpacked:
            raise ModelFileError(f"is damaged: {call} writes tensor {tensor.index}, which is taken")
        return tensor

    def add(self, call: Call, operator: ops.Operator, *inputs: str) -> str:
        """Adds the node that writes the call's output; returns its name."""
        tensor = self.output(call)
        kind = tensor_type(tensor)
        name = self.node_name(call, operator.kind)
        self.nodes.append(Node(name, operator, inputs, kind.dtype, kind.quantisation))
        self.names[tensor.index] = name
        return name

    def add_weights(self, node: str, parameters: Weights) -> None:
        """Parameters of a node, by their names."""
        self.charge(sum(array.nbytes for array in parameters.values()))
        self.weights |= {f"{node}.{parameter}": array for parameter, array in parameters.items()}

    def charge(self, size: int) -> None:
        """Counts bytes that are held; raises `ModelFileError` if they are too many."""
        self.weight_limit -= size
        if self.weight_limit < 0:
            raise ModelFileError("has weights that take many times the size of the file")

    def node_name(self, call: Call, kind: str) -> str:
        """What a node is called that stands for an operator."""
        width = len(str(len(self.model.calls) - 1))
        return f"layer_{call.index:0{width}d}.{kind}"

    def finish(self) -> tuple[Graph, Weights]:
        """The graph and its weights."""
        if self.halves.keys() - self.finished:
            raise UnsupportedOperatorError("the sum of a value and 3 is not supported, unless for a hard sigmoid")
        outputs = [None if i in self.halves else self.names.get(i) for i in self.model.outputs]
        if None in outputs or not outputs:
            raise ModelFileError("is damaged: an output is never written")
        names = ["output"] if len(outputs) == 1 else [f"output_{i}" for i in range(len(outputs))]
        graph = Graph(self.inputs, tuple(self.nodes), dict(zip(names, map(str, outputs), strict=True)))
        for index, name in self.names.items():
            if index in self.halves:
                continue
            stated = tensor_type(self.model.tensors[index]).shape
            if graph.types[name].shape != stated:
                raise ModelFileError(f"'{name}' gives {graph.types[name].shape}, but the file says {stated}")
        return graph, self.weights

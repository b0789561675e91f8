"""The operators of a .tflite file as nodes of a graph, and its constants as their weights.

Every node is named after its place in the file and its kind, as "layer_07.conv": the names of TFLite's tensors are
joined from several layers and can contain those of unrelated ones. The batch of 1 is taken off every shape.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenet.errors import ModelFileError, UnsupportedOperatorError
from mobilenet.files.flatbuffer import Table
from mobilenet.files.tflite_schema import Call, Tensor, TfliteModel, tensor_type
from mobilenet.files.tflite_weights import linear_weights
from mobilenet.graph import ops
from mobilenet.graph.graph import Graph, Node, TensorType, Weights

INPUT = "image"
ACTIVATIONS = {0: "none", 1: "relu", 3: "relu6"}  # by the schema's number
ACTIVATION_OPERATORS = {
    "RELU": "relu",
    "RELU6": "relu6",
    "LOGISTIC": "sigmoid",
    "HARD_SWISH": "hard_swish",
    "GELU": "gelu",
}
SAME = 0  # the schema's number of SAME padding; 1 is VALID


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
    missing = sorted({call.kind for call in model.calls} - _CONVERTERS.keys())
    if missing:
        raise UnsupportedOperatorError(f"the import of .tflite files does not have: {', '.join(missing)}")
    conversion = _Conversion(model, weight_limit)
    conversion.add_input()
    for call in model.calls:
        _CONVERTERS[call.kind](conversion, call)
    return conversion.finish()


@dataclass
class _Conversion:
    model: TfliteModel
    weight_limit: int
    inputs: dict[str, TensorType] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    weights: Weights = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)  # tensor -> the value that it is
    unpacked: dict[int, NDArray[Any]] = field(default_factory=dict)  # float16 constants that became float32

    def add_input(self) -> None:
        if len(self.model.inputs) != 1:
            raise ModelFileError(f"has {len(self.model.inputs)} inputs; one picture is expected")
        index = self.model.inputs[0]
        self.names[index] = INPUT
        self.inputs[INPUT] = tensor_type(self.tensor(index, "the input"))

    def tensor(self, index: int, where: object) -> Tensor:
        if index < 0:
            raise ModelFileError(f"is damaged: {where} lacks a tensor")
        return self.model.tensors[index]

    def operand(self, call: Call, position: int) -> Tensor:
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
        if tensor.index not in self.names:
            raise ModelFileError(f"is damaged: {call} reads tensor {tensor.index} before it is written")
        return self.names[tensor.index], tensor_type(tensor)

    def constant(self, call: Call, position: int) -> tuple[Tensor, NDArray[Any]]:
        tensor = self.operand(call, position)
        if tensor.index in self.unpacked:
            return tensor, self.unpacked[tensor.index]
        if not tensor.constant:
            raise UnsupportedOperatorError(
                f"{call} computes its input {position}, which must be a constant in an import of .tflite files"
            )
        return tensor, tensor.values()

    def output(self, call: Call) -> Tensor:
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
        self.charge(sum(array.nbytes for array in parameters.values()))
        self.weights |= {f"{node}.{parameter}": array for parameter, array in parameters.items()}

    def charge(self, size: int) -> None:
        """Counts bytes that are held; raises `ModelFileError` if they are too many."""
        self.weight_limit -= size
        if self.weight_limit < 0:
            raise ModelFileError("has weights that take many times the size of the file")

    def node_name(self, call: Call, kind: str) -> str:
        width = len(str(len(self.model.calls) - 1))
        return f"layer_{call.index:0{width}d}.{kind}"

    def finish(self) -> tuple[Graph, Weights]:
        outputs = [self.names.get(index) for index in self.model.outputs]
        if None in outputs or not outputs:
            raise ModelFileError("is damaged: an output is never written")
        names = ["output"] if len(outputs) == 1 else [f"output_{i}" for i in range(len(outputs))]
        graph = Graph(self.inputs, tuple(self.nodes), dict(zip(names, map(str, outputs), strict=True)))
        for index, name in self.names.items():
            stated = tensor_type(self.model.tensors[index]).shape
            if graph.types[name].shape != stated:
                raise ModelFileError(f"'{name}' gives {graph.types[name].shape}, but the file says {stated}")
        return graph, self.weights


def _options(call: Call) -> Table:
    if call.options is None:
        raise ModelFileError(f"is damaged: {call} has no options")
    return call.options


def _activation(call: Call, field: int) -> str:
    number = _options(call).number(field, "int8")
    if number not in ACTIVATIONS:
        raise UnsupportedOperatorError(
            f"{call} has the activation {number}, which the import of .tflite files does not have"
        )
    return ACTIVATIONS[number]


def _window(call: Call, kind: TensorType, kernel: ops.Pair, dilation: ops.Pair = (1, 1)) -> dict[str, Any]:
    """The fields of a window; padding and strides are the first three options of all three that have one."""
    options = _options(call)
    stride = (options.number(2, "int32"), options.number(1, "int32"))
    same = options.number(0, "int8") == SAME
    if len(kind.shape) != 3:
        raise ModelFileError(f"is damaged: {call} reads a value of shape {kind.shape}, which is no picture")
    if min(*kernel, *stride, *dilation) < 1 or max(*kernel, *stride, *dilation) > ops.MAX_FIELD:
        raise ModelFileError(f"is damaged: {call} has kernel {kernel}, stride {stride}, dilation {dilation}")
    size = (kind.shape[0], kind.shape[1])
    padding = ops.same_sides(size, kernel, stride, dilation) if same else (0, 0, 0, 0)
    return {"kernel": kernel, "stride": stride, "dilation": dilation, "padding": padding, "same": same}


def _convolution(conversion: _Conversion, call: Call, depthwise: bool) -> None:
    name, kind = conversion.value(call)
    weight = conversion.constant(call, 1)[1]
    if weight.ndim != 4 or 0 in weight.shape:
        raise ModelFileError(f"is damaged: {call} has weights of shape {list(weight.shape)}")
    activation, first = (4, 5) if depthwise else (3, 4)  # where the options have the activation and dilations
    options, kernel = _options(call), (weight.shape[1], weight.shape[2])
    dilation = (options.number(first + 1, "int32", 1), options.number(first, "int32", 1))
    fields = _window(call, kind, kernel, dilation)
    fields |= {"bias": _has_bias(call), "activation": _activation(call, activation)}
    channels, groups = kind.shape[2], weight.shape[0 if depthwise else 3]
    if groups != (1 if depthwise else channels) or (depthwise and weight.shape[3] % channels):
        raise UnsupportedOperatorError(f"{call} is grouped, which the import of .tflite files does not have")
    operator = (
        ops.DepthwiseConv(**fields, multiplier=weight.shape[3] // channels)
        if depthwise
        else ops.Conv(**fields, out_channels=weight.shape[0])
    )
    node = conversion.add(call, operator, name)
    axis = 3 if depthwise else 0
    _add_weights(conversion, call, node, kind, weight[0] if depthwise else weight, axis)


def _has_bias(call: Call) -> bool:
    return len(call.inputs) > 2 and call.inputs[2] >= 0


def _add_weights(
    conversion: _Conversion, call: Call, node: str, kind: TensorType, weight: NDArray[Any], axis: int
) -> None:
    """The parameters of a linear node; `axis` is where the file's tensor has the output channels."""
    tensor = conversion.operand(call, 1)
    bias = conversion.constant(call, 2) if _has_bias(call) else None
    conversion.add_weights(node, linear_weights(call, kind.quantisation, tensor, weight, axis, bias))


def _dense(conversion: _Conversion, call: Call) -> None:
    name, kind = conversion.value(call)
    weight = conversion.constant(call, 1)[1]
    options = _options(call)
    if weight.ndim != 2 or 0 in weight.shape or options.number(1, "int8"):
        raise ModelFileError(f"{call} has weights of shape {list(weight.shape)} or in an order that is not read")
    if not options.number(2, "bool"):
        name = _flattened(conversion, call, name, kind, weight.shape[1])
    operator = ops.Dense(weight.shape[0], bias=_has_bias(call), activation=_activation(call, 0))
    node = conversion.add(call, operator, name)
    _add_weights(conversion, call, node, kind, weight, 0)


def _flattened(conversion: _Conversion, call: Call, name: str, kind: TensorType, features: int) -> str:
    """TFLite's dense layer flattens what it reads; here that is a node of its own."""
    if kind.shape == (features,):
        return name
    reshape = Node(
        conversion.node_name(call, "flatten"), ops.Reshape((features,)), (name,), kind.dtype, kind.quantisation
    )
    conversion.nodes.append(reshape)
    return reshape.name


def _pool(conversion: _Conversion, call: Call, operator: type[ops.AveragePool]) -> None:
    name, kind = conversion.value(call)
    options = _options(call)
    kernel = (options.number(4, "int32"), options.number(3, "int32"))
    fields = _window(call, kind, kernel)
    conversion.add(call, operator(**fields, activation=_activation(call, 5)), name)


def _elementwise(conversion: _Conversion, call: Call, operator: type[ops.Add] | type[ops.Mul]) -> None:
    (first, first_kind), (second, second_kind) = conversion.value(call, 0), conversion.value(call, 1)
    if prod(first_kind.shape) < prod(second_kind.shape):  # a gate may stand on either side
        first, second = second, first
    conversion.add(call, operator(activation=_activation(call, 0)), first, second)


def _mean(conversion: _Conversion, call: Call) -> None:
    name, kind = conversion.value(call)
    axes = sorted(int(axis) % (len(kind.shape) + 1) for axis in conversion.constant(call, 1)[1].ravel()[:8])
    if axes != [1, 2] or len(kind.shape) != 3:
        raise UnsupportedOperatorError(f"{call} is over the axes {axes}; only height and width are supported")
    conversion.add(call, ops.Mean(keep_axes=bool(_options(call).number(0, "bool"))), name)


def _pad(conversion: _Conversion, call: Call) -> None:
    name, _ = conversion.value(call)
    amounts = conversion.constant(call, 1)[1].ravel()[:9].tolist()
    if len(amounts) != 8 or any(amounts[:2] + amounts[6:]):
        raise UnsupportedOperatorError(f"{call} pads by {amounts}; only height and width are supported")
    top, bottom, left, right = amounts[2:6]
    conversion.add(call, ops.Pad(padding=(top, bottom, left, right)), name)


def _concat(conversion: _Conversion, call: Call) -> None:
    values = [conversion.value(call, position) for position in range(len(call.inputs))]
    axis, rank = _options(call).number(0, "int32"), len(values[0][1].shape) + 1 if values else 0
    if axis not in (-1, rank - 1) or _activation(call, 1) != "none":
        raise UnsupportedOperatorError(f"{call} is along axis {axis} or has an activation, which is not supported")
    conversion.add(call, ops.Concat(), *(name for name, _ in values))


def _resize(conversion: _Conversion, call: Call, method: str) -> None:
    name, _ = conversion.value(call)
    size = conversion.constant(call, 1)[1].ravel()[:3].tolist()
    if len(size) != 2:
        raise ModelFileError(f"is damaged: {call} has the size {size}")
    first = 2 if method == "bilinear" else 0  # bilinear's options begin with two fields that are out of use
    aligned, centred = (bool(_options(call).number(first + i, "bool")) for i in (0, 1))
    conversion.add(call, ops.Resize((size[0], size[1]), method, aligned, centred), name)


def _reshape(conversion: _Conversion, call: Call) -> None:
    name, _ = conversion.value(call)
    conversion.add(call, ops.Reshape(tensor_type(conversion.output(call)).shape), name)


def _transpose(conversion: _Conversion, call: Call) -> None:
    name, _ = conversion.value(call)
    axes = conversion.constant(call, 1)[1].ravel()[:9].tolist()
    if axes[:1] != [0]:
        raise UnsupportedOperatorError(f"{call} moves the batch by the axes {axes}, which is not supported")
    conversion.add(call, ops.Transpose(tuple(axis - 1 for axis in axes[1:])), name)


def _softmax(conversion: _Conversion, call: Call) -> None:
    conversion.add(call, ops.Softmax(beta=_options(call).real(0)), conversion.value(call)[0])


def _l2_normalise(conversion: _Conversion, call: Call) -> None:
    if call.options is not None and _activation(call, 0) != "none":
        raise UnsupportedOperatorError(f"{call} has an activation, which is not supported")
    conversion.add(call, ops.L2Normalise(), conversion.value(call)[0])


def _argmax(conversion: _Conversion, call: Call) -> None:
    name, kind = conversion.value(call)
    axis = conversion.constant(call, 1)[1].ravel()[:2].tolist()
    if axis not in ([-1], [len(kind.shape)]):
        raise UnsupportedOperatorError(f"{call} is along the axis {axis}; only the last one is supported")
    conversion.add(call, ops.ArgMax(), name)


def _activate(conversion: _Conversion, call: Call) -> None:
    if call.kind == "GELU" and call.options is not None and call.options.number(0, "bool"):
        raise UnsupportedOperatorError(f"{call} is the approximation by tanh, which is not supported")
    operator = ops.Activation(ACTIVATION_OPERATORS[call.kind])
    conversion.add(call, operator, conversion.value(call)[0])


def _prelu(conversion: _Conversion, call: Call) -> None:
    name, kind = conversion.value(call)
    alpha = conversion.constant(call, 1)[1]
    if kind.integer or alpha.dtype.kind != "f" or alpha.shape[-1:] != (alpha.size,) or not kind.shape:
        raise UnsupportedOperatorError(f"{call} has no slope of floats for each channel, others are not supported")
    node = conversion.add(call, ops.Activation("prelu"), name)
    conversion.add_weights(node, {"alpha": alpha.ravel().astype(np.float32)})


def _dequantise(conversion: _Conversion, call: Call) -> None:
    """Of a float16 constant it only says how the constant is stored."""
    tensor = conversion.operand(call, 0)
    if tensor.constant and tensor.dtype == "float16":
        conversion.charge(4 * len(tensor.data))
        conversion.unpacked[conversion.output(call).index] = tensor.values().astype(np.float32)
    else:
        conversion.add(call, ops.Dequantise(), conversion.value(call)[0])


def _quantise(conversion: _Conversion, call: Call) -> None:
    conversion.add(call, ops.Quantise(), conversion.value(call)[0])


_CONVERTERS: dict[str, Callable[[_Conversion, Call], None]] = {
    "CONV_2D": lambda conversion, call: _convolution(conversion, call, depthwise=False),
    "DEPTHWISE_CONV_2D": lambda conversion, call: _convolution(conversion, call, depthwise=True),
    "FULLY_CONNECTED": _dense,
    "AVERAGE_POOL_2D": lambda conversion, call: _pool(conversion, call, ops.AveragePool),
    "MAX_POOL_2D": lambda conversion, call: _pool(conversion, call, ops.MaxPool),
    "ADD": lambda conversion, call: _elementwise(conversion, call, ops.Add),
    "MUL": lambda conversion, call: _elementwise(conversion, call, ops.Mul),
    "MEAN": _mean,
    "PAD": _pad,
    "CONCATENATION": _concat,
    "RESIZE_BILINEAR": lambda conversion, call: _resize(conversion, call, "bilinear"),
    "RESIZE_NEAREST_NEIGHBOR": lambda conversion, call: _resize(conversion, call, "nearest"),
    "RESHAPE": _reshape,
    "SQUEEZE": _reshape,
    "TRANSPOSE": _transpose,
    "SOFTMAX": _softmax,
    "L2_NORMALIZATION": _l2_normalise,
    "ARG_MAX": _argmax,
    "PRELU": _prelu,
    "QUANTIZE": _quantise,
    "DEQUANTIZE": _dequantise,
    **dict.fromkeys(ACTIVATION_OPERATORS, _activate),
}

"""A float graph as an ONNX model, for runtimes that read that.

Pictures are (N, channels, height, width) there, so a value of rank 3 has its channels moved to the front; all
others keep the graph's order of axes behind the batch. The weights are part of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mobilenet.errors import GraphError, UnsupportedOperatorError
from mobilenet.graph import ops
from mobilenet.graph.graph import Graph, Node, TensorType, Weights

OPSET = 17
IR_VERSION = 8  # the format of that opset's time
TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
TO_NCHW, TO_NHWC = [0, 3, 1, 2], [0, 2, 3, 1]


def to_onnx(graph: Graph, weights: Weights, *, batch: int | None = 1) -> onnx.ModelProto:
    """The same network as an ONNX model of opset 17.

    Args:
        graph: of floats; fold batch norms first (`graph.fold`) if the model is to be fast everywhere.
        weights: "<node>.<parameter>" -> array; `graph.check_weights` must hold.
        batch: how many pictures at once; None leaves it open, as the dimension "batch".

    Returns:
        a checked model. Its inputs and outputs have the graph's names; a value (height, width, channels) is
        (N, channels, height, width), an index map (height, width) is (N, height, width).

    Raises:
        UnsupportedOperatorError: a node is quantised; it is named.
        GraphError: the weights do not fit the graph.
    """
    graph.check_weights(weights)
    for name, kind in graph.types.items():
        if kind.integer:
            raise UnsupportedOperatorError(f"the ONNX writer does not have integers, which '{name}' holds")
    writer = _Writer(graph, weights, batch)
    for node in graph.nodes:
        writer.add_node(node)
    model = writer.model()
    onnx.checker.check_model(model)
    return model


@dataclass
class _Writer:
    graph: Graph
    weights: Weights
    batch: int | None
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def add_node(self, node: Node) -> None:
        operator = node.operator
        rule = _RULES.get(type(operator))
        if rule is None:
            raise UnsupportedOperatorError(f"the ONNX writer does not have '{operator.kind}' (node '{node.name}')")
        activation = getattr(operator, "activation", "none")
        fused = activation == "none" or isinstance(operator, ops.Activation)
        rule(self, node, operator, node.name if fused else f"{node.name}/linear")
        if not fused:
            self.activate(node, activation, f"{node.name}/linear", node.name)

    def emit(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Adds an ONNX node; returns the name of what it writes."""
        self.nodes.append(helper.make_node(kind, list(inputs), [output], output, **attributes))
        return output

    def constant(self, name: str, array: np.ndarray) -> str:
        """The name of a stored tensor; the same name stands for the same values."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def scalar(self, value: float) -> str:
        return self.constant(f"constant/{value:.9g}", np.array(value, np.float32))

    def integers(self, name: str, values: Sequence[int]) -> str:
        return self.constant(name, np.array(values, np.int64))

    def weight(self, node: Node, parameter: str) -> np.ndarray:
        return self.weights[f"{node.name}.{parameter}"]

    def rank(self, name: str) -> int:
        """Of a value, without the batch."""
        return len(self.graph.types[name].shape)

    def last_axis(self, name: str) -> int:
        """Where ONNX has what is the graph's last axis."""
        return 1 if self.rank(name) == 3 else self.rank(name)

    def by_channel(self, node: Node, parameter: str, like: str) -> str:
        """A parameter (channels) in the shape that ONNX broadcasts against the value `like`."""
        array = self.weight(node, parameter)
        shape = (-1, 1, 1) if self.rank(like) == 3 else (-1,)
        return self.constant(f"{node.name}.{parameter}", array.reshape(shape))

    def activate(self, node: Node, activation: str, source: str, output: str) -> None:
        if activation == "prelu":
            self.emit("PRelu", [source, self.by_channel(node, "alpha", node.name)], output)
        elif activation == "none":
            self.emit("Identity", [source], output)
        else:
            _ACTIVATIONS[activation](self, source, output)

    def model(self) -> onnx.ModelProto:
        inputs = [self._info(name, kind) for name, kind in self.graph.inputs.items()]
        outputs = []
        for name, value in self.graph.outputs.items():
            if name != value:
                self._check_free(name)
                self.emit("Identity", [value], name)
            outputs.append(self._info(name, self.graph.types[value]))
        graph = helper.make_graph(self.nodes, "mobilenet", inputs, outputs, list(self.constants.values()))
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="mobilenet",
        )

    def _check_free(self, output: str) -> None:
        if output in self.graph.types:
            raise GraphError(f"output '{output}' has the name of another value, which ONNX does not allow")

    def _info(self, name: str, kind: TensorType) -> onnx.ValueInfoProto:
        batch = "batch" if self.batch is None else self.batch
        return helper.make_tensor_value_info(name, TYPES[kind.dtype], [batch, *onnx_shape(kind.shape)])


def onnx_shape(shape: ops.Shape) -> ops.Shape:
    """The shape, without the batch, that a value has in an ONNX model: pictures have their channels first."""
    return (shape[2], *shape[:2]) if len(shape) == 3 else shape


def _window(operator: ops.Window) -> dict[str, Any]:
    top, bottom, left, right = operator.padding
    fields = {"kernel_shape": operator.kernel, "strides": operator.stride, "pads": (top, left, bottom, right)}
    return fields if isinstance(operator, ops.AveragePool) else {**fields, "dilations": operator.dilation}


def _linear_inputs(writer: _Writer, node: Node, weight: np.ndarray) -> list[str]:
    inputs = [node.inputs[0], writer.constant(f"{node.name}.weight", weight)]
    if getattr(node.operator, "bias", False):
        inputs.append(writer.constant(f"{node.name}.bias", writer.weight(node, "bias")))
    return inputs


def _conv(writer: _Writer, node: Node, operator: ops.Conv, output: str) -> None:
    weight = writer.weight(node, "weight").transpose(0, 3, 1, 2)
    writer.emit("Conv", _linear_inputs(writer, node, weight), output, **_window(operator))


def _depthwise_conv(writer: _Writer, node: Node, operator: ops.DepthwiseConv, output: str) -> None:
    weight = writer.weight(node, "weight").transpose(2, 0, 1)[:, None]
    groups = len(weight) // operator.multiplier
    writer.emit("Conv", _linear_inputs(writer, node, weight), output, group=groups, **_window(operator))


def _dense(writer: _Writer, node: Node, operator: ops.Dense, output: str) -> None:
    weight = writer.weight(node, "weight")
    rank = writer.rank(node.inputs[0])
    if rank == 3:  # over the channels of every pixel
        writer.emit("Conv", _linear_inputs(writer, node, weight[:, :, None, None]), output, kernel_shape=(1, 1))
    elif rank == 1:
        writer.emit("Gemm", _linear_inputs(writer, node, weight), output, transB=1)
    else:
        name, transposed, *bias = _linear_inputs(writer, node, weight.T)
        product = writer.emit("MatMul", [name, transposed], f"{output}/product" if bias else output)
        if operator.bias:
            writer.emit("Add", [product, *bias], output)


def _batch_norm(writer: _Writer, node: Node, operator: ops.BatchNorm, output: str) -> None:
    names = ("gamma", "beta", "mean", "variance")
    tensors = [writer.constant(f"{node.name}.{name}", writer.weight(node, name)) for name in names]
    if writer.last_axis(node.name) == 1:
        writer.emit("BatchNormalization", [node.inputs[0], *tensors], output, epsilon=operator.epsilon)
        return
    gamma, beta, mean, variance = (writer.weight(node, name).astype(np.float64) for name in names)
    scale = gamma / np.sqrt(variance + operator.epsilon)
    shift = writer.constant(f"{node.name}.shift", (beta - mean * scale).astype(np.float32))
    factor = writer.constant(f"{node.name}.scale", scale.astype(np.float32))
    writer.emit("Add", [writer.emit("Mul", [node.inputs[0], factor], f"{output}/scaled"), shift], output)


def _activation(writer: _Writer, node: Node, operator: ops.Activation, output: str) -> None:
    writer.activate(node, operator.activation, node.inputs[0], output)


def _add(writer: _Writer, node: Node, operator: ops.Add, output: str) -> None:  # noqa: ARG001
    writer.emit("Add", node.inputs, output)


def _mul(writer: _Writer, node: Node, operator: ops.Mul, output: str) -> None:
    second = writer.by_channel(node, "weight", node.name) if operator.constant else node.inputs[1]
    writer.emit("Mul", [node.inputs[0], second], output)


def _mean(writer: _Writer, node: Node, operator: ops.Mean, output: str) -> None:
    pooled = output if operator.keep_axes else f"{output}/pooled"
    writer.emit("GlobalAveragePool", node.inputs, pooled)
    if not operator.keep_axes:
        writer.emit("Flatten", [pooled], output)


def _average_pool(writer: _Writer, node: Node, operator: ops.AveragePool, output: str) -> None:
    writer.emit("AveragePool", node.inputs, output, count_include_pad=0, **_window(operator))


def _max_pool(writer: _Writer, node: Node, operator: ops.MaxPool, output: str) -> None:
    writer.emit("MaxPool", node.inputs, output, **_window(operator))


def _pad(writer: _Writer, node: Node, operator: ops.Pad, output: str) -> None:
    top, bottom, left, right = operator.padding
    pads = writer.integers(f"{node.name}.pads", (0, 0, top, left, 0, 0, bottom, right))
    writer.emit("Pad", [node.inputs[0], pads], output, mode="constant")


def _concat(writer: _Writer, node: Node, operator: ops.Concat, output: str) -> None:  # noqa: ARG001
    writer.emit("Concat", node.inputs, output, axis=writer.last_axis(node.name))


def _resize(writer: _Writer, node: Node, operator: ops.Resize, output: str) -> None:
    """Rounding of nearest neighbours as in `run/reference_window.nearest_index`."""
    position = "align_corners" if operator.align_corners else "asymmetric"
    position = "half_pixel" if operator.half_pixel_centers else position
    attributes = {"coordinate_transformation_mode": position, "mode": "linear"}
    if operator.method == "nearest":
        rounding = "floor" if position == "asymmetric" else "round_prefer_ceil"
        attributes |= {"mode": "nearest", "nearest_mode": rounding}
    height, width, channels = writer.graph.types[node.name].shape
    if writer.batch is None:  # ONNX wants all four sizes or the factors
        rows, columns, _ = writer.graph.types[node.inputs[0]].shape
        factors = np.array([1, 1, height / rows, width / columns], np.float32)
        scales = writer.constant(f"{node.name}.factors", factors)
        writer.emit("Resize", [node.inputs[0], "", scales], output, **attributes)
    else:
        sizes = writer.integers(f"{node.name}.sizes", (writer.batch, channels, height, width))
        writer.emit("Resize", [node.inputs[0], "", "", sizes], output, **attributes)


def _reshape(writer: _Writer, node: Node, operator: ops.Reshape, output: str) -> None:  # noqa: ARG001
    """Elements are in the order of height, width, channels, so pictures are turned before and after."""
    source, shape = node.inputs[0], writer.graph.types[node.name].shape
    if writer.rank(source) == 3 and _order_matters(writer.graph.types[source].shape):
        source = writer.emit("Transpose", [source], f"{output}/nhwc", perm=TO_NHWC)
    if len(shape) == 3 and _order_matters(shape):
        target = writer.integers(f"{node.name}.shape", (0, *shape))
        turned = writer.emit("Reshape", [source, target], f"{output}/reshaped")
        writer.emit("Transpose", [turned], output, perm=TO_NCHW)
    else:
        target = writer.integers(f"{node.name}.shape", (0, *onnx_shape(shape)))
        writer.emit("Reshape", [source, target], output)


def _order_matters(picture: ops.Shape) -> bool:
    """Whether channels first and channels last differ in the order of the elements."""
    return picture[2] > 1 and picture[0] * picture[1] > 1


def _transpose(writer: _Writer, node: Node, operator: ops.Transpose, output: str) -> None:
    axes = [0, *(axis + 1 for axis in operator.axes)]
    if len(operator.axes) == 3:  # from channels first to last, the node's own order, and back
        to_graph = [TO_NHWC[axis] for axis in axes]
        axes = [to_graph[axis] for axis in TO_NCHW]
    writer.emit("Transpose", node.inputs, output, perm=axes)


def _matmul(writer: _Writer, node: Node, operator: ops.MatMul, output: str) -> None:
    first, second = node.inputs
    if operator.transpose_second:
        second = writer.emit("Transpose", [second], f"{output}/transposed", perm=[0, 2, 1])
    writer.emit("MatMul", [first, second], output)


def _softmax(writer: _Writer, node: Node, operator: ops.Softmax, output: str) -> None:
    source = node.inputs[0]
    if operator.beta != 1:
        source = writer.emit("Mul", [source, writer.scalar(operator.beta)], f"{output}/scaled")
    writer.emit("Softmax", [source], output, axis=writer.last_axis(node.name))


def _l2_normalise(writer: _Writer, node: Node, operator: ops.L2Normalise, output: str) -> None:
    axis, source = writer.last_axis(node.name), node.inputs[0]
    squares = writer.emit("ReduceSumSquare", [source], f"{output}/squares", axes=[axis], keepdims=1)
    limited = writer.emit("Max", [squares, writer.scalar(operator.epsilon)], f"{output}/limited")
    writer.emit("Div", [source, writer.emit("Sqrt", [limited], f"{output}/length")], output)


def _argmax(writer: _Writer, node: Node, operator: ops.ArgMax, output: str) -> None:  # noqa: ARG001
    writer.emit("ArgMax", node.inputs, output, axis=writer.last_axis(node.inputs[0]), keepdims=0)


def _relu6(writer: _Writer, source: str, output: str) -> None:
    writer.emit("Clip", [source, writer.scalar(0), writer.scalar(6)], output)


def _hard_sigmoid_slim(writer: _Writer, source: str, output: str) -> None:
    shifted = writer.emit("Add", [source, writer.scalar(3)], f"{output}/shifted")
    _relu6(writer, shifted, f"{output}/clipped")
    writer.emit("Mul", [f"{output}/clipped", writer.scalar(0.16667)], output)


def _gelu(writer: _Writer, source: str, output: str) -> None:
    """x / 2 * (1 + erf(x / sqrt(2))), the arrangement that runtimes recognise."""
    scaled = writer.emit("Div", [source, writer.scalar(2**0.5)], f"{output}/scaled")
    error = writer.emit("Erf", [scaled], f"{output}/erf")
    share = writer.emit("Add", [error, writer.scalar(1)], f"{output}/share")
    product = writer.emit("Mul", [source, share], f"{output}/product")
    writer.emit("Mul", [product, writer.scalar(0.5)], output)


_ACTIVATIONS: dict[str, Callable[[_Writer, str, str], object]] = {
    "relu": lambda writer, source, output: writer.emit("Relu", [source], output),
    "relu6": _relu6,
    "hard_sigmoid": lambda w, source, output: w.emit("HardSigmoid", [source], output, alpha=1 / 6, beta=0.5),
    "hard_sigmoid_slim": _hard_sigmoid_slim,
    "hard_swish": lambda writer, source, output: writer.emit("HardSwish", [source], output),
    "sigmoid": lambda writer, source, output: writer.emit("Sigmoid", [source], output),
    "gelu": _gelu,
}

_RULES: dict[type[ops.Operator], Callable[[_Writer, Node, Any, str], None]] = {
    ops.Conv: _conv,
    ops.DepthwiseConv: _depthwise_conv,
    ops.Dense: _dense,
    ops.BatchNorm: _batch_norm,
    ops.Activation: _activation,
    ops.Add: _add,
    ops.Mul: _mul,
    ops.Mean: _mean,
    ops.AveragePool: _average_pool,
    ops.MaxPool: _max_pool,
    ops.Pad: _pad,
    ops.Concat: _concat,
    ops.Resize: _resize,
    ops.Reshape: _reshape,
    ops.Transpose: _transpose,
    ops.MatMul: _matmul,
    ops.Softmax: _softmax,
    ops.L2Normalise: _l2_normalise,
    ops.ArgMax: _argmax,
}

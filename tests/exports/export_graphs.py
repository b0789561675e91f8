"""Small graphs, one for each way in which an operator can be used, for tests of what writes other files."""

from __future__ import annotations

import numpy as np

from mobilenet.graph.graph import Graph, Node, TensorType, Weights
from mobilenet.graph.ops import (
    ACTIVATIONS,
    Activation,
    Add,
    ArgMax,
    AveragePool,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    DepthwiseConv,
    L2Normalise,
    MatMul,
    MaxPool,
    Mean,
    Mul,
    Operator,
    Pad,
    Reshape,
    Resize,
    Softmax,
    Transpose,
)

PICTURE = (7, 9, 6)  # odd and unequal sides, so that no two axes can be mistaken for each other


def single(operator: Operator, *shapes: tuple[int, ...]) -> Graph:
    """A graph of one node that reads inputs of these shapes (a picture, if none is given)."""
    inputs = {f"x{i}": TensorType(shape) for i, shape in enumerate(shapes or (PICTURE,))}
    dtype = "int64" if isinstance(operator, ArgMax) else "float32"
    return Graph(inputs, (Node("node", operator, tuple(inputs), dtype),), {"result": "node"})


def random_weights(graph: Graph, seed: int = 0) -> Weights:
    """Normal numbers; variances are positive."""
    generator = np.random.default_rng(seed)
    weights = {
        name: generator.standard_normal(parameter.shape).astype(np.float32)
        for name, parameter in graph.parameters().items()
    }
    return {name: np.abs(w) + 0.1 if name.endswith("variance") else w for name, w in weights.items()}


def random_inputs(graph: Graph, batch: int = 2, seed: int = 1) -> dict[str, np.ndarray]:
    """Numbers that reach every part of an activation."""
    generator = np.random.default_rng(seed)
    return {
        name: (4 * generator.standard_normal((batch, *kind.shape))).astype(np.float32)
        for name, kind in graph.inputs.items()
    }


def chain(*operators: Operator, shape: tuple[int, ...] = PICTURE) -> Graph:
    """A graph of nodes that follow each other."""
    nodes, source = [], "x0"
    for number, operator in enumerate(operators):
        nodes.append(Node(f"node{number}", operator, (source,)))
        source = nodes[-1].name
    return Graph({"x0": TensorType(shape)}, tuple(nodes), {"result": source})


FLOAT_GRAPHS: dict[str, Graph] = {
    **{f"activation_{name}": single(Activation(name)) for name in ACTIVATIONS if name != "none"},
    **{f"conv_{name}": single(Conv((3, 3), out_channels=5, activation=name)) for name in ACTIVATIONS},
    "conv_without_bias": single(Conv((1, 1), out_channels=5)),
    "conv_strides": single(Conv((3, 2), (2, 3), padding=(1, 0, 2, 1), out_channels=5, bias=True)),
    "conv_dilated": single(Conv((3, 3), dilation=(2, 3), padding=(2, 2, 3, 3), out_channels=4, bias=True)),
    "conv_same": single(Conv((3, 3), (2, 2), padding=(1, 1, 1, 1), out_channels=4, bias=True, same=True)),
    "depthwise": single(DepthwiseConv((3, 3), padding=(1, 1, 1, 1), bias=True, activation="relu6")),
    "depthwise_multiplier": single(DepthwiseConv((5, 3), (1, 2), multiplier=3, bias=True)),
    "dense_vector": single(Dense(4, activation="relu"), (6,)),
    "dense_rows": single(Dense(4, activation="hard_swish"), (5, 6)),
    "dense_rows_without_bias": single(Dense(4, bias=False), (5, 6)),
    "dense_picture": single(Dense(4)),
    "batch_norm_picture": single(BatchNorm(activation="relu")),
    "batch_norm_vector": single(BatchNorm(), (6,)),
    "batch_norm_rows": single(BatchNorm(epsilon=0.01, activation="prelu"), (5, 6)),
    "add": single(Add(activation="relu"), PICTURE, PICTURE),
    "mul_gate": single(Mul(), PICTURE, (1, 1, 6)),
    "mul_map": single(Mul(activation="hard_swish"), PICTURE, (7, 9, 1)),
    "mul_constant": single(Mul(constant=True)),
    "mul_constant_rows": single(Mul(constant=True), (5, 6)),
    "mean": single(Mean()),
    "mean_axes": single(Mean(keep_axes=True)),
    "average_pool": single(AveragePool((3, 2), (2, 2))),
    "average_pool_same": single(AveragePool((3, 3), (2, 2), padding=(1, 1, 1, 1), same=True)),
    "max_pool": single(MaxPool((3, 3), (2, 2), padding=(1, 0, 0, 1))),
    "pad": single(Pad((1, 2, 3, 0))),
    "concat_pictures": single(Concat(), PICTURE, (7, 9, 2), PICTURE),
    "concat_vectors": single(Concat(), (3,), (4,)),
    "concat_rows": single(Concat(), (5, 3), (5, 4)),
    "resize_half_pixel": single(Resize((13, 5))),
    "resize_corners": single(Resize((13, 5), align_corners=True, half_pixel_centers=False)),
    "resize_plain": single(Resize((14, 18), half_pixel_centers=False)),
    "resize_nearest": single(Resize((21, 4), "nearest")),
    "resize_like": single(Resize(), PICTURE, (3, 4, 2)),
    "flatten": single(Reshape((-1,))),
    "to_rows": single(Reshape((63, 6))),
    "rows_to_picture": single(Reshape((7, 9, 6)), (63, 6)),
    "picture_to_picture": single(Reshape((9, 7, 6))),
    "one_pixel": single(Reshape((6,)), (1, 1, 6)),
    "reshape_like": single(Reshape((6,)), (63, 6), PICTURE),
    "transpose_rows": single(Transpose((1, 0)), (5, 6)),
    "transpose_picture": single(Transpose((2, 0, 1))),
    "transpose_sides": single(Transpose((1, 0, 2))),
    "matmul": single(MatMul(), (5, 6), (6, 3)),
    "matmul_transposed": single(MatMul(transpose_second=True), (5, 6), (3, 6)),
    "softmax_vector": single(Softmax(), (6,)),
    "softmax_picture": single(Softmax(beta=0.5)),
    "l2_normalise_vector": single(L2Normalise(), (6,)),
    "l2_normalise_picture": single(L2Normalise()),
    "argmax_picture": single(ArgMax()),
    "argmax_vector": single(ArgMax(), (6,)),
    "rows_of_a_picture": chain(
        Reshape((63, 6)), Dense(8), Transpose((1, 0)), Softmax(), Reshape((8, 7, 9)), Mean()
    ),
}

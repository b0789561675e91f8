"""Small model files for the fuzzers: every operator, in float and in integers, and a whole small network.

python native/fuzz/write_seeds.py FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from mobilenet.files.contents import Check, ModelContents
from mobilenet.files.model_file import encode
from mobilenet.graph import ops
from mobilenet.graph.graph import Graph, Node, Quantisation, TensorType, Weights

PICTURE = (5, 6, 4)
WINDOW = {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1, 1, 1)}
SCALE = Quantisation(0.05, 3)

# name -> what stands behind the input "image" of PICTURE; "double" is the input's double.
OPERATORS: dict[str, tuple[ops.Operator, tuple[str, ...]]] = {
    "conv": (ops.Conv(**WINDOW, out_channels=3, bias=True, activation="relu6"), ("image",)),
    "conv_same": (
        ops.Conv(kernel=(3, 1), padding=(1, 1, 0, 0), dilation=(1, 2), same=True, out_channels=2),
        ("image",),
    ),
    "conv_prelu": (ops.Conv(out_channels=2, activation="prelu"), ("image",)),
    "depthwise": (ops.DepthwiseConv(**WINDOW, multiplier=2, activation="hard_swish"), ("image",)),
    "depthwise_wide": (ops.DepthwiseConv(kernel=(5, 5), padding=(4, 4, 4, 4), dilation=(2, 2)), ("image",)),
    "dense": (ops.Dense(out_features=3, activation="relu"), ("image",)),
    "batch_norm": (ops.BatchNorm(activation="gelu"), ("image",)),
    "sigmoid": (ops.Activation("sigmoid"), ("image",)),
    "hard_sigmoid": (ops.Activation("hard_sigmoid"), ("image",)),
    "add": (ops.Add(activation="relu"), ("image", "double")),
    "mul": (ops.Mul(), ("image", "double")),
    "layer_scale": (ops.Mul(constant=True), ("image",)),
    "mean": (ops.Mean(keep_axes=True), ("image",)),
    "average_pool": (ops.AveragePool(**WINDOW), ("image",)),
    "max_pool": (ops.MaxPool(**WINDOW), ("image",)),
    "pad": (ops.Pad((1, 0, 2, 0)), ("image",)),
    "concat": (ops.Concat(), ("image", "double", "image")),
    "resize": (ops.Resize(size=(7, 3)), ("image",)),
    "resize_nearest": (ops.Resize(method="nearest"), ("image", "double")),
    "resize_corners": (
        ops.Resize(size=(2, 9), align_corners=True, half_pixel_centers=False),
        ("image",),
    ),
    "reshape": (ops.Reshape((-1, 4)), ("image",)),
    "transpose": (ops.Transpose((2, 0, 1)), ("image",)),
    "softmax": (ops.Softmax(beta=0.5), ("image",)),
    "l2_normalise": (ops.L2Normalise(), ("image",)),
    "argmax": (ops.ArgMax(), ("image",)),
}
INTEGERS = ("conv", "conv_same", "depthwise_wide", "dense", "sigmoid", "add", "mul", "mean", "average_pool",
            "max_pool", "pad", "concat", "resize", "resize_nearest", "reshape", "transpose", "softmax",
            "l2_normalise", "argmax")  # fmt: skip


def float_graph(operator: ops.Operator, inputs: tuple[str, ...]) -> Graph:
    """The operator behind a picture."""
    dtype = "int64" if isinstance(operator, ops.ArgMax) else "float32"
    nodes = (Node("double", ops.Add(), ("image", "image")), Node("it", operator, inputs, dtype))
    return Graph({"image": TensorType(PICTURE)}, nodes, {"out": "it", "double": "double"})


def integer_graph(operator: ops.Operator, inputs: tuple[str, ...], dtype: str) -> Graph:
    """The same between a quantise and a dequantise node."""
    picture = TensorType(PICTURE, dtype, SCALE)
    nodes = [Node("double", ops.Add(), ("image", "image"), dtype, SCALE)]
    if isinstance(operator, ops.ArgMax):
        nodes.append(Node("it", operator, inputs, "int64"))
        return Graph({"image": picture}, tuple(nodes), {"out": "it"})
    nodes.append(Node("it", operator, inputs, dtype, SCALE))
    nodes.append(Node("real", ops.Dequantise(), ("it",)))
    nodes.append(Node("again", ops.Quantise(), ("real",), "int8", Quantisation(0.1)))
    return Graph({"image": picture}, tuple(nodes), {"out": "again", "real": "real"})


def attention_graph() -> Graph:
    """Queries and keys of a picture, as the hybrids have them: reshape, matmul, softmax, and a picture again."""
    nodes = (
        Node("flat", ops.Reshape((-1, 4)), ("image",)),
        Node("scores", ops.MatMul(transpose_second=True), ("flat", "flat")),
        Node("shares", ops.Softmax(), ("scores",)),
        Node("mixed", ops.MatMul(), ("shares", "flat")),
        Node("picture", ops.Reshape((-1,)), ("mixed", "image")),
    )
    return Graph({"image": TensorType(PICTURE)}, nodes, {"out": "picture"})


def residual_graph() -> Graph:
    """An inverted residual with squeeze-excite and batch norms, a head and a classifier."""
    norm, same = ops.BatchNorm(activation="hard_swish"), {"kernel": (3, 3), "same": True}
    nodes = (
        Node("expand", ops.Conv(out_channels=24), ("image",)),
        Node("expand_norm", norm, ("expand",)),
        Node("depthwise", ops.DepthwiseConv(padding=(1, 1, 1, 1), **same), ("expand_norm",)),
        Node("depthwise_norm", norm, ("depthwise",)),
        Node("squeeze", ops.Mean(keep_axes=True), ("depthwise_norm",)),
        Node("reduce", ops.Conv(out_channels=8, bias=True, activation="relu"), ("squeeze",)),
        Node("excite", ops.Conv(out_channels=24, bias=True, activation="hard_sigmoid"), ("reduce",)),
        Node("gated", ops.Mul(), ("depthwise_norm", "excite")),
        Node("project", ops.Conv(out_channels=4), ("gated",)),
        Node("project_norm", ops.BatchNorm(), ("project",)),
        Node("sum", ops.Add(), ("project_norm", "image")),
        Node("pooled", ops.Mean(), ("sum",)),
        Node("logits", ops.Dense(out_features=5), ("pooled",)),
    )
    return Graph({"image": TensorType(PICTURE)}, nodes, {"logits": "logits", "embedding": "pooled"})


def random_weights(graph: Graph, rng: np.random.Generator) -> Weights:
    """Numbers of every expected shape and dtype; scales and variances above 0."""
    weights = {}
    for name, parameter in graph.parameters().items():
        values = rng.uniform(0.01, 1, parameter.shape)
        if parameter.dtypes != ("float32",):
            values = np.zeros(parameter.shape) if name.endswith("zero_point") else np.round(values * 100)
        weights[name] = values.astype(parameter.dtypes[0])
    return weights


def seeds() -> dict[str, bytes]:
    """File name -> bytes; the same every time."""
    graphs = {name: float_graph(*operator) for name, operator in OPERATORS.items()}
    graphs |= {f"{name}_int8": integer_graph(*OPERATORS[name], "int8") for name in INTEGERS}
    graphs |= {f"{name}_uint8": integer_graph(*OPERATORS[name], "uint8") for name in INTEGERS}
    graphs |= {"attention": attention_graph(), "residual": residual_graph()}
    rng = np.random.default_rng(0)
    files = {}
    for name, graph in graphs.items():
        check = Check(np.zeros((2, 2, 3), np.uint8), {"out": np.zeros(3, np.float32)})
        contents = ModelContents(graph, random_weights(graph, rng), None, checks=(check,) if name == "add" else ())
        files[f"{name}.safetensors"] = encode(contents)
    return files


def main() -> None:
    """Writes the seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in seeds().items():
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()

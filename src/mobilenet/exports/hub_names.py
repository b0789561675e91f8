"""Which of timm's architectures a model is, and its weights under timm's names and in torch's layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from mobilenet.errors import ArgumentError, GraphError
from mobilenet.files.contents import ModelContents
from mobilenet.files.imports.sources import Candidate, Ends, candidates
from mobilenet.graph.graph import Graph, Node, has_batch_norm
from mobilenet.graph.ops import Conv, Dense, DepthwiseConv

# The widths that timm 1.0.31 has a name for, in percent; "": the name without a width.
WIDTHS = {
    "mobilenetv1": ("100", "125"),
    "mobilenetv2": ("035", "050", "075", "100", "140"),
    "mobilenetv3_large": ("075", "100"),
    "mobilenetv3_small": ("050", "075", "100"),
    "tf_mobilenetv3_large": ("075", "100"),
    "tf_mobilenetv3_small": ("075", "100"),
    "tf_mobilenetv3_large_minimal": ("100",),
    "tf_mobilenetv3_small_minimal": ("100",),
    "mobilenet_edgetpu": ("100",),
    "mobilenetv4_conv_small": ("", "035", "050"),
    "mobilenetv4_hybrid_medium": ("", "075"),
    "mobilenetv4_hybrid_large": ("", "075"),
}
_TRAINING = {"dropout": 0.0, "drop_path": 0.0, "momentum": 0.1, "same": False}  # says nothing about answers


def timm_architecture(contents: ModelContents) -> tuple[str, Candidate, Graph]:
    """The name that `timm.create_model` knows the network by, and the same network as timm's names see it.

    Raises:
        ArgumentError: the network is no classifier of floats, its batch norms are folded, or timm does not have it
            in the same dialect; the message says which.
    """
    graph = contents.graph
    if any(kind.integer for kind in graph.types.values()):
        raise ArgumentError("the model is of integers, which timm does not have: export it with --precision fp32")
    if "logits" not in graph.outputs:
        raise ArgumentError(f"timm's MobileNets are classifiers; this model has {', '.join(graph.outputs)}")
    if not has_batch_norm(graph):
        raise ArgumentError("the model's batch norms are folded into its weights, but timm's networks have them")
    ((height, width, channels),) = (kind.shape for kind in graph.inputs.values())
    ends = Ends(channels=channels, classes=graph.types[graph.outputs["logits"]].shape[-1])
    wanted = _essence(graph)
    for name, candidate, width_multiplier in _architectures():
        try:
            theirs = candidate.graph(width_multiplier, ends, (height, width))
        except GraphError:
            continue
        if _essence(theirs) == wanted:
            return name, candidate, theirs
    raise ArgumentError(_unknown(contents))


def _architectures() -> Iterator[tuple[str, Candidate, float]]:
    for candidate in candidates("torch"):
        if candidate.project != "timm":
            continue
        for width in WIDTHS.get(candidate.name, ("",)):
            name = f"{candidate.name}_{width}" if width else candidate.name
            yield name, candidate, int(width) / 100 if width else candidate.rows.width_multiplier


def _essence(graph: Graph) -> list[tuple[Any, ...]]:
    """What two networks must have in common to have the same weights and the same answers."""
    return [(node.name, _neutral(node), node.inputs) for node in graph.nodes]


def _neutral(node: Node) -> Any:
    known = {key: value for key, value in _TRAINING.items() if hasattr(node.operator, key)}
    return replace(node.operator, **known)


def _unknown(contents: ModelContents) -> str:
    name = contents.provenance.get("model") or "this network"
    return (
        f"timm has no architecture like {name} in the same dialect (padding, epsilon, widths, head): create or "
        "train it under one of timm's names, such as mobilenetv3_large_100"
    )


def timm_tensors(contents: ModelContents, candidate: Candidate, graph: Graph) -> dict[str, np.ndarray]:
    """The weights by timm's names in torch's order of axes, (out, in, height, width).

    They are float32, but for torch's counters of batches.
    """
    tensors = {}
    for ours, wanted in candidate.wanted(graph).items():
        node, _, parameter = ours.rpartition(".")
        array = contents.weights[ours]
        if parameter == "weight":
            array = _torch_layout(graph.node(node), wanted.name, array)
        tensors[wanted.name] = np.ascontiguousarray(array, np.float32)
        if wanted.name.endswith(
            ".running_var"
        ):  # torch counts batches too; transformers warns where that is missing
            tensors[wanted.name.replace("running_var", "num_batches_tracked")] = np.zeros((), np.int64)
    return tensors


def _torch_layout(node: Node, name: str, array: np.ndarray) -> np.ndarray:
    if isinstance(node.operator, DepthwiseConv):
        return array.transpose(2, 0, 1)[:, None]
    if isinstance(node.operator, Conv):
        return array.transpose(0, 3, 1, 2)
    if isinstance(node.operator, Dense) and name == "conv_head.weight":  # timm's is a convolution of one pixel
        return array[:, :, None, None]
    return array

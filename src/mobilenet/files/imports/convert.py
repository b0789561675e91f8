"""From somebody's tensor to a parameter of the graph: which shape it must have, and how its axes are turned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from mobilenet.errors import ModelFileError
from mobilenet.graph.graph import Graph
from mobilenet.graph.ops import Conv, Dense, DepthwiseConv, Mul, Operator, Shape

_TORCH = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "variance": "running_var"}
_KERAS = {"weight": "kernel", "mean": "moving_mean", "variance": "moving_variance"}


class Wanted(NamedTuple):
    """One tensor that a checkpoint must hold: its name there and the shapes that it may have there."""

    name: str
    shapes: tuple[Shape, ...]
    turn: Callable[[np.ndarray], np.ndarray]


def wanted_tensors(graph: Graph, names: Mapping[str, str], layout: str) -> dict[str, Wanted]:
    """Parameter of the graph -> what the checkpoint must hold for it.

    Args:
        graph: the network.
        names: node -> layer of theirs, as the functions of `torch_names` and `keras_names` give.
        layout: "torch" or "keras".
    """
    wanted = {}
    for ours, parameter in graph.parameters().items():
        node, _, kind = ours.rpartition(".")
        operator = graph.node(node).operator
        rule = _torch_rule if layout == "torch" else _keras_rule
        shapes, turn = rule(operator, kind, parameter.shape)
        separator = "." if layout == "torch" else "/"
        wanted[ours] = Wanted(f"{names[node]}{separator}{_their_kind(operator, kind, layout)}", shapes, turn)
    return wanted


def _their_kind(operator: Operator, kind: str, layout: str) -> str:
    if isinstance(operator, Mul):
        return "gamma"
    return (_TORCH if layout == "torch" else _KERAS).get(kind, kind)


Rule = tuple[tuple[Shape, ...], Callable[[np.ndarray], np.ndarray]]


def _torch_rule(operator: Operator, kind: str, shape: Shape) -> Rule:
    """Axes are (out, in, height, width); a layer of one pixel may be a convolution or a linear layer."""
    if kind == "weight" and isinstance(operator, DepthwiseConv):
        height, width, channels = shape
        return ((channels, 1, height, width),), lambda a: a[:, 0].transpose(1, 2, 0)
    if kind == "weight" and isinstance(operator, Conv):
        out, height, width, channels = shape
        one = ((out, channels),) if (height, width) == (1, 1) else ()
        return (
            (out, channels, height, width),
            *one,
        ), lambda a: a.transpose(0, 2, 3, 1) if a.ndim == 4 else a[:, None, None]
    if kind == "weight" and isinstance(operator, Dense):
        return (shape, (*shape, 1, 1)), lambda a: a.reshape(shape)
    return (shape,), _as_it_is


def _keras_rule(operator: Operator, kind: str, shape: Shape) -> Rule:
    """Axes are (height, width, in, out), of depthwise kernels (height, width, channels, 1)."""
    if kind == "weight" and isinstance(operator, DepthwiseConv):
        return ((*shape, 1),), lambda a: a[..., 0]
    if kind == "weight" and isinstance(operator, Conv):
        out, height, width, channels = shape
        return ((height, width, channels, out),), lambda a: a.transpose(3, 0, 1, 2)
    if kind == "weight" and isinstance(operator, Dense):
        out, channels = shape
        return ((channels, out), (1, 1, channels, out)), lambda a: a.reshape(channels, out).T
    return (shape,), _as_it_is


def _as_it_is(array: np.ndarray) -> np.ndarray:
    return array


def converted(wanted: Mapping[str, Wanted], tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights of the graph, float32, from tensors that have the wanted names and shapes.

    Raises:
        ModelFileError: a tensor is no float tensor, or holds NaN, an infinity or a negative variance; it is named.
    """
    weights = {}
    for ours, (name, _, turn) in wanted.items():
        array = tensors[name]
        if array.dtype.kind != "f":
            raise ModelFileError(f"tensor '{name}' has dtype {array.dtype}; floats are expected")
        with np.errstate(over="ignore"):  # a float64 that becomes infinite is found below
            weights[ours] = np.ascontiguousarray(turn(array), np.float32)
        _check_values(name, ours, weights[ours])
    return weights


def _check_values(name: str, ours: str, array: np.ndarray) -> None:
    bad = array.size - int(np.isfinite(array).sum())
    if bad:
        raise ModelFileError(f"tensor '{name}' holds {bad} of {array.size} values that are NaN or infinite")
    if ours.endswith(".variance") and (array < 0).any():
        raise ModelFileError(f"tensor '{name}' holds a negative variance")

"""Weights rounded one after the other, so that each makes up for the errors of those before it.

Rounding every weight to the nearest integer is best for a layer whose inputs have nothing to do with each other.
Behind a relu they do: none is below zero and many rise together, so errors add up in one direction. Here the
weights of an output are rounded in turn, and what rounding one does to the output, as the calibration pictures
have it, is taken out of those that are not rounded yet: optimal brain surgery (Hassibi & Stork 1993) with the
decomposition of GPTQ (Frantar et al. 2022, arXiv:2210.17323). No gradients, no labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mobilenet.graph.graph import Graph, Node, Weights
from mobilenet.graph.ops import Conv, Dense, DepthwiseConv
from mobilenet.quantise.integer import WEIGHT_LEVELS
from mobilenet.quantise.ranges import values_of_run
from mobilenet.run.reference_window import padded

DAMPING = 0.01  # of the mean square of an input: what is added to each, so that few pictures do not decide all
LARGEST_LAYER = 2048  # terms of a sum: the time is their cube, the memory their square
MEMORY = 2**28  # bytes of products at once; networks that need more run again for the next layers

Batches = Callable[[], Iterable[np.ndarray]]


def compensated(graph: Graph, weights: Weights, batches: Batches) -> tuple[Weights, Weights]:
    """Weights that are whole multiples of a scale for each output channel.

    Args:
        graph: a lowered float graph with one input.
        weights: of the graph; they are not changed.
        batches: gives the calibration pictures, float32 (N, ...) of the input's shape, as often as it is called.

    Returns:
        The weights, and node -> float64 (channels), the scales: what `to_integers` takes, and rounds no more.
        Layers that sum more than `LARGEST_LAYER` products keep their weights.
    """
    linear = [node for node in graph.nodes if isinstance(node.operator, Conv | DepthwiseConv | Dense)]
    rounded, scales = dict(weights), {}
    for node in linear:
        peaks = np.abs(_rows(node, weights[f"{node.name}.weight"])).max(axis=-1).reshape(-1)
        scales[node.name] = (peaks.astype(np.float64) / WEIGHT_LEVELS).astype(np.float32).astype(np.float64)
    for part in _parts(linear, weights):
        for node, products in measure_products(graph, weights, part, batches()):
            weight, scale = weights[f"{node.name}.weight"], scales[node.name]
            rows = _rows(node, weight.astype(np.float64))
            unit = np.where(scale > 0, scale, 1.0).reshape(*rows.shape[:2], 1)
            rounded[f"{node.name}.weight"] = _unrows(node, steps_of(rows / unit, products) * unit, weight)
    return rounded, scales


def measure_products(
    graph: Graph, weights: Weights, nodes: Iterable[Node], batches: Iterable[np.ndarray]
) -> Iterator[tuple[Node, np.ndarray]]:
    """What the inputs of linear layers have to do with each other.

    Yields:
        Each node with float64 (groups, terms, terms): sums, over positions and pictures, of the products of what
        two weights of an output are multiplied with. A depthwise convolution has a group for each channel, all
        else one.
    """
    readers: dict[str, list[Node]] = {}
    for node in nodes:
        readers.setdefault(node.inputs[0], []).append(node)
    found: dict[str, np.ndarray] = {}
    for batch in batches:
        for name, value in values_of_run(graph, weights, batch):
            for node in readers.get(name, ()):
                found[node.name] = found.get(node.name, 0.0) + _products(node, value)
    yield from ((node, found.pop(node.name)) for own in readers.values() for node in own)


def _parts(linear: list[Node], weights: Weights) -> Iterator[list[Node]]:
    """The layers that are not too large, so many at once as `MEMORY` allows."""
    part: list[Node] = []
    room = MEMORY
    for node in linear:
        groups, _, terms = _rows(node, weights[f"{node.name}.weight"]).shape
        size = 8 * groups * terms**2
        if terms > LARGEST_LAYER:
            continue
        if part and size > room:
            yield part
            part, room = [], MEMORY
        part.append(node)
        room -= size
    if part:
        yield part


def steps_of(rows: np.ndarray, products: np.ndarray) -> np.ndarray:
    """Weights as whole numbers from -127 to 127.

    Args:
        rows: float64 (groups, rows, terms), in steps of their scales.
        products: float64 (groups, terms, terms), of what the terms are multiplied with.
    """
    places = np.arange(products.shape[-1])
    energy = products[:, places, places]
    damped = products.copy()
    damped[:, places, places] += DAMPING * energy.mean(axis=1, keepdims=True) + (energy.mean(axis=1) == 0)[:, None]
    order = np.argsort(-energy, axis=1, kind="stable")  # what matters most has all others to make up for it
    damped = np.take_along_axis(damped, order[:, :, None], axis=1)
    damped = np.take_along_axis(damped, order[:, None, :], axis=2)
    factor = np.linalg.cholesky(np.linalg.inv(damped)).transpose(0, 2, 1)
    left = np.take_along_axis(rows, order[:, None, :], axis=2)
    for place in places:
        whole = np.clip(np.rint(left[:, :, place]), -WEIGHT_LEVELS, WEIGHT_LEVELS)
        error = (left[:, :, place] - whole) / factor[:, None, place, place]
        left[:, :, place + 1 :] -= error[:, :, None] * factor[:, None, place, place + 1 :]
        left[:, :, place] = whole
    result = np.empty_like(left)
    np.put_along_axis(result, np.broadcast_to(order[:, None, :], left.shape), left, axis=2)
    return result


def _rows(node: Node, weight: np.ndarray) -> np.ndarray:
    """(groups, rows, terms): outputs that read the same terms are rows of one group."""
    if isinstance(node.operator, DepthwiseConv):
        return weight.reshape(-1, weight.shape[-1]).T[:, None]
    return weight.reshape(1, len(weight), -1)


def _unrows(node: Node, rows: np.ndarray, weight: np.ndarray) -> np.ndarray:
    found = rows[:, 0].T if isinstance(node.operator, DepthwiseConv) else rows[0]
    return np.ascontiguousarray(found.reshape(weight.shape), np.float32)


def _products(node: Node, x: np.ndarray) -> np.ndarray:
    operator = node.operator
    if isinstance(operator, Dense):
        terms = x.reshape(1, -1, x.shape[-1])
    else:
        assert isinstance(operator, Conv | DepthwiseConv)
        windows = _windows(operator, x)  # (places, taps, channels)
        terms = windows.reshape(1, len(windows), -1)
        if isinstance(operator, DepthwiseConv):
            terms = windows.transpose(2, 0, 1).repeat(operator.multiplier, axis=0)
    return np.asarray(terms.transpose(0, 2, 1) @ terms, np.float64)


def _windows(window: Conv | DepthwiseConv, x: np.ndarray) -> np.ndarray:
    """What each place of the output reads: (places, taps, channels) of x (N, H, W, channels)."""
    (sh, sw), (dh, dw) = window.stride, window.dilation
    reach = ((window.kernel[0] - 1) * dh + 1, (window.kernel[1] - 1) * dw + 1)
    seen = sliding_window_view(padded(x, window.padding), reach, axis=(1, 2))[:, ::sh, ::sw, :, ::dh, ::dw]
    return seen.transpose(0, 1, 2, 4, 5, 3).reshape(-1, window.kernel[0] * window.kernel[1], x.shape[-1])

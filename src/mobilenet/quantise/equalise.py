"""Cross-layer equalisation: channels that share one scale get ranges that are alike.

A value has one scale for all channels, so the channel with the largest numbers leaves the others few integers. A
linear layer, at most a relu, and a second linear layer compute the same if the first makes channel i smaller by a
factor s_i and the second undoes it (Nagel et al. 2019, section 4.1):

- relu commutes with any s_i > 0; hard_swish and the other curves with none, so such pairs are left alone;
- relu6 does where the clamp at 6 is out of reach before and after: a channel that reaches 6 is left alone, and
  the others grow to 6 / `HEADROOM` at most. That needs the largest outputs that calibration saw;
- weights have a scale for each output channel, so the first layer pays nothing, nor does a depthwise second one:
  s_i makes all channels equally large. In other second layers a weight row has one scale for all its inputs; there
  s_i is the paper's mean between equal outputs and equal weights.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mobilenet.graph.graph import Graph, Node, Weights
from mobilenet.graph.ops import Conv, Dense, DepthwiseConv
from mobilenet.quantise.lower import read_once

HEADROOM = 1.25  # how far below 6 the largest output that was seen stays
_CLAMP = 6.0
_LARGEST = 64.0  # of a factor, either way
_COMMUTE = ("none", "relu", "relu6")

Pair = tuple[Node, Node]


def equalise(graph: Graph, weights: Weights, peaks: Mapping[str, np.ndarray]) -> Weights:
    """Weights with which a folded float graph gives the same answers out of values that are easier to quantise.

    Args:
        graph: a float graph without batch norms, as `lower.lower` returns.
        weights: of the graph; they are not changed.
        peaks: the largest |output| by channel of each linear layer, as `observe` found it.

    Returns:
        New weights of the same graph.
    """
    changed = dict(weights)
    for first, second in pairs(graph):
        factors = _factors(first, second, changed, peaks[first.name])
        _divide_outputs(first, changed, factors)
        _multiply_inputs(second, changed, factors)
    return changed


def pairs(graph: Graph) -> list[Pair]:
    """The linear layers whose output exactly one linear layer reads, with it, in the graph's order."""
    alone = read_once(graph)
    linear = {node.name: node for node in graph.nodes if isinstance(node.operator, Conv | DepthwiseConv | Dense)}
    return [
        (linear[node.inputs[0]], node)
        for node in linear.values()
        if node.inputs[0] in linear
        and node.inputs[0] in alone
        and getattr(linear[node.inputs[0]].operator, "activation", "none") in _COMMUTE
    ]


def _factors(first: Node, second: Node, weights: Weights, peaks: np.ndarray) -> np.ndarray:
    """By how much each output channel of the first layer becomes smaller: float64 (channels)."""
    read = _input_peaks(second, weights)
    used = (peaks > 0) & (read > 0)
    if not used.any():
        return np.ones_like(peaks)
    wanted = np.where(used, peaks, 1.0)
    if not isinstance(second.operator, DepthwiseConv):
        wanted = np.sqrt(wanted / np.where(used, read, 1.0))
    after = np.where(used, peaks / wanted, 0.0)
    wanted *= after.max() / peaks.max()  # the value as a whole keeps its range
    factors = np.clip(wanted, 1 / _LARGEST, _LARGEST)
    if getattr(first.operator, "activation", "none") == "relu6":
        factors = _below_clamp(factors, peaks)
    # Powers of two change no digit of a weight; rounded up, no channel outgrows the largest.
    rounded: np.ndarray = np.where(used, 2.0 ** np.ceil(np.log2(np.where(used, factors, 1.0))), 1.0)
    return rounded


def _below_clamp(factors: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """No factor for a channel that comes near 6, and for the others none that brings them there."""
    free = peaks * HEADROOM < _CLAMP
    least = np.where(free, peaks * HEADROOM / _CLAMP, 1.0)
    return np.where(free & (least > 0), np.clip(factors, least, 1.0), 1.0)


def _input_peaks(node: Node, weights: Weights) -> np.ndarray:
    """The largest |weight| by input channel, float64."""
    weight = np.abs(weights[f"{node.name}.weight"].astype(np.float64))
    if isinstance(node.operator, DepthwiseConv):
        return np.asarray(weight.max(axis=(0, 1)).reshape(-1, node.operator.multiplier).max(axis=1))
    return np.asarray(weight.reshape(-1, weight.shape[-1]).max(axis=0))


def _divide_outputs(node: Node, weights: Weights, factors: np.ndarray) -> None:
    weight = weights[f"{node.name}.weight"]
    last = isinstance(node.operator, DepthwiseConv)
    shaped = factors if last else factors.reshape(-1, *(1,) * (weight.ndim - 1))
    weights[f"{node.name}.weight"] = (weight / shaped).astype(np.float32)
    if f"{node.name}.bias" in weights:
        weights[f"{node.name}.bias"] = (weights[f"{node.name}.bias"] / factors).astype(np.float32)


def _multiply_inputs(node: Node, weights: Weights, factors: np.ndarray) -> None:
    if isinstance(node.operator, DepthwiseConv):
        factors = factors.repeat(node.operator.multiplier)
    weights[f"{node.name}.weight"] = (weights[f"{node.name}.weight"] * factors).astype(np.float32)

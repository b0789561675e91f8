"""One pass of `LearnedIntegers`: the rules of `run/reference_integer.py`, node by node, with gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from mobilenet.graph.graph import Node
from mobilenet.graph.ops import (
    Activation,
    Add,
    AveragePool,
    Concat,
    Conv,
    Dense,
    DepthwiseConv,
    MatMul,
    MaxPool,
    Mean,
    Mul,
    Operator,
    Resize,
    Softmax,
)
from mobilenet.quantise.integer import ADD_RATIOS, MOVES, NEAR_SIX, STEPS
from mobilenet.quantise.lower import has_integer_form
from mobilenet.run.reference_float import activate
from mobilenet.run.torch_fake import Scale, clamped, half_up, requantise, scale_of
from mobilenet.run.torch_layer import along_channels, channel_axis

if TYPE_CHECKING:
    from mobilenet.quantise.learned import LearnedIntegers

LINEAR = (Conv, DepthwiseConv, Dense)


class Run:
    """The values so far: `steps` are whole numbers, beside their `scales`; `real` came from nodes in float.

    Args:
        module: what runs.
        source: the name of its input.
        batch: float32, axes as torch wants them.
    """

    def __init__(self, module: LearnedIntegers, source: str, batch: Tensor) -> None:
        self.module = module
        self.ends = module.ends()
        self.highs = self.ends[:, 1].detach().tolist()
        self.steps: dict[str, Tensor] = {}
        self.real: dict[str, Tensor] = {source: batch}
        self.scales: dict[str, Scale] = {source: module.fixed(source)}

    def node(self, node: Node) -> None:
        """Runs the node on what its inputs gave."""
        plain, kinds = self.module.plain[node.name], self.module.graph.types
        if not has_integer_form(node.operator) or kinds[node.name].dtype != "float32":
            self.real[node.name] = plain(*(self._float(name) for name in node.inputs))
            return
        inputs = [self._integer(name) for name in node.inputs]
        given = [self.scales[name] for name in node.inputs]
        scale = self.scales[node.name] = self._scale(node)
        if self.module.training and node.name in self.module.only_outputs and isinstance(node.operator, LINEAR):
            total, multiplier = self._linear(node, inputs[0], given[0], scale)
            self.real[node.name] = _shaped(multiplier, total) * total * scale.scale
        else:
            self.steps[node.name] = self._run(node, plain, inputs, given, scale)

    def output(self, name: str) -> Tensor:
        """A value as its integers stand for it; what `node` left in float is that in training only."""
        if self.module.graph.types[name].dtype != "float32":
            return self.real[name]
        if self.module.training and name in self.module.only_outputs and name in self.real:
            return self.real[name]
        return self._integer(name) * self.scales[name].scale

    def _integer(self, name: str) -> Tensor:
        """Rule 8 where a value was in float."""
        if name not in self.steps:
            scale = self.scales.setdefault(name, self._learned(name))
            self.steps[name] = requantise(self.real[name], 1 / scale.scale, scale.bounds)
        return self.steps[name]

    def _float(self, name: str) -> Tensor:
        return self.real[name] if name in self.real else self.steps[name] * self.scales[name].scale

    def _run(self, node: Node, plain: nn.Module, x: list[Tensor], given: list[Scale], scale: Scale) -> Tensor:
        operator = node.operator
        bounds = _bounds(operator, scale)
        if isinstance(operator, LINEAR):
            total, multiplier = self._linear(node, x[0], given[0], scale)
            return requantise(total, _shaped(multiplier, total), bounds)
        if isinstance(operator, Activation):
            return self._table(operator, plain, x[0], given[0], scale)
        rule = RULES.get(type(operator))
        if rule is not None:
            return rule(operator, x, given, scale, bounds)
        if isinstance(operator, Resize) and operator.method == "bilinear":
            return clamped(half_up(plain(*x)), bounds)
        if isinstance(operator, MOVES):
            return cast(Tensor, plain(*x))
        return requantise(plain(*(v * s.scale for v, s in zip(x, given, strict=True))), 1 / scale.scale, bounds)

    def _linear(self, node: Node, x: Tensor, given: Scale, scale: Scale) -> tuple[Tensor, Tensor]:
        """The sums of rule 4, and the multiplier of each channel."""
        parameters, weight_scale = self.module.own[node.name].integers(given, scale)
        total = functional_call(self.module.plain[node.name], parameters, (x,))
        return total, given.scale * weight_scale / scale.scale

    def _table(self, operator: Activation, plain: nn.Module, x: Tensor, given: Scale, scale: Scale) -> Tensor:
        """Rule 9; in training the same up to a half that is rounded the other way."""
        if self.module.training:
            return requantise(plain(x * given.scale), 1 / scale.scale, scale.bounds)
        steps = np.arange(STEPS + 1) - float(given.zero)
        real = activate(operator.activation, float(given.scale) * steps) / float(scale.scale)
        low, high = map(float, scale.bounds)
        table = torch.from_numpy(np.clip(np.rint(real), low, high).astype(np.float32))
        return table[(x + given.zero).long()]

    def _learned(self, name: str) -> Scale:
        low, high = self.ends[self.module.place[name]]
        return scale_of(low, high)

    def _scale(self, node: Node) -> Scale:
        """As `to_integers` chooses it."""
        operator = node.operator
        if isinstance(operator, MOVES):
            return self.scales[node.inputs[0]]
        high = self.highs[self.module.place[node.name]]
        if isinstance(operator, Softmax):
            high = high if node.name in self.module.multiplied else 1.0
            return Scale(torch.tensor(min(float(np.float32(high / STEPS)), 1 / 256)), torch.tensor(0.0))
        if getattr(operator, "activation", "none") == "relu6" and high > 6 * NEAR_SIX:
            return scale_of(torch.tensor(0.0, dtype=torch.float64), torch.tensor(6.0, dtype=torch.float64))
        scale = self._learned(node.name)
        return self._for_sum(node, scale) if isinstance(operator, Add) else scale

    def _for_sum(self, node: Node, scale: Scale) -> Scale:
        largest = max(float(self.scales[name].scale.detach()) for name in node.inputs)
        low, high = ADD_RATIOS
        return Scale(scale.scale.clamp(largest / high, largest / low), scale.zero)


Bounds = tuple[Tensor, Tensor]


def _bounds(operator: Operator, scale: Scale) -> Bounds:
    """Rule 3."""
    low, high = scale.bounds
    activation = getattr(operator, "activation", "none")
    if activation in ("relu", "relu6"):
        low = low.clamp(min=0.0)
    if activation == "relu6":
        high = high.clamp(max=round(min(float(6 / scale.scale.detach()), 512)))
    return low, high


def _shaped(multiplier: Tensor, total: Tensor) -> Tensor:
    return along_channels(multiplier, total)


def _matmul(op: MatMul, x: list[Tensor], given: list[Scale], scale: Scale, bounds: Bounds) -> Tensor:
    second = x[1].transpose(1, 2) if op.transpose_second else x[1]
    return requantise(torch.matmul(x[0], second), given[0].scale * given[1].scale / scale.scale, bounds)


def _average_pool(op: AveragePool, x: list[Tensor], given: list[Scale], scale: Scale, bounds: Bounds) -> Tensor:  # noqa: ARG001
    """Rule 7: sums of whole numbers, so that halves are halves."""
    top, bottom, left, right = op.padding
    value, ones = (F.pad(v, (left, right, top, bottom)) for v in (x[0], torch.ones_like(x[0][:1, :1])))
    total, pixels = (F.avg_pool2d(v, op.kernel, op.stride, divisor_override=1) for v in (value, ones))
    return clamped(half_up(total / pixels), bounds)


def _max_pool(op: MaxPool, x: list[Tensor], given: list[Scale], scale: Scale, bounds: Bounds) -> Tensor:  # noqa: ARG001
    top, bottom, left, right = op.padding
    value = F.pad(x[0], (left, right, top, bottom), value=float("-inf"))
    return clamped(F.max_pool2d(value, op.kernel, op.stride), bounds)


def _mean(op: Mean, x: list[Tensor], given: list[Scale], scale: Scale, bounds: Bounds) -> Tensor:
    pixels = x[0].shape[2] * x[0].shape[3]
    return requantise(x[0].sum((2, 3), keepdim=op.keep_axes), given[0].scale / (scale.scale * pixels), bounds)


def _mul(op: Mul, x: list[Tensor], given: list[Scale], scale: Scale, bounds: Bounds) -> Tensor:  # noqa: ARG001
    return requantise(x[0] * x[1], given[0].scale * given[1].scale / scale.scale, bounds)


def _add(op: Add, x: list[Tensor], given: list[Scale], scale: Scale, bounds: Bounds) -> Tensor:  # noqa: ARG001
    """Rule 6, in float64, which holds its 32 bits."""
    ratios = [one.scale / scale.scale for one in given]
    shift = 20 - math.frexp(max(float(ratio.detach()) for ratio in ratios))[1] + 1
    total = sum(v.double() * _on_grid(ratio.double(), shift) for v, ratio in zip(x, ratios, strict=True))
    assert isinstance(total, Tensor)
    return clamped(half_up(total).float(), bounds)


def _on_grid(ratio: Tensor, shift: int) -> Tensor:
    rounded = torch.ldexp(torch.ldexp(ratio.detach(), torch.tensor(shift)).round(), torch.tensor(-shift))
    return ratio + (rounded - ratio).detach()


def _concat(op: Concat, x: list[Tensor], given: list[Scale], scale: Scale, bounds: Bounds) -> Tensor:  # noqa: ARG001
    parts = [requantise(v, one.scale / scale.scale, bounds) for v, one in zip(x, given, strict=True)]
    return torch.cat(parts, channel_axis(parts[0]))


RULES: dict[type[Operator], Callable[..., Tensor]] = {
    MatMul: _matmul,
    AveragePool: _average_pool,
    MaxPool: _max_pool,
    Mean: _mean,
    Mul: _mul,
    Add: _add,
    Concat: _concat,
}

"""Layers that move values without weighing them: pad, concat, resize, reshape, transpose."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor

import torch
import torch.nn.functional as F
from torch import Tensor

from mobilenet.graph.ops import Pad, Reshape, Resize, Shape, Transpose
from mobilenet.run.torch_layer import Layer, channel_axis, nchw, nhwc


class PadLayer(Layer):
    """Zeros around the picture."""

    def __init__(self, operator: Pad, inputs: Sequence[Shape]) -> None:
        super().__init__(operator, inputs)
        self.padding = operator.padding

    def forward(self, value: Tensor) -> Tensor:
        top, bottom, left, right = self.padding
        return F.pad(value, (left, right, top, bottom))


class ConcatLayer(Layer):
    """Along the channels."""

    def forward(self, *values: Tensor) -> Tensor:
        return torch.cat(values, channel_axis(values[0]))


class ResizeLayer(Layer):
    """One axis after the other, with the coordinate rule of the operator."""

    def __init__(self, operator: Resize, inputs: Sequence[Shape]) -> None:
        super().__init__(operator, inputs)
        self.operator = operator

    def forward(self, value: Tensor, like: Tensor | None = None) -> Tensor:
        size = self.operator.size or (tuple(like.shape[2:]) if like is not None else ())
        for axis, target in zip((2, 3), size, strict=True):
            value = self._resampled(value, axis, target)
        return value

    def _resampled(self, value: Tensor, axis: int, target: int) -> Tensor:
        source = value.shape[axis]
        positions = [_position(self.operator, t, source, target) for t in range(target)]
        if self.operator.method == "nearest":
            return value.index_select(
                axis, _indices([_nearest(self.operator, p, source) for p in positions], value)
            )
        clamped = [min(max(p, 0.0), source - 1.0) for p in positions]
        low = [floor(p) for p in clamped]
        share = torch.tensor([p - i for p, i in zip(clamped, low, strict=True)], device=value.device)
        share = share.to(value.dtype).view(-1, *[1] * (3 - axis))
        first = value.index_select(axis, _indices(low, value))
        second = value.index_select(axis, _indices([min(i + 1, source - 1) for i in low], value))
        return first + (second - first) * share


def _indices(positions: Sequence[int], value: Tensor) -> Tensor:
    return torch.tensor(positions, device=value.device)


def _position(operator: Resize, target: int, source_size: int, target_size: int) -> float:
    """Where in the source a target pixel lies."""
    if operator.align_corners and target_size > 1:
        return target * ((source_size - 1) / (target_size - 1))
    if operator.half_pixel_centers and operator.method == "bilinear":
        return (target + 0.5) * (source_size / target_size) - 0.5
    if operator.half_pixel_centers:
        return (target + 0.5) * (source_size / target_size)
    return target * (source_size / target_size)


def _nearest(operator: Resize, position: float, size: int) -> int:
    nearest = floor(position + 0.5) if operator.align_corners else floor(position)
    return min(nearest, size - 1)


class ReshapeLayer(Layer):
    """In the order of NHWC."""

    def __init__(self, operator: Reshape, inputs: Sequence[Shape]) -> None:
        super().__init__(operator, inputs)
        self.shape = operator.output_shape(inputs)

    def forward(self, value: Tensor, like: Tensor | None = None) -> Tensor:  # noqa: ARG002 - the shape is known
        return nchw(nhwc(value).reshape(value.shape[0], *self.shape))


class TransposeLayer(Layer):
    """Axes as the graph counts them."""

    def __init__(self, operator: Transpose, inputs: Sequence[Shape]) -> None:
        super().__init__(operator, inputs)
        self.axes = (0, *(axis + 1 for axis in operator.axes))

    def forward(self, value: Tensor) -> Tensor:
        return nchw(nhwc(value).permute(self.axes))

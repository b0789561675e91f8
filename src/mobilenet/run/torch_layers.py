"""What each operator does in torch: one small `nn.Module` per operator, parameters in the graph's own layout.

A value whose shape is (height, width, channels) flows as (batch, channels, height, width) in channels_last
memory, which is NHWC in memory; every other value flows as (batch, *shape). The meaning of each operator is that
of `run/reference.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import floor
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobilenet.errors import TrainingError, UnsupportedOperatorError
from mobilenet.graph.ops import (
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
    Parameter,
    Reshape,
    Resize,
    Shape,
    Sides,
    Softmax,
    Transpose,
)
from mobilenet.run.torch_batch_norm import batch_norm_over_processes, processes, widened
from mobilenet.run.torch_depthwise import depthwise_conv

SLIM_SIXTH = 0.16667  # TF-slim's constant in place of 1 / 6


def nhwc(value: Tensor) -> Tensor:
    """A value with its axes in the graph's order: (batch, height, width, channels) if it is a picture."""
    return value.permute(0, 2, 3, 1) if value.dim() == 4 else value


def nchw(value: Tensor) -> Tensor:
    """The inverse of `nhwc`: no copy, so a contiguous NHWC tensor is channels_last for free."""
    return value.permute(0, 3, 1, 2) if value.dim() == 4 else value


def _channel_axis(value: Tensor) -> int:
    return 1 if value.dim() == 4 else -1


def _along_channels(parameter: Tensor, value: Tensor) -> Tensor:
    """A (channels) tensor so that it multiplies the channels of `value`."""
    return parameter.view(-1, 1, 1) if value.dim() == 4 else parameter


class Layer(nn.Module):
    """Base: holds the parameters of a node under the graph's names, shapes and layout."""

    def __init__(self, operator: Operator, inputs: Sequence[Shape]) -> None:
        super().__init__()
        self.activation = getattr(operator, "activation", "none")
        self.parameter_names = tuple(operator.parameters(inputs))
        for name, parameter in operator.parameters(inputs).items():
            self._hold(name, parameter)

    def _hold(self, name: str, parameter: Parameter) -> None:
        start = torch.ones if name in ("gamma", "variance") else torch.zeros
        tensor = start(parameter.shape)
        if parameter.trainable:
            self.register_parameter(name, nn.Parameter(tensor))
        else:
            self.register_buffer(name, tensor)

    def held(self, name: str) -> Tensor:
        """The parameter or buffer of this name."""
        return cast(Tensor, getattr(self, name))

    def optional_bias(self) -> Tensor | None:
        """The bias, if the operator has one."""
        return self.held("bias") if "bias" in self.parameter_names else None

    def activated(self, value: Tensor) -> Tensor:
        """The activation that the operator carries; `value` is fresh, so it may be overwritten."""
        if self.activation == "none":
            return value
        if self.activation == "prelu":
            return _prelu(value, self.held("alpha"))
        return ACTIVATIONS[self.activation](value)


def _prelu(value: Tensor, alpha: Tensor) -> Tensor:
    if value.dim() in (2, 4):
        return F.prelu(value, alpha.to(value.dtype))
    return value.clamp(min=0) + alpha * value.clamp(max=0)


# In place where autograd permits it: each is given a tensor that nothing else reads.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu_,
    "relu6": lambda x: F.hardtanh_(x, 0.0, 6.0),
    "hard_swish": lambda x: F.hardswish(x, inplace=True),
    "hard_sigmoid": lambda x: F.hardsigmoid(x, inplace=True),
    "hard_sigmoid_slim": lambda x: F.relu6(x + 3.0) * SLIM_SIXTH,
    "sigmoid": torch.sigmoid_,
    "gelu": F.gelu,
}


def _padded(value: Tensor, padding: Sides, filler: float = 0.0) -> tuple[Tensor, tuple[int, int]]:
    """`value` with what a symmetric padding cannot do already around it, and the padding that is left to do."""
    top, bottom, left, right = padding
    if top == bottom and left == right:
        return value, (top, left)
    return F.pad(value, (left, right, top, bottom), value=filler), (0, 0)


class ConvLayer(Layer):
    """weight (out, kernel height, kernel width, in)."""

    def __init__(self, operator: Conv, inputs: Sequence[Shape]) -> None:
        super().__init__(operator, inputs)
        self.operator = operator

    def forward(self, value: Tensor) -> Tensor:
        operator = self.operator
        value, padding = _padded(value, operator.padding)
        weight = self.held("weight").permute(0, 3, 1, 2)
        bias = self.optional_bias()
        return self.activated(F.conv2d(value, weight, bias, operator.stride, padding, operator.dilation))


class DepthwiseConvLayer(Layer):
    """weight (kernel height, kernel width, channels * multiplier)."""

    def __init__(self, operator: DepthwiseConv, inputs: Sequence[Shape]) -> None:
        super().__init__(operator, inputs)
        self.operator = operator

    def forward(self, value: Tensor) -> Tensor:
        operator = self.operator
        value, padding = _padded(value, operator.padding)
        weight = self.held("weight").permute(2, 0, 1).unsqueeze(1)
        bias = self.optional_bias()
        result = depthwise_conv(value, weight, bias, operator.stride, padding, operator.dilation)
        return self.activated(result)


class DenseLayer(Layer):
    """weight (out, in); counted in float32 under autocast too: it is cheap, and the logits keep their digits."""

    def __init__(self, operator: Dense, inputs: Sequence[Shape]) -> None:
        super().__init__(operator, inputs)
        self.dropout = operator.dropout

    def forward(self, value: Tensor) -> Tensor:
        value = F.dropout(nhwc(value), self.dropout, self.training and self.dropout > 0)
        with torch.autocast(value.device.type, enabled=False):
            result = F.linear(widened(value), self.held("weight"), self.optional_bias())
        return self.activated(nchw(result))


class BatchNormLayer(Layer):
    """Batch statistics in training, over all processes together; running statistics otherwise."""

    def __init__(self, operator: BatchNorm, inputs: Sequence[Shape]) -> None:
        super().__init__(operator, inputs)
        self.epsilon, self.momentum = operator.epsilon, operator.momentum

    def forward(self, value: Tensor) -> Tensor:
        channels_second = value if value.dim() in (2, 4) else value.movedim(-1, 1)
        result = self._normalised(channels_second)
        return self.activated(result if value.dim() in (2, 4) else result.movedim(1, -1))

    def _normalised(self, value: Tensor) -> Tensor:
        names = ("mean", "variance", "gamma", "beta")
        mean, variance, gamma, beta = (self.held(name) for name in names)
        if self.training and processes() > 1:
            return batch_norm_over_processes(value, mean, variance, gamma, beta, self.momentum, self.epsilon)
        if self.training and value.numel() == value.shape[1]:
            raise TrainingError("a batch norm cannot learn from one value per channel; use a larger batch")
        return F.batch_norm(value, mean, variance, gamma, beta, self.training, self.momentum, self.epsilon)


class ActivationLayer(Layer):
    """Its input may be read by others too, so that it is not overwritten."""

    def forward(self, value: Tensor) -> Tensor:
        return self.activated(value if self.activation == "prelu" else value.clone())


class AddLayer(Layer):
    """The second input is left out for some samples in training (Huang et al. 2016, stochastic depth)."""

    def __init__(self, operator: Add, inputs: Sequence[Shape]) -> None:
        super().__init__(operator, inputs)
        self.drop_path = operator.drop_path

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        if self.training and self.drop_path > 0:
            kept = 1.0 - self.drop_path
            draws = torch.rand(second.shape[0], device=second.device) < kept
            gate = (draws / kept).to(second.dtype).view(-1, *[1] * (second.dim() - 1))
            second = second * gate
        return self.activated(first + second)


class MulLayer(Layer):
    """By a second input (squeeze-excite), or by a weight per channel (layer scale)."""

    def __init__(self, operator: Mul, inputs: Sequence[Shape]) -> None:
        super().__init__(operator, inputs)
        self.constant = operator.constant

    def forward(self, value: Tensor, gate: Tensor | None = None) -> Tensor:
        if gate is None:
            gate = _along_channels(self.held("weight"), value)
        return self.activated(value * gate.to(value.dtype))


class MeanLayer(Layer):
    """Mean over height and width, in float32."""

    def __init__(self, operator: Mean, inputs: Sequence[Shape]) -> None:
        super().__init__(operator, inputs)
        self.keep_axes = operator.keep_axes

    def forward(self, value: Tensor) -> Tensor:
        dtype = torch.promote_types(value.dtype, torch.float32)
        return value.mean((2, 3), keepdim=self.keep_axes, dtype=dtype)


class AveragePoolLayer(Layer):
    """Padding does not count as pixels."""

    def __init__(self, operator: AveragePool, inputs: Sequence[Shape]) -> None:
        super().__init__(operator, inputs)
        self.operator = operator

    def forward(self, value: Tensor) -> Tensor:
        kernel, stride = self.operator.kernel, self.operator.stride
        if not any(self.operator.padding):
            return self.activated(F.avg_pool2d(value, kernel, stride))
        top, bottom, left, right = self.operator.padding
        around = (left, right, top, bottom)
        pixels = F.pad(torch.ones_like(value[:1, :1]), around)
        sums = F.avg_pool2d(F.pad(value, around), kernel, stride)
        return self.activated(sums / F.avg_pool2d(pixels, kernel, stride))


class MaxPoolLayer(Layer):
    """Padding never wins."""

    def __init__(self, operator: MaxPool, inputs: Sequence[Shape]) -> None:
        super().__init__(operator, inputs)
        self.operator = operator

    def forward(self, value: Tensor) -> Tensor:
        top, bottom, left, right = self.operator.padding
        if any(self.operator.padding):
            value = F.pad(value, (left, right, top, bottom), value=float("-inf"))
        return self.activated(F.max_pool2d(value, self.operator.kernel, self.operator.stride))


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
        return torch.cat(values, _channel_axis(values[0]))


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


class MatMulLayer(Layer):
    """(batch, n, k) x (batch, k, m)."""

    def __init__(self, operator: MatMul, inputs: Sequence[Shape]) -> None:
        super().__init__(operator, inputs)
        self.transpose_second = operator.transpose_second

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.matmul(first, second.transpose(1, 2) if self.transpose_second else second)


class SoftmaxLayer(Layer):
    """Over the last axis of the graph's order."""

    def __init__(self, operator: Softmax, inputs: Sequence[Shape]) -> None:
        super().__init__(operator, inputs)
        self.beta = operator.beta

    def forward(self, value: Tensor) -> Tensor:
        return torch.softmax(value * self.beta if self.beta != 1.0 else value, _channel_axis(value))


class L2NormaliseLayer(Layer):
    """Counted in float32 under autocast too."""

    def __init__(self, operator: L2Normalise, inputs: Sequence[Shape]) -> None:
        super().__init__(operator, inputs)
        self.epsilon = operator.epsilon

    def forward(self, value: Tensor) -> Tensor:
        value = widened(value)
        squares = value.square().sum(_channel_axis(value), keepdim=True)
        return value * squares.clamp(min=self.epsilon).rsqrt()


class ArgMaxLayer(Layer):
    """int64; the lowest index wins."""

    def forward(self, value: Tensor) -> Tensor:
        return nchw(value.argmax(_channel_axis(value)))


LAYERS: dict[type[Operator], Callable[..., Layer]] = {
    Activation: ActivationLayer,
    Add: AddLayer,
    ArgMax: ArgMaxLayer,
    AveragePool: AveragePoolLayer,
    BatchNorm: BatchNormLayer,
    Concat: ConcatLayer,
    Conv: ConvLayer,
    Dense: DenseLayer,
    DepthwiseConv: DepthwiseConvLayer,
    L2Normalise: L2NormaliseLayer,
    MatMul: MatMulLayer,
    MaxPool: MaxPoolLayer,
    Mean: MeanLayer,
    Mul: MulLayer,
    Pad: PadLayer,
    Reshape: ReshapeLayer,
    Resize: ResizeLayer,
    Softmax: SoftmaxLayer,
    Transpose: TransposeLayer,
}


def layer(name: str, operator: Operator, inputs: Sequence[Shape]) -> Layer:
    """The layer of a float node; raises `UnsupportedOperatorError` naming the node if torch has none."""
    build = LAYERS.get(type(operator))
    if build is None:
        raise UnsupportedOperatorError(f"node '{name}': torch has no '{operator.kind}'; run it on the reference")
    return build(operator, inputs)

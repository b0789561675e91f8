"""What each operator does in torch: one small `nn.Module` per operator, with the meaning of `run/reference.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

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
    Reshape,
    Resize,
    Shape,
    Sides,
    Softmax,
    Transpose,
)
from mobilenet.run.torch_batch_norm import batch_norm_over_processes, processes, widened
from mobilenet.run.torch_depthwise import depthwise_conv
from mobilenet.run.torch_layer import Layer, along_channels, channel_axis, nchw, nhwc
from mobilenet.run.torch_shape_layers import ConcatLayer, PadLayer, ReshapeLayer, ResizeLayer, TransposeLayer


def _padded(value: Tensor, padding: Sides) -> tuple[Tensor, tuple[int, int]]:
    """`value` with what a symmetric padding cannot do already around it, and the padding that is left to do."""
    top, bottom, left, right = padding
    if top == bottom and left == right:
        return value, (top, left)
    return F.pad(value, (left, right, top, bottom)), (0, 0)


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
            gate = along_channels(self.held("weight"), value)
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
        return torch.softmax(value * self.beta if self.beta != 1.0 else value, channel_axis(value))


class L2NormaliseLayer(Layer):
    """Counted in float32 under autocast too."""

    def __init__(self, operator: L2Normalise, inputs: Sequence[Shape]) -> None:
        super().__init__(operator, inputs)
        self.epsilon = operator.epsilon

    def forward(self, value: Tensor) -> Tensor:
        value = widened(value)
        squares = value.square().sum(channel_axis(value), keepdim=True)
        return value * squares.clamp(min=self.epsilon).rsqrt()


class ArgMaxLayer(Layer):
    """int64; the lowest index wins."""

    def forward(self, value: Tensor) -> Tensor:
        return nchw(value.argmax(channel_axis(value)))


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

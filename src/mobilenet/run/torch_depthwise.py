"""Depthwise convolution whose backward pass is fast on CPUs where torch's own is not.

oneDNN has no fast kernel for the gradient of a strided depthwise convolution with respect to its input: in
bfloat16 that one step takes 20 to 100 times as long as the forward pass. It is the same sum as a depthwise
convolution without stride over the gradient with zeros in between, for which there is a fast kernel.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from mobilenet.graph.ops import Pair


class _StridedDepthwise(torch.autograd.Function):
    """(B, C, H, W) with weight (C * multiplier, 1, kernel height, kernel width)."""

    @staticmethod
    def forward(
        context: Any, value: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair
    ) -> Tensor:
        context.save_for_backward(value, weight)
        context.stride, context.padding, context.biased = stride, padding, bias is not None
        return F.conv2d(value, weight, bias, stride, padding, 1, value.shape[1])

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        value, weight = context.saved_tensors
        (gradient,) = gradients
        _, learns, biased = context.needs_input_grad[:3]
        by_value = _input_gradient(gradient, value, weight, context.stride, context.padding)
        _, by_weight, by_bias = torch.ops.aten.convolution_backward(
            gradient,
            value,
            weight,
            [weight.shape[0]] if context.biased else None,
            context.stride,
            context.padding,
            [1, 1],
            False,
            [0, 0],
            value.shape[1],
            [False, learns, biased],
        )
        return by_value, by_weight, by_bias, None, None


def _input_gradient(gradient: Tensor, value: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    (height, width), (kernel_height, kernel_width) = value.shape[2:], weight.shape[2:]
    size = (*gradient.shape[:2], height + kernel_height - 1, width + kernel_width - 1)
    spread = torch.empty(size, dtype=gradient.dtype, memory_format=torch.channels_last).zero_()
    top, left = kernel_height - 1 - padding[0], kernel_width - 1 - padding[1]
    rows, columns = gradient.shape[2:]
    spread[:, :, top : top + rows * stride[0] : stride[0], left : left + columns * stride[1] : stride[1]] = (
        gradient
    )
    return F.conv2d(spread, weight.flip(2, 3), groups=value.shape[1])


def depthwise_conv(
    value: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    """`torch.nn.functional.conv2d` with a group for each channel of `value`, in the dtype of autocast."""
    learns = torch.is_grad_enabled() and value.requires_grad
    if (
        value.device.type != "cpu"
        or not learns
        or not _has_fast_gradient(value, weight, stride, padding, dilation)
    ):
        return F.conv2d(value, weight, bias, stride, padding, dilation, value.shape[1])
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        value, weight = value.to(dtype), weight.to(dtype)
        bias = bias.to(dtype) if bias is not None else None
    return cast(Tensor, _StridedDepthwise.apply(value, weight, bias, stride, padding))  # type: ignore[no-untyped-call]


def _has_fast_gradient(value: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair) -> bool:
    inside = all(p < k for p, k in zip(padding, weight.shape[2:], strict=True))
    return stride != (1, 1) and dilation == (1, 1) and weight.shape[0] == value.shape[1] and inside

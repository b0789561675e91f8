"""Depthwise convolution that trains fast on CPUs where torch's own does not.

oneDNN (as of torch 2.13) lacks four fast kernels that MobileNets need, each of which would be a large part of
a training step; here the same sums are made of kernels that it has:

- the gradient by the input of a strided convolution (in bfloat16 20 to 100 times slower than the forward pass) is
  a convolution without stride over the gradient with zeros in between;
- the gradient by a 5 x 5 kernel in bfloat16 (30 times slower) is made of four gradients by 3 x 3 kernels;
- a dilated convolution (3 times slower, gradients included) is the same one without dilation on each of the maps
  of every d-th pixel, which lie in the batch meanwhile, as long as these are not tiny;
- a kernel that is larger than the map, most of whose taps only ever see padding, is cut to the taps that see it.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from mobilenet.graph.ops import Pair

HALF = (torch.bfloat16, torch.float16)
SMALLEST_MAP = 4  # side of the maps that a dilated convolution is split into


def depthwise_conv(
    value: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    """`torch.nn.functional.conv2d` with a group for each channel of `value`, in the dtype of autocast.

    Args:
        value: (B, C, H, W).
        weight: (C * multiplier, 1, kernel height, kernel width).
        bias: (C * multiplier), or none.
        stride, padding, dilation: vertical, horizontal; padding on both sides.
    """
    if value.device.type == "cpu" and _splits(value, weight, stride, padding, dilation):
        return _by_phases(value, weight, bias, padding, dilation)
    if value.device.type != "cpu" or dilation != (1, 1):
        return F.conv2d(value, weight, bias, stride, padding, dilation, value.shape[1])
    weight, padding = _without_idle_taps(value, weight, stride, padding)
    if value.dtype in HALF and _has_idle_tap(value, weight, stride, padding):
        biases = None if bias is None else bias.float()
        return depthwise_conv(value.float(), weight.float(), biases, stride, padding, dilation).to(value.dtype)
    if not (torch.is_grad_enabled() and _profits(value, weight, stride, padding)):
        return F.conv2d(value, weight, bias, stride, padding, 1, value.shape[1])
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        value, weight = value.to(dtype), weight.to(dtype)
        bias = bias.to(dtype) if bias is not None else None
    return cast(Tensor, _Depthwise.apply(value, weight, bias, stride, padding))  # type: ignore[no-untyped-call]


def _splits(value: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair) -> bool:
    """Whether it is dilated, learns, keeps the size of the map, and leaves maps of some size."""
    if dilation == (1, 1) or stride != (1, 1) or not torch.is_grad_enabled():
        return False
    axes = zip(value.shape[2:], weight.shape[2:], padding, dilation, strict=True)
    fits = all(k % 2 and 2 * p == d * (k - 1) and n >= SMALLEST_MAP * d for n, k, p, d in axes)
    return fits and (value.requires_grad or weight.requires_grad)


def _by_phases(value: Tensor, weight: Tensor, bias: Tensor | None, padding: Pair, dilation: Pair) -> Tensor:
    """Each tap of a dilated kernel sees pixels of one phase alone: (B, C, H, W) is (d d B, C, H / d, W / d)."""
    (batch, channels, height, width), (down, across) = value.shape, dilation
    whole = F.pad(value, (0, -width % across, 0, -height % down))
    rows, columns = whole.shape[2] // down, whole.shape[3] // across
    split = whole.reshape(batch, channels, rows, down, columns, across).permute(3, 5, 0, 1, 2, 4)
    split = split.reshape(-1, channels, rows, columns).contiguous(memory_format=torch.channels_last)
    inner = (padding[0] // down, padding[1] // across)
    result = depthwise_conv(split, weight, bias, (1, 1), inner, (1, 1))
    joined = result.reshape(down, across, batch, -1, rows, columns).permute(2, 3, 4, 0, 5, 1)
    joined = joined.reshape(batch, -1, rows * down, columns * across)[:, :, :height, :width]
    return joined.contiguous(memory_format=torch.channels_last)


def _profits(value: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> bool:
    inside = all(p < k for p, k in zip(padding, weight.shape[2:], strict=True))
    learns = value.requires_grad or weight.requires_grad
    return learns and inside and weight.shape[0] == value.shape[1] and (stride != (1, 1) or _is_5x5(weight))


def _is_5x5(weight: Tensor) -> bool:
    return tuple(weight.shape[2:]) == (5, 5)


def _without_idle_taps(value: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> tuple[Tensor, Pair]:
    """The kernel and padding without rows and columns of taps that see nothing but padding."""
    spans = [
        _useful_taps(n, k, s, p)
        for n, k, s, p in zip(value.shape[2:], weight.shape[2:], stride, padding, strict=True)
    ]
    (top, bottom, above), (left, right, before) = spans
    return weight[:, :, top:bottom, left:right], (above, before)


def _has_idle_tap(value: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> bool:
    """Whether a tap sees nothing but padding still, as between two outputs of a tiny map.

    oneDNN leaves the gradient of such a tap as it finds it in memory, if numbers are half as long.
    """
    axes = zip(value.shape[2:], weight.shape[2:], stride, padding, strict=True)
    return any(size < kernel and not _all_see(size, kernel, step, before) for size, kernel, step, before in axes)


def _all_see(size: int, kernel: int, stride: int, padding: int) -> bool:
    starts = range(-padding, size + padding - kernel + 1, stride)  # of the outputs' windows
    return all(any(0 <= start + tap < size for start in starts) for tap in range(kernel))


def _useful_taps(size: int, kernel: int, stride: int, padding: int) -> tuple[int, int, int]:
    """Along one axis: the first useful tap, one past the last, and the padding that is left."""
    outputs = (size + 2 * padding - kernel) // stride + 1
    first = max(0, padding - (outputs - 1) * stride)
    end = min(kernel, size + padding)
    left = padding - first
    some = first < end  # else every tap sees nothing but padding
    same = some and left >= 0 and (size + 2 * left - (end - first)) // stride + 1 == outputs
    return (first, end, left) if same else (0, kernel, padding)


class _Depthwise(torch.autograd.Function):
    """With one filter a channel; gradients by the kernels that oneDNN is good at."""

    @staticmethod
    def forward(
        context: Any, value: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair
    ) -> Tensor:
        context.save_for_backward(value, weight)
        context.stride, context.padding = stride, padding
        return F.conv2d(value, weight, bias, stride, padding, 1, value.shape[1])

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        value, weight = context.saved_tensors
        (gradient,) = gradients
        by_value, by_weight, by_bias = context.needs_input_grad[:3]
        arguments = (gradient, value, weight, context.stride, context.padding)
        return (
            _input_gradient(*arguments) if by_value else None,
            _weight_gradient(*arguments) if by_weight else None,
            gradient.sum((0, 2, 3)) if by_bias else None,
            None,
            None,
        )


def _input_gradient(gradient: Tensor, value: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    if stride == (1, 1):
        return _torch_gradient(gradient, value, weight, stride, padding, by_weight=False)
    (height, width), (kernel_height, kernel_width) = value.shape[2:], weight.shape[2:]
    size = (*gradient.shape[:2], height + kernel_height - 1, width + kernel_width - 1)
    spread = torch.empty(size, dtype=gradient.dtype, memory_format=torch.channels_last).zero_()
    top, left = kernel_height - 1 - padding[0], kernel_width - 1 - padding[1]
    bottom, right = (start + n * s for start, n, s in zip((top, left), gradient.shape[2:], stride, strict=True))
    spread[:, :, top : bottom : stride[0], left : right : stride[1]] = gradient
    return F.conv2d(spread, weight.flip(2, 3), groups=value.shape[1])


def _weight_gradient(gradient: Tensor, value: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    if not (_is_5x5(weight) and value.dtype in HALF):
        return _torch_gradient(gradient, value, weight, stride, padding, by_weight=True)
    (rows, columns), (vertical, horizontal) = gradient.shape[2:], stride
    height, width = (rows - 1) * vertical + 3, (columns - 1) * horizontal + 3  # what 3 x 3 kernels see
    padded = F.pad(value, (padding[1], padding[1], padding[0], padding[0]))
    part, result = weight[:, :, :3, :3].contiguous(), torch.empty_like(weight)
    for top in (0, 2):
        for left in (0, 2):
            seen = padded[:, :, top : top + height, left : left + width]
            seen = seen.contiguous(memory_format=torch.channels_last)
            piece = _torch_gradient(gradient, seen, part, stride, (0, 0), by_weight=True)
            result[:, :, top : top + 3, left : left + 3] = piece
    return result


def _torch_gradient(
    gradient: Tensor, value: Tensor, weight: Tensor, stride: Pair, padding: Pair, *, by_weight: bool
) -> Tensor:
    found = torch.ops.aten.convolution_backward(
        gradient,
        value,
        weight,
        None,
        stride,
        padding,
        (1, 1),
        False,
        (0, 0),
        value.shape[1],
        [not by_weight, by_weight, False],
    )
    return cast(Tensor, found[1 if by_weight else 0])

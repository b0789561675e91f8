"""Dilated depthwise convolutions as they are trained on a CPU: the same sums as torch's own."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
import torch.nn.functional as F

from mobilenet.run.torch_depthwise import depthwise_conv


@pytest.mark.parametrize("size", [(20, 20), (21, 19), (8, 33)])
@pytest.mark.parametrize(
    ("kernel", "dilation"), [(3, (2, 2)), (5, (2, 2)), (3, (4, 1)), (3, (12, 12)), (1, (2, 2))]
)
@pytest.mark.parametrize("multiplier", [1, 2])
def test_dilated(size: tuple[int, int], kernel: int, dilation: tuple[int, int], multiplier: int) -> None:
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(2, 3, *size, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3 * multiplier, 1, kernel, kernel, generator=generator, dtype=torch.float64)
    weight.requires_grad_()
    bias = torch.randn(3 * multiplier, generator=generator, dtype=torch.float64, requires_grad=True)
    padding = (dilation[0] * (kernel - 1) // 2, dilation[1] * (kernel - 1) // 2)
    wanted = F.conv2d(value, weight, bias, 1, padding, dilation, 3)
    found = depthwise_conv(value, weight, bias, (1, 1), padding, dilation)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    gradient = torch.randn(wanted.shape, generator=generator, dtype=torch.float64)
    expected = torch.autograd.grad(wanted, (value, weight, bias), gradient)
    for ours, theirs in zip(torch.autograd.grad(found, (value, weight, bias), gradient), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_dilation_with_other_padding_or_stride() -> None:
    """What is not split into phases; padding on one side alone is the layer's own matter."""
    value = torch.randn(1, 4, 20, 20, generator=torch.Generator().manual_seed(1), requires_grad=True)
    weight = torch.randn(4, 1, 3, 3, generator=torch.Generator().manual_seed(2))
    for stride, padding in (((2, 2), (2, 2)), ((1, 1), (0, 0)), ((1, 1), (1, 2))):
        wanted = F.conv2d(value, weight, None, stride, padding, (2, 2), 4)
        torch.testing.assert_close(depthwise_conv(value, weight, None, stride, padding, (2, 2)), wanted)

"""Batch norm whose batch statistics are those of the batches of all processes together.

torch's own `SyncBatchNorm` works on GPUs only; this one is made of plain operations, for gloo on the CPU too.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from mobilenet.errors import TrainingError


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def widened(value: Tensor) -> Tensor:
    """At least float32."""
    return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value


class _SumOverProcesses(torch.autograd.Function):
    """Sum over all processes; its gradient is the sum of the processes' gradients."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:  # noqa: ARG004
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def sum_over_processes(value: Tensor) -> Tensor:
    """The differentiable sum of every process's `value`, the same in all of them."""
    return cast(Tensor, _SumOverProcesses.apply(value))  # type: ignore[no-untyped-call]


def batch_norm_over_processes(
    value: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor,
    beta: Tensor,
    momentum: float,
    epsilon: float,
) -> Tensor:
    """`torch.nn.functional.batch_norm` in training mode, over the batches of all processes.

    `value` is (batch, channels, ...), any float dtype, counted in float32; `mean` and `variance`, (channels),
    are updated in place, the variance with its unbiased estimate as torch does.

    Raises:
        TrainingError: there is one value per channel only.
    """
    axes = [axis for axis in range(value.dim()) if axis != 1]
    shape = [1, -1, *[1] * (value.dim() - 2)]
    wide = widened(value)
    count = _count_over_processes(wide)
    centre = sum_over_processes(wide.sum(axes)) / count
    shifted = wide - centre.view(shape)
    spread = sum_over_processes(shifted.square().sum(axes)) / count
    with torch.no_grad():
        mean.lerp_(centre, momentum)
        variance.lerp_(spread * (count / (count - 1)), momentum)
    scale = (spread + epsilon).rsqrt() * gamma
    return (shifted * scale.view(shape) + beta.view(shape)).to(value.dtype)


def _count_over_processes(value: Tensor) -> float:
    """Values per channel in all processes."""
    count = torch.tensor(float(value.numel() // value.shape[1]), device=value.device)
    dist.all_reduce(count)
    if count.item() <= 1:
        raise TrainingError("a batch norm cannot learn from one value per channel; use a larger batch")
    return count.item()

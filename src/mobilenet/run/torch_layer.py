"""The base of all layers of `run/torch_layers.py`: parameters in the graph's own layout, axes, activations.

A value whose shape is (height, width, channels) flows as (batch, channels, height, width) in channels_last
memory, which is NHWC in memory; every other value flows as (batch, *shape).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobilenet.graph.ops import Operator, Parameter, Shape

SLIM_SIXTH = 0.16667  # TF-slim's constant in place of 1 / 6


def nhwc(value: Tensor) -> Tensor:
    """A value with its axes in the graph's order: (batch, height, width, channels) if it is a picture."""
    return value.permute(0, 2, 3, 1) if value.dim() == 4 else value


def nchw(value: Tensor) -> Tensor:
    """The inverse of `nhwc`: no copy, so a contiguous NHWC tensor is channels_last for free."""
    return value.permute(0, 3, 1, 2) if value.dim() == 4 else value


def channel_axis(value: Tensor) -> int:
    return 1 if value.dim() == 4 else -1


def along_channels(parameter: Tensor, value: Tensor) -> Tensor:
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

"""Integers imitated in float32, so that gradients pass: the pieces of quantisation-aware training.

A value flows as *steps*, whole numbers q - zero held in float32, beside its scale. Sums of products of steps are
whole numbers too, and float32 adds those exactly up to 2^24, so a layer gives the integers of
`run/reference_integer.py` and not something near them.

Rounding has no gradient; here it passes the gradient on as if it were not there (Bengio et al. 2013). Scales are
tensors in the same expressions, so their gradients are those of LSQ (Esser et al. 2020): what is clipped pulls the
end that clips it, what is not pulls the scale by its own rounding error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

STEPS = 255  # from the lowest to the highest integer of a value
LEVELS = 127  # of a weight, either way
NARROWEST = 1e-8  # the smallest range


@dataclass(frozen=True)
class Scale:
    """What the integers of a value stand for: scale * (q - zero), q from 0 to 255.

    Attributes:
        scale: float32, no axes.
        zero: a whole number as float32, no axes.
    """

    scale: Tensor
    zero: Tensor

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """The lowest and highest steps."""
        return -self.zero, STEPS - self.zero


def scale_of(low: Tensor, high: Tensor) -> Scale:
    """The scale and zero point of a range that holds 0; the same numbers as `quantise.integer.quantisation_of`.

    Args:
        low, high: float64, no axes; gradients reach them.
    """
    scale = ((high - low).clamp(min=NARROWEST) / STEPS).float()
    zero = whole(-low / scale.double()).clamp(0, STEPS).float()
    return Scale(scale, zero)


def whole(value: Tensor) -> Tensor:
    """Rounded to the nearest, ties to even, with the gradient of no rounding."""
    return value + (value.round() - value).detach()


def requantise(total: Tensor, multiplier: Tensor, bounds: tuple[Tensor, Tensor]) -> Tensor:
    """Rule 2: clamp(rint(total * multiplier)), float32 of the shape of `total`.

    Args:
        total: float32, whole numbers or not.
        multiplier: float32, no axes or one for each channel, shaped so that it broadcasts.
        bounds: float32, no axes; an end that clips gets the gradient of what it clips.
    """
    result = _Requantise.apply(total, multiplier, *bounds)  # type: ignore[no-untyped-call]
    return cast(Tensor, result)


class _Requantise(torch.autograd.Function):
    """In one piece, because what autograd would keep and count for the same is twice as much."""

    @staticmethod
    def forward(ctx: Any, total: Tensor, multiplier: Tensor, low: Tensor, high: Tensor) -> Tensor:
        rounded = (total * multiplier).round_()
        ctx.save_for_backward(total, multiplier, rounded > high, rounded < low)
        return rounded.clamp_(float(low), float(high))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        total, multiplier, above, below = ctx.saved_tensors
        needs = ctx.needs_input_grad
        passed = gradient.masked_fill(above | below, 0.0)
        by_multiplier = (passed * total).sum_to_size(multiplier.shape) if needs[1] else None
        by_low = (gradient * below).sum() if needs[2] else None
        by_high = (gradient * above).sum() if needs[3] else None
        return passed.mul_(multiplier), by_multiplier, by_low, by_high


def clamped(steps: Tensor, bounds: tuple[Tensor, Tensor]) -> Tensor:
    """Steps that are whole already, within the bounds."""
    return torch.minimum(torch.maximum(steps, bounds[0]), bounds[1])


def half_up(steps: Tensor) -> Tensor:
    """Rounded to the nearest, halves up, with the gradient of no rounding (rules 6 and 7)."""
    return steps + ((steps + 0.5).floor() - steps).detach()


def weight_steps(weight: Tensor, scale: Tensor) -> Tensor:
    """The integers of weights as float32.

    Args:
        weight: float32, any shape.
        scale: float32, shaped so that it broadcasts over the weight.
    """
    return whole((weight.double() / scale.double()).clamp(-LEVELS, LEVELS)).float()


def bias_steps(bias: Tensor, scale_in: Tensor, scale: Tensor, room: int) -> Tensor:
    """The int32 of a bias as float32 (channels).

    Args:
        bias: float32 (channels).
        scale_in, scale: float32, of the input (no axes) and the weights (channels).
        room: the largest integer.
    """
    unit = scale_in.double() * scale.double()
    return whole((bias.double() / unit).clamp(-room, room)).float()

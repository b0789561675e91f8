"""What quantising within a budget may be told."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mobilenet.errors import ArgumentError
from mobilenet.quantise.methods import METHODS, PERCENTILE, check_method

AUTO = "auto"


@dataclass(frozen=True)
class QuantiseOptions:
    """How a model is quantised and how much worse it may become.

    Attributes:
        method: how ranges are chosen: min-max, moving-average, percentile, mse, entropy; auto tries all.
        percentile: of the method of that name.
        max_drop: by how much the measure (0..1) may fall on held-out pictures. 1 accepts anything.
        pictures: how many to calibrate on, at most.
        held_out: how many others to measure on, at most.
        equalise: cross-layer equalisation; None tries with and without.
        compensate: weights that make up for each other's rounding; None tries with and without.
        correct_bias: bias correction; None tries with and without.
        max_float: which share of the multiply-accumulates may stay in float to keep within the budget.
        seed: which pictures are drawn, and what training with rounding draws.
        qat_epochs: how often training with rounding sees the pictures, if the budget breaks without; 0 is never.

    Raises:
        ArgumentError: a value is out of its range.
    """

    method: str = AUTO
    percentile: float = PERCENTILE
    max_drop: float = 0.01
    pictures: int = 64
    held_out: int = 500
    equalise: bool | None = None
    correct_bias: bool | None = None
    compensate: bool | None = None
    max_float: float = 0.25
    seed: int = 0
    qat_epochs: int = 0

    def __post_init__(self) -> None:
        if self.method not in (*METHODS, AUTO):
            raise ArgumentError(f"method is one of {', '.join((*METHODS, AUTO))}, not {self.method!r}")
        check_method(METHODS[0], self.percentile)
        for name in ("max_drop", "max_float"):
            if not 0 <= getattr(self, name) <= 1:
                raise ArgumentError(f"{name} is {getattr(self, name)}: it is a share from 0 to 1")
        for name in ("pictures", "held_out"):
            if getattr(self, name) < 1:
                raise ArgumentError(f"{name} is {getattr(self, name)}: at least 1 is needed")
        if self.qat_epochs < 0:
            raise ArgumentError(f"qat_epochs is {self.qat_epochs}: it is a whole number from 0")

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods to try."""
        return METHODS if self.method == AUTO else (self.method,)

    @property
    def needed(self) -> int:
        """How many held-out pictures can tell this drop from none: one of them weighs no more than the budget."""
        return min(math.ceil(1 / self.max_drop - 1e-9), MOST_NEEDED) if self.max_drop else MOST_NEEDED


MOST_NEEDED = 100

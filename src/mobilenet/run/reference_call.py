"""What the reference hands to the rule of one operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from mobilenet.errors import UnsupportedOperatorError
from mobilenet.graph.graph import TensorType
from mobilenet.graph.ops import Operator

Array = NDArray[Any]


@dataclass(frozen=True)
class Call:
    """One node at work: arrays (N, ...) with their types, its parameters by name, and the type it writes."""

    name: str
    operator: Operator
    inputs: list[Array]
    types: list[TensorType]
    parameters: dict[str, Array]
    output: TensorType

    @property
    def first(self) -> Array:
        """The first input."""
        return self.inputs[0]

    def unsupported(self, what: str) -> UnsupportedOperatorError:
        """The error that the reference has no rule for `what`."""
        return UnsupportedOperatorError(f"node '{self.name}' ({self.operator.kind}): reference has no {what}")


Rule = Callable[[Any, Call], Array]  # (the operator with its own type, the call) -> (N, ...)

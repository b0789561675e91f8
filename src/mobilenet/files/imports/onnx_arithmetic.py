"""Add, Sub, Mul, Div and their like in an ONNX file: of two values, with a constant, or as part of an activation.

Older exporters write an activation as several operators: h-swish as x * Clip(x + 3, 0, 6) / 6, and GELU as
x * (1 + Erf(x / sqrt(2))) / 2. What is not yet whole is a `Pending` value, which the next operator completes.
"""

from __future__ import annotations

from dataclasses import replace
from math import isclose, prod
from typing import Any

import numpy as np

from mobilenet.errors import UnsupportedOperatorError
from mobilenet.files.imports.onnx_graph import INPUT, Conversion, Pending, Value, title
from mobilenet.graph import ops

SLIM_SIXTH = 0.16667  # TF-slim's constant in the place of 1/6
# What a multiplication makes of a pending part: (kind, factor) -> activation.
_COMPLETED = (
    ("clip", 1 / 6, "hard_sigmoid"),
    ("clip", SLIM_SIXTH, "hard_sigmoid_slim"),
    ("product", 1 / 6, "hard_swish"),
    ("erf_product", 0.5, "gelu"),
)


def binary(conversion: Conversion, node: Any) -> None:
    """Add, Sub, Mul or Div."""
    constants = [conversion.constant(name) for name in node.input[:2]]
    if len(node.input) != 2 or all(array is not None for array in constants):
        raise UnsupportedOperatorError(f"{title(node)} is of constants alone, or not of two values")
    if constants[0] is None and constants[1] is None:
        conversion.write(node, _of_two(conversion, node))
        return
    position = 0 if constants[0] is None else 1
    if position == 1 and node.op_type in ("Sub", "Div"):
        raise UnsupportedOperatorError(f"{title(node)} is a constant minus or over a value")
    numbers = conversion.weight(node, 1 - position).astype(np.float64)
    found = conversion.read(node.input[position])
    if node.op_type == "Div" and not numbers.all():
        raise UnsupportedOperatorError(f"{title(node)} divides by zero")
    numbers = -numbers if node.op_type == "Sub" else 1 / numbers if node.op_type == "Div" else numbers
    conversion.write(node, _with_constant(conversion, node, found, numbers))


def _with_constant(
    conversion: Conversion, node: Any, found: Value | Pending, numbers: np.ndarray
) -> Value | Pending:
    """found * numbers or found + numbers."""
    multiplies = node.op_type in ("Mul", "Div")
    if isinstance(found, Pending) and numbers.size == 1:
        number = float(numbers.ravel()[0])
        completed = _completed(conversion, node, found, number, multiplies)
        if completed is not None:
            return completed
    value = found if isinstance(found, Value) else conversion.finished(node, found)
    if value.name == INPUT and _on_pixels(conversion, node, numbers, multiplies):
        return value
    channels = value.shape[-1]
    if numbers.size == 1:
        return Pending("scaled" if multiplies else "plus", value, float(numbers.ravel()[0]))
    if numbers.size != channels or not _by_channel(numbers.shape, value):
        raise UnsupportedOperatorError(f"{title(node)} has a constant of shape {numbers.shape}, not one a channel")
    before = conversion.node_of(value)
    if not multiplies and before is not None and _takes_bias(before.operator):
        operator = replace(before.operator, bias=True)  # type: ignore[call-arg]
        conversion.nodes[before.name] = replace(before, operator=operator)
        conversion.set_weight(f"{before.name}.bias", numbers.ravel())
        if node.op_type == "Add":
            position = 0 if conversion.constant(node.input[0]) is not None else 1
            conversion.set_parts(value, bias=(node.input[position], np.ravel, 0))
        return value
    return conversion.affine(node, value, numbers.ravel(), multiply=multiplies)


def _completed(
    conversion: Conversion, node: Any, found: Pending, number: float, multiplies: bool
) -> Value | Pending | None:
    """What a number makes of a part of an activation; none if that is no activation."""
    if multiplies:
        for kind, factor, activation in _COMPLETED:
            if found.kind == kind and isclose(number, factor, rel_tol=1e-6):
                return conversion.activate(node, found.base, activation, alone=kind != "clip")
        if found.kind == "scaled":
            return replace(found, number=found.number * number)
    elif found.kind == "erf" and number == 1:
        return replace(found, kind="erf_plus_1")
    return None


def _on_pixels(conversion: Conversion, node: Any, numbers: np.ndarray, multiplies: bool) -> bool:
    """Arithmetic on the input itself is preprocessing, and becomes part of the model's own.

    Only where nothing else reads the input, so that all of the network sees the result.
    """
    channels = conversion.inputs[INPUT].shape[-1]
    if numbers.size not in (1, channels) or any(conversion.readers[name] > 1 for name in conversion.input_names):
        return False
    scale, shift = conversion.scale, conversion.shift
    row = numbers.ravel()
    conversion.scale = scale * row if multiplies else scale
    conversion.shift = shift * row if multiplies else shift + row
    conversion.normalises = True
    conversion.input_names.add(node.output[0])
    return True


def _by_channel(shape: tuple[int, ...], value: Value) -> bool:
    """Whether a constant of this shape holds a number for each channel, as ONNX broadcasts it."""
    if value.first:
        return shape[-2:] == (1, 1) and prod(shape[:-2]) == shape[-3]
    return prod(shape) == shape[-1]


def _takes_bias(operator: ops.Operator) -> bool:
    linear = isinstance(operator, ops.Conv | ops.DepthwiseConv | ops.Dense)
    return linear and not getattr(operator, "bias", True) and getattr(operator, "activation", "") == "none"


def _of_two(conversion: Conversion, node: Any) -> Value | Pending:
    first, second = (conversion.read(name) for name in node.input)
    if node.op_type == "Mul":
        for part, other in ((first, second), (second, first)):
            whole = _product(conversion, node, part, other)
            if whole is not None:
                return whole
    if node.op_type not in ("Add", "Mul"):
        raise UnsupportedOperatorError(f"{title(node)} is of two computed values; Add and Mul are supported")
    left, right = conversion.value(node, 0), conversion.value(node, 1)
    if node.op_type == "Mul" and prod(left.shape) < prod(right.shape):  # a gate may stand on either side
        left, right = right, left
    if left.first != right.first and prod(right.shape[:-1]) != 1 and len(left.shape) == 3:
        raise UnsupportedOperatorError(f"{title(node)} is of values with their channels at different places")
    operator = ops.Add() if node.op_type == "Add" else ops.Mul()
    return conversion.add(node, operator, left, right, first=left.first)


def _product(
    conversion: Conversion, node: Any, part: Value | Pending, other: Value | Pending
) -> Value | Pending | None:
    """x times a part of an activation of the same x, or h-swish as x * HardSigmoid(x); none if it is neither."""
    if isinstance(part, Pending) and isinstance(other, Value) and part.base.name == other.name:
        kind = {"clip": "product", "erf_plus_1": "erf_product"}.get(part.kind)
        return replace(part, kind=kind) if kind else None
    if isinstance(part, Pending) and isinstance(other, Pending) and part.kind == "erf_plus_1":
        halved = other.kind == "scaled" and other.number == 0.5 and other.base.name == part.base.name
        return conversion.activate(node, other.base, "gelu", alone=True) if halved else None
    if not isinstance(part, Value) or not isinstance(other, Value):
        return None
    gate = conversion.node_of(part)
    if gate is None or gate.operator != ops.Activation("hard_sigmoid") or gate.inputs != (other.name,):
        return None
    del conversion.nodes[gate.name]
    only_these = conversion.readers[conversion.made.get(other.name, "")] == 2
    return conversion.activate(node, other, "hard_swish", alone=only_these)


def erf(conversion: Conversion, node: Any) -> None:
    """Erf of x / sqrt(2), the beginning of GELU."""
    found = conversion.read(node.input[0])
    if (
        not isinstance(found, Pending)
        or found.kind != "scaled"
        or not isclose(found.number, 0.5**0.5, rel_tol=1e-6)
    ):
        raise UnsupportedOperatorError(f"{title(node)} is not part of GELU")
    conversion.write(node, replace(found, kind="erf"))


def minimum_maximum(conversion: Conversion, node: Any) -> None:
    """Max(x, 0) is ReLU, and Min of that and 6 is ReLU6."""
    numbers = conversion.weight(node, 1).ravel() if len(node.input) == 2 else np.zeros(0)
    if numbers.size != 1 or numbers[0] != (0 if node.op_type == "Max" else 6):
        raise UnsupportedOperatorError(f"{title(node)} is no activation")
    value = conversion.value(node)
    before = conversion.node_of(value)
    if node.op_type == "Max":
        conversion.write(node, conversion.activate(node, value, "relu"))
    elif before is not None and getattr(before.operator, "activation", "") == "relu":
        operator = replace(before.operator, activation="relu6")  # type: ignore[call-arg]
        conversion.nodes[before.name] = replace(before, operator=operator)
        conversion.write(node, value)
    else:
        raise UnsupportedOperatorError(f"{title(node)} is no activation")

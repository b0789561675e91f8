"""ONNX operators that only move or reorder elements: reshapes, transpositions, concatenation.

ONNX's order of a picture's elements is channels, height, width, the graph's is height, width, channels: where the
two differ, a transposition comes between.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

from mobilenet.errors import ModelFileError, UnsupportedOperatorError
from mobilenet.files.imports.onnx_graph import Conversion, Value, attributes, title
from mobilenet.graph import ops


def flatten(conversion: Conversion, node: Any) -> None:
    """Flatten behind the batch."""
    if attributes(node).get("axis", 1) != 1:
        raise UnsupportedOperatorError(f"{title(node)} flattens the batch")
    value = conversion.value(node)
    conversion.write(node, _reshaped(conversion, node, value, (prod(value.shape),)))


def _reshaped(conversion: Conversion, node: Any, value: Value, shape: ops.Shape) -> Value:
    """In ONNX's order of elements; a mean that only loses its axes stays one node."""
    value = conversion.plain(node, value)
    if value.shape == shape:
        return value
    before = conversion.node_of(value)
    if before is not None and before.operator == ops.Mean(keep_axes=True) and shape == value.shape[:1]:
        conversion.nodes[before.name] = replace(before, operator=ops.Mean())
        return Value(value.name, shape)
    return conversion.add(node, ops.Reshape(shape), value)


def reshape(conversion: Conversion, node: Any) -> None:
    """Reshape to a constant shape."""
    value = conversion.value(node)
    wanted = conversion.integers(node, 1, "shape") or []
    before = onnx_shape(value)
    sizes = [before[place] if size == 0 and place < len(before) else size for place, size in enumerate(wanted)]
    if not sizes or (sizes[0] not in (1, -1, conversion.batch) and wanted[0] != 0):
        raise UnsupportedOperatorError(f"{title(node)} reshapes the batch: {wanted}")
    known = prod(size for size in sizes[1:] if size != -1)
    shape = tuple(prod(value.shape) // max(known, 1) if size == -1 else size for size in sizes[1:])
    if prod(shape) != prod(value.shape) or min(shape, default=1) < 1:
        raise ModelFileError(f"{title(node)} makes {wanted} of {before}")
    conversion.write(node, _with_axes(conversion, node, value, shape))


def _with_axes(conversion: Conversion, node: Any, value: Value, shape: ops.Shape) -> Value:
    """A reshape; one pixel with its channels first stays a picture."""
    if len(shape) == 3 and shape[1:] == (1, 1):
        if value.shape == (1, 1, shape[0]):
            return replace(value, first=True)
        plain = conversion.plain(node, value)
        return conversion.add(node, ops.Reshape((1, 1, shape[0])), plain, first=True)
    return _reshaped(conversion, node, value, shape)


def onnx_shape(value: Value) -> ops.Shape:
    """The shape that a value has in the ONNX file; the batch counts as 1."""
    shape = value.shape
    return (1, shape[2], *shape[:2]) if value.first else (1, *shape)


def squeeze(conversion: Conversion, node: Any) -> None:
    """Squeeze of axes of one element."""
    value = conversion.value(node)
    shape = onnx_shape(value)
    given = conversion.integers(node, 1, "axes")
    axes = (
        {axis % len(shape) for axis in given} if given else {n for n, size in enumerate(shape) if n and size == 1}
    )
    if 0 in axes or any(shape[axis] != 1 for axis in axes):
        raise UnsupportedOperatorError(f"{title(node)} squeezes the axes {sorted(axes)} of {shape}")
    kept = tuple(size for axis, size in enumerate(shape) if axis and axis not in axes)
    conversion.write(node, _with_axes(conversion, node, value, kept))


def unsqueeze(conversion: Conversion, node: Any) -> None:
    """Unsqueeze by axes of one element."""
    value = conversion.value(node)
    shape = list(onnx_shape(value))
    axes = conversion.integers(node, 1, "axes") or []
    for axis in sorted(axis % (len(shape) + len(axes)) for axis in axes):
        shape.insert(axis, 1)
    if len(shape) > 4 or not axes:
        raise UnsupportedOperatorError(f"{title(node)} makes {shape} of a value")
    conversion.write(node, _with_axes(conversion, node, value, tuple(shape[1:])))


def transpose(conversion: Conversion, node: Any) -> None:
    """Transpose behind the batch; channels that only change their place cost nothing."""
    value, axes = conversion.value(node), list(attributes(node).get("perm", ()))
    if sorted(axes) != list(range(1 + len(value.shape))) or axes[0] != 0:
        raise UnsupportedOperatorError(f"{title(node)} moves the batch, or has axes {axes}")
    ours = (
        (2, 0, 1) if value.first else tuple(range(len(value.shape)))
    )  # where our graph has ONNX's axes 1, 2, ...
    moved = tuple(ours[axis - 1] for axis in axes[1:])
    same = tuple(range(len(moved)))
    if moved == same:
        conversion.write(node, Value(value.name, value.shape))
    elif len(moved) == 3 and (moved[1], moved[2], moved[0]) == same:
        conversion.write(node, Value(value.name, value.shape, first=True))
    else:
        conversion.write(node, conversion.add(node, ops.Transpose(moved), value))


def concat(conversion: Conversion, node: Any) -> None:
    """Concat along the channels."""
    values = [conversion.value(node, position) for position in range(len(node.input))]
    rank = 1 + len(values[0].shape)
    axis = attributes(node).get("axis", 0) % rank
    if len({value.first for value in values}) != 1 or axis != (1 if values[0].first else rank - 1):
        raise UnsupportedOperatorError(f"{title(node)} is along axis {axis}; only that of channels is supported")
    conversion.write(node, conversion.add(node, ops.Concat(), *values, first=values[0].first))

"""What an ONNX file computes from shapes and constants alone: exporters count paddings and sizes in the graph.

Only small arrays are computed so, and the batch counts as one picture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mobilenet.errors import ModelFileError
from mobilenet.files.imports.onnx_graph import Conversion, Pending, Value, attributes, title

MAX_VALUES = 4096
Arrays = list[np.ndarray]


def folded(conversion: Conversion, node: Any) -> bool:
    """Whether a node is of constants alone; then what it gives is one too.

    Raises:
        ModelFileError: its constants do not fit together.
    """
    if node.op_type == "Shape":
        found = conversion.constant(node.input[0])
        shape = found.shape if found is not None else _shape(conversion.read(node.input[0]))
        given = attributes(node)
        conversion.constants[node.output[0]] = np.array(shape)[given.get("start", 0) : given.get("end")]
        return True
    if node.op_type not in _RULES or not node.input:
        return False
    arrays = [conversion.constant(name) for name in node.input if name]
    known = [array for array in arrays if array is not None and array.size <= MAX_VALUES]
    if len(known) != len(arrays):
        return False
    try:
        result = np.asarray(_RULES[node.op_type](known, attributes(node)))
    except (ValueError, IndexError, TypeError, OverflowError, ZeroDivisionError, FloatingPointError) as error:
        raise ModelFileError(f"{title(node)} has constants that do not fit: {error}") from error
    conversion.constants[node.output[0]] = result
    return True


def _shape(value: Value | Pending) -> tuple[int, ...]:
    """The shape that a value has in the file."""
    shape, first = (value.shape, value.first) if isinstance(value, Value) else (value.base.shape, value.base.first)
    if isinstance(value, Pending):
        top, bottom, left, right = value.sides
        shape = (shape[0] + top + bottom, shape[1] + left + right, *shape[2:]) if any(value.sides) else shape
    return (1, shape[2], shape[0], shape[1]) if first else (1, *shape)


def _slice(arrays: Arrays, given: dict[str, Any]) -> np.ndarray:
    data, *rest = arrays
    starts, ends = (rest[n].ravel() if n < len(rest) else given[name] for n, name in enumerate(("starts", "ends")))
    axes = rest[2].ravel() if len(rest) > 2 else given.get("axes", range(len(starts)))
    steps = rest[3].ravel() if len(rest) > 3 else [1] * len(starts)
    index = [slice(None)] * data.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        index[int(axis)] = slice(int(start), int(end), int(step))
    return data[tuple(index)]


def _constant_of_shape(arrays: Arrays, given: dict[str, Any]) -> np.ndarray:
    shape = tuple(int(size) for size in arrays[0].ravel())
    if min(shape, default=1) < 0 or len(shape) > 4 or np.prod(shape, dtype=np.float64) > MAX_VALUES:
        raise ValueError(f"a constant of shape {shape}")
    value = given.get("value")
    if value is None:
        return np.zeros(shape, np.float32)
    if value.data_type not in (6, 7):
        raise ValueError("a constant that is no whole number")
    return np.full(shape, np.frombuffer(value.raw_data, "<i8" if value.data_type == 7 else "<i4")[0], np.int64)


def _limits(arrays: Arrays, given: dict[str, Any]) -> tuple[Any, Any]:
    low = arrays[1] if len(arrays) > 1 else given.get("min", -np.inf)
    return low, arrays[2] if len(arrays) > 2 else given.get("max", np.inf)


def _unsqueeze(arrays: Arrays, given: dict[str, Any]) -> np.ndarray:
    axes = arrays[1].ravel() if len(arrays) > 1 else given["axes"]
    return np.expand_dims(arrays[0], tuple(int(axis) for axis in axes))


def _squeeze(arrays: Arrays, given: dict[str, Any]) -> np.ndarray:
    axes = arrays[1].ravel() if len(arrays) > 1 else given.get("axes")
    return np.squeeze(arrays[0], None if axes is None else tuple(int(axis) for axis in axes))


def _divide(arrays: Arrays, given: dict[str, Any]) -> np.ndarray:  # noqa: ARG001
    """Whole numbers are rounded towards zero."""
    first, second = arrays
    if not second.all():
        raise ValueError("a division by zero")
    return first / second if first.dtype.kind == "f" else np.fix(first / second).astype(first.dtype)


def _reshape(arrays: Arrays, given: dict[str, Any]) -> np.ndarray:
    shape = arrays[1].ravel() if len(arrays) > 1 else given["shape"]
    return arrays[0].reshape([int(size) for size in shape])


_TYPES = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_, 11: np.float32}


def _cast(arrays: Arrays, given: dict[str, Any]) -> np.ndarray:
    if given.get("to") not in _TYPES:
        raise ValueError(f"a cast to the type {given.get('to')}")
    return arrays[0].astype(_TYPES[given["to"]])


_RULES: dict[str, Callable[[Arrays, dict[str, Any]], Any]] = {
    "Add": lambda arrays, _: arrays[0] + arrays[1],
    "Sub": lambda arrays, _: arrays[0] - arrays[1],
    "Mul": lambda arrays, _: arrays[0] * arrays[1],
    "Div": _divide,
    "Max": lambda arrays, _: np.maximum.reduce(np.broadcast_arrays(*arrays)),
    "Min": lambda arrays, _: np.minimum.reduce(np.broadcast_arrays(*arrays)),
    "Neg": lambda arrays, _: -arrays[0],
    "Clip": lambda arrays, given: np.clip(arrays[0], *_limits(arrays, given)),
    "Ceil": lambda arrays, _: np.ceil(arrays[0]),
    "Floor": lambda arrays, _: np.floor(arrays[0]),
    "Sqrt": lambda arrays, _: np.sqrt(np.abs(arrays[0])),
    "Cast": _cast,
    "Concat": lambda arrays, given: np.concatenate(arrays, given.get("axis", 0)),
    "Gather": lambda arrays, given: np.take(arrays[0], arrays[1].astype(np.int64), given.get("axis", 0)),
    "Slice": _slice,
    "ConstantOfShape": _constant_of_shape,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Transpose": lambda arrays, given: np.transpose(arrays[0], given.get("perm")),
    "Flatten": lambda arrays, given: arrays[0].reshape((*arrays[0].shape[: given.get("axis", 1)], -1)),
}
KINDS = frozenset(_RULES) | {"Shape"}  # operators that are read, at least of constants

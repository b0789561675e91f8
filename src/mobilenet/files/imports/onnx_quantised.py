"""QuantizeLinear and DequantizeLinear of an ONNX file, one at a time.

A QDQ file has an integer layer as the float layer between what makes real numbers of its integers and what makes
integers of its result. Here both become nodes of the graph, and the constants behind a DequantizeLinear are kept
as they are stored beside the real numbers that they stand for. `onnx_integers` then puts the integer layers
together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mobilenet.errors import ModelFileError, UnsupportedOperatorError
from mobilenet.files.imports.onnx_graph import INPUT, Conversion, Value, attributes, title
from mobilenet.graph import ops
from mobilenet.graph.graph import Quantisation, TensorType

DTYPES = ("uint8", "int8")
UINT8 = 2  # TensorProto's number
# A sum may read its summands at scales of its own, as they are in fixed point: the exporter of this package says
# so.
SCALE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Integers:
    """A stored constant: its values, and the scale and zero point of all or of each place along an axis."""

    values: np.ndarray
    scale: np.ndarray  # float32 (1,) or (places,)
    zero_point: np.ndarray  # int64, of the same shape
    axis: int


def quantise_linear(conversion: Conversion, node: Any) -> None:
    """QuantizeLinear: of a constant another constant, otherwise a node."""
    scale, zero, dtype = _scales(conversion, node)
    array = conversion.constant(node.input[0])
    if array is not None:
        _quantise_constant(conversion, node, array, scale, zero, dtype)
        return
    value = conversion.value(node)
    quantisation = _single(node, scale, zero)
    made = conversion.add(node, ops.Quantise(), value, first=value.first)
    conversion.nodes[made.name] = replace(conversion.nodes[made.name], dtype=dtype, quantisation=quantisation)
    conversion.write(node, made)


def dequantise_linear(conversion: Conversion, node: Any) -> None:
    """DequantizeLinear: of a constant its real numbers, otherwise a node."""
    scale, zero, dtype = _scales(conversion, node)
    array = conversion.constant(node.input[0])
    if array is not None:
        _dequantise_constant(conversion, node, array, scale, zero)
        return
    value = conversion.value(node)
    quantisation = _single(node, scale, zero)
    if value.name == INPUT:
        _quantise_input(conversion, node, value, TensorType(value.shape, dtype, quantisation))
    else:
        _check_source(conversion, node, value, dtype, quantisation)
    conversion.write(node, conversion.add(node, ops.Dequantise(), value, first=value.first))


def _scales(conversion: Conversion, node: Any) -> tuple[np.ndarray, np.ndarray, str]:
    """Scales, zero points, and the dtype of the integers of a computed value."""
    scale = conversion.weight(node, 1).ravel()
    zero, dtype = np.zeros(1, np.int64), "uint8"
    if len(node.input) > 2 and node.input[2]:
        array = conversion.constant(node.input[2])
        if array is None or array.dtype.kind not in "iu":
            raise UnsupportedOperatorError(f"{title(node)} has a zero point that is no constant of integers")
        zero, dtype = array.astype(np.int64).ravel(), str(array.dtype)
    if not scale.size or not (scale > 0).all() or zero.size not in (1, scale.size):
        raise ModelFileError(f"{title(node)} has {zero.size} zero points and scales that are not all above 0")
    return scale, zero, dtype


def _single(node: Any, scale: np.ndarray, zero: np.ndarray) -> Quantisation:
    if scale.size != 1 or zero.size != 1:
        raise UnsupportedOperatorError(f"{title(node)} has {scale.size} scales for a value; one is supported")
    return Quantisation(float(scale[0]), int(zero[0]))


def _along(node: Any, array: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Numbers of an axis in the shape that broadcasts against an array."""
    if numbers.size == 1:
        return numbers.reshape(())
    axis = _axis(node, array)
    if axis >= array.ndim or array.shape[axis] != numbers.size:
        raise ModelFileError(f"{title(node)} has {numbers.size} scales for a constant of shape {array.shape}")
    return numbers.reshape([-1 if place == axis else 1 for place in range(array.ndim)])


def _axis(node: Any, array: np.ndarray) -> int:
    return int(attributes(node).get("axis", 1)) % max(array.ndim, 1)


def _quantise_constant(
    conversion: Conversion, node: Any, array: np.ndarray, scale: np.ndarray, zero: np.ndarray, dtype: str
) -> None:
    if dtype not in DTYPES or array.dtype.kind != "f":
        raise UnsupportedOperatorError(f"{title(node)} makes {dtype} of a constant of {array.dtype}")
    limits = np.iinfo(dtype)
    steps = np.rint(array / _along(node, array, scale)) + _along(node, array, zero)
    conversion.constants[node.output[0]] = np.clip(np.nan_to_num(steps), limits.min, limits.max).astype(dtype)


def _dequantise_constant(
    conversion: Conversion, node: Any, array: np.ndarray, scale: np.ndarray, zero: np.ndarray
) -> None:
    if array.dtype.kind not in "iu":
        raise ModelFileError(f"{title(node)} reads a constant of {array.dtype}; integers are expected")
    whole = array.astype(np.float64) - _along(node, array, zero)
    conversion.charge(4 * array.size)
    conversion.constants[node.output[0]] = (whole * _along(node, array, scale)).astype(np.float32)
    both = np.broadcast_to(zero, scale.shape)
    conversion.stored[node.output[0]] = Integers(array, scale.astype(np.float32), both, _axis(node, array))


def _quantise_input(conversion: Conversion, node: Any, value: Value, kind: TensorType) -> None:
    """The picture itself is of integers."""
    (given,) = (entry for entry in conversion.model.graph.input if entry.name == conversion.made[INPUT])
    before = conversion.inputs[INPUT]
    if given.type.tensor_type.elem_type != UINT8 or kind.dtype != "uint8":
        raise UnsupportedOperatorError(f"{title(node)} reads an input that is not of uint8")
    if before.integer and before != kind:
        raise UnsupportedOperatorError(f"{title(node)} reads the input '{value.name}' at a second scale")
    conversion.inputs[INPUT] = kind


def _check_source(conversion: Conversion, node: Any, value: Value, dtype: str, quantisation: Quantisation) -> None:
    """What is read must have been quantised, and alike."""
    source = conversion.nodes.get(value.name)
    if source is None or source.quantisation is None:
        raise UnsupportedOperatorError(f"{title(node)} reads what no QuantizeLinear has written")
    apart = abs(source.quantisation.scale / quantisation.scale - 1)
    if (
        dtype != source.dtype
        or quantisation.zero_point != source.quantisation.zero_point
        or apart > SCALE_TOLERANCE
    ):
        raise UnsupportedOperatorError(
            f"{title(node)} reads {source.dtype} {source.quantisation} as {dtype} {quantisation}"
        )

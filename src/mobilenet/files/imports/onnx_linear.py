"""Dense layers and matrix products of an ONNX file."""

from __future__ import annotations

from typing import Any

import numpy as np

from mobilenet.errors import ModelFileError, UnsupportedOperatorError
from mobilenet.files.imports.onnx_graph import Conversion, Layout, Value, attributes, title
from mobilenet.graph import ops


def vector(conversion: Conversion, node: Any, position: int, size: int) -> np.ndarray:
    """A float constant of one number a channel; raises if it has another size."""
    array = conversion.weight(node, position)
    if array.size != size:
        raise ModelFileError(f"'{node.input[position]}' of {title(node)} has shape {array.shape}, not ({size},)")
    return array.reshape(size)


def gemm(conversion: Conversion, node: Any) -> None:
    """Gemm as a dense layer."""
    given = attributes(node)
    if given.get("transA", 0) or given.get("alpha", 1.0) != 1 or given.get("beta", 1.0) != 1:
        raise UnsupportedOperatorError(f"{title(node)} is scaled, or its input is transposed")
    weight = conversion.weight(node, 1)
    turned = bool(given.get("transB", 0))
    weight = weight if turned else weight.T
    has_bias = len(node.input) > 2 and bool(node.input[2])
    bias = {"bias": vector(conversion, node, 2, weight.shape[0])} if has_bias else {}
    _dense(conversion, node, weight, bias, turned=turned)


def bias_part(node: Any, has_bias: bool) -> dict[str, tuple[str, Layout, int]]:
    """Which constant the bias of a layer is, for `Conversion.set_parts`."""
    return {"bias": (node.input[2], np.ravel, 0)} if has_bias else {}


def _dense(
    conversion: Conversion, node: Any, weight: np.ndarray, bias: dict[str, np.ndarray], *, turned: bool
) -> None:
    value = conversion.value(node)
    if weight.ndim != 2 or value.shape[-1] != weight.shape[1] or value.first:
        raise ModelFileError(
            f"{title(node)} has weights '{node.input[1]}' of shape {weight.shape} for values of {value.shape}"
        )
    operator = ops.Dense(weight.shape[0], bias=bool(bias))
    made = conversion.add(node, operator, value, weights={"weight": weight, **bias})
    part: tuple[str, Layout, int] = (node.input[1], np.asarray if turned else np.transpose, 0 if turned else 1)
    conversion.set_parts(made, weight=part, **bias_part(node, bool(bias)))
    conversion.write(node, made)


def matmul(conversion: Conversion, node: Any) -> None:
    """MatMul: a dense layer with a constant, otherwise a product of matrices."""
    if conversion.constant(node.input[1]) is not None:
        _dense(conversion, node, conversion.weight(node, 1).T, {}, turned=False)
        return
    first, second = conversion.value(node, 0), conversion.value(node, 1)
    if len(second.shape) == 3 and second.shape[0] == 1 and not second.first:  # all heads share one matrix
        second = _matrix(conversion, node, second, "_second")
    if len(first.shape) == 3 and not first.first and len(second.shape) == 2:
        rows = _matrix(conversion, node, first, "_first")
        product = conversion.add(node, ops.MatMul(), rows, second, suffix="_rows")
        conversion.write(node, conversion.add(node, ops.Reshape((*first.shape[:2], product.shape[1])), product))
        return
    if len(first.shape) != 2 or len(second.shape) != 2:
        raise UnsupportedOperatorError(f"{title(node)} multiplies stacks of matrices")
    turned = conversion.nodes.get(second.name)
    transposes = turned is not None and turned.operator == ops.Transpose((1, 0))
    if transposes and turned is not None:
        second = Value(turned.inputs[0], second.shape[::-1])
    conversion.write(node, conversion.add(node, ops.MatMul(transpose_second=transposes), first, second))


def _matrix(conversion: Conversion, node: Any, value: Value, suffix: str) -> Value:
    """A stack of matrices as the rows of one."""
    operator = ops.Reshape((value.shape[0] * value.shape[1], value.shape[2]))
    return conversion.add(node, operator, value, suffix=suffix)

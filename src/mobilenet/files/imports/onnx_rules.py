"""What each ONNX operator is in our graph: one function each, from an ONNX node to the values that it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import isclose
from typing import Any

import numpy as np

from mobilenet.errors import ModelFileError, UnsupportedOperatorError
from mobilenet.files.imports.onnx_arithmetic import binary, erf, minimum_maximum
from mobilenet.files.imports.onnx_graph import Conversion, Pending, Value, attributes, title
from mobilenet.files.imports.onnx_linear import bias_part, gemm, matmul, vector
from mobilenet.files.imports.onnx_pictures import argmax, resize
from mobilenet.files.imports.onnx_quantised import dequantise_linear, quantise_linear
from mobilenet.files.imports.onnx_shapes import concat, flatten, reshape, squeeze, transpose, unsqueeze
from mobilenet.graph import ops

_HARD_SIGMOID = (1 / 6, 0.5)
_NO_SIDES = (0, 0, 0, 0)
QUANTISED_SIX = 6 * 255 / 254.5  # 6, rounded to the highest of 255 quanta


def _pass(conversion: Conversion, node: Any) -> None:
    """The reader looks through these by `Conversion.root`."""


def _constant(conversion: Conversion, node: Any) -> None:
    given = attributes(node)
    if "value" not in given and "value_float" not in given and "value_int" not in given:
        raise UnsupportedOperatorError(f"{title(node)} is no tensor and no number")
    if "value" in given:
        conversion.tensors[node.output[0]] = given["value"]
    else:
        number = given.get("value_float", given.get("value_int"))
        conversion.constants[node.output[0]] = np.array(number)


def _window(node: Any, value: Value, kernel: tuple[int, ...]) -> dict[str, Any]:
    """The fields of a window, with SAME or explicit padding; zeros that a Pad added before are part of it."""
    given = attributes(node)
    if len(kernel) != 2:
        raise UnsupportedOperatorError(f"{title(node)} has a kernel of {len(kernel)} axes, not 2")
    pair = (kernel[0], kernel[1])
    stride, dilation = (_pair(node, given.get(name) or (1, 1)) for name in ("strides", "dilations"))
    rule = given.get("auto_pad", "NOTSET")
    fields: dict[str, Any] = {"kernel": pair, "stride": stride, "dilation": dilation}
    if rule == "SAME_UPPER":
        padding = ops.same_sides((value.shape[0], value.shape[1]), pair, stride, dilation)
        return {**fields, "padding": padding, "same": True}
    if rule not in ("NOTSET", "VALID"):
        raise UnsupportedOperatorError(f"{title(node)} has auto_pad {rule}")
    pads = list(given.get("pads") or _NO_SIDES) if rule == "NOTSET" else list(_NO_SIDES)
    if len(pads) != 4:
        raise ModelFileError(f"{title(node)} has {len(pads)} pads, not 4")
    return {**fields, "padding": (pads[0], pads[2], pads[1], pads[3])}


def _pair(node: Any, numbers: Any) -> ops.Pair:
    if len(numbers) != 2:
        raise UnsupportedOperatorError(f"{title(node)} has {len(numbers)} strides or dilations, not 2")
    return int(numbers[0]), int(numbers[1])


def _padded(conversion: Conversion, node: Any) -> tuple[Value, ops.Sides]:
    """What a convolution reads, and the zeros that a Pad in front of it adds."""
    found = conversion.read(node.input[0])
    if isinstance(found, Pending) and found.kind == "padded" and found.base.first:
        return found.base, found.sides
    return conversion.picture(node), _NO_SIDES


def _conv(conversion: Conversion, node: Any) -> None:
    value, before = _padded(conversion, node)
    weight = conversion.weight(node, 1)  # (out, in / groups, height, width)
    if weight.ndim != 4 or 0 in weight.shape:
        raise UnsupportedOperatorError(f"{title(node)} has weights of {weight.ndim} axes, not 4")
    groups, channels = int(attributes(node).get("group", 1)), value.shape[2]
    out, per_group = weight.shape[:2]
    if groups < 1 or per_group * groups != channels or out % groups:
        raise ModelFileError(
            f"{title(node)} has weights '{node.input[1]}' of shape {weight.shape}, in {groups} groups, for "
            f"{channels} channels"
        )
    has_bias = len(node.input) > 2 and bool(node.input[2])
    fields = _window(node, value, weight.shape[2:])
    if any(before) and not fields.get("same"):
        fields["padding"] = tuple(map(sum, zip(fields["padding"], before, strict=True)))
    elif any(before):
        value = conversion.picture(node)
    operator: ops.Operator
    if groups == 1:
        operator, layout = ops.Conv(**fields, out_channels=out, bias=has_bias), _conv_layout
    elif per_group == 1:
        operator = ops.DepthwiseConv(**fields, multiplier=out // channels, bias=has_bias)
        layout = _depthwise_layout
    else:
        raise UnsupportedOperatorError(f"{title(node)} has {groups} groups of {per_group} channels")
    bias = {"bias": vector(conversion, node, 2, out)} if has_bias else {}
    made = conversion.add(node, operator, value, first=True, weights={"weight": layout(weight), **bias})
    conversion.set_parts(made, weight=(node.input[1], layout, 0), **bias_part(node, has_bias))
    conversion.write(node, made)


def _conv_layout(weight: np.ndarray) -> np.ndarray:
    return weight.transpose(0, 2, 3, 1)


def _depthwise_layout(weight: np.ndarray) -> np.ndarray:
    return weight[:, 0].transpose(1, 2, 0)


def _batch_norm(conversion: Conversion, node: Any) -> None:
    value, given = conversion.value(node), attributes(node)
    if given.get("training_mode") or not (value.first or len(value.shape) == 1):
        raise UnsupportedOperatorError(f"{title(node)} trains, or is not over channels")
    names = ("gamma", "beta", "mean", "variance")
    weights = {name: vector(conversion, node, n, value.shape[-1]) for n, name in enumerate(names, 1)}
    operator = ops.BatchNorm(float(given.get("epsilon", 1e-5)))
    conversion.write(node, conversion.add(node, operator, value, first=value.first, weights=weights))


def _activation(activation: str) -> Callable[[Conversion, Any], None]:
    def convert(conversion: Conversion, node: Any) -> None:
        conversion.write(node, conversion.activate(node, conversion.value(node), activation))

    return convert


def _hard_sigmoid(conversion: Conversion, node: Any) -> None:
    given = attributes(node)
    numbers = float(given.get("alpha", 0.2)), float(given.get("beta", 0.5))
    if not all(isclose(a, b, rel_tol=1e-5) for a, b in zip(numbers, _HARD_SIGMOID, strict=True)):
        raise UnsupportedOperatorError(f"{title(node)} has alpha and beta {numbers}; 1/6 and 1/2 are supported")
    _activation("hard_sigmoid")(conversion, node)


def _gelu(conversion: Conversion, node: Any) -> None:
    if attributes(node).get("approximate", "none") != "none":
        raise UnsupportedOperatorError(f"{title(node)} is the approximation by tanh")
    _activation("gelu")(conversion, node)


def _clip(conversion: Conversion, node: Any) -> None:
    given = attributes(node)
    limits = [_limit(conversion, node, position, given.get(name)) for position, name in ((1, "min"), (2, "max"))]
    found = conversion.read(node.input[0])
    # Before a QuantizeLinear, a limit may be what the highest integer stands for: the rounding of 6, or of its
    # scale.
    most = QUANTISED_SIX if node.output[0] in conversion.quantised else 6 * (1 + 1e-6)
    if limits[0] != 0 or (limits[1] is not None and not 6 * (1 - 1e-6) <= limits[1] <= most):
        raise UnsupportedOperatorError(f"{title(node)} clips to {limits}; 0 and 6 are supported")
    if isinstance(found, Pending) and found.kind == "plus" and found.number == 3 and limits[1] is not None:
        conversion.write(node, replace(found, kind="clip"))
        return
    activation = "relu" if limits[1] is None else "relu6"
    conversion.write(node, conversion.activate(node, conversion.value(node), activation))


def _limit(conversion: Conversion, node: Any, position: int, attribute: Any) -> float | None:
    if attribute is None and position < len(node.input) and node.input[position]:
        attribute = conversion.weight(node, position).ravel()[0]
    return None if attribute is None or abs(attribute) > 1e30 else float(attribute)


def _prelu(conversion: Conversion, node: Any) -> None:
    value = conversion.value(node)
    alpha = conversion.weight(node, 1)
    slopes = np.broadcast_to(alpha.ravel(), value.shape[-1:]) if alpha.size in (1, value.shape[-1]) else None
    if slopes is None or not (value.first or len(value.shape) == 1):
        raise UnsupportedOperatorError(f"{title(node)} has slopes of shape {alpha.shape}, not one a channel")
    active = conversion.activate(node, value, "prelu")
    conversion.set_weight(f"{active.name}.alpha", slopes)
    conversion.write(node, active)


def _global_mean(conversion: Conversion, node: Any) -> None:
    value = conversion.picture(node)
    conversion.write(node, conversion.add(node, ops.Mean(keep_axes=True), value, first=True))


def _reduce_mean(conversion: Conversion, node: Any) -> None:
    value = conversion.value(node)
    rank = 1 + len(value.shape)
    axes = sorted(axis % rank for axis in conversion.integers(node, 1, "axes") or [])
    if len(value.shape) != 3 or axes != ([2, 3] if value.first else [1, 2]):
        raise UnsupportedOperatorError(f"{title(node)} is over the axes {axes}; height and width are supported")
    keeps = bool(attributes(node).get("keepdims", 1))
    mean = conversion.add(node, ops.Mean(keep_axes=keeps), value, first=value.first and keeps)
    conversion.write(node, mean)


def _pool(operator: type[ops.AveragePool]) -> Callable[[Conversion, Any], None]:
    def convert(conversion: Conversion, node: Any) -> None:
        value, given = conversion.picture(node), attributes(node)
        fields = _window(node, value, tuple(given.get("kernel_shape", ())))
        counts = any(fields["padding"]) and operator is ops.AveragePool and given.get("count_include_pad", 0)
        if given.get("ceil_mode", 0) or counts:
            raise UnsupportedOperatorError(f"{title(node)} counts its padding, or rounds its size up")
        conversion.write(node, conversion.add(node, operator(**fields), value, first=True))

    return convert


def _pad(conversion: Conversion, node: Any) -> None:
    value, given = conversion.value(node), attributes(node)
    sides = conversion.integers(node, 1, "pads") or []
    rows, columns = (2, 3) if value.first else (1, 2)
    kept = [axis for axis in range(4) if axis not in (rows, columns)]
    filled = conversion.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    zeros = given.get("mode", "constant") == "constant" and (filled is None or not filled.any())
    if len(sides) != 8 or not zeros or any(sides[axis] or sides[axis + 4] for axis in kept) or min(sides) < 0:
        raise UnsupportedOperatorError(f"{title(node)} pads by {sides}; zeros around a picture are supported")
    padding = (sides[rows], sides[rows + 4], sides[columns], sides[columns + 4])
    alone = conversion.readers[node.output[0]] == 1
    pending = Pending("padded", value, sides=padding)
    conversion.write(node, pending if alone else conversion.add(node, ops.Pad(padding), value, first=value.first))


def _softmax(conversion: Conversion, node: Any) -> None:
    found = conversion.read(node.input[0])
    beta, value = (
        (found.number, found.base)
        if isinstance(found, Pending) and found.kind == "scaled"
        else (1.0, conversion.value(node))
    )
    rank = 1 + len(value.shape)
    axis = attributes(node).get("axis", -1) % rank
    if axis != (1 if value.first else rank - 1):
        raise UnsupportedOperatorError(f"{title(node)} is along axis {axis}; only that of channels is supported")
    conversion.write(node, conversion.add(node, ops.Softmax(beta), value, first=value.first))


RULES: dict[str, Callable[[Conversion, Any], None]] = {
    "Identity": _pass,
    "Dropout": _pass,
    "Cast": _pass,
    "CastLike": _pass,
    "Constant": _constant,
    "Conv": _conv,
    "BatchNormalization": _batch_norm,
    "Relu": _activation("relu"),
    "Sigmoid": _activation("sigmoid"),
    "HardSwish": _activation("hard_swish"),
    "HardSigmoid": _hard_sigmoid,
    "Gelu": _gelu,
    "Clip": _clip,
    "QuantizeLinear": quantise_linear,
    "DequantizeLinear": dequantise_linear,
    "PRelu": _prelu,
    "GlobalAveragePool": _global_mean,
    "ReduceMean": _reduce_mean,
    "AveragePool": _pool(ops.AveragePool),
    "MaxPool": _pool(ops.MaxPool),
    "Pad": _pad,
    "Gemm": gemm,
    "MatMul": matmul,
    "Softmax": _softmax,
    "ArgMax": argmax,
    "Resize": resize,
    "Flatten": flatten,
    "Reshape": reshape,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Transpose": transpose,
    "Concat": concat,
    "Add": binary,
    "Sub": binary,
    "Mul": binary,
    "Div": binary,
    "Erf": erf,
    "Min": minimum_maximum,
    "Max": minimum_maximum,
}

"""The constants of a linear .tflite operator as a graph's parameters: kept as integers, or made floats.

Source: the TFLite 8-bit quantisation specification: weights have one scale or one for each output channel, and a
bias is int32 with the scale input scale * weight scale.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenet.errors import ModelFileError
from mobilenet.files.tflite_schema import Call, Tensor
from mobilenet.graph.graph import Quantisation, Weights

BIAS_TOLERANCE = 1e-3  # how far a bias may be, relatively, from the scale that the specification gives it


def linear_weights(
    call: Call,
    quantisation: Quantisation | None,
    tensor: Tensor,
    weight: NDArray[Any],
    axis: int,
    bias: tuple[Tensor, NDArray[Any]] | None,
) -> Weights:
    """The parameters by name: weight, bias, and for integers weight_scale and weight_zero_point.

    Args:
        call: named in errors.
        quantisation: of the operator's input; none if that is float, and then integer weights become floats.
        tensor: the file's weights, for their scales and zero points.
        weight: their values, already in the graph's layout.
        axis: where the file's tensor has the output channels.
        bias: the file's bias and its values, if there is one.

    Raises:
        ModelFileError: scales, zero points, sizes or dtypes that do not fit together.
    """
    channels = tensor.shape[axis] if tensor.shape else 0
    if bias is not None and bias[1].shape != (channels,):
        raise ModelFileError(f"is damaged: {call} has {channels} channels, but a bias of {list(bias[1].shape)}")
    if quantisation is None:
        return _float_weights(call, tensor, weight, axis, bias)
    if weight.dtype not in (np.int8, np.uint8):
        raise ModelFileError(f"{call} reads integers, but has {weight.dtype} weights")
    scale, zero_point = _scale(call, tensor, axis)
    parameters = {
        "weight": np.array(weight),
        "weight_scale": scale,
        "weight_zero_point": np.array([zero_point], np.int32),
    }
    if bias is not None:
        _check_bias(call, *bias, quantisation.scale * scale.astype(np.float64))
        parameters["bias"] = bias[1].astype(np.int32)
    return parameters


def _scale(call: Call, tensor: Tensor, axis: int) -> tuple[NDArray[np.float32], int]:
    """The scales, one or one a channel, and the one zero point."""
    scale = tensor.scale.astype(np.float32)
    channels = tensor.shape[axis]
    if len(scale) not in (1, channels) or (len(scale) > 1 and tensor.axis != axis):
        raise ModelFileError(f"{call} has {len(scale)} scales along axis {tensor.axis} for {channels} channels")
    if not (np.isfinite(scale) & (scale > 0)).all():
        raise ModelFileError(f"{call} has weights with a scale that is no finite number above 0")
    zero_point, info = int(tensor.zero_point[0]), np.iinfo(tensor.dtype)
    if (tensor.zero_point != zero_point).any() or not info.min <= zero_point <= info.max:
        raise ModelFileError(f"{call} has weights with several zero points, or one out of range")
    return scale, zero_point


def _check_bias(call: Call, tensor: Tensor, bias: NDArray[Any], expected: NDArray[np.float64]) -> None:
    if bias.dtype != np.int32:
        raise ModelFileError(f"{call} reads integers, but has a {bias.dtype} bias; int32 is expected")
    if len(tensor.scale) not in (0, 1, len(bias)):
        raise ModelFileError(f"{call} has a bias of {len(bias)} numbers with {len(tensor.scale)} scales")
    if len(tensor.scale) and not np.allclose(tensor.scale, expected, rtol=BIAS_TOLERANCE, atol=0):
        raise ModelFileError(f"{call} has a bias whose scale is not input scale * weight scale")


def _float_weights(
    call: Call, tensor: Tensor, weight: NDArray[Any], axis: int, bias: tuple[Tensor, NDArray[Any]] | None
) -> Weights:
    """Float weights, or integer ones of a file that only stores its weights as integers."""
    parameters = {"weight": weight.astype(np.float32)}
    if weight.dtype.kind != "f":
        if weight.dtype not in (np.int8, np.uint8):
            raise ModelFileError(f"{call} reads floats, but has {weight.dtype} weights")
        scale, zero_point = _scale(call, tensor, axis)
        last = len(scale) == 1 or axis == len(tensor.shape) - 1
        shaped = scale if last else scale.reshape(-1, *(1,) * (weight.ndim - 1))
        parameters["weight"] = (parameters["weight"] - np.float32(zero_point)) * shaped
    if bias is not None:
        if bias[1].dtype.kind != "f":
            raise ModelFileError(f"{call} reads floats, but has a {bias[1].dtype} bias")
        parameters["bias"] = bias[1].astype(np.float32)
    return parameters

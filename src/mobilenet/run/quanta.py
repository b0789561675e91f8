"""Real numbers to integers and back: what a quantised input and output stand for. Part of the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mobilenet.graph.graph import Quantisation
    from mobilenet.run.engine import Tensor

    Array = NDArray[Any]


def quantise_array(x: Array, quantisation: Quantisation, dtype: str) -> Array:
    """Real numbers to integers: clamp(rint(float32(x) * (1 / float32(scale))) + zero point), ties to even.

    Args:
        x: any shape; NaN becomes the lowest integer.
        quantisation: the scale and zero point of the result.
        dtype: "int8" or "uint8".
    """
    info = np.iinfo(dtype)
    steps = np.rint(np.asarray(x, np.float32) * (np.float32(1) / np.float32(quantisation.scale)))
    zero = quantisation.zero_point
    return np.asarray(np.fmin(np.fmax(steps, info.min - zero), info.max - zero) + zero, dtype)


def dequantise_array(q: Array, quantisation: Quantisation | Tensor) -> Array:
    """Integers to the float32 numbers that they stand for: float32(scale) * float32(q - zero point)."""
    return (q.astype(np.int32) - quantisation.zero_point).astype(np.float32) * np.float32(quantisation.scale)

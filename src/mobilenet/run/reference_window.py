"""Windows that slide over pictures, in numpy, for floats and for whole numbers kept in floats."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mobilenet.graph.ops import Conv, DepthwiseConv, Pair, Sides, Window
from mobilenet.run.reference_call import Array

CHUNK_BYTES = 32 * 2**20  # of unfolded windows at once: bounds the memory of a large batch
BLOCK_ELEMENTS = 2**16  # of a depthwise result at once: stays in the processor's cache


def padded(x: Array, sides: Sides, fill: float = 0) -> Array:
    """(N, H, W, C) with `fill` around the picture."""
    if not any(sides):
        return x
    top, bottom, left, right = sides
    n, height, width, channels = x.shape
    out = np.full((n, top + height + bottom, left + width + right, channels), fill, x.dtype)
    out[:, top : top + height, left : left + width] = x
    return out


def output_size(window: Window, x: Array) -> Pair:
    """(height, width) of what a window gives for an already padded x (N, H, W, C)."""
    height, width, _ = Window(window.kernel, window.stride, window.dilation).window_shape(x.shape[1:], 1)
    return height, width


def convolve(window: Conv, x: Array, weight: Array) -> Array:
    """Convolution without bias; x (N, H, W, C) and weight (out, kernel height, kernel width, in) of one dtype."""
    x = padded(x, window.padding)
    height, width = output_size(window, x)
    terms = weight[0].size
    matrix = weight.reshape(len(weight), terms).T
    out = np.empty((len(x), height, width, len(weight)), x.dtype)
    step = max(1, CHUNK_BYTES // (height * width * terms * x.itemsize))
    for start in range(0, len(x), step):
        columns = _unfold(window, x[start : start + step]).reshape(-1, terms)
        np.matmul(columns, matrix, out=out[start : start + step].reshape(-1, len(weight)))
    return out


def _unfold(window: Window, x: Array) -> Array:
    """(N, out height, out width, kernel height, kernel width, C) of an already padded x."""
    (sh, sw), (dh, dw) = window.stride, window.dilation
    if window.kernel == (1, 1):
        return x[:, ::sh, ::sw, None, None, :]
    reach = ((window.kernel[0] - 1) * dh + 1, (window.kernel[1] - 1) * dw + 1)
    windows = sliding_window_view(x, reach, axis=(1, 2))[:, ::sh, ::sw, :, ::dh, ::dw]
    return windows.transpose(0, 1, 2, 4, 5, 3)


def convolve_depthwise(window: DepthwiseConv, x: Array, weight: Array) -> Array:
    """Depthwise convolution without bias; weight (kernel height, kernel width, C * multiplier) of x's dtype."""
    if window.multiplier > 1:
        x = np.repeat(x, window.multiplier, axis=-1)
    x = padded(x, window.padding)
    height, width = output_size(window, x)
    out = np.zeros((len(x), height, width, x.shape[-1]), x.dtype)
    rows = max(1, BLOCK_ELEMENTS // (width * x.shape[-1]))
    for picture, result in zip(x, out, strict=True):
        for start in range(0, height, rows):
            block = result[start : start + rows]
            _add_taps(window, picture[start * window.stride[0] :], weight, block)
    return out


def _add_taps(window: Window, x: Array, weight: Array, out: Array) -> None:
    """Adds every tap's product to out (rows, width, C); x (H, W, C) begins at the first row of its window."""
    product = np.empty_like(out)
    for row in range(window.kernel[0]):
        for column in range(window.kernel[1]):
            np.multiply(_tap(window, x, (row, column), out.shape[:2]), weight[row, column], out=product)
            out += product


def _tap(window: Window, x: Array, tap: Pair, size: Pair) -> Array:
    """What one place of the window sees: (out height, out width, C) as a view."""
    first = [t * d for t, d in zip(tap, window.dilation, strict=True)]
    last = [f + (n - 1) * s + 1 for f, n, s in zip(first, size, window.stride, strict=True)]
    return x[first[0] : last[0] : window.stride[0], first[1] : last[1] : window.stride[1]]


def reduce_windows(window: Window, x: Array, reduce: Callable[[Array, Array], Array], fill: float) -> Array:
    """`reduce` (np.add or np.maximum) over each window of x padded with `fill`: first down, then across."""
    x = padded(x, window.padding, fill)
    height, width = output_size(window, x)
    (kernel_height, kernel_width), (down, across) = window.kernel, window.stride
    rows = x[:, : (height - 1) * down + 1 : down]
    for tap in range(1, kernel_height):
        rows = reduce(rows, x[:, tap : tap + (height - 1) * down + 1 : down])
    out = rows[:, :, : (width - 1) * across + 1 : across]
    for tap in range(1, kernel_width):
        out = reduce(out, rows[:, :, tap : tap + (width - 1) * across + 1 : across])
    return out.copy() if out.base is not None else out


def pixels_in_windows(window: Window, x: Array) -> Array:
    """How many pixels that are no padding each window holds: int64 (out height, out width, 1)."""
    ones = np.ones((1, *x.shape[1:3], 1), np.int64)
    count: Array = reduce_windows(window, ones, np.add, 0)[0]
    return count


def source_positions(size: int, target: int, align_corners: bool, half_pixel_centers: bool) -> tuple[Array, int]:
    """Where each of `target` places reads among `size` ones, as exact fractions: numerators and denominator.

    align_corners: i (size - 1) / (target - 1); half_pixel_centers: (i + 1/2) size / target - 1/2; neither:
    i size / target. Limited to 0..size - 1.
    """
    i = np.arange(target, dtype=np.int64)
    if align_corners and target > 1:
        numerator, denominator = i * (size - 1), target - 1
    elif half_pixel_centers:
        numerator, denominator = (2 * i + 1) * size - target, 2 * target
    else:
        numerator, denominator = i * size, target
    return np.clip(numerator, 0, (size - 1) * denominator), denominator


def nearest_index(size: int, target: int, align_corners: bool, half_pixel_centers: bool) -> Array:
    """Which of `size` places each of `target` ones takes: rounded (half up) if corners are aligned, else floored.

    With half_pixel_centers it is the pixel that holds the centre: floor((i + 1/2) size / target).
    """
    i = np.arange(target, dtype=np.int64)
    if align_corners and target > 1:
        return (2 * i * (size - 1) + target - 1) // (2 * (target - 1))
    if half_pixel_centers:
        return np.minimum((2 * i + 1) * size // (2 * target), size - 1)
    return np.minimum(i * size // target, size - 1)

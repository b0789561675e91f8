"""From scores at the network's size to the class of every pixel of the picture as it was."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mobilenet.errors import ArgumentError
from mobilenet.pictures.palette import IGNORED, MAX_CLASSES, ClassMap
from mobilenet.pictures.preprocess import Preprocessing

STRIP = 2**16  # pixels that are interpolated at once: memory stays flat, whatever the picture


def class_map(
    logits: NDArray[np.floating],
    preprocessing: Preprocessing,
    size: tuple[int, int],
    best: NDArray[np.integer] | None = None,
) -> ClassMap:
    """The class whose score is the largest at each pixel of a picture, scores being interpolated bilinearly.

    Pixel centres are mapped through the preprocessing's geometry into the map of scores, and clamped to the part
    that the picture fills: what stands for "pad"'s borders has no say. Of equal scores the lowest class wins.

    Args:
        logits: float [h, w, classes], at any resolution, for the whole input of the network.
        preprocessing: by which the picture became the input.
        size: (height, width) of the upright picture.
        best: the class of the largest score, integers [h, w], where the network says it itself.

    Returns:
        uint8 [height, width]; 255 where "crop" has cut the picture off.

    Raises:
        ArgumentError: more than 255 classes.
    """
    if logits.shape[2] > MAX_CLASSES:
        raise ArgumentError(f"{logits.shape[2]} classes: a class map has at most {MAX_CLASSES}")
    height, width = size
    (left, top, right, bottom), (first_x, first_y, last_x, last_y) = preprocessing.placement(width, height)
    down = logits.shape[0] / preprocessing.height
    across = logits.shape[1] / preprocessing.width
    rows = _axis(height, (top, bottom), (first_y * down, last_y * down), logits.shape[0])
    columns = _axis(width, (left, right), (first_x * across, last_x * across), logits.shape[1])
    nearest = (logits.argmax(2) if best is None else best).astype(np.uint8)
    classes = nearest[rows.low][:, columns.low]
    _settle(classes, nearest, logits, rows, columns)
    classes[~rows.seen] = IGNORED
    classes[:, ~columns.seen] = IGNORED
    return classes


class _Axis(NamedTuple):
    """For each pixel of the picture: two neighbours in the map, the second one's share, whether it was seen."""

    low: NDArray[np.intp]
    high: NDArray[np.intp]
    share: NDArray[np.float32]
    seen: NDArray[np.bool_]


def _axis(count: int, window: tuple[float, float], part: tuple[float, float], size: int) -> _Axis:
    centres = np.arange(count) + 0.5
    position = part[0] + (centres - window[0]) * ((part[1] - part[0]) / (window[1] - window[0])) - 0.5
    # the pixels of the map that lie in the part: at least one, even where the part is narrower than a pixel
    first = min(int(np.ceil(part[0] - 1e-6)), size - 1)
    last = max(min(int(np.floor(part[1] + 1e-6)), size) - 1, first)
    position = np.clip(position, first, last)
    low = np.floor(position).astype(np.intp)
    share = (position - low).astype(np.float32)
    share[share < 1e-6] = 0
    high = np.minimum(low + (share > 0), last)
    seen = (centres > window[0] - 0.5) & (centres < window[1] + 0.5)
    return _Axis(low, high, share, seen)


def _settle(classes: ClassMap, best: ClassMap, logits: NDArray[np.floating], rows: _Axis, columns: _Axis) -> None:
    """Where the four neighbours' classes are one, interpolation gives it too; elsewhere the scores decide."""
    down = best[rows.high]
    unclear = classes != down[:, columns.low]
    unclear |= classes != best[rows.low][:, columns.high]
    unclear |= classes != down[:, columns.high]
    ys, xs = np.nonzero(unclear)
    for start in range(0, len(ys), STRIP):
        y, x = ys[start : start + STRIP], xs[start : start + STRIP]
        below, beside = rows.share[y, None], columns.share[x, None]
        (top, bottom), (left, right) = (rows.low[y], rows.high[y]), (columns.low[x], columns.high[x])
        upper = logits[top, left] * (1 - beside) + logits[top, right] * beside
        lower = logits[bottom, left] * (1 - beside) + logits[bottom, right] * beside
        classes[y, x] = (upper * (1 - below) + lower * below).argmax(1)

"""Which boxes stay: greedy non-maximum suppression.

Boxes come in the order of preference. The first one stays; each further one stays unless its IoU with a box that
stayed, of the same class, is above the threshold. Every operation is in float32, in this order:

    across = max(min(right, right') - max(left, left'), 0)      down likewise
    shared = across * down            area = (right - left) * (bottom - top)
    IoU = shared / ((area + area') - shared), with the box that stayed first

A NaN (two boxes without area) is not above any threshold. The loop ends when `most` boxes stayed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Boxes = NDArray[np.float32]

CHUNK = 256  # boxes compared at a time: the matrix stays in the processor's cache
FEW = 6  # where fewer than one pair in so many is of one class, only those are looked at


def ious(first: Boxes, second: Boxes) -> Boxes:
    """IoU of boxes with boxes, float32 [..., 4] each, as numpy broadcasts: (N, 1, 4) and (M, 4) give (N, M)."""
    left, top, right, bottom = (np.ascontiguousarray(first[..., side]) for side in range(4))
    other_left, other_top, other_right, other_bottom = (np.ascontiguousarray(second[..., n]) for n in range(4))
    across = np.minimum(right, other_right)
    across -= np.maximum(left, other_left)
    down = np.minimum(bottom, other_bottom)
    down -= np.maximum(top, other_top)
    np.maximum(across, 0, out=across)
    np.maximum(down, 0, out=down)
    across *= down
    total = (right - left) * (bottom - top) + (other_right - other_left) * (other_bottom - other_top)
    total -= across
    with np.errstate(invalid="ignore", divide="ignore"):
        across /= total
    return across


def suppressed(
    boxes: Boxes, classes: NDArray[np.int64] | None, iou_threshold: float, most: int
) -> NDArray[np.int64]:
    """The places of the boxes that stay, in order.

    Args:
        boxes: float32 (N, 4) of (left, top, right, bottom), the preferred ones first.
        classes: (N); None: any box suppresses any other.
        iou_threshold: compared as float32.
        most: how many stay at most, at least 1.
    """
    threshold = np.float32(iou_threshold)
    kept: NDArray[np.int64] = np.empty(0, np.int64)
    for start in range(0, len(boxes), CHUNK):
        places = np.arange(start, min(start + CHUNK, len(boxes)))
        if len(kept):
            places = places[~_overlap(boxes, classes, kept, places, threshold).any(axis=0)]
        chosen = _greedy(_overlap(boxes, classes, places, places, threshold))
        kept = np.concatenate([kept, places[chosen]])
        if len(kept) >= most:
            return kept[:most]
    return kept


def _overlap(
    boxes: Boxes,
    classes: NDArray[np.int64] | None,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    threshold: np.float32,
) -> NDArray[np.bool_]:
    if classes is None:
        return np.asarray(ious(boxes[first, None], boxes[second]) > threshold)
    same: NDArray[np.bool_] = classes[first, None] == classes[second]
    rows, columns = np.nonzero(same)
    if FEW * len(rows) > same.size:
        return np.asarray(ious(boxes[first, None], boxes[second]) > threshold) & same
    same[rows, columns] = ious(boxes[first[rows]], boxes[second[columns]]) > threshold
    return same


def _greedy(over: NDArray[np.bool_]) -> list[int]:
    """Places that stay, given who is over the threshold with whom: a row of bits is one whole number of Python."""
    packed = np.packbits(over, axis=1, bitorder="little")
    gone, kept = 0, []
    for place in range(len(over)):
        if not gone >> place & 1:
            kept.append(place)
            gone |= int.from_bytes(packed[place].tobytes(), "little")
    return kept

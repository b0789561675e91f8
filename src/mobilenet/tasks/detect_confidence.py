"""From which confidence on a detector's boxes are worth showing: where precision and recall are best together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mobilenet.pictures.boxes import BoxedPicture
    from mobilenet.tasks.detect import Boxes

LEAST_IOU = 0.5
USUAL = 0.25  # where nothing can be measured
BOUNDS = (0.05, 0.95)


class AtConfidence(NamedTuple):
    """Of the boxes from a confidence on: how many are right, and how many objects are found, all classes together.

    `precision`, `recall` and `f1`, their harmonic mean, are 0 to 1.
    """

    confidence: float
    precision: float
    recall: float
    f1: float


def best_confidence(pictures: Sequence[BoxedPicture], found: Sequence[Boxes]) -> AtConfidence:
    """The confidence with the highest F1, from 0.05 to 0.95; 0.25 if nothing is found at all.

    A box is right if it overlaps an object of its class, which no more probable box has taken, with an IoU of at
    least 0.5. Boxes on ignored objects count neither way.
    """
    scores, hits, objects = _ranked(pictures, found)
    usable = (scores >= BOUNDS[0]) & (scores <= BOUNDS[1])
    usable[:-1] &= scores[1:] < scores[:-1]  # boxes of one confidence are shown together
    if not objects or not (usable & (hits > 0)).any():
        return AtConfidence(USUAL, 0.0, 0.0, 0.0)
    f1 = np.where(usable, 2 * hits / (np.arange(1, len(hits) + 1) + objects), -1.0)
    best = int(f1.argmax())
    below = float(scores[best + 1]) if best + 1 < len(scores) else BOUNDS[0]
    middle = (float(scores[best]) + max(below, BOUNDS[0])) / 2  # a little less sure would have been as good
    return _at(round(middle, 4), best + 1, int(hits[best]), objects)


def at_confidence(pictures: Sequence[BoxedPicture], found: Sequence[Boxes], confidence: float) -> AtConfidence:
    """What the boxes above a given confidence are worth; see `best_confidence`."""
    scores, hits, objects = _ranked(pictures, found)
    count = int((scores > confidence).sum())
    return _at(confidence, count, int(hits[count - 1]) if count else 0, objects)


def _at(confidence: float, boxes: int, hits: int, objects: int) -> AtConfidence:
    f1 = 2 * hits / max(boxes + objects, 1)
    return AtConfidence(confidence, hits / max(boxes, 1), hits / max(objects, 1), f1)


def _ranked(
    pictures: Sequence[BoxedPicture], found: Sequence[Boxes]
) -> tuple[NDArray[np.float64], NDArray[np.int64], int]:
    """Falling confidences of all boxes, how many up to each are right, and how many objects there are."""
    objects = sum(int((~picture.ignored).sum()) for picture in pictures)
    matched = [match(picture, boxes).right for picture, boxes in zip(pictures, found, strict=True)]
    scores = np.concatenate([boxes.conf for boxes in found]) if found else np.zeros(0, np.float32)
    right = np.concatenate(matched) if matched else np.zeros(0, np.int8)
    scores, right = scores[right >= 0], right[right >= 0]
    order = np.argsort(-scores, kind="stable")
    return scores[order].astype(np.float64), np.cumsum(right[order], dtype=np.int64), objects


class Match(NamedTuple):
    """Which boxes of a picture are right, and which of its objects are found.

    `right`: int8 (N), 1 if the box is right, 0 if not, -1 if it lies on an ignored object; `taken`: bool (M),
    whether a box has found the object.
    """

    right: NDArray[np.int8]
    taken: NDArray[np.bool_]


def match(picture: BoxedPicture, boxes: Boxes) -> Match:
    """Boxes take objects in turn, the most probable first, as `best_confidence` says."""
    result = np.zeros(len(boxes), np.int8)
    overlaps = _ious(boxes.xyxy.astype(np.float64), picture.boxes.astype(np.float64))
    free = np.ones(len(picture.labels), bool)
    for row in np.argsort(-boxes.conf, kind="stable").tolist():
        candidates = (picture.labels == boxes.cls[row]) & (overlaps[row] >= LEAST_IOU)
        own = np.flatnonzero(candidates & free & ~picture.ignored)
        if len(own):
            best = own[overlaps[row, own].argmax()]
            free[best], result[row] = False, 1
        elif (candidates & picture.ignored).any():
            result[row] = -1
    return Match(result, ~free)


def _ious(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 4) with (M, 4): (N, M)."""
    corner = np.maximum(first[:, None, :2], second[None, :, :2])
    other = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(other - corner, 0, None).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clip(0).prod(-1) for boxes in (first, second)]
    together = areas[0][:, None] + areas[1][None] - shared
    return np.asarray(shared / np.maximum(together, 1e-12))

"""The HTML report of a detector: what its own threshold lets pass is counted, and the worst pictures are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenet.pictures.decode import decode
from mobilenet.report.detection_page import Failure, Shown, detection_report
from mobilenet.report.draw_matched import draw_matched
from mobilenet.report.page import jpeg
from mobilenet.tasks.detect import Boxes
from mobilenet.tasks.detect_confidence import Match, match
from mobilenet.tasks.detection_metrics import object_sizes
from mobilenet.tasks.evaluate import model_info, report_title

if TYPE_CHECKING:
    from mobilenet.model import Model
    from mobilenet.pictures.boxes import BoxedPicture
    from mobilenet.tasks.detection_metrics import DetectionMetrics

WORST_PICTURES = 12
SIDE = 480  # of a drawn picture, in pixels


@dataclass(frozen=True)
class _Matched:
    """A picture with the boxes above a confidence."""

    picture: BoxedPicture
    boxes: Boxes
    match: Match

    @property
    def missed(self) -> int:
        return int((~self.match.taken & ~self.picture.ignored).sum())

    @property
    def badness(self) -> float:
        """Missed objects, and false boxes by their confidence."""
        return self.missed + float(self.boxes.conf[self.match.right == 0].sum())


def detector_page(
    model: Model,
    metrics: Mapping[str, Any],
    measured: DetectionMetrics,
    pictures: Sequence[BoxedPicture],
    found: Sequence[Boxes],
) -> str:
    """The page's text.

    Args:
        model: the detector.
        metrics: what `evaluate_detector` gives.
        measured: of which `metrics` has the figures.
        pictures: with their objects; only the worst are opened, one after the other.
        found: all boxes of each.

    Raises:
        ImageError: a picture cannot be read any more.
    """
    names, confidence = tuple(metrics["per_class"]), metrics["confidence"]["confidence"]
    shown = shown_boxes(pictures, found, len(names), confidence)
    worst = [_matched(pictures[number], found[number], confidence) for number in shown.worst]
    decoding = model.decoding
    assert decoding is not None
    rule = f"above {confidence:.1%} confidence, overlapping by an IoU of at most {decoding.iou_threshold:g}"
    return detection_report(
        metrics,
        title=report_title(model, metrics),
        model_info=model_info(model) | {"Boxes shown": rule},
        curves=measured.curves(),
        sizes=object_sizes(pictures),
        shown=shown,
        failures=[_failure(one, names) for one in worst],
    )


def shown_boxes(
    pictures: Sequence[BoxedPicture], found: Sequence[Boxes], classes: int, confidence: float
) -> Shown:
    """What the boxes above a confidence are, at an IoU of 0.5, and the pictures that went worst."""
    right, false = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    badness = np.zeros(len(pictures))
    for number, (picture, boxes) in enumerate(zip(pictures, found, strict=True)):
        one = _matched(picture, boxes, confidence)
        right += np.bincount(one.boxes.cls[one.match.right == 1], minlength=classes)
        false += np.bincount(one.boxes.cls[one.match.right == 0], minlength=classes)
        badness[number] = one.badness
    bad = np.flatnonzero(badness > 0).tolist()
    worst = nsmallest(WORST_PICTURES, bad, key=lambda number: (-badness[number], number))
    return Shown(tuple(right.tolist()), tuple(false.tolist()), len(pictures) - len(bad), tuple(worst))


def _matched(picture: BoxedPicture, boxes: Boxes, confidence: float) -> _Matched:
    kept = boxes.conf.astype(np.float64) > confidence  # as `at_confidence` compares them
    shown = Boxes(boxes.xyxy[kept], boxes.conf[kept], boxes.cls[kept], boxes.size)
    return _Matched(picture, shown, match(picture, shown))


def _failure(one: _Matched, names: Sequence[str]) -> Failure:
    false = one.boxes.conf[one.match.right == 0]
    drawn = draw_matched(decode(one.picture.path), one.picture, one.boxes, one.match, names, SIDE)
    return Failure(
        path=str(one.picture.path),
        found=int((one.match.right == 1).sum()),
        missed=one.missed,
        false=len(false),
        surest=float(false.max(initial=0.0)),
        drawn_jpeg=jpeg(drawn),
    )

"""How good a detector is on pictures with boxes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenet.errors import ArgumentError, DataError
from mobilenet.pictures.boxes import BoxedPicture, BoxFolder, read_boxes
from mobilenet.report.page import check_target, write_html
from mobilenet.tasks.detect import Boxes, detection_of
from mobilenet.tasks.detect_confidence import at_confidence
from mobilenet.tasks.detect_report import detector_page
from mobilenet.tasks.detection_metrics import MEASURED_FROM, detection_metrics

if TYPE_CHECKING:
    from mobilenet.family.decoding import Decoding
    from mobilenet.model import Model

Progress = Callable[[int, int], None]


def evaluate_detector(
    model: Model,
    data: str | os.PathLike[str],
    *,
    split: str = "test",
    batch: int = 1,
    on_bad_picture: str = "stop",
    report: str | os.PathLike[str] | None = None,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """COCO's figures on one split, of all boxes, and how right those are that the model's own threshold lets pass.

    Args:
        model: a detector. Its labels are the classes; without labels, those of the data, in their order.
        data: a folder or file (`mobilenet.pictures.boxes`).
        split: train, val, test, or all.
        batch: how many pictures run at once.
        on_bad_picture: stop, or skip: boxes and pictures that cannot be used are counted in `skipped`.
        report: where to write a self-contained HTML report.
        on_progress: is called with (pictures done, pictures in all).

    Returns:
        What `DetectionMetrics.to_dict` gives; `confidence`: of the boxes that the model gives when it is used,
        their least confidence, precision, recall and f1; and latency_ms (median), data, split, skipped.

    Raises:
        DataError: the data or split cannot be used, or something in it is bad and `on_bad_picture` is stop.
        ArgumentError: the model is no detector or has another number of classes, the report cannot be written, or
            another `on_bad_picture`.
        MissingExtraError: faster-coco-eval is not installed.
    """
    model._need("detect")
    if on_bad_picture not in ("stop", "skip"):
        raise ArgumentError(f"on_bad_picture is stop or skip, not {on_bad_picture!r}")
    if report is not None:
        check_target(report)
    folder = read_boxes(os.fspath(data), classes=model.labels or None, on_bad_box=on_bad_picture)
    if len(folder.classes) != len(model.names):
        raise ArgumentError(f"the model finds {len(model.names)} classes, the data have {len(folder.classes)}")
    pictures = _pictures(folder, split)
    measured: list[BoxedPicture] = []
    found: list[Boxes] = []
    milliseconds: list[float] = []
    answers = model.answers((picture.path for picture in pictures), batch=batch)
    for done, (picture, answer) in enumerate(zip(pictures, answers, strict=True), 1):
        if answer.error is None:
            result = detection_of(model, answer, all_boxes(model.decoding))
            measured.append(picture)
            found.append(result.boxes)
            milliseconds.append(sum(result.speed.values()))
        elif on_bad_picture == "stop":
            raise DataError(f"{answer.error} (on_bad_picture=skip leaves such pictures out)") from answer.error
        if on_progress:
            on_progress(done, len(pictures))
    if not measured:
        raise DataError(f"{os.fspath(data)}: there is no good picture to evaluate on")
    assert model.decoding is not None
    figures = detection_metrics(measured, found, folder.classes)
    metrics = figures.to_dict() | {
        "confidence": at_confidence(measured, found, model.decoding.score_threshold)._asdict(),
        "latency_ms": round(float(np.median(milliseconds)), 3),
        "data": os.fspath(data),
        "split": split,
        "skipped": len(folder.skipped) + len(pictures) - len(measured),
    }
    if report is not None:
        write_html(report, detector_page(model, metrics, figures, measured, found))
    return metrics


def all_boxes(decoding: Decoding | None) -> Decoding:
    """The same without a threshold that would hide boxes which COCO's figures count."""
    assert decoding is not None
    return replace(decoding, score_threshold=min(decoding.score_threshold, MEASURED_FROM))


def _pictures(folder: BoxFolder, split: str) -> list[BoxedPicture]:
    if split == "all":
        return list(chain(*folder.splits.values()))
    if split not in folder.splits:
        raise DataError(f"{folder.root}: has no split {split!r}; it has {', '.join(folder.splits)}, all")
    return list(folder.splits[split])

"""How good a segmenter is on pictures with masks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenet.errors import ArgumentError, DataError, ImageError
from mobilenet.pictures.mask_set import MaskSample, load_mask
from mobilenet.pictures.masks import read_masks
from mobilenet.report.page import check_target, write_html
from mobilenet.tasks.segment import segmentation_of
from mobilenet.tasks.segment_report import WorstMasks, segmenter_page
from mobilenet.tasks.segmentation_metrics import SegmentationMeter

if TYPE_CHECKING:
    from mobilenet.model import Answer, Model

Progress = Callable[[int, int], None]


def evaluate_segmenter(
    model: Model,
    data: str | os.PathLike[str],
    *,
    split: str = "test",
    batch: int = 1,
    on_bad_picture: str = "stop",
    report: str | os.PathLike[str] | None = None,
    on_progress: Progress | None = None,
    boundaries: bool = True,
) -> dict[str, Any]:
    """Agreement with the masks of one split, at the pictures' own sizes.

    Args:
        model: a segmenter with as many classes as the data; if both have names, the same ones in the same order.
        data: a folder or COCO file (`mobilenet.pictures.masks`).
        split: train, val, test, or all.
        batch: how many pictures run at once.
        on_bad_picture: stop, or skip: pictures and masks that cannot be used are counted in `skipped`.
        report: where to write a self-contained HTML report.
        on_progress: is called with (pictures done, pictures in all).
        boundaries: whether boundary F is measured, too.

    Returns:
        What `SegmentationMeter.results` gives, and latency_ms (median, without reading the mask), data, split,
        skipped.

    Raises:
        DataError: the data or split cannot be used, or a picture is bad and `on_bad_picture` is stop.
        ArgumentError: the model is no segmenter, the report cannot be written, or another `on_bad_picture`.
    """
    model._need("segment")
    if on_bad_picture not in ("stop", "skip"):
        raise ArgumentError(f"on_bad_picture is stop or skip, not {on_bad_picture!r}")
    if report is not None:
        check_target(report)
    folder = read_masks(Path(data), classes=model.labels or None, on_missing=on_bad_picture)
    samples = folder.samples(split)
    meter = SegmentationMeter(len(model.names), boundaries=boundaries)
    worst = None if report is None else WorstMasks()
    milliseconds: list[float] = []
    skipped = len(folder.skipped)
    answers = model.answers((sample.path for sample in samples), batch=batch)
    for done, (sample, answer) in enumerate(zip(samples, answers, strict=True), 1):
        try:
            milliseconds.append(_measure(model, sample, answer, meter, worst))
        except (ImageError, DataError) as error:
            if on_bad_picture == "stop":
                raise DataError(f"{error} (on_bad_picture=skip leaves such pictures out)") from error
            skipped += 1
        if on_progress:
            on_progress(done, len(samples))
    if not milliseconds:
        raise DataError(f"{os.fspath(data)}: there is no good picture to evaluate on")
    metrics = meter.results(model.names) | {
        "latency_ms": round(float(np.median(milliseconds)), 3),
        "data": os.fspath(data),
        "split": split,
        "skipped": skipped,
    }
    if report is not None and worst is not None:
        write_html(report, segmenter_page(model, metrics, worst))
    return metrics


def _measure(
    model: Model, sample: MaskSample, answer: Answer, meter: SegmentationMeter, worst: WorstMasks | None
) -> float:
    if answer.error:
        raise answer.error
    result = segmentation_of(model, answer)
    truth = load_mask(sample, (result.masks.shape[0], result.masks.shape[1]), meter.classes)
    iou = meter.add(result.masks, truth)
    if worst is not None:
        worst.add(sample.path, iou, truth, result.masks)
    return float(sum(result.speed.values()))

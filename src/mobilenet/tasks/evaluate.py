"""How good a classifier is on labelled pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenet.errors import DataError, ImageError
from mobilenet.pictures.decode import decode
from mobilenet.pictures.folders import Sample, read_dataset
from mobilenet.report.html import Mistake, evaluation_report
from mobilenet.report.page import check_target, thumbnail_jpeg, write_html
from mobilenet.tasks.metrics import classification_metrics, reliability_bins, worst_mistakes

if TYPE_CHECKING:
    from mobilenet.model import Model

WORST_MISTAKES = 24
Progress = Callable[[int, int], None]


@dataclass
class _Scores:
    """What the model said of each good picture."""

    samples: list[Sample] = field(default_factory=list)
    calibrated: list[np.ndarray] = field(default_factory=list)
    uncalibrated: list[np.ndarray] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    bad: list[ImageError] = field(default_factory=list)


def evaluate(
    model: Model,
    data: str | os.PathLike[str],
    *,
    split: str = "test",
    batch: int = 1,
    on_bad_picture: str = "stop",
    report: str | os.PathLike[str] | None = None,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Accuracy, calibration and speed of a classifier on one split of labelled pictures.

    Args:
        model: a classifier; its labels are matched with the data's classes by name.
        data: a folder or CSV file (`mobilenet.pictures.folders`).
        split: train, val, test, or all: every picture there is.
        batch: how many pictures run at once.
        on_bad_picture: stop, or skip (then the result says how many were skipped).
        report: where to write a self-contained HTML report.
        on_progress: is called with (pictures done, pictures in all).

    Returns:
        `classification_metrics` (top1, top5, images, per_class, confusion, ece, ece_uncalibrated, nll), and
        latency_ms (median from file to answer), data, split, skipped.

    Raises:
        DataError: the data or split cannot be used, or a picture is bad and `on_bad_picture` is stop.
        ArgumentError: the model is no classifier, or the report cannot be written.
    """
    if report is not None:
        check_target(report)
    samples = _samples(data, split, model.names if model.labels else ())
    scores = _score(model, samples, batch, on_bad_picture, on_progress)
    targets = np.array([sample.label for sample in scores.samples])
    probabilities, uncalibrated = np.stack(scores.calibrated), np.stack(scores.uncalibrated)
    metrics = classification_metrics(probabilities, targets, model.names, uncalibrated=uncalibrated)
    metrics |= {
        "latency_ms": round(float(np.median(scores.milliseconds)), 3),
        "data": os.fspath(data),
        "split": split,
        "skipped": len(scores.bad),
    }
    if report is not None:
        write_html(report, _report(model, metrics, scores, probabilities, targets))
    return metrics


def _samples(data: str | os.PathLike[str], split: str, labels: Sequence[str]) -> tuple[Sample, ...]:
    folder = read_dataset(Path(data), classes=labels or None)
    if split == "all":
        return tuple(sample for part in folder.splits.values() for sample in part)
    if split not in folder.splits:
        raise DataError(f"{data}: there is no split '{split}'; there are {', '.join(folder.splits)}, and all")
    return folder.splits[split]


def _score(
    model: Model, samples: Sequence[Sample], batch: int, on_bad_picture: str, on_progress: Progress | None
) -> _Scores:
    scores = _Scores()
    answers = model.answers((sample.path for sample in samples), batch=batch)
    for done, (sample, answer) in enumerate(zip(samples, answers, strict=True), 1):
        if on_progress:
            on_progress(done, len(samples))
        if answer.error:
            if on_bad_picture == "stop":
                raise DataError(f"{answer.error} (on_bad_picture=skip leaves such pictures out)") from answer.error
            scores.bad.append(answer.error)
            continue
        outputs = {name: array[None] for name, array in answer.outputs.items()}
        scores.samples.append(sample)
        scores.calibrated.append(model.probabilities(outputs)[0])
        scores.uncalibrated.append(model.probabilities(outputs, calibrated=False)[0])
        scores.milliseconds.append(sum(answer.speed.values()))
    if not scores.samples:
        raise DataError("there is no good picture to evaluate on")
    return scores


def _report(
    model: Model, metrics: dict[str, Any], scores: _Scores, probabilities: np.ndarray, targets: np.ndarray
) -> str:
    reliability = {"As the network says": reliability_bins(np.stack(scores.uncalibrated), targets)}
    if model.calibration.get("temperature", 1.0) != 1.0:
        reliability["After temperature scaling"] = reliability_bins(probabilities, targets)
    worst = worst_mistakes(probabilities, targets, WORST_MISTAKES)
    return evaluation_report(
        metrics,
        title=report_title(model, metrics),
        model_info=model_info(model),
        classes=model.names,
        reliability=reliability,
        mistakes=[_mistake(model, scores.samples[i], probabilities[i]) for i in worst],
    )


def _mistake(model: Model, sample: Sample, probabilities: np.ndarray) -> Mistake:
    predicted = int(np.argmax(probabilities))
    return Mistake(
        path=str(sample.path),
        truth=model.names[sample.label],
        predicted=model.names[predicted],
        confidence=float(probabilities[predicted]),
        thumbnail_jpeg=thumbnail_jpeg(decode(sample.path)),
    )


def report_title(model: Model, metrics: Mapping[str, Any]) -> str:
    """What was measured on which pictures."""
    return f"{model.provenance.get('model', 'Model')} on {metrics['data']} ({metrics['split']})"


def model_info(model: Model) -> dict[str, str]:
    """What a reader of a report needs to know of the model, in words."""
    info = {
        "Model": str(model.provenance.get("model", "unknown")),
        "Preprocessing": model.preprocessing.describe() if model.preprocessing else "none",
        "Classes": str(len(model.names)),
        "Parameters": f"{sum(array.size for array in model.weights.values()):,}",
    }
    if "temperature" in model.calibration:
        info["Temperature"] = f"{model.calibration['temperature']:.3f}"
    return info

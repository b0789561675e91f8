"""An evaluation of a classifier as one HTML file that needs nothing else: no network, no server, no other file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenet.errors import ArgumentError
from mobilenet.report.confusion import Wording, confused_pairs, confusion_section
from mobilenet.report.page import (
    count_cell,
    escaped,
    facts_section,
    name_cell,
    page,
    picture,
    share_cell,
    sortable_table,
    tiles,
    words_section,
)
from mobilenet.report.svg import Bin, reliability_svg
from mobilenet.tasks.metrics import calibration_error_of_bins

METRIC_KEYS = ("top1", "top5", "images", "per_class", "confusion", "ece")
WORDING = Wording(unit="Times", none="No picture was named wrongly.")


@dataclass(frozen=True)
class Mistake:
    """A wrongly named picture: its file, the true and the predicted class, and a small JPEG of it.

    `confidence` is the probability (0..1) of the predicted class.
    """

    path: str
    truth: str
    predicted: str
    confidence: float
    thumbnail_jpeg: bytes


def evaluation_report(
    metrics: Mapping[str, Any],
    *,
    title: str,
    model_info: Mapping[str, str],
    classes: Sequence[str],
    reliability: Mapping[str, Sequence[Bin]] | None = None,
    mistakes: Sequence[Mistake] = (),
) -> str:
    """The text of one self-contained HTML page about one evaluation.

    `metrics` is what `mobilenet.tasks.metrics.classification_metrics` gives, and may add `latency_ms`;
    `model_info` is shown as a list of names and values; `classes` are the C names in the order of the
    confusion matrix; `reliability` maps the title of a diagram ("Before temperature scaling") to its bins;
    `mistakes` are shown most confident first. Every text is escaped, and the page's content security policy
    allows no script but its own. Raises `ArgumentError` if `metrics` lacks a key or does not fit `classes`.
    """
    _check(metrics, classes)
    confusion = np.asarray(metrics["confusion"], dtype=np.int64)
    parts = [
        _tiles(metrics, len(classes)),
        _words(metrics, classes, confusion),
        facts_section("The model", model_info),
        _per_class_section(metrics["per_class"], classes),
        confusion_section(confusion, classes, WORDING),
        _reliability_section(reliability or {}),
        _mistakes_section(mistakes, metrics),
    ]
    return page(title, parts)


def _check(metrics: Mapping[str, Any], classes: Sequence[str]) -> None:
    missing = [key for key in METRIC_KEYS if key not in metrics]
    if missing:
        raise ArgumentError(f"metrics lacks {', '.join(missing)}: pass what classification_metrics returned")
    shape = np.shape(metrics["confusion"])
    if shape != (len(classes), len(classes)):
        raise ArgumentError(f"metrics['confusion'] has shape {shape} for {len(classes)} classes")
    absent = [name for name in classes if name not in metrics["per_class"]]
    if absent:
        raise ArgumentError(f"metrics['per_class'] lacks the class {absent[0]!r}")


def _tiles(metrics: Mapping[str, Any], classes: int) -> str:
    values = [("Top-1 accuracy", f"{metrics['top1']:.1%}")]
    if classes > 5:
        values.append(("Top-5 accuracy", f"{metrics['top5']:.1%}"))
    values.append(("Pictures", f"{metrics['images']:,}"))
    values.append(("Classes", f"{classes:,}"))
    values.append(("Calibration error", f"{metrics['ece']:.1%}"))
    if metrics.get("latency_ms") is not None:
        values.append(("Per picture", f"{metrics['latency_ms']:.1f} ms"))
    return tiles(values)


def _words(metrics: Mapping[str, Any], classes: Sequence[str], confusion: NDArray[np.int64]) -> str:
    images = int(metrics["images"])
    right = int(np.trace(confusion))
    low, high = wilson_interval(right, images)
    sentences = [
        f"{right:,} of {images:,} pictures are named rightly. With that many pictures the accuracy on new "
        f"ones of the same kind is between {low:.1%} and {high:.1%} (95% Wilson interval).",
        _calibration_sentence(metrics),
        *_class_sentences(metrics["per_class"], classes),
    ]
    pairs = confused_pairs(confusion, 1)
    if pairs:
        truth, answer, count = pairs[0]
        sentences.append(
            f"The most frequent mistake: <b>{escaped(classes[truth])}</b> taken for "
            f"<b>{escaped(classes[answer])}</b>, {_times(count)}."
        )
    return words_section(sentences)


def wilson_interval(right: int, total: int, deviations: float = 1.96) -> tuple[float, float]:
    """The interval (low, high) in 0..1 of a share of which `right` of `total` were seen; Wilson 1927."""
    if total < 1:
        return 0.0, 1.0
    share, square = right / total, deviations**2
    centre = share + square / (2 * total)
    spread = deviations * math.sqrt(share * (1 - share) / total + square / (4 * total**2))
    scale = 1 + square / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def _calibration_sentence(metrics: Mapping[str, Any]) -> str:
    after, before = metrics["ece"], metrics.get("ece_uncalibrated", metrics["ece"])
    sentence = f"Its confidence is off by {after * 100:.1f} percentage points on average"
    if before != after:
        sentence += f"; before temperature scaling it was {before * 100:.1f}"
    return sentence + "."


def _class_sentences(per_class: Mapping[str, Mapping[str, Any]], classes: Sequence[str]) -> list[str]:
    seen = [name for name in classes if per_class[name]["images"]]
    sentences = []
    if len(seen) > 1:
        hardest = min(seen, key=lambda name: per_class[name]["f1"])
        row = per_class[hardest]
        sentences.append(
            f"The hardest class is <b>{escaped(hardest)}</b>: {row['recall']:.0%} of its pictures are found, and "
            f"{row['precision']:.0%} of the answers with its name are right."
        )
    if len(seen) < len(classes):
        sentences.append(f"{len(classes) - len(seen):,} of {len(classes):,} classes have no picture here.")
    return sentences


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _per_class_section(per_class: Mapping[str, Mapping[str, Any]], classes: Sequence[str]) -> str:
    headings = [("Class", True), ("Pictures", False), ("Precision", False), ("Recall", False), ("F1", False)]
    rows = []
    for name in classes:
        row = per_class[name]
        shares = "".join(share_cell(row[key]) for key in ("precision", "recall", "f1"))
        rows.append(f"<tr>{name_cell(name)}{count_cell(row['images'])}{shares}</tr>")
    return (
        '<section><h2>Every class</h2><p class="faint">Precision: how many of the answers with this name are '
        "right. Recall: how many of its pictures are found. F1: their harmonic mean. Click a heading to "
        f"sort.</p>{sortable_table(headings, rows)}</section>"
    )


def _reliability_section(reliability: Mapping[str, Sequence[Bin]]) -> str:
    if not reliability:
        return ""
    figures = "".join(_reliability_figure(title, bins) for title, bins in reliability.items())
    return (
        '<section><h2>Can its confidence be trusted?</h2><p class="faint">Of the answers given with a '
        "confidence of 80%, 80% should be right: bars that end on the dashed line. Small bars below: how many "
        'pictures.</p><p class="faint"><span class="key accuracy"></span>right<span class="key over"></span>'
        'too sure<span class="key under"></span>too modest<span class="key count"></span>pictures</p>'
        f'<div class="columns">{figures}</div></section>'
    )


def _reliability_figure(title: str, bins: Sequence[Bin]) -> str:
    caption = f"{escaped(title)}: calibration error {calibration_error_of_bins(bins):.1%}"
    return f"<figure><figcaption>{caption}</figcaption>{reliability_svg(bins, caption)}</figure>"


def _mistakes_section(mistakes: Sequence[Mistake], metrics: Mapping[str, Any]) -> str:
    wrong = int(metrics["images"]) - int(np.trace(np.asarray(metrics["confusion"])))
    if not mistakes:
        return "" if wrong else "<section><h2>Mistakes</h2><p>There are none.</p></section>"
    ordered = sorted(mistakes, key=lambda mistake: -mistake.confidence)
    cards = "".join(_mistake_card(mistake) for mistake in ordered)
    return (
        f'<section><h2>The worst mistakes</h2><p class="faint">{len(mistakes):,} of {wrong:,} wrong answers, '
        "the surest first. Look for wrong labels here: they often come first.</p>"
        f'<div class="mistakes">{cards}</div></section>'
    )


def _mistake_card(mistake: Mistake) -> str:
    image = picture(mistake.thumbnail_jpeg, f"{mistake.truth}, taken for {mistake.predicted}")
    return (
        f'<figure><div class="frame">{image}</div>'
        f'<figcaption><span class="predicted">{escaped(mistake.predicted)}</span> {mistake.confidence:.1%}<br>'
        f'truth: <span class="truth">{escaped(mistake.truth)}</span>'
        f'<span class="path">{escaped(mistake.path)}</span></figcaption></figure>'
    )

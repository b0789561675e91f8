"""An evaluation of a segmenter as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenet.pictures.palette import IGNORED, voc_palette
from mobilenet.report.confusion import Wording, answer_names, confused_pairs, confusion_section
from mobilenet.report.overlays import untinted
from mobilenet.report.page import (
    count_cell,
    escaped,
    facts_section,
    key,
    name_cell,
    page,
    percent,
    picture,
    share_cell,
    sortable_table,
    tiles,
    words_section,
)

WORDING = Wording(unit="Pixels", none="No pixel was named wrongly.", shares=True)
FIGURES = ("iou", "accuracy", "precision", "boundary_f")


@dataclass(frozen=True)
class Failure:
    """A picture that went wrong: its file, its own mIoU (0..1), the class numbers in it, and a small JPEG.

    The JPEG has the picture, the truth and the answer beside each other; `classes` are those of both maps.
    """

    path: str
    iou: float
    classes: tuple[int, ...]
    drawn_jpeg: bytes


def segmentation_report(
    metrics: Mapping[str, Any],
    *,
    title: str,
    model_info: Mapping[str, str],
    failures: Sequence[Failure] = (),
) -> str:
    """The text of one self-contained HTML page about one evaluation; every text is escaped.

    Args:
        metrics: what `mobilenet.tasks.segment_evaluate.evaluate_segmenter` gives.
        title: of the page.
        model_info: names and values.
        failures: the worst first.
    """
    classes = list(metrics["per_class"])
    confusion = np.asarray(metrics["confusion"], np.int64)
    parts = [
        _tiles(metrics),
        _words(metrics, classes, confusion),
        facts_section("The model", model_info),
        _per_class_section(metrics["per_class"]),
        confusion_section(confusion, classes, WORDING),
        _failures_section(failures, classes),
    ]
    return page(title, parts)


def _tiles(metrics: Mapping[str, Any]) -> str:
    values = [("Mean IoU", percent(metrics["miou"])), ("Pixel accuracy", percent(metrics["pixel_accuracy"]))]
    if metrics["boundary_f"] is not None:
        values.append(("Boundary F", percent(metrics["boundary_f"])))
    values.append(("Pictures", f"{metrics['images']:,}"))
    values.append(("Classes", f"{len(metrics['per_class']):,}"))
    values.append(("Per picture", f"{metrics['latency_ms']:.1f} ms"))
    return tiles(values)


def _words(metrics: Mapping[str, Any], classes: Sequence[str], confusion: NDArray[np.int64]) -> str:
    right, total = int(np.trace(confusion)), int(confusion.sum())
    sentences = [
        f"{right:,} of {total:,} pixels are named rightly: {right / total:.1%}. Large classes weigh most in that; "
        f"in the mean IoU, {percent(metrics['miou'])}, all classes weigh the same.",
        *_class_sentences(metrics["per_class"]),
        _confusion_sentence(classes, confusion),
    ]
    if metrics.get("skipped"):
        sentences.append(f"{metrics['skipped']:,} pictures or masks that cannot be used were skipped.")
    return words_section(sentences)


def _class_sentences(per_class: Mapping[str, Mapping[str, Any]]) -> list[str]:
    seen = [name for name, row in per_class.items() if row["pixels"]]
    sentences = []
    if len(seen) > 1:
        hardest = min(seen, key=lambda name: per_class[name]["iou"])
        row = per_class[hardest]
        right = (
            "no pixel has got its name"
            if row["precision"] is None
            else (f"{row['precision']:.0%} of those with its name are right")
        )
        sentences.append(
            f"The hardest class is <b>{escaped(hardest)}</b>, with an IoU of {row['iou']:.1%}: "
            f"{row['accuracy']:.0%} of its pixels are found, and {right}."
        )
    if len(seen) < len(per_class):
        missing = len(per_class) - len(seen)
        sentences.append(f"{missing:,} of {len(per_class):,} classes have no pixel here.")
    return sentences


def _confusion_sentence(classes: Sequence[str], confusion: NDArray[np.int64]) -> str:
    pairs = confused_pairs(confusion, 1)
    if not pairs:
        return ""
    truth, answer, count = pairs[0]
    share = count / int(confusion[truth].sum())
    return (
        f"The largest mistake: <b>{escaped(classes[truth])}</b> taken for "
        f"<b>{escaped(answer_names(classes)[answer])}</b>, {count:,} pixels, {share:.1%} of that class."
    )


def _per_class_section(per_class: Mapping[str, Mapping[str, Any]]) -> str:
    texts = ("Pixels", "IoU", "Recall", "Precision", "Boundary F")
    headings = [("Class", True), *((text, False) for text in texts)]
    rows = []
    for name, row in per_class.items():
        shares = "".join(share_cell(row[figure]) for figure in FIGURES)
        rows.append(f"<tr>{name_cell(name)}{count_cell(row['pixels'])}{shares}</tr>")
    return (
        '<section><h2>Every class</h2><p class="faint">IoU: of the pixels that have this name in the truth or in '
        "the answer, how many have it in both. Recall: how many of its pixels are found. Precision: how many of "
        "those with its name are right. Boundary F: how well its borders agree. Click a heading to sort.</p>"
        f"{sortable_table(headings, rows)}</section>"
    )


def _failures_section(failures: Sequence[Failure], classes: Sequence[str]) -> str:
    if not failures:
        return "<section><h2>The worst pictures</h2><p>There are none: every pixel is right.</p></section>"
    cards = "".join(_failure_card(failure) for failure in failures)
    return (
        '<section><h2>The worst pictures</h2><p class="faint">Those with the lowest mean IoU of their own: the '
        "picture, the truth, the answer. Look for wrong masks here: they often come first.</p>"
        f'<p class="legend">{_legend(failures, classes)}</p><div class="pictures">{cards}</div></section>'
    )


def _legend(failures: Sequence[Failure], classes: Sequence[str]) -> str:
    shown = {number for failure in failures for number in failure.classes} - set(untinted(classes))
    names = dict(enumerate(classes)) | {IGNORED: "no class"}
    return "".join(key(tuple(voc_palette()[number].tolist()), names[number]) for number in sorted(shown))


def _failure_card(failure: Failure) -> str:
    shown = picture(failure.drawn_jpeg, f"Picture, truth and answer, with a mean IoU of {failure.iou:.1%}")
    return (
        f"<figure>{shown}<figcaption>IoU {failure.iou:.1%}"
        f'<span class="path">{escaped(failure.path)}</span></figcaption></figure>'
    )

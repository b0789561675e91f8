"""An evaluation of a detector as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenet.report.boxes import SIZES
from mobilenet.report.draw_boxes import COLOURS
from mobilenet.report.draw_matched import LEGEND
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
from mobilenet.report.svg import curves_svg

Curves = Sequence[tuple[str, NDArray[np.float64]]]


@dataclass(frozen=True)
class Shown:
    """What the boxes are that the model's own threshold lets pass.

    `right` and `false` count them by class; `faultless` is how many pictures have neither a missed object nor a
    false box; `worst` are numbers of pictures, the worst first.
    """

    right: tuple[int, ...]
    false: tuple[int, ...]
    faultless: int
    worst: tuple[int, ...]


@dataclass(frozen=True)
class Failure:
    """A picture that went wrong, as a small JPEG with its boxes.

    `found`, `missed` and `false` count objects, objects and boxes; `surest` is the highest confidence (0..1) of a
    false box, 0 if there is none.
    """

    path: str
    found: int
    missed: int
    false: int
    surest: float
    drawn_jpeg: bytes


def detection_report(
    metrics: Mapping[str, Any],
    *,
    title: str,
    model_info: Mapping[str, str],
    curves: Curves,
    sizes: Mapping[str, int],
    shown: Shown,
    failures: Sequence[Failure] = (),
) -> str:
    """The text of one self-contained HTML page about one evaluation; every text is escaped.

    Args:
        metrics: what `mobilenet.tasks.detect_evaluate.evaluate_detector` gives.
        title: of the page.
        model_info: names and values.
        curves: class name, and precision at evenly spaced recalls, float (101).
        sizes: how many objects are `small`, `medium` and `large`.
        shown: what the model's own threshold lets pass.
        failures: the worst first.
    """
    parts = [
        _tiles(metrics),
        _words(metrics, shown, sizes),
        facts_section("The model", model_info),
        _per_class_section(metrics, shown),
        _sizes_section(metrics, sizes),
        _curves_section(metrics, curves),
        _failures_section(failures, metrics, shown),
    ]
    return page(title, parts)


def _tiles(metrics: Mapping[str, Any]) -> str:
    at = metrics["confidence"]
    sure = f"at {at['confidence']:.0%} confidence"
    return tiles(
        [
            ("AP, IoU 0.50 to 0.95", percent(metrics["ap"])),
            ("AP50", percent(metrics["ap50"])),
            ("AP75", percent(metrics["ap75"])),
            (f"Recall {sure}", percent(at["recall"])),
            (f"Precision {sure}", percent(at["precision"])),
            ("Pictures", f"{metrics['images']:,}"),
            ("Objects", f"{metrics['objects']:,}"),
            ("Per picture", f"{metrics['latency_ms']:.1f} ms"),
        ]
    )


def _words(metrics: Mapping[str, Any], shown: Shown, sizes: Mapping[str, int]) -> str:
    right, boxes = sum(shown.right), sum(shown.right) + sum(shown.false)
    least = f"{metrics['confidence']['confidence']:.1%}"
    sentences = [
        f"At the model's own threshold, {least}, {right:,} of {metrics['objects']:,} objects are found, and "
        f"{right:,} of {boxes:,} boxes are right."
        if boxes
        else f"No box is surer than the model's own threshold, {least}: it finds nothing.",
        f"{shown.faultless:,} of {metrics['images']:,} pictures have neither a missed object nor a false box.",
        _hardest(metrics, shown),
        _by_size(metrics, sizes),
    ]
    if metrics["ap50"] and metrics["ap75"] is not None:
        sentences.append(
            f"Of its AP50, {metrics['ap75'] / metrics['ap50']:.0%} is left where boxes must overlap by 0.75 in "
            "place of 0.5: what is lost is found, but not exactly."
        )
    if metrics.get("skipped"):
        sentences.append(f"{metrics['skipped']:,} boxes or pictures that cannot be used were skipped.")
    return words_section(sentences)


def _hardest(metrics: Mapping[str, Any], shown: Shown) -> str:
    seen = [(n, name) for n, (name, row) in enumerate(metrics["per_class"].items()) if row["objects"]]
    if len(seen) < 2:
        return ""
    number, name = min(seen, key=lambda item: metrics["per_class"][item[1]]["ap"])
    row = metrics["per_class"][name]
    return (
        f"The hardest class is <b>{escaped(name)}</b>: its AP is {row['ap']:.1%}, and "
        f"{shown.right[number] / row['objects']:.0%} of its {row['objects']:,} objects are found."
    )


def _by_size(metrics: Mapping[str, Any], sizes: Mapping[str, int]) -> str:
    known = [(metrics[figure], size) for size, figure in SIZES if metrics[figure] is not None]
    if len(known) < 2:
        return ""
    (low, worst), (high, best) = min(known), max(known)
    return (
        f"Of the sizes, it does worst on {worst} objects, of which there are {sizes[worst]:,} (AP {low:.1%}), "
        f"and best on {best} ones (AP {high:.1%})."
    )


def _per_class_section(metrics: Mapping[str, Any], shown: Shown) -> str:
    texts = ("Objects", "AP", "AP50", "Recall", "Precision")
    headings = [("Class", True), *((text, False) for text in texts)]
    rows = []
    for number, (name, row) in enumerate(metrics["per_class"].items()):
        right, boxes = shown.right[number], shown.right[number] + shown.false[number]
        shares = [row["ap"], row["ap50"], _share(right, row["objects"]), _share(right, boxes)]
        cells = "".join(share_cell(share) for share in shares)
        rows.append(f"<tr>{name_cell(name)}{count_cell(row['objects'])}{cells}</tr>")
    return (
        '<section><h2>Every class</h2><p class="faint">AP and AP50 count all boxes. Recall: how many of its '
        "objects are found by boxes that the model's own threshold lets pass. Precision: how many of those boxes "
        f"are right. Click a heading to sort.</p>{sortable_table(headings, rows)}</section>"
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _sizes_section(metrics: Mapping[str, Any], sizes: Mapping[str, int]) -> str:
    headings = [("Size", True), ("Objects", False), ("AP", False)]
    rows = [
        f"<tr>{name_cell(size)}{count_cell(sizes[size])}{share_cell(metrics[figure])}</tr>"
        for size, figure in SIZES
    ]
    return (
        '<section><h2>Small and large objects</h2><p class="faint">Small is below 32 × 32 pixels of the picture, '
        "large from 96 × 96 on.</p>"
        f"{sortable_table(headings, rows)}</section>"
    )


def _curves_section(metrics: Mapping[str, Any], curves: Curves) -> str:
    if not curves:
        return ""
    coloured = [(name, COLOURS[n % len(COLOURS)], values.tolist()) for n, (name, values) in enumerate(curves)]
    legend = "".join(
        key(colour, f"{name}: {percent(metrics['per_class'][name]['ap50'])}") for name, colour, _ in coloured
    )
    lines = [(escaped(name), colour, values) for name, colour, values in coloured]
    total = sum(row["objects"] > 0 for row in metrics["per_class"].values())
    some = f" The {len(curves):,} of {total:,} classes with most objects." if len(curves) < total else ""
    return (
        '<section><h2>Precision over recall</h2><p class="faint">At an IoU of 0.5, over all thresholds; the area '
        f'below a line is AP50.{some}</p><p class="legend">{legend}</p>'
        f"{curves_svg(lines, 'Precision over recall of each class')}</section>"
    )


def _failures_section(failures: Sequence[Failure], metrics: Mapping[str, Any], shown: Shown) -> str:
    if not failures:
        return (
            "<section><h2>The worst pictures</h2><p>There are none: all is found, and nothing else.</p></section>"
        )
    legend = "".join(key(colour, name) for colour, name in LEGEND)
    cards = "".join(_failure_card(failure) for failure in failures)
    return (
        f'<section><h2>The worst pictures</h2><p class="faint">{len(failures):,} of '
        f"{metrics['images'] - shown.faultless:,} with mistakes at the model's own threshold, matched at an IoU "
        "of 0.5. A missed object weighs 1, a false box its confidence. Look for objects that the data lack: they "
        f'are sure false boxes here.</p><p class="legend">{legend}</p>'
        f'<div class="pictures">{cards}</div></section>'
    )


def _failure_card(failure: Failure) -> str:
    surest = f", the surest {failure.surest:.0%}" if failure.false else ""
    counts = f"{failure.missed:,} missed, {failure.false:,} false{surest}; {failure.found:,} found"
    return (
        f"<figure>{picture(failure.drawn_jpeg, counts)}<figcaption>{counts}"
        f'<span class="path">{escaped(failure.path)}</span></figcaption></figure>'
    )

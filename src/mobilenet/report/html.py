"""An evaluation as one HTML file that needs nothing else: no network, no server, no other file."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenet.errors import ArgumentError
from mobilenet.report.draw import fit_picture
from mobilenet.report.svg import Bin, reliability_svg
from mobilenet.tasks.metrics import calibration_error_of_bins

LARGEST_MATRIX = 30
PAIRS_BESIDE_MATRIX = 8
PAIRS_ALONE = 40
METRIC_KEYS = ("top1", "top5", "images", "per_class", "confusion", "ece")


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


def thumbnail_jpeg(image: NDArray[np.uint8], size: int = 160) -> bytes:
    """JPEG bytes of `image`, uint8 [H, W, 3], its longer side at most `size` pixels, aspect ratio kept.

    A smaller picture is enlarged by a whole factor. Raises `ArgumentError` for another shape or dtype.
    """
    stream = io.BytesIO()
    fit_picture(image, size).save(stream, "JPEG", quality=82, optimize=True)
    return stream.getvalue()


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
    style, script = asset("report.css"), asset("report.js")
    confusion = np.asarray(metrics["confusion"], dtype=np.int64)
    parts = [
        f"<header><h1>{escaped(title)}</h1></header>",
        _tiles(metrics, len(classes)),
        _words(metrics, classes, confusion),
        _model_section(model_info),
        _per_class_section(metrics["per_class"], classes),
        _confusion_section(confusion, classes),
        _reliability_section(reliability or {}),
        _mistakes_section(mistakes, metrics),
        "<footer>Made by mobilenet. This file is complete: it loads nothing from elsewhere.</footer>",
    ]
    head = f"{content_policy(script)}<title>{escaped(title)}</title><style>{style}</style>"
    body = f"<main>{''.join(parts)}</main><script>{script}</script>"
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def asset(name: str) -> str:
    """The text of a file that lies beside this one: report.css, report.js."""
    return resources.files("mobilenet.report").joinpath(name).read_text("utf-8")


def content_policy(script: str) -> str:
    """The first lines of a page's head: it may run this script, and load nothing from elsewhere."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rules = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    return (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{rules}">'
    )


def escaped(value: object) -> str:
    """Anything as text that a page shows as it is, also within quotes."""
    # a file name that is not UTF-8 has lone surrogates, which no UTF-8 file can hold
    whole = str(value).encode("utf-8", "backslashreplace").decode("utf-8")
    return html.escape(whole, quote=True)


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
    tiles = [("Top-1 accuracy", f"{metrics['top1']:.1%}")]
    if classes > 5:
        tiles.append(("Top-5 accuracy", f"{metrics['top5']:.1%}"))
    tiles.append(("Pictures", f"{metrics['images']:,}"))
    tiles.append(("Classes", f"{classes:,}"))
    tiles.append(("Calibration error", f"{metrics['ece']:.1%}"))
    if metrics.get("latency_ms") is not None:
        tiles.append(("Per picture", f"{metrics['latency_ms']:.1f} ms"))
    cells = (
        f'<div class="tile{" first" if number == 0 else ""}"><b>{value}</b><span>{name}</span></div>'
        for number, (name, value) in enumerate(tiles)
    )
    return f'<div class="tiles">{"".join(cells)}</div>'


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
    pairs = _confused_pairs(confusion, 1)
    if pairs:
        truth, answer, count = pairs[0]
        sentences.append(
            f"The most frequent mistake: <b>{escaped(classes[truth])}</b> taken for "
            f"<b>{escaped(classes[answer])}</b>, {_times(count)}."
        )
    items = "".join(f"<li>{sentence}</li>" for sentence in sentences if sentence)
    return f'<section><h2>In words</h2><ul class="words">{items}</ul></section>'


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


def _model_section(model_info: Mapping[str, str]) -> str:
    if not model_info:
        return ""
    rows = "".join(f"<dt>{escaped(key)}</dt><dd>{escaped(value)}</dd>" for key, value in model_info.items())
    return f"<section><h2>The model</h2><dl>{rows}</dl></section>"


def sortable_table(headings: Sequence[tuple[str, bool]], rows: Sequence[str]) -> str:
    """A table that report.js sorts.

    Args:
        headings: a name, and whether the column is text.
        rows: of HTML, `<tr>` to `</tr>`; cells carry what they are sorted by in `data-value`.
    """
    head = "".join(
        f'<th scope="col"{" class=text" if is_text else ""}><button type="button">{name}</button></th>'
        for name, is_text in headings
    )
    return (
        f'<div class="scroll"><table class="list"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _name_cell(name: str) -> str:
    return f'<td class="text" data-value="{escaped(name)}">{escaped(name)}</td>'


def _count_cell(count: int) -> str:
    return f'<td data-value="{count}">{count:,}</td>'


def _share_cell(share: float) -> str:
    bar = f'<span class="bar" style="--share:{share:.4f}"></span>'
    return f'<td data-value="{share:.6f}">{share:.1%}{bar}</td>'


def _per_class_section(per_class: Mapping[str, Mapping[str, Any]], classes: Sequence[str]) -> str:
    headings = [("Class", True), ("Pictures", False), ("Precision", False), ("Recall", False), ("F1", False)]
    rows = []
    for name in classes:
        row = per_class[name]
        shares = "".join(_share_cell(row[key]) for key in ("precision", "recall", "f1"))
        rows.append(f"<tr>{_name_cell(name)}{_count_cell(row['images'])}{shares}</tr>")
    return (
        '<section><h2>Every class</h2><p class="faint">Precision: how many of the answers with this name are '
        "right. Recall: how many of its pictures are found. F1: their harmonic mean. Click a heading to "
        f"sort.</p>{sortable_table(headings, rows)}</section>"
    )


def _confused_pairs(confusion: NDArray[np.int64], limit: int) -> list[tuple[int, int, int]]:
    """(truth, answer, count) of the most frequent mistakes, most frequent first, then in class order."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    truths, answers = np.nonzero(wrong)
    counts = wrong[truths, answers]
    order = np.argsort(-counts, kind="stable")[:limit]
    return [(int(truths[n]), int(answers[n]), int(counts[n])) for n in order]


def _confusion_section(confusion: NDArray[np.int64], classes: Sequence[str]) -> str:
    small = len(classes) <= LARGEST_MATRIX
    pairs = _confused_pairs(confusion, PAIRS_BESIDE_MATRIX if small else PAIRS_ALONE)
    matrix = _matrix(confusion, classes) if small else ""
    words = (
        "A row is the true class, a column the answer; blue is right, orange is wrong."
        if small
        else f"The matrix of {len(classes):,} classes is too large to read: these are its largest mistakes."
    )
    table = _pairs_table(pairs, confusion, classes) if pairs else "<p>No picture was named wrongly.</p>"
    both = f'<div class="beside">{matrix}{table}</div>' if small else table
    return f'<section><h2>What is taken for what</h2><p class="faint">{words}</p>{both}</section>'


def _pairs_table(
    pairs: Sequence[tuple[int, int, int]], confusion: NDArray[np.int64], classes: Sequence[str]
) -> str:
    headings = [("Truth", True), ("Taken for", True), ("Times", False), ("Share of the class", False)]
    rows = [
        f"<tr>{_name_cell(classes[truth])}{_name_cell(classes[answer])}{_count_cell(count)}"
        f"{_share_cell(count / int(confusion[truth].sum()))}</tr>"
        for truth, answer, count in pairs
    ]
    return sortable_table(headings, rows)


def _matrix(confusion: NDArray[np.int64], classes: Sequence[str]) -> str:
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    head = "".join(f'<th scope="col"><span class="name">{escaped(name)}</span></th>' for name in classes)
    rows = []
    for truth, name in enumerate(classes):
        cells = "".join(
            _matrix_cell(int(confusion[truth, answer]), float(shares[truth, answer]), truth == answer)
            for answer in range(len(classes))
        )
        label = f'<th scope="row" title="{escaped(name)}"><span class="name">{escaped(name)}</span></th>'
        rows.append(f"<tr>{label}{cells}</tr>")
    return (
        '<div class="scroll whole"><table class="matrix">'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _matrix_cell(count: int, share: float, right: bool) -> str:
    if not count:
        return '<td class="none">0</td>'
    kind = ("right" if right else "wrong") + (" strong" if share > 0.5 else "")
    return f'<td class="{kind}" style="--share:{share:.4f}" title="{share:.1%} of the row">{count:,}</td>'


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
    picture = base64.b64encode(mistake.thumbnail_jpeg).decode()
    alternative = escaped(f"{mistake.truth}, taken for {mistake.predicted}")
    return (
        f'<figure><div class="frame"><img src="data:image/jpeg;base64,{picture}" alt="{alternative}"></div>'
        f'<figcaption><span class="predicted">{escaped(mistake.predicted)}</span> {mistake.confidence:.1%}<br>'
        f'truth: <span class="truth">{escaped(mistake.truth)}</span>'
        f'<span class="path">{escaped(mistake.path)}</span></figcaption></figure>'
    )

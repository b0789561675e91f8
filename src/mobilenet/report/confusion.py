"""The section of a report that says what is taken for what: a matrix, and its largest mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobilenet.report.page import count_cell, escaped, name_cell, share_cell, sortable_table

LARGEST_MATRIX = 30
PAIRS_BESIDE_MATRIX = 8
PAIRS_ALONE = 40
NOT_SEEN = "not seen"

Pair = tuple[int, int, int]


@dataclass(frozen=True)
class Wording:
    """How a page speaks of what its matrix counts.

    `unit` heads the column of counts; `none` is said if there is no mistake; with `shares` the matrix shows parts
    of the rows, for counts that are too long to be read there.
    """

    unit: str
    none: str
    shares: bool = False


def confused_pairs(confusion: NDArray[np.int64], limit: int) -> list[Pair]:
    """(truth, answer, count) of the most frequent mistakes, most frequent first, then in class order."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    truths, answers = np.nonzero(wrong)
    counts = wrong[truths, answers]
    order = np.argsort(-counts, kind="stable")[:limit]
    return [(int(truths[n]), int(answers[n]), int(counts[n])) for n in order]


def answer_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Names of a matrix's columns: the classes, and a last one for what has got no answer."""
    return (*classes, NOT_SEEN)


def confusion_section(confusion: NDArray[np.int64], classes: Sequence[str], wording: Wording) -> str:
    """The section in HTML.

    Args:
        confusion: counts, [C, C] or [C, C + 1]: a row for each true class, a column for each answer, and perhaps
            one for what has got no answer, which is shown if it is not empty.
        classes: the C names.
        wording: what is counted.
    """
    if not confusion[:, len(classes) :].any():
        confusion = confusion[:, : len(classes)]
    small = len(classes) <= LARGEST_MATRIX
    pairs = confused_pairs(confusion, PAIRS_BESIDE_MATRIX if small else PAIRS_ALONE)
    words = (
        "A row is the true class, a column the answer; blue is right, orange is wrong."
        if small
        else f"The matrix of {len(classes):,} classes is too large to read: these are its largest mistakes."
    )
    table = _pairs_table(pairs, confusion, classes, wording) if pairs else f"<p>{wording.none}</p>"
    both = f'<div class="beside">{_matrix(confusion, classes, wording)}{table}</div>' if small else table
    return f'<section><h2>What is taken for what</h2><p class="faint">{words}</p>{both}</section>'


def _pairs_table(
    pairs: Sequence[Pair], confusion: NDArray[np.int64], classes: Sequence[str], wording: Wording
) -> str:
    headings = [("Truth", True), ("Taken for", True), (wording.unit, False), ("Share of the class", False)]
    answers = answer_names(classes)
    rows = [
        f"<tr>{name_cell(classes[truth])}{name_cell(answers[answer])}{count_cell(count)}"
        f"{share_cell(count / int(confusion[truth].sum()))}</tr>"
        for truth, answer, count in pairs
    ]
    return sortable_table(headings, rows)


def _matrix(confusion: NDArray[np.int64], classes: Sequence[str], wording: Wording) -> str:
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    answers = answer_names(classes)[: confusion.shape[1]]
    head = "".join(f'<th scope="col"><span class="name">{escaped(name)}</span></th>' for name in answers)
    rows = []
    for truth, name in enumerate(classes):
        cells = "".join(
            _cell(int(confusion[truth, answer]), float(shares[truth, answer]), truth == answer, wording)
            for answer in range(len(answers))
        )
        label = f'<th scope="row" title="{escaped(name)}"><span class="name">{escaped(name)}</span></th>'
        rows.append(f"<tr>{label}{cells}</tr>")
    return (
        '<div class="scroll whole"><table class="matrix">'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(count: int, share: float, right: bool, wording: Wording) -> str:
    if not count:
        return '<td class="none">0</td>'
    kind = ("right" if right else "wrong") + (" strong" if share > 0.5 else "")
    shown, title = f"{count:,}", f"{share:.1%} of the row"
    if wording.shares:
        shown, title = f"{share:.0%}" if share >= 0.005 else "&lt;1%", f"{count:,}: {title}"
    return f'<td class="{kind}" style="--share:{share:.4f}" title="{title}">{shown}</td>'

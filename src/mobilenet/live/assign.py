"""Which track gets which box: the assignment with the largest sum of weights.

scipy has one, but only training brings scipy; and a table of overlaps is nearly empty, so that almost every
track and box fall into groups of one or two. The groups are solved one by one, by shortest augmenting paths with
potentials (Kuhn 1955, Munkres 1957; the form is that of Jonker and Volgenant, Computing 38, 1987).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def best_pairs(weights: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Pairs (row, column), each row and column at most once, whose weights have the largest sum.

    Args:
        weights: float64 (R, C); what is not above 0 is never paired.

    Returns:
        Pairs by rising row.
    """
    linked = weights > 0
    alone = linked & (linked.sum(axis=1, keepdims=True) == 1) & (linked.sum(axis=0) == 1)
    pairs: list[tuple[int, int]] = [(int(row), int(column)) for row, column in np.argwhere(alone)]
    for rows, columns in _groups(linked & ~alone):
        part = weights[np.ix_(rows, columns)]
        pairs += [(rows[r], columns[c]) for r, c in _solved(part) if part[r, c] > 0]
    return sorted(pairs)


def _groups(linked: NDArray[np.bool_]) -> list[tuple[list[int], list[int]]]:
    """Rows and columns that hang together: no best pair has one side in another group."""
    groups: list[tuple[list[int], list[int]]] = []
    free = set(np.flatnonzero(linked.any(axis=1)).tolist())
    while free:
        waiting, rows = [free.pop()], []
        columns: set[int] = set()
        while waiting:
            row = waiting.pop()
            rows.append(row)
            for column in np.flatnonzero(linked[row]).tolist():
                if column not in columns:
                    columns.add(column)
                    others = free.intersection(np.flatnonzero(linked[:, column]).tolist())
                    free -= others
                    waiting += others
        groups.append((sorted(rows), sorted(columns)))
    return groups


def _solved(weights: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Every row or every column paired, whichever are fewer, with the largest sum of weights."""
    if weights.shape[0] > weights.shape[1]:
        return [(row, column) for column, row in _solved(weights.T)]
    rows, columns = weights.shape
    costs = -weights
    of_row, of_column = np.zeros(rows), np.zeros(columns + 1)
    owner = np.full(columns + 1, -1)  # of each column; the last column is where a new row starts
    for start in range(rows):
        owner[columns] = start
        _augment(costs, of_row, of_column, owner)
    return [(int(owner[column]), column) for column in range(columns) if owner[column] >= 0]


def _augment(
    costs: NDArray[np.float64],
    of_row: NDArray[np.float64],
    of_column: NDArray[np.float64],
    owner: NDArray[np.int64],
) -> None:
    """Gives the row at the end of `owner` a column, along the cheapest path; others may move."""
    columns = costs.shape[1]
    least, before = np.full(columns, np.inf), np.full(columns, columns)
    done = np.zeros(columns + 1, np.bool_)
    at = columns
    while owner[at] >= 0:
        done[at] = True
        row = owner[at]
        reduced = costs[row] - of_row[row] - of_column[:-1]
        better = ~done[:-1] & (reduced < least)
        least[better], before[better] = reduced[better], at
        nearest = int(np.where(done[:-1], np.inf, least).argmin())
        step = least[nearest]
        of_row[owner[done]] += step
        of_column[done] -= step
        least[~done[:-1]] -= step
        at = nearest
    while at != columns:
        owner[at] = owner[before[at]]
        at = int(before[at])
    owner[columns] = -1

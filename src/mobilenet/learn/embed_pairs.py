"""How well embeddings tell identities apart: figures of pairs, and the thresholds that they give."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenet.errors import ArgumentError
from mobilenet.learn.evaluate import Scores
from mobilenet.tasks.verify import (
    FARS,
    Roc,
    area_under,
    at_threshold,
    cosine_similarities,
    equal_error_rate,
    rank1_identification,
    roc,
    tar_at_far,
    threshold_at_far,
)

Labels = NDArray[np.int64]
LIMIT = 100_000  # pairs of each kind; more would say nothing new and take memory
CHUNK = 16_384
GRID = 400_000  # pictures' pairs up to which all are listed rather than drawn


@dataclass(frozen=True)
class Pairs:
    """Pairs of samples by number, and whether both are of one identity: integer [N], integer [N], bool [N]."""

    first: Labels
    second: Labels
    same: NDArray[np.bool_]

    @classmethod
    def of(cls, labels: Labels) -> Pairs:
        """Every pair, or `LIMIT` of each kind drawn in the same way every time."""
        random = np.random.default_rng(0)
        same = _limited(
            np.concatenate([_within(np.flatnonzero(labels == one)) for one in np.unique(labels)]), random
        )
        other = _limited(_between(labels, random), random)
        both = np.concatenate([same, other])
        return cls(both[:, 0], both[:, 1], np.arange(len(both)) < len(same))

    def similarities(self, embeddings: Scores) -> NDArray[np.float64]:
        """The cosine of each pair's embeddings, float64 [N]."""
        ends = [*range(0, len(self.first), CHUNK), len(self.first)]
        parts = [
            cosine_similarities(embeddings[self.first[start:end]], embeddings[self.second[start:end]])
            for start, end in pairwise(ends)
        ]
        return np.concatenate(parts)


def _within(numbers: Labels) -> Labels:
    """Pairs of one identity's pictures, (n, 2); of very many pictures neighbours only stand for all."""
    if len(numbers) ** 2 > GRID:
        return np.stack([numbers, np.roll(numbers, 1)], 1)
    return np.stack([numbers[side] for side in np.triu_indices(len(numbers), 1)], 1)


def _between(labels: Labels, random: np.random.Generator) -> Labels:
    """Pairs of different identities, (n, 2): all, or of many pictures more than enough drawn ones."""
    count = len(labels)
    if count**2 <= GRID:
        listed = np.stack(np.triu_indices(count, 1), 1)
    else:
        drawn = np.sort(random.integers(0, count, (3 * LIMIT, 2)), axis=1)
        listed = np.unique(drawn[drawn[:, 0] < drawn[:, 1]], axis=0)
    return np.asarray(listed[labels[listed[:, 0]] != labels[listed[:, 1]]])


def _limited(pairs: Labels, random: np.random.Generator) -> Labels:
    if len(pairs) <= LIMIT:
        return pairs
    return pairs[np.sort(random.choice(len(pairs), LIMIT, replace=False))]


def balanced_threshold(curve: Roc) -> tuple[float, float]:
    """The threshold at which (TAR + 1 - FAR) / 2 is highest, half way to the next similarity, and that value."""
    balanced = (curve.tar + 1.0 - curve.far) / 2.0
    at = int(np.argmax(balanced))
    at = max(at, 1)  # the strictest accepts nothing and has no similarity
    below = curve.thresholds[min(at + 1, len(curve.thresholds) - 1)]
    return float((curve.thresholds[at] + below) / 2.0), float(balanced[at])


def calibrated(similarities: NDArray[np.float64], same: NDArray[np.bool_], far: float | None) -> float:
    """The threshold for this FAR (see `check_far`), or, without one, of the best balanced accuracy."""
    if far is None:
        return balanced_threshold(roc(similarities, same))[0]
    return threshold_at_far(similarities, same, far)


def check_far(pairs: Pairs, far: float | None) -> None:
    """Raises `ArgumentError` if the pairs are too few to show such a FAR."""
    different = int(np.count_nonzero(~pairs.same))
    if far is not None and far * different < 1:
        raise ArgumentError(
            f"--far {far:g} cannot be seen in {different} pairs of different identities of val, of which it would "
            "be less than one: give more identities or a higher rate"
        )


def verification_figures(embeddings: Scores, labels: Labels, pairs: Pairs, threshold: float) -> dict[str, Any]:
    """What a model with this threshold is worth, as a dictionary that JSON can hold.

    - `balanced_accuracy`, `accuracy`, `tar`, `far`: at the threshold; `threshold`
    - `auc`, `eer`; `tar_at_far`: "0.1" -> TAR ..., null where the different pairs are too few to see such a FAR
    - `rank1`: share of pictures whose nearest among the first pictures of all identities is of their own
    - `images`, `identities`, `pairs`, `same_pairs`
    """
    similarities = pairs.similarities(embeddings)
    curve, different = roc(similarities, pairs.same), int(np.count_nonzero(~pairs.same))
    return {
        "images": len(labels),
        "identities": len(np.unique(labels)),
        "pairs": len(similarities),
        "same_pairs": len(similarities) - different,
        "threshold": threshold,
        **at_threshold(similarities, pairs.same, threshold),
        "auc": area_under(curve),
        "eer": equal_error_rate(curve),
        "tar_at_far": {f"{far:g}": tar_at_far(curve, far) if far * different >= 1 else None for far in FARS},
        "rank1": rank1_identification(embeddings, labels),
    }

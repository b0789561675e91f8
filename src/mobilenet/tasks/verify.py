"""Do two pictures show the same one? Figures of merit from similarities and the truth: plain numpy functions.

A pair is accepted where its similarity is at least the threshold. FAR is the share of different pairs that are
accepted, TAR the share of same pairs that are.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mobilenet.errors import ArgumentError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Bool = NDArray[np.bool_]
    Float64 = NDArray[np.float64]
    Int64 = NDArray[np.int64]

FARS = (1e-1, 1e-2, 1e-3)
FOLDS = 10


class Roc(NamedTuple):
    """The curve at every threshold that changes it, from the strictest (inf: nothing accepted) to the laxest."""

    far: Float64
    tar: Float64
    thresholds: Float64


def cosine_similarities(first: ArrayLike, second: ArrayLike) -> Float64:
    """Cosine of each row of two (N, D): float64 [N], in -1..1.

    Raises `ArgumentError` for other shapes, values that are not finite, or a row of zeros, which has no direction.
    """
    left, right = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if left.ndim != 2 or left.shape != right.shape:
        raise ArgumentError(f"embeddings are {list(left.shape)} and {list(right.shape)}: two [N, D] are needed")
    return np.asarray(np.clip(np.sum(_unit(left) * _unit(right), axis=1), -1.0, 1.0))


def roc(similarities: ArrayLike, same: ArrayLike) -> Roc:
    """FAR and TAR at each threshold: `similarities` real [N], `same` bool [N], of both kinds at least one.

    Pairs of equal similarity are accepted together. Raises `ArgumentError` for other shapes or one kind only.
    """
    scores, truth = _checked(similarities, same)
    order = np.argsort(-scores, kind="stable")
    scores, truth = scores[order], truth[order]
    last = np.flatnonzero(np.append(np.diff(scores) != 0, True))  # of each run of equal similarities
    accepted = np.cumsum(truth)[last]
    false = last + 1 - accepted
    return Roc(
        np.concatenate([[0.0], false / np.count_nonzero(~truth)]),
        np.concatenate([[0.0], accepted / np.count_nonzero(truth)]),
        np.concatenate([[np.inf], scores[last]]),
    )


def area_under(curve: Roc) -> float:
    """Area under the curve, by trapezia: the chance that a same pair is more similar than a different one."""
    return float(np.sum(np.diff(curve.far) * (curve.tar[1:] + curve.tar[:-1])) / 2.0)


def equal_error_rate(curve: Roc) -> float:
    """Where FAR equals the share of same pairs that are refused; between two points, on the straight line."""
    difference = curve.far - (1.0 - curve.tar)  # rises from -1 to 1
    after = int(np.argmax(difference >= 0.0))
    before = after - 1
    share = -difference[before] / (difference[after] - difference[before])
    return float(curve.far[before] + share * (curve.far[after] - curve.far[before]))


def tar_at_far(curve: Roc, far: float) -> float:
    """The highest TAR at a FAR of at most `far`: no point of the curve is made up."""
    return float(curve.tar[np.flatnonzero(curve.far <= far)[-1]])


def threshold_at_far(similarities: ArrayLike, same: ArrayLike, far: float) -> float:
    """The laxest threshold whose FAR is at most `far`, half way to the next similarity below it.

    Raises:
        ArgumentError: `far` is not above 0 and below 1, or less than one of the different pairs: such a rate
            cannot be seen in so few.
    """
    scores, truth = _checked(similarities, same)
    different = np.sort(scores[~truth])[::-1]
    if not 0.0 < far < 1.0:
        raise ArgumentError(f"far is {far}: a number above 0 and below 1 is needed")
    allowed = math.floor(far * len(different) + 1e-9)
    if allowed < 1:
        raise ArgumentError(
            f"a FAR of {far:g} cannot be seen in {len(different)} pairs of different identities: "
            f"{math.ceil(1 / far):,} are needed; give more identities or a higher FAR"
        )
    refused = different[allowed]  # the most similar pair that must not be accepted
    above = scores[scores > refused]
    return float((refused + above.min()) / 2.0) if len(above) else math.nextafter(float(refused), math.inf)


def best_threshold(similarities: ArrayLike, same: ArrayLike) -> float:
    """The threshold of the highest accuracy (the highest of several), half way between two similarities."""
    scores, truth = _checked(similarities, same)
    curve = roc(scores, truth)
    right = curve.tar * np.count_nonzero(truth) + (1.0 - curve.far) * np.count_nonzero(~truth)
    at = int(np.argmax(np.rint(right)))
    if at == 0:
        return math.nextafter(float(scores.max()), math.inf)
    below = curve.thresholds[at + 1] if at + 1 < len(curve.thresholds) else curve.thresholds[at]
    return float((curve.thresholds[at] + below) / 2.0)


def fold_accuracies(similarities: ArrayLike, same: ArrayLike, folds: ArrayLike) -> Float64:
    """Accuracy in each fold, with the threshold that is best in all the others: float64 [folds].

    Huang et al. 2007, "Labeled Faces in the Wild", view 2. `folds` is integer [N]: the fold of each pair, from 0.
    Raises `ArgumentError` if there are fewer than two folds, or one is empty.
    """
    scores, truth = _checked(similarities, same)
    numbers = np.asarray(folds)
    if numbers.shape != scores.shape or numbers.dtype.kind not in "iu":
        raise ArgumentError(f"folds is {numbers.dtype} {list(numbers.shape)}: integers [{len(scores)}] are needed")
    count = int(numbers.max()) + 1
    if count < 2 or numbers.min() < 0 or len(np.unique(numbers)) != count:
        raise ArgumentError(f"folds has {len(np.unique(numbers))} different numbers: 0..K-1 without gaps, K >= 2")
    accuracies = []
    for fold in range(count):
        held_out = numbers == fold
        threshold = best_threshold(scores[~held_out], truth[~held_out])
        accuracies.append(np.mean((scores[held_out] >= threshold) == truth[held_out]))
    return np.array(accuracies)


def at_threshold(similarities: ArrayLike, same: ArrayLike, threshold: float) -> dict[str, float]:
    """`tar`, `far`, `accuracy`, and `balanced_accuracy`, the mean of TAR and 1 - FAR, at a given threshold."""
    scores, truth = _checked(similarities, same)
    accepted = scores >= threshold
    tar, far = float(np.mean(accepted[truth])), float(np.mean(accepted[~truth]))
    return {
        "tar": tar,
        "far": far,
        "accuracy": float(np.mean(accepted == truth)),
        "balanced_accuracy": (tar + 1.0 - far) / 2.0,
    }


def rank1_identification(embeddings: ArrayLike, identities: ArrayLike) -> float | None:
    """Share of pictures whose nearest among the first pictures of all identities is of their own; None: no probe.

    `embeddings` real [N, D], `identities` integer [N]. The first picture of each is the gallery, all others are
    looked up in it.
    """
    vectors, numbers = _unit(np.asarray(embeddings, np.float64)), np.asarray(identities)
    gallery = np.unique(numbers, return_index=True)[1]
    probes = np.setdiff1d(np.arange(len(numbers)), gallery)
    if not len(probes):
        return None
    nearest = np.argmax(vectors[probes] @ vectors[gallery].T, axis=1)
    return float(np.mean(numbers[gallery[nearest]] == numbers[probes]))


def verification_metrics(similarities: ArrayLike, same: ArrayLike, folds: ArrayLike) -> dict[str, Any]:
    """All figures that need no given threshold, as a dictionary that JSON can hold.

    - `accuracy`, `accuracy_std`: mean of the folds and its deviation between them; `folds`: how many
    - `auc`, `eer`; `tar_at_far`: "0.1" -> TAR ..., null where the different pairs are too few to see such a FAR
    - `pairs`, `same_pairs`
    """
    scores, truth = _checked(similarities, same)
    curve, accuracies = roc(scores, truth), fold_accuracies(scores, truth, folds)
    different = np.count_nonzero(~truth)
    return {
        "accuracy": float(accuracies.mean()),
        "accuracy_std": float(accuracies.std()),
        "folds": len(accuracies),
        "auc": area_under(curve),
        "eer": equal_error_rate(curve),
        "tar_at_far": {f"{far:g}": tar_at_far(curve, far) if far * different >= 1 else None for far in FARS},
        "pairs": len(scores),
        "same_pairs": int(np.count_nonzero(truth)),
    }


def _unit(vectors: Float64) -> Float64:
    if not np.isfinite(vectors).all():
        raise ArgumentError(
            f"embedding {np.argwhere(~np.isfinite(vectors))[0][0]} holds a value that is not finite"
        )
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not length.all():
        raise ArgumentError(f"embedding {np.argmin(length)} is zero everywhere: it has no direction to compare")
    return np.asarray(vectors / length)


def _checked(similarities: ArrayLike, same: ArrayLike) -> tuple[Float64, Bool]:
    scores, truth = np.asarray(similarities, np.float64), np.asarray(same)
    if scores.ndim != 1 or truth.shape != scores.shape or truth.dtype != np.bool_:
        raise ArgumentError(
            f"similarities are {list(scores.shape)}, same is {truth.dtype} {list(truth.shape)}: real and bool [N]"
        )
    if not np.isfinite(scores).all():
        raise ArgumentError(f"similarity {np.argmin(np.isfinite(scores))} is not finite")
    if not truth.any() or truth.all():
        kind = "same" if not truth.any() else "different"
        raise ArgumentError(f"there is no pair of the {kind} identity: both kinds are needed")
    return scores, truth

"""Figures of merit of a classifier, from its probabilities and the truth: plain numpy functions.

Classes are numbered 0..C-1. Where two classes have equal scores the lower number wins, everywhere, so the
same scores give the same figures on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mobilenet.errors import ArgumentError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Float32 = NDArray[np.float32]
    Float64 = NDArray[np.float64]
    Int64 = NDArray[np.int64]

TEMPERATURE_BOUNDS = (0.05, 20.0)
# A quantised softmax gives exact zeros, whose logarithm JSON cannot hold; scikit-learn clips here too.
SMALLEST_PROBABILITY = 2.0**-23  # float32's epsilon; numpy.finfo takes a millisecond to make


class ReliabilityBin(NamedTuple):
    """The pictures whose confidence lies in (lower, upper]; an empty bin has confidence = accuracy = 0."""

    lower: float
    upper: float
    confidence: float
    """Mean confidence of the bin's pictures, 0..1."""
    accuracy: float
    """Share of the bin's pictures that are named rightly, 0..1."""
    images: int


def softmax(logits: ArrayLike, temperature: float = 1.0) -> Float32:
    """Probabilities of logits: exp(logits / temperature), each row scaled to the sum 1.

    `logits` is [N, C], any real dtype; returns float32 [N, C]. Raises `ArgumentError` for another shape,
    a value that is not finite, or a temperature that is not positive.
    """
    check_temperature(temperature)
    scores = _finite_matrix(logits, "logits").astype(np.float64)
    return _softmax64(scores, 1.0 / temperature).astype(np.float32)


def fit_temperature(logits: ArrayLike, targets: ArrayLike) -> float:
    """The temperature T that minimises the negative log likelihood of softmax(logits / T).

    `logits` is [N, C] and `targets` integer [N]. Guo et al. 2017, "On Calibration of Modern Neural
    Networks", section 4.2. The likelihood is concave in 1 / T, so halving the interval of its slope's sign
    finds the one optimum. The answer lies in 0.05..20 (an end of it when every picture, or far too few, are
    right) and is 1.0 where the data say nothing: no pictures, or logits that are equal within each row.
    """
    scores = _finite_matrix(logits, "logits", empty_allowed=True).astype(np.float64)
    truth = _class_numbers(targets, scores.shape[1], scores.shape[0], "targets")
    if len(truth) == 0:
        return 1.0
    margins = scores - scores[np.arange(len(truth)), truth][:, np.newaxis]
    if not margins.any():
        return 1.0
    low, high = (math.log(1.0 / bound) for bound in reversed(TEMPERATURE_BOUNDS))
    for _ in range(50):  # 6 / 2**50: as fine as float64 goes
        middle = (low + high) / 2.0
        if _likelihood_slope(margins, math.exp(middle)) > 0.0:
            high = middle
        else:
            low = middle
    return math.exp(-(low + high) / 2.0)


def expected_calibration_error(probabilities: ArrayLike, targets: ArrayLike, bins: int = 15) -> float:
    """Mean distance between confidence and accuracy, over equally wide bins weighted by their pictures.

    0 is perfect, 1 the worst. Guo et al. 2017, equation 3; arguments and errors as `reliability_bins`.
    """
    return calibration_error_of_bins(reliability_bins(probabilities, targets, bins))


def calibration_error_of_bins(bins: Sequence[tuple[float, float, float, float, int]]) -> float:
    """The expected calibration error of bins that `reliability_bins` gave; 0.0 if they hold no picture."""
    total = sum(count for *_, count in bins)
    gaps = (count * abs(accuracy - confidence) for _, _, confidence, accuracy, count in bins)
    return sum(gaps) / total if total else 0.0


def reliability_bins(probabilities: ArrayLike, targets: ArrayLike, bins: int = 15) -> list[ReliabilityBin]:
    """Confidence against accuracy of the first answer, in `bins` equally wide bins of confidence.

    `probabilities` is [N, C] with N >= 1 and `targets` integer [N]; returns every bin, the empty ones too.
    Raises `ArgumentError` for wrong shapes, targets out of range, or values outside 0..1.
    """
    if bins < 1:
        raise ArgumentError(f"bins is {bins}: at least 1 is needed")
    scores, truth = _scores_and_truth(probabilities, targets)
    confidence = scores.max(axis=1)
    right = scores.argmax(axis=1) == truth
    edges = np.linspace(0.0, 1.0, bins + 1)
    numbers = np.searchsorted(edges[1:-1], confidence)  # (lower, upper], and 0 itself in the first
    count = np.bincount(numbers, minlength=bins)
    mean_confidence = np.bincount(numbers, confidence, bins) / np.maximum(count, 1)
    accuracy = np.bincount(numbers, right, bins) / np.maximum(count, 1)
    columns = (edges[:-1], edges[1:], mean_confidence, accuracy, count)
    return [ReliabilityBin(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def confusion_matrix(targets: ArrayLike, predictions: ArrayLike, classes: int) -> Int64:
    """How often each class was taken for each: int64 [C, C], a row for the truth, a column for the answer.

    `targets` and `predictions` are integer [N]; `ArgumentError` if a number is not in 0..classes - 1.
    """
    if classes < 1:
        raise ArgumentError(f"classes is {classes}: at least 1 is needed")
    truth = _class_numbers(targets, classes, None, "targets")
    answers = _class_numbers(predictions, classes, len(truth), "predictions")
    counts = np.bincount(truth * classes + answers, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def top_k_accuracy(probabilities: ArrayLike, targets: ArrayLike, k: int) -> float:
    """Share of pictures (0..1) whose true class is among the `k` highest of `probabilities` [N, C]."""
    if k < 1:
        raise ArgumentError(f"k is {k}: at least 1 is needed")
    scores, truth = _scores_and_truth(probabilities, targets)
    return float(np.mean(_rank_of_truth(scores, truth) < k))


def worst_mistakes(probabilities: ArrayLike, targets: ArrayLike, limit: int = 24) -> Int64:
    """Row numbers of the wrongly named pictures, the most confident first: int64 [M], M <= limit."""
    scores, truth = _scores_and_truth(probabilities, targets)
    wrong = np.flatnonzero(scores.argmax(axis=1) != truth)
    order = np.argsort(-scores[wrong].max(axis=1), kind="stable")
    return wrong[order][: max(limit, 0)].astype(np.int64)


def classification_metrics(
    probabilities: ArrayLike,
    targets: ArrayLike,
    classes: Sequence[str],
    *,
    uncalibrated: ArrayLike | None = None,
) -> dict[str, Any]:
    """All figures of one evaluation, as a dictionary that JSON can hold; no figure is ever NaN.

    `probabilities` is [N, C] (after temperature scaling), `targets` integer [N], `classes` the C names;
    `uncalibrated` is [N, C] before temperature scaling, where there is such a thing. Keys:

    - `top1`, `top5`: shares 0..1 (with fewer than five classes `top5` is 1.0); `images`: N
    - `per_class`: for each name `precision`, `recall`, `f1` and `images`. By definition precision is 0.0
      for a class that was never answered, recall 0.0 for one without pictures, and F1 0.0 if both are
    - `confusion`: C lists of C counts, rows are the truth
    - `ece`, `ece_uncalibrated`: expected calibration error in 15 bins (equal if `uncalibrated` is None)
    - `nll`: mean negative log likelihood in nats, of probabilities clipped below at 2**-23

    Raises `ArgumentError` for wrong shapes, no pictures, targets out of range, names that repeat, or
    probabilities that are not finite or not in 0..1.
    """
    scores, truth = _scores_and_truth(probabilities, targets)
    _check_names(classes, scores.shape[1])
    confusion = confusion_matrix(truth, scores.argmax(axis=1), len(classes))
    ece = expected_calibration_error(scores, truth)
    before = ece if uncalibrated is None else _uncalibrated_error(uncalibrated, scores, truth)
    rank = _rank_of_truth(scores, truth)
    return {
        "top1": float(np.mean(rank < 1)),
        "top5": float(np.mean(rank < 5)),
        "images": len(truth),
        "per_class": _per_class(confusion, classes),
        "confusion": confusion.tolist(),
        "ece": ece,
        "ece_uncalibrated": before,
        "nll": _negative_log_likelihood(scores, truth),
    }


def check_temperature(temperature: float) -> None:
    """Raises `ArgumentError` unless `temperature` is a positive finite number."""
    if not (math.isfinite(temperature) and temperature > 0.0):
        raise ArgumentError(f"temperature is {temperature}: a positive finite number is needed")


def _softmax64(scores: Float64, inverse_temperature: float) -> Float64:
    # [N, C]; the row's maximum is subtracted before scaling, so that neither step can overflow
    powers = np.exp((scores - scores.max(axis=1, keepdims=True)) * inverse_temperature)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _likelihood_slope(margins: Float64, inverse_temperature: float) -> float:
    """d NLL / d (1 / T) for margins [N, C] = logits minus the true class's logit."""
    return float(np.sum(_softmax64(margins, inverse_temperature) * margins) / len(margins))


def _rank_of_truth(scores: Float64, truth: Int64) -> Int64:
    """How many classes come before the true one: [N]; an equal score comes before if its number is lower."""
    own = scores[np.arange(len(truth)), truth][:, np.newaxis]
    lower_number = np.arange(scores.shape[1]) < truth[:, np.newaxis]
    return np.asarray(np.sum((scores > own) | ((scores == own) & lower_number), axis=1), dtype=np.int64)


def _negative_log_likelihood(scores: Float64, truth: Int64) -> float:
    own = scores[np.arange(len(truth)), truth]
    return float(-np.mean(np.log(np.clip(own, SMALLEST_PROBABILITY, 1.0))))


def _per_class(confusion: Int64, classes: Sequence[str]) -> dict[str, dict[str, float | int]]:
    hits = np.diagonal(confusion)
    images, answers = confusion.sum(axis=1), confusion.sum(axis=0)
    columns = {
        "precision": hits / np.maximum(answers, 1),
        "recall": hits / np.maximum(images, 1),
        "f1": 2 * hits / np.maximum(images + answers, 1),
        "images": images,
    }
    return {
        name: {key: column[number].item() for key, column in columns.items()}
        for number, name in enumerate(classes)
    }


def _uncalibrated_error(uncalibrated: ArrayLike, scores: Float64, truth: Int64) -> float:
    before = _probability_matrix(uncalibrated, "uncalibrated")
    if before.shape != scores.shape:
        raise ArgumentError(f"uncalibrated has shape {before.shape}, probabilities {scores.shape}: not equal")
    return expected_calibration_error(before, truth)


def _scores_and_truth(probabilities: ArrayLike, targets: ArrayLike) -> tuple[Float64, Int64]:
    scores = _probability_matrix(probabilities, "probabilities")
    return scores, _class_numbers(targets, scores.shape[1], scores.shape[0], "targets")


def _probability_matrix(values: ArrayLike, what: str) -> Float64:
    matrix = _finite_matrix(values, what).astype(np.float64)
    outside = np.argwhere((matrix < 0.0) | (matrix > 1.0 + 1e-6))
    if len(outside):
        row, column = outside[0]
        value = matrix[row, column]
        raise ArgumentError(f"{what}[{row}, {column}] is {value:g}, not in 0..1: logits go through softmax first")
    return matrix


def _finite_matrix(values: ArrayLike, what: str, empty_allowed: bool = False) -> NDArray[Any]:
    matrix = np.asarray(values)
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
        raise ArgumentError(f"{what} is {matrix.dtype} {list(matrix.shape)}: real numbers [N, C] are needed")
    if matrix.shape[1] == 0 or (matrix.shape[0] == 0 and not empty_allowed):
        raise ArgumentError(f"{what} is {list(matrix.shape)}: at least one picture and one class are needed")
    if not np.isfinite(matrix).all():
        row, column = np.argwhere(~np.isfinite(matrix))[0]
        raise ArgumentError(f"{what}[{row}, {column}] is {matrix[row, column]}: every value must be finite")
    return matrix


def _class_numbers(values: ArrayLike, classes: int, length: int | None, what: str) -> Int64:
    numbers = np.asarray(values)
    if numbers.size == 0 and numbers.ndim == 1:
        numbers = numbers.astype(np.int64)  # an empty list has no integer dtype
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise ArgumentError(f"{what} is {numbers.dtype} {list(numbers.shape)}: integers [N] are needed")
    if length is not None and len(numbers) != length:
        raise ArgumentError(f"{what} has {len(numbers)} entries for {length} pictures")
    outside = np.flatnonzero((numbers < 0) | (numbers >= classes))
    if len(outside):
        row = outside[0]
        raise ArgumentError(f"{what}[{row}] is {numbers[row]}: class numbers are 0..{classes - 1}")
    return numbers.astype(np.int64)


def _check_names(classes: Sequence[str], count: int) -> None:
    if len(classes) != count:
        raise ArgumentError(f"classes has {len(classes)} names for probabilities of {count} classes")
    if len(set(classes)) != len(classes):
        twice = next(name for number, name in enumerate(classes) if name in classes[:number])
        raise ArgumentError(f"classes has {twice!r} twice: every name must be unique")

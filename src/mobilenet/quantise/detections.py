"""How good a quantised detector is: AP50 against the boxes of people, or against those of the float detector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import inf, log
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenet.errors import ArgumentError
from mobilenet.family.decoding import OUTPUTS
from mobilenet.model import Model
from mobilenet.pictures.boxes import BoxedPicture
from mobilenet.tasks.detect import Boxes, decoded, placed_back, probabilities
from mobilenet.tasks.detection_metrics import MEASURED_FROM, detection_metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mobilenet.files.contents import ModelContents

BELOW = 1.0  # of a score: so far below the threshold that no rounding lifts it above
JOINED = "boxes and scores"  # stands for both outputs beside each other, (N, A, 4 + columns)
Figure = Callable[[np.ndarray], float]


def joined(outputs: Mapping[str, Any], concatenate: Callable[[list[Any]], Any]) -> Any:
    """Both outputs of a detector as one array (N, A, 4 + columns)."""
    return concatenate([outputs[name] for name in OUTPUTS])


def found_in(model: ModelContents, row: NDArray[np.float32], size: tuple[int, int]) -> Boxes:
    """The boxes that a joined row (A, 4 + columns) stands for, in a picture of this (height, width)."""
    rule, decoding = model.preprocessing, model.decoding
    assert rule is not None and decoding is not None
    outputs = {"boxes": np.ascontiguousarray(row[:, :4]), "scores": np.ascontiguousarray(row[:, 4:])}
    low = replace(decoding, score_threshold=min(decoding.score_threshold, MEASURED_FROM))
    found = decoded(outputs, low, rule.height, rule.width)
    window, place = rule.placement(size[1], size[0])
    corners = placed_back(found.boxes, window, place, size[1], size[0])
    return Boxes(corners, found.scores, found.classes, size)


def useful_scores(model: ModelContents) -> dict[str, tuple[float, float]]:
    """Below which number a score is far from any box that is kept: most are, and by far.

    Scores that a softmax compares with each other have no such number.
    """
    decoding = model.decoding
    if decoding is None or decoding.scores != "sigmoid":
        return {}
    threshold = min(decoding.score_threshold, MEASURED_FROM)
    return {"scores": (log(threshold / (1 - threshold)) - BELOW, inf)} if threshold > 0 else {}


def weighed_by(model: ModelContents, reference: NDArray[np.float32]) -> Callable[[np.ndarray], np.ndarray]:
    """What of joined outputs matters: probabilities, and boxes as far as something is there.

    Args:
        model: the float detector.
        reference: its joined outputs (N, A, 4 + columns).

    Returns:
        What makes boxes, each times its largest probability in `reference`, and probabilities of joined outputs of
        the same pictures.
    """
    decoding = model.decoding
    assert decoding is not None

    def chances(rows: np.ndarray) -> NDArray[np.float64]:
        return probabilities(rows[..., 4:], decoding)

    there = chances(reference).max(axis=-1, keepdims=True)
    return lambda rows: np.concatenate([rows[..., :4] * there, chances(rows)], axis=-1)


def average_precision(model: Model, pictures: Sequence[BoxedPicture]) -> Figure:
    """AP50 of joined outputs for these pictures."""

    def figure(rows: np.ndarray) -> float:
        found = [found_in(model, row, picture.size) for row, picture in zip(rows, pictures, strict=True)]
        return detection_metrics(pictures, found, model.names).figures["ap50"] or 0.0

    return figure


def as_truth(model: Model, reference: np.ndarray, confidence: float) -> list[BoxedPicture]:
    """What a float detector finds with this confidence, as if people had drawn it, in pixels of the input.

    Raises:
        ArgumentError: it finds nothing, so that nothing can be compared.
    """
    rule = model.preprocessing
    assert rule is not None
    pictures = []
    for number, row in enumerate(reference):
        found = found_in(model, row, (rule.height, rule.width))
        sides = found.xyxy[:, 2:] - found.xyxy[:, :2]
        sure = (found.conf >= confidence) & (sides > 0).all(axis=1)
        ignored = np.zeros(int(sure.sum()), bool)
        pictures.append(BoxedPicture(Path(f"{number}"), found.size, found.xyxy[sure], found.cls[sure], ignored))
    if not any(len(picture.labels) for picture in pictures):
        raise ArgumentError(
            f"the detector finds nothing with a confidence of {confidence:g} in the held-out pictures, so that "
            "its integers cannot be compared with it: give pictures with objects, or a data set with their boxes"
        )
    return pictures

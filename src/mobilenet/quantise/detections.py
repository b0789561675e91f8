"""How good a quantised detector is: AP50 against the boxes of people, or against those of the float detector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenet.errors import ArgumentError
from mobilenet.family.decoding import OUTPUTS
from mobilenet.model import Model
from mobilenet.pictures.boxes import BoxedPicture
from mobilenet.tasks.detect import Boxes, decoded, placed_back
from mobilenet.tasks.detection_metrics import MEASURED_FROM, detection_metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mobilenet.files.contents import ModelContents

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

"""How often a quantised model says what the float model says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mobilenet.errors import ArgumentError
from mobilenet.model import Model
from mobilenet.pictures.decode import Picture


@dataclass(frozen=True)
class Agreement:
    """What two models have in common on the same pictures.

    Attributes:
        pictures: how many were compared.
        cosine: the mean over pictures of the cosine similarity of the first output.
        same: on how many both name the same class first; none if they are no classifiers.
    """

    pictures: int
    cosine: float
    same: int | None

    def __str__(self) -> str:
        if self.same is None:
            return f"cosine similarity with the float model {self.cosine:.4f} on {self.pictures} pictures"
        return f"names the same class as the float model on {self.same} of {self.pictures} pictures"


def compare(first: Model, second: Model, pictures: Sequence[Picture]) -> Agreement:
    """Runs two models with the same outputs on the same pictures.

    Raises:
        ArgumentError: there is no picture, or the models' outputs differ.
        ImageError: a picture cannot be read.
    """
    if not pictures or set(first.graph.outputs) != set(second.graph.outputs):
        raise ArgumentError("comparing needs a picture and two models with the same outputs")
    output = next(name for name in ("logits", *first.graph.outputs) if name in first.graph.outputs)
    cosines, same = [], 0
    for one, other in zip(first.answers(pictures), second.answers(pictures), strict=True):
        for answer in (one, other):
            if answer.error:
                raise answer.error
        a, b = (answer.outputs[output].ravel().astype(np.float64) for answer in (one, other))
        cosines.append(float(a @ b) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-30))
        same += int(a.argmax() == b.argmax())
    classifies = first.task == "classify"
    return Agreement(len(pictures), float(np.mean(cosines)), same if classifies else None)

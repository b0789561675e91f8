"""How good a quantised model is on held-out pictures, beside the float model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mobilenet.errors import ArgumentError
from mobilenet.files.contents import ModelContents
from mobilenet.model import Model

if TYPE_CHECKING:
    from mobilenet.pictures.boxes import BoxedPicture
    from mobilenet.pictures.palette import ClassMap

BATCH = 8
SURE = 0.25  # what a detector finds with this confidence is what its integers must find, where nobody drew boxes
_MAIN_OUTPUTS = ("logits", "probabilities", "classes", "embedding")
_SILENT = 1e-30

Progress = Callable[[int, int], None]


def read_pixels(model: ModelContents, pictures: Sequence[Path], on_progress: Progress | None = None) -> np.ndarray:
    """Pictures as the model sees them before their values are scaled: uint8 (N, height, width, channels).

    Raises:
        ArgumentError: the model takes arrays, not pictures.
        ImageError: a picture cannot be read; it is named.
    """
    rule = model.preprocessing
    if rule is None:
        raise ArgumentError("this model takes arrays, not pictures: call quantise with batches of arrays")
    pixels = []
    for done, picture in enumerate(pictures):
        if on_progress:
            on_progress(done, len(pictures))
        pixels.append(rule.pixels(picture))
    if on_progress:
        on_progress(len(pictures), len(pictures))
    return np.stack(pixels)


def answers(model: Model, pixels: np.ndarray, output: str) -> np.ndarray:
    """One output for each picture, real numbers float32 (N, ...), computed by the engine."""
    assert model.preprocessing is not None
    parts = []
    for start in range(0, len(pixels), BATCH):
        batch = model.preprocessing.normalise(pixels[start : start + BATCH])
        parts.append(picked(model.run(np.ascontiguousarray(batch, np.float32)), output, _beside))
    return np.concatenate(parts)


def useful_outputs(model: ModelContents) -> dict[str, tuple[float, float]]:
    """Outside of which numbers an output says nothing more, where that is known: of a detector's scores."""
    if model.task != "detect":
        return {}
    from mobilenet.quantise.detections import useful_scores

    return useful_scores(model)


def picked(outputs: Mapping[str, Any], output: str, beside: Callable[[list[Any]], Any]) -> Any:
    """The output that is judged; of a detector both, put beside each other."""
    if output not in outputs:
        from mobilenet.quantise.detections import joined

        return joined(outputs, beside)
    return outputs[output]


def _beside(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays, axis=-1)


def main_output(model: ModelContents) -> str:
    """The output that is judged: the scores of a classifier, both of a detector, otherwise the first there is."""
    if model.task == "detect":
        from mobilenet.quantise.detections import JOINED

        return JOINED
    return next(name for name in (*_MAIN_OUTPUTS, *model.graph.outputs) if name in model.graph.outputs)


@dataclass(frozen=True)
class Measure:
    """A figure from 0 to 1, higher is better, and the float model's.

    Top-1 where the held-out pictures have labels. Without labels how often the class (of a segmenter: of a
    pixel) is the float model's, and for a model that names no classes the mean cosine similarity with its output.
    Of a segmenter with masks mIoU. Of a detector AP50: against the boxes of the pictures, or, without such, those
    that the float model finds.

    Attributes:
        kind: "top-1", "mIoU", "AP50", "agreement", "AP50 against the float model" or "cosine similarity".
        output: the name of the output that is judged.
        reference: that output of the float model, (N, ...).
        labels: (N) int64, or None.
        figure: what gives the figure of outputs, where it is not one of these kinds that labels are enough for.
        weighed: what of an output counts, and how much; by default all of it, alike.
    """

    kind: str
    output: str
    reference: np.ndarray
    labels: np.ndarray | None = None
    figure: Callable[[np.ndarray], float] | None = None
    weighed: Callable[[np.ndarray], np.ndarray] | None = None

    @classmethod
    def of(
        cls,
        model: Model,
        pixels: np.ndarray,
        labels: Sequence[int] | None,
        truth: Sequence[BoxedPicture] | Sequence[ClassMap] | None = None,
    ) -> Measure:
        """The measure that fits a float model and what is known of the pictures."""
        output = main_output(model)
        reference = answers(model, pixels, output)
        if model.task == "detect":
            from mobilenet.quantise.detections import as_truth, average_precision, weighed_by

            kind = "AP50" if truth is not None else "AP50 against the float model"
            boxes = as_truth(model, reference, SURE) if truth is None else cast("Sequence[BoxedPicture]", truth)
            weighed = weighed_by(model, reference)
            return cls(kind, output, reference, figure=average_precision(model, boxes), weighed=weighed)
        if model.task == "segment" and truth is not None:
            from mobilenet.quantise.segments import mean_iou

            figure = mean_iou(cast("Sequence[ClassMap]", truth), reference.shape[-1])
            return cls("mIoU", output, reference, figure=figure)
        if labels is not None:
            return cls("top-1", output, reference, np.array(labels))
        names = output in ("logits", "probabilities", "classes")
        return cls("agreement" if names else "cosine similarity", output, reference)

    @property
    def float_score(self) -> float:
        """The float model's own figure; 1 without labels."""
        return self.score(self.reference)

    def score(self, outputs: np.ndarray) -> float:
        """The figure of a model that gave these outputs for the same pictures."""
        if self.figure is not None:
            return self.figure(outputs)
        if self.kind == "cosine similarity":
            return _cosine(self.reference, outputs)
        named = self._named(outputs)
        wanted = self.labels if self.labels is not None else self._named(self.reference)
        return float((named == wanted).mean())

    def drop(self, outputs: np.ndarray) -> float:
        """By how much that is less than the float model's; below 0 if it is more."""
        return self.float_score - self.score(outputs)

    def noise(self, outputs: np.ndarray) -> float:
        """The energy of the difference over that of the float output, both without each picture's mean.

        It is above 0 where the figure does not move, so layers and methods are compared by it.
        """
        if self.output == "classes":
            return float((outputs != self.reference).mean())
        weighed = self.weighed or (lambda values: values)
        wanted, found = (_centred(weighed(values)) for values in (self.reference, outputs))
        return float(np.square(found - wanted).sum() / max(float(np.square(wanted).sum()), _SILENT))

    def _named(self, outputs: np.ndarray) -> np.ndarray:
        """The class of each picture, or of each pixel of a segmenter's scores (N, h, w, classes)."""
        if self.output == "classes":
            return outputs
        if outputs.ndim == 4 and outputs.shape[1] * outputs.shape[2] > 1:
            return np.asarray(outputs.argmax(axis=-1))
        return np.asarray(outputs.reshape(len(outputs), -1).argmax(axis=1))


def _centred(values: np.ndarray) -> np.ndarray:
    flat = values.reshape(len(values), -1).astype(np.float64)
    return np.asarray(flat - flat.mean(axis=1, keepdims=True))


def _cosine(first: np.ndarray, second: np.ndarray) -> float:
    a, b = (values.reshape(len(values), -1).astype(np.float64) for values in (first, second))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / np.maximum(lengths, _SILENT)).mean())

"""How good a quantised segmenter is: mean IoU with the masks of people, at the size of the network's scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
from PIL import Image

from mobilenet.errors import ArgumentError
from mobilenet.files.contents import ModelContents
from mobilenet.pictures.augment_masks import PLAIN, cropped_pair
from mobilenet.pictures.mask_set import MaskSample, load
from mobilenet.pictures.palette import ClassMap
from mobilenet.tasks.segmentation_metrics import SegmentationMeter

SCORE_BYTES = 2**29  # of all held-out pictures' scores, which are kept: a few pictures have pixels enough

Figure = Callable[[np.ndarray], float]


def fitting(model: ModelContents) -> int:
    """How many pictures' scores may be kept, at least 4."""
    shape = model.graph.types[model.graph.outputs["logits"]].shape
    return max(4, SCORE_BYTES // (4 * prod(shape)))


def seen_masks(model: ModelContents, samples: Sequence[MaskSample], classes: int) -> tuple[ClassMap, ...]:
    """Each sample's mask as the network sees its picture, uint8 [height, width].

    Raises:
        ArgumentError: the model takes arrays, not pictures.
        ImageError, DataError: a picture or mask cannot be used; it is named.
    """
    if model.preprocessing is None:
        raise ArgumentError("this model takes arrays, not pictures: call quantise with batches of arrays")
    rule = model.preprocessing
    return tuple(cropped_pair(*load(sample, classes), PLAIN, rule)[1] for sample in samples)


def mean_iou(masks: Sequence[ClassMap], classes: int) -> Figure:
    """mIoU of scores (N, h, w, classes) with these masks, which are brought to the scores' size."""

    def figure(scores: np.ndarray) -> float:
        meter = SegmentationMeter(classes, boundaries=False)
        for row, mask in zip(scores, masks, strict=True):
            meter.add(row.argmax(-1).astype(np.uint8), _sized(mask, row.shape[:2]))
        return float(np.nanmean(meter.iou()))

    return figure


def _sized(mask: ClassMap, size: tuple[int, ...]) -> ClassMap:
    if mask.shape == size:
        return mask
    return np.asarray(Image.fromarray(mask).resize((size[1], size[0]), Image.Resampling.NEAREST))

"""Pictures with masks as batches: changed at random together for training, as prediction sees them for scoring."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mobilenet.learn.data import Batch, PictureCache, TrainingBatches, aligned, in_background
from mobilenet.pictures.augment import in_channel_order
from mobilenet.pictures.augment_masks import PLAIN, MaskAugmentation, augmented_pairs, cropped_pair, draw_mask
from mobilenet.pictures.mask_set import MaskSample, load
from mobilenet.pictures.preprocess import Preprocessing

Pixels = NDArray[np.uint8]  # [H, W, 4]: a picture's red, green and blue, and its mask, kept as one


def loaded_pair(sample: MaskSample, classes: int, least: tuple[int, int]) -> Pixels:
    """A picture with its mask, uint8 [H, W, 4]; a picture much larger than `least` (height, width) is reduced.

    Raises:
        ImageError, DataError: as `mask_set.load`.
    """
    picture, mask = load(sample, classes)
    scale = max(least[0] / mask.shape[0], least[1] / mask.shape[1])
    if scale < 0.75:  # a smaller gain is not worth another resampling
        size = (ceil(mask.shape[1] * scale), ceil(mask.shape[0] * scale))
        picture = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
        mask = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    return np.dstack([picture, mask])


class MaskData(TrainingBatches):
    """Augmented pictures; the targets are class maps, int64 (B, height, width).

    Args:
        samples: all of the training split.
        classes: how many there are.
        preprocessing: of the network.
        augmentation: what is changed at random.
        budget_bytes: memory for decoded pictures and masks.
        **how: see `TrainingBatches`.
    """

    def __init__(
        self,
        samples: Sequence[MaskSample],
        classes: int,
        preprocessing: Preprocessing,
        augmentation: MaskAugmentation,
        *,
        budget_bytes: float = 0,
        **how: Any,
    ) -> None:
        super().__init__(samples, **how)
        self.preprocessing, self.augmentation = preprocessing, augmentation
        largest = augmentation.scales[1]
        least = (ceil(preprocessing.height * largest), ceil(preprocessing.width * largest))
        by_path = {sample.path: sample for sample in samples}
        self.cache = PictureCache(lambda path: loaded_pair(by_path[path], classes, least), budget_bytes)

    def load(self, numbers: NDArray[np.int64], epoch: int) -> Batch:
        """The samples of these numbers as they look in this epoch."""
        draws = [draw_mask(self.augmentation, self.seed, epoch, int(number)) for number in numbers]
        pairs = []
        for number, drawn in zip(numbers, draws, strict=True):
            kept = self.cache(self.samples[number].path)
            pairs.append(cropped_pair(kept[..., :3], kept[..., 3], drawn, self.preprocessing))
        pictures, masks = augmented_pairs(np.stack([p for p, _ in pairs]), np.stack([m for _, m in pairs]), draws)
        images = aligned(self.preprocessing.normalise(in_channel_order(pictures, self.preprocessing)))
        return Batch(images, torch.from_numpy(masks.astype(np.int64)))


class MaskEvaluation:
    """Samples as prediction sees them, their masks at the network's size, in order, in batches.

    Args:
        samples: of any split.
        classes: how many there are.
        preprocessing: of the network.
        batch: pictures at once.
        workers: threads that load.
        budget_bytes: memory for resized pictures and masks, so that the next evaluation need not decode.
    """

    def __init__(
        self,
        samples: Sequence[MaskSample],
        classes: int,
        preprocessing: Preprocessing,
        *,
        batch: int,
        workers: int = 2,
        budget_bytes: float = 0,
    ) -> None:
        self.samples, self.classes, self.preprocessing = samples, classes, preprocessing
        self.batch, self.workers = batch, workers
        self._by_path = {sample.path: sample for sample in samples}
        self.cache = PictureCache(self._seen, budget_bytes)

    def batches(self, part: slice | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """float32 (B, height, width, C) and int64 (B, height, width) of the samples in `part`, in order."""
        chosen = self.samples[part or slice(None)]
        groups = [chosen[i : i + self.batch] for i in range(0, len(chosen), self.batch)]
        return in_background([partial(self._load, group) for group in groups], self.workers)

    def _load(self, group: Sequence[MaskSample]) -> tuple[Tensor, Tensor]:
        pairs = np.stack([self.cache(sample.path) for sample in group])
        pixels = in_channel_order(np.ascontiguousarray(pairs[..., :3]), self.preprocessing)
        images = aligned(self.preprocessing.normalise(pixels))
        return images, torch.from_numpy(pairs[..., 3].astype(np.int64))

    def _seen(self, path: Path) -> Pixels:
        """A picture and its mask at the network's size, uint8 [height, width, 4]."""
        return np.dstack(cropped_pair(*load(self._by_path[path], self.classes), PLAIN, self.preprocessing))

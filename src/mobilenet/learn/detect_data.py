"""Pictures with boxes for training: checked before anything is written, then batches of augmented ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mobilenet.errors import DataError
from mobilenet.learn.data import Batch, PictureCache, TrainingBatches, aligned, training_picture
from mobilenet.learn.detection_targets import Objects
from mobilenet.learn.prepare import without_bad
from mobilenet.learn.task import Setting
from mobilenet.pictures.augment import in_channel_order
from mobilenet.pictures.augment_boxes import BoxAugmentation, Boxed, augmented_boxes
from mobilenet.pictures.boxes import BoxedPicture, BoxFolder, read_boxes
from mobilenet.pictures.folders import PictureFolder, Sample
from mobilenet.pictures.preprocess import Preprocessing

SHOWN = 10  # things left out that are named one by one


def checked_boxes(setting: Setting) -> BoxFolder:
    """The pictures with boxes without bad ones, the same in every process; what is left out is said.

    The split of data that are not split yet does not depend on --seed: `mobilenet evaluate` must find the
    pictures that were held out.

    Raises:
        DataError: the data cannot be used as they are: a box or a picture is bad and not to be skipped, there is
            no train or val, or a class has no box in train.
    """
    folder = read_boxes(setting.options.data, on_bad_box=setting.options.on_bad_picture)
    for line in folder.skipped[:SHOWN]:
        setting.reporter.say(f"skipped: {line}")
    if len(folder.skipped) > SHOWN:
        setting.reporter.say(f"skipped: {len(folder.skipped) - SHOWN} more")
    for split in ("train", "val"):
        if split not in folder.splits:
            raise DataError(f"{folder.root}: there is no split '{split}', which training needs")
    if folder.unused:
        setting.reporter.say(f"left out, as they have no box: {', '.join(folder.unused)}")
    folder = _readable(folder, setting)
    learnt = np.concatenate([picture.labels[~picture.ignored] for picture in folder.splits["train"]])
    for number, name in enumerate(folder.classes):
        if not (learnt == number).any():
            raise DataError(
                f"{folder.root}: class {name!r} has no box in train, so it cannot be learnt; add pictures of it, "
                "or take its boxes out of the other splits"
            )
    return folder


def _readable(folder: BoxFolder, setting: Setting) -> BoxFolder:
    """The data set without pictures that cannot be decoded to their end; they are named, or stop the run."""
    listed = {
        split: tuple(Sample(picture.path, 0) for picture in pictures) for split, pictures in folder.splits.items()
    }
    good = without_bad(PictureFolder(folder.root, ("pictures",), listed), setting).splits
    kept = {split: {sample.path for sample in samples} for split, samples in good.items()}
    return replace(
        folder,
        splits={
            split: tuple(picture for picture in pictures if picture.path in kept.get(split, ()))
            for split, pictures in folder.splits.items()
        },
    )


def digest_of(folder: BoxFolder) -> str:
    """SHA-256 of the pictures' names and all of their boxes."""
    digest = hashlib.sha256(json.dumps(folder.classes).encode())
    for split, pictures in sorted(folder.splits.items()):
        for picture in pictures:
            inside = picture.path.is_relative_to(folder.root)
            path = picture.path.relative_to(folder.root) if inside else picture.path
            digest.update(f"{split}\0{path}\0{picture.size}\0".encode("utf-8", "surrogateescape"))
            for array in (picture.boxes, picture.labels, picture.ignored):
                digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class BoxBatches(TrainingBatches):
    """Augmented pictures; the targets of a batch are the `Objects` of each, in pixels of the input.

    Args:
        samples: all of the training split, without what is ignored.
        preprocessing: of the network.
        augmentation: what is changed at random.
        budget_bytes: memory for decoded pictures.
        **how: see `TrainingBatches`.
    """

    def __init__(
        self,
        samples: Sequence[BoxedPicture],
        preprocessing: Preprocessing,
        augmentation: BoxAugmentation,
        *,
        budget_bytes: float = 0,
        **how: Any,
    ) -> None:
        super().__init__(samples, **how)
        self.preprocessing, self.augmentation = preprocessing, augmentation
        self.cache = PictureCache(
            lambda path: training_picture(path, preprocessing, augmentation.crop_area), budget_bytes
        )

    def load(self, numbers: NDArray[np.int64], epoch: int) -> Batch:
        """The samples of these numbers as they look in this epoch."""
        seen = augmented_boxes(
            [int(number) for number in numbers],
            self._sample,
            len(self.samples),
            self.augmentation,
            self.preprocessing,
            self.seed,
            epoch,
        )
        pixels = in_channel_order(np.stack([boxed.pixels for boxed in seen]), self.preprocessing)
        objects = [Objects(torch.from_numpy(b.boxes.copy()), torch.from_numpy(b.labels.copy())) for b in seen]
        return Batch(aligned(self.preprocessing.normalise(pixels)), objects)

    def _sample(self, number: int) -> Boxed:
        """A picture as it is kept in memory, which may be smaller than its file's, with its boxes in it."""
        picture: BoxedPicture = self.samples[number]
        pixels = self.cache(picture.path)
        down, across = (kept / whole for kept, whole in zip(pixels.shape[:2], picture.size, strict=True))
        boxes = picture.boxes * np.array([across, down, across, down], np.float32)
        return Boxed(pixels, boxes.astype(np.float32), picture.labels)

"""Training to give every pixel a class: a segmenter, or a classifier under a new head, learns as a whole."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from torch import Tensor

from mobilenet.errors import ArgumentError, DataError
from mobilenet.learn.data import Batch
from mobilenet.learn.machine import Machine
from mobilenet.learn.progress import Figure
from mobilenet.learn.segment_data import MaskData, MaskEvaluation
from mobilenet.learn.segment_measure import Segmented, measure_segmenter, score_segmenter
from mobilenet.learn.segment_start import make_segmenter
from mobilenet.learn.segmentation_loss import SegmentationLoss, class_weights
from mobilenet.learn.start import Start, fingerprint
from mobilenet.learn.task import Score, Setting, Task
from mobilenet.pictures.augment_masks import MaskAugmentation
from mobilenet.pictures.mask_set import MaskFile, MaskFolder, Survey, check_masks
from mobilenet.pictures.masks import read_masks
from mobilenet.run.torch_module import GraphModule


class Segment(Task):
    """Pictures with masks; the best network has the highest mean IoU on those of val."""

    name = "segment"
    figure = Figure("miou", "mIoU")

    def __init__(self, setting: Setting, survey: Survey, start: Start) -> None:
        super().__init__(setting, start)
        self.folder = survey.folder
        options = setting.options
        weights = None
        if options.class_weights == "auto":  # val may have what train does not: a loss without weight is none
            weights = tuple(weight or 1.0 for weight in class_weights(survey.pixels["train"][:-1]))
        self.loss = SegmentationLoss(options.region, class_weights=weights)
        self.val = MaskEvaluation(
            self.folder.splits["val"],
            len(self.folder.classes),
            start.preprocessing,
            **setting.evaluation(kept=True),
        )

    @classmethod
    def prepared(cls, setting: Setting) -> Segment:
        """See `Task.prepared`."""
        if setting.options.freeze == "features":
            raise ArgumentError(
                "--freeze features is for classify and embed: a segmenter's head is no single layer"
            )
        survey = checked_masks(setting)
        return cls(setting, survey, make_segmenter(setting.options, survey.folder.classes))

    @property
    def samples(self) -> int:
        """How many pictures the training split has."""
        return len(self.folder.splits["train"])

    def identity(self) -> dict[str, Any]:
        """Samples, classes and start."""
        return {
            "samples": _fingerprint(self.folder),
            "classes": list(self.folder.classes),
            "start": fingerprint(self.start.contents),
        }

    def batches(self) -> MaskData:
        """Augmented pictures and their masks."""
        options = self.setting.options
        assert options.crop_area is not None
        side = options.crop_area**0.5
        return MaskData(
            self.folder.splits["train"],
            len(self.folder.classes),
            self.start.preprocessing,
            MaskAugmentation((side, 1 / side), options.flip, options.colour, options.flip_vertical),
            **self.setting.training(),
        )

    def losses(self, outputs: dict[str, Tensor], batch: Batch, images: Tensor) -> Tensor:
        """The loss of all pixels of this part of the batch, once for each of its samples."""
        loss = self.loss(outputs, batch.targets.to(self.setting.machine.device))
        return loss.expand(len(images))

    def score(self, module: GraphModule) -> Score:
        """Mean IoU and loss on val, at the size of the network's input."""
        return score_segmenter(module, self.val, self.loss, self.setting)

    def measure(self, module: GraphModule) -> Segmented:
        """Measured on val and test at the pictures' own sizes."""
        return measure_segmenter(module, self.folder, self.start.preprocessing, self.setting)


def checked_masks(setting: Setting) -> Survey:
    """The pictures with masks, without bad ones, the same in every process.

    Raises:
        DataError: the data cannot be used as they are; every bad file is named.
    """
    mode = setting.options.on_bad_picture
    folder = read_masks(setting.options.data, on_missing=mode)
    for split in ("train", "val"):
        if not folder.splits.get(split):
            raise DataError(f"{folder.root}: there is no split '{split}', which training needs")
    survey = _surveyed(folder, setting)
    if setting.machine.is_main:
        for path, reason in survey.folder.skipped:
            setting.reporter.say(f"skipped: {reason if str(path) in reason else f'{path}: {reason}'}")
        for name in survey.absent("train"):
            setting.reporter.say(f"note: no pixel of the training pictures is of class '{name}'")
    if len(survey.folder.classes) < 2:
        raise DataError(
            f"{folder.root}: has one class, '{survey.folder.classes[0]}': there is nothing to tell apart"
        )
    if not survey.pixels["train"][:-1].any():
        raise DataError(f"{folder.root}: no pixel of the training pictures has a class: all are 255")
    return survey


def _surveyed(folder: MaskFolder, setting: Setting) -> Survey:
    """`check_masks`, whose files the main process opens alone."""
    machine: Machine = setting.machine
    found: list[Survey] = []

    def check() -> str:
        before = 0
        with setting.reporter.task("checking the masks", len(folder.samples("all"))) as advance:

            def progress(done: int, _total: int) -> None:
                nonlocal before
                setting.check()
                advance(done - before)
                before = done

            found.append(check_masks(folder, on_bad=setting.options.on_bad_picture, progress=progress))
        bad = [[str(path), reason] for path, reason in found[0].folder.skipped]
        return json.dumps([bad, {split: counts.tolist() for split, counts in found[0].pixels.items()}])

    bad, pixels = json.loads(machine.text_from_main(check))
    if found:
        return found[0]
    left_out = {path for path, _ in bad}
    splits = {s: tuple(p for p in part if str(p.path) not in left_out) for s, part in folder.splits.items()}
    kept = MaskFolder(folder.root, folder.classes, splits)
    return Survey(kept, {split: np.array(counts, np.int64) for split, counts in pixels.items()})


def _fingerprint(folder: MaskFolder) -> str:
    """SHA-256 of which pictures and masks each split has."""
    digest = hashlib.sha256()
    for split, samples in sorted(folder.splits.items()):
        for sample in samples:
            mask = sample.mask.path.name if isinstance(sample.mask, MaskFile) else ""
            path = sample.path.relative_to(folder.root) if sample.path.is_relative_to(folder.root) else sample.path
            digest.update(f"{split}\0{path}\0{mask}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()

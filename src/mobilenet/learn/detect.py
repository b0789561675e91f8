"""Training to find objects: what is where, by a new network, somebody's detector, or a head on a classifier."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mobilenet.errors import ArgumentError, MissingExtraError
from mobilenet.family.decoding import Decoding
from mobilenet.learn.data import Batch
from mobilenet.learn.detect_data import BoxBatches, checked_boxes, digest_of
from mobilenet.learn.detect_measure import BoxedData, Detected, Seen, look, score_of
from mobilenet.learn.detect_start import make_detector
from mobilenet.learn.detection_loss import detection_loss
from mobilenet.learn.detection_targets import Objects
from mobilenet.learn.options import TrainOptions
from mobilenet.learn.progress import Figure
from mobilenet.learn.start import Start, fingerprint
from mobilenet.learn.task import Score, Setting, Task
from mobilenet.pictures.augment_boxes import BoxAugmentation
from mobilenet.pictures.boxes import BoxFolder, without_ignored
from mobilenet.run.torch_module import GraphModule
from mobilenet.tasks.detect_confidence import best_confidence
from mobilenet.tasks.detection_metrics import detection_metrics

# Options of other tasks, and what they would have to be for nothing to be asked of them.
UNUSED: dict[str, Any] = {"distill": None, "randaugment": 0, "dropout": None}


class Detect(Task):
    """Pictures with boxes; the best network has the highest AP50 on val."""

    name = "detect"
    figure = Figure("ap50", "AP50")

    def __init__(self, setting: Setting, folder: BoxFolder, start: Start) -> None:
        super().__init__(setting, start)
        self.folder = folder
        self.train = without_ignored(folder.splits["train"])
        self.val = self._evaluation_data("val")

    @classmethod
    def prepared(cls, setting: Setting) -> Detect:
        """See `Task.prepared`; also raises `MissingExtraError` without faster-coco-eval."""
        _check_options(setting.options)
        if importlib.util.find_spec("faster_coco_eval") is None:
            raise MissingExtraError(
                "training a detector, which is measured on the way (faster-coco-eval),", "detect"
            )
        folder = checked_boxes(setting)
        return cls(setting, folder, make_detector(setting.options, folder.classes))

    @property
    def samples(self) -> int:
        """How many pictures the training split has."""
        return len(self.train)

    @property
    def decoding(self) -> Decoding:
        """How the network's outputs are read."""
        decoding = self.start.contents.decoding
        assert decoding is not None
        return decoding

    def identity(self) -> dict[str, Any]:
        """Pictures with their boxes, classes, start."""
        return {
            "samples": digest_of(self.folder),
            "classes": list(self.folder.classes),
            "start": fingerprint(self.start.contents),
        }

    def _evaluation_data(self, split: str) -> BoxedData:
        return BoxedData(
            self.folder.splits[split],
            self.start.preprocessing,
            **self.setting.evaluation(kept=split == "val"),
        )

    def batches(self) -> BoxBatches:
        """Augmented pictures and what is in them."""
        options = self.setting.options
        assert options.crop_area is not None
        changes = BoxAugmentation(
            crop_area=options.crop_area,
            flip=options.flip,
            flip_vertical=options.flip_vertical,
            colour=options.colour,
            mosaic=options.mosaic,
        )
        return BoxBatches(
            self.train,
            self.start.preprocessing,
            changes,
            **self.setting.training(),
        )

    def losses(self, outputs: dict[str, Tensor], batch: Batch, images: Tensor) -> Tensor:
        """The batch's loss, the same for each of its pictures: its parts are means over all objects in it."""
        device = outputs["boxes"].device
        objects: Sequence[Objects] = [Objects(*(part.to(device) for part in each)) for each in batch.targets]
        height, width = images.shape[1:3]
        parts = detection_loss(outputs, objects, self.decoding, height, width)
        return torch.stack(list(parts.values())).sum().expand(len(images))

    def score(self, module: GraphModule) -> Score:
        """AP50 and loss on the validation pictures."""
        seen = look(module, self.val, self.decoding, self.setting.machine, check=self.setting.check)
        return score_of(seen, self.val.pictures, self.folder.classes)

    def measure(self, module: GraphModule) -> Detected:
        """COCO's figures on val and test, and the confidence that is best on val."""
        classes = self.folder.classes
        data = {"val": self.val}
        if "test" in self.folder.splits:
            data["test"] = self._evaluation_data("test")
        seen = {split: self._seen(module, split, pictures) for split, pictures in data.items()}
        figures = {
            split: detection_metrics(pictures.pictures, seen[split].found, classes)
            for split, pictures in data.items()
        }
        judged = max(data, key="val test".find)
        at = best_confidence(self.val.pictures, seen["val"].found)
        splits = {split: metrics.to_dict() for split, metrics in figures.items()}
        return Detected(splits, figures[judged], at, classes, data[judged].pictures, seen[judged].found)

    def _seen(self, module: GraphModule, split: str, data: BoxedData) -> Seen:
        """In float32, as the model will be used."""
        setting = self.setting
        with setting.reporter.task(f"measuring on {split}", len(data.pictures)) as advance:
            return look(
                module,
                data,
                self.decoding,
                setting.machine,
                mixed_precision=False,
                advance=advance,
                check=setting.check,
            )


def _check_options(options: TrainOptions) -> None:
    for name, unset in UNUSED.items():
        if getattr(options, name) != unset:
            raise ArgumentError(f"--{name} is not for --task detect; leave it out")
    if options.freeze == "features":
        raise ArgumentError("--freeze features: a detector's head is no single layer; freeze a number of blocks")

"""How good a segmenter is: quickly after each epoch, and once as it will be used; the pictures that show it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mobilenet.files.contents import ModelContents
from mobilenet.learn.data import aligned, share_of_process
from mobilenet.learn.run_folder import RunFolder
from mobilenet.learn.segment_data import MaskEvaluation
from mobilenet.learn.segmentation_loss import SegmentationLoss
from mobilenet.learn.task import Outcome, Score, Setting
from mobilenet.pictures.decode import decode
from mobilenet.pictures.mask_set import MaskFolder, MaskSample, load_mask
from mobilenet.pictures.palette import IGNORED, ClassMap
from mobilenet.pictures.preprocess import Preprocessing
from mobilenet.run.torch_module import GraphModule
from mobilenet.tasks.class_map import class_map
from mobilenet.tasks.segmentation_metrics import SegmentationMeter

SHOWN = 12  # pictures of overlays.png


@torch.no_grad()
def score_segmenter(module: GraphModule, data: MaskEvaluation, loss: SegmentationLoss, setting: Setting) -> Score:
    """Mean IoU and mean loss, the same in every process; the processes share the pictures.

    The classes are compared at the size of the network's input, where the loss is, which is quicker than at the
    pictures' own sizes and differs by what the masks lose in being resized.

    Raises:
        ImageError, DataError: a picture or mask cannot be read any more.
    """
    machine, classes = setting.machine, data.classes
    was_training = module.training
    module.eval()
    part = share_of_process(len(data.samples), machine.process, machine.processes)
    counts = torch.zeros(classes * classes + 2, dtype=torch.float64)
    for images, masks in data.batches(part):
        setting.check()
        with machine.autocast():
            outputs: dict[str, Tensor] = module(images.to(machine.device))
        truth = masks.to(machine.device)
        counts[-2] += float(loss(outputs, truth)) * len(images)
        counts[-1] += len(images)
        pairs = truth * classes + outputs["logits"].argmax(-1)
        pairs = torch.where(truth == IGNORED, classes * classes, pairs).flatten()
        counts[:-2] += torch.bincount(pairs, minlength=classes * classes + 1)[:-1].cpu()
    module.train(was_training)
    everywhere = machine.sums(counts)
    return Score(_mean_iou(everywhere[:-2].view(classes, classes)), float(everywhere[-2] / everywhere[-1]))


def _mean_iou(confusion: Tensor) -> float:
    """Of the classes that occur in the truth or the answers."""
    hits = confusion.diagonal()
    union = confusion.sum(0) + confusion.sum(1) - hits
    there = union > 0
    return float((hits[there] / union[there]).mean()) if there.any() else 0.0


@dataclass(frozen=True)
class Segmented(Outcome):
    """How good the best model is.

    Attributes:
        splits: split -> `SegmentationMeter.results`, for val and, if the data have one, test.
        shown: some pictures of `split` with the model's answer.
        folder: where the pictures are.
    """

    kept_of_val = ("images", "miou", "pixel_accuracy", "boundary_f")

    splits: dict[str, dict[str, Any]]
    shown: tuple[tuple[MaskSample, ClassMap], ...]
    folder: MaskFolder

    def finished(self, contents: ModelContents) -> ModelContents:
        """With the figures."""
        return replace(contents, metrics=self.kept_metrics())

    def write_pictures(self, run: RunFolder) -> None:
        """confusion_matrix.png and overlays.png."""
        from mobilenet.report.overlays import draw_overlays
        from mobilenet.report.plots import confusion_matrix_plot

        classes = self.folder.classes
        confusion = np.array(self.metrics["confusion"])[:, : len(classes)]
        confusion_matrix_plot(confusion, classes, run.path / "confusion_matrix.png")
        rows = []
        for sample, found in self.shown:
            image = decode(sample.path)
            rows.append((image, load_mask(sample, found.shape, len(classes)), found))
        draw_overlays(rows, classes).save(run.path / "overlays.png")


def measure_segmenter(
    module: GraphModule, folder: MaskFolder, preprocessing: Preprocessing, setting: Setting
) -> Segmented:
    """Measures on val and test, in float32, at the pictures' own sizes, as the model will be used.

    The main process does it; the others are told the figures.

    Raises:
        Stopped: from `setting.check`.
        ImageError, DataError: a picture or mask cannot be read any more.
    """
    shown: list[tuple[MaskSample, ClassMap]] = []

    def measured() -> str:
        splits = {}
        for split in ("val", "test"):
            if folder.splits.get(split):
                shown.clear()
                splits[split] = _measured(module, folder, split, preprocessing, setting, shown)
        return json.dumps(splits)

    splits = json.loads(setting.machine.text_from_main(measured))
    return Segmented(splits, tuple(shown), folder)


@torch.no_grad()
def _measured(
    module: GraphModule,
    folder: MaskFolder,
    split: str,
    preprocessing: Preprocessing,
    setting: Setting,
    shown: list[tuple[MaskSample, ClassMap]],
) -> dict[str, Any]:
    samples, classes = folder.splits[split], len(folder.classes)
    chosen = {len(samples) * i // SHOWN for i in range(SHOWN)}
    meter = SegmentationMeter(classes)
    with setting.reporter.task(f"measuring on {split}", len(samples)) as advance:
        for number, sample in enumerate(samples):
            setting.check()
            found = answer(module, sample.path, preprocessing, setting)
            meter.add(found, load_mask(sample, (found.shape[0], found.shape[1]), classes))
            if number in chosen:
                shown.append((sample, found))
            advance(1)
    return meter.results(folder.classes)


def answer(module: GraphModule, path: Path, preprocessing: Preprocessing, setting: Setting) -> ClassMap:
    """The class of every pixel of a picture, uint8 [H, W], as `Model.predict` gives it."""
    image = decode(path)
    pixels = preprocessing.normalise(preprocessing.geometry(image))
    outputs: dict[str, Tensor] = module(aligned(pixels[None]).to(setting.machine.device))
    logits = outputs["logits"][0].float().cpu().numpy()
    return class_map(logits, preprocessing, (image.shape[0], image.shape[1]))

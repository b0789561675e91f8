"""What a detector finds in validation and test pictures, and how good that is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from mobilenet.family.decoding import Decoding
from mobilenet.files.contents import ModelContents
from mobilenet.learn.data import EvaluationData, share_of_process
from mobilenet.learn.detection_loss import detection_loss
from mobilenet.learn.detection_targets import Objects
from mobilenet.learn.machine import Machine
from mobilenet.learn.progress import Advance
from mobilenet.learn.run_folder import RunFolder
from mobilenet.learn.task import Outcome, Score
from mobilenet.pictures.augment_boxes import moved_boxes
from mobilenet.pictures.boxes import BoxedPicture
from mobilenet.pictures.folders import Sample
from mobilenet.pictures.preprocess import Preprocessing
from mobilenet.run.torch_module import GraphModule
from mobilenet.tasks.detect import Boxes, decoded, placed_back
from mobilenet.tasks.detect_confidence import AtConfidence
from mobilenet.tasks.detection_metrics import MEASURED_FROM, DetectionMetrics, detection_metrics

SHOWN_PICTURES = 9


class BoxedData(EvaluationData):
    """Pictures with boxes exactly as prediction sees them; see `EvaluationData` for the arguments."""

    def __init__(self, pictures: Sequence[BoxedPicture], preprocessing: Preprocessing, **how: Any) -> None:
        super().__init__([Sample(picture.path, 0) for picture in pictures], preprocessing, **how)
        self.pictures = pictures


class Seen(NamedTuple):
    """What a network finds in every picture, and its mean loss."""

    found: list[Boxes]
    loss: float


@torch.no_grad()
def look(
    module: GraphModule,
    data: BoxedData,
    decoding: Decoding,
    machine: Machine,
    *,
    mixed_precision: bool = True,
    advance: Advance = lambda _: None,
    check: Callable[[], None] = lambda: None,
) -> Seen:
    """What the network finds, the same in every process, which share the pictures.

    `check` is called between batches and may raise to stop.

    Raises:
        ImageError: a picture cannot be read.
    """
    was_training = module.training
    module.eval()
    part = share_of_process(len(data.pictures), machine.process, machine.processes)
    pictures = data.pictures[part]
    found: list[Boxes] = []
    loss = 0.0
    for images in data.batches(part):
        check()
        group = pictures[len(found) : len(found) + len(images)]
        with machine.autocast() if mixed_precision else nullcontext():
            outputs = module(images.to(machine.device))
        loss += float(_loss(outputs, group, decoding, data.preprocessing)) * len(images)
        arrays = {name: outputs[name].float().cpu().numpy() for name in ("boxes", "scores")}
        for row, picture in enumerate(group):
            answer = {name: array[row] for name, array in arrays.items()}
            found.append(boxes_in(answer, picture, decoding, data.preprocessing))
        advance(len(images) * machine.processes)
    module.train(was_training)
    total = machine.sums(torch.tensor([loss], dtype=torch.float64))
    return Seen(_from_all(found, machine), float(total) / max(len(data.pictures), 1))


def _from_all(found: list[Boxes], machine: Machine) -> list[Boxes]:
    if machine.processes == 1:
        return found
    parts: list[list[Boxes]] = [[] for _ in range(machine.processes)]
    dist.all_gather_object(parts, found)
    return [boxes for part in parts for boxes in part]


def _loss(
    outputs: dict[str, torch.Tensor], group: Sequence[BoxedPicture], decoding: Decoding, rule: Preprocessing
) -> torch.Tensor:
    objects = [objects_of(picture, rule, outputs["boxes"].device) for picture in group]
    parts = detection_loss(outputs, objects, decoding, rule.height, rule.width)
    return parts["boxes"] + parts["scores"]


def objects_of(picture: BoxedPicture, rule: Preprocessing, device: torch.device) -> Objects:
    """What there is to be found, in pixels of the input, as prediction sees the picture."""
    height, width = picture.size
    window, place = rule.placement(width, height)
    wanted = ~picture.ignored
    boxes, labels = moved_boxes(picture.boxes[wanted], picture.labels[wanted], window, place, 0.0)
    return Objects(torch.from_numpy(boxes).to(device), torch.from_numpy(labels).to(device))


def boxes_in(
    outputs: dict[str, np.ndarray], picture: BoxedPicture, decoding: Decoding, rule: Preprocessing
) -> Boxes:
    """The boxes that raw outputs stand for, in pixels of the picture."""
    found = decoded(outputs, replace(decoding, score_threshold=MEASURED_FROM), rule.height, rule.width)
    height, width = picture.size
    window, place = rule.placement(width, height)
    corners = placed_back(found.boxes, window, place, width, height)
    return Boxes(corners, found.scores, found.classes, (height, width))


def score_of(seen: Seen, pictures: Sequence[BoxedPicture], classes: Sequence[str]) -> Score:
    """AP50 and loss."""
    figures = detection_metrics(pictures, seen.found, classes).figures
    return Score(figures["ap50"] or 0.0, seen.loss)


@dataclass(frozen=True)
class Detected(Outcome):
    """How good the best detector is.

    Attributes:
        splits: split -> COCO's figures, for val and, if the data have one, test.
        judged: those of the split that the model is judged by, with their curves.
        at: the confidence that is best on val, and what it gives there.
        classes: their names.
        pictures: of the split that the model is judged by.
        found: in these.
    """

    kept_of_val = ("images", "objects", "ap", "ap50")

    splits: dict[str, dict[str, Any]]
    judged: DetectionMetrics
    at: AtConfidence
    classes: tuple[str, ...]
    pictures: Sequence[BoxedPicture]
    found: Sequence[Boxes]

    def finished(self, contents: ModelContents) -> ModelContents:
        """With the confidence from which on boxes are given, and the figures."""
        assert contents.decoding is not None
        decoding = replace(contents.decoding, score_threshold=self.at.confidence)
        metrics = {**self.kept_metrics(), "confidence": self.at._asdict()}
        return replace(contents, decoding=decoding, metrics=metrics)

    def write_pictures(self, run: RunFolder) -> None:
        """precision_recall.png and predictions.png."""
        from mobilenet.report.detection_plots import boxes_grid, precision_recall_plot

        precision_recall_plot(self.judged, run.path / "precision_recall.png")
        shown = sorted({len(self.pictures) * i // SHOWN_PICTURES for i in range(SHOWN_PICTURES)})
        boxes_grid(
            [self.pictures[number] for number in shown],
            [self.found[number] for number in shown],
            self.classes,
            self.at.confidence,
            run.path / "predictions.png",
        )

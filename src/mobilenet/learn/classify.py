"""Training to name pictures: a last layer fitted first, then the whole network, with a teacher if there is one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mobilenet.graph.graph import Weights
from mobilenet.learn.data import Batch, EvaluationData, Mixing, TrainingData
from mobilenet.learn.distil import read_teacher
from mobilenet.learn.evaluate import outputs_of, score
from mobilenet.learn.measure import Measured, measure
from mobilenet.learn.prepare import checked_folder, identity_of
from mobilenet.learn.progress import Figure
from mobilenet.learn.renew import renewed
from mobilenet.learn.start import Start, fingerprint, make_start
from mobilenet.learn.task import Fitted, Score, Setting, Task
from mobilenet.learn.transfer import EmbeddingCache, Head, balanced_weights, embed, fit_head
from mobilenet.pictures.folders import PictureFolder
from mobilenet.run.torch_module import GraphModule


class Classify(Task):
    """Labelled pictures; the best network names most validation pictures rightly."""

    name = "classify"
    figure = Figure("top1", "top-1")

    def __init__(self, setting: Setting, folder: PictureFolder, start: Start) -> None:
        super().__init__(setting, start)
        self.folder = folder
        self.teacher = read_teacher(setting.options, start, folder.classes)
        self.val = self._evaluation_data("val")
        self._class_weights: Tensor | None = None
        if (weights := self._balance()) is not None:
            self._class_weights = torch.from_numpy(weights).to(setting.machine.device)

    @classmethod
    def prepared(cls, setting: Setting) -> Classify:
        """See `Task.prepared`."""
        folder = checked_folder(setting)
        return cls(setting, folder, make_start(setting.options, folder.classes))

    @property
    def samples(self) -> int:
        """How many pictures the training split has."""
        return len(self.folder.splits["train"])

    def identity(self) -> dict[str, Any]:
        """Samples, classes and start."""
        return identity_of(self.folder, self.start)

    def _evaluation_data(self, split: str) -> EvaluationData:
        return EvaluationData(
            self.folder.splits[split],
            self.start.preprocessing,
            **self.setting.evaluation(kept=split == "val"),
        )

    def _balance(self) -> np.ndarray | None:
        if self.setting.options.class_weights == "none":
            return None
        return balanced_weights([sample.label for sample in self.folder.splits["train"]], len(self.folder.classes))

    # -- the last layer ------------------------------------------------------------------------------------

    def fit(self) -> Fitted | None:
        """The start with a last layer that fits the features as they are, where these are somebody's."""
        if not self.setting.options.pretrained:
            return None
        machine, samples = self.setting.machine, self.folder.splits["train"]
        start = renewed(self.start, samples, machine, self.setting.options.workers)
        head = self._fitted_head(start)
        self.start = replace(start, contents=replace(start.contents, weights=with_head(start, head)))
        return Fitted(head.score, "last layer fitted to fixed features")

    def _fitted_head(self, start: Start) -> Head:
        setting, contents = self.setting, start.contents
        machine = setting.machine
        module = GraphModule.from_weights(contents.graph, contents.weights).to(machine.device).eval()
        place = Path(setting.options.project) / ".embeddings"
        cache = EmbeddingCache(place, fingerprint(contents, features_only=True), machine)
        train = self._evaluation_data("train")
        total = len(train.samples) + len(self.val.samples)
        with setting.reporter.task("embedding", total) as advance:
            splits = [
                embed(module, data, cache, machine, advance=advance, check=setting.check)
                for data in (train, self.val)
            ]
        head = fit_head(splits[0], splits[1], len(self.folder.classes), self._balance())
        return Head(
            machine.agreed(head.weight),
            machine.agreed(head.bias),
            head.penalty,
            head.score,
        )

    # -- the loop ------------------------------------------------------------------------------------------

    def batches(self) -> TrainingData:
        """Augmented pictures and smoothed labels."""
        options = self.setting.options
        assert options.crop_area is not None
        return TrainingData(
            self.folder.splits["train"],
            len(self.folder.classes),
            self.start.preprocessing,
            self.setting.augmentation(),
            Mixing(options.label_smoothing, options.mixup, options.cutmix),
            **self.setting.training(),
        )

    def losses(self, outputs: dict[str, Tensor], batch: Batch, images: Tensor) -> Tensor:
        """Cross entropy, mixed with what the teacher says."""
        targets = batch.targets.to(self.setting.machine.device)
        losses: Tensor = -(targets * torch.log_softmax(outputs["logits"].flatten(1).float(), 1)).sum(1)
        if self._class_weights is not None:
            losses = losses * (targets @ self._class_weights)
        if self.teacher is not None:
            losses = self.teacher.mixed(losses, outputs, images, self.setting.machine)
        return losses

    def score(self, module: GraphModule) -> Score:
        """Top-1 and loss on the validation pictures."""
        logits = outputs_of(module, self.val, "logits", self.setting.machine, check=self.setting.check)
        return score(logits, self.val.labels)

    def measure(self, module: GraphModule) -> Measured:
        """Calibrated on val, measured on val and test."""
        return measure(module, self.folder, self.val, self.setting)


def with_head(start: Start, head: Head) -> Weights:
    """The start's weights with a fitted last layer."""
    graph, (name,) = start.contents.graph, start.new
    shape = graph.parameters()[f"{name}.weight"].shape
    own = {f"{name}.weight": head.weight.reshape(shape), f"{name}.bias": head.bias}
    return {**start.contents.weights, **own}

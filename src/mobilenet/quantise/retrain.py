"""Quantisation-aware training: weights, biases and ranges learn together what integers make of them.

A few epochs with low rates, against the labels and the float network's own scores in equal parts where there are
labels, else against what the float network says. Pictures are changed at random as in training (`TrainingData`).
It and `learned*.py` need torch, so they are imported where training is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mobilenet.errors import TrainingError
from mobilenet.graph.graph import Graph, Weights
from mobilenet.graph.ops import ArgMax
from mobilenet.learn.data import Batch, Mixing, TrainingData, aligned
from mobilenet.learn.schedule import Schedule
from mobilenet.pictures.augment import Augmentation
from mobilenet.pictures.folders import Sample
from mobilenet.pictures.preprocess import Preprocessing
from mobilenet.quantise.budget import Prepared
from mobilenet.quantise.learned import LearnedIntegers
from mobilenet.quantise.measure import picked
from mobilenet.run.torch_module import GraphModule

BATCH = 16
# Of a network whose scores have little to do with the float network's; see `rate_for`.
STEP_RATE = 0.03  # of weights and biases, in steps of their integers: Adam moves each by about this
RANGE_RATE = 0.02  # of the logarithms of scales and ranges
LOST = 0.3  # that much noise of the scores, as a part of their energy, is little to do with each other
WARMUP = 0.1  # of all steps
AUGMENTATION = Augmentation(crop_area=0.5, flip=0.5, colour=0.2)
CACHE_BYTES = 1e9  # for decoded pictures
CALIBRATION = 256  # pictures on which the ranges of scores are measured at the end, at most
_SMALLEST = 1e-7  # of a probability, before its logarithm

Progress = Callable[[str, int, int], None]
WHAT = "training with rounding"


@dataclass(frozen=True)
class Lesson:
    """What is learnt from.

    Attributes:
        pictures: files.
        labels: of the pictures, or none.
        classes: how many there are; 1 without labels.
        output: the output that counts, "logits" or another.
        preprocessing: of the network.
        epochs, seed: how often, and what is drawn.
        threads: that compute; None leaves that to torch.
        rate: what the learning rate of weights is multiplied with; that of ranges by its square, since a range
            that moves disturbs all that it holds.
    """

    pictures: Sequence[Path]
    labels: Sequence[int] | None
    classes: int
    output: str
    preprocessing: Preprocessing
    epochs: int
    seed: int
    threads: int | None = None
    rate: float = 1.0


def rate_for(noise: float) -> float:
    """A gentler rate the nearer a network is to the float one already: Adam moves all weights by the rate, however
    little is wrong with them, and at full rate a V2 that had lost nothing lost two points.

    Args:
        noise: of the network's scores, as a part of their energy (`Measure.noise`).
    """
    return min(1.0, sqrt(max(noise, 0.0) / LOST))


def retrain(prepared: Prepared, original: Weights, lesson: Lesson, on_progress: Progress) -> Prepared:
    """A network whose integers were trained; the one that is given is not changed.

    Args:
        prepared: where it begins.
        original: weights of the same graph with which it answers as it should.
        lesson: the pictures, and how often.
        on_progress: called with (what, steps done, steps in all).

    Raises:
        TrainingError: it diverged.
        ImageError: a picture cannot be read.
    """
    if lesson.threads:
        torch.set_num_threads(lesson.threads)
    torch.manual_seed(lesson.seed)
    student = LearnedIntegers(scoring(prepared)).train()
    teacher = GraphModule.from_weights(student.graph, original).eval().requires_grad_(False)
    data = _data(lesson)
    total = lesson.epochs * data.steps
    schedule, optimizer = Schedule(round(total * WARMUP), total), _optimizer(student, lesson.rate)
    step = 0
    for epoch in range(lesson.epochs):
        for batch in data.epoch(epoch):
            on_progress(WHAT, step, total)
            schedule.apply(optimizer, step)
            _learn(student, teacher, optimizer, batch, lesson)
            step += 1
    on_progress(WHAT, total, total)
    return _finished(student, prepared, lesson)


def _learn(
    student: LearnedIntegers,
    teacher: GraphModule,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    lesson: Lesson,
) -> None:
    with torch.no_grad():
        wanted = picked(teacher(batch.images), lesson.output, _beside)
    targets = batch.targets if lesson.labels is not None else None
    found = picked(student(batch.images), lesson.output, _beside)
    loss = loss_of(found, wanted, targets, lesson.output)
    if not torch.isfinite(loss):
        raise TrainingError("training with rounding diverged: do without --qat-epochs, or calibrate anew")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _beside(outputs: list[Tensor]) -> Tensor:
    return torch.cat(outputs, -1)


def loss_of(found: Tensor, wanted: Tensor, targets: Tensor | None, output: str) -> Tensor:
    """How far a network is from what it should say: 0 is the least where there are no labels.

    Args:
        found, wanted: the output, (batch, ...), of the network and of the float network.
        targets: (batch, classes), rows that add up to 1, or none.
        output: its name. Scores are compared as distributions, anything else by squares.
    """
    if output not in ("logits", "probabilities") or found.dim() != 2:
        return F.mse_loss(found, wanted) / wanted.var(correction=0).clamp(min=_SMALLEST)
    logs, known = _logarithms(found, output), _logarithms(wanted, output)
    imitation = (known.exp() * (known - logs)).sum(1).mean()
    if targets is None:
        return imitation
    return (imitation - (targets * logs).sum(1).mean()) / 2


def _logarithms(value: Tensor, output: str) -> Tensor:
    return F.log_softmax(value, 1) if output == "logits" else value.clamp(min=_SMALLEST).log()


def _data(lesson: Lesson) -> TrainingData:
    labels = lesson.labels if lesson.labels is not None else [0] * len(lesson.pictures)
    samples = [Sample(path, label) for path, label in zip(lesson.pictures, labels, strict=True)]
    return TrainingData(
        samples,
        lesson.classes,
        lesson.preprocessing,
        AUGMENTATION,
        Mixing(),
        batch=BATCH,
        seed=lesson.seed,
        workers=1,
        budget_bytes=CACHE_BYTES,
    )


def _optimizer(student: LearnedIntegers, rate: float) -> torch.optim.Optimizer:
    """No decay: towards zero is no better for integers."""
    ranges = [parameter for name, parameter in student.named_parameters() if "log_" in name]
    steps = [parameter for name, parameter in student.named_parameters() if "log_" not in name]
    groups = [(steps, STEP_RATE * rate), (ranges, RANGE_RATE * rate**2)]
    listed = [{"params": group, "lr": highest, "highest_lr": highest} for group, highest in groups]
    return torch.optim.Adam(listed)


def scoring(prepared: Prepared) -> Prepared:
    """The same network whose outputs are scores where they were classes: those have no gradient."""
    graph = prepared.graph
    named = {node.name: node for node in graph.nodes}
    outputs = {
        name: named[value].inputs[0] if value in named and isinstance(named[value].operator, ArgMax) else value
        for name, value in graph.outputs.items()
    }
    if outputs == graph.outputs:
        return prepared
    nodes = tuple(node for node in graph.nodes if not isinstance(node.operator, ArgMax))
    return replace(prepared, graph=Graph(graph.inputs, nodes, outputs))


def _finished(student: LearnedIntegers, prepared: Prepared, lesson: Lesson) -> Prepared:
    rule = lesson.preprocessing
    pictures = lesson.pictures[:CALIBRATION]
    student.widen(aligned(rule.normalise(rule.pixels(picture)[None])) for picture in pictures)
    learnt = student.prepared()
    ranges = {**prepared.ranges, **learnt.ranges}
    return replace(learnt, graph=prepared.graph, ranges=ranges)

"""Learning from another network's answers (Hinton et al. 2015, arXiv:1503.02531) and features.

The teacher sees the very pictures that the student sees, after augmentation and mixing, in evaluation mode. Where
the two networks name the same classes, the student's softened answers are drawn to the teacher's. Where both have
an embedding, a linear map that is learnt beside the student, and not kept, draws the student's embedding into the
direction of the teacher's; so a teacher of other classes helps too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobilenet.errors import ArgumentError, GraphError
from mobilenet.files.contents import ModelContents
from mobilenet.graph.edit import classifier_node, with_classes
from mobilenet.graph.graph import Graph
from mobilenet.learn.machine import Machine
from mobilenet.learn.options import TrainOptions
from mobilenet.learn.start import Start, fingerprint, read_float_model
from mobilenet.pictures.preprocess import Preprocessing
from mobilenet.run.torch_module import GraphModule

MAPPED = "mapped_embedding"  # the student's, in the teacher's space


def read_teacher(options: TrainOptions, start: Start, classes: Sequence[str]) -> Teacher | None:
    """The teacher that --distill names; none if it names none.

    Raises:
        ArgumentError, ModelFileError: it cannot be read, takes no pictures like the student's, or there is nothing
            that the student could learn from it.
    """
    if options.distill is None:
        return None
    contents = read_float_model(options.distill, "distill")
    try:
        contents = _with_embedding(contents)
        shapes = {name: contents.graph.types[node].shape for name, node in contents.graph.outputs.items()}
        columns = _columns(contents.labels, classes) if "logits" in shapes else None
        return Teacher(
            contents,
            View.between(start.preprocessing, contents.preprocessing),
            columns=columns if options.distill_weight > 0 else None,
            features=_elements(shapes, "embedding") if options.distill_features > 0 else 0,
            options=options,
        )
    except (ArgumentError, GraphError) as error:
        raise ArgumentError(f"--distill {options.distill}: {error}") from error


def _with_embedding(contents: ModelContents) -> ModelContents:
    """A classifier with outputs "logits" and "embedding"; what only embeds as it is."""
    if "logits" not in contents.graph.outputs:
        return contents
    node = classifier_node(contents.graph)
    classes = contents.graph.types[node.name].shape[-1]
    graph = with_classes(contents.graph, classes)
    weights = {name: contents.weights[name] for name in graph.parameters()}
    return ModelContents(graph, weights, contents.preprocessing, labels=contents.labels)


def _columns(labels: Sequence[str], classes: Sequence[str]) -> list[int] | None:
    """Where the teacher's answers have the student's classes; none if it has none or one is not there once."""
    places = {label: number for number, label in enumerate(labels)}
    if not classes or any(labels.count(name) != 1 for name in classes):
        return None
    return [places[name] for name in classes]


def _elements(shapes: dict[str, tuple[int, ...]], name: str) -> int:
    return int(np.prod(shapes[name])) if name in shapes else 0


@dataclass(frozen=True)
class View:
    """How the student's input becomes the teacher's: x * scale + shift, in the teacher's order of channels.

    Attributes:
        order: which of the student's channels each of the teacher's is.
        scale, shift: one number for each of the teacher's channels.
        size: (height, width) of the teacher's input.
    """

    order: tuple[int, ...]
    scale: tuple[float, ...]
    shift: tuple[float, ...]
    size: tuple[int, int]

    @staticmethod
    def between(student: Preprocessing, teacher: Preprocessing | None) -> View:
        """Raises `ArgumentError` if the teacher takes no pictures, or grey ones where the student sees colours."""
        if teacher is None:
            raise ArgumentError("takes no pictures")
        if teacher.channels not in ("L", student.channels) and "L" not in (student.channels, teacher.channels):
            order: tuple[int, ...] = (2, 1, 0)  # RGB and BGR
        elif student.channels == "L":
            order = (0,) * len(teacher.mean)
        elif teacher.channels == "L":
            raise ArgumentError("sees grey pictures, and the student coloured ones")
        else:
            order = (0, 1, 2)
        scale = tuple(student.std[o] / teacher.std[i] for i, o in enumerate(order))
        shift = tuple((student.mean[o] - teacher.mean[i]) / teacher.std[i] for i, o in enumerate(order))
        return View(order, scale, shift, (teacher.height, teacher.width))

    def __call__(self, images: Tensor) -> Tensor:
        """float32 (B, height, width, C) as the teacher wants them."""
        if self.order != tuple(range(images.shape[-1])):
            images = images[..., list(self.order)]
        images = images * images.new_tensor(self.scale) + images.new_tensor(self.shift)
        if tuple(images.shape[1:3]) != self.size:
            planes = F.interpolate(images.permute(0, 3, 1, 2), self.size, mode="bilinear", antialias=True)
            images = planes.permute(0, 2, 3, 1)
        return images


class Teacher:
    """A network whose answers are learnt.

    Args:
        contents: the network; its outputs "logits" and "embedding" are used.
        view: how it sees the student's pictures.
        columns: where its logits have the student's classes; none: they are not learnt.
        features: length of its embedding; 0: it is not learnt.
        options: of the run.

    Raises:
        ArgumentError: there is nothing to learn from it.
    """

    def __init__(
        self,
        contents: ModelContents,
        view: View,
        *,
        columns: list[int] | None,
        features: int,
        options: TrainOptions,
    ) -> None:
        if columns is None and not features:
            raise ArgumentError("has neither the classes of the data nor an embedding to learn from")
        self.module = GraphModule.from_weights(contents.graph, contents.weights).eval().requires_grad_(False)
        self.view, self.columns, self.features = view, columns, features
        self.name = str(options.distill)
        self.weight, self.temperature = options.distill_weight, options.distill_temperature
        self.features_weight = options.distill_features
        self.fingerprint = fingerprint(contents)

    def describe(self) -> str:
        """What is learnt from whom, in words."""
        parts = ["answers"] * (self.columns is not None) + ["features"] * bool(self.features)
        why = "" if self.columns is not None or not self.weight else " (its classes are not those of the data)"
        return f"learning {' and '.join(parts)} from {self.name}{why}"

    def beside(self, graph: Graph) -> dict[str, nn.Module]:
        """What a network learns beside itself to learn from this teacher."""
        if not self.features:
            return {}
        size = int(np.prod(graph.types[graph.outputs["embedding"]].shape))
        return {"distillation": EmbeddingMap(size, self.features)}

    @torch.no_grad()
    def outputs(self, images: Tensor, machine: Machine) -> dict[str, Tensor]:
        """What it says to the student's pictures, float32 (B, n)."""
        self.module.to(images.device)
        with machine.autocast():
            outputs = self.module(self.view(images))
        return {name: value.flatten(1).float() for name, value in outputs.items()}

    def mixed(self, losses: Tensor, outputs: dict[str, Tensor], images: Tensor, machine: Machine) -> Tensor:
        """The losses (B) of the labels, mixed with those of the teacher's answers and features.

        Args:
            losses: cross entropy with the labels, one a sample.
            outputs: of the student, with what `beside` adds.
            images: the batch, as the student saw it.
            machine: whose precision the teacher uses.
        """
        own = self.outputs(images, machine)
        if self.columns is not None:
            answers = own["logits"][:, self.columns]
            soft = softened_divergence(outputs["logits"].flatten(1).float(), answers, self.temperature)
            losses = (1 - self.weight) * losses + self.weight * soft
        if self.features:
            likeness = F.cosine_similarity(outputs[MAPPED].float(), own["embedding"])
            losses = losses + self.features_weight * (1 - likeness)
        return losses


def softened_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL divergence (B) of softmax(student / T) from softmax(teacher / T), times T^2.

    The square keeps the gradient's size whatever the temperature is (Hinton et al. 2015, section 2.1).
    """
    wanted = torch.log_softmax(teacher / temperature, 1)
    given = torch.log_softmax(student / temperature, 1)
    return (wanted.exp() * (wanted - given)).sum(1) * temperature**2


class EmbeddingMap(nn.Module):
    """A linear map of the network's embedding (size numbers) into the teacher's space (features numbers)."""

    def __init__(self, size: int, features: int) -> None:
        super().__init__()
        layer = nn.Linear(size, features)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():  # rows of unit length on average, the same in every process and every run
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) / size**0.5)
            layer.bias.zero_()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """ "mapped_embedding" (B, features) of the network's outputs."""
        return {MAPPED: F.linear(outputs["embedding"].flatten(1), self.weight, self.bias)}

"""What a model file holds, whatever format it was read from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from mobilenet.errors import ModelFileError

if TYPE_CHECKING:
    import numpy as np

    from mobilenet.family.decoding import Decoding
    from mobilenet.graph.graph import Graph, Weights
    from mobilenet.graph.ops import Shape
    from mobilenet.pictures.preprocess import Preprocessing

TASKS = ("classify", "detect", "embed", "segment", "features")


class Check(NamedTuple):
    """A tiny picture with the outputs that every runtime must give for it.

    Attributes:
        picture: uint8 (height, width, 3), RGB; it goes through the model's own preprocessing.
        outputs: name -> array without the batch, as `run/reference.py` gave it, in the graph's own dtype.
    """

    picture: np.ndarray
    outputs: Weights


@dataclass
class ModelContents:
    """A graph with everything that is needed to answer with it.

    Attributes:
        graph: the network. A classifier's outputs are "logits" or "probabilities" (or both), and "embedding".
        weights: "<node>.<parameter>" -> array; `graph.check_weights` holds.
        preprocessing: how a picture becomes the input; none if the input is no picture (5 channels, say).
        labels: name of each class, in the order of the outputs; empty if unknown.
        task: one of `TASKS`.
        calibration: numbers that turn outputs into decisions: "temperature" (softmax(logits / temperature)).
        metrics: what was measured, and on which data: {"data": ..., "split": ..., "top1": ..., ...}.
        licence: SPDX expression or a sentence; empty if unknown.
        provenance: how it was made: {"source": ..., "command": ..., "created": ..., ...}.
        checks: tiny pictures with their expected outputs.
        decoding: how a detector's outputs "boxes" and "scores" are read; none for other tasks.
    """

    graph: Graph
    weights: Weights
    preprocessing: Preprocessing | None
    labels: tuple[str, ...] = ()
    task: str = "classify"
    calibration: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    decoding: Decoding | None = None

    def validate(self) -> None:
        """Raises `ModelFileError` or `GraphError` if the parts do not fit together."""
        graph = self.graph
        graph.check_weights(self.weights)
        outputs = {name: graph.types[value].shape for name, value in graph.outputs.items()}
        inputs = {name: kind.shape for name, kind in graph.inputs.items()}
        ends = {"labels": self.labels, "preprocessing": self.preprocessing, "decoding": self.decoding}
        check_ends(inputs, outputs, task=self.task, **ends)  # type: ignore[arg-type]


def check_ends(
    inputs: Mapping[str, Shape],
    outputs: Mapping[str, Shape],
    *,
    task: str,
    labels: tuple[str, ...],
    preprocessing: Preprocessing | None,
    decoding: Decoding | None = None,
) -> None:
    """Raises `ModelFileError` if what is outside the graph does not fit its inputs and outputs of these shapes."""
    if task not in TASKS:
        raise ModelFileError(f"unknown task '{task}'; known are {', '.join(TASKS)}")
    if len(inputs) != 1:
        raise ModelFileError("a model takes one picture, so its graph must have one input")
    if preprocessing is not None:
        ((name, shape),) = inputs.items()
        expected = (preprocessing.height, preprocessing.width, 1 if preprocessing.channels == "L" else 3)
        if shape != expected:
            raise ModelFileError(f"input '{name}' has shape {shape}, but the preprocessing gives {expected}")
    for name in ("logits", "probabilities"):
        if labels and name in outputs and outputs[name][-1] != len(labels):
            raise ModelFileError(f"{len(labels)} labels do not name the {outputs[name][-1]} outputs of '{name}'")
    if task == "detect" or decoding is not None:  # imported here: a classifier's start is not to wait for it
        from mobilenet.family.decoding import check_decoding

        check_decoding(decoding, task, outputs, labels)

"""What a model file holds, whatever format it was read from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mobilenet.errors import ModelFileError
from mobilenet.graph.graph import Graph, Weights
from mobilenet.pictures.preprocess import Preprocessing

TASKS = ("classify", "embed", "segment", "features")


@dataclass(frozen=True)
class Check:
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

    def validate(self) -> None:
        """Raises `ModelFileError` or `GraphError` if the parts do not fit together."""
        self.graph.check_weights(self.weights)
        if self.task not in TASKS:
            raise ModelFileError(f"unknown task '{self.task}'; known are {', '.join(TASKS)}")
        self._check_input()
        self._check_labels()

    def _check_input(self) -> None:
        if len(self.graph.inputs) != 1:
            raise ModelFileError("a model takes one picture, so its graph must have one input")
        ((name, kind),) = self.graph.inputs.items()
        if self.preprocessing is None:
            return
        channels = 1 if self.preprocessing.channels == "L" else 3
        expected = (self.preprocessing.height, self.preprocessing.width, channels)
        if kind.shape != expected:
            raise ModelFileError(f"input '{name}' has shape {kind.shape}, but the preprocessing gives {expected}")

    def _check_labels(self) -> None:
        for name in ("logits", "probabilities"):
            if self.labels and name in self.graph.outputs:
                classes = self.graph.types[self.graph.outputs[name]].shape[-1]
                if classes != len(self.labels):
                    raise ModelFileError(
                        f"{len(self.labels)} labels do not name the {classes} outputs of '{name}'"
                    )

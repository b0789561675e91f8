"""Training from a folder of pictures to a model file. This file imports torch only when it is called."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilenet.errors import MissingExtraError
from mobilenet.learn.options import TrainOptions

if TYPE_CHECKING:
    from mobilenet.learn.progress import Listener

NEEDED = ("torch", "kornia", "accelerate", "scipy", "matplotlib", "yaml")


@dataclass(frozen=True)
class TrainResult:
    """What training gave.

    Attributes:
        path: the best model, best.safetensors.
        folder: the run's folder.
        metrics: of that model, with "data", "split" (test, or val without a test), "images" and the task's
            figures: of a classifier, `classification_metrics`.
        history: the rows of results.csv.
    """

    path: Path
    folder: Path
    metrics: dict[str, Any]
    history: list[dict[str, Any]]


def train(options: TrainOptions, *, on_progress: Listener | None = None) -> TrainResult:
    """Trains a network and writes PROJECT/TASK/NAME/.

    Under `accelerate launch` or `torchrun` the processes train together; each returns the same result.

    Args:
        options: see `TrainOptions`.
        on_progress: called with a dictionary for each step, epoch and message: "event" and its figures.

    Raises:
        ArgumentError: an option does not fit this machine, this network or the run that is resumed.
        DataError: the pictures cannot be used as they are.
        ModelFileError, GraphError: the pretrained file cannot be used.
        TrainingError: training diverged, the disk is full, or the state does not fit; the last state is intact.
        MissingExtraError: the train extra is not installed.
        SystemExit: with status 143 or 130 after SIGTERM or Ctrl-C; the state is saved.
    """
    for module in NEEDED:
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(f"training (no module named '{module}')", "train")
    from mobilenet.learn.session import run_session

    return run_session(options, on_progress)

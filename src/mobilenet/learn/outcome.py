"""What a run leaves behind: the best model, calibrated and measured, and the pictures that show how it went."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import mobilenet
from mobilenet.files.contents import ModelContents
from mobilenet.files.model_file import read_model_file, write_model_file
from mobilenet.graph.graph import Graph, Weights
from mobilenet.learn.machine import Machine
from mobilenet.learn.options import TrainOptions
from mobilenet.learn.progress import Figure
from mobilenet.learn.run_folder import RunFolder
from mobilenet.learn.task import Outcome
from mobilenet.model import Model
from mobilenet.run.torch_module import GraphModule


def write_best(
    run: RunFolder,
    start: ModelContents,
    options: TrainOptions,
    weights: Weights,
    best: Mapping[str, Any],
    figure: Figure,
) -> None:
    """best.safetensors: a whole model that can be used at once, batch norms not folded.

    Raises:
        OSError: the disk is full; the best model so far is intact.
    """
    provenance = {
        "source": f"mobilenet {mobilenet.__version__} train",
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "model": options.model if options.pretrained is None else options.pretrained,
        "options": asdict(options),
        "best": dict(best),
        **start.provenance,
    }
    metrics = {"data": options.data, "split": "val", figure.key: best[figure.key], "loss": best["loss"]}
    write_model_file(replace(start, weights=weights, provenance=provenance, metrics=metrics), run.best)


def best_module(run: RunFolder, graph: Graph, machine: Machine) -> GraphModule:
    """The best model in evaluation mode; the main process reads it, the others are told.

    Raises:
        ModelFileError: somebody damaged best.safetensors.
    """
    module = GraphModule(graph).to(machine.device).eval()
    if machine.is_main:
        module.load_weights(read_model_file(run.best).weights)
    for value in module.state_dict().values():
        machine.from_main(value)
    return module


def write_outcome(run: RunFolder, outcome: Outcome, data: str) -> None:
    """Puts calibration, figures and checks into best.safetensors.

    Raises:
        OSError: the disk is full; the file stays as it was.
    """
    finished = outcome.finished(read_model_file(run.best))
    Model.of(replace(finished, metrics={"data": data, **finished.metrics}, checks=())).save(run.best)


def write_pictures(run: RunFolder, outcome: Outcome, history: Sequence[Mapping[str, Any]], figure: Figure) -> None:
    """curves.png, and the task's own."""
    from mobilenet.report.plots import training_curves

    if any(row.get("phase") == "all" for row in history):
        training_curves(history, run.path / "curves.png", figure=(figure.key, figure.name))
    outcome.write_pictures(run)

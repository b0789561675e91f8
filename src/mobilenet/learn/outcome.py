"""What a run leaves behind: the best model, calibrated and measured, and the pictures that show how it went."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import mobilenet
from mobilenet.files.contents import ModelContents
from mobilenet.files.model_file import read_model_file, write_model_file
from mobilenet.graph.graph import Graph, Weights
from mobilenet.learn.data import EvaluationData
from mobilenet.learn.evaluate import Scores, outputs_of
from mobilenet.learn.machine import Machine
from mobilenet.learn.options import TrainOptions
from mobilenet.learn.progress import Reporter
from mobilenet.learn.run_folder import RunFolder
from mobilenet.model import Model
from mobilenet.pictures.decode import decode_image
from mobilenet.pictures.folders import PictureFolder, Sample
from mobilenet.run.torch_module import GraphModule
from mobilenet.tasks.metrics import classification_metrics, fit_temperature, softmax

SHOWN_PREDICTIONS = 24
SHOWN_SIDE = 192  # pixels


def write_best(
    run: RunFolder, start: ModelContents, options: TrainOptions, weights: Weights, best: Mapping[str, Any]
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
    metrics = {"data": options.data, "split": "val", "top1": best["top1"], "nll": best["loss"]}
    write_model_file(replace(start, weights=weights, provenance=provenance, metrics=metrics), run.best)


@dataclass(frozen=True)
class Measured:
    """How good the best model is.

    Attributes:
        temperature: fitted on val.
        metrics: split -> all of `classification_metrics`, for val and, if the data have one, test.
        probabilities: float32 (N, classes), calibrated, of the samples of `split`.
    """

    temperature: float
    metrics: dict[str, dict[str, Any]]
    probabilities: Scores

    @property
    def split(self) -> str:
        """Where the model is judged: test if there is one."""
        return "test" if "test" in self.metrics else "val"

    def for_the_file(self) -> dict[str, Any]:
        """The figures without what grows with the square of the classes."""
        kept = {name: value for name, value in self.metrics[self.split].items() if name != "confusion"}
        if self.split != "val":
            kept["val"] = {name: self.metrics["val"][name] for name in ("images", "top1", "ece", "nll")}
        return {"split": self.split, **kept}


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


def measure(
    module: GraphModule,
    folder: PictureFolder,
    val: EvaluationData,
    machine: Machine,
    reporter: Reporter,
    check: Callable[[], None],
) -> Measured:
    """Fits the temperature on val and measures on val and test, in float32, as the model will be used.

    Raises:
        Stopped: from `check`.
    """
    splits = {"val": val}
    if "test" in folder.splits:
        splits["test"] = EvaluationData(
            folder.splits["test"], val.preprocessing, batch=val.batch, workers=val.workers
        )
    logits = {}
    for split, samples in splits.items():
        with reporter.task(f"measuring on {split}", len(samples.samples)) as advance:
            logits[split] = outputs_of(
                module, samples, "logits", machine, mixed_precision=False, advance=advance, check=check
            )
    temperature = fit_temperature(logits["val"], val.labels)
    metrics = {split: _metrics(logits[split], samples, folder, temperature) for split, samples in splits.items()}
    return Measured(temperature, metrics, softmax(logits[max(splits, key="val test".find)], temperature))


def _metrics(logits: Scores, samples: EvaluationData, folder: PictureFolder, temperature: float) -> dict[str, Any]:
    return classification_metrics(
        softmax(logits, temperature), samples.labels, folder.classes, uncalibrated=softmax(logits)
    )


def write_measured(run: RunFolder, measured: Measured, data: str) -> None:
    """Puts temperature, figures and checks into best.safetensors.

    Raises:
        OSError: the disk is full; the file stays as it was.
    """
    contents = read_model_file(run.best)
    metrics = {"data": data, **measured.for_the_file()}
    finished = replace(contents, calibration={"temperature": measured.temperature}, metrics=metrics, checks=())
    Model.of(finished).save(run.best)


def write_pictures(
    run: RunFolder, folder: PictureFolder, measured: Measured, history: Sequence[Mapping[str, Any]]
) -> None:
    """curves.png, confusion_matrix.png and predictions.png."""
    from mobilenet.report.plots import confusion_matrix_plot, sample_predictions, training_curves

    if any(row.get("phase") == "all" for row in history):
        training_curves(history, run.path / "curves.png")
    confusion_matrix_plot(
        measured.metrics[measured.split]["confusion"], folder.classes, run.path / "confusion_matrix.png"
    )
    samples = folder.splits[measured.split]
    shown = sorted({len(samples) * i // SHOWN_PREDICTIONS for i in range(SHOWN_PREDICTIONS)})
    answers = measured.probabilities[shown]
    sample_predictions(
        [_thumbnail(samples[i]) for i in shown],
        [folder.classes[samples[i].label] for i in shown],
        [folder.classes[int(row.argmax())] for row in answers],
        [float(row.max()) for row in answers],
        run.path / "predictions.png",
    )


def _thumbnail(sample: Sample) -> NDArray[np.uint8]:
    image = decode_image(sample.path).copy()
    image.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    return np.array(image)

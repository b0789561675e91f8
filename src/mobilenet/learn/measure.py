"""How good the best classifier is, its temperature, and the pictures that show it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenet.files.contents import ModelContents
from mobilenet.learn.data import EvaluationData
from mobilenet.learn.evaluate import Scores, outputs_of
from mobilenet.learn.run_folder import RunFolder
from mobilenet.learn.task import Outcome, Setting
from mobilenet.pictures.decode import decode_image
from mobilenet.pictures.folders import PictureFolder, Sample
from mobilenet.run.torch_module import GraphModule
from mobilenet.tasks.metrics import classification_metrics, fit_temperature, softmax

SHOWN_PREDICTIONS = 24
SHOWN_SIDE = 192  # pixels


@dataclass(frozen=True)
class Measured(Outcome):
    """How good the best model is.

    Attributes:
        temperature: fitted on val.
        splits: split -> all of `classification_metrics`, for val and, if the data have one, test.
        probabilities: float32 (N, classes), calibrated, of the samples of `split`.
        folder: where the pictures are.
    """

    kept_of_val = ("images", "top1", "ece", "nll")

    temperature: float
    splits: dict[str, dict[str, Any]]
    probabilities: Scores
    folder: PictureFolder

    def finished(self, contents: ModelContents) -> ModelContents:
        """With the temperature and the figures."""
        calibration = {"temperature": self.temperature}
        return replace(contents, calibration=calibration, metrics=self.kept_metrics())

    def write_pictures(self, run: RunFolder) -> None:
        """confusion_matrix.png and predictions.png."""
        from mobilenet.report.plots import confusion_matrix_plot, sample_predictions

        classes, samples = self.folder.classes, self.folder.splits[self.split]
        confusion_matrix_plot(self.metrics["confusion"], classes, run.path / "confusion_matrix.png")
        shown = sorted({len(samples) * i // SHOWN_PREDICTIONS for i in range(SHOWN_PREDICTIONS)})
        answers = self.probabilities[shown]
        sample_predictions(
            [_thumbnail(samples[i]) for i in shown],
            [classes[samples[i].label] for i in shown],
            [classes[int(row.argmax())] for row in answers],
            [float(row.max()) for row in answers],
            run.path / "predictions.png",
        )


def measure(module: GraphModule, folder: PictureFolder, val: EvaluationData, setting: Setting) -> Measured:
    """Fits the temperature on val and measures on val and test, in float32, as the model will be used.

    Raises:
        Stopped: from `setting.check`.
    """
    splits = {"val": val}
    if "test" in folder.splits:
        splits["test"] = EvaluationData(
            folder.splits["test"], val.preprocessing, batch=val.batch, workers=val.workers
        )
    logits = {}
    for split, samples in splits.items():
        with setting.reporter.task(f"measuring on {split}", len(samples.samples)) as advance:
            logits[split] = outputs_of(
                module,
                samples,
                "logits",
                setting.machine,
                mixed_precision=False,
                advance=advance,
                check=setting.check,
            )
    temperature = fit_temperature(logits["val"], val.labels)
    metrics = {split: _metrics(logits[split], samples, folder, temperature) for split, samples in splits.items()}
    judged = max(splits, key="val test".find)
    return Measured(temperature, metrics, softmax(logits[judged], temperature), folder)


def _metrics(logits: Scores, samples: EvaluationData, folder: PictureFolder, temperature: float) -> dict[str, Any]:
    return classification_metrics(
        softmax(logits, temperature), samples.labels, folder.classes, uncalibrated=softmax(logits)
    )


def _thumbnail(sample: Sample) -> NDArray[np.uint8]:
    image = decode_image(sample.path).copy()
    image.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    return np.array(image)

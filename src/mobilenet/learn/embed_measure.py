"""What the best embedder is worth on identities that it has not seen, its threshold, and the plots of both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenet.files.contents import ModelContents
from mobilenet.learn.data import EvaluationData
from mobilenet.learn.embed_pairs import Pairs, balanced_threshold, calibrated, verification_figures
from mobilenet.learn.evaluate import outputs_of
from mobilenet.learn.run_folder import RunFolder
from mobilenet.learn.task import Outcome, Setting
from mobilenet.run.torch_module import GraphModule
from mobilenet.tasks.verify import at_threshold, roc
from mobilenet.tasks.verify_run import THRESHOLD, THRESHOLD_FAR

BALANCED = "verify_balanced_threshold"  # in the calibration: where the balanced accuracy on val is best


@dataclass(frozen=True)
class Verified(Outcome):
    """How well the best model tells identities apart.

    Attributes:
        calibration: the thresholds that val gave, as model files have them.
        splits: split -> `embed_pairs.verification_figures`, for val and, if the data have one, test.
        similarities, same: of the pairs of `split`.
    """

    kept_of_val = ("images", "identities", "balanced_accuracy", "auc", "eer")

    calibration: dict[str, float]
    splits: dict[str, dict[str, Any]]
    similarities: NDArray[np.float64]
    same: NDArray[np.bool_]

    def finished(self, contents: ModelContents) -> ModelContents:
        """With the thresholds and the figures."""
        return replace(contents, calibration=self.calibration, metrics=self.kept_metrics())

    def write_pictures(self, run: RunFolder) -> None:
        """roc.png and similarities.png."""
        from mobilenet.report.roc import roc_plot
        from mobilenet.report.similarities import similarities_plot

        figures = self.splits[self.split]
        at = {name: figures[name] for name in ("threshold", "tar", "far")}
        roc_plot(roc(self.similarities, self.same), run.path / "roc.png", {**figures, "at_threshold": at})
        similarities_plot(
            self.similarities, self.same, run.path / "similarities.png", threshold=figures["threshold"]
        )


def measure_embedder(module: GraphModule, data: dict[str, EvaluationData], setting: Setting) -> Verified:
    """Sets the threshold by the identities of val and measures on val and test, in float32, as it will be used.

    Args:
        module: the best network.
        data: split -> pictures: "val" and perhaps "test".
        setting: of the run.

    Raises:
        Stopped: from `setting.check`.
    """
    pairs = {split: Pairs.of(samples.labels) for split, samples in data.items()}
    embeddings = {}
    for split, samples in data.items():
        with setting.reporter.task(f"measuring on {split}", len(samples.samples)) as advance:
            how: dict[str, Any] = {"mixed_precision": False, "advance": advance, "check": setting.check}
            embeddings[split] = outputs_of(module, samples, "embedding", setting.machine, **how)
    similarities = {split: pairs[split].similarities(embeddings[split]) for split in data}
    same = pairs["val"].same
    threshold = calibrated(similarities["val"], same, setting.options.far)
    reached = at_threshold(similarities["val"], same, threshold)["far"]
    calibration = {
        THRESHOLD: threshold,
        THRESHOLD_FAR: reached if setting.options.far is None else setting.options.far,
        BALANCED: balanced_threshold(roc(similarities["val"], same))[0],
    }
    figures = {
        split: verification_figures(embeddings[split], samples.labels, pairs[split], threshold)
        for split, samples in data.items()
    }
    judged = "test" if "test" in data else "val"
    return Verified(calibration, figures, similarities[judged], pairs[judged].same)

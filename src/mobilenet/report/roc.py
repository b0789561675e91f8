"""The ROC curve of a verification, as a PNG file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenet.report.plots import BLUE, GREY, ORANGE, PathLike, _figure, _save, _style

if TYPE_CHECKING:
    from pathlib import Path

    from mobilenet.tasks.verify import Roc


def roc_plot(curve: Roc, path: PathLike, metrics: Mapping[str, Any]) -> Path:
    """TAR against FAR, its axis logarithmic; the equal error rate and a calibrated threshold are marked.

    `metrics` is what `evaluate_verification` returns: `auc`, `eer` and, where there is one, `at_threshold`. Writes
    a PNG and returns its path. Raises `MissingExtraError` without matplotlib.
    """
    figure = _figure("the ROC curve", 6.4, 5.0)
    axes = figure.add_subplot()
    _style(axes, f"{metrics['pairs']} pairs: area {metrics['auc']:.4f}, equal error rate {metrics['eer']:.4f}")
    lowest = float(curve.far[curve.far > 0].min()) / 2.0
    axes.step(np.maximum(curve.far, lowest), curve.tar, where="post", color=BLUE, linewidth=1.8)
    axes.plot(max(metrics["eer"], lowest), 1.0 - metrics["eer"], "o", color=GREY, label="equal error rate")
    if "at_threshold" in metrics:
        at = metrics["at_threshold"]
        label = f"threshold {at['threshold']:.3f}"
        axes.plot(max(at["far"], lowest), at["tar"], "D", color=ORANGE, label=label)
    axes.set(xscale="log", xlim=(lowest, 1.0), ylim=(0.0, 1.02))
    axes.set(xlabel="different pairs accepted (FAR)", ylabel="same pairs accepted (TAR)")
    axes.legend(frameon=False, loc="lower right")
    return _save(figure, path)

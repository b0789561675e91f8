"""How similar pairs of one identity and of different ones are, as a PNG file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mobilenet.report.plots import BLUE, INK, ORANGE, PathLike, _figure, _save, _style

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

BINS = 60


def similarities_plot(
    similarities: NDArray[np.float64], same: NDArray[np.bool_], path: PathLike, *, threshold: float
) -> Path:
    """Two histograms over the cosine, each of its own kind's pairs, and the threshold between them.

    Args:
        similarities: real [N], in -1..1.
        same: bool [N].
        path: of the PNG, which is returned.
        threshold: from which on pairs are taken for the same.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = _figure("the histogram of similarities", 6.4, 4.2)
    axes = figure.add_subplot()
    _style(axes, f"{np.count_nonzero(same)} same and {np.count_nonzero(~same)} different pairs")
    edges = np.linspace(float(similarities.min()), float(similarities.max()) + 1e-9, BINS + 1)
    for kind, colour, name in ((~same, ORANGE, "different"), (same, BLUE, "same")):
        shares = np.histogram(similarities[kind], edges)[0] / max(1, np.count_nonzero(kind))
        axes.stairs(shares, edges, fill=True, alpha=0.55, color=colour, label=name)
    axes.axvline(threshold, color=INK, linewidth=1.2, linestyle="--", label=f"threshold {threshold:.3f}")
    axes.set(xlabel="cosine similarity", ylabel="share of the pairs")
    axes.legend(frameon=False)
    return _save(figure, path)

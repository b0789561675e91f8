"""Plots of a detector, as PNG files: precision over recall, and pictures with what was found in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from mobilenet.pictures.decode import decode
from mobilenet.report.draw_boxes import draw_boxes
from mobilenet.report.plots import PathLike, _figure, _plain, _save, _style

if TYPE_CHECKING:
    from pathlib import Path

    from mobilenet.pictures.boxes import BoxedPicture
    from mobilenet.tasks.detect import Boxes
    from mobilenet.tasks.detection_metrics import DetectionMetrics

GRID_WIDTH, GAP = 1500, 6  # pixels
WHITE = (255, 255, 255)


def precision_recall_plot(metrics: DetectionMetrics, path: PathLike) -> Path:
    """Precision over recall of each class at IoU 0.5; writes a PNG and returns its path.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = _figure("precision over recall", 7.0, 5.0)
    axes = figure.add_subplot()
    _style(axes, f"IoU 0.5: AP50 {metrics.figures['ap50'] or 0:.4f} on {metrics.images} pictures")
    recall = np.linspace(0, 1, metrics.precision.shape[1])
    for name, precision in metrics.curves():
        label = f"{_plain(name, 24)}: {metrics.per_class[name]['ap50']:.3f}"
        axes.plot(recall, precision, linewidth=1.8, label=label)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0.0, 1.0), ylim=(0.0, 1.02))
    axes.legend(frameon=False, loc="lower left")
    return _save(figure, path)


def boxes_grid(
    pictures: Sequence[BoxedPicture],
    found: Sequence[Boxes],
    names: Sequence[str],
    confidence: float,
    path: PathLike,
) -> Path:
    """Pictures beside each other with the boxes that are at least this probable; writes a PNG, returns its path.

    Raises:
        ImageError: a picture cannot be read.
    """
    from pathlib import Path

    columns = math.ceil(math.sqrt(len(pictures)))
    side = (GRID_WIDTH - GAP * (columns - 1)) // columns
    tiles = [
        _tile(picture, boxes, names, confidence, side) for picture, boxes in zip(pictures, found, strict=True)
    ]
    height = max(tile.height for tile in tiles)
    rows = math.ceil(len(tiles) / columns)
    sheet = Image.new("RGB", (GRID_WIDTH, rows * (height + GAP) - GAP), WHITE)
    for number, tile in enumerate(tiles):
        sheet.paste(tile, (number % columns * (side + GAP), number // columns * (height + GAP)))
    target = Path(path)
    sheet.save(target)
    return target


def _tile(picture: BoxedPicture, boxes: Boxes, names: Sequence[str], confidence: float, side: int) -> Image.Image:
    """One picture, no side longer than `side`, with its boxes."""
    image = Image.fromarray(decode(picture.path))
    scale = side / max(image.size)
    small = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    kept = boxes.conf >= confidence
    texts = [f"{names[n]} {share:.0%}" for n, share in zip(boxes.cls[kept], boxes.conf[kept], strict=True)]
    return draw_boxes(np.asarray(small), boxes.xyxy[kept] * np.float32(scale), texts, boxes.cls[kept].tolist())

"""Answers drawn over the frames that they are about, at the frame's own size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from mobilenet.report.draw_boxes import COLOURS, font_for, write_label
from mobilenet.report.draw_masks import UNTINTED, tinted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mobilenet.tasks.classify import ClassificationResult
    from mobilenet.tasks.segment import SegmentationResult


def drawn(pixels: NDArray[np.uint8], answer: Any, confidence: float) -> Image.Image:
    """A frame, uint8 (H, W, 3), with its answer drawn over it: an RGB image of the same size.

    Args:
        pixels: the frame's.
        answer: of a detector its boxes, of a segmenter its classes' colours, of a classifier the best class.
        confidence: boxes and classes that are less probable are not drawn.
    """
    if hasattr(answer, "boxes"):
        plot: Image.Image = answer.plot(pixels, confidence)
        return plot
    if hasattr(answer, "masks"):
        return _tinted(pixels, answer)
    return _labelled(pixels, answer, confidence)


def _tinted(pixels: NDArray[np.uint8], answer: SegmentationResult) -> Image.Image:
    plain = [0] if answer.names[0].lower() == UNTINTED else []
    return Image.fromarray(tinted(pixels, answer.masks, plain))


def _labelled(pixels: NDArray[np.uint8], answer: ClassificationResult, confidence: float) -> Image.Image:
    canvas = Image.fromarray(np.ascontiguousarray(pixels))
    if answer.confidence >= confidence:
        text = " ".join(f"{answer.label} {answer.confidence:.0%}".split())
        font = font_for(text, max(canvas.size) // 30)
        write_label(ImageDraw.Draw(canvas), (0.0, 0.0), text, font, COLOURS[0], canvas.size)
    return canvas

"""A picture with what a detector found in it, what it missed, and what it said that is not there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mobilenet.report.draw import fit_picture
from mobilenet.report.draw_boxes import COLOURS, draw_boxes

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from mobilenet.pictures.boxes import BoxedPicture
    from mobilenet.tasks.detect import Boxes
    from mobilenet.tasks.detect_confidence import Match

FOUND, FALSE, MISSED = 0, 8, 2  # places in COLOURS: blue and orange, as in matrices, and green as a truth
LEGEND = (
    (COLOURS[FOUND], "found"),
    (COLOURS[MISSED], "missed object"),
    (COLOURS[FALSE], "false box"),
)
LONGEST_NAME = 24


def draw_matched(
    image: NDArray[np.uint8],
    truth: BoxedPicture,
    boxes: Boxes,
    match: Match,
    names: Sequence[str],
    side: int,
) -> Image.Image:
    """A small copy of a picture with its boxes, in the colours of `LEGEND`.

    False boxes lie on top, then missed objects. Boxes on ignored objects, and those objects, are not drawn.

    Args:
        image: uint8 [H, W, 3].
        truth: its objects.
        boxes: what was found, and is shown.
        match: of these boxes with the objects.
        names: of the classes.
        side: of the copy, in pixels: its longer one is at most this long.
    """
    small = np.asarray(fit_picture(image, side))
    scale = np.float32(small.shape[1] / image.shape[1])
    false, found, missed = match.right == 0, match.right == 1, ~match.taken & ~truth.ignored
    texts = [
        f"{_short(names[n])} {share:.0%}" for n, share in zip(boxes.cls[false], boxes.conf[false], strict=True)
    ]
    texts += [_short(names[n]) for n in truth.labels[missed]]
    texts += [f"{share:.0%}" for share in boxes.conf[found]]
    corners = np.concatenate([boxes.xyxy[false], truth.boxes[missed], boxes.xyxy[found]])
    kinds = [FALSE] * int(false.sum()) + [MISSED] * int(missed.sum()) + [FOUND] * int(found.sum())
    return draw_boxes(small, corners * scale, texts, kinds)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"

"""A segmented picture drawn with Pillow alone: every class tints its pixels, a legend names the colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mobilenet.errors import ArgumentError
from mobilenet.pictures.palette import IGNORED, ClassMap, voc_palette
from mobilenet.report.draw import (
    FAINT_INK,
    INK,
    MARGIN,
    OVERSAMPLING,
    PAPER,
    PICTURE_SIDE,
    Pen,
    check_picture,
    fit_picture,
)

TINT = 0.55  # of a class's colour over the picture
LEGEND_WIDTH, ROW, SWATCH = 300, 34, 18
MAX_ROWS = 20
UNTINTED = "background"


def tinted(image: NDArray[np.uint8], classes: ClassMap, plain: Sequence[int] = ()) -> NDArray[np.uint8]:
    """A picture, uint8 [H, W, 3], with every class's colour over its pixels, but for those of `plain`.

    Raises:
        ArgumentError: the class map is of another size.
    """
    check_picture(image)
    if classes.shape != image.shape[:2]:
        raise ArgumentError(f"masks of {list(classes.shape)} do not fit a picture of {list(image.shape[:2])}")
    strength = np.full(256, TINT, np.float32)
    strength[list(plain)] = 0
    strength[IGNORED] = TINT / 2
    share = strength[classes][..., None]
    return np.asarray(np.rint(image * (1 - share) + voc_palette()[classes] * share), np.uint8)


def draw_segments(
    image: NDArray[np.uint8], classes: ClassMap, legend: Sequence[tuple[int, str, float]]
) -> Image.Image:
    """The tinted picture beside (class, name, share of the pixels 0..1) of `legend`, at most 20 of them.

    A class 0 of the name "background" is left as it is. Raises `ArgumentError` as `tinted`.
    """
    plain = [number for number, name, _ in legend if number == 0 and name.lower() == UNTINTED]
    photograph = fit_picture(tinted(image, classes, plain), PICTURE_SIDE)
    panel = _legend(legend[:MAX_ROWS], plain)
    height = max(photograph.height, panel.height)
    canvas = Image.new("RGB", (MARGIN * 3 + photograph.width + panel.width, height + MARGIN * 2), PAPER)
    canvas.paste(photograph, (MARGIN, MARGIN + (height - photograph.height) // 2))
    canvas.paste(panel, (MARGIN * 2 + photograph.width, MARGIN + (height - panel.height) // 2))
    return canvas


def _legend(legend: Sequence[tuple[int, str, float]], plain: Sequence[int]) -> Image.Image:
    pen = Pen(LEGEND_WIDTH, max(ROW * len(legend), 1), "".join(name for _, name, _ in legend))
    for row, (number, name, share) in enumerate(legend):
        top = row * ROW
        if number not in plain:
            corners = [OVERSAMPLING * side for side in (0, top, SWATCH, top + SWATCH)]
            colour = tuple(int(level) for level in voc_palette()[number])
            pen.draw.rounded_rectangle(corners, radius=4 * OVERSAMPLING, fill=colour)
        pen.write((SWATCH + 12, top), name, 16, INK, LEGEND_WIDTH - 120)
        pen.write((LEGEND_WIDTH, top), f"{share:.1%}", 16, FAINT_INK, 80, anchor="ra")
    return pen.picture()

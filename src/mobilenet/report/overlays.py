"""Masks beside the truth: each picture with its true classes and with the model's, in one image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mobilenet.errors import ArgumentError
from mobilenet.pictures.palette import ClassMap, voc_palette
from mobilenet.report.draw import FAINT_INK, INK, MARGIN, OVERSAMPLING, PAPER, Pen, fit_picture
from mobilenet.report.draw_masks import MAX_ROWS, SWATCH, UNTINTED, tinted

SIDE = 260  # of one picture, at most
ACROSS = 2  # pairs in a row
GAP, ROW, NAME_WIDTH = 6, 30, 170

Row = tuple[NDArray[np.uint8], ClassMap, ClassMap]


def draw_overlays(rows: Sequence[Row], classes: Sequence[str]) -> Image.Image:
    """For each (picture, truth, answer), the picture tinted by the truth and by the answer; the legend is on top.

    Args:
        rows: uint8 [H, W, 3] and two class maps, uint8 [H, W].
        classes: their names, of which the first 20 are in the legend; a class 0 of the name "background" is left
            as it is.

    Raises:
        ArgumentError: there are no rows, or a class map is of another size.
    """
    if not rows:
        raise ArgumentError("there are no pictures to draw masks on")
    plain = untinted(classes)
    pairs = [_pair(row, plain) for row in rows]
    across = min(ACROSS, len(pairs))
    width = max(pair.width for pair in pairs) * across + MARGIN * (across - 1)
    lines = [pairs[i : i + across] for i in range(0, len(pairs), across)]
    heights = [max(pair.height for pair in line) + GAP for line in lines]
    legend = _legend(classes[:MAX_ROWS], plain, width)
    canvas = Image.new("RGB", (width + 2 * MARGIN, legend.height + sum(heights) + 2 * MARGIN), PAPER)
    canvas.paste(legend, (MARGIN, MARGIN))
    top = MARGIN + legend.height
    for line, height in zip(lines, heights, strict=True):
        for column, pair in enumerate(line):
            canvas.paste(pair, (MARGIN + column * (width + MARGIN) // across, top))
        top += height
    return canvas


def _pair(row: Row, plain: Sequence[int]) -> Image.Image:
    """The truth on the left, the answer on the right."""
    image, *maps = row
    return _beside([fit_picture(tinted(image, classes, plain), SIDE) for classes in maps])


def draw_triple(row: Row, plain: Sequence[int], side: int) -> Image.Image:
    """The picture, the truth and the answer beside each other, no side of them longer than `side` pixels.

    Args:
        row: uint8 [H, W, 3] and two class maps, uint8 [H, W].
        plain: classes that are left as they are.
        side: in pixels.

    Raises:
        ArgumentError: a class map is of another size.
    """
    image, *maps = row
    pictures = [image, *(tinted(image, classes, plain) for classes in maps)]
    return _beside([fit_picture(one, side) for one in pictures])


def _beside(parts: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one size in a row."""
    width, height = parts[0].size
    canvas = Image.new("RGB", ((width + GAP) * len(parts) - GAP, height), PAPER)
    for number, part in enumerate(parts):
        canvas.paste(part, (number * (width + GAP), 0))
    return canvas


def untinted(classes: Sequence[str]) -> list[int]:
    """Classes that are left as they are: a class 0 of the name "background"."""
    return [0] if classes[0].lower() == UNTINTED else []


def _legend(classes: Sequence[str], plain: Sequence[int], width: int) -> Image.Image:
    named = [(number, name) for number, name in enumerate(classes) if number not in plain]
    columns = max(1, width // NAME_WIDTH)
    pen = Pen(width, ROW * (2 + (len(named) - 1) // columns), "".join(classes))
    pen.write((0, 0), "truth on the left, the model's answer on the right", 16, FAINT_INK, width)
    for place, (number, name) in enumerate(named):
        left, top = place % columns * NAME_WIDTH, ROW * (1 + place // columns)
        corners = [OVERSAMPLING * side for side in (left, top, left + SWATCH, top + SWATCH)]
        colour = tuple(int(level) for level in voc_palette()[number])
        pen.draw.rounded_rectangle(corners, radius=4 * OVERSAMPLING, fill=colour)
        pen.write((left + SWATCH + 10, top), name, 16, INK, NAME_WIDTH - SWATCH - 20)
    return pen.picture()

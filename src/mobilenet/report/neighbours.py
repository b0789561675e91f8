"""What a search found, as one picture: what was looked for, and beside it what is most like it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mobilenet.errors import ArgumentError
from mobilenet.report.draw import FAINT_INK, INK, MARGIN, PAPER, TRACK, Pen, fit_picture

SIDE = 150  # of a found picture; the one that was looked for has about twice that
GAP = 10
TEXT = 22  # height of a line
ROWS = 2

Shown = tuple[NDArray[np.uint8] | None, str]


def draw_neighbours(image: NDArray[np.uint8], name: str, found: Sequence[Shown]) -> Image.Image:
    """The picture that was looked for on the left, and what was found in two rows, most alike first.

    Args:
        image: uint8 [H, W, 3].
        name: is written below it.
        found: each picture, uint8 [H, W, 3], or None for one that cannot be read any more, and what is written
            below it.

    Raises:
        ArgumentError: nothing was found, or a picture is of another shape.
    """
    if not found:
        raise ArgumentError("nothing was found, so there is nothing to draw")
    columns = -(-len(found) // ROWS)
    cell = SIDE + TEXT
    rows = -(-len(found) // columns)
    large = ROWS * SIDE + GAP + TEXT
    height = max(rows * cell + (rows - 1) * GAP, large + TEXT)
    width = large + (columns * (SIDE + GAP)) + GAP
    canvas = Image.new("RGB", (width + 2 * MARGIN, height + 2 * MARGIN), PAPER)
    canvas.paste(_tile(image, name, large, first=True), (MARGIN, MARGIN))
    for number, (picture, text) in enumerate(found):
        row, column = divmod(number, columns)
        corner = (MARGIN + large + 2 * GAP + column * (SIDE + GAP), MARGIN + row * (cell + GAP))
        canvas.paste(_tile(picture, text, SIDE), corner)
    return canvas


def _tile(image: NDArray[np.uint8] | None, text: str, side: int, *, first: bool = False) -> Image.Image:
    """A square with the picture in its middle, and a line below it."""
    tile = Image.new("RGB", (side, side + TEXT), PAPER)
    if image is None:
        tile.paste(TRACK, (0, 0, side, side))
    else:
        shown = fit_picture(image, side)
        tile.paste(shown, ((side - shown.width) // 2, side - shown.height))
    pen = Pen(side, TEXT, text)
    pen.write((0, 4), text, 14, INK if first else FAINT_INK, side)
    tile.paste(pen.picture(), (0, side))
    return tile

"""Boxes drawn on a picture with their names, with Pillow alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mobilenet.report.draw import Colour, _font_name, check_picture

# Far apart from each other and from skin, grass and sky; classes take them in turn.
COLOURS: tuple[Colour, ...] = (
    (37, 99, 235), (220, 38, 38), (22, 163, 74), (202, 138, 4), (147, 51, 234),
    (8, 145, 178), (219, 39, 119), (101, 163, 13), (234, 88, 12), (79, 70, 229),
)  # fmt: skip
WHITE: Colour = (255, 255, 255)
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw_boxes(
    image: NDArray[np.uint8], boxes: NDArray[np.float32], texts: Sequence[str], classes: Sequence[int]
) -> Image.Image:
    """The picture, uint8 [H, W, 3], with boxes (N, 4) of left, top, right, bottom in pixels, each with its text.

    Boxes are drawn from the last to the first, so that the first lies on top. Returns an RGB image of that size.
    """
    check_picture(image)
    canvas = Image.fromarray(np.ascontiguousarray(image))
    pen = ImageDraw.Draw(canvas)
    side = max(canvas.size)
    line = max(1, round(side / 320))
    font = font_for("".join(texts), round(side / 45))
    for box, text, number in reversed(list(zip(boxes.tolist(), texts, classes, strict=True))):
        colour = COLOURS[number % len(COLOURS)]
        left, top, right, bottom = box
        pen.rectangle((left, top, max(right, left), max(bottom, top)), outline=colour, width=line)
        write_label(pen, (left, top), " ".join(text.split()), font, colour, canvas.size)
    return canvas


def font_for(text: str, letters: int) -> Font:
    """A font of at least 10 pixels that has the letters of this text."""
    return _opened_font(_font_name(text), max(10, letters))


@lru_cache(maxsize=16)
def _opened_font(name: str | None, letters: int) -> Font:
    """Kept, because opening one takes longer than drawing a frame of a film."""
    return ImageFont.truetype(name, letters) if name else ImageFont.load_default(letters)


def write_label(
    pen: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    text: str,
    font: Font,
    colour: Colour,
    size: tuple[int, int],
) -> None:
    """The text on a strip above the box, or inside it where there is no room."""
    _, _, width, height = pen.textbbox((0, 0), text, font=font)
    left = min(corner[0], max(0.0, size[0] - width - 4))
    top = corner[1] - height - 2 if corner[1] >= height + 2 else corner[1]
    pen.rectangle((left, top, left + width + 4, top + height + 2), fill=colour)
    pen.text((left + 2, top), text, WHITE, font)

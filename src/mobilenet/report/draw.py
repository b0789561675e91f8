"""One answer drawn as a picture, with Pillow alone: the photograph, and bars of the likeliest classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mobilenet.errors import ArgumentError

PICTURE_SIDE = 480
PANEL_WIDTH = 400
MARGIN = 28
ROW_HEIGHT = 50
MAXIMUM_BARS = 50
# Text and rounded bars are drawn larger and reduced once, because Pillow's shapes have hard edges.
OVERSAMPLING = 2

PAPER, INK, FAINT_INK, TRACK = (255, 255, 255), (24, 28, 36), (104, 112, 126), (232, 235, 240)
FIRST_BAR, OTHER_BAR = (37, 99, 235), (158, 180, 222)

# Pillow's own font has the letters of ASCII; all others need the first of these that the system has, and are
# drawn as empty boxes if it has none.
SYSTEM_FONTS = ("NotoSansCJK-Regular.ttc", "DejaVuSans.ttf", "Arial Unicode.ttf", "arialuni.ttf", "arial.ttf")

Colour = tuple[int, int, int]


def check_picture(image: NDArray[np.uint8], what: str = "image") -> None:
    """Raises `ArgumentError` unless `image` is uint8 [H, W, 3] with at least one pixel."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ArgumentError(f"{what} is {image.dtype} {list(image.shape)}: uint8 [H, W, 3] is needed")


def fit_picture(image: NDArray[np.uint8], side: int) -> Image.Image:
    """`image`, uint8 [H, W, 3], with its longer side at most `side` pixels and its aspect ratio kept.

    A smaller picture is enlarged by a whole factor without smoothing, so that the pixels of an 8 x 8 digit
    can be seen as they are.
    """
    check_picture(image)
    if side < 1:
        raise ArgumentError(f"side is {side}: at least 1 is needed")
    height, width = image.shape[:2]
    longest = max(height, width)
    if longest <= side:
        factor = side // longest
        return Image.fromarray(image).resize((width * factor, height * factor), Image.Resampling.NEAREST)
    return Image.fromarray(image).resize(reduced_size(width, height, side), Image.Resampling.LANCZOS)


def reduced_size(width: int, height: int, side: int) -> tuple[int, int]:
    """(width, height) in pixels of a picture that is reduced until its longer side is at most `side`."""
    longest = max(width, height, side)
    return max(1, round(width * side / longest)), max(1, round(height * side / longest))


def draw_answer(image: NDArray[np.uint8], bars: Sequence[tuple[str, float]], caption: str = "") -> Image.Image:
    """The picture, uint8 [H, W, 3], beside one bar for each (name, probability 0..1) of `bars`, best first.

    `caption` is small print below the bars. Returns an RGB image. Raises `ArgumentError` for another shape
    of picture, no bars, or more than 50.
    """
    if not 1 <= len(bars) <= MAXIMUM_BARS:
        raise ArgumentError(f"{len(bars)} bars: 1 to {MAXIMUM_BARS} can be drawn")
    photograph = fit_picture(image, PICTURE_SIDE)
    panel = _draw_panel(bars, caption)
    height = max(photograph.height, panel.height)
    canvas = Image.new("RGB", (MARGIN * 3 + photograph.width + panel.width, height + MARGIN * 2), PAPER)
    canvas.paste(photograph, (MARGIN, MARGIN + (height - photograph.height) // 2))
    canvas.paste(panel, (MARGIN * 2 + photograph.width, MARGIN + (height - panel.height) // 2))
    return canvas


def _draw_panel(bars: Sequence[tuple[str, float]], caption: str) -> Image.Image:
    height = 64 + ROW_HEIGHT * len(bars) + (26 if caption else 0)
    pen = Pen(PANEL_WIDTH, height, caption + "".join(name for name, _ in bars))
    pen.write((0, 0), bars[0][0], 32, INK, PANEL_WIDTH)
    for row, (name, probability) in enumerate(bars):
        _draw_bar(pen, 64 + row * ROW_HEIGHT, name, probability, first=row == 0)
    if caption:
        pen.write((0, height - 20), caption, 14, FAINT_INK, PANEL_WIDTH)
    return pen.picture()


def _draw_bar(pen: Pen, top: int, name: str, probability: float, *, first: bool) -> None:
    ink = INK if first else FAINT_INK
    pen.write((0, top), name, 17, ink, PANEL_WIDTH - 80)
    pen.write((PANEL_WIDTH, top), f"{probability:.1%}", 17, ink, 80, anchor="ra")
    pen.strip(top + 26, PANEL_WIDTH, TRACK)
    length = round(PANEL_WIDTH * min(max(probability, 0.0), 1.0))
    if length:
        pen.strip(top + 26, max(length, 8), FIRST_BAR if first else OTHER_BAR)


class Pen:
    """Draws on a panel of `width` x `height` pixels, in one font that has the letters of `text`."""

    def __init__(self, width: int, height: int, text: str) -> None:
        self.size = (width, height)
        self.canvas = Image.new("RGB", (width * OVERSAMPLING, height * OVERSAMPLING), PAPER)
        self.draw = ImageDraw.Draw(self.canvas)
        self.font_name = _font_name(text)

    def write(
        self, place: tuple[int, int], text: str, size: int, colour: Colour, width: int, anchor: str = "la"
    ) -> None:
        text = " ".join(text.split())  # a line break would move every row below it
        size *= OVERSAMPLING
        font = ImageFont.truetype(self.font_name, size) if self.font_name else ImageFont.load_default(size)
        corner = (place[0] * OVERSAMPLING, place[1] * OVERSAMPLING)
        self.draw.text(corner, _shortened(text, font, width * OVERSAMPLING), colour, font, anchor)

    def strip(self, top: int, length: int, colour: Colour) -> None:
        corners = (0, top * OVERSAMPLING, length * OVERSAMPLING - 1, (top + 8) * OVERSAMPLING - 1)
        self.draw.rounded_rectangle(corners, radius=4 * OVERSAMPLING, fill=colour)

    def picture(self) -> Image.Image:
        return self.canvas.resize(self.size, Image.Resampling.BOX)


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    if font.getlength(text[:500]) <= width:
        return text
    kept = text[:200]
    while kept and font.getlength(kept + "…") > width:
        kept = kept[:-1]
    return kept + "…"


def _font_name(text: str) -> str | None:
    """The first system font that can be opened, if `text` needs one; None is Pillow's own font."""
    if all(letter.isascii() or letter in "·…" for letter in text):
        return None
    for name in SYSTEM_FONTS:
        try:
            ImageFont.truetype(name, 12)
        except OSError:
            continue
        return name
    return None

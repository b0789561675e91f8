"""Colours of classes, and class maps as PNG files whose pixels are the classes' numbers."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mobilenet.errors import ArgumentError

IGNORED = 255  # a pixel that has no class: unlabelled in data, not seen in an answer
MAX_CLASSES = 255
ClassMap = NDArray[np.uint8]  # [H, W]: class numbers, or IGNORED


@cache
def voc_palette() -> NDArray[np.uint8]:
    """Pascal VOC's colours, uint8 [256, 3] RGB: bit 7 - i of channel c is bit 3 i + c of the number.

    Class 0 is black and 255 a pale grey. (VOC2012 development kit, VOClabelcolormap.)
    """
    numbers = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for channel in range(3):
        for place in range(8):
            colours[:, channel] |= ((numbers >> (3 * place + channel) & 1) << (7 - place)).astype(np.uint8)
    colours.setflags(write=False)
    return colours


def palette_image(classes: ClassMap) -> Image.Image:
    """A class map as a picture of mode P in VOC's colours, whose pixels are the class numbers.

    Raises:
        ArgumentError: it is not uint8 [H, W].
    """
    if classes.dtype != np.uint8 or classes.ndim != 2 or not classes.size:
        raise ArgumentError(f"a class map is uint8 [H, W], not {classes.dtype} {list(classes.shape)}")
    image = Image.fromarray(np.ascontiguousarray(classes)).convert("L")
    paletted = Image.frombytes("P", image.size, image.tobytes())
    paletted.putpalette(voc_palette().tobytes())
    return paletted


def save_class_map(classes: ClassMap, path: str | Path) -> Path:
    """Writes `palette_image(classes)` to a .png file.

    Raises:
        ArgumentError: another ending, or no class map.
        OSError: the file cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise ArgumentError(f"{target}: a mask is saved as .png, which loses nothing")
    palette_image(classes).save(target, optimize=False)
    return target

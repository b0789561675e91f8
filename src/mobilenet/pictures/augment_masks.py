"""Random changes of a picture and its mask together. What is drawn depends on (seed, epoch, sample) alone.

As DeepLab trains (arXiv:1706.05587, 4.1): the picture is scaled by a random factor, then a part of the input's
size is taken at a random place; where the picture is smaller, the rest is the preprocessing's grey, without a
class. The picture is resampled as the preprocessing says, the mask by the nearest pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mobilenet.errors import ArgumentError
from mobilenet.pictures.augment import Draw, augmented, with_flips
from mobilenet.pictures.palette import IGNORED, ClassMap
from mobilenet.pictures.preprocess import INTERPOLATIONS, Preprocessing

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class MaskAugmentation:
    """How much is changed.

    Args:
        scales: the smallest and largest factor of size; log-uniform between.
        flip: probability of a mirrored picture.
        flip_vertical: probability of a picture that is upside down.
        colour: brightness, contrast and saturation are each multiplied by a number in 1 - colour .. 1 + colour.
    """

    scales: tuple[float, float] = (0.5, 2.0)
    flip: float = 0.5
    colour: float = 0.2
    flip_vertical: float = 0.0

    def __post_init__(self) -> None:
        smallest, largest = self.scales
        if not 0.05 <= smallest <= largest <= 20:
            raise ArgumentError(f"scales are {self.scales}: a smaller and a larger factor, 0.05 to 20, are needed")
        if not (0 <= self.flip <= 1 and 0 <= self.flip_vertical <= 1 and 0 <= self.colour < 1):
            raise ArgumentError(
                f"flip {self.flip}, flip_vertical {self.flip_vertical} and colour {self.colour} are from 0 to 1"
            )


@dataclass(frozen=True)
class MaskDraw:
    """What was drawn for one sample: factor of size, place (0..1 across and down), mirrored, factors of colour,
    upside down."""

    scale: float
    left: float
    top: float
    flipped: bool
    colours: tuple[float, float, float]
    upside_down: bool = False


def draw_mask(augmentation: MaskAugmentation, seed: int, epoch: int, sample: int) -> MaskDraw:
    """The random numbers of one sample in one epoch: the same on every machine, in every process and thread."""
    random = np.random.default_rng([seed, epoch, sample, 2])
    scale = float(np.exp(random.uniform(log(augmentation.scales[0]), log(augmentation.scales[1]))))
    left, top = random.random(2).tolist()
    flipped = bool(random.random() < augmentation.flip)
    red, green, blue = (1.0 + augmentation.colour * random.uniform(-1, 1, 3)).tolist()
    upside_down = bool(random.random() < augmentation.flip_vertical)
    return MaskDraw(scale, left, top, flipped, (red, green, blue), upside_down)


_CENTRE = 0.4999999  # of an odd rest, the larger part is right and below, as the preprocessing has it
PLAIN = MaskDraw(1.0, _CENTRE, _CENTRE, False, (1.0, 1.0, 1.0))


def cropped_pair(
    image: Pixels, mask: ClassMap, drawn: MaskDraw, preprocessing: Preprocessing
) -> tuple[Pixels, ClassMap]:
    """The drawn part of a picture and of its mask, at the input's size.

    Args:
        image: uint8 [H, W, 3] RGB.
        mask: uint8 [H, W].
        drawn: see `draw_mask`; with `PLAIN`, "stretch" and "pad" give what prediction sees.
        preprocessing: the size, how a picture fits it at a scale of 1, interpolation and grey.

    Returns:
        uint8 [height, width, 3] RGB and uint8 [height, width], not mirrored and not coloured yet.

    Raises:
        ArgumentError: picture and mask are of different sizes.
    """
    if mask.shape != image.shape[:2]:
        raise ArgumentError(f"a picture of {image.shape[:2]} has a mask of {mask.shape}")
    size = preprocessing.width, preprocessing.height
    scaled = _scaled(image.shape[1], image.shape[0], drawn.scale, preprocessing)
    spans = [
        _span(side, whole, place) for side, whole, place in zip(size, scaled, (drawn.left, drawn.top), strict=True)
    ]
    (across, columns, width), (down, rows, height) = spans
    ratio_x, ratio_y = image.shape[1] / scaled[0], image.shape[0] / scaled[1]
    box = (across * ratio_x, down * ratio_y, (across + width) * ratio_x, (down + height) * ratio_y)
    box = (box[0], box[1], min(box[2], float(image.shape[1])), min(box[3], float(image.shape[0])))
    method = INTERPOLATIONS[preprocessing.interpolation]
    pixels = np.full((size[1], size[0], 3), preprocessing.fill, np.uint8)
    classes = np.full((size[1], size[0]), IGNORED, np.uint8)
    place = slice(rows, rows + height), slice(columns, columns + width)
    pixels[place] = np.asarray(Image.fromarray(image).resize((width, height), method, box=box))
    classes[place] = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST, box=box))
    return pixels, classes


def _scaled(width: int, height: int, scale: float, preprocessing: Preprocessing) -> tuple[int, int]:
    """The picture's (width, height) after scaling: at a scale of 1, what `Preprocessing` makes it."""
    window, part = preprocessing.placement(width, height)
    across = (part[2] - part[0]) / (window[2] - window[0]) * width
    down = (part[3] - part[1]) / (window[3] - window[1]) * height
    return max(1, round(across * scale)), max(1, round(down * scale))


def _span(side: int, whole: int, place: float) -> tuple[int, int, int]:
    """Of one axis: where the part begins in the scaled picture, where in the input, and how long it is."""
    if whole >= side:
        return int(place * (whole - side + 1) - (place == 1)), 0, side
    return 0, int(place * (side - whole + 1) - (place == 1)), whole


def augmented_pairs(
    pictures: Pixels, masks: ClassMap, draws: Sequence[MaskDraw]
) -> tuple[Pixels, NDArray[np.uint8]]:
    """Mirrors and colours of a batch: uint8 [B, height, width, 3] and [B, height, width]; returns new arrays."""
    draws_of_pictures = [
        Draw(1.0, 1.0, 0.0, 0.0, drawn.flipped, drawn.colours, (), drawn.upside_down) for drawn in draws
    ]
    ways = [(drawn.flipped, drawn.upside_down) for drawn in draws]
    return augmented(pictures, draws_of_pictures), with_flips(masks, ways)

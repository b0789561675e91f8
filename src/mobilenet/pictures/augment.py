"""Random changes of training pictures. What is drawn for a sample depends on (seed, epoch, sample) alone.

A picture is cropped and resized by Pillow with the filter of its `Preprocessing`, so that training sees what
prediction sees; all else is kornia's, on whole batches, with one drawn number for each picture. Pictures stay
uint8 RGB until the very end, where `Preprocessing.normalise` makes the tensor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log, radians, sqrt
from typing import cast

import kornia.enhance as enhance
import kornia.geometry.transform as geometry
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mobilenet.pictures.preprocess import CHANNELS, INTERPOLATIONS, Preprocessing

Pixels = NDArray[np.uint8]
Box = tuple[float, float, float, float]

ASPECTS = (3 / 4, 4 / 3)
RANDAUGMENT_OPERATIONS = 2  # a picture, as Cubuk et al. 2020 use for small networks
MAX_MAGNITUDE = 10.0
GREY = 0.5  # what rotation, shear and translation pull in from outside


@dataclass(frozen=True)
class Augmentation:
    """How much is changed.

    Args:
        crop_area: smallest share of a picture that a crop keeps, above 0; 1 is all that the input's shape allows.
        flip: probability of a mirrored picture.
        colour: brightness, contrast and saturation are each multiplied by a number in 1 - colour .. 1 + colour.
        randaugment: magnitude 1 to 10, 0 for off.
        flip_vertical: probability of a picture that is upside down.
    """

    crop_area: float = 0.35
    flip: float = 0.5
    colour: float = 0.2
    randaugment: int = 0
    flip_vertical: float = 0.0


@dataclass(frozen=True)
class Draw:
    """What was drawn for one sample."""

    area: float
    aspect: float
    left: float
    top: float
    flipped: bool
    colours: tuple[float, float, float]
    operations: tuple[tuple[str, float], ...]
    upside_down: bool = False


def draw(augmentation: Augmentation, seed: int, epoch: int, sample: int) -> Draw:
    """The random numbers of one sample in one epoch: the same on every machine, in every process and thread."""
    random = np.random.default_rng([seed, epoch, sample])
    area = random.uniform(augmentation.crop_area, 1.0)
    aspect = float(np.exp(random.uniform(log(ASPECTS[0]), log(ASPECTS[1]))))
    left, top = random.random(2)
    flipped = random.random() < augmentation.flip
    colours = 1.0 + augmentation.colour * random.uniform(-1, 1, 3)
    names = list(RANDAUGMENT)
    chosen = random.integers(0, len(names), RANDAUGMENT_OPERATIONS)
    signs = random.choice([-1.0, 1.0], RANDAUGMENT_OPERATIONS)
    strength = augmentation.randaugment / MAX_MAGNITUDE
    operations = tuple((names[i], float(sign * strength)) for i, sign in zip(chosen, signs, strict=True))
    return Draw(
        area,
        aspect if augmentation.crop_area < 1 else 1.0,
        float(left),
        float(top),
        bool(flipped),
        (float(colours[0]), float(colours[1]), float(colours[2])),
        operations if augmentation.randaugment else (),
        bool(random.random() < augmentation.flip_vertical),
    )


def crop_box(width: int, height: int, drawn: Draw, target_aspect: float) -> Box:
    """The part (left, top, right, bottom) of a picture that a sample sees, in pixels and fractions of pixels.

    Its area is the drawn share of the picture and its aspect ratio that of the input times the drawn one
    (Szegedy et al. 2015). Where that does not fit into the picture, it is smaller and keeps its aspect ratio.
    """
    ratio = target_aspect * drawn.aspect
    area = drawn.area * width * height
    box_width, box_height = sqrt(area * ratio), sqrt(area / ratio)
    fits = min(1.0, width / box_width, height / box_height)
    box_width, box_height = min(box_width * fits, width), min(box_height * fits, height)
    left, top = drawn.left * (width - box_width), drawn.top * (height - box_height)
    return left, top, min(left + box_width, float(width)), min(top + box_height, float(height))


def cropped(image: Pixels, drawn: Draw, preprocessing: Preprocessing) -> Pixels:
    """The drawn part of a decoded picture, uint8 [H, W, 3], resized to uint8 [height, width, 3] RGB."""
    height, width, _ = image.shape
    seen = (width, height) if preprocessing.resize == "stretch" else (preprocessing.width, preprocessing.height)
    box = crop_box(width, height, drawn, seen[0] / seen[1])
    size = (preprocessing.width, preprocessing.height)
    resized = Image.fromarray(image).resize(size, INTERPOLATIONS[preprocessing.interpolation], box=box)
    return np.asarray(resized)


def augmented(pictures: Pixels, draws: Sequence[Draw]) -> Pixels:
    """Flips, RandAugment and colours of a batch, uint8 [B, height, width, 3] RGB; changes nothing outside it."""
    pictures = with_flips(pictures, [(drawn.flipped, drawn.upside_down) for drawn in draws])
    colours = np.array([drawn.colours for drawn in draws])
    if not any(drawn.operations for drawn in draws) and (colours == 1.0).all():
        return pictures
    values = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float().div_(255.0)
    values = _randaugmented(values, draws)
    if (colours != 1.0).any():
        values = _coloured(values, torch.from_numpy(colours).float())
    bytes_ = values.clamp_(0.0, 1.0).mul_(255.0).round_().to(torch.uint8)
    return cast(Pixels, bytes_.permute(0, 2, 3, 1).contiguous().numpy())


def with_flips(values: Pixels, ways: Sequence[tuple[bool, bool]]) -> Pixels:
    """Pictures or masks, uint8 [B, height, width, ...], each mirrored or not, and upside down or not."""
    for axis, chosen in zip((2, 1), np.array(ways, bool).reshape(-1, 2).T, strict=True):
        if chosen.any():
            along = chosen.reshape(-1, *[1] * (values.ndim - 1))
            values = np.where(along, np.flip(values, axis), values)
    return values


def mixed(
    images: Tensor, targets: Tensor, samples: Sequence[int], seed: int, epoch: int, *, mixup: float, cutmix: float
) -> tuple[Tensor, Tensor]:
    """Mixes the pictures 0 and 1, 2 and 3, ... of a batch with each other; an odd last one stays as it is.

    Mixup (Zhang et al. 2018) blends, CutMix (Yun et al. 2019) swaps a rectangle; if both are on, a coin decides.

    Args:
        images: float (B, height, width, C); changed in place.
        targets: float (B, classes), mixed in proportion; changed in place.
        samples: the samples' numbers; what is drawn depends on (seed, epoch, first sample of the pair).
        mixup, cutmix: alpha of the Beta distribution of the shares, 0 for off.
    """
    for first in range(0, len(samples) - 1, 2):
        random = np.random.default_rng([seed, epoch, samples[first], 1])
        cut = cutmix > 0 and (mixup == 0 or random.random() < 0.5)
        alpha = cutmix if cut else mixup
        share = float(random.beta(alpha, alpha))
        pair = slice(first, first + 2)
        if cut:
            share = _swap_rectangle(images[pair], share, random)
        else:
            images[pair] = images[pair] * share + images[pair].flip(0) * (1 - share)
        targets[pair] = targets[pair] * share + targets[pair].flip(0) * (1 - share)
    return images, targets


def _swap_rectangle(pair: Tensor, share: float, random: np.random.Generator) -> float:
    """Swaps a rectangle of about 1 - `share` of two pictures; returns the share that they really kept."""
    height, width = pair.shape[1:3]
    side = sqrt(1 - share)
    centre_y, centre_x = random.random(2)
    top, bottom = _span(centre_y, side, height)
    left, right = _span(centre_x, side, width)
    pair[:, top:bottom, left:right] = pair[:, top:bottom, left:right].flip(0)
    return 1 - (bottom - top) * (right - left) / (height * width)


def _span(centre: float, side: float, size: int) -> tuple[int, int]:
    start, end = round((centre - side / 2) * size), round((centre + side / 2) * size)
    return max(0, start), min(size, end)


def in_channel_order(pictures: Pixels, preprocessing: Preprocessing) -> Pixels:
    """RGB pictures of the input's size, uint8 [B, height, width, 3], in the network's channels."""
    if CHANNELS[preprocessing.channels] == 3:
        return pictures if preprocessing.channels == "RGB" else pictures[..., ::-1]
    as_it_is = dataclasses.replace(preprocessing, resize="stretch", crop_fraction=1.0)
    return np.stack([as_it_is.geometry(picture) for picture in pictures])


def _coloured(values: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast and saturation, each as Pillow's `ImageEnhance` means them."""
    values = enhance.adjust_brightness_accumulative(values, factors[:, 0])
    values = enhance.adjust_contrast_with_mean_subtraction(values, factors[:, 1])
    return enhance.adjust_saturation_with_gray_subtraction(values, factors[:, 2])


def _randaugmented(values: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Each picture's operations in turn; pictures that drew the same one are done together."""
    for slot in range(max(len(drawn.operations) for drawn in draws)):
        result = values.clone()
        for name, operation in RANDAUGMENT.items():
            rows = [i for i, drawn in enumerate(draws) if drawn.operations[slot][0] == name]
            if rows:
                strengths = torch.tensor([draws[i].operations[slot][1] for i in rows])
                result[rows] = operation(values[rows], strengths).clamp(0.0, 1.0)
        values = result
    return values


def _affine(matrix_of: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """An operation that moves pixels: `matrix_of` gives (B, 2, 3) about the centre, in units of the width."""

    def operation(values: Tensor, strengths: Tensor) -> Tensor:
        height, width = values.shape[-2:]
        matrix = matrix_of(strengths)
        centre = torch.tensor([(width - 1) / 2, (height - 1) / 2])
        shift = matrix[:, :, 2] * torch.tensor([width, height]) + centre - matrix[:, :, :2] @ centre
        whole = torch.cat([matrix[:, :, :2], shift.unsqueeze(2)], 2)
        fill = torch.full((3,), GREY)
        return geometry.warp_affine(values, whole, (height, width), padding_mode="fill", fill_value=fill)

    return operation


def _matrix(strengths: Tensor, **entries: Tensor) -> Tensor:
    """(B, 2, 3) identity with some entries replaced: xx, xy, dx, yx, yy, dy."""
    rows = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]).repeat(len(strengths), 1)
    for name, value in entries.items():
        rows[:, ("xx", "xy", "dx", "yx", "yy", "dy").index(name)] = value
    return rows.view(-1, 2, 3)


def _rotation(strengths: Tensor) -> Tensor:
    angles = strengths * radians(30)
    return _matrix(strengths, xx=angles.cos(), xy=-angles.sin(), yx=angles.sin(), yy=angles.cos())


def _posterised(values: Tensor, strengths: Tensor) -> Tensor:
    """From 8 bits down to 4."""
    levels = torch.exp2((8 - 4 * strengths.abs()).round()).view(-1, 1, 1, 1)
    return (values * 255 / 256 * levels).floor() * (256 / levels) / 255


def _enhanced(adjust: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """By a factor of 0.1 to 1.9, as the paper's tables have it."""
    return lambda values, strengths: adjust(values, 1 + 0.9 * strengths)


# The 14 operations of RandAugment (Cubuk et al. 2020) with the ranges of its TensorFlow code; a strength is
# -1 to 1 and its sign chooses the direction where there are two.
RANDAUGMENT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "identity": lambda values, _: values,
    "autocontrast": lambda values, _: enhance.normalize_min_max(values),
    "equalize": lambda values, _: enhance.equalize(values),
    "rotate": _affine(_rotation),
    "solarize": lambda values, strengths: enhance.solarize(values, 1 - strengths.abs()),
    "colour": _enhanced(enhance.adjust_saturation_with_gray_subtraction),
    "posterize": _posterised,
    "contrast": _enhanced(enhance.adjust_contrast_with_mean_subtraction),
    "brightness": _enhanced(enhance.adjust_brightness_accumulative),
    "sharpness": _enhanced(lambda values, factors: enhance.sharpness(values, factors)),
    "shear_x": _affine(lambda s: _matrix(s, xy=s * 0.3)),
    "shear_y": _affine(lambda s: _matrix(s, yx=s * 0.3)),
    "translate_x": _affine(lambda s: _matrix(s, dx=s * 0.3)),
    "translate_y": _affine(lambda s: _matrix(s, dy=s * 0.3)),
}

"""Random changes of training pictures that have boxes: crops that keep some, flips, colours, mosaics.

What is drawn for a sample depends on (seed, epoch, sample) alone. A picture is cropped and resized by Pillow with
the filter of its `Preprocessing`, as prediction does it; flips and colours are those of `pictures.augment`. Boxes
are left, top, right, bottom in pixels of whatever they lie in, float32 (N, 4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mobilenet.errors import ArgumentError
from mobilenet.pictures.augment import Augmentation, Draw, augmented, crop_box, draw
from mobilenet.pictures.preprocess import INTERPOLATIONS, Preprocessing

Pixels = NDArray[np.uint8]
Corners = tuple[float, float, float, float]
ATTEMPTS = 20  # at a window that keeps a box, before the whole picture is taken
LEAST_SIDE = 2.0  # pixels of the input: what is left of a smaller box shows nothing
MOSAIC_CENTRE = (0.3, 0.7)  # where the four pictures meet, in shares of the sides
_STREAM, _MOSAIC = 2, 3  # apart from what `augment.draw` and `augment.mixed` draw


class Boxed(NamedTuple):
    """A picture, uint8 [H, W, 3], its boxes, float32 (N, 4), and their classes, int64 (N)."""

    pixels: Pixels
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class BoxAugmentation:
    """How much is changed.

    Args:
        crop: probability of a crop; otherwise all of the picture is seen.
        crop_area: smallest share of a picture that a crop keeps, above 0.
        zoom_out: largest number of times by which a picture that is not cropped is larger with its grey border; 1
            is none.
        visible: smallest share of a box that must be inside a crop for the box to stay.
        flip: probability of a mirrored picture.
        flip_vertical: probability of a picture that is upside down.
        colour: as `augment.Augmentation`.
        mosaic: probability of four pictures in one.

    Raises:
        ArgumentError: a value is out of range; it is named.
    """

    crop: float = 0.5
    crop_area: float = 0.3
    zoom_out: float = 1.0
    visible: float = 0.3
    flip: float = 0.5
    colour: float = 0.2
    mosaic: float = 0.0
    flip_vertical: float = 0.0

    def __post_init__(self) -> None:
        for name in ("crop", "visible", "flip", "flip_vertical", "colour", "mosaic"):
            if not 0 <= getattr(self, name) <= 1:
                raise ArgumentError(f"{name} is a number from 0 to 1, not {getattr(self, name)!r}")
        if not 0 < self.crop_area <= 1 or not 1 <= self.zoom_out <= 8:
            raise ArgumentError(
                f"crop_area {self.crop_area!r} must be above 0, at most 1; zoom_out {self.zoom_out!r} from 1 to 8"
            )


def augmented_boxes(
    samples: Sequence[int],
    load: Callable[[int], Boxed],
    total: int,
    augmentation: BoxAugmentation,
    preprocessing: Preprocessing,
    seed: int,
    epoch: int,
) -> list[Boxed]:
    """Samples as they look in an epoch: pictures uint8 [height, width, 3] RGB of the input's size, with their
    boxes.

    Args:
        samples: their numbers, below `total`.
        load: gives a sample as it lies in the data set; a mosaic also asks for three others.
    """
    colours = Augmentation(
        crop_area=1.0,
        flip=augmentation.flip,
        colour=augmentation.colour,
        flip_vertical=augmentation.flip_vertical,
    )
    draws = [draw(colours, seed, epoch, number) for number in samples]
    views = [_view(number, load, total, augmentation, preprocessing, [seed, epoch, number]) for number in samples]
    pictures = augmented(np.stack([view.pixels for view in views]), draws)
    return [
        Boxed(pixels, _flipped(view.boxes, drawn, preprocessing), view.labels)
        for pixels, view, drawn in zip(pictures, views, draws, strict=True)
    ]


def plain_boxes(sample: Boxed, preprocessing: Preprocessing) -> Boxed:
    """A sample as prediction sees it: through the preprocessing's geometry, in RGB."""
    height, width, _ = sample.pixels.shape
    window, place = preprocessing.placement(width, height)
    boxes, labels = moved(sample, window, place, 0.0)
    rule = preprocessing if preprocessing.channels == "RGB" else _in_rgb(preprocessing)
    return Boxed(rule.geometry(sample.pixels), boxes, labels)


def moved(
    sample: Boxed, window: Corners, place: Corners, visible: float
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A sample's boxes and classes by `moved_boxes`."""
    return moved_boxes(sample.boxes, sample.labels, window, place, visible)


def moved_boxes(
    boxes: NDArray[np.float32], labels: NDArray[np.int64], window: Corners, place: Corners, visible: float
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The boxes of a picture when a window of it is resized to a place: cut there, without those of which less
    than the share `visible` is inside, or less than 2 pixels are left.
    """
    scale = np.array(
        [(place[2] - place[0]) / (window[2] - window[0]), (place[3] - place[1]) / (window[3] - window[1])]
    )
    start, corner = np.array([window[0], window[1]]), np.array([place[0], place[1]])
    there = (boxes.reshape(-1, 2, 2) - start) * scale + corner
    cut = np.clip(there, corner, np.array([place[2], place[3]]))
    sides, before = cut[:, 1] - cut[:, 0], there[:, 1] - there[:, 0]
    stays = (sides.min(axis=1) >= LEAST_SIDE) & (sides.prod(axis=1) >= visible * before.prod(axis=1))
    return cut[stays].reshape(-1, 4).astype(np.float32), labels[stays]


def _view(
    number: int,
    load: Callable[[int], Boxed],
    total: int,
    augmentation: BoxAugmentation,
    preprocessing: Preprocessing,
    seeds: list[int],
) -> Boxed:
    """Its window, resized to the input; or four windows of four pictures."""
    random = np.random.default_rng([*seeds, _STREAM])
    if random.random() < augmentation.mosaic:
        return _mosaic(number, load, total, augmentation, preprocessing, np.random.default_rng([*seeds, _MOSAIC]))
    sample = load(number)
    canvas = np.full((preprocessing.height, preprocessing.width, 3), preprocessing.fill, np.uint8)
    whole = (0.0, 0.0, float(preprocessing.width), float(preprocessing.height))
    if random.random() < augmentation.crop:
        window, place = _window(sample, augmentation, preprocessing, whole, random), whole
    else:
        height, width, _ = sample.pixels.shape
        window, place = preprocessing.placement(width, height)
        place = _zoomed(place, whole, random.uniform(1.0, augmentation.zoom_out), random)
    return _pasted(canvas, sample, window, place, preprocessing, augmentation.visible)


def _mosaic(
    number: int,
    load: Callable[[int], Boxed],
    total: int,
    augmentation: BoxAugmentation,
    preprocessing: Preprocessing,
    random: np.random.Generator,
) -> Boxed:
    """Four pictures that meet in a drawn place (arXiv:2004.10934, 3.3), each cropped to its part."""
    width, height = preprocessing.width, preprocessing.height
    centre_x, centre_y = (round(random.uniform(*MOSAIC_CENTRE) * side) for side in (width, height))
    numbers = [number, *random.integers(0, total, 3).tolist()]
    canvas = np.full((height, width, 3), preprocessing.fill, np.uint8)
    parts = []
    for place, other in enumerate(numbers):
        columns = (0, centre_x) if place % 2 == 0 else (centre_x, width)
        rows = (0, centre_y) if place < 2 else (centre_y, height)
        cell = (float(columns[0]), float(rows[0]), float(columns[1]), float(rows[1]))
        sample = load(other)
        window = _window(sample, augmentation, preprocessing, cell, random)
        parts.append(_pasted(canvas, sample, window, cell, preprocessing, augmentation.visible))
    return Boxed(
        canvas, np.concatenate([part.boxes for part in parts]), np.concatenate([part.labels for part in parts])
    )


def _window(
    sample: Boxed,
    augmentation: BoxAugmentation,
    preprocessing: Preprocessing,
    place: Corners,
    random: np.random.Generator,
) -> Corners:
    """A window in about the shape of its place that keeps a box, if there is one; else all of the picture."""
    height, width, _ = sample.pixels.shape
    aspect = (place[2] - place[0]) / (place[3] - place[1])
    if preprocessing.resize == "stretch":  # the input's pixels are not square then
        aspect *= width / height * preprocessing.height / preprocessing.width
    for _ in range(ATTEMPTS):
        area, left, top = random.uniform(augmentation.crop_area, 1.0), *random.random(2)
        shape = float(np.exp(random.uniform(-0.29, 0.29)))  # 3/4 to 4/3
        drawn = Draw(float(area), shape, float(left), float(top), False, (1.0, 1.0, 1.0), ())
        window = crop_box(width, height, drawn, aspect)
        if not len(sample.boxes) or len(moved(sample, window, place, augmentation.visible)[0]):
            return window
    return 0.0, 0.0, float(width), float(height)


def _zoomed(place: Corners, whole: Corners, factor: float, random: np.random.Generator) -> Corners:
    """The place made smaller by a factor, somewhere in the whole."""
    if factor == 1.0:
        return place
    width, height = (place[2] - place[0]) / factor, (place[3] - place[1]) / factor
    left, top = random.random(2) * (whole[2] - width, whole[3] - height)
    return float(left), float(top), float(left + width), float(top + height)


def _pasted(
    canvas: Pixels, sample: Boxed, window: Corners, place: Corners, preprocessing: Preprocessing, visible: float
) -> Boxed:
    """Resizes a window of the picture into a place of the canvas, whole pixels of it; gives canvas and boxes."""
    left, top, right, bottom = (round(side) for side in place)
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    method = INTERPOLATIONS[preprocessing.interpolation]
    resized = Image.fromarray(sample.pixels).resize((right - left, bottom - top), method, box=window)
    canvas[top:bottom, left:right] = np.asarray(resized)[: canvas.shape[0] - top, : canvas.shape[1] - left]
    boxes, labels = moved(sample, window, (left, top, right, bottom), visible)
    return Boxed(canvas, boxes, labels)


def _flipped(boxes: NDArray[np.float32], drawn: Draw, preprocessing: Preprocessing) -> NDArray[np.float32]:
    sides = ((0, preprocessing.width, drawn.flipped), (1, preprocessing.height, drawn.upside_down))
    for start, length, chosen in sides:
        if chosen:
            boxes = boxes.copy()
            boxes[:, [start, start + 2]] = length - boxes[:, [start + 2, start]]
    return boxes


def _in_rgb(preprocessing: Preprocessing) -> Preprocessing:
    values = preprocessing.to_dict() | {"channels": "RGB", "mean": (0.0,) * 3, "std": (1.0,) * 3}
    return Preprocessing(**values)

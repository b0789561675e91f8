"""Augmentation with boxes: every box stays around the pixels that it was around."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("kornia", reason="kornia is not installed: pip install 'mobilenet[train]'")

from mobilenet.errors import ArgumentError
from mobilenet.pictures.augment_boxes import BoxAugmentation, Boxed, augmented_boxes, moved, plain_boxes
from mobilenet.pictures.preprocess import Preprocessing

RULE = Preprocessing(96, 128, resize="stretch", crop_fraction=1.0)
STILL = BoxAugmentation(crop=0, flip=0, colour=0)
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


def sample(number: int) -> Boxed:
    """A grey picture with up to three rectangles, each in the colour of its class."""
    random = np.random.default_rng(number)
    pixels = np.full((random.integers(80, 200), random.integers(80, 200), 3), 128, np.uint8)
    height, width, _ = pixels.shape
    boxes = []
    for label in range(3):  # one beside the other, so that none hides another
        left, right = sorted(random.integers(label * width // 3 + 1, (label + 1) * width // 3 - 1, 2))
        top, bottom = sorted(random.integers(2, height - 2, 2))
        right, bottom = max(right, left + 12), max(bottom, top + 12)
        boxes.append((left, top, min(right, width), min(bottom, height)))
        pixels[top:bottom, left:right] = COLOURS[label]
    return Boxed(pixels, np.array(boxes, np.float32), np.arange(3))


def seen_box(pixels: np.ndarray, label: int) -> tuple[float, ...] | None:
    """Around all pixels that are nearer to the class's colour than to grey."""
    mask = pixels[..., label].astype(int) - pixels[..., (label + 1) % 3] > 128
    if not mask.any():
        return None
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def check(view: Boxed, rule: Preprocessing, visible: float = 0.0) -> None:
    assert view.pixels.shape == (rule.height, rule.width, 3) and view.pixels.dtype == np.uint8
    assert view.boxes.dtype == np.float32 and len(view.boxes) == len(view.labels)
    assert (view.boxes >= 0).all() and (view.boxes <= [rule.width, rule.height] * 2).all()
    for box, label in zip(view.boxes, view.labels, strict=True):
        found = seen_box(view.pixels, int(label))
        assert found is not None and np.abs(np.array(found) - box).max() <= 2.5, (found, box)


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize(
    "augmentation",
    [
        STILL,
        replace(STILL, flip=1.0),
        replace(STILL, flip_vertical=1.0),
        replace(STILL, flip=0.5, flip_vertical=0.5),
        replace(STILL, crop=1.0, crop_area=0.2),
        replace(STILL, zoom_out=2.0),
    ],
)
def test_boxes_stay_around_their_pixels(augmentation: BoxAugmentation, resize: str) -> None:
    rule = replace(RULE, resize=resize)
    for view in augmented_boxes(range(12), sample, 12, augmentation, rule, 0, 0):
        check(view, rule)


def test_a_crop_keeps_a_box() -> None:
    augmentation = replace(STILL, crop=1.0, crop_area=0.05, visible=0.5)
    views = augmented_boxes(range(40), sample, 40, augmentation, RULE, 1, 0)
    assert all(len(view.boxes) for view in views)
    assert any(len(view.boxes) < 3 for view in views)


def test_a_mosaic_holds_boxes_of_four() -> None:
    def coloured(number: int) -> Boxed:
        one = sample(number)
        return Boxed(one.pixels, one.boxes[:1], np.array([number]))

    augmentation = replace(STILL, mosaic=1.0, crop_area=0.8, visible=0.1)
    views = augmented_boxes(range(10), coloured, 10, augmentation, RULE, 0, 0)
    assert max(len(view.boxes) for view in views) == 4
    assert all(view.labels[0] == number for number, view in enumerate(views) if len(view.boxes) == 4)
    for view in views:
        red = (view.pixels[..., 0].astype(int) - view.pixels[..., 1]) > 128
        inside = np.zeros(red.shape, bool)
        for left, top, right, bottom in np.round(view.boxes).astype(int):
            inside[max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1] = True
        assert red[inside].mean() > 0.6
        assert (red & ~inside).sum() <= 0.02 * red.size  # slivers of boxes that a crop all but cut away


def test_what_is_drawn_depends_on_seed_epoch_and_sample_alone() -> None:
    augmentation = BoxAugmentation(mosaic=0.3, zoom_out=1.5)

    def views(numbers: Any, epoch: int = 0, seed: int = 0) -> list[Boxed]:
        return augmented_boxes(numbers, sample, 9, augmentation, RULE, seed, epoch)

    def same(a: Boxed, b: Boxed) -> bool:
        return a.pixels.tobytes() + a.boxes.tobytes() == b.pixels.tobytes() + b.boxes.tobytes()

    alone = views([4])[0]
    assert same(alone, views([1, 4, 7])[1])
    assert not same(alone, views([4], epoch=1)[0]) and not same(alone, views([4], seed=1)[0])


def test_a_picture_without_objects_stays_one() -> None:
    empty = Boxed(np.zeros((50, 60, 3), np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    for mosaic in (0.0, 1.0):
        (view,) = augmented_boxes([0], lambda _: empty, 1, BoxAugmentation(mosaic=mosaic), RULE, 0, 0)
        assert view.boxes.shape == (0, 4) and view.labels.shape == (0,)


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_the_plain_view_is_what_prediction_sees(resize: str, channels: str) -> None:
    rule = replace(RULE, resize=resize, channels=channels)
    view = plain_boxes(sample(3), rule)
    check(view, rule)
    seen = rule.geometry(sample(3).pixels)
    assert np.array_equal(view.pixels, seen if channels == "RGB" else seen[..., ::-1])


def test_what_is_left_of_a_box() -> None:
    boxes = np.array([[0, 0, 10, 10], [8, 0, 18, 10], [9.5, 0, 19.5, 10]], np.float32)
    one = Boxed(np.zeros((20, 20, 3), np.uint8), boxes, np.arange(3))
    cut, labels = moved(one, (0, 0, 10, 10), (0, 0, 20, 20), 0.2)
    assert labels.tolist() == [0, 1] and cut.tolist() == [[0, 0, 20, 20], [16, 0, 20, 20]]
    assert moved(one, (0, 0, 10, 10), (0, 0, 20, 20), 0.21)[1].tolist() == [0]
    assert moved(one, (0, 0, 10, 10), (0, 0, 20, 20), 0.0)[1].tolist() == [0, 1]  # of the last, one pixel is left


@pytest.mark.parametrize(
    "words",
    [
        {"crop": 2},
        {"flip": -1},
        {"flip_vertical": 2},
        {"crop_area": 0},
        {"zoom_out": 0.5},
        {"mosaic": float("nan")},
    ],
)
def test_bad_options_are_refused(words: dict[str, float]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(words))):
        BoxAugmentation(**words)

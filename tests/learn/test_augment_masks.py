"""Pictures and masks are changed together, and the same way on every machine."""

from __future__ import annotations

import numpy as np
import pytest

from mobilenet.errors import ArgumentError
from mobilenet.pictures.preprocess import Preprocessing

pytest.importorskip("kornia", reason="kornia is not installed: pip install 'mobilenet[train]'")

from mobilenet.pictures.augment_masks import (
    PLAIN,
    MaskAugmentation,
    MaskDraw,
    augmented_pairs,
    cropped_pair,
    draw_mask,
)


def pair(height: int = 90, width: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Class 1 is where the picture is white, 2 where it is red, 0 where it is black."""
    mask = np.zeros((height, width), np.uint8)
    mask[20:60, 10:80] = 1
    mask[50:80, 70:110] = 2
    colours = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0]], np.uint8)
    return colours[mask], mask


def agrees(pixels: np.ndarray, mask: np.ndarray, fill: int = 127) -> float:
    """The part of the pixels whose colour is that of their class."""
    colours = np.full((256, 3), fill)
    colours[:3] = [[0, 0, 0], [255, 255, 255], [255, 0, 0]]
    return float((np.abs(pixels.astype(int) - colours[mask]).max(-1) < 64).mean())


@pytest.mark.parametrize("resize", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("number", range(12))
def test_the_mask_follows_the_picture(resize: str, number: int) -> None:
    rule = Preprocessing(64, 80, resize=resize, crop_fraction=1.0)
    drawn = draw_mask(MaskAugmentation(colour=0), 0, 0, number)
    pixels, mask = cropped_pair(*pair(), drawn, rule)
    assert pixels.shape == (64, 80, 3) and mask.shape == (64, 80)
    assert agrees(pixels, mask) > 0.93
    turned, masks = augmented_pairs(pixels[None], mask[None], [drawn])
    assert agrees(turned[0], masks[0]) > 0.93
    assert (masks[0] == (mask[:, ::-1] if drawn.flipped else mask)).all()


@pytest.mark.parametrize("resize", ["stretch", "pad"])
@pytest.mark.parametrize("size", [(90, 120), (61, 200), (33, 20)])
def test_without_changes_it_is_what_prediction_sees(resize: str, size: tuple[int, int]) -> None:
    rule = Preprocessing(48, 64, resize=resize, crop_fraction=1.0)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    pixels, mask = cropped_pair(image, np.zeros(size, np.uint8), PLAIN, rule)
    expected = rule.geometry(image)
    assert np.abs(pixels.astype(int) - expected)[mask == 0].mean() < 1.5
    assert ((mask == 255) == (expected == 127).all(-1)).mean() > 0.95


def test_scales_and_places() -> None:
    rule = Preprocessing(40, 40, resize="stretch", crop_fraction=1.0)
    image, mask = np.full((40, 40, 3), 9, np.uint8), np.ones((40, 40), np.uint8)
    small, classes = cropped_pair(image, mask, MaskDraw(0.5, 1.0, 0.0, False, (1, 1, 1)), rule)
    assert (classes[:20, 20:] == 1).all() and (classes == 1).sum() == 400
    assert (small[classes == 255] == rule.fill).all()
    mask = np.arange(40, dtype=np.uint8)[:, None].repeat(40, 1)
    _, large = cropped_pair(image, mask, MaskDraw(2.0, 0.0, 1.0, False, (1, 1, 1)), rule)
    assert (np.unique(large) == np.arange(20, 40)).all()


def test_draws_depend_on_seed_epoch_and_sample_alone() -> None:
    augmentation = MaskAugmentation()
    first = draw_mask(augmentation, 1, 2, 3)
    assert first == draw_mask(augmentation, 1, 2, 3)
    assert (
        len({draw_mask(augmentation, *numbers) for numbers in ((1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4))}) == 4
    )
    many = [draw_mask(augmentation, 0, 0, n) for n in range(400)]
    assert min(d.scale for d in many) >= 0.5 and max(d.scale for d in many) <= 2.0
    assert 0.4 < np.mean([d.flipped for d in many]) < 0.6
    assert min(min(d.colours) for d in many) >= 0.8 and max(max(d.colours) for d in many) <= 1.2


def test_colours_change_the_picture_and_not_the_mask() -> None:
    image, mask = pair()
    image = image // 2 + 30
    drawn = MaskDraw(1.0, 0.5, 0.5, False, (1.2, 1.0, 1.0))
    pixels, masks = augmented_pairs(image[None], mask[None], [drawn])
    assert (masks[0] == mask).all()
    assert pixels.mean() > image.mean()


def test_a_mask_is_turned_with_its_picture() -> None:
    image, mask = pair()
    ways = ((False, True), (True, True), (True, False))
    drawn = [MaskDraw(1.0, 0.5, 0.5, mirrored, (1, 1, 1), down) for mirrored, down in ways]
    pixels, masks = augmented_pairs(np.stack([image] * 3), np.stack([mask] * 3), drawn)
    for way, (rows, columns) in enumerate(((-1, 1), (-1, -1), (1, -1))):
        np.testing.assert_array_equal(pixels[way], image[::rows, ::columns])
        np.testing.assert_array_equal(masks[way], mask[::rows, ::columns])


def test_impossible_ones_are_refused() -> None:
    for words in (
        {"scales": (2.0, 0.5)},
        {"scales": (0.0, 1.0)},
        {"flip": 2.0},
        {"flip_vertical": -0.1},
        {"colour": 1.0},
    ):
        with pytest.raises(ArgumentError):
            MaskAugmentation(**words)
    with pytest.raises(ArgumentError, match="has a mask of"):
        cropped_pair(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), np.uint8), PLAIN, Preprocessing(4, 4))

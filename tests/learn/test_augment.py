"""Augmentation against Pillow, and the promise that a draw depends on (seed, epoch, sample) alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

torch = pytest.importorskip("torch")

from mobilenet.pictures.augment import (  # noqa: E402
    RANDAUGMENT,
    Augmentation,
    Draw,
    augmented,
    crop_box,
    cropped,
    draw,
    mixed,
)
from mobilenet.pictures.preprocess import Preprocessing  # noqa: E402


def noise(count: int = 4, side: int = 24, seed: int = 0) -> Any:
    coarse = np.random.default_rng(seed).integers(0, 256, (count, side // 4, side // 4, 3), dtype=np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


def plain(**changes: Any) -> Draw:
    values = {
        "area": 1.0, "aspect": 1.0, "left": 0.0, "top": 0.0, "flipped": False, "colours": (1.0, 1.0, 1.0),
        "operations": (),
    }  # fmt: skip
    return Draw(**{**values, **changes})


def test_a_draw_depends_on_seed_epoch_and_sample_only() -> None:
    some = Augmentation(randaugment=5)
    first = draw(some, 1, 2, 3)
    torch.manual_seed(9)
    assert draw(some, 1, 2, 3) == first
    for other in ((0, 2, 3), (1, 3, 3), (1, 2, 4)):
        assert draw(some, *other) != first


def test_draws_are_spread_as_they_should_be() -> None:
    some = Augmentation(crop_area=0.4, flip=0.25, colour=0.3, randaugment=5, flip_vertical=0.4)
    draws = [draw(some, 0, 0, i) for i in range(2000)]
    areas = np.array([d.area for d in draws])
    assert 0.4 <= areas.min() < 0.41
    assert areas.mean() == pytest.approx(0.7, abs=0.02)
    assert np.mean([d.flipped for d in draws]) == pytest.approx(0.25, abs=0.03)
    assert np.mean([d.upside_down for d in draws]) == pytest.approx(0.4, abs=0.03)
    colours = np.array([d.colours for d in draws])
    assert 0.7 <= colours.min() < 0.71
    assert 1.29 < colours.max() <= 1.3
    assert {name for d in draws for name, _ in d.operations} == set(RANDAUGMENT)


@pytest.mark.parametrize("size", [(100, 60), (60, 100), (7, 300), (1, 1), (1, 5000)])
def test_crops_lie_inside_and_have_the_area_and_aspect_that_fit(size: tuple[int, int]) -> None:
    for i in range(200):
        drawn = draw(Augmentation(crop_area=0.1), 0, 0, i)
        left, top, right, bottom = crop_box(*size, drawn, 1.5)
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]
        assert (right - left) / (bottom - top) == pytest.approx(1.5 * drawn.aspect, rel=1e-6)
        area = (right - left) * (bottom - top) / (size[0] * size[1])
        assert area <= drawn.area * (1 + 1e-9)


def test_a_whole_crop_is_all_that_the_shape_allows() -> None:
    drawn = draw(Augmentation(crop_area=1.0), 0, 0, 0)
    left, top, right, bottom = crop_box(100, 60, drawn, 1.0)
    assert (right - left, bottom - top) == (pytest.approx(60), pytest.approx(60))
    assert top == pytest.approx(0)


def test_cropping_is_pillows_with_the_filter_of_the_preprocessing() -> None:
    picture = noise(1, 48)[0]
    drawn = draw(Augmentation(crop_area=0.3), 0, 0, 5)
    preprocessing = Preprocessing(20, 30, interpolation="bicubic")
    box = crop_box(48, 48, drawn, 1.5)
    wanted = Image.fromarray(picture).resize((30, 20), Image.Resampling.BICUBIC, box=box)
    np.testing.assert_array_equal(cropped(picture, drawn, preprocessing), np.asarray(wanted))


def test_stretched_models_see_stretched_crops() -> None:
    drawn = draw(Augmentation(crop_area=1.0), 0, 0, 0)
    picture = noise(1, 48)[0][:24]
    got = cropped(picture, drawn, Preprocessing(20, 20, resize="stretch"))
    np.testing.assert_array_equal(
        got, np.asarray(Image.fromarray(picture).resize((20, 20), Image.Resampling.BILINEAR))
    )


def test_flips_are_exact() -> None:
    pictures = noise()
    result = augmented(pictures, [plain(flipped=i % 2 == 1, upside_down=i > 1) for i in range(4)])
    for i, (got, picture) in enumerate(zip(result, pictures, strict=True)):
        mirrored = picture[:, ::-1] if i % 2 else picture
        np.testing.assert_array_equal(got, mirrored[::-1] if i > 1 else mirrored)


def near(got: Any, wanted: Image.Image, tolerance: int) -> None:
    difference = np.abs(got.astype(int) - np.asarray(wanted).astype(int))
    assert difference.max() <= tolerance


@pytest.mark.parametrize(
    ("place", "enhance"), [(0, ImageEnhance.Brightness), (1, ImageEnhance.Contrast), (2, ImageEnhance.Color)]
)
def test_colours_are_pillows(place: int, enhance: Any) -> None:
    pictures = noise()
    factors = [0.6, 0.9, 1.2, 1.4]
    draws = [plain(colours=tuple(f if i == place else 1.0 for i in range(3))) for f in factors]
    for got, picture, factor in zip(augmented(pictures, draws), pictures, factors, strict=True):
        near(got, enhance(Image.fromarray(picture)).enhance(factor), 2)


@pytest.mark.parametrize(
    ("name", "strength", "wanted"),
    [
        ("identity", 0.5, lambda p: p),
        ("brightness", 0.5, lambda p: ImageEnhance.Brightness(p).enhance(1.45)),
        ("contrast", -0.5, lambda p: ImageEnhance.Contrast(p).enhance(0.55)),
        ("colour", -0.5, lambda p: ImageEnhance.Color(p).enhance(0.55)),
        ("sharpness", 0.5, lambda p: ImageEnhance.Sharpness(p).enhance(1.45)),
        ("solarize", 0.5, lambda p: ImageOps.solarize(p, 128)),
        ("posterize", 1.0, lambda p: ImageOps.posterize(p, 4)),
        ("autocontrast", 0.3, ImageOps.autocontrast),
        ("equalize", 0.3, ImageOps.equalize),
        ("rotate", 1.0, lambda p: p.rotate(-30, Image.Resampling.BILINEAR, fillcolor=(128, 128, 128))),
        ("translate_x", 0.5, lambda p: shifted(p, -3.6, 0)),
        ("translate_y", -0.5, lambda p: shifted(p, 0, 3.6)),
    ],
)
def test_operations_are_pillows(name: str, strength: float, wanted: Any) -> None:
    """In the middle: at the borders the ways to fill in what lies outside differ."""
    picture = noise(1)[0]
    got = augmented(picture[None], [plain(operations=((name, strength), ("identity", 0.0)))])[0]
    other = np.asarray(wanted(Image.fromarray(picture)))
    difference = np.abs(got.astype(int) - other.astype(int))[6:-6, 6:-6]
    assert difference.mean() < 4, difference.mean()


def shifted(picture: Image.Image, x: float, y: float) -> Image.Image:
    return picture.transform(picture.size, Image.Transform.AFFINE, (1, 0, x, 0, 1, y), Image.Resampling.BILINEAR)


def test_each_picture_gets_its_own_operations() -> None:
    pictures = noise()
    draws = [plain(operations=((name, 1.0), ("identity", 0.0))) for name in RANDAUGMENT]
    many = pictures[[0] * len(draws)]
    together = augmented(many, draws)
    for row, drawn in enumerate(draws):
        alone = augmented(many[:1], [drawn])[0]
        assert np.abs(together[row].astype(int) - alone.astype(int)).max() <= 1, drawn.operations
    assert len({picture.tobytes() for picture in together}) >= len(draws) - 1


def test_the_input_is_left_alone() -> None:
    pictures = noise()
    before = pictures.copy()
    augmented(pictures, [draw(Augmentation(randaugment=9), 0, 0, i) for i in range(4)])
    np.testing.assert_array_equal(pictures, before)


@pytest.mark.parametrize("words", [{"mixup": 0.4, "cutmix": 0.0}, {"mixup": 0.0, "cutmix": 1.0}])
def test_mixed_targets_are_the_shares_of_the_pixels(words: dict[str, float]) -> None:
    """Pictures whose pixels are their number: the mean pixel must be the target's."""
    images = torch.arange(5.0).view(5, 1, 1, 1).repeat(1, 16, 12, 3)
    targets = torch.eye(5)
    images, targets = mixed(images, targets, [7, 8, 9, 10, 11], 0, 0, **words)
    means = images.mean((1, 2, 3))
    np.testing.assert_allclose(means.numpy(), (targets * torch.arange(5.0)).sum(1).numpy(), atol=1e-5)
    np.testing.assert_allclose(targets.sum(1).numpy(), 1, rtol=1e-6)
    assert torch.equal(images[4], torch.full((16, 12, 3), 4.0)), "the odd one out stays as it is"
    assert targets[0, 2:].sum() == 0, "mixes with its neighbour only"
    assert not torch.equal(targets, torch.eye(5))

"""Preprocessing, against the arithmetic that its documentation promises, written out again in numpy."""

from __future__ import annotations

import io
import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from mobilenet.errors import ArgumentError, ImageError, ModelFileError
from mobilenet.pictures.preprocess import INTERPOLATIONS, PRESETS, Preprocessing

Pixels = NDArray[np.uint8]


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


# --- the documented resampling, again -----------------------------------------------------------------------


def sinc(t: float) -> float:
    return 1.0 if t == 0 else math.sin(t * math.pi) / (t * math.pi)


def keys(t: float) -> float:
    t, a = abs(t), -0.5
    if t < 1:
        return ((a + 2) * t - (a + 3)) * t * t + 1
    return (((t - 5) * t + 8) * t - 4) * a if t < 2 else 0.0


FILTERS: dict[str, tuple[float, Callable[[float], float]]] = {
    "box": (0.5, lambda t: 1.0 if -0.5 < t <= 0.5 else 0.0),
    "bilinear": (1.0, lambda t: max(0.0, 1 - abs(t))),
    "bicubic": (2.0, keys),
    "lanczos": (3.0, lambda t: sinc(t) * sinc(t / 3) if -3 <= t < 3 else 0.0),
}


def resampled_axis(pixels: Pixels, start: float, end: float, size: int, name: str) -> Pixels:
    """Resample axis 0 as the module's text says."""
    source = pixels.shape[0]
    begin, finish = np.float32(start), np.float32(end)
    if size == source and begin == 0 and finish == source:
        return pixels
    scale = float(finish - begin) / size
    if name == "nearest":
        places = np.cumsum([float(begin) + scale * 0.5] + [scale] * (size - 1))
        chosen: Pixels = pixels[np.floor(places).astype(int)]
        return chosen
    radius, weigh = FILTERS[name]
    stretch = max(scale, 1.0)
    result = np.empty((size, *pixels.shape[1:]), np.uint8)
    for x in range(size):
        centre = float(begin) + (x + 0.5) * scale
        first = max(0, int(centre - radius * stretch + 0.5))
        last = min(source, int(centre + radius * stretch + 0.5))
        weights = np.array([weigh((i - centre + 0.5) * (1 / stretch)) for i in range(first, last)])
        weights /= sum(weights.tolist())
        fixed = np.trunc(weights * 2**22 + np.copysign(0.5, weights)).astype(np.int64)
        total = np.tensordot(fixed, pixels[first:last].astype(np.int64), axes=1)
        result[x] = np.clip((2**21 + total) >> 22, 0, 255)
    return result


def resampled(
    pixels: Pixels, box: tuple[float, float, float, float], height: int, width: int, name: str
) -> Pixels:
    if width * pixels.shape[0] > 50_000_000:  # rows first: transpose, and back
        turned = (box[1], box[0], box[3], box[2])
        return resampled_in_order(pixels.transpose(1, 0, 2), turned, width, height, name).transpose(1, 0, 2)
    return resampled_in_order(pixels, box, height, width, name)


def resampled_in_order(pixels: Pixels, box: tuple[float, ...], height: int, width: int, name: str) -> Pixels:
    columns = resampled_axis(pixels.transpose(1, 0, 2), box[0], box[2], width, name).transpose(1, 0, 2)
    return resampled_axis(columns, box[1], box[3], height, name)


def documented(pixels: Pixels, rule: Preprocessing) -> Pixels:
    high, wide = pixels.shape[:2]
    h, w = rule.height, rule.width
    if rule.resize == "pad":
        fits_width = wide * h >= high * w
        inner_h = max(1, math.floor(high * w / wide + 0.5)) if fits_width else h
        inner_w = w if fits_width else max(1, math.floor(wide * h / high + 0.5))
        result = np.full((h, w, 3), rule.fill, np.uint8)
        top, left = (h - inner_h) // 2, (w - inner_w) // 2
        inner = resampled(pixels, (0, 0, wide, high), inner_h, inner_w, rule.interpolation)
        result[top : top + inner_h, left : left + inner_w] = inner
        return result
    sides: tuple[float, float] = (wide, high)
    if rule.resize == "crop":
        sides = (high * w / h, float(high)) if wide * h > high * w else (float(wide), wide * h / w)
    side_w, side_h = sides[0] * rule.crop_fraction, sides[1] * rule.crop_fraction
    left, top = (wide - side_w) / 2, (high - side_h) / 2
    box = (left, top, min(left + side_w, wide), min(top + side_h, high))
    return resampled(pixels, box, h, w, rule.interpolation)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("resize", ["crop", "stretch", "pad"])
@pytest.mark.parametrize(
    ("source", "target"),
    [((37, 53), (16, 16)), ((53, 37), (32, 24)), ((9, 9), (24, 40)), ((1, 1), (5, 4)), ((1, 300), (8, 8)),
     ((300, 2), (8, 16)), ((64, 64), (64, 64)), ((40, 40), (40, 20))],
)  # fmt: skip
def test_geometry_is_what_the_documentation_says(
    interpolation: str, resize: str, source: tuple[int, int], target: tuple[int, int]
) -> None:
    pixels = noise(*source)
    for fraction in (0.875, 1.0):
        rule = Preprocessing(*target, resize=resize, interpolation=interpolation, crop_fraction=fraction)
        np.testing.assert_array_equal(rule.geometry(pixels), documented(pixels, rule))


@pytest.mark.parametrize("interpolation", ["bicubic", "nearest"])
def test_a_very_tall_picture_is_resampled_rows_first(interpolation: str) -> None:
    pixels = noise(130_000, 3)
    rule = Preprocessing(4, 400, resize="stretch", interpolation=interpolation)
    expected = documented(pixels, rule)
    np.testing.assert_array_equal(rule.geometry(pixels), expected)
    method = INTERPOLATIONS[interpolation]
    columns = Image.fromarray(pixels).resize((400, 130_000), method, box=(0.1875, 0, 2.8125, 130_000))
    columns_first = np.asarray(columns.resize((400, 4), method, box=(0, 8125.0, 400, 121_875.0)))
    assert interpolation == "nearest" or (columns_first != expected).any()  # else this test could not fail


def test_a_thin_picture_needs_no_more_memory_than_its_pixels() -> None:
    for size in ((3_000_000, 1), (1, 3_000_000)):
        for resize in ("crop", "stretch", "pad"):
            assert Preprocessing(224, 224, resize=resize).geometry(noise(*size)).shape == (224, 224, 3)


@given(
    st.integers(1, 70), st.integers(1, 70), st.integers(1, 40), st.integers(1, 40),
    st.floats(0.05, 1), st.sampled_from(["crop", "stretch", "pad"]), st.sampled_from(sorted(INTERPOLATIONS)),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_geometry_of_any_size(
    high: int, wide: int, h: int, w: int, fraction: float, resize: str, name: str
) -> None:
    rule = Preprocessing(h, w, resize=resize, interpolation=name, crop_fraction=fraction, fill=9)
    pixels = noise(high, wide)
    np.testing.assert_array_equal(rule.geometry(pixels), documented(pixels, rule))


def test_a_full_crop_of_the_same_size_changes_nothing() -> None:
    pixels = noise(20, 30)
    for name in INTERPOLATIONS:
        for resize in ("crop", "stretch", "pad"):
            rule = Preprocessing(20, 30, resize=resize, crop_fraction=1.0, interpolation=name)
            np.testing.assert_array_equal(rule.geometry(pixels), pixels)


def test_crop_keeps_the_aspect_ratio_and_stretch_does_not() -> None:
    disc = np.zeros((100, 200, 3), np.uint8)
    rows, columns = np.mgrid[:100, :200]
    disc[(rows - 49.5) ** 2 + (columns - 99.5) ** 2 < 900] = 255
    crop = Preprocessing(100, 100, crop_fraction=1.0).geometry(disc)[..., 0] > 127
    stretch = Preprocessing(100, 100, resize="stretch", crop_fraction=1.0).geometry(disc)[..., 0] > 127
    pad = Preprocessing(100, 100, resize="pad", fill=0).geometry(disc)[..., 0] > 127
    assert crop.any(axis=0).sum() == crop.any(axis=1).sum() == 60
    assert (stretch.any(axis=0).sum(), stretch.any(axis=1).sum()) == (30, 60)
    assert pad.any(axis=0).sum() == pad.any(axis=1).sum() == 30


def test_it_is_near_the_usual_resize_then_crop(shared: Path) -> None:
    path = shared / "data" / "photos" / "cat.bmp"
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    short = min(image.size)
    resized = image.resize((image.width * 256 // short, image.height * 256 // short), Image.Resampling.BILINEAR)
    left, top = (resized.width - 224) // 2, (resized.height - 224) // 2
    usual = np.asarray(resized.crop((left, top, left + 224, top + 224))).astype(int)
    assert np.abs(Preprocessing(224, 224).pixels(path) - usual).mean() < 4  # half a pixel of shift at most


# --- channels -----------------------------------------------------------------------------------------------


def test_channel_orders() -> None:
    pixels = noise(31, 17)
    rgb = Preprocessing(8, 12).geometry(pixels)
    np.testing.assert_array_equal(Preprocessing(8, 12, channels="BGR").geometry(pixels), rgb[:, :, ::-1])
    grey = Preprocessing(8, 12, channels="L", mean=(0,), std=(255,)).geometry(pixels)
    weighted = rgb.astype(np.int64) @ np.array([19595, 38470, 7471])
    np.testing.assert_array_equal(grey, ((weighted + 32768) >> 16)[..., np.newaxis])


def test_mean_and_std_are_in_the_order_of_the_channels() -> None:
    pixels = noise(8, 8)
    bgr = Preprocessing(8, 8, channels="BGR", crop_fraction=1, mean=(1, 2, 3), std=(4, 5, 6))
    mean, std = np.array([1, 2, 3], np.float32), np.array([4, 5, 6], np.float32)
    expected = (pixels[..., ::-1].astype(np.float32) - mean) / std
    np.testing.assert_array_equal(bgr(pixels), expected)


# --- values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_normalise_is_float32_arithmetic_for_every_level(preset: str) -> None:
    rule = PRESETS[preset](4, 4)
    levels = np.arange(256, dtype=np.uint8)[:, np.newaxis].repeat(3, axis=1)
    expected = (levels.astype(np.float32) - np.array(rule.mean, np.float32)) / np.array(rule.std, np.float32)
    result = rule.normalise(levels)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(rule.normalise(levels.reshape(2, 128, 3)), expected.reshape(2, 128, 3))


def test_ranges_of_the_presets() -> None:
    ends = np.array([[0] * 3, [255] * 3], np.uint8)
    assert PRESETS["tf"](4, 4).normalise(ends).tolist() == [[-1] * 3, [1] * 3]
    assert PRESETS["unit"](4, 4).normalise(ends).tolist() == [[0] * 3, [1] * 3]
    assert PRESETS["raw"](4, 4).normalise(ends).tolist() == [[0] * 3, [255] * 3]
    imagenet = (np.array([0, 1])[:, np.newaxis] - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    for name in ("imagenet", "timm"):
        np.testing.assert_allclose(PRESETS[name](4, 4).normalise(ends), imagenet, rtol=1e-6)
    assert PRESETS["timm"](4, 4).interpolation == "bicubic"


LEVELS = np.arange(256, dtype=np.uint8)[:, np.newaxis].repeat(3, axis=1)


@pytest.mark.parametrize(("half", "zero_point"), [(128.0, 128), (127.5, 127), (127.5, 128)])
@pytest.mark.parametrize("number", [float, np.float32])
def test_the_usual_quantised_inputs_are_the_pixels_themselves(
    half: float, zero_point: int, number: Callable[[float], Any]
) -> None:
    rule = Preprocessing(4, 4, mean=(half,) * 3, std=(half,) * 3)
    scale = number(1 / half)
    unsigned = rule.quantised(LEVELS, scale, zero_point, "uint8")
    assert unsigned.dtype == np.uint8
    np.testing.assert_array_equal(unsigned, LEVELS)
    signed = rule.quantised(LEVELS, scale, zero_point - 128, "int8")
    assert signed.dtype == np.int8
    np.testing.assert_array_equal(signed, LEVELS.astype(int) - 128)


@pytest.mark.parametrize(("scale", "zero_point"), [(0.02, 100), (0.0186, 114), (0.001, 3), (0.5, 255), (1.0, 0)])
def test_quantised_rounds_to_nearest_and_saturates(scale: float, zero_point: int) -> None:
    rule = PRESETS["imagenet"](4, 4)
    values = rule.normalise(LEVELS).astype(np.float64) / scale
    expected = np.clip(np.rint(values) + zero_point, 0, 255)
    np.testing.assert_array_equal(rule.quantised(LEVELS, scale, zero_point, "uint8"), expected)
    np.testing.assert_array_equal(rule.quantised(LEVELS, scale, zero_point - 128, "int8"), expected - 128)


def test_ties_go_to_even() -> None:
    rule = Preprocessing(4, 4, mean=(0,) * 3, std=(1,) * 3)
    values = rule.quantised(LEVELS[:8], 2.0, 0, "uint8")[:, 0]
    assert values.tolist() == [0, 1, 1, 2, 2, 2, 3, 4]  # 0.5 is 1's: its own pixel; 2.5 is 2, 3.5 is 4


@pytest.mark.parametrize(
    ("scale", "zero_point", "dtype", "field"),
    [(0.0, 0, "int8", "scale"), (math.nan, 0, "int8", "scale"), (-1.0, 0, "int8", "scale"),
     (1.0, 128, "int8", "zero"), (1.0, -1, "uint8", "zero"), (1.0, 0, "int16", "dtype")],
)  # fmt: skip
def test_quantised_arguments(scale: float, zero_point: int, dtype: Any, field: str) -> None:
    with pytest.raises(ArgumentError, match=field):
        Preprocessing(4, 4).quantised(LEVELS, scale, zero_point, dtype)


# --- repeatability ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM"])
def test_the_same_picture_gives_the_same_tensor(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    Image.fromarray(noise(61, 47)).save(path, kind)
    rule = PRESETS["timm"](32, 48)
    first = rule(path)
    assert first.shape == (32, 48, 3)
    assert first.dtype == np.float32
    with Image.open(path) as image:
        array = np.asarray(image.convert("RGB"))
        for picture in (str(path), path.read_bytes(), image, array):
            assert rule(picture).tobytes() == first.tobytes()
    assert rule.normalise(rule.geometry(array)).tobytes() == first.tobytes()
    read_back = Preprocessing.from_dict(json.loads(json.dumps(rule.to_dict())))
    assert read_back(path).tobytes() == first.tobytes()
    assert pickle.loads(pickle.dumps(rule))(path).tobytes() == first.tobytes()


def test_a_bad_picture_is_an_image_error(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(noise(64, 64)).save(buffer, "JPEG")
    with pytest.raises(ImageError):
        Preprocessing(8, 8)(buffer.getvalue()[:-400])
    with pytest.raises(ImageError, match="nowhere"):
        Preprocessing(8, 8)(tmp_path / "nowhere.png")


# --- fields -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [("height", 0), ("height", 16385), ("width", -1), ("width", 2.0), ("width", True), ("width", "8"),
     ("fill", 256), ("resize", "squash"), ("interpolation", "cubic"), ("interpolation", None),
     ("channels", "RGBA"), ("crop_fraction", 0), ("crop_fraction", 1.01), ("crop_fraction", math.nan),
     ("mean", (1.0, 2.0)),
     ("mean", (1.0, 2.0, math.inf)), ("mean", 3.0), ("mean", "123"), ("mean", (10**400, 0, 0)), ("std", (1, 1, 0)),
     ("std", (1, -1, 1)), ("std", (1, 1, True)), ("std", (1e-40, 1, 1)), ("resize", ["crop"])],
)  # fmt: skip
def test_a_bad_field_is_named(field: str, value: Any) -> None:
    good = Preprocessing(8, 8).to_dict()
    with pytest.raises(ArgumentError, match=f"^{field} "):
        Preprocessing(**{**good, field: value})
    with pytest.raises(ModelFileError, match=f"preprocessing: {field} "):
        Preprocessing.from_dict({**good, field: value})


@pytest.mark.parametrize("field", Preprocessing(8, 8).to_dict())
def test_a_missing_field_is_named(field: str) -> None:
    fields = Preprocessing(8, 8).to_dict()
    del fields[field]
    with pytest.raises(ModelFileError, match=repr(field)):
        Preprocessing.from_dict(fields)


@pytest.mark.parametrize("fields", [{**Preprocessing(8, 8).to_dict(), "gamma": 2.2}, {3: 4}, [], None, "crop"])
def test_unknown_fields_and_other_things(fields: Any) -> None:
    with pytest.raises(ModelFileError, match="gamma|'3'|table"):
        Preprocessing.from_dict(fields)


def test_numpy_scalars_and_lists_become_plain_values() -> None:
    rule = Preprocessing(np.int64(8), np.int32(9), mean=[1, 2, 3], std=[np.float32(4), 5, 6])  # type: ignore[arg-type]
    assert rule == Preprocessing(8, 9, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))
    assert len({rule, Preprocessing(8, 9, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))}) == 1
    json.dumps(rule.to_dict())


def test_with_size_keeps_the_rest() -> None:
    rule = PRESETS["timm"](8, 8).with_size(16, 24)
    assert rule == PRESETS["timm"](16, 24)
    with pytest.raises(ArgumentError, match="height"):
        rule.with_size(0, 8)


def test_the_description_says_what_differs() -> None:
    rules = [preset(8, 9) for name, preset in PRESETS.items()]
    rules += [Preprocessing(8, 9, resize="stretch"), Preprocessing(8, 9, resize="pad"), Preprocessing(9, 8),
              Preprocessing(8, 9, channels="BGR"), Preprocessing(8, 9, crop_fraction=0.5)]  # fmt: skip
    assert len({rule.describe() for rule in rules}) == len(rules)
    assert "87.5%" in rules[0].describe()
    assert "-1 to 1" in rules[0].describe()
    assert "9 × 8" in rules[0].describe()


@pytest.mark.parametrize("array", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 4), np.uint8), LEVELS[:0]])
def test_geometry_takes_decoded_pictures_only(array: Any) -> None:
    with pytest.raises(ArgumentError, match=r"uint8 \[H, W, 3\]"):
        Preprocessing(4, 4).geometry(array)


@pytest.mark.parametrize("array", [np.zeros((4, 3), np.float32), np.zeros((4, 4, 1), np.uint8), np.uint8(3)])
def test_normalise_takes_pixels_only(array: Any) -> None:
    with pytest.raises(ArgumentError, match=r"pixels are uint8 \[\.\.\., 3\]"):
        Preprocessing(4, 4).normalise(array)

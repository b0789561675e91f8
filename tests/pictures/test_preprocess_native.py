"""The native picture pass against the Python definition, bit for bit; JPEGs decoded at a reduced scale."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from mobilenet.errors import ArgumentError, ImageError, ModelFileError
from mobilenet.pictures import native_pass
from mobilenet.pictures.decode import MAX_PIXELS, decode, decode_image, pixel_view
from mobilenet.pictures.preprocess import CHANNELS, INTERPOLATIONS, Preprocessing

native: Any = pytest.importorskip("mobilenet._engine", reason="the engine is not built", exc_type=ImportError)

Pixels = NDArray[np.uint8]
RESIZE_RULES = ["crop", "stretch", "pad"]
ISAS = [*native.isas().split(","), "generic"]


def noise(*shape: int, seed: int = 0, extreme: bool = False) -> Pixels:
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return np.where(pixels < 128, 0, 255).astype(np.uint8) if extreme else pixels


def rule_for(height: int, width: int, channels: str = "RGB", **fields: Any) -> Preprocessing:
    count = CHANNELS[channels]
    levels = {"mean": (123.675, 116.28, 103.53)[:count], "std": (58.395, 57.12, 57.375)[:count]}
    return Preprocessing(height, width, channels=channels, **{**levels, **fields})


def native_levels(rule: Preprocessing, picture: Pixels) -> Pixels:
    output = np.zeros((rule.height, rule.width, CHANNELS[rule.channels]), np.uint8)
    fields = (rule.resize, rule.interpolation, rule.channels, rule.fill, rule.crop_fraction)
    native_pass.run(native, fields, picture, output, None)
    return output


def four_bytes(picture: Pixels) -> Pixels:
    """The same picture as Pillow stores it, with rubbish in the fourth byte."""
    return np.concatenate([picture, noise(*picture.shape[:2], 1, seed=9)], axis=2)


def check(rule: Preprocessing, picture: Pixels) -> None:
    expected = rule.reference_geometry(picture)
    np.testing.assert_array_equal(native_levels(rule, picture), expected)
    np.testing.assert_array_equal(native_levels(rule, four_bytes(picture)), expected)


sides = st.one_of(st.integers(1, 12), st.integers(1, 700))


@given(
    sides, sides, st.integers(1, 90), st.integers(1, 90), st.sampled_from(RESIZE_RULES),
    st.sampled_from(sorted(INTERPOLATIONS)), st.sampled_from(sorted(CHANNELS)),
    st.one_of(st.just(1.0), st.floats(1e-6, 1)), st.integers(0, 255), st.booleans(),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_any_rule_and_size(
    high: int, wide: int, h: int, w: int, resize: str, name: str, channels: str, fraction: float, fill: int,
    extreme: bool,
) -> None:  # fmt: skip
    rule = rule_for(h, w, channels, resize=resize, interpolation=name, crop_fraction=fraction, fill=fill)
    check(rule, noise(high, wide, 3, seed=high, extreme=extreme))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", sorted(INTERPOLATIONS))
def test_every_instruction_set(isa: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOBILENET_ISA", isa)
    for size in ((375, 500), (41, 1999), (13, 5), (700, 3), (2, 2)):
        for target in ((224, 224), (33, 7), (1, 1)):
            check(rule_for(*target, interpolation=name), noise(*size, 3, extreme=True))


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize(
    ("source", "target", "fraction"),
    [((130_000, 3), (4, 400), 0.875), ((100_000, 5), (5, 501), 0.7), ((100_000, 5), (5, 500), 0.7),
     ((3_000_000, 1), (224, 224), 0.875), ((1, 3_000_000), (9, 9), 1e-6), ((1, 1_000_000), (3, 2), 1.0),
     ((7, 90_000), (3, 7000), 0.99), ((5, 5), (1500, 2000), 0.5), ((60_000, 2), (1, 900), 1.0)],
)  # fmt: skip
def test_extreme_shapes_in_both_orders_of_axes(
    name: str, source: tuple[int, int], target: tuple[int, int], fraction: float
) -> None:
    for resize in ("stretch", "crop"):
        check(rule_for(*target, resize=resize, interpolation=name, crop_fraction=fraction), noise(*source, 3))


@pytest.mark.parametrize("channels", sorted(CHANNELS))
@pytest.mark.parametrize("resize", RESIZE_RULES)
def test_values_and_quanta_in_one_pass(channels: str, resize: str) -> None:
    picture = noise(61, 47, 3)
    rule = rule_for(32, 48, channels, resize=resize, fill=200)
    pixels = rule.reference_geometry(picture)
    assert rule(picture).tobytes() == rule.normalise(pixels).tobytes()
    assert rule(picture).dtype == np.float32
    for dtype, zero_point in (("uint8", 114), ("int8", -14)):
        quanta = rule.quanta(picture, 0.0186, zero_point, dtype)  # type: ignore[arg-type]
        expected = rule.quantised(pixels, 0.0186, zero_point, dtype)  # type: ignore[arg-type]
        assert quanta.dtype == dtype
        np.testing.assert_array_equal(quanta, expected)


def test_quanta_name_a_bad_argument() -> None:
    rule, picture = rule_for(8, 8), noise(9, 9, 3)
    for arguments, field in (
        ((True, 0, "int8"), "scale"),
        ((0.1, [3], "int8"), "zero_point"),
        ((1, 1, "x"), "dtype"),
    ):
        with pytest.raises(ArgumentError, match=f"^{field} "):
            rule.quanta(picture, *arguments)  # type: ignore[arg-type]


def test_real_photographs(shared: Path) -> None:
    photographs = sorted((shared / "data").rglob("*.jpg"))[::150]
    assert photographs
    for path in [*photographs, shared / "data" / "photos" / "cat.bmp"]:
        picture = decode(path)
        for name in INTERPOLATIONS:
            rule = rule_for(224, 224, interpolation=name)
            np.testing.assert_array_equal(rule.pixels(path), rule.reference_geometry(picture))


def test_views_of_arrays_and_pictures_of_several_blocks() -> None:
    picture = noise(90, 130, 3)
    rule = rule_for(32, 32)
    for view in (picture[::-1], picture[:, ::2], picture[10:70, 20:90], np.asfortranarray(picture)):
        np.testing.assert_array_equal(rule.geometry(view), rule.reference_geometry(view))
    large = noise(3000, 2000, 3)  # 24 MB: Pillow stores it in two pieces
    view = pixel_view(decode_image(large))
    np.testing.assert_array_equal(view[:, :, :3], large)
    np.testing.assert_array_equal(rule.geometry(large), rule.reference_geometry(large))


def test_a_view_of_an_image_keeps_its_pixels() -> None:
    picture = noise(300, 200, 3)
    for turn in (None, Image.Transpose.ROTATE_90, Image.Transpose.FLIP_TOP_BOTTOM):
        image = Image.fromarray(picture) if turn is None else Image.fromarray(picture).transpose(turn)
        expected = np.array(image)
        view = pixel_view(image)
        del image
        others = [Image.new("RGB", (200, 300), (7, 7, 7)) for _ in range(8)]
        np.testing.assert_array_equal(view[:, :, :3], expected)
        assert not view.flags.writeable and others


@pytest.mark.parametrize(
    ("field", "value"),
    [("resize", 3), ("resize", -1), ("interpolation", 5), ("channels", 3), ("fill", 256), ("fill", -1),
     ("crop_fraction", 0.0), ("crop_fraction", float("nan")), ("crop_fraction", 1.5)],
)  # fmt: skip
def test_the_native_interface_refuses(field: str, value: Any) -> None:
    fields = {"resize": 0, "interpolation": 2, "channels": 0, "fill": 0, "crop_fraction": 1.0}
    output = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(native.Failure) as caught:
        native.preprocess(**{**fields, field: value}, pixels=noise(5, 5, 3), table=None, output=output)
    code, text = caught.value.args
    assert code == native.BAD_ARGUMENT
    assert field in text or "output" in text  # another number of channels is another output


@pytest.mark.parametrize(
    ("shape", "output"),
    [((0, 4, 3), (4, 4, 3)), ((4, 0, 3), (4, 4, 3)), ((4, 4, 3), (0, 4, 3)), ((4, 4, 3), (16385, 1, 3)),
     ((4, 4, 2), (4, 4, 3))],
)  # fmt: skip
def test_sizes_that_are_not(shape: tuple[int, ...], output: tuple[int, ...]) -> None:
    with pytest.raises(native.Failure):
        native.preprocess(0, 2, 0, 0, 1.0, np.zeros(shape, np.uint8), None, np.zeros(output, np.uint8))


def test_an_instruction_set_that_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOBILENET_ISA", "mmx")
    with pytest.raises(ArgumentError, match="mmx"):
        rule_for(8, 8).geometry(noise(9, 9, 3))


# --- reduced decoding ---------------------------------------------------------------------------------------


def jpeg(height: int, width: int, orientation: int | None = None) -> bytes:
    rows, columns = np.mgrid[:height, :width]
    smooth = np.stack([rows % 256, columns % 256, (rows + columns) % 256], axis=2).astype(np.uint8)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(smooth).save(buffer, "JPEG", quality=90, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("size", "fields", "scale"),
    [((448, 448), {"crop_fraction": 1.0}, 1), ((895, 895), {"crop_fraction": 1.0}, 1),
     ((896, 896), {"crop_fraction": 1.0}, 2), ((896, 896), {}, 1), ((1024, 1024), {}, 2),
     ((2048, 9000), {}, 4), ((4096, 4096), {}, 8), ((40_000, 40_000), {}, 8),
     ((896, 9000), {"resize": "stretch", "crop_fraction": 1.0}, 2), ((895, 9000), {"resize": "stretch"}, 1),
     ((1792, 3584), {"resize": "pad"}, 8), ((3583, 448), {"resize": "pad"}, 4)],
)  # fmt: skip
def test_the_scale_that_the_documentation_gives(size: tuple[int, int], fields: Any, scale: int) -> None:
    height, width = size
    assert rule_for(224, 224, reduced_decoding=True, **fields).decoding_scale(width, height) == scale
    assert rule_for(224, 224, **fields).decoding_scale(width, height) == 1


@pytest.mark.parametrize("size", [(257, 511), (256, 512), (300, 1000), (1001, 260), (515, 263)])
def test_a_jpeg_file_is_decoded_at_its_scale(size: tuple[int, int], tmp_path: Path) -> None:
    data = jpeg(*size)
    rule = rule_for(16, 16, reduced_decoding=True, crop_fraction=1.0)
    n = rule.decoding_scale(size[1], size[0])
    assert n == 8
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (size[1] // n, size[0] // n))
        small = np.asarray(image)
    assert small.shape[:2] == (-(-size[0] // n), -(-size[1] // n))
    path = tmp_path / "picture.jpg"
    path.write_bytes(data)
    for picture in (data, path):
        np.testing.assert_array_equal(rule.pixels(picture), rule.reference_geometry(small))
    whole = decode(data)
    for picture in (whole, Image.open(path)):
        np.testing.assert_array_equal(rule.pixels(picture), rule.reference_geometry(whole))
    assert (rule.pixels(data) != rule.pixels(whole)).any()
    assert np.abs(rule.pixels(data).astype(int) - rule.pixels(whole)).mean() < 8


def test_the_upright_size_decides() -> None:
    rule = Preprocessing(32, 4, resize="stretch", crop_fraction=1.0, reduced_decoding=True)
    seen: list[tuple[int, int]] = []
    for orientation, upright in ((1, (128, 64)), (3, (128, 64)), (6, (64, 128)), (8, (64, 128))):
        decode_image(jpeg(64, 128, orientation), scale=lambda *size: seen.append(size) or 1)
        assert seen.pop() == upright
        n = rule.decoding_scale(*upright)
        small = decode_image(jpeg(64, 128, orientation), scale=rule.decoding_scale)
        assert small.size == (upright[0] // n, upright[1] // n)
    assert {rule.decoding_scale(128, 64), rule.decoding_scale(64, 128)} == {1, 2}


def test_other_kinds_and_bad_files_are_as_before(tmp_path: Path) -> None:
    rule = rule_for(8, 8, reduced_decoding=True)
    picture = noise(400, 300, 3)
    for kind in ("PNG", "BMP", "WEBP"):
        path = tmp_path / kind
        Image.fromarray(picture).save(path, kind, **({"lossless": True} if kind == "WEBP" else {}))
        np.testing.assert_array_equal(rule.pixels(path), rule.reference_geometry(picture))
    with pytest.raises(ImageError):
        rule.pixels(jpeg(600, 600)[:-600])
    head = bytearray(jpeg(16, 16))
    frame = head.index(b"\xff\xc0")
    head[frame + 5 : frame + 9] = bytes([0xFF, 0xFF] * 2)
    with pytest.raises(ImageError, match=f"{MAX_PIXELS:,}"):
        rule.pixels(bytes(head))


def test_the_field_in_files() -> None:
    rule = rule_for(8, 8)
    assert "reduced_decoding" not in rule.to_dict()  # what an older reader reads
    assert Preprocessing.from_dict(rule.to_dict()) == rule
    reduced = rule_for(8, 8, reduced_decoding=True)
    assert reduced.to_dict()["reduced_decoding"] is True
    assert Preprocessing.from_dict(reduced.to_dict()) == reduced != rule
    assert "eighth" in reduced.describe() and "eighth" not in rule.describe()
    for value in (1, "yes", None):
        with pytest.raises(ModelFileError, match="reduced_decoding"):
            Preprocessing.from_dict({**rule.to_dict(), "reduced_decoding": value})

"""Decoding, against Pillow's own reading, exact arithmetic and hostile bytes."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from mobilenet.errors import ImageError
from mobilenet.pictures import decode as decoding
from mobilenet.pictures.decode import check, decode
from mobilenet.pictures.orientation import exif_orientation

Pixels = NDArray[np.uint8]
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM")


def scene(height: int = 40, width: int = 60, channels: int = 3, seed: int = 0) -> Pixels:
    """A picture with coarse structure and noise: uint8 [height, width, channels]."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, channels))
    blocks = coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    noisy: Pixels = np.clip(blocks + random.integers(-20, 21, blocks.shape), 0, 255).astype(np.uint8)
    return noisy


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + extra + body + png_chunk(b"IEND", b"")


def exif_block(orientation: int, order: str, kind: int = 3) -> bytes:
    mark = b"II" if order == "<" else b"MM"
    value = struct.pack(f"{order}I", orientation) if kind == 4 else struct.pack(f"{order}HH", orientation, 0)
    entry = struct.pack(f"{order}HHI", 0x0112, kind, 1) + value
    return b"Exif\0\0" + mark + struct.pack(f"{order}HIH", 42, 8, 1) + entry + b"\0\0\0\0"


def by_pillow(picture: str | Path | io.BytesIO) -> Pixels:
    with Image.open(picture) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


# --- what is read -------------------------------------------------------------------------------------------


def test_real_pictures_are_what_pillow_reads(shared: Path) -> None:
    data = shared / "data"
    paths = [
        *sorted((data / "photos").glob("*.*")),
        *sorted((data / "clothing").glob("test/*/*.jpg"))[::40],
        *sorted((data / "orl_faces").glob("s*/1.pgm"))[:5],
        *sorted((data / "bccd" / "JPEGImages").glob("*.jpg"))[:2],
    ]
    assert len(paths) > 20
    for path in paths:
        np.testing.assert_array_equal(decode(path), by_pillow(path), err_msg=str(path))


@pytest.mark.parametrize("kind", FORMATS)
def test_each_format_is_recognised_by_content(kind: str, tmp_path: Path) -> None:
    data = encoded(Image.fromarray(scene()), kind)
    path = tmp_path / "picture.txt"
    path.write_bytes(data)
    expected = by_pillow(io.BytesIO(data))
    np.testing.assert_array_equal(decode(path), expected)
    if kind in ("PNG", "BMP", "PPM"):
        np.testing.assert_array_equal(expected, scene())


@pytest.mark.parametrize("kind", FORMATS)
def test_a_picture_is_the_same_however_it_is_handed_over(kind: str, tmp_path: Path) -> None:
    exif = {"exif": exif_block(6, ">")} if kind in ("JPEG", "PNG", "WEBP") else {}
    data = encoded(Image.fromarray(scene()), kind, **exif)
    path = tmp_path / "picture"
    path.write_bytes(data)
    first = decode(path)
    assert first.dtype == np.uint8
    assert first.shape == ((60, 40, 3) if exif else (40, 60, 3))
    with Image.open(path) as image:
        for picture in (str(path), data, image, first):
            np.testing.assert_array_equal(decode(picture), first)


def test_the_result_is_writable_and_not_the_callers_memory() -> None:
    array = scene()
    image = Image.fromarray(array)
    for picture in (array, image, encoded(image, "PNG")):
        result = decode(picture)
        result[:] = 0
        np.testing.assert_array_equal(decode(picture), array)
        assert result.flags.c_contiguous


@pytest.mark.parametrize("text", [b"P2\n# grey\n3 1\n255\n0 128 255\n", b"P5 3 1 255\n\x00\x80\xff"])
def test_grey_pgm(text: bytes) -> None:
    np.testing.assert_array_equal(decode(text)[0], [[0] * 3, [128] * 3, [255] * 3])


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 7)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    array = scene(*size)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(array), "PNG")), array)


def test_arrays() -> None:
    rgb = scene()
    np.testing.assert_array_equal(decode(rgb[::2, ::-1]), rgb[::2, ::-1])
    np.testing.assert_array_equal(decode(rgb[:, :, 0]), rgb[:, :, :1].repeat(3, axis=2))
    opaque = np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
    np.testing.assert_array_equal(decode(opaque), rgb)


# --- orientation --------------------------------------------------------------------------------------------

STORED: dict[int, Callable[[Pixels], Pixels]] = {  # how a camera held that way stores an upright scene
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("order", "<>")
def test_exif_orientation_gives_the_upright_scene(orientation: int, order: str) -> None:
    upright = scene()
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    exif = exif_block(orientation, order)
    np.testing.assert_array_equal(decode(encoded(stored, "PNG", exif=exif)), upright)
    np.testing.assert_array_equal(decode(encoded(stored, "WEBP", exif=exif, lossless=True)), upright)
    jpeg = encoded(stored, "JPEG", exif=exif)
    np.testing.assert_array_equal(decode(jpeg), by_pillow(io.BytesIO(jpeg)))


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_out_of_range_is_none(value: int) -> None:
    assert exif_orientation(exif_block(value, "<")) == 1


def test_orientation_as_a_long_integer_and_without_prefix() -> None:
    assert exif_orientation(exif_block(8, ">", kind=4).removeprefix(b"Exif\0\0")) == 8


@given(st.binary(max_size=80), st.sampled_from([b"", b"Exif\0\0", b"Exif\0\0II*\0", b"MM\0*\0\0\0\x08"]))
def test_damaged_exif_never_raises(data: bytes, prefix: bytes) -> None:
    assert exif_orientation(prefix + data) in range(1, 9)


@given(st.integers(0, 40), st.binary(min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_damaged_exif_neither_warns_nor_stops_a_picture(where: int, junk: bytes) -> None:
    block = bytearray(exif_block(3, "<") + b"\0" * 8)
    block[6 + where % 30 : 6 + where % 30 + len(junk)] = junk
    data = encoded(Image.fromarray(scene()), "JPEG", exif=bytes(block))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sorted(decode(data).shape) == [3, 40, 60]


# --- depth, colour, transparency ----------------------------------------------------------------------------


def test_16_bit_grey_is_rounded_exactly() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.rint(values.astype(np.float64) / 257)  # 257 is odd: there are no ties
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    pgm = b"P5 256 256 65535\n" + values.astype(">u2").tobytes()
    pictures = (png(256, 256, 16, 0, rows), pgm, Image.fromarray(values), Image.fromarray(values.astype(np.int32)))
    for picture in pictures:
        for channel in range(3):
            np.testing.assert_array_equal(decode(picture)[:, :, channel], expected)


def test_16_bit_colour_is_within_one_level() -> None:
    values = np.random.default_rng(0).integers(0, 65536, (16, 16, 3)).astype(np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    assert np.abs(decode(png(16, 16, 16, 2, rows)) - values / 257).max() <= 1


def test_16_bit_grey_with_a_transparent_value() -> None:
    rows = b"\0" + struct.pack(">3H", 0, 1000, 65535)
    data = png(3, 1, 16, 0, rows, extra=png_chunk(b"tRNS", struct.pack(">H", 1000)))
    np.testing.assert_array_equal(decode(data)[0, :, 0], [0, 255, 255])


def test_cmyk_of_a_jpeg() -> None:
    inks = [(0, 255, 255, 0), (255, 0, 255, 0), (0, 0, 0, 255), (0, 0, 0, 0), (255, 255, 0, 0)]
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 0), (255, 255, 255), (0, 0, 255)]
    for ink, colour in zip(inks, colours, strict=True):
        image = Image.new("CMYK", (16, 16), ink)
        np.testing.assert_array_equal(decode(image)[0, 0], colour)
        data = encoded(image, "JPEG", quality=95)
        assert np.abs(decode(data).astype(int) - colour).max() <= 4
        np.testing.assert_array_equal(decode(data), by_pillow(io.BytesIO(data)))


def on_white(colour: NDArray[Any], alpha: NDArray[Any]) -> NDArray[Any]:
    exact = colour.astype(np.float64) * alpha[..., np.newaxis] + 255.0 * (255.0 - alpha[..., np.newaxis])
    rounded: NDArray[Any] = np.floor(exact / 255 + 0.5)
    return rounded


def test_alpha_is_composited_on_white() -> None:
    levels = np.arange(256, dtype=np.uint8)
    alpha, grey = np.meshgrid(levels, levels)  # every pair
    rgba = np.dstack([grey, grey[::-1], 255 - grey, alpha])
    for picture in (rgba, Image.fromarray(rgba), encoded(Image.fromarray(rgba), "PNG")):
        np.testing.assert_array_equal(decode(picture), on_white(rgba[..., :3], alpha))
    la = Image.fromarray(np.dstack([grey, alpha]))
    assert la.mode == "LA"
    np.testing.assert_array_equal(decode(la), on_white(grey[..., np.newaxis].repeat(3, axis=2), alpha))


def test_palettes_with_transparency() -> None:
    indices = np.arange(4, dtype=np.uint8).reshape(1, 4)
    colours = np.array([[10, 20, 30], [200, 0, 0], [0, 200, 0], [0, 0, 200]], np.uint8)
    rows = b"\0" + indices.tobytes()
    palette = png_chunk(b"PLTE", colours.tobytes())
    plain = png(4, 1, 8, 3, rows, extra=palette)
    np.testing.assert_array_equal(decode(plain)[0], colours)
    mixed = png(4, 1, 8, 3, rows, extra=palette + png_chunk(b"tRNS", bytes([255, 0, 128])))
    np.testing.assert_array_equal(decode(mixed)[0], on_white(colours, np.array([255, 0, 128, 255])))
    one = png(4, 1, 8, 3, rows, extra=palette + png_chunk(b"tRNS", bytes([255, 255, 0])))
    np.testing.assert_array_equal(decode(one)[0, 2], [255, 255, 255])


def test_rgb_and_bilevel_png_with_a_transparent_colour() -> None:
    rows = b"\0" + bytes([1, 2, 3, 40, 50, 60])
    data = png(2, 1, 8, 2, rows, extra=png_chunk(b"tRNS", struct.pack(">3H", 1, 2, 3)))
    np.testing.assert_array_equal(decode(data)[0], [[255, 255, 255], [40, 50, 60]])
    bilevel = png(2, 1, 1, 0, b"\0\x40", extra=png_chunk(b"tRNS", struct.pack(">H", 0)))
    np.testing.assert_array_equal(decode(bilevel)[0], [[255] * 3, [255] * 3])


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation(kind: str) -> None:
    colours = [(200, 10, 10), (10, 200, 10), (10, 10, 200)]
    frames = [Image.new("RGB", (16, 12), colour) for colour in colours]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, **options)
    with Image.open(io.BytesIO(data)) as image:
        assert getattr(image, "n_frames", 1) == 3
    np.testing.assert_array_equal(decode(data), np.asarray(frames[0]))


def test_a_gif_with_a_transparent_colour() -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([9, 9, 9, 200, 0, 0])
    data = encoded(image, "GIF", transparency=0)
    np.testing.assert_array_equal(decode(data)[0], [[255, 255, 255], [200, 0, 0]])


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"]
)
def test_modes_of_pil_images(mode: str) -> None:
    steps = {"RGBa": "RGBA", "PA": "P"}
    image = Image.fromarray(scene())
    if mode in steps:
        image = image.convert(steps[mode])
    image = image.convert(mode)
    np.testing.assert_array_equal(decode(image), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["F", "La"])
def test_modes_that_are_refused_by_name(mode: str) -> None:
    with pytest.raises(ImageError, match=mode):
        decode(Image.new(mode, (4, 4)))


def test_32_bit_pixels_out_of_range_are_refused() -> None:
    with pytest.raises(ImageError, match="0 to 65535"):
        decode(Image.fromarray(np.full((2, 2), 70000, np.int32)))


# --- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("tenths", range(10))
def test_truncated_pictures(kind: str, tenths: int, tmp_path: Path) -> None:
    data = encoded(Image.fromarray(scene(96, 96)), kind)
    path = tmp_path / "cut.bin"
    path.write_bytes(data[: len(data) * tenths // 10])
    for picture, name in ((path, "cut.bin"), (path.read_bytes(), "picture")):
        with pytest.raises(ImageError, match=name):
            check(picture)


@pytest.mark.parametrize(
    "data",
    [b"no picture", b"II*\0\x08\0\0\0", b"%PDF-1.7", b"<svg/>", b"\0" * 64, b"PK\x03\x04", b"P7\n", b"\xff\xd8"],
)
def test_foreign_bytes_say_what_is_read(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"upload 7: is not a picture .*JPEG, PNG"):
        decode(data, name="upload 7")


def test_formats_of_pillow_that_are_not_ours_are_refused() -> None:
    for kind in ("TIFF", "TGA", "ICO", "PCX", "DDS", "SGI", "JPEG2000"):
        with pytest.raises(ImageError):
            decode(encoded(Image.fromarray(scene(32, 32)), kind))


def test_things_that_are_no_picture_file(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    expected = {
        tmp_path / "empty.png": "empty",
        tmp_path / "missing.png": "no such file",
        tmp_path: "is a folder",
        tmp_path / "pipe": "not a regular file",
        tmp_path / "loop": "cannot be opened",
        tmp_path / "zero\0byte.png": "cannot be opened",
        tmp_path / "empty.png" / "below.png": "cannot be opened",
    }
    for path, reason in expected.items():
        with pytest.raises(ImageError, match=reason) as caught:
            decode(path)
        assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(encoded(Image.fromarray(scene()), "PNG"))
    path.chmod(0)
    with pytest.raises(ImageError, match=r"secret\.png.*ermission"):
        decode(path)


def test_a_file_name_that_is_no_text_can_be_printed(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as caught:
        decode(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg"))
    str(caught.value).encode("utf-8")


@pytest.mark.parametrize("picture", [None, 3, ["a.jpg"], 1.5])
def test_other_types_are_refused_by_name(picture: Any) -> None:
    with pytest.raises(ImageError, match=type(picture).__name__):
        decode(picture)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((3, 4, 5), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_arrays_that_are_no_picture(array: Any) -> None:
    with pytest.raises(ImageError):
        decode(array)


SIDE = 60_000
BOMBS = {
    "png": png(SIDE, SIDE, 8, 2, b""),
    "bmp": b"BM" + struct.pack("<IIIIiiHHIIiiII", 0, 0, 54, 40, SIDE, SIDE, 1, 24, 0, 0, 0, 0, 0, 0),
    "gif": b"GIF89a" + struct.pack("<HHBBBcHHHHBB", SIDE, SIDE, 0, 0, 0, b",", 0, 0, 9, 9, 0, 8),
    "ppm": b"P6 60000 60000 255\n",
    "jpeg": b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 17, 8, SIDE, SIDE, 3) + b"\1\x22\0\2\x11\1\3\x11\1"
    + b"\xff\xda" + struct.pack(">HB", 12, 3) + b"\1\0\2\x11\3\x11\0\x3f\0",
}  # fmt: skip


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_refused_by_its_header(kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError, match=r"60000 × 60000 is more than 50,000,000 pixels"):
            decode(BOMBS[kind])


def test_a_webp_bomb_is_refused() -> None:
    data = encoded(Image.new("RGBA", (64, 64), (1, 2, 3, 4)), "WEBP", lossless=True, exif=b"Exif\0\0II")
    assert data[12:16] == b"VP8X"
    huge = data[:24] + (SIDE - 1).to_bytes(3, "little") * 2 + data[30:]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError):
            decode(huge)


def test_the_limit_counts_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decoding.MAX_PIXELS == 50_000_000
    monkeypatch.setattr(decoding, "MAX_PIXELS", 100)
    for accepted, refused in (((10, 10), (10, 11)), ((1, 100), (101, 1))):
        for make in (lambda a: a, Image.fromarray, lambda a: encoded(Image.fromarray(a), "PNG")):
            decode(make(scene(*accepted)))
            with pytest.raises(ImageError, match="more than 100 pixels"):
                decode(make(scene(*refused)))


def test_a_process_that_hides_damage_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.fromarray(scene()), "JPEG")
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(ImageError, match="LOAD_TRUNCATED_IMAGES"):
        decode(data[: len(data) // 2])


def test_pillows_settings_are_left_alone() -> None:
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    decode(encoded(Image.fromarray(scene()), "JPEG"))
    with pytest.raises(ImageError):
        decode(BOMBS["png"])
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))


def test_a_lazily_opened_pil_image_that_is_truncated(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    data = encoded(Image.fromarray(scene(96, 96)), "PNG")
    path.write_bytes(data[: len(data) // 2])
    with Image.open(path) as image, pytest.raises(ImageError):
        decode(image)


STARTS = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF89a", b"P5 ", b"P1\n", b"P6 3 3 255 "]
STARTS += [b"RIFF\x40\0\0\0WEBPVP8X", b"RIFF\x40\0\0\0WEBPVP8L"]


@given(st.binary(max_size=200), st.sampled_from(STARTS))
@settings(max_examples=400, deadline=None)
def test_random_bytes_end_in_an_image_error_or_a_picture(data: bytes, start: bytes) -> None:
    decodes_or_raises(start + data)


SAMPLES = [encoded(Image.fromarray(scene(24, 24, seed=3)), kind) for kind in FORMATS] + [
    encoded(Image.fromarray(scene(24, 24, 4)), "PNG"),
    encoded(Image.fromarray(scene(24, 24)).convert("P"), "PNG", transparency=bytes(range(256))),
    encoded(Image.fromarray(scene(24, 24)).convert("CMYK"), "JPEG"),
    encoded(Image.fromarray(scene(24, 24)), "JPEG", progressive=True, exif=exif_block(5, "<")),
]


@given(
    st.sampled_from(SAMPLES),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
)
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_flipped_bytes_end_in_an_image_error_or_a_picture(sample: bytes, flips: list[tuple[float, int]]) -> None:
    damaged = bytearray(sample)
    for where, value in flips:
        # Headers are where the traps are: half of the flips fall into the first 10%.
        damaged[int((where * 2 if where < 0.5 else (where - 0.5) / 5) * len(damaged))] = value
    decodes_or_raises(bytes(damaged))


def decodes_or_raises(data: bytes) -> None:
    try:
        result = decode(data, name="fuzz")
    except ImageError as error:
        assert str(error).startswith("fuzz: ")
        assert "\n" not in str(error)
    else:
        assert result.dtype == np.uint8
        assert result.ndim == 3
        assert result.shape[2] == 3

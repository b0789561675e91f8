"""Opens pictures. Nothing else in the package does.

Read: JPEG, PNG, WebP, BMP, GIF (first frame) and PBM/PGM/PPM, recognised by their content and never by
their name. What comes out is always upright 8-bit RGB:

- the Exif orientation is applied;
- 16-bit grey v becomes round(v / 257), so that 65535 is 255 (Pillow reads 16-bit colour by its high byte);
- palettes, bilevel, CMYK (Adobe's inverted form, the one that JPEG files use) become RGB; embedded colour
  profiles are not applied;
- transparency is composited on white: round((alpha * colour + (255 - alpha) * 255) / 255).

Pillow decodes, and none of its global settings is changed. A process that sets
`PIL.ImageFile.LOAD_TRUNCATED_IMAGES` is refused: half of a picture would pass for a whole one.
"""

from __future__ import annotations

import importlib
import io
import os
import re
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, TypeGuard

import numpy as np
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from mobilenet.errors import ImageError
from mobilenet.pictures.lent import LentPixels
from mobilenet.pictures.orientation import exif_orientation, upright

if TYPE_CHECKING:
    from numpy.typing import NDArray

Picture = str | os.PathLike[str] | bytes | Image.Image | np.ndarray[tuple[Any, ...], np.dtype[np.uint8]]
"""A path, the bytes of a file, a PIL image, or a uint8 array [H, W, 3], [H, W] (grey) or [H, W, 4] (RGBA)."""

Scale = Callable[[int, int], int]

MAX_PIXELS = 50_000_000
"""The largest picture that is decoded, in pixels (width × height)."""

_ACCEPTED = "JPEG, PNG, WebP, BMP, GIF, PGM and PPM are read"
_HEAD_BYTES = 16


class _Jpeg(JpegImageFile):
    """A JPEG whose resolution in dots per inch is not looked up: damaged Exif would make Pillow warn."""

    def _read_dpi_from_exif(self) -> None:
        return


# Pillow's readers are called by class: Image.open would warn above its own pixel limit before ours counts. They
# are imported, and the expressions compiled, when their first picture comes: all of them would take a tenth of the
# time to a program's first answer.
_READERS = (
    (rb"\xff\xd8\xff", "Jpeg"),
    (rb"\x89PNG\r\n\x1a\n", "Png"),
    (rb"(?s)RIFF.{4}WEBP", "WebP"),
    (rb"BM", "Bmp"),
    (rb"GIF8[79]a", "Gif"),
    (rb"P[1-6]\s", "Ppm"),
)


def decode(picture: Picture, *, name: str | None = None) -> NDArray[np.uint8]:
    """Decode a picture into upright RGB.

    Args:
        picture: a path, the bytes of a file, a PIL image, or a uint8 array [H, W, 3], [H, W] or [H, W, 4].
        name: what error messages call it; by default its path, or "picture" where it has none.

    Returns:
        A writable contiguous uint8 array [H, W, 3], never the caller's own memory. The same picture gives the
        same array as a path, as bytes, as a PIL image and as an array.

    Raises:
        ImageError: the picture is missing, unreadable, empty, of another kind, truncated, damaged, or has
            more than `MAX_PIXELS` pixels (which is found in its header, before anything is decoded).
    """
    return np.array(decode_image(picture, name=name))


def decode_image(picture: Picture, *, name: str | None = None, scale: Scale | None = None) -> Image.Image:
    """Decode as `decode` does, into a PIL image of mode RGB, which may be the caller's own: for reading only.

    Args:
        picture, name: as `decode`.
        scale: called with the upright width and height of a JPEG file, says at which scale 1/n to decode it: n is
            1, 2, 4 or 8, and the result has ceil(width / n) × ceil(height / n) pixels. Other kinds of pictures,
            and PIL images and arrays, are taken as they are.

    Raises:
        ImageError: as `decode`.
    """
    label = name if name is not None else _name_of(picture)
    try:
        return _dispatch(picture, scale)
    except ImageError as error:
        raise ImageError(f"{label}: {error}") from error.__cause__
    except Exception as error:  # a decoder on hostile bytes: whatever it raises, the picture is bad
        raise ImageError(f"{label}: cannot be decoded: {_one_line(error)}") from error


def decode_stored(path: str | os.PathLike[str]) -> Image.Image:
    """Decode a file as it is stored: in its own mode, not turned. For masks, whose pixels are no colours.

    Raises:
        ImageError: as `decode`.
    """
    try:
        return _from_path(os.fspath(path), _stored)
    except ImageError as error:
        raise ImageError(f"{_name_of(path)}: {error}") from error.__cause__
    except Exception as error:  # as in `decode_image`
        raise ImageError(f"{_name_of(path)}: cannot be decoded: {_one_line(error)}") from error


def is_decoded(picture: Picture) -> TypeGuard[NDArray[np.uint8]]:
    """Whether a picture is an array [H, W, 3] that `decode` would give as it is."""
    return (
        isinstance(picture, np.ndarray)
        and picture.dtype == np.uint8
        and picture.ndim == 3
        and picture.shape[2] == 3
        and 0 < picture.shape[0] * picture.shape[1] <= MAX_PIXELS
    )


def pixel_view(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of a PIL image of mode RGB, for reading only.

    Returns:
        uint8 [H, W, 4], the image's own memory, of which the fourth byte means nothing; or a copy, [H, W, 3],
        where Pillow cannot lend it (before 11.2, and above 16 MB, which it stores in several pieces).
    """
    export = getattr(image, "__arrow_c_array__", None)
    if export is None:
        return np.asarray(image)
    try:
        schema, array = export()
        return np.asarray(LentPixels(schema, array, image.size))
    except ValueError:  # several pieces
        return np.asarray(image)


def upright_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(height, width) of a file's picture, upright, from its header: nothing is decoded.

    Raises:
        ImageError: as `decode`, for what the header tells.
    """
    label = _name_of(path)
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            head = file.read(_HEAD_BYTES)
            file.seek(0)
            image = _reader_for(head)(file)
            _check_size(*image.size)
            sideways = exif_orientation(image.info.get("exif")) >= 5
            return image.size if sideways else (image.height, image.width)
    except ImageError as error:
        raise ImageError(f"{label}: {error}") from error
    except Exception as error:  # a decoder on hostile bytes: whatever it raises, the picture is bad
        raise ImageError(f"{label}: cannot be read: {_one_line(error)}") from error


def check(picture: Picture) -> None:
    """Decode the whole picture and throw the result away.

    Raises:
        ImageError: as `decode`.
    """
    decode_image(picture)


def _dispatch(picture: Picture, scale: Scale | None) -> Image.Image:
    if isinstance(picture, Image.Image):
        return _to_upright_rgb(picture)
    if isinstance(picture, np.ndarray):
        return _from_array(picture)
    if isinstance(picture, bytes):
        return _from_file(io.BytesIO(picture), scale)
    if isinstance(picture, str | os.PathLike):
        return _from_path(os.fspath(picture), lambda file: _from_file(file, scale))
    raise ImageError(
        f"a picture is a path, bytes, a PIL image or a uint8 array [H, W, 3], not {type(picture).__name__}"
    )


# Paths go to `os` here: importing pathlib takes longer than decoding a small picture.
def _from_path(path: str, read: Callable[[BinaryIO], Image.Image]) -> Image.Image:
    try:
        kind = os.stat(path).st_mode  # noqa: PTH116
        if stat.S_ISDIR(kind):
            may_list = os.access(path, os.R_OK | os.X_OK)
            raise ImageError("is a folder, not a picture" if may_list else "is a folder that may not be listed")
        if not stat.S_ISREG(kind):  # opening a pipe would wait for ever
            raise ImageError("is not a regular file (a pipe or a device)")
        file = open(path, "rb")  # noqa: PTH123, SIM115
    except FileNotFoundError as error:
        raise ImageError("no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise ImageError(f"cannot be opened: {_one_line(error)}") from error
    with file:
        return read(file)


def _from_file(file: BinaryIO, scale: Scale | None) -> Image.Image:
    image = _opened(file)
    if scale is not None and isinstance(image, _Jpeg):
        _reduce(image, scale)
    return _to_upright_rgb(image)


def _stored(file: BinaryIO) -> Image.Image:
    image = _opened(file)
    _check_size(*image.size)
    image.load()
    return image


def _opened(file: BinaryIO) -> ImageFile.ImageFile:
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ImageError(
            "not decoded because this process sets PIL.ImageFile.LOAD_TRUNCATED_IMAGES, which hides damage; "
            "set it to False"
        )
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    return _reader_for(head)(file)


def _reader_for(head: bytes) -> type[ImageFile.ImageFile]:
    if not head:
        raise ImageError("the file is empty")
    for pattern, kind in _READERS:
        if re.match(pattern, head):
            if kind == "Gif" and len(head) >= 10:  # Pillow's own check of a GIF warns
                _check_size(int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little"))
            return _Jpeg if kind == "Jpeg" else _pillow_reader(kind)
    raise ImageError(f"is not a picture of a kind that is read ({_ACCEPTED}); convert it first")


def _pillow_reader(kind: str) -> type[ImageFile.ImageFile]:
    module = importlib.import_module(f"PIL.{kind}ImagePlugin")
    reader: type[ImageFile.ImageFile] = getattr(module, f"{kind}ImageFile")
    return reader


def _from_array(array: NDArray[np.uint8]) -> Image.Image:
    is_picture = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not is_picture:
        raise ImageError(
            "an array picture is uint8 [H, W, 3], [H, W] or [H, W, 4] with values 0 to 255, not "
            f"{array.dtype} {list(array.shape)}"
        )
    _check_size(array.shape[1], array.shape[0])
    return _to_upright_rgb(Image.fromarray(np.ascontiguousarray(array)))


def _to_upright_rgb(image: Image.Image) -> Image.Image:
    _check_size(*image.size)
    image.load()
    return upright(_to_rgb(image), exif_orientation(image.info.get("exif")))


def _reduce(image: _Jpeg, scale: Scale) -> None:
    """Have a JPEG that is not yet decoded decoded at scale 1/n."""
    width, height = image.size
    _check_size(width, height)  # of the file: its coefficients take memory whatever becomes of them
    sideways = exif_orientation(image.info.get("exif")) >= 5
    n = scale(height, width) if sideways else scale(width, height)
    if n > 1:  # asked for floor(side / n), Pillow takes exactly n: side // (side // n) is below 2 n
        image.draft(None, (max(1, width // n), max(1, height // n)))


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"has no pixels ({width} × {height})")
    if width * height > MAX_PIXELS:
        raise ImageError(f"{width} × {height} is more than {MAX_PIXELS:,} pixels; make it smaller first")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise ImageError("has floating-point pixels (PIL mode F), whose range is unknown; convert it to 8 bits")
    if image.mode.startswith("I"):
        return _grey_from_16_bits(image).convert("RGB")
    if image.has_transparency_data:
        return _on_white(image.convert("RGBA"))
    return image.convert("RGB")


def _grey_from_16_bits(image: Image.Image) -> Image.Image:
    """Scale the PIL modes I;16 and I (which Pillow uses for 16-bit PGM) to 8 bits, rounding exactly."""
    values = np.asarray(image)
    if image.mode == "I" and (values.min() < 0 or values.max() > 65535):
        raise ImageError("has 32-bit pixels outside 0 to 65535 (PIL mode I); convert it to 8 bits")
    grey = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey)


def _on_white(rgba: Image.Image) -> Image.Image:
    canvas = Image.new("RGB", rgba.size, (255, 255, 255))
    canvas.paste(rgba, mask=rgba.getchannel("A"))
    return canvas


def _name_of(picture: Picture) -> str:
    if not isinstance(picture, str | os.PathLike):
        return "picture"
    # A file name that is no valid text must not break the printing of its own error.
    return os.fsdecode(picture).encode("utf-8", "backslashreplace").decode("utf-8")


def _one_line(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__

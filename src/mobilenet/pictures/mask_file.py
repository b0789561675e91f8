"""One mask file as a class map, and the file that names the classes.

A mask's pixels are class numbers: of a palette picture its indices, of a grey one its levels, of one bit 0 and 1.
255 means that a pixel has no class. A colour picture is a mask only where the classes have colours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobilenet.errors import DataError
from mobilenet.pictures.decode import decode_stored
from mobilenet.pictures.palette import IGNORED, MAX_CLASSES, ClassMap, voc_palette

LABEL_FILES = ("labels.txt", "classes.txt", "labelmap.txt")
MAX_BYTES = 2**20
_COLOUR = re.compile(r"(\d{1,3}),(\d{1,3}),(\d{1,3})")
_BORDER = (224, 224, 192)  # VOC's colour of 255

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class ClassList:
    """The classes of masks: their names, and a colour for each where masks are pictures in colour."""

    names: tuple[str, ...]
    colours: tuple[Colour, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= MAX_CLASSES:
            raise DataError(f"{len(self.names)} classes: masks have 1 to {MAX_CLASSES}")
        for values, what in ((self.names, "name"), (self.colours, "colour")):
            for value in values:
                if values.count(value) > 1:
                    raise DataError(f"two classes have the {what} {value!r}")


def read_class_list(path: Path) -> ClassList:
    """The classes of a text file: a name a line in the order of their numbers, or name:red,green,blue (CVAT's
    labelmap.txt, whose further fields are left out). Empty lines and those that begin with # are skipped.

    Raises:
        DataError: it cannot be read, is no text, names no class or one twice, or only some have colours.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: is larger than {MAX_BYTES} bytes: no list of classes")
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    names: list[str] = []
    colours: list[Colour] = []
    for number, line in enumerate(lines, 1):
        name, _, rest = line.strip().partition(":")
        if not name or name.startswith("#"):
            continue
        names.append(name.strip())
        if rest and (colour := _colour(rest.partition(":")[0], f"{path}, line {number}")):
            colours.append(colour)
    if colours and len(colours) != len(names):
        raise DataError(
            f"{path}: {len(colours)} of {len(names)} classes have a colour; give all of them one, or none"
        )
    try:
        return ClassList(tuple(names), tuple(colours))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _colour(text: str, where: str) -> Colour | None:
    if not text.strip():
        return None
    match = _COLOUR.fullmatch(text.strip().replace(" ", ""))
    levels = tuple(map(int, match.groups())) if match else ()
    if len(levels) != 3 or max(levels) > 255:
        raise DataError(f"{where}: {text!r} is no colour red,green,blue of 0 to 255")
    return levels[0], levels[1], levels[2]


def read_class_map(path: Path, colours: Sequence[Colour] = ()) -> ClassMap:
    """The class of every pixel of a mask file, uint8 [H, W].

    Args:
        path: a PNG, BMP, GIF or PGM file.
        colours: of the classes, for masks in colour.

    Raises:
        ImageError: the file cannot be decoded.
        DataError: it is no mask: JPEG, which changes values; colours that no class has; values above 255.
    """
    image = decode_stored(path)
    if image.format in ("JPEG", "MPO", "WEBP"):
        raise DataError(
            f"{path}: is a {image.format} file, which does not keep a mask's values; save masks as PNG"
        )
    if image.mode in ("P", "L"):
        return np.array(image)
    if image.mode == "1":
        return np.array(image).astype(np.uint8)
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 255:
            raise DataError(f"{path}: holds the value {int(values.max())}; a mask's are 0 to 255")
        return values.astype(np.uint8)
    if image.mode not in ("RGB", "RGBA", "LA"):
        raise DataError(
            f"{path}: has mode {image.mode}; a mask has class numbers (P, L) or classes' colours (RGB)"
        )
    return _from_colours(path, np.asarray(image.convert("RGB")), colours)


def _from_colours(path: Path, pixels: NDArray[np.uint8], colours: Sequence[Colour]) -> ClassMap:
    packed = pixels.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    if not colours:
        if (pixels == pixels[..., :1]).all():  # class numbers that were saved three times
            return np.ascontiguousarray(pixels[..., 0])
        raise DataError(
            f"{path}: is in colour; save class numbers (mode P or L), or give each class its colour in labels.txt "
            "(name:red,green,blue)"
        )
    known = np.array([r * 65536 + g * 256 + b for r, g, b in (*colours, _BORDER)], np.uint32)
    classes = np.array([*range(len(colours)), IGNORED], np.uint8)
    order = np.argsort(known, kind="stable")
    places = np.minimum(np.searchsorted(known, packed, sorter=order), len(known) - 1)
    found = order[places]
    strange = known[found] != packed
    if strange.any():
        row, column = (int(n) for n in np.argwhere(strange)[0])
        colour = ", ".join(map(str, pixels[row, column].tolist()))
        raise DataError(f"{path}: pixel ({column}, {row}) has the colour {colour}, which no class has")
    return classes[found]


def is_voc_palette(path: Path) -> bool:
    """Whether a mask file carries Pascal VOC's colours; raises `ImageError` if it cannot be decoded."""
    image = decode_stored(path)
    palette = image.getpalette() if image.mode == "P" else None
    return palette is not None and palette[:63] == voc_palette()[:21].reshape(-1).tolist()

"""The one Exif field that changes what is seen: the orientation.

Read here and not by Pillow's Exif reader because that one warns, through the process-wide `warnings`
filters, about every damaged tag of every camera; a decoder that runs in threads cannot silence it safely.
"""

from __future__ import annotations

import struct

from PIL import Image

_ORIENTATION_TAG = 0x0112
_TIFF_MAGIC = 42
_BYTE_ORDERS = {b"II": "<", b"MM": ">"}
# TIFF type of the field -> struct code: BYTE, SHORT, LONG. Cameras write SHORT.
_INTEGER_TYPES = {1: "B", 3: "H", 4: "I"}

_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def exif_orientation(exif: object) -> int:
    """Return the orientation, 1 to 8, that a block of Exif bytes asks for.

    Args:
        exif: the bytes of an Exif block, with or without the leading `Exif\\0\\0`. Anything else, and a
            block that is damaged or has no orientation, means 1 (as stored), as in every browser.

    Source: Exif 2.32, section 4.6.4 A (tag 274); TIFF 6.0, section 2.
    """
    if not isinstance(exif, bytes):
        return 1
    try:
        value = _read_tag(exif.removeprefix(b"Exif\0\0"))
    except struct.error:  # an offset or a count that points outside the block
        return 1
    return value if value in _TRANSPOSITIONS else 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Return `image` turned and mirrored as `orientation` (1 to 8) asks; 1 returns it as it is.

    What is turned no longer says that it is to be turned, so that it is not turned twice.
    """
    if orientation == 1:
        return image
    turned = image.transpose(_TRANSPOSITIONS[orientation])
    turned.info.pop("exif", None)
    return turned


def _read_tag(tiff: bytes) -> int:
    order = _BYTE_ORDERS.get(tiff[:2])
    if order is None:
        return 1
    magic, directory = struct.unpack_from(f"{order}HI", tiff, 2)
    if magic != _TIFF_MAGIC:
        return 1
    (entries,) = struct.unpack_from(f"{order}H", tiff, directory)
    for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
        tag, kind = struct.unpack_from(f"{order}HH", tiff, entry)
        if tag == _ORIENTATION_TAG and kind in _INTEGER_TYPES:
            return int(struct.unpack_from(f"{order}{_INTEGER_TYPES[kind]}", tiff, entry + 8)[0])
    return 1

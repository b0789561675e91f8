"""Reads the pixels of a PIL image where they lie, through the Arrow interface that Pillow exports.

Source: the Arrow C data interface, arrow.apache.org/docs/format/CDataInterface.html. An RGB image comes as one
list of 4 uint8 for each pixel; the bytes are the data buffer of the list's only child.
"""

from __future__ import annotations

import ctypes
from typing import Any


class _Schema(ctypes.Structure):
    pass


class _Array(ctypes.Structure):
    pass


_Schema._fields_ = [
    ("format", ctypes.c_char_p),
    ("name", ctypes.c_char_p),
    ("metadata", ctypes.c_char_p),
    ("flags", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("children", ctypes.POINTER(ctypes.POINTER(_Schema))),
]
_Array._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_Array))),
]

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype = ctypes.c_void_p
_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


class LentPixels:
    """Something that numpy makes an array [H, W, 4] of uint8 from, without a copy; it keeps the image alive.

    Args:
        schema, array: the capsules of `image.__arrow_c_array__()`.
        size: width and height of the image.

    Raises:
        ValueError: the capsules hold something else than one byte after the other for 4 bytes a pixel.
    """

    def __init__(self, schema: object, array: object, size: tuple[int, int]) -> None:
        width, height = size
        self._owner = array  # releases the pixels when it goes
        kind = ctypes.cast(_pointer(schema, b"arrow_schema"), ctypes.POINTER(_Schema)).contents
        outer = ctypes.cast(_pointer(array, b"arrow_array"), ctypes.POINTER(_Array)).contents
        if kind.format != b"+w:4" or outer.length != width * height or outer.offset or outer.n_children != 1:
            raise ValueError(f"an RGB image is lent as {kind.format!r}, not as 4 bytes a pixel")
        inner, bytes_kind = outer.children[0].contents, kind.children[0].contents
        if bytes_kind.format != b"C" or inner.length != 4 * width * height or inner.offset or inner.n_buffers != 2:
            raise ValueError(f"an RGB image is lent in items {bytes_kind.format!r}, not bytes")
        self.__array_interface__: dict[str, Any] = {
            "version": 3,
            "shape": (height, width, 4),
            "typestr": "|u1",
            "data": (inner.buffers[1], True),
        }

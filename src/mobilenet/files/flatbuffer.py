"""A small reader of FlatBuffers that trusts nothing: every offset and length is checked before it is followed.

Source: "FlatBuffer Internals", the format's own specification. All numbers are little-endian. A table begins with
the signed distance back to its vtable; a vtable is its own size, the table's size, and for each field the distance
from the table's start or 0 for "absent"; strings, vectors and tables are reached by an unsigned distance forward.
A file is only ever viewed, never copied, and forward distances cannot make a loop.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenet.errors import ModelFileError

FORMATS = {"bool": "<?", "int8": "<b", "uint8": "<B", "uint16": "<H", "int32": "<i", "uint32": "<I",
           "uint64": "<Q", "float32": "<f"}  # fmt: skip
MAX_TEXT = 2**16  # bytes of one string
MAX_TABLES = 2**15  # of one vector of tables


class Table:
    """One table of a FlatBuffer. Fields go by their number in the schema; one that is absent has its default."""

    def __init__(self, data: memoryview, position: int) -> None:
        """Checks the table and its vtable; raises `ModelFileError` if they do not lie within the data."""
        self._data = data
        self._position = position
        self._vtable = position - read_number(data, position, "int32")
        self._vtable_size = read_number(data, self._vtable, "uint16")
        self._size = read_number(data, self._vtable + 2, "uint16")
        if self._vtable_size < 4 or self._vtable_size % 2 or self._size < 4:
            raise ModelFileError(f"is damaged: no table at byte {position}")
        check_extent(data, self._vtable, self._vtable_size)
        check_extent(data, position, self._size)

    def number(self, field: int, kind: str, default: int = 0) -> int:
        """A whole number or boolean; `kind` is one of `FORMATS`."""
        position = self._find(field, struct.calcsize(FORMATS[kind]))
        return default if position is None else int(read_number(self._data, position, kind))

    def real(self, field: int, default: float = 0.0) -> float:
        """A float32 number."""
        position = self._find(field, 4)
        return default if position is None else float(read_number(self._data, position, "float32"))

    def table(self, field: int) -> Table | None:
        """The table that a field points to."""
        position = self._follow(field)
        return None if position is None else Table(self._data, position)

    def tables(self, field: int, what: str) -> list[Table]:
        """The tables of a vector; `what` names them in the error if there are too many."""
        offsets = self.vector(field, "uint32")
        if len(offsets) > MAX_TABLES:
            raise ModelFileError(f"has {len(offsets)} {what}; at most {MAX_TABLES} are accepted")
        start = (self._follow(field) or 0) + 4
        return [Table(self._data, start + 4 * i + int(offset)) for i, offset in enumerate(offsets)]

    def vector(self, field: int, dtype: str) -> NDArray[Any]:
        """The numbers of a vector, as a read-only view of the file; empty if absent."""
        kind = np.dtype(dtype).newbyteorder("<")
        position = self._follow(field)
        if position is None:
            return np.empty(0, kind)
        count = read_number(self._data, position, "uint32")
        check_extent(self._data, position + 4, count * kind.itemsize)
        return np.frombuffer(self._data, kind, count, position + 4)

    def text(self, field: int) -> str:
        """A string; bytes that are no UTF-8 become question marks. Empty if absent."""
        raw = self.vector(field, "uint8")
        if len(raw) > MAX_TEXT:
            raise ModelFileError(f"has a name of {len(raw)} bytes; at most {MAX_TEXT} are accepted")
        return raw.tobytes().decode("utf-8", "replace")

    def _find(self, field: int, size: int) -> int | None:
        """Where a field's own bytes are."""
        slot = 4 + 2 * field
        if slot + 2 > self._vtable_size:
            return None
        offset = read_number(self._data, self._vtable + slot, "uint16")
        if offset == 0:
            return None
        if offset < 4 or offset + size > self._size:
            raise ModelFileError(f"is damaged: field {field} lies outside of its table at byte {self._position}")
        return int(self._position + offset)

    def _follow(self, field: int) -> int | None:
        """Where what a field points to begins."""
        position = self._find(field, 4)
        if position is None:
            return None
        distance = read_number(self._data, position, "uint32")
        check_extent(self._data, position + distance, 4)
        return int(position + distance)


def root_table(data: memoryview, identifier: bytes) -> Table:
    """The root of a FlatBuffer whose bytes 4 to 7 are `identifier`; raises `ModelFileError` if they are not."""
    if len(data) < 8 or bytes(data[4:8]) != identifier:
        raise ModelFileError(f"does not have the identifier {identifier.decode()} of its format")
    return Table(data, read_number(data, 0, "uint32"))


def read_number(data: memoryview, position: int, kind: str) -> Any:
    """A number at a position that is checked."""
    check_extent(data, position, struct.calcsize(FORMATS[kind]))
    return struct.unpack_from(FORMATS[kind], data, position)[0]


def check_extent(data: memoryview, position: int, size: int) -> None:
    """Raises `ModelFileError` unless `size` bytes from `position` on lie within the data."""
    if position < 0 or position + size > len(data):
        raise ModelFileError(f"is damaged: needs {size} bytes at byte {position}, but has {len(data)} in all")

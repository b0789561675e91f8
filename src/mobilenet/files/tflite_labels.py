"""The names of classes: from a text file, or from the zip archive that is appended to many .tflite files.

TFLite's metadata packs "associated files" as an uncompressed zip after the FlatBuffer. Only what this needs of the
zip format is read (APPNOTE.TXT of PKWARE, sections 4.3.7, 4.3.12 and 4.3.16), with every size bounded beforehand:
a hostile archive can ask for nothing.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mobilenet.errors import ModelFileError
from mobilenet.files.flatbuffer import check_extent

MAX_LABEL_BYTES = 2**22
MAX_PACKED_FILES = 64
_END = struct.Struct("<4s4H2LH")  # signature, disk, disk, entries here, entries, size, offset, comment
_ENTRY = struct.Struct("<4s6H3L5H2L")  # ... method is 4, sizes 8 and 9, lengths 10 to 12, offset 16
_LOCAL = struct.Struct("<4s5H3L2H")  # ... lengths 9 and 10
_STORED, _DEFLATED = 0, 8


def read_labels(labels: str | os.PathLike[str] | Sequence[str]) -> tuple[str, ...]:
    """The labels of a text file (UTF-8, one a line), or those given as they are.

    Raises:
        ModelFileError: the file cannot be read, is no text or is far too large; it is named.
    """
    if not isinstance(labels, str | os.PathLike):
        return tuple(labels)
    path = Path(labels)
    try:
        if path.stat().st_size > MAX_LABEL_BYTES:
            raise ModelFileError(f"{path}: is larger than {MAX_LABEL_BYTES} bytes: no file of labels")
        return split_labels(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ModelFileError(f"{path}: is no UTF-8 text: {error}") from error


def split_labels(text: str) -> tuple[str, ...]:
    """One label a line, up to the first empty line: what follows that is a remark."""
    lines = [line.strip() for line in text.splitlines()]
    return tuple(lines[: lines.index("")] if "" in lines else lines)


def packed_labels(data: memoryview) -> tuple[str, ...]:
    """The labels that are packed behind a .tflite file's FlatBuffer; none if there are none.

    They are the one text file in there, or of several the one with "label" in its name.

    Raises:
        ModelFileError: the archive is damaged, too large, or leaves more than one choice.
    """
    texts = [entry for entry in _entries(data) if entry.name.lower().endswith(".txt")]
    if len(texts) > 1:
        texts = [entry for entry in texts if "label" in entry.name.lower()]
        if len(texts) != 1:
            raise ModelFileError("packs several text files; give the file of its labels")
    return split_labels(_text(data, texts[0])) if texts else ()


@dataclass(frozen=True)
class _Entry:
    name: str
    method: int
    packed: int
    size: int
    position: int


def _entries(data: memoryview) -> list[_Entry]:
    """The archive's directory. Offsets count from the archive's start, which its end record tells."""
    tail = bytes(data[-(_END.size + 2**16) :])
    found = tail.rfind(b"PK\x05\x06")
    if found < 0 or found + _END.size > len(tail):
        return []
    end = len(data) - len(tail) + found
    _, _, _, _, count, size, offset, comment = _END.unpack_from(data, end)
    if end + _END.size + comment != len(data):  # weights that look like the signature by chance
        return []
    start = end - size - offset
    if count > MAX_PACKED_FILES:
        raise ModelFileError(f"packs {count} files; at most {MAX_PACKED_FILES} are accepted")
    entries, position = [], end - size
    for _ in range(count):
        entry, position = _entry(data, position, start)
        entries.append(entry)
    return entries


def _entry(data: memoryview, position: int, start: int) -> tuple[_Entry, int]:
    check_extent(data, position, _ENTRY.size)
    values = _ENTRY.unpack_from(data, position)
    if values[0] != b"PK\x01\x02" or values[3] & 1:
        raise ModelFileError("is damaged: the directory of its packed files is broken or encrypted")
    name_at, (name, extra, comment) = position + _ENTRY.size, values[10:13]
    check_extent(data, name_at, name)
    text = bytes(data[name_at : name_at + name]).decode("utf-8", "replace")
    entry = _Entry(text, values[4], values[8], values[9], start + values[16])
    return entry, name_at + name + extra + comment


def _text(data: memoryview, entry: _Entry) -> str:
    if max(entry.packed, entry.size) > MAX_LABEL_BYTES:
        raise ModelFileError(f"packs '{entry.name}' of {entry.size} bytes; at most {MAX_LABEL_BYTES} are accepted")
    check_extent(data, entry.position, _LOCAL.size)
    values = _LOCAL.unpack_from(data, entry.position)
    position = entry.position + _LOCAL.size + values[9] + values[10]
    check_extent(data, position, entry.packed)
    raw = _unpacked(bytes(data[position : position + entry.packed]), entry)
    if values[0] != b"PK\x03\x04" or len(raw) != entry.size:
        raise ModelFileError(f"is damaged: the packed file '{entry.name}' is not as its directory says")
    return raw.decode("utf-8-sig", "replace")


def _unpacked(raw: bytes, entry: _Entry) -> bytes:
    if entry.method == _STORED:
        return raw
    if entry.method != _DEFLATED:
        raise ModelFileError(f"packs '{entry.name}' by method {entry.method}, which is not read")
    try:  # never more than the size that was checked, plus one byte to notice a larger one
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(raw, entry.size + 1)
    except zlib.error as error:
        raise ModelFileError(f"is damaged: the packed file '{entry.name}': {error}") from error

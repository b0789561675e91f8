"""What stands in an index's log: one record for each thing that happened, each with checksums (docs/search.md)."""

from __future__ import annotations

import json
import os
import struct
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mobilenet.errors import IndexFileError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MARKER = b"\xf1rec"
FRAME = struct.Struct("<4sBII")  # marker, kind, bytes of the payload, checksum of these two
CHECKSUM = struct.Struct("<I")  # of the payload, after it
_STATE = struct.Struct("<QqH")  # bytes of the file, time of its last change in ns, bytes of its name
_DIGEST = 32
MAX_PAYLOAD = 2**24

Payload = bytes | memoryview

HEADER, PICTURE, BAD, REMOVED, DONE = 1, 2, 3, 4, 5
VECTOR_DTYPE = np.dtype("<f2")


class Header(NamedTuple):
    """The first record: what the log is of.

    Attributes:
        log: a name made anew whenever the log is written anew.
        fingerprint: of the model that the vectors come from.
        dimension: how many numbers a vector has.
        root: the folder that the pictures' names are relative to.
    """

    log: str
    fingerprint: str
    dimension: int
    root: str


class State(NamedTuple):
    """A picture's file as it was seen: its name below the root with slashes, bytes, and time of change in ns."""

    name: str
    size: int
    changed: int


class Entry(NamedTuple):
    """A picture of the index: its file, the SHA-256 of its bytes, and its vector, float16 (D) of length 1."""

    state: State
    digest: bytes
    vector: NDArray[np.float16]


class BadEntry(NamedTuple):
    """A file that is no picture, and why."""

    state: State
    reason: str


def frame(kind: int, payload: bytes) -> bytes:
    """The bytes of a record."""
    if len(payload) > MAX_PAYLOAD:
        raise IndexFileError(f"a record of {len(payload):,} bytes is too large: a vector has too many numbers")
    return b"".join(
        (
            FRAME.pack(MARKER, kind, len(payload), _frame_checksum(kind, len(payload))),
            payload,
            CHECKSUM.pack(zlib.crc32(payload)),
        )
    )


def read_frame(data: Any, offset: int) -> tuple[int, int, int] | None:
    """Kind, begin and length of the payload of the record at `offset`; None if no frame stands there.

    The payload may reach beyond the end of `data`, and is not looked at.
    """
    marker, kind, length, checksum = FRAME.unpack_from(data, offset)
    if marker != MARKER or length > MAX_PAYLOAD or checksum != _frame_checksum(kind, length):
        return None
    return kind, offset + FRAME.size, length


def read_payload(data: Any, begin: int, length: int) -> memoryview | None:
    """The payload, not copied, or None if it is not what was written; it must lie within `data`."""
    payload = memoryview(data)[begin : begin + length]
    return payload if zlib.crc32(payload) == CHECKSUM.unpack_from(data, begin + length)[0] else None


def _frame_checksum(kind: int, length: int) -> int:
    return zlib.crc32(struct.pack("<BI", kind, length))


def pack_header(header: Header) -> bytes:
    """The payload of a `HEADER`."""
    return json.dumps(header._asdict(), ensure_ascii=True).encode()


def unpack_header(payload: Payload) -> Header:
    """Raises `IndexFileError` if a field is missing, unknown or of a wrong type."""
    try:
        header = Header(**json.loads(bytes(payload)))
    except (ValueError, TypeError) as error:
        raise IndexFileError(f"its header is not of this release: {error}") from error
    kinds = {"log": str, "fingerprint": str, "dimension": int, "root": str}
    for name, kind in kinds.items():
        if not isinstance(getattr(header, name), kind) or isinstance(getattr(header, name), bool):
            raise IndexFileError(f"its header's field '{name}' is no {kind.__name__}")
    if not 1 <= header.dimension <= MAX_PAYLOAD // 4:
        raise IndexFileError(f"its header's dimension {header.dimension} is not possible")
    return header


def pack_entry(entry: Entry) -> bytes:
    """The payload of a `PICTURE`."""
    return _pack_state(entry.state) + entry.digest + entry.vector.astype(VECTOR_DTYPE).tobytes()


def unpack_entry(payload: Payload, dimension: int) -> Entry:
    """Raises `IndexFileError` if the payload is not of a picture with a vector of this dimension."""
    state, rest = _unpack_state(payload)
    if len(rest) != _DIGEST + 2 * dimension:
        raise IndexFileError(f"a vector is not of {dimension} numbers")
    return Entry(state, bytes(rest[:_DIGEST]), np.frombuffer(rest, VECTOR_DTYPE, offset=_DIGEST))


def pack_bad(bad: BadEntry) -> bytes:
    """The payload of a `BAD`."""
    return _pack_state(bad.state) + bad.reason.encode("utf-8", "replace")


def unpack_bad(payload: Payload) -> BadEntry:
    """Raises `IndexFileError` if the payload is not of a bad picture."""
    state, rest = _unpack_state(payload)
    return BadEntry(state, bytes(rest).decode("utf-8", "replace"))


def pack_number(number: int) -> bytes:
    """The payload of a `REMOVED` (which record) and of a `DONE` (how many pictures there are)."""
    return struct.pack("<Q", number)


def unpack_number(payload: Payload) -> int:
    """Raises `IndexFileError` if the payload is no number."""
    if len(payload) != 8:
        raise IndexFileError("a record that should hold a number does not")
    return int.from_bytes(payload, "little")


def _pack_state(state: State) -> bytes:
    name = os.fsencode(state.name)
    if len(name) > 0xFFFF:
        raise IndexFileError(f"{state.name[:60]}...: the name has more than 65,535 bytes")
    return _STATE.pack(state.size, state.changed, len(name)) + name


def _unpack_state(payload: Payload) -> tuple[State, Payload]:
    if len(payload) < _STATE.size:
        raise IndexFileError("a record of a picture is too short")
    size, changed, length = _STATE.unpack_from(payload)
    if len(payload) < _STATE.size + length:
        raise IndexFileError("a record of a picture is too short for its name")
    name = bytes(payload[_STATE.size : _STATE.size + length])
    return State(os.fsdecode(name), size, changed), payload[_STATE.size + length :]

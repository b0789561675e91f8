"""An index's log: the truth about it, to which records are only ever added. All else can be made from it again."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from mobilenet.errors import IndexFileError
from mobilenet.search import records
from mobilenet.search.records import BadEntry, Entry, Header, Payload

MAGIC = b"MNINDEX\x01"
REBUILD = "run `mobilenet index` again with --rebuild: what is still good in it is kept"


@dataclass
class Contents:
    """What a log (or its end) says.

    Attributes:
        header: its first record; that of a part is None.
        pictures: the pictures that are there, by where their record begins.
        bad: the files that are no pictures, likewise.
        removed: records before the part that was read that no longer count.
        end: where the last whole record ends.
        torn: how many bytes of an interrupted write come after it.
        done: whether the last run came to its end.
    """

    header: Header | None = None
    pictures: dict[int, Entry] = field(default_factory=dict)
    bad: dict[int, BadEntry] = field(default_factory=dict)
    removed: set[int] = field(default_factory=set)
    end: int = 0
    torn: int = 0
    done: bool = False

    def apply(self, kind: int, payload: Payload, offset: int, dimension: int) -> None:
        """Takes one record in; raises `IndexFileError` if it makes no sense."""
        self.done = kind == records.DONE
        if kind == records.PICTURE:
            self.pictures[offset] = records.unpack_entry(payload, dimension)
        elif kind == records.BAD:
            self.bad[offset] = records.unpack_bad(payload)
        elif kind == records.REMOVED:
            number = records.unpack_number(payload)
            if self.pictures.pop(number, None) is None and self.bad.pop(number, None) is None:
                self.removed.add(number)
        elif kind != records.DONE:
            raise IndexFileError(f"a record is of the unknown kind {kind}")


class LogFile:
    """A log, mapped into memory for reading.

    Raises:
        IndexFileError: there is none, or its beginning is not that of a log.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = _mapped(path)
        if self.data[: len(MAGIC)] != MAGIC:
            raise IndexFileError(f"{path}: does not begin as the log of an index does; {REBUILD}")
        try:
            found = self._record(len(MAGIC))
            if found is None or found[0] != records.HEADER:
                raise IndexFileError("has no header")
            self.header = records.unpack_header(found[1])
        except IndexFileError as error:
            raise IndexFileError(f"{path}: {error}; {REBUILD}") from error
        self.begin = found[2]

    def read(self, begin: int = 0) -> Contents:
        """What the records from `begin` on say (0: all of them).

        Raises:
            IndexFileError: a record is damaged. An unfinished one at the very end is none: it is `torn`.
        """
        contents = Contents(self.header, end=begin or self.begin)
        while contents.end < len(self.data):
            try:
                found = self._record(contents.end)
                if found is None:
                    contents.torn = len(self.data) - contents.end
                    break
                contents.apply(found[0], found[1], contents.end, self.header.dimension)
            except IndexFileError as error:
                raise IndexFileError(f"{self.path}, byte {contents.end:,}: {error}; {REBUILD}") from error
            contents.end = found[2]
        return contents

    def entry(self, offset: int) -> Entry:
        """The picture whose record begins there; raises `IndexFileError` if none does."""
        found = self._record(offset) if self.begin <= offset < len(self.data) else None
        if found is None or found[0] != records.PICTURE:
            raise IndexFileError(f"{self.path}, byte {offset:,}: there is no picture's record; {REBUILD}")
        return records.unpack_entry(found[1], self.header.dimension)

    def _record(self, offset: int) -> tuple[int, Payload, int] | None:
        """Kind, payload and end of a record; None if its write was interrupted."""
        left = len(self.data) - offset
        found = records.read_frame(self.data, offset) if left >= records.FRAME.size else None
        if found is None:
            # a power cut may leave zeros where data had been promised
            if left < records.FRAME.size or self._zeros(offset):
                return None
            raise IndexFileError("a record is damaged")
        kind, begin, length = found
        end = begin + length + records.CHECKSUM.size
        if end > len(self.data):
            return None
        payload = records.read_payload(self.data, begin, length)
        if payload is None:
            if end == len(self.data) or self._zeros(end):
                return None  # the last record: its bytes had not all reached the disk
            raise IndexFileError("a record is damaged")
        return kind, payload, end

    def _zeros(self, offset: int) -> bool:
        return not any(
            self.data[place : place + 2**16].strip(b"\0") for place in range(offset, len(self.data), 2**16)
        )


def _mapped(path: Path) -> Any:
    """The file's bytes, read when they are needed: vectors stay on the disk until they are compared."""
    try:
        with path.open("rb") as file:
            # an empty file cannot be mapped
            size = os.fstat(file.fileno()).st_size
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except OSError as error:
        raise IndexFileError(f"{path}: cannot be read: {error.strerror or error}") from error


class Writer:
    """Adds records to a log. A write that fails (a full disk) leaves the log as it was at the last `sync`.

    Raises:
        OSError: as any write; it has the log's name.
    """

    def __init__(self, path: Path, end: int | None = None) -> None:
        """Opens a log to go on after its byte `end` (what follows is cut off), or begins a new file."""
        self.path = path
        self._file = path.open("xb" if end is None else "r+b", buffering=0)
        self._waiting: list[bytes] = []
        self.end = self._good = end or 0
        if end is None:
            self._add(MAGIC)
        else:
            self._file.truncate(end)
            self._file.seek(end)

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.sync()
        finally:
            self._file.close()

    def append(self, kind: int, payload: bytes) -> int:
        """Adds a record, at the latest at the next `sync`; returns where it begins."""
        begin = self.end
        self._add(records.frame(kind, payload))
        return begin

    def sync(self) -> None:
        """Returns when all that was added is on the disk."""
        data, self._waiting = b"".join(self._waiting), []
        if not data:
            return
        try:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) or 0 :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self.end = self._good
            self._file.truncate(self._good)
            self._file.seek(self._good)
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        self._good = self.end

    def _add(self, data: bytes) -> None:
        self._waiting.append(data)
        self.end += len(data)


def salvage(path: Path) -> Contents:
    """Whatever is whole in a log, however damaged: records are looked for by their markers.

    Where a removal is lost, a picture comes twice: the later record counts. A log without a header gives nothing.
    """
    data = _mapped(path)
    contents = Contents()
    offset = data.find(records.MARKER)
    while 0 <= offset <= len(data) - records.FRAME.size:
        end = _salvage_one(data, offset, contents)
        offset = data.find(records.MARKER, end)
    contents.pictures = _last_of_each(contents.pictures)
    contents.bad = _last_of_each(contents.bad)
    return contents


def _salvage_one(data: Any, offset: int, contents: Contents) -> int:
    """Takes the record at `offset` in if it is good; returns where to look for the next one."""
    found = records.read_frame(data, offset)
    if found is None or found[1] + found[2] + records.CHECKSUM.size > len(data):
        return offset + 1
    kind, begin, length = found
    payload = records.read_payload(data, begin, length)
    if payload is None:
        return offset + 1
    try:
        if kind == records.HEADER:
            contents.header = contents.header or records.unpack_header(payload)
        elif contents.header is not None:
            contents.apply(kind, payload, offset, contents.header.dimension)
    except IndexFileError:
        return offset + 1
    return begin + length + records.CHECKSUM.size


def _last_of_each(entries: dict[int, Any]) -> dict[int, Any]:
    places = {entry.state.name: offset for offset, entry in entries.items()}
    return {offset: entries[offset] for offset in places.values()}

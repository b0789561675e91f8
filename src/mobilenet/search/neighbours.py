"""The approximate graph of a large index, kept in two files beside its log, from which it can be made again."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mobilenet.files.atomic import write_atomically
from mobilenet.search.nearest import Approximate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mobilenet.search.log import Contents, LogFile

GRAPH, STATE = "vectors.usearch", "vectors.json"
BLOCK = 4096
REMOVED_SHARE = 0.3  # with more removed ones than that the graph is made anew: they still cost time


@dataclass(frozen=True)
class State:
    """What the graph was made of: which log, up to which byte, how many vectors; and the file's own checksum."""

    log: str
    end: int
    vectors: int
    removed: int
    bytes: int
    checksum: int


def read_state(folder: Path, log: LogFile) -> State | None:
    """What the graph in this folder holds; None if there is none that is whole and of this log.

    The whole file is read for its checksum: usearch trusts what it maps.
    """
    try:
        values = json.loads((folder / STATE).read_text(encoding="utf-8"))
        state = State(**values)
        if any(type(value) is not int for name, value in values.items() if name != "log"):
            return None
        fits = state.log == log.header.log and log.begin <= state.end <= len(log.data)
        return state if fits and _checksum(folder / GRAPH) == (state.bytes, state.checksum) else None
    except (OSError, ValueError, TypeError):
        return None


def update(folder: Path, log: LogFile, contents: Contents) -> int:
    """Brings the graph in line with the whole log; returns how many vectors had to be put in.

    Raises:
        MissingExtraError: usearch is not installed.
        OSError: it cannot be written; the old one then counts no longer, and search is exact.
    """
    graph = Approximate(log.header.dimension)
    state = read_state(folder, log)
    removed = 0
    if state and state.removed <= REMOVED_SHARE * state.vectors:
        tail = log.read(state.end)
        graph.load(folder / GRAPH)
        graph.remove(np.array(sorted(tail.removed), np.int64))
        added: Sequence[int] = list(tail.pictures)
        removed = state.removed + len(tail.removed)
    else:
        added = list(contents.pictures)
    if state and not added and removed == state.removed and state.end == contents.end:
        return 0
    for keys, vectors in vector_blocks(contents, added):
        graph.add(keys, vectors)
    _write(folder, graph, log, contents, removed)
    return len(added)


def vector_blocks(contents: Contents, offsets: Sequence[int]) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Keys int64 (N) and vectors float32 (N, D) of these records, a few thousand at a time."""
    for first in range(0, len(offsets), BLOCK):
        keys = offsets[first : first + BLOCK]
        vectors = np.stack([contents.pictures[key].vector for key in keys]).astype(np.float32)
        yield np.array(keys, np.int64), vectors


def drop(folder: Path) -> None:
    """Takes the graph away, where there is one."""
    (folder / STATE).unlink(missing_ok=True)
    (folder / GRAPH).unlink(missing_ok=True)


def _write(folder: Path, graph: Approximate, log: LogFile, contents: Contents, removed: int) -> None:
    (folder / STATE).unlink(missing_ok=True)  # from here to the new one there is no graph, whatever happens
    temporary = folder / f".{GRAPH}.tmp"
    try:
        graph.save(temporary)
        size, checksum = _checksum(temporary)
        temporary.replace(folder / GRAPH)
    except (OSError, RuntimeError) as error:  # usearch says RuntimeError where a disk is full
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise
        raise OSError(None, str(error), str(folder / GRAPH)) from error
    state = State(log.header.log, contents.end, len(graph), removed, size, checksum)
    write_atomically(folder / STATE, json.dumps(asdict(state)).encode())


def _checksum(path: Path) -> tuple[int, int]:
    """Bytes and CRC-32 of a file."""
    checksum = size = 0
    with path.open("rb") as file:
        while block := file.read(2**22):
            checksum, size = zlib.crc32(block, checksum), size + len(block)
    return size, checksum

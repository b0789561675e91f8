"""What has happened to a folder of pictures since it was indexed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mobilenet.errors import DataError
from mobilenet.pictures.walk import is_folder, is_picture_name, walk_files
from mobilenet.search.log import Contents
from mobilenet.search.records import BadEntry, Entry, State

Known = Entry | BadEntry


@dataclass
class Changes:
    """What is new, gone or as it was.

    Attributes:
        removed: records whose file is gone.
        suspects: files that are new or look changed, each with the record of its old state, if it has one.
        unchanged: how many files have the size and time of change that their record says.
    """

    removed: list[int] = field(default_factory=list)
    suspects: list[tuple[State, int | None]] = field(default_factory=list)
    unchanged: int = 0


def find_pictures(root: Path) -> Iterator[State]:
    """The pictures below a folder as they are now, by what their names end in.

    Raises:
        DataError: the folder is missing, or one in it may not be listed.
    """
    if not is_folder(root):
        raise DataError(f"{root}: there is no such folder of pictures")
    for path in walk_files(root):
        if is_picture_name(path):
            try:
                state = path.stat()
            except OSError:
                yield State(path.relative_to(root).as_posix(), 0, 0)  # a link to nowhere: reading it says so
            else:
                yield State(path.relative_to(root).as_posix(), state.st_size, state.st_mtime_ns)


def compare(root: Path, contents: Contents) -> Changes:
    """Compares the folder with the index by names, sizes and times of change; no picture is opened.

    Raises:
        DataError: as `find_pictures`, or there is no picture at all: an index is not emptied by a disk that is not
            mounted.
    """
    known: dict[str, tuple[int, State]] = {}
    for entries in (contents.pictures, contents.bad):
        known.update({entry.state.name: (offset, entry.state) for offset, entry in entries.items()})
    changes = Changes()
    for state in find_pictures(root):
        offset, before = known.pop(state.name, (None, None))
        if before == state:
            changes.unchanged += 1
        else:
            changes.suspects.append((state, offset))
    if not changes.unchanged and not changes.suspects:
        raise DataError(f"{root}: holds no pictures" + ("; the index is left as it is" if known else ""))
    changes.removed = [offset for offset, _ in known.values()]
    return changes


def digest(path: Path) -> bytes | None:
    """SHA-256 of a file's bytes; None if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None


def picture_path(root: Path, name: str) -> Path:
    """The file of a picture's name."""
    return Path(os.path.join(root, name))  # noqa: PTH118 - as it was found, with nothing tidied away

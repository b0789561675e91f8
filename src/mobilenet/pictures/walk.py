"""Finding picture files in folders: the same rule for data sets and for sources of prediction."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from mobilenet.errors import DataError

PICTURE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".gif", ".pbm", ".pgm", ".ppm", ".pnm")
)
"""What a file name ends in, in lower case, to be taken for a picture in a folder. Decoding goes by content."""


def is_picture_name(path: Path) -> bool:
    """Say whether the file name ends as a picture's does, in upper or lower case."""
    return path.suffix.lower() in PICTURE_SUFFIXES


def is_folder(path: Path) -> bool:
    """Say whether there is a folder, through links too; one that may not be looked at is none."""
    return stat.S_ISDIR(_mode(path))


def is_file(path: Path) -> bool:
    """Say whether there is a regular file, through links too; one that may not be looked at is none."""
    return stat.S_ISREG(_mode(path))


def is_fifo(path: Path) -> bool:
    """Say whether there is a named pipe, through links too."""
    return stat.S_ISFIFO(_mode(path))


def list_folder(folder: Path) -> list[Path]:
    """Return what a folder holds, sorted by name (by code point: the same on every machine), dot names left out.

    Raises:
        DataError: the folder is missing, is none, or may not be listed.
    """
    try:
        visible = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror or error}") from error
    return sorted(visible, key=lambda path: path.name)


def walk_files(folder: Path, *, yield_unlisted: bool = False) -> Iterator[Path]:
    """Yield every file at any depth below a folder, whatever its name ends in, in the order of `list_folder`.

    Links are followed; a folder that is reached twice, by a loop of links or otherwise, is read once. A link
    that leads nowhere is yielded as a file, so that its decoding reports it.

    Args:
        folder: where to start.
        yield_unlisted: yield a folder that may not be listed, itself, instead of raising.

    Raises:
        DataError: a folder may not be listed.
    """
    yield from _walk(folder, set(), yield_unlisted)


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except (OSError, ValueError):  # Path.is_dir raises some of these, and which ones depends on the Python version
        return 0


def _walk(folder: Path, seen: set[Path], yield_unlisted: bool) -> Iterator[Path]:
    real = folder.resolve()
    if real in seen:
        return
    seen.add(real)
    try:
        entries = list_folder(folder)
    except DataError:
        if not yield_unlisted:
            raise
        yield folder
        return
    for path in entries:
        if is_folder(path):
            yield from _walk(path, seen, yield_unlisted)
        else:
            yield path

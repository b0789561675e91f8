"""The pictures that a command is pointed at: files, folders, patterns and a list on standard input."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from mobilenet.errors import DataError
from mobilenet.pictures.walk import is_file, is_folder, is_picture_name, walk_files


def expand_sources(sources: Iterable[str], *, stdin: TextIO | None = None) -> Iterator[Path]:
    """Yield the path of each picture, one at a time, in the order of the sources.

    A source is

    - a file, whatever its name ends in;
    - a folder: every file at any depth that is named as a picture is, in the order of `walk_files`;
    - a pattern with `*`, `?`, `[...]` or `**`: what it matches, sorted. Folders that it matches are read as
      above (not with `**`, which goes into them itself); files must be named as pictures are, unless the
      pattern itself ends in a suffix;
    - `-`: the files and folders that standard input lists, one a line, read while they are needed.

    A source that leads to no picture (a missing file, an empty folder, a pattern that matches nothing) and a
    folder that may not be listed are yielded themselves: decoding them raises an `ImageError` that names them,
    so that the caller reports them where it reports every bad picture, and goes on.

    Args:
        sources: what the user named.
        stdin: where `-` reads from; by default the process's standard input.

    Raises:
        DataError: standard input is not text.
    """
    for source in sources:
        if source == "-":
            for line in _lines(sys.stdin if stdin is None else stdin):
                yield from _or_itself(Path(line), _expand(Path(line)))
        else:
            yield from _or_itself(Path(source), _matches(source) if _is_pattern(source) else _expand(Path(source)))


def _or_itself(source: Path, paths: Iterator[Path]) -> Iterator[Path]:
    yield next(paths, source)
    yield from paths


def _is_pattern(source: str) -> bool:
    # A file may be called `cat[1].jpg`: what exists is no pattern.
    return any(sign in source for sign in "*?[") and not is_file(Path(source)) and not is_folder(Path(source))


def _expand(path: Path) -> Iterator[Path]:
    """Yield the file itself, or the pictures of the folder and its sub-folders that may not be listed."""
    if not is_folder(path):
        yield path
        return
    for found in walk_files(path, yield_unlisted=True):
        if is_picture_name(found) or is_folder(found):
            yield found


def _matches(pattern: str) -> Iterator[Path]:
    takes_every_file = Path(pattern).suffix not in ("", ".*")
    for match in sorted(glob.iglob(pattern, recursive=True)):  # noqa: PTH207 Path.glob takes no absolute pattern
        path = Path(match)
        if is_folder(path):
            yield from _expand(path) if "**" not in pattern else ()
        elif takes_every_file or is_picture_name(path):
            yield path


def _lines(stdin: TextIO) -> Iterator[str]:
    try:
        for line in stdin:
            if name := line.rstrip("\r\n"):
                yield name
    except UnicodeDecodeError as error:
        raise DataError("standard input: the list of pictures is not text in this system's encoding") from error

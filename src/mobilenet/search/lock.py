"""One writer at a time: a lock that the system lets go of when the process ends, however it ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mobilenet.errors import IndexFileError


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock while the block runs; raises `IndexFileError` if another process has it."""
    with path.open("a+b") as file:
        try:
            _take(file)
        except OSError as error:
            raise IndexFileError(f"{path.parent}: another process is writing this index; wait for it") from error
        yield


def _take(file: IO[bytes]) -> None:
    if sys.platform == "win32":
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

"""Pictures as the frames of a film, for `pictures/video.py` and nobody else."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mobilenet.errors import ImageError
from mobilenet.pictures.decode import decode
from mobilenet.pictures.video import PATTERN, Decoded
from mobilenet.pictures.walk import is_folder, is_picture_name, list_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mobilenet.pictures.video import Frames


def folder_pictures(frames: Frames, fps: float | None) -> Iterator[Decoded]:
    """A folder's pictures, or those of a pattern, in the order of the numbers in their names."""
    path = Path(frames.source)
    folder, pattern = (path, None) if is_folder(path) else (path.parent, _as_expression(path.name))
    if not is_folder(folder):
        raise ImageError(f"{frames.source}: there is no folder {folder}")
    found = [
        p for p in list_folder(folder) if is_picture_name(p) and (pattern is None or pattern.fullmatch(p.name))
    ]
    yield from decoded_pictures(found, fps, frames)


def decoded_pictures(paths: Sequence[Path], fps: float | None, frames: Frames) -> Iterator[Decoded]:
    """Pictures in the order of the numbers in their names; one that cannot be read leaves a gap in time."""
    for number, path in enumerate(sorted(paths, key=_by_numbers)):
        start = time.perf_counter()
        try:
            pixels = decode(path)
        except ImageError as error:
            frames.skip(str(error))
            continue
        spent = (time.perf_counter() - start) * 1e3
        yield Decoded(number / fps if fps else None, spent, partial(_itself, pixels))


def _itself(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return pixels


def _as_expression(name: str) -> re.Pattern[str]:
    """A name with %d or %04d in it as an expression."""
    found = PATTERN.search(name)
    assert found is not None
    before, after = re.escape(name[: found.start()]), re.escape(name[found.end() :])
    return re.compile(f"{before}\\d{{{min(int(found[1] or 1), 99)},}}{after}")


def _by_numbers(path: Path) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isascii() and part.isdigit() else (-1, part) for part in parts]

"""Whether the words of `mobilenet predict` are about a film's frames; light, because every prediction asks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mobilenet.errors import ArgumentError
from mobilenet.pictures.film_kinds import is_film
from mobilenet.pictures.video import is_address, is_pattern
from mobilenet.pictures.walk import is_file, is_folder


def is_moving(sources: Sequence[str], given: dict[str, Any]) -> bool:
    """Whether the words of `mobilenet predict` ask for a film's frames rather than for pictures.

    Args:
        sources: as the user named them.
        given: the options that only films have, by their names; those that were not given are None.

    Raises:
        ArgumentError: several films, or options of films without one.
    """
    films = [source for source in sources if _is_film_source(source)]
    if given.get("--fps") is not None:
        rated = [source for source in films if not is_pattern(source)]
        if rated:
            raise ArgumentError(f"{rated[0]}: has a frame rate of its own; --fps is for pictures as a sequence")
        return True
    if films and len(sources) > 1:
        raise ArgumentError(f"{films[0]}: a film, camera or stream is predicted alone; {len(sources)} were given")
    wanted = [name for name, value in given.items() if value is not None]
    if wanted and not films:
        raise ArgumentError(
            f"{wanted[0]} is for films, cameras and streams, not for {sources[0]}; with --fps a folder or pattern "
            "of pictures is taken as one"
        )
    return bool(films)


def _is_film_source(source: str) -> bool:
    path = Path(source)
    if is_folder(path) or is_file(path):
        return not is_folder(path) and is_film(path)
    return is_address(source) or is_pattern(source) or is_film(path)

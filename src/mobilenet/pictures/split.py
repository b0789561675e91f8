"""A seeded, stratified split that is the same on every machine.

Pictures are ranked by a hash of the seed and of their path below the root, class by class. Nothing depends on
the order of a file system, on a library's random generator or on the pictures of another class.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mobilenet.errors import ArgumentError, DataError


@dataclass(frozen=True)
class NamedPicture:
    """A picture of a data set whose class is still a name; `key` is its path below the root, with slashes."""

    path: Path
    class_name: str
    key: str


def split_pictures(
    pictures: list[NamedPicture], fractions: Mapping[str, float], seed: int
) -> dict[str, tuple[NamedPicture, ...]]:
    """Take a fraction of each class for each of the named splits; the rest is "train".

    Args:
        pictures: the pictures to split.
        fractions: name of a split -> its part of each class, rounded, at least one picture. A part of 0 gives
            no such split.
        seed: another seed gives another split.

    Returns:
        "train" and the splits of `fractions`, each in the order of `pictures`.

    Raises:
        ArgumentError: a fraction is negative or they add up to 1 or more.
        DataError: a class has too few pictures to be in every split; the message names it.
    """
    check_fractions(fractions)
    wanted = {name: fraction for name, fraction in fractions.items() if fraction > 0}
    chosen: dict[str, str] = {}  # key -> split
    for class_name, members in _by_class(pictures).items():
        ranked = sorted(members, key=lambda picture: _rank(picture, seed))
        start = 0
        for split, count in _counts(class_name, len(ranked), wanted).items():
            chosen.update({picture.key: split for picture in ranked[start : start + count]})
            start += count
    names = ["train", *wanted]
    return {name: tuple(p for p in pictures if chosen.get(p.key, "train") == name) for name in names}


def check_fractions(fractions: Mapping[str, float]) -> None:
    """Check the parts that are split off.

    Raises:
        ArgumentError: one is not a number from 0, or together they leave nothing to train on.
    """
    for name, fraction in fractions.items():
        if not math.isfinite(fraction) or fraction < 0:
            raise ArgumentError(f"the {name} fraction is a number from 0 up to 1, not {fraction}")
    if sum(fractions.values()) >= 1:
        listed = " and ".join(f"{name} {fraction}" for name, fraction in fractions.items())
        raise ArgumentError(f"the fractions {listed} leave nothing to train on: they add up to 1 or more")


def _by_class(pictures: list[NamedPicture]) -> dict[str, list[NamedPicture]]:
    classes: dict[str, list[NamedPicture]] = {}
    for picture in pictures:
        classes.setdefault(picture.class_name, []).append(picture)
    return classes


def _counts(class_name: str, total: int, fractions: Mapping[str, float]) -> dict[str, int]:
    if total < len(fractions) + 1:
        raise DataError(
            f"class {class_name!r} has {total} picture{'s' if total > 1 else ''}, too few to be in each of train, "
            f"{', '.join(fractions)}: add pictures, or make the folders train, val and test yourself"
        )
    counts = {name: max(1, math.floor(total * fraction + 0.5)) for name, fraction in fractions.items()}
    while sum(counts.values()) >= total:  # train keeps at least one
        largest = max(counts, key=lambda name: counts[name])
        counts[largest] -= 1
    return counts


def _rank(picture: NamedPicture, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\n{picture.key}".encode("utf-8", "surrogateescape")).digest()

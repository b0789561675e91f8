"""A data set of pictures with masks: samples, how one is loaded, and a check of all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mobilenet.errors import ArgumentError, DataError, ImageError
from mobilenet.pictures.decode import decode
from mobilenet.pictures.mask_file import read_class_map
from mobilenet.pictures.palette import IGNORED, ClassMap

MAX_LISTED = 10

Bad = tuple[Path, str]  # a file and what is wrong with it
Progress = Callable[[int, int], None]


class MaskSource(Protocol):
    """Where a mask comes from: called with the picture's (height, width), it gives a class map of that size."""

    def __call__(self, size: tuple[int, int]) -> ClassMap: ...


@dataclass(frozen=True)
class MaskFile:
    """A mask in a file of its own."""

    path: Path
    colours: tuple[tuple[int, int, int], ...] = ()

    def __call__(self, size: tuple[int, int]) -> ClassMap:
        """See `MaskSource`; raises `DataError` if its size is another, and as `read_class_map`."""
        classes = read_class_map(self.path, self.colours)
        if classes.shape != size:
            turned = (
                "; the picture is turned by its EXIF data, the mask is not" if classes.shape == size[::-1] else ""
            )
            raise DataError(
                f"{self.path}: has {classes.shape[1]} x {classes.shape[0]} pixels, but its picture has "
                f"{size[1]} x {size[0]}{turned}"
            )
        return classes


@dataclass(frozen=True)
class MaskSample:
    """A picture and where its mask comes from."""

    path: Path
    mask: MaskSource


@dataclass(frozen=True)
class MaskFolder:
    """A data set: class names, the samples of each split that exists, and what was left out with the reason."""

    root: Path
    classes: tuple[str, ...]
    splits: dict[str, tuple[MaskSample, ...]]
    skipped: tuple[Bad, ...] = ()

    def samples(self, split: str) -> tuple[MaskSample, ...]:
        """Those of a split, or of "all"; raises `DataError` if there is no such split."""
        if split == "all":
            return tuple(sample for part in self.splits.values() for sample in part)
        if split not in self.splits:
            raise DataError(
                f"{self.root}: there is no split '{split}'; there are {', '.join(self.splits)}, and all"
            )
        return self.splits[split]


def load(sample: MaskSample, classes: int) -> tuple[NDArray[np.uint8], ClassMap]:
    """A picture, uint8 [H, W, 3], and its class map, uint8 [H, W].

    Raises:
        ImageError: one of them cannot be decoded.
        DataError: their sizes differ, or a value is neither a class nor 255; the file is named.
    """
    image = decode(sample.path)
    return image, load_mask(sample, (image.shape[0], image.shape[1]), classes)


def load_mask(sample: MaskSample, size: tuple[int, int], classes: int) -> ClassMap:
    """The class map, uint8 [H, W], for a picture whose (height, width) is known; raises as `load`."""
    mask = sample.mask(size)
    known = np.where(mask == IGNORED, 0, mask)
    if known.max() >= classes:
        row, column = np.unravel_index(int(known.argmax()), known.shape)
        where = sample.mask.path if isinstance(sample.mask, MaskFile) else sample.path
        raise DataError(
            f"{where}: pixel ({column}, {row}) is {known.max()}, but there are {classes} classes, "
            f"0 to {classes - 1} (255: none)"
        )
    return mask


@dataclass(frozen=True)
class Survey:
    """What `check_masks` found: the good rest, and each split's pixels by class, with those of none at the end."""

    folder: MaskFolder
    pixels: dict[str, NDArray[np.int64]]

    def absent(self, split: str) -> tuple[str, ...]:
        """Classes that no pixel of a split is of."""
        counts = self.pixels[split][: len(self.folder.classes)]
        return tuple(name for name, count in zip(self.folder.classes, counts, strict=True) if not count)


def check_masks(folder: MaskFolder, *, on_bad: str = "stop", progress: Progress | None = None) -> Survey:
    """Reads every picture and mask once.

    Args:
        folder: the data set.
        on_bad: "stop", or "skip": bad ones are left out and added to `skipped`.
        progress: called with (done, total).

    Raises:
        ArgumentError: another `on_bad`.
        DataError: "stop" and something is bad (up to 10 are listed); nothing would be left of a split; or all
            masks are of 0 and 255 alone.
    """
    if on_bad not in ("stop", "skip"):
        raise ArgumentError(f"on_bad is stop or skip, not {on_bad!r}")
    classes, total, done = len(folder.classes), len(folder.samples("all")), 0
    bad: list[Bad] = []
    kept: dict[str, tuple[MaskSample, ...]] = {}
    pixels = {split: np.zeros(classes + 1, np.int64) for split in folder.splits}
    for split, samples in folder.splits.items():
        good = []
        for sample in samples:
            done += 1
            if progress:
                progress(done, total)
            try:
                _, mask = load(sample, classes)
            except (ImageError, DataError) as error:
                bad.append((sample.path, str(error)))
                continue
            counts = np.bincount(mask.reshape(-1), minlength=256)
            pixels[split] += np.append(counts[:classes], counts[IGNORED])
            good.append(sample)
        kept[split] = tuple(good)
    if bad and on_bad == "stop":
        raise DataError(
            listed(folder.root, f"of {total} pictures or masks cannot be used; on_bad_picture=skip", bad)
        )
    _check_rest(folder, kept, pixels)
    return Survey(replace(folder, splits=kept, skipped=(*folder.skipped, *bad)), pixels)


def _check_rest(
    folder: MaskFolder, kept: Mapping[str, Sequence[MaskSample]], pixels: Mapping[str, NDArray[np.int64]]
) -> None:
    for split, samples in kept.items():
        if folder.splits[split] and not samples:
            raise DataError(f"{folder.root}: no picture of {split} can be used")
    counts = sum(pixels.values(), np.zeros(len(folder.classes) + 1, np.int64))
    if counts[0] and counts[-1] and not counts[1:-1].any():
        raise DataError(
            f"{folder.root}: the masks hold 0 and 255 alone, and 255 means that a pixel has no class; save what "
            "is meant as class 1 with the value 1"
        )


def listed(root: Path, what: str, bad: Sequence[Bad]) -> str:
    """An error's text that names the first of some files, each with what is wrong with it."""
    lines = [f"  {text if text.startswith(str(path)) else f'{path}: {text}'}" for path, text in bad[:MAX_LISTED]]
    if len(bad) > MAX_LISTED:
        lines.append(f"  and {len(bad) - MAX_LISTED} more")
    return f"{root}: {len(bad)} {what} leaves them out:\n" + "\n".join(lines)

"""Data sets of labelled pictures: folders of classes, or a list. Class names travel by name, never by position.

Three layouts are read:

- `ROOT/{train,val|validation|valid,test}/<class>/*`: split already. Where there is no val, a seeded part of
  train becomes val; a test set is never made out of a data set that its owner has split.
- `ROOT/<class>/*`: split here into train, val and test, stratified and seeded, the same on every machine.
- a CSV file of `path,label` (split here) or `path,label,split` (split already).

Pictures may lie at any depth below their class. Names that start with a dot are skipped; files that do not end
as a picture's name does are left out and counted.
"""

from __future__ import annotations

import dataclasses
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mobilenet.errors import ArgumentError, DataError, ImageError
from mobilenet.pictures.decode import check
from mobilenet.pictures.picture_list import SPLIT_NAMES, UNSPLIT, read_picture_list
from mobilenet.pictures.split import NamedPicture, check_fractions, split_pictures
from mobilenet.pictures.walk import is_file, is_folder, is_picture_name, list_folder, walk_files

BATCH = 32

Progress = Callable[[int, int], None]
"""Called with (done, total) while pictures are checked."""


@dataclass(frozen=True)
class Sample:
    """A picture and its label, an index into the `classes` of its `PictureFolder`."""

    path: Path
    label: int


@dataclass(frozen=True)
class PictureFolder:
    """A data set: class names, and the samples of each split that exists among "train", "val" and "test".

    `ignored` counts the files that were left out because their names do not end as a picture's does.
    """

    root: Path
    classes: tuple[str, ...]
    splits: dict[str, tuple[Sample, ...]]
    ignored: int = 0

    def counts(self, split: str) -> dict[str, int]:
        """Return class name -> number of pictures in a split, in the order of `classes`, zeros included.

        Raises:
            ArgumentError: there is no such split; the message names those that exist.
        """
        if split not in self.splits:
            raise ArgumentError(f"{self.root} has no split {split!r}; it has {', '.join(self.splits)}")
        labels = Counter(sample.label for sample in self.splits[split])
        return {name: labels[index] for index, name in enumerate(self.classes)}


@dataclass(frozen=True)
class _Found:
    """What lies on the disk, before labels: split (or `UNSPLIT`) -> pictures."""

    splits: Mapping[str, Collection[NamedPicture]]
    ignored: int


def read_dataset(
    root: str | Path,
    *,
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    allow_single_class: bool = False,
) -> PictureFolder:
    """Find the pictures of a data set and their labels. No picture is opened.

    Args:
        root: a folder or a CSV file; see the module's text for the layouts.
        val_fraction: the part of each class that becomes val where the data set has none; 0 for no val.
        test_fraction: the part of each class that becomes test where nothing is split yet; 0 for no test.
        seed: of the split.
        classes: the class names of a model: labels become indices into them. Without it the classes are those
            of the data set, sorted by code point.
        allow_single_class: accept a data set of one class, which cannot be learnt but can be embedded. It is
            accepted anyway where `classes` is given.

    Raises:
        ArgumentError: a fraction is negative or the fractions add up to 1 or more.
        DataError: the root is missing or of another layout, a class is empty, is in some splits only, is too
            small to split or unknown to `classes`, there is one class only, or a row of the list is not valid.
    """
    root = Path(root)
    fractions = {"val": val_fraction, "test": test_fraction}
    check_fractions(fractions)
    found = _find(root)
    names = _class_names(root, found, classes, allow_single_class)
    splits = _complete_splits(found, fractions, seed)
    _check_same_classes(root, splits)
    return PictureFolder(root, tuple(classes or names), _label(splits, names), found.ignored)


def find_bad_pictures(
    samples: Iterable[Sample], *, threads: int = 2, progress: Progress | None = None
) -> list[tuple[Path, str]]:
    """Decode every picture; return the path and the reason of each that fails, in the order of `samples`.

    Args:
        samples: the pictures, each of which is decoded whole.
        threads: how many are decoded at a time.
        progress: called now and then, and at the end, with (done, total).

    Raises:
        ArgumentError: `threads` is below 1.
    """
    if threads < 1:
        raise ArgumentError(f"threads is at least 1, not {threads}")
    paths = [sample.path for sample in samples]
    bad: list[tuple[Path, str]] = []
    with ThreadPoolExecutor(threads) as pool:
        # In batches, so that an interrupt waits for a few pictures and not for all.
        for start in range(0, len(paths), BATCH):
            batch = paths[start : start + BATCH]
            reasons = pool.map(_why_bad, batch)
            bad.extend((path, reason) for path, reason in zip(batch, reasons, strict=True) if reason)
            if progress:
                progress(start + len(batch), len(paths))
    return bad


def without_bad_pictures(folder: PictureFolder, bad: Iterable[tuple[Path, str]]) -> PictureFolder:
    """Return the data set without the pictures that `find_bad_pictures` found.

    Raises:
        DataError: nothing would be left of a class in some split; the message names both.
    """
    paths = {path for path, _ in bad}
    splits = {
        split: tuple(sample for sample in samples if sample.path not in paths)
        for split, samples in folder.splits.items()
    }
    for split, samples in splits.items():
        emptied = {sample.label for sample in folder.splits[split]} - {sample.label for sample in samples}
        if emptied:
            raise DataError(
                f"{folder.root}: every picture of class {folder.classes[min(emptied)]!r} in {split} is bad; "
                "replace them"
            )
    return dataclasses.replace(folder, splits=splits)


def handle_bad_pictures(
    folder: PictureFolder, mode: str, *, threads: int = 2, progress: Progress | None = None
) -> tuple[PictureFolder, list[tuple[Path, str]]]:
    """Decode every picture of a data set and deal with those that fail.

    Args:
        folder: the data set.
        mode: "skip" leaves bad pictures out, "stop" raises if there is one.
        threads, progress: as in `find_bad_pictures`.

    Returns:
        The data set without them, and the bad ones with the reason of each.

    Raises:
        ArgumentError: another mode.
        DataError: mode "stop" and there are bad pictures (up to 10 are listed), or a class has no other.
    """
    if mode not in ("skip", "stop"):
        raise ArgumentError(f"on-bad-picture is skip or stop, not {mode!r}")
    samples = [sample for split in folder.splits.values() for sample in split]
    bad = find_bad_pictures(samples, threads=threads, progress=progress)
    if bad and mode == "stop":
        lines = [f"  {path}: {reason}" for path, reason in bad[:10]]
        if len(bad) > 10:
            lines.append(f"  and {len(bad) - 10} more")
        listed = "\n".join(lines)
        raise DataError(
            f"{folder.root}: {len(bad)} of {len(samples)} pictures cannot be read; remove or replace them, "
            f"or skip them (on-bad-picture skip):\n{listed}"
        )
    return without_bad_pictures(folder, bad), bad


def _why_bad(path: Path) -> str | None:
    try:
        check(path)
    except ImageError as error:
        return str(error).removeprefix(f"{path}: ")
    return None


def _find(root: Path) -> _Found:
    if is_folder(root):
        return _find_in_folder(root)
    if not is_file(root):
        raise DataError(f"{root}: there is no such folder or file")
    if root.suffix.lower() != ".csv":
        raise DataError(f"{root}: is neither a folder of pictures nor a .csv file of path,label")
    return _Found(read_picture_list(root), 0)


def _find_in_folder(root: Path) -> _Found:
    folders = [path for path in list_folder(root) if is_folder(path)]
    named = [path for path in folders if path.name.lower() in SPLIT_NAMES]
    if named and (len(named) == len(folders) or any(path.name.lower() == "train" for path in named)):
        return _find_in_splits(root, named, [path for path in folders if path not in named])
    pictures, ignored = _find_classes(root, root)
    return _Found({UNSPLIT: pictures}, ignored)


def _find_in_splits(root: Path, named: list[Path], others: list[Path]) -> _Found:
    for folder in others:  # notes and annotations may lie beside the splits, pictures may not
        if any(is_picture_name(path) for path in walk_files(folder)):
            raise DataError(
                f"{folder}: holds pictures beside the folders {', '.join(p.name for p in named)}; move it"
            )
    splits: dict[str, list[NamedPicture]] = {}
    ignored = 0
    for folder in named:
        split = SPLIT_NAMES[folder.name.lower()]
        if split in splits:
            raise DataError(f"{root}: has two folders for the split {split}; {folder.name!r} is the second")
        splits[split], left_out = _find_classes(root, folder)
        ignored += left_out
    return _Found({name: splits[name] for name in ("train", "val", "test") if name in splits}, ignored)


def _find_classes(root: Path, folder: Path) -> tuple[list[NamedPicture], int]:
    """Return the pictures of `folder`/<class>/** and the number of other files."""
    entries = list_folder(folder)
    class_folders = [path for path in entries if is_folder(path)]
    if not class_folders:
        raise DataError(f"{folder}: has no folders; a data set is one folder of pictures for each class")
    pictures: list[NamedPicture] = []
    ignored = len(entries) - len(class_folders)
    first_folders: dict[str, Path] = {}
    for class_folder in class_folders:
        name = _normalised(class_folder.name)
        if name in first_folders:
            raise DataError(f"{class_folder}: another folder's name is the same Unicode text; join the two")
        first_folders[name] = class_folder
        files = list(walk_files(class_folder))
        members = [path for path in files if is_picture_name(path)]
        if not members:
            raise DataError(f"{class_folder}: the class {name!r} has no pictures; add some or remove the folder")
        pictures.extend(
            NamedPicture(path, name, _normalised(path.relative_to(root).as_posix())) for path in members
        )
        ignored += len(files) - len(members)
    return pictures, ignored


def _class_names(root: Path, found: _Found, classes: Sequence[str] | None, allow_single_class: bool) -> list[str]:
    present = sorted({picture.class_name for pictures in found.splits.values() for picture in pictures})
    if classes is None:
        if len(present) == 1 and not allow_single_class:
            raise DataError(f"{root}: has one class only, {present[0]!r}; a classifier needs at least two")
        return present
    known = [_normalised(name) for name in classes]
    for name in present:
        if name not in known:
            raise DataError(f"{root}: class {name!r} is none of the model's classes ({_some(known)}); rename it")
        if known.count(name) > 1:
            raise DataError(f"{root}: class {name!r} could be any of {known.count(name)} classes of the model")
    return known


def _complete_splits(
    found: _Found, fractions: Mapping[str, float], seed: int
) -> dict[str, tuple[NamedPicture, ...]]:
    splits = {name: tuple(pictures) for name, pictures in found.splits.items()}
    if UNSPLIT in splits:
        return split_pictures(list(splits[UNSPLIT]), fractions, seed)
    if "train" in splits and "val" not in splits:
        return {**splits, **split_pictures(list(splits["train"]), {"val": fractions["val"]}, seed)}
    return splits


def _check_same_classes(root: Path, splits: Mapping[str, Collection[NamedPicture]]) -> None:
    classes = {split: {picture.class_name for picture in pictures} for split, pictures in splits.items()}
    for name in sorted(set().union(*classes.values())):
        having = [split for split in classes if name in classes[split]]
        lacking = [split for split in classes if name not in classes[split]]
        if lacking:
            raise DataError(
                f"{root}: class {name!r} is in {', '.join(having)} but not in {', '.join(lacking)}; "
                "every split needs pictures of every class"
            )


def _label(splits: Mapping[str, Collection[NamedPicture]], names: Sequence[str]) -> dict[str, tuple[Sample, ...]]:
    index = {name: label for label, name in enumerate(names)}
    return {
        split: tuple(Sample(picture.path, index[picture.class_name]) for picture in splits[split])
        for split in ("train", "val", "test")
        if split in splits
    }


def _normalised(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (" ..." if len(names) > 10 else "")

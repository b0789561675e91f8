"""Pictures of identities: whole identities go to train, val and test; batches with several pictures of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mobilenet.errors import DataError, TrainingError
from mobilenet.learn.data import Batch, EvaluationData, TrainingData, in_background, share_of_process
from mobilenet.pictures.folders import PictureFolder, Sample
from mobilenet.pictures.picture_list import SPLIT_NAMES, UNSPLIT
from mobilenet.pictures.split import NamedPicture, split_pictures
from mobilenet.pictures.walk import is_folder, is_picture_name, list_folder, walk_files
from mobilenet.tasks.verify_data import Identities, read_identities

FRACTION = 0.15  # of the identities, for val and for test where the data are not split
LEAST = 2  # identities of a split: with one there is no pair of different ones
Groups = list[NDArray[np.int64]]


def read_identity_folder(root: str | Path) -> tuple[PictureFolder, dict[str, tuple[str, ...]]]:
    """The pictures of ROOT/{train,val,test}/IDENTITY/** or ROOT/IDENTITY/**, labelled with their identity.

    Identities, not pictures, are split where nothing is split yet (the same on every machine), and part of train
    becomes val where there is no val; so val and test show nobody who is in train. The classes are the identities
    of train, then those of val, then those of test. No picture is opened.

    Returns:
        The data set, and the names of the identities of one picture by split, which are left out.

    Raises:
        DataError: the folder is missing or of another layout, an identity has no picture or is in two splits, or
            a split has fewer than two identities of two pictures.
    """
    root = Path(root)
    if not is_folder(root):
        raise DataError(f"{root}: there is no such folder; identities are ROOT/IDENTITY/*.jpg")
    found = _find_splits(root)
    _check_apart(found)
    splits = {name: dict(identities.pictures) for name, identities in found.items()}
    if "train" not in found:
        splits = _split(root, splits[UNSPLIT], {"val": FRACTION, "test": FRACTION})
    elif "val" not in found:
        splits |= _split(root, splits["train"], {"val": FRACTION})
    single = {split or "the data": identities.single for split, identities in found.items()}
    return labelled(root, splits), {split: names for split, names in single.items() if names}


def _find_splits(root: Path) -> dict[str, Identities]:
    """What lies in ROOT/train and so on, or all of it as `UNSPLIT`."""
    folders = [path for path in list_folder(root) if is_folder(path)]
    if not any(path.name.lower() == "train" for path in folders):
        return {UNSPLIT: read_identities(root)}
    found: dict[str, Identities] = {}
    for folder in folders:
        split = SPLIT_NAMES.get(folder.name.lower())
        if split is None and any(is_picture_name(path) for path in walk_files(folder)):
            raise DataError(f"{folder}: holds pictures beside the folder train; move it")
        if split in found:
            raise DataError(f"{root}: has two folders for the split {split}; {folder.name!r} is the second")
        if split is not None:
            found[split] = read_identities(folder)
    return found


def _check_apart(found: dict[str, Identities]) -> None:
    seen: dict[object, str] = {}
    for split, identities in found.items():
        for name in identities.pictures:
            folder = identities.root / name
            for key in (name, folder.resolve()):
                if key in seen:
                    raise DataError(
                        f"{folder}: the identity is in {seen[key]} too; val and test need people whom training "
                        "has not seen"
                    )
            seen |= {name: split, folder.resolve(): split}


def _split(
    root: Path, pictures: dict[str, tuple[Path, ...]], fractions: dict[str, float]
) -> dict[str, dict[str, tuple[Path, ...]]]:
    """Identities by split, ranked by a hash of their names."""
    total, needed = len(pictures), LEAST * (len(fractions) + 1)
    if total < needed:
        raise DataError(
            f"{root}: has {total} identities of two or more pictures; {needed} are needed to split them into "
            f"train, {', '.join(fractions)}"
        )
    wanted = {name: max(fraction, LEAST / total) for name, fraction in fractions.items()}
    named = [NamedPicture(Path(name), "identities", name) for name in pictures]
    parts = split_pictures(named, wanted, seed=0)
    return {split: {one.key: pictures[one.key] for one in members} for split, members in parts.items()}


def labelled(root: Path, splits: dict[str, dict[str, tuple[Path, ...]]]) -> PictureFolder:
    """A data set of these pictures; label 0 is the first identity of train."""
    every: tuple[str, ...] = ("train", "val", "test")
    order = [split for split in every if split in splits]
    names = [name for split in order for name in splits[split]]
    label = {name: number for number, name in enumerate(names)}
    samples = {
        split: tuple(Sample(path, label[name]) for name, paths in splits[split].items() for path in paths)
        for split in order
    }
    return PictureFolder(root, tuple(names), samples)


def without_single(folder: PictureFolder) -> tuple[PictureFolder, tuple[str, ...]]:
    """The data set without identities of which one picture is left, and their names.

    Raises:
        DataError: a split has fewer than two identities then.
    """
    counts = Counter(sample.label for samples in folder.splits.values() for sample in samples)
    kept = {
        split: [sample for sample in samples if counts[sample.label] > 1]
        for split, samples in folder.splits.items()
    }
    for split, samples in kept.items():
        if len({sample.label for sample in samples}) < LEAST:
            raise DataError(
                f"{folder.root}: {split} has fewer than two identities of two pictures that can be read"
            )
    single = tuple(folder.classes[label] for label, count in sorted(counts.items()) if count == 1)
    if not single:
        return folder, ()
    present = sorted(label for label, count in counts.items() if count > 1)
    number = {label: place for place, label in enumerate(present)}
    splits = {
        split: tuple(replace(sample, label=number[sample.label]) for sample in samples)
        for split, samples in kept.items()
    }
    classes = tuple(folder.classes[label] for label in present)
    return replace(folder, classes=classes, splits=splits), single


class IdentityData(TrainingData):
    """Augmented pictures in random order; the targets are labels, int64 (B)."""

    def _targets(self, labels: list[int]) -> Tensor:
        return torch.tensor(labels)


class Views(EvaluationData):
    """Every picture several times, each time changed in another way; first all once, then all again.

    Args:
        data: whose augmentation and pictures.
        views: how often.
    """

    def __init__(self, data: IdentityData, views: int) -> None:
        super().__init__([*data.samples] * views, data.preprocessing, batch=data.batch, workers=data.workers)
        self.data = data

    def batches(self, part: slice | None = None) -> Iterator[Tensor]:
        """float32 (B, height, width, C) of the samples in `part`, in order."""
        places = np.arange(len(self.samples))[part or slice(None)]
        groups = [places[start : start + self.batch] for start in range(0, len(places), self.batch)]
        return in_background([partial(self._views, group) for group in groups], self.workers)

    def _views(self, places: NDArray[np.int64]) -> Tensor:
        epochs, numbers = np.divmod(places, len(self.data.samples))
        parts = [self.data.load(numbers[epochs == epoch], int(epoch)).images for epoch in np.unique(epochs)]
        return torch.cat(parts)


class BalancedData(IdentityData):
    """Batches of about `batch` / `group` identities with `group` pictures each; every picture once an epoch.

    An identity with fewer pictures gives what it has, and one whose pictures are no multiple of `group` gives
    some groups of one more. Groups are not cut in two by the share of a process.

    Args:
        group: pictures of one identity in a batch.
        *what, **how: see `TrainingData`.
    """

    def __init__(self, *what: Any, group: int, **how: Any) -> None:
        self.group = group
        super().__init__(*what, **how)

    def _check_shares(self) -> None:
        """Counts the steps, and checks that each process has two identities in each."""
        labels = Counter(sample.label for sample in self.samples)
        groups = sum(max(1, count // self.group) for count in labels.values())
        self.steps = max(1, groups // max(2, self.batch // self.group))
        if groups // self.steps < 2 * self.processes:
            raise TrainingError(
                f"a batch of {groups // self.steps} identities cannot be shared by {self.processes} processes, "
                "each of which compares two or more: raise --batch, or lower --pictures-per-identity"
            )

    def _steps_of(self, epoch: int) -> list[Groups]:
        """The groups of each step: identities in random order, none again before all were there."""
        random = np.random.default_rng([self.seed, epoch])
        labels = np.array([sample.label for sample in self.samples])
        rounds: dict[int, Groups] = {}
        for label in random.permutation(np.unique(labels)):
            own = random.permutation(np.flatnonzero(labels == label))
            for place, group in enumerate(np.array_split(own, max(1, len(own) // self.group))):
                rounds.setdefault(place, []).append(group)
        groups = [group for place in sorted(rounds) for group in rounds[place]]
        ends = [len(groups) * step // self.steps for step in range(self.steps + 1)]
        steps = [groups[start:end] for start, end in pairwise(ends)]
        return [steps[number] for number in random.permutation(self.steps)]

    def batch_sizes(self, epoch: int) -> list[int]:
        """Pictures in each step of an epoch, over all processes."""
        return [sum(map(len, groups)) for groups in self._steps_of(epoch)]

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """This process's part of the batches from `first_step` on; raises `ImageError` if a picture is bad."""
        steps = self._steps_of(epoch)[first_step:]
        own = [groups[share_of_process(len(groups), self.process, self.processes)] for groups in steps]
        return in_background([partial(self.load, np.concatenate(groups), epoch) for groups in own], self.workers)

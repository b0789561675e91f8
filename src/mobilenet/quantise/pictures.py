"""Which pictures a model is calibrated on, and on which others it is measured: drawn with a seed."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from mobilenet.errors import ArgumentError, DataError
from mobilenet.files.contents import ModelContents
from mobilenet.pictures.folders import Sample, read_dataset
from mobilenet.pictures.sources import expand_sources
from mobilenet.pictures.walk import is_file, is_folder
from mobilenet.quantise.options import QuantiseOptions

if TYPE_CHECKING:
    from mobilenet.pictures.boxes import BoxedPicture
    from mobilenet.pictures.palette import ClassMap

LEAST_CALIBRATION = 4


class HasPath(Protocol):
    """A sample of any task."""

    @property
    def path(self) -> Path:
        """Of its picture."""
        ...


Located = TypeVar("Located", bound=HasPath)


@dataclass(frozen=True)
class Drawn:
    """Sets of pictures; the held-out one has none in common with the others.

    Attributes:
        calibration: what ranges are measured on.
        trial: what methods are compared on; the same as `calibration` where there are no others.
        held_out: what the drop is measured on.
        labels: of the held-out pictures, indices of the model's classes; None if they have none.
        note: where they come from, and why there are no labels if there are none.
        learning: what training with rounding may look at: all that is not held out.
        learning_labels: of those, as `labels`.
        boxes: the held-out pictures with their objects, of a detector; None if they have none.
        masks: of the held-out pictures, of a segmenter, at the size of its input; None if they have none.
    """

    calibration: tuple[Path, ...]
    trial: tuple[Path, ...]
    held_out: tuple[Path, ...]
    labels: tuple[int, ...] | None
    note: str
    learning: tuple[Path, ...] = ()
    learning_labels: tuple[int, ...] | None = None
    boxes: tuple[BoxedPicture, ...] | None = None
    masks: tuple[ClassMap, ...] | None = None

    @property
    def truth(self) -> tuple[BoxedPicture, ...] | tuple[ClassMap, ...] | None:
        """What is known of the held-out pictures beyond a label."""
        return self.masks if self.boxes is None else self.boxes


def draw_pictures(
    model: ModelContents, names: Sequence[str], data: str | os.PathLike[str], options: QuantiseOptions
) -> Drawn:
    """Draws the sets from a data set, or from a folder of pictures of any kind.

    A data set whose classes the model knows is split as for training: train calibrates and val measures; test is
    left alone. Of pictures without such labels, a part calibrates and the others measure.

    Args:
        model: a float model.
        names: its classes' names; empty if it has none.
        data: a folder, or a CSV file of path,label.
        options: how many, and the seed (of the split too, so that it is training's own with the same seed).

    Raises:
        DataError: nothing there, no pictures, or fewer than the budget needs to be measured.
    """
    root = Path(data)
    if not is_folder(root) and not is_file(root):
        raise DataError(f"{root}: no such folder; quantising needs a folder of pictures")
    if model.task == "detect":
        return _with_boxes(names, root, options)
    if model.task == "segment":
        return _with_masks(model, names, root, options)
    labelled, reason = _labelled(model, names, root, options.seed)
    if labelled is not None:
        train, val = _shuffled(labelled, options)
        _check_enough(root, len(train), len(val), options)
        drawn = _of_splits(root, train, val[: options.held_out], options)
        labels, learnt = (tuple(sample.label for sample in part) for part in (val[: options.held_out], train))
        return replace(drawn, labels=labels, learning_labels=learnt)
    return _unlabelled(root, reason, options)


def _with_boxes(names: Sequence[str], root: Path, options: QuantiseOptions) -> Drawn:
    """As of labelled pictures; where there are no boxes of these classes, as of pictures without labels."""
    from mobilenet.pictures.boxes import read_boxes

    try:
        folder = read_boxes(root, classes=names or None, on_bad_box="skip", seed=options.seed)
    except DataError as error:
        return _unlabelled(root, str(error), options)
    if not {"train", "val"} <= folder.splits.keys():
        return _unlabelled(root, f"{root}: has no train to calibrate on", options)
    train, val = _shuffled(folder.splits, options)
    measured = tuple(val[: options.held_out])
    objects = sum(int((~picture.ignored).sum()) for picture in measured)
    _check_enough(root, len(train), objects, options, "objects")
    return replace(_of_splits(root, train, measured, options), boxes=measured)


def _with_masks(model: ModelContents, names: Sequence[str], root: Path, options: QuantiseOptions) -> Drawn:
    """As of labelled pictures; where there are no masks of these classes, as of pictures without labels."""
    from mobilenet.pictures.masks import read_masks
    from mobilenet.quantise.segments import fitting, seen_masks

    pictures = root / "images" if is_folder(root / "images") else root
    try:
        folder = read_masks(root, classes=names or None, on_missing="skip", seed=options.seed)
    except DataError as error:
        return _unlabelled(pictures, str(error), options)
    if not {"train", "val"} <= folder.splits.keys():
        return _unlabelled(pictures, f"{root}: has no train to calibrate on", options)
    train, val = _shuffled(folder.splits, options)
    measured = val[: min(options.held_out, fitting(model))]
    masks = seen_masks(model, measured, len(folder.classes))
    _check_enough(root, len(train), sum(mask.size for mask in masks), options, "pixels")
    return replace(_of_splits(root, train, measured, options), masks=masks)


def _shuffled(splits: Mapping[str, Sequence[Located]], options: QuantiseOptions) -> tuple[list[Located], ...]:
    """The samples of train and of val, each in a random order."""
    parts = tuple([*splits[split]] for split in ("train", "val"))
    for part in parts:
        random.Random(options.seed).shuffle(part)
    return parts


def _of_splits(
    root: Path, train: Sequence[HasPath], measured: Sequence[HasPath], options: QuantiseOptions
) -> Drawn:
    """What is not known of the held-out pictures yet is left out."""
    learning = tuple(sample.path for sample in train)
    return Drawn(
        *_two(learning, options.pictures),
        tuple(sample.path for sample in measured),
        None,
        f"{root}: train calibrates, val measures",
        learning,
    )


def _labelled(
    model: ModelContents, names: Sequence[str], root: Path, seed: int
) -> tuple[dict[str, tuple[Sample, ...]] | None, str]:
    """The labelled splits, or why there are none."""
    if model.task != "classify" or not names:
        return None, "the model has no named classes"
    try:
        splits = read_dataset(root, classes=names, seed=seed).splits
    except DataError as error:
        return None, str(error)
    if not {"train", "val"} <= splits.keys():
        return None, f"{root}: has no train to calibrate on"
    return splits, ""


def _unlabelled(root: Path, reason: str, options: QuantiseOptions) -> Drawn:
    train = root / "train"
    source = train if is_folder(train) else root
    if not is_folder(source):
        raise DataError(f"{reason}; quantising needs a list of the model's classes, or a folder of pictures")
    found = [path for path in expand_sources([str(source)]) if not is_folder(path)]
    if not found:
        raise DataError(f"{root}: holds no pictures; quantising needs some to calibrate and to measure on")
    random.Random(options.seed).shuffle(found)
    rest = max(len(found) - 2 * options.pictures, options.needed)
    measured = min(options.held_out, rest, len(found))
    _check_enough(root, len(found) - measured, measured, options)
    return Drawn(
        *_two(tuple(found[measured:]), options.pictures),
        tuple(found[:measured]),
        None,
        f"no labels used: {reason}",
        tuple(found[measured:]),
    )


def _two(pictures: tuple[Path, ...], count: int) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    return pictures[:count], pictures[count : 2 * count] or pictures[:count]


def _check_enough(
    root: Path, calibration: int, held_out: int, options: QuantiseOptions, what: str = "pictures"
) -> None:
    if options.held_out < options.needed:
        raise ArgumentError(
            f"a drop of {options.max_drop:g} is measured on at least {options.needed} pictures, not on "
            f"{options.held_out}: raise held_out or max_drop"
        )
    least = min(LEAST_CALIBRATION, options.pictures)
    if calibration < least or held_out < options.needed:
        raise DataError(
            f"{root}: has {max(calibration, 0)} pictures to calibrate on and {held_out} {what} to measure on; a "
            f"drop of {options.max_drop:g} needs at least {least} and {options.needed}: add pictures or allow more"
        )

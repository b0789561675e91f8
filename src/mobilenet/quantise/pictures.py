"""Which pictures a model is calibrated on, and on which others it is measured: drawn with a seed."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mobilenet.errors import ArgumentError, DataError
from mobilenet.files.contents import ModelContents
from mobilenet.pictures.folders import Sample, read_dataset
from mobilenet.pictures.sources import expand_sources
from mobilenet.pictures.walk import is_file, is_folder
from mobilenet.quantise.options import QuantiseOptions

LEAST_CALIBRATION = 4


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
    """

    calibration: tuple[Path, ...]
    trial: tuple[Path, ...]
    held_out: tuple[Path, ...]
    labels: tuple[int, ...] | None
    note: str
    learning: tuple[Path, ...] = ()
    learning_labels: tuple[int, ...] | None = None


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
    labelled, reason = _labelled(model, names, root, options.seed)
    if labelled is not None:
        train, val = ([*labelled[split]] for split in ("train", "val"))
        random.Random(options.seed).shuffle(train)
        random.Random(options.seed).shuffle(val)
        _check_enough(root, len(train), len(val), options)
        measured = val[: options.held_out]
        return Drawn(
            *_two(tuple(sample.path for sample in train), options.pictures),
            tuple(sample.path for sample in measured),
            tuple(sample.label for sample in measured),
            f"{root}: train calibrates, val measures",
            tuple(sample.path for sample in train),
            tuple(sample.label for sample in train),
        )
    return _unlabelled(root, reason, options)


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


def _check_enough(root: Path, calibration: int, held_out: int, options: QuantiseOptions) -> None:
    if options.held_out < options.needed:
        raise ArgumentError(
            f"a drop of {options.max_drop:g} is measured on at least {options.needed} pictures, not on "
            f"{options.held_out}: raise held_out or max_drop"
        )
    least = min(LEAST_CALIBRATION, options.pictures)
    if calibration < least or held_out < options.needed:
        raise DataError(
            f"{root}: has {max(calibration, 0)} pictures to calibrate on and {held_out} to measure on; a drop of "
            f"{options.max_drop:g} needs at least {least} and {options.needed}: add pictures or allow more"
        )

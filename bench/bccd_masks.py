"""A data set with masks out of one with boxes: every box's inscribed ellipse is taken for the object.

    python bench/bccd_masks.py DATA OUTPUT [--detector MODEL]

DATA is a folder of Pascal VOC annotations with its lists of train, val and test, such as BCCD's blood cells.
OUTPUT becomes a folder that `mobilenet.pictures.masks` reads: images/ (copies), masks/ (PNG with a palette),
labels.txt and the three lists. Blood cells are near enough to ellipses that lie along the axes for a network to
be trained on them and measured by them; where two overlap, the smaller one lies on top, and what the annotators
marked as difficult has no class. Prints the share of the pixels that each class has; with --detector, the mean
IoU on test of that detector's boxes, drawn as ellipses by the same rule.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import mobilenet
from mobilenet.pictures.boxes import BoxedPicture, read_boxes
from mobilenet.pictures.mask_set import check_masks
from mobilenet.pictures.masks import read_masks
from mobilenet.pictures.palette import IGNORED, save_class_map
from mobilenet.tasks.segmentation_metrics import SegmentationMeter

BACKGROUND = "background"


def ellipse(size: tuple[int, int], box: Sequence[float]) -> NDArray[np.bool_]:
    """The pixels, bool [H, W], whose centre lies in the ellipse that a box (left, top, right, bottom) holds."""
    left, top, right, bottom = box
    ys, xs = np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5
    across = (xs - (left + right) / 2) / ((right - left) / 2)
    down = (ys - (top + bottom) / 2) / ((bottom - top) / 2)
    return np.asarray(across[None] ** 2 + down[:, None] ** 2 <= 1)


def class_map(picture: BoxedPicture) -> NDArray[np.uint8]:
    """The mask of a picture, uint8 [H, W]: 0 is background, 1 and on are the classes of its boxes."""
    classes = np.zeros(picture.size, np.uint8)
    sides = picture.boxes[:, 2:] - picture.boxes[:, :2]
    for number in np.argsort(-sides.prod(1), kind="stable").tolist():
        value = IGNORED if picture.ignored[number] else picture.labels[number] + 1
        classes[ellipse(picture.size, picture.boxes[number].tolist())] = value
    return classes


def write_masks(data: Path, output: Path) -> None:
    """Writes the folder; see the module's text."""
    folder = read_boxes(data, on_bad_box="skip")
    for line in folder.skipped:
        print(f"left out: {line}")
    for name in ("images", "masks"):
        (output / name).mkdir(parents=True, exist_ok=True)
    (output / "labels.txt").write_text("\n".join((BACKGROUND, *folder.classes)) + "\n")
    for split, pictures in folder.splits.items():
        for picture in pictures:
            shutil.copyfile(picture.path, output / "images" / picture.path.name)
            save_class_map(class_map(picture), output / "masks" / f"{picture.path.stem}.png")
        names = [picture.path.stem for picture in pictures]
        (output / f"{split}.txt").write_text("\n".join(names) + "\n")


def main() -> None:
    """Reads the command line, writes the folder, reads it again and prints what is in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--detector")
    words = parser.parse_args()
    write_masks(words.data, words.output)
    survey = check_masks(read_masks(words.output))
    for split, counts in survey.pixels.items():
        shares = counts / counts.sum()
        listed = ", ".join(f"{n} {s:.1%}" for n, s in zip(survey.folder.classes, shares, strict=False))
        print(f"{split}: {len(survey.folder.samples(split))} pictures; {listed}")
    if words.detector:
        measured = drawn_boxes(words.data, words.detector)
        listed = ", ".join(f"{name} {row['iou']:.4f}" for name, row in measured["per_class"].items())
        print(f"the boxes of {words.detector} as ellipses: test mIoU {measured['miou']:.4f}; {listed}")


def drawn_boxes(data: Path, detector: str) -> dict[str, Any]:
    """What a detector finds in the test pictures, as masks beside those of the truth."""
    model, folder = mobilenet.load(detector), read_boxes(data, on_bad_box="skip")
    meter = SegmentationMeter(len(folder.classes) + 1, boundaries=False)
    for truth in folder.splits["test"]:
        boxes = model.predict(truth.path).boxes
        ignored = np.zeros(len(boxes), bool)
        found = replace(truth, boxes=boxes.xyxy, labels=boxes.cls, ignored=ignored)
        meter.add(class_map(found), class_map(truth))
    return meter.results((BACKGROUND, *folder.classes))


if __name__ == "__main__":
    main()

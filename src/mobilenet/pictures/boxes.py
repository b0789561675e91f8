"""Data sets of pictures with boxes: Pascal VOC, COCO and YOLO, told apart by looking.

- **VOC**: `ROOT/Annotations/*.xml`, pictures in `JPEGImages` (or beside the .xml files), splits from
  `ImageSets/Main/{train,val,test}.txt`; or `ROOT/{train,valid,test}/*.xml` with their pictures beside them.
- **COCO**: a .json file, or `ROOT/annotations/*.json`, or `ROOT/{train,valid,test}/*.json`; the split is in the
  name of the file or of its folder.
- **YOLO**: `data.yaml` (or its folder), which names classes and splits; a picture in `images/...` has its labels
  in `labels/...`.

Where there is no val, a seeded part of train becomes val; where nothing is split, it is split here, the same on
every machine. Everything is checked before anything is used: whatever is wrong is named by file and line (in a
.json file by the entry), all of it at once, so that it can be put right in one go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mobilenet.errors import ArgumentError, DataError, ImageError
from mobilenet.pictures.decode import upright_size
from mobilenet.pictures.picture_list import UNSPLIT
from mobilenet.pictures.split import NamedPicture, check_fractions, split_pictures
from mobilenet.pictures.walk import is_file, is_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

BORDER_TOLERANCE = 1.0  # pixels by which a tool's rounding may put a side outside: it is then cut
LISTED = 10  # problems that one message lists
ON_BAD_BOX = ("stop", "skip")


@dataclass(frozen=True, eq=False)
class BoxedPicture:
    """A picture and its objects.

    Attributes:
        path: of the picture.
        size: (height, width) in pixels, upright.
        boxes: left, top, right, bottom in pixels, float32 (N, 4), inside the picture and with an area.
        labels: class numbers, int64 (N).
        ignored: bool (N): crowds (COCO) and difficult ones (VOC), which are neither learnt nor counted as missed.
    """

    path: Path
    size: tuple[int, int]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    ignored: NDArray[np.bool_]


@dataclass(frozen=True)
class BoxFolder:
    """A data set: class names, and the pictures of each split that exists among "train", "val" and "test".

    `layout` is "voc", "coco" or "yolo"; `unused` are classes that are named but have no box, which are left out;
    `skipped` says what was left out as bad, each with its place.
    """

    root: Path
    layout: str
    classes: tuple[str, ...]
    splits: dict[str, tuple[BoxedPicture, ...]]
    unused: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    def counts(self, split: str) -> dict[str, int]:
        """Class name -> number of boxes in a split, in the order of `classes`, zeros included.

        Raises:
            ArgumentError: there is no such split; the message names those that exist.
        """
        if split not in self.splits:
            raise ArgumentError(f"{self.root} has no split {split!r}; it has {', '.join(self.splits)}")
        labels = Counter(number for picture in self.splits[split] for number in picture.labels.tolist())
        return {name: labels[number] for number, name in enumerate(self.classes)}


class Box(NamedTuple):
    """A box as a file has it: where that says so, its class, its corners in pixels, whether it is ignored."""

    where: str
    name: str
    corners: tuple[float, float, float, float]
    ignored: bool = False


@dataclass
class Entry:
    """A picture as the files say it, before anything is checked.

    Attributes:
        path: of the picture.
        where: the file that speaks of it.
        boxes: in pixels, or in shares of the sides where `shares` is set.
        size: (height, width) that is said; none if nothing is said.
    """

    path: Path
    where: str
    boxes: list[Box]
    size: tuple[int, int] | None = None
    shares: bool = False


@dataclass
class Listing:
    """What a reader found: split (or `UNSPLIT`) -> entries; the classes in their order, if the files give one."""

    layout: str
    splits: dict[str, list[Entry]]
    classes: tuple[str, ...] | None = None
    problems: list[str] = field(default_factory=list)


def read_boxes(
    root: str | Path,
    *,
    classes: Sequence[str] | None = None,
    on_bad_box: str = "stop",
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
    seed: int = 0,
) -> BoxFolder:
    """Find pictures and boxes, and check all of them; of the pictures, only the headers are read.

    Args:
        root: a folder or file; see the module's text.
        classes: the class names of a model: labels become indices into them.
        on_bad_box: "stop" raises if anything is wrong; "skip" leaves bad boxes and pictures out, and lists them.
        val_fraction, test_fraction, seed: as `pictures.folders.read_dataset`.

    Raises:
        ArgumentError: a fraction or `on_bad_box` is not accepted.
        DataError: the root is missing or of no known layout; nothing is left of a split; or something is wrong and
            `on_bad_box` is "stop": a box without area, outside of its picture, of an unknown class, a size that is
            not the picture's, a picture that is missing or cannot be read. The first 10 are listed.
    """
    if on_bad_box not in ON_BAD_BOX:
        raise ArgumentError(f"on-bad-box is stop or skip, not {on_bad_box!r}")
    fractions = {"val": val_fraction, "test": test_fraction}
    check_fractions(fractions)
    place = Path(root)
    listing = find_boxes(place)
    problems = list(listing.problems)
    names, unused = _class_names(listing, classes)
    numbers = {name: number for number, name in enumerate(names)}
    splits = {
        split: [found for entry in entries if (found := _checked(entry, numbers, problems))]
        for split, entries in listing.splits.items()
    }
    if problems and on_bad_box == "stop":
        raise DataError(_listed(place, problems))
    complete = _complete(place, splits, fractions, seed)
    if not names:
        raise DataError(f"{place}: has no boxes")
    return BoxFolder(place, listing.layout, names, complete, unused, tuple(problems))


def find_boxes(root: Path) -> Listing:
    """What lies there, by the reader of its layout, unchecked; errors as `read_boxes`."""
    from mobilenet.pictures.boxes_coco import find_coco, read_coco
    from mobilenet.pictures.boxes_voc import is_voc, read_voc
    from mobilenet.pictures.boxes_yolo import find_yolo, read_yolo

    if not is_folder(root) and not is_file(root):
        raise DataError(f"{root}: there is no such folder or file")
    description = find_yolo(root)
    if description is not None:
        return read_yolo(description)
    if is_voc(root):
        return read_voc(root)
    if files := find_coco(root):
        return read_coco(root, files)
    raise DataError(
        f"{root}: is no data set of boxes: it has neither Annotations/*.xml (Pascal VOC), nor annotations/*.json "
        "(COCO), nor data.yaml (YOLO)"
    )


def _class_names(listing: Listing, given: Sequence[str] | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes, and those that are named without having a box."""
    if given is not None:
        return tuple(given), ()
    used = {box.name for entries in listing.splits.values() for entry in entries for box in entry.boxes}
    named = listing.classes if listing.classes is not None else tuple(sorted(used))
    return tuple(name for name in named if name in used), tuple(name for name in named if name not in used)


def _checked(entry: Entry, numbers: Mapping[str, int], problems: list[str]) -> BoxedPicture | None:
    """The picture with its good boxes; none if the picture itself is bad. What is wrong goes to `problems`."""
    try:
        height, width = upright_size(entry.path)
    except ImageError as error:
        problems.append(f"{entry.where}: {error}")
        return None
    if entry.size not in (None, (height, width)):
        problems.append(
            f"{entry.where}: says {_size(entry.size)}, but {entry.path.name} has {_size((height, width))}"
        )
        return None
    scale = (width, height, width, height) if entry.shares else (1, 1, 1, 1)
    kept: list[tuple[tuple[float, ...], int, bool]] = []
    for box in entry.boxes:
        corners = tuple(side * factor for side, factor in zip(box.corners, scale, strict=True))
        wrong = _why_bad(corners, width, height) or _why_unknown(box.name, numbers)
        if wrong:
            problems.append(f"{box.where}: {wrong}")
        else:
            kept.append((corners, numbers[box.name], box.ignored))
    boxes = np.array([corners for corners, _, _ in kept], np.float32).reshape(-1, 4)
    boxes = np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
    labels = np.array([number for _, number, _ in kept], np.int64)
    return BoxedPicture(entry.path, (height, width), boxes, labels, np.array([i for _, _, i in kept], bool))


def _size(size: tuple[int, int] | None) -> str:
    assert size is not None
    return f"{size[1]} × {size[0]} pixels"


def _why_bad(corners: tuple[float, ...], width: int, height: int) -> str:
    if not all(map(isfinite, corners)):
        return "the box has a side that is no number"
    left, top, right, bottom = corners
    shown = f"({left:g}, {top:g}, {right:g}, {bottom:g})"
    if right <= left or bottom <= top:
        return f"the box {shown} has no area"
    room = BORDER_TOLERANCE
    if min(left, top) < -room or right > width + room or bottom > height + room:
        return f"the box {shown} reaches out of the picture of {width} × {height} pixels"
    if min(right, width) <= max(left, 0) or min(bottom, height) <= max(top, 0):
        return f"the box {shown} has no area inside the picture of {width} × {height} pixels"
    return ""


def _why_unknown(name: str, numbers: Mapping[str, int]) -> str:
    if name in numbers:
        return ""
    known = ", ".join(list(numbers)[:LISTED]) + (" ..." if len(numbers) > LISTED else "")
    return f"unknown class {name!r}; known are {known}"


def _listed(root: Path, problems: Sequence[str]) -> str:
    lines = [f"  {problem}" for problem in problems[:LISTED]]
    if len(problems) > LISTED:
        lines.append(f"  and {len(problems) - LISTED} more")
    what = "1 thing is" if len(problems) == 1 else f"{len(problems)} things are"
    return f"{root}: {what} wrong; put it right, or leave it out (on-bad-box skip):\n" + "\n".join(lines)


def _complete(
    root: Path, splits: Mapping[str, list[BoxedPicture]], fractions: Mapping[str, float], seed: int
) -> dict[str, tuple[BoxedPicture, ...]]:
    """train, val and test in that order; what is missing is taken from what there is."""
    for split, pictures in splits.items():
        if not any(len(picture.labels) for picture in pictures):
            raise DataError(f"{root}: {split or 'the data set'} has no picture with a good box")
    found = {split: tuple(pictures) for split, pictures in splits.items()}
    if UNSPLIT in found:
        found = _split(root, found[UNSPLIT], fractions, seed)
    elif "train" in found and "val" not in found:
        found |= _split(root, found["train"], {"val": fractions["val"]}, seed)
    return {split: found[split] for split in ("train", "val", "test") if split in found}


def _split(
    root: Path, pictures: Sequence[BoxedPicture], fractions: Mapping[str, float], seed: int
) -> dict[str, tuple[BoxedPicture, ...]]:
    by_path = {picture.path: picture for picture in pictures}
    base = root if is_folder(root) else root.parent
    named = [NamedPicture(path, "pictures", _key(path, base)) for path in by_path]
    parts = split_pictures(named, fractions, seed)
    return {split: tuple(by_path[item.path] for item in items) for split, items in parts.items()}


def _key(path: Path, base: Path) -> str:
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else path.name


def without_ignored(pictures: Iterable[BoxedPicture]) -> list[BoxedPicture]:
    """The pictures without crowds and difficult objects, as training wants them."""
    return [
        replace(
            picture,
            boxes=picture.boxes[~picture.ignored],
            labels=picture.labels[~picture.ignored],
            ignored=picture.ignored[~picture.ignored],
        )
        for picture in pictures
    ]

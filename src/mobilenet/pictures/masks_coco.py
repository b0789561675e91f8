"""Masks of COCO's JSON files: polygons and run lengths, drawn into class maps.

Class 0 is "background", 1 and on are the categories in the order of their ids. Of an annotation's polygons all
pixels count whose centre lies in any of them; where annotations overlap the smaller one wins; a crowd's pixels
have no class.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mobilenet.errors import DataError
from mobilenet.pictures.mask_file import ClassList
from mobilenet.pictures.mask_set import Bad, MaskFolder, MaskSample
from mobilenet.pictures.palette import IGNORED, ClassMap
from mobilenet.pictures.run_lengths import from_coco
from mobilenet.pictures.walk import is_file

MAX_BYTES = 2**30
MAX_COORDINATE = 2.0**20
BACKGROUND = "background"

Polygon = tuple[float, ...]  # x, y, x, y, ... in pixels; pixel (0, 0) reaches from 0 to 1


@dataclass(frozen=True)
class Region:
    """One annotation: its class, and polygons, or COCO's run lengths."""

    number: int
    polygons: tuple[Polygon, ...] = ()
    runs: Mapping[str, Any] | None = None
    where: str = ""


@dataclass(frozen=True)
class Regions:
    """A mask that is drawn from annotations."""

    path: Path
    size: tuple[int, int]
    regions: tuple[Region, ...]

    def __call__(self, size: tuple[int, int]) -> ClassMap:
        """See `mask_set.MaskSource`; raises `DataError` if the file says another size, or runs do not fit."""
        if size != self.size:
            raise DataError(
                f"{self.path}: has {size[1]} x {size[0]} pixels, but the annotations say "
                f"{self.size[1]} x {self.size[0]}"
            )
        drawn = [(region.number, region_mask(region, size)) for region in self.regions]
        classes = np.zeros(size, np.uint8)
        for number, mask in sorted(drawn, key=lambda item: -int(item[1].sum())):
            classes[mask] = number
        return classes


def region_mask(region: Region, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels of an annotation, bool [H, W]."""
    if region.runs is not None:
        mask = from_coco(region.runs, region.where)
        if mask.shape != size:
            raise DataError(
                f"{region.where}: its mask has {mask.shape[1]} x {mask.shape[0]} pixels, its picture not"
            )
        return mask
    canvas = Image.new("1", (size[1], size[0]))
    pen = ImageDraw.Draw(canvas)
    for polygon in region.polygons:  # Pillow's coordinates are those of pixel centres
        pen.polygon([value - 0.5 for value in polygon], fill=1)
    return np.array(canvas)


def read_coco_masks(path: Path, classes: Sequence[str] | None = None) -> MaskFolder:
    """The data set of a file, not split yet. Pictures lie beside it, or in `images/` there or one folder up.

    Args:
        path: a JSON file with images, annotations and categories.
        classes: names, "background" included, that the categories must be among; their order counts.

    Raises:
        DataError: it is damaged or of another form, or says what cannot be (the entry is named).
    """
    content = _read(path)
    names, numbers = _classes(path, content["categories"], classes)
    regions: dict[int, list[Region]] = {}
    for place, entry in enumerate(content["annotations"]):
        where = f"{path}: annotation {place}"
        image, region = _region(entry, numbers, where)
        regions.setdefault(image, []).append(region)
    samples: list[MaskSample] = []
    skipped: list[Bad] = []
    seen: set[int] = set()
    for place, entry in enumerate(content["images"]):
        number, file, size = _image(entry, f"{path}: image {place}")
        if number in seen:
            raise DataError(f"{path}: image {place}: the id {number} is there twice")
        seen.add(number)
        picture = _find(path.parent, file)
        if picture is None:
            skipped.append((path.parent / file, "no such file"))
        else:
            samples.append(MaskSample(picture, Regions(picture, size, tuple(regions.pop(number, ())))))
    strange = regions.keys() - seen
    if strange:
        raise DataError(f"{path}: annotations are of the image {min(strange)}, which is not there")
    return MaskFolder(path, names, {"": tuple(samples)}, tuple(skipped))


def _read(path: Path) -> dict[str, list[Any]]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: is larger than {MAX_BYTES} bytes")
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {error}") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"{path}: is not of COCO's form: it has no list '{key}'")
    return {key: content[key] for key in ("images", "annotations", "categories")}


def _classes(
    path: Path, categories: list[Any], wanted: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[int, int]]:
    """Names of all classes, and the class of each category's id."""
    named: dict[int, str] = {}
    for place, entry in enumerate(categories):
        number, name = (entry.get("id"), entry.get("name")) if isinstance(entry, dict) else (None, None)
        if type(number) is not int or not isinstance(name, str) or not name or number in named:
            raise DataError(f"{path}: category {place} needs an id of its own and a name")
        named[number] = name
    ordered = [named[number] for number in sorted(named)]
    own = tuple(ordered) if BACKGROUND in ordered else (BACKGROUND, *ordered)
    names = ClassList(tuple(wanted) if wanted else own).names
    for name in ordered:
        if name not in names:
            raise DataError(f"{path}: category {name!r} is none of the classes {', '.join(names)}")
    return names, {number: names.index(name) for number, name in named.items()}


def _image(entry: Any, where: str) -> tuple[int, str, tuple[int, int]]:
    values = entry if isinstance(entry, dict) else {}
    number, file = values.get("id"), values.get("file_name")
    size = (values.get("height"), values.get("width"))
    if type(number) is not int or not isinstance(file, str) or not file:
        raise DataError(f"{where}: needs an id and a file_name")
    height, width = size
    if type(height) is not int or type(width) is not int or min(height, width) < 1:
        raise DataError(f"{where}: height and width are {size}, not numbers of pixels")
    return number, file, (height, width)


def _find(folder: Path, file: str) -> Path | None:
    """The picture; a name that leads out of these folders is none."""
    if Path(file).is_absolute() or ".." in Path(file).parts:
        return None
    places = (folder / file, folder / "images" / file, folder.parent / "images" / file)
    return next((place for place in places if is_file(place)), None)


def _region(entry: Any, numbers: Mapping[int, int], where: str) -> tuple[int, Region]:
    values = entry if isinstance(entry, dict) else {}
    image, category, shape = values.get("image_id"), values.get("category_id"), values.get("segmentation")
    if type(image) is not int:
        raise DataError(f"{where}: needs an image_id")
    if type(category) is not int or category not in numbers:
        raise DataError(f"{where}: the category {category!r} is not among the categories")
    number = IGNORED if values.get("iscrowd") else numbers[category]
    if isinstance(shape, dict):
        return image, Region(number, runs=shape, where=where)
    if not isinstance(shape, list) or not shape:
        raise DataError(f"{where}: has no segmentation; boxes alone are no masks")
    return image, Region(number, tuple(_polygon(points, where) for points in shape), where=where)


def _polygon(points: Any, where: str) -> Polygon:
    numbers = isinstance(points, list) and all(
        isinstance(v, int | float) and not isinstance(v, bool) and isfinite(v) and abs(v) <= MAX_COORDINATE
        for v in points
    )
    if not numbers or len(points) < 6 or len(points) % 2:
        raise DataError(f"{where}: a polygon is a list of x, y, x, y, ... in pixels, at least three points")
    return tuple(map(float, points))

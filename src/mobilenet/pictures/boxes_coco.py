"""COCO: one .json file a split, with pictures, categories and boxes (left, top, width, height in pixels)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mobilenet.errors import DataError
from mobilenet.pictures.boxes import Box, Entry, Listing
from mobilenet.pictures.picture_list import SPLIT_NAMES, UNSPLIT
from mobilenet.pictures.walk import is_file, is_folder, list_folder

MAX_BYTES = 2**30
LISTS = ("images", "annotations", "categories")
# Kinds of COCO files without boxes of objects, which lie beside those that have them.
OTHERS = ("captions", "person_keypoints", "image_info", "panoptic", "stuff")


def find_coco(root: Path) -> list[Path]:
    """The .json files of a data set; none if there are none."""
    if is_file(root):
        return [root] if root.suffix.lower() == ".json" else []
    inner = [path for path in list_folder(root) if is_folder(path) and path.name.lower() in SPLIT_NAMES]
    for folders in ([root / "annotations"], [root], inner):
        found = [path for folder in folders if is_folder(folder) for path in list_folder(folder)]
        files = [path for path in found if path.suffix.lower() == ".json" and not path.name.startswith(OTHERS)]
        if files:
            return files
    return []


def read_coco(root: Path, files: list[Path]) -> Listing:
    """All files; each is a split by its name or its folder's.

    Raises:
        DataError: a file is no COCO file, two are of one split, or their categories differ.
    """
    listing = Listing("coco", {})
    sources: dict[str, Path] = {}
    for file in files:
        split = _split_of(file, alone=len(files) == 1)
        if split in sources:
            raise DataError(
                f"{file}: is of the split '{split or 'all'}', as {sources[split]} is; keep one of them"
            )
        sources[split] = file
        content = _content(file)
        names = _categories(file, content["categories"])
        classes = tuple(names[number] for number in sorted(names))
        if listing.classes not in (None, classes):
            raise DataError(f"{file}: its categories are not those of {files[0]}; make them the same")
        listing.classes = classes
        listing.splits[split] = list(_entries(root, file, content, names, listing.problems))
    return listing


def _split_of(file: Path, alone: bool) -> str:
    """train2017, instances_val.json, valid/_annotations.coco.json: a word of the file's name, or its folder's."""
    for text in (file.stem, file.parent.name):
        words = [word for word in re.split(r"[^a-z]+", text.lower()) if word in SPLIT_NAMES]
        if words:
            return SPLIT_NAMES[words[-1]]
    if alone:
        return UNSPLIT
    raise DataError(f"{file}: neither its name nor its folder's says train, val or test")


def _content(file: Path) -> dict[str, list[Any]]:
    try:
        if file.stat().st_size > MAX_BYTES:
            raise DataError(f"{file}: is larger than {MAX_BYTES:,} bytes")
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: is not JSON: {error}") from error
    for name in LISTS:
        values = content.get(name) if isinstance(content, dict) else None
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise DataError(f"{file}: is no COCO file: it has no list '{name}' of objects")
    return {name: content[name] for name in LISTS}


def _categories(file: Path, values: list[Any]) -> dict[int, str]:
    names: dict[int, str] = {}
    for place, value in enumerate(values):
        number, name = value.get("id"), value.get("name")
        if type(number) is not int or not isinstance(name, str) or number in names or name in names.values():
            raise DataError(
                f"{file}, categories[{place}]: id {number!r} and name {name!r} must be new, of their kind"
            )
        names[number] = name
    return names


def _entries(
    root: Path, file: Path, content: dict[str, list[Any]], names: dict[int, str], problems: list[str]
) -> Iterator[Entry]:
    folders = _picture_folders(root, file)
    entries: dict[Any, Entry] = {}
    for place, value in enumerate(content["images"]):
        where = f"{file}, images[{place}]"
        number, name, size = value.get("id"), value.get("file_name"), (value.get("height"), value.get("width"))
        if not isinstance(number, int | str) or number in entries or not isinstance(name, str):
            problems.append(f"{where}: id {number!r} and file_name {name!r} must be new, of their kind")
            continue
        path = next((folder / name for folder in folders if is_file(folder / name)), folders[0] / name)
        known = (size[0], size[1]) if type(size[0]) is int and type(size[1]) is int else None
        entries[number] = Entry(path, where, [], known)
    for place, value in enumerate(content["annotations"]):
        where = f"{file}, annotations[{place}] (id {value.get('id')!r:.20})"
        picture, box = value.get("image_id"), _box(where, value, names)
        entry = entries.get(picture) if isinstance(picture, int | str) else None
        if entry is None or isinstance(box, str):
            problems.append(f"{where}: {box if isinstance(box, str) else f'there is no image {picture!r:.20}'}")
        else:
            entry.boxes.append(box)
    yield from entries.values()


def _picture_folders(root: Path, file: Path) -> list[Path]:
    """Where pictures are looked for: beside the file, and where COCO and its imitators have them."""
    base = root if is_folder(root) else file.parent
    outer = file.parent.parent if file.parent.name == "annotations" else base
    year = re.search(r"(train|val|test)\d*", file.stem)
    inner = [year[0]] if year else []
    names = [*inner, "images", *(f"images/{name}" for name in inner), "."]
    return [folder / name for folder in (file.parent, outer) for name in names]


def _box(where: str, value: dict[str, Any], names: dict[int, str]) -> Box | str:
    """The box, or why there is none."""
    sides = value.get("bbox")
    numbers = isinstance(sides, list) and len(sides) == 4
    if not numbers or any(isinstance(n, bool) or not isinstance(n, int | float) for n in sides or []):
        return f"bbox is {sides!r:.60}, not 4 numbers: left, top, width, height"
    category = value.get("category_id")
    if not isinstance(category, int) or category not in names:
        return f"there is no category {category!r:.20}"
    left, top, width, height = map(float, sides or [])
    crowd = value.get("iscrowd", 0) == 1
    return Box(where, names[category], (left, top, left + width, top + height), crowd)

"""YOLO folders: data.yaml names classes and splits; each picture has a .txt file with a line for each box."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mobilenet.errors import DataError, MissingExtraError
from mobilenet.pictures.boxes import Box, Entry, Listing
from mobilenet.pictures.walk import is_file, is_folder, is_picture_name, list_folder, walk_files

SUFFIXES = (".yaml", ".yml")
SPLITS = {"train": "train", "val": "val", "valid": "val", "test": "test"}
MAX_YAML, MAX_LABELS = 2**20, 2**24
SLACK = 1e-4  # by which rounded shares may leave 0 to 1


def find_yolo(root: Path) -> Path | None:
    """The description of a data set: the file itself, data.yaml in a folder, or the one .yaml file there."""
    if is_file(root):
        return root if root.suffix.lower() in SUFFIXES else None
    for name in ("data.yaml", "data.yml", "dataset.yaml"):
        if is_file(root / name):
            return root / name
    found = [path for path in list_folder(root) if path.suffix.lower() in SUFFIXES and is_file(path)]
    return found[0] if len(found) == 1 and (is_folder(root / "images") or is_folder(root / "train")) else None


def read_yolo(file: Path) -> Listing:
    """All splits that the description names.

    Raises:
        DataError: it cannot be read, names no classes, or a folder that does not exist.
        MissingExtraError: PyYAML is not installed.
    """
    said = _parsed(file)
    names = _names(file, said)
    listing = Listing("yolo", {}, names)
    base = file.parent / str(said.get("path") or ".")
    if not is_folder(base):  # where somebody else had it
        base = file.parent
    for key, split in SPLITS.items():
        places = said.get(key)
        if places is None or split in listing.splits:
            continue
        listed = places if isinstance(places, list) else [places]
        pictures = [path for place in listed for path in _pictures(file, base, key, place)]
        listing.splits[split] = [_entry(path, names, listing.problems) for path in pictures]
    if not listing.splits:
        raise DataError(f"{file}: names no train, val or test")
    return listing


def _parsed(file: Path) -> dict[str, Any]:
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"reading {file.name} (PyYAML)", "train") from error

    class Loader(yaml.SafeLoader):
        """Plain values only. Aliases are refused: a few lines of them stand for gigabytes."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
                raise yaml.MarkedYAMLError(problem="has an alias", problem_mark=mark)
            return super().compose_node(parent, index)

    try:
        if file.stat().st_size > MAX_YAML:
            raise DataError(f"{file}: is larger than {MAX_YAML:,} bytes")
        content = yaml.load(file.read_text("utf-8-sig"), Loader)
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise DataError(f"{file}, line {line}: is not YAML that is read: {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: is not YAML that is read: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{file}: is no data set's description: it has no keys train, val and names")
    return content


def _names(file: Path, said: dict[str, Any]) -> tuple[str, ...]:
    names = said.get("names")
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise DataError(f"{file}: 'names' does not number its {len(names)} classes from 0")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names or len({str(name) for name in names}) != len(names):
        raise DataError(f"{file}: 'names' is no list of different classes")
    count = said.get("nc", len(names))
    if count != len(names):
        raise DataError(f"{file}: 'nc' is {count!r}, but 'names' has {len(names)} classes")
    return tuple(map(str, names))


def _pictures(file: Path, base: Path, key: str, place: object) -> Iterator[Path]:
    """The pictures of a folder, or those that a .txt file lists."""
    if not isinstance(place, str):
        raise DataError(f"{file}: '{key}' is {place!r:.60}, not a folder or a list of folders")
    tried = [base / place, file.parent / place.removeprefix("../")]
    found = next((path for path in tried if is_folder(path) or is_file(path)), None)
    if found is None:
        raise DataError(f"{file}: '{key}' names {place!r}, but there is no {tried[0]}")
    if is_folder(found):
        yield from (path for path in walk_files(found) if is_picture_name(path))
        return
    for line in found.read_text("utf-8-sig").splitlines():
        if line.strip():
            yield found.parent / line.strip()


def _entry(picture: Path, names: tuple[str, ...], problems: list[str]) -> Entry:
    """A picture without a file of labels, or with an empty one, has no objects."""
    file = _labels_of(picture)
    boxes: list[Box] = []
    if is_file(file):
        for number, line in enumerate(_lines(file), 1):
            where = f"{file}, line {number}"
            found = _box(where, line.split(), names) if line.strip() else None
            if isinstance(found, str):
                problems.append(f"{where}: {found}")
            elif found is not None:
                boxes.append(found)
    return Entry(picture, str(file), boxes, shares=True)


def _labels_of(picture: Path) -> Path:
    """`.../images/a/b.jpg` has `.../labels/a/b.txt`; without a folder `images`, it is beside the picture."""
    parts = list(picture.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _lines(file: Path) -> list[str]:
    try:
        if file.stat().st_size > MAX_LABELS:
            raise DataError(f"{file}: is larger than {MAX_LABELS:,} bytes")
        return file.read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is not UTF-8 text") from error


def _box(where: str, cells: list[str], names: tuple[str, ...]) -> Box | str:
    """class cx cy w h, or class x y x y ... (a polygon, of which the box around it is taken); or what is wrong."""
    if len(cells) != 5 and (len(cells) < 7 or len(cells) % 2 == 0):
        return f"has {len(cells)} values; a box is class, centre x, centre y, width, height"
    try:
        number, values = int(cells[0]), [float(cell) for cell in cells[1:]]
    except ValueError:
        return "has a value that is no number"
    if not 0 <= number < len(names):
        return f"unknown class {number}; there are {len(names)}, 0 to {len(names) - 1}"
    if not all(-SLACK <= value <= 1 + SLACK for value in values):
        return "has a value outside 0 to 1: these are shares of the picture's sides"
    if len(values) > 4:
        across, down = values[::2], values[1::2]
        return Box(where, names[number], (min(across), min(down), max(across), max(down)))
    x, y, width, height = values
    return Box(where, names[number], (x - width / 2, y - height / 2, x + width / 2, y + height / 2))

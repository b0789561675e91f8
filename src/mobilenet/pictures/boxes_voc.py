"""Pascal VOC: one .xml file a picture, read by expat with everything refused that an annotation does not need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

from mobilenet.errors import DataError
from mobilenet.pictures.boxes import Box, Entry, Listing
from mobilenet.pictures.picture_list import SPLIT_NAMES, UNSPLIT
from mobilenet.pictures.walk import PICTURE_SUFFIXES, is_file, is_folder, list_folder

ANNOTATIONS, PICTURES, LISTS = "Annotations", ("JPEGImages", "images"), ("ImageSets", "Main")
MAX_BYTES, MAX_DEPTH = 2**24, 16
CORNERS = ("xmin", "ymin", "xmax", "ymax")


class _Bad(Exception):  # noqa: N818 - becomes a line of what is wrong
    """Why a file cannot be used, with its line."""


@dataclass
class Element:
    """One element: its text, the line that it begins in, and what is in it."""

    name: str
    line: int
    text: str = ""
    inside: list[Element] = field(default_factory=list)

    def first(self, name: str) -> Element | None:
        """The first element of this name in it."""
        return next((element for element in self.inside if element.name == name), None)

    def said(self, name: str) -> str:
        """The text of that, without space around it; empty if there is none."""
        found = self.first(name)
        return "" if found is None else found.text.strip()


def is_voc(root: Path) -> bool:
    """Whether a folder holds Pascal VOC annotations."""
    return is_folder(root) and bool(_folders(root))


def read_voc(root: Path) -> Listing:
    """All annotations; corners are taken as they are written, as the tools that write them mean them.

    Raises:
        DataError: a list of a split cannot be read, or names an annotation that does not exist.
    """
    listing = Listing("voc", {})
    for split, folder in _folders(root):
        if folder.name == ANNOTATIONS and (lists := _lists(root)):
            for name, path in lists.items():
                listing.splits[name] = [_entry(file, root, listing.problems) for file in _named(path, folder)]
        else:
            files = [path for path in list_folder(folder) if path.suffix.lower() == ".xml"]
            listing.splits.setdefault(split, []).extend(_entry(file, root, listing.problems) for file in files)
    for split, entries in listing.splits.items():
        listing.splits[split] = [entry for entry in entries if entry.where]
    return listing


def _folders(root: Path) -> list[tuple[str, Path]]:
    """(split, folder of .xml files)."""
    if _has_xml(root / ANNOTATIONS):
        return [(UNSPLIT, root / ANNOTATIONS)]
    if _has_xml(root):
        return [(UNSPLIT, root)]
    named = [path for path in list_folder(root) if is_folder(path) and path.name.lower() in SPLIT_NAMES]
    return [(SPLIT_NAMES[path.name.lower()], path) for path in named if _has_xml(path)]


def _has_xml(folder: Path) -> bool:
    return is_folder(folder) and any(path.suffix.lower() == ".xml" for path in list_folder(folder))


def _lists(root: Path) -> dict[str, Path]:
    """Split -> its list; `trainval` counts where there is no `train`."""
    folder = root.joinpath(*LISTS)
    found = {
        split: folder / f"{name}.txt" for name, split in SPLIT_NAMES.items() if is_file(folder / f"{name}.txt")
    }
    if "train" not in found and is_file(folder / "trainval.txt"):
        found["train"] = folder / "trainval.txt"
        found.pop("val", None)  # which it contains
    return found


def _named(path: Path, folder: Path) -> Iterator[Path]:
    """The annotations that a list names, one a line; a second column (1, 0, -1) is of a list of one class."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        name = line.split()[0] if line.split() else ""
        if not name:
            continue
        if name in seen:
            raise DataError(f"{path}, line {number}: {name!r} is in line {seen[name]} already")
        seen[name] = number
        file = folder / f"{name}.xml"
        if not is_file(file):
            raise DataError(f"{path}, line {number}: there is no annotation {str(file)!r}")
        yield file


def _entry(file: Path, root: Path, problems: list[str]) -> Entry:
    """What one file says. A file that cannot be used is a problem, and an entry without a place."""
    try:
        tree = _parsed(file)
        picture = _picture(file, root, tree.said("filename"))
        boxes = [_box(file, element) for element in tree.inside if element.name == "object"]
        return Entry(picture, str(file), boxes, _size(file, tree))
    except _Bad as bad:
        problems.append(str(bad))
        return Entry(file, "", [])


def _picture(file: Path, root: Path, said: str) -> Path:
    """The picture: the name that the file says, or its own, in the folder of pictures or beside it."""
    folders = [root / name for name in PICTURES] + [file.parent]
    said = said.replace("\\", "/").rpartition("/")[2]  # of a path on somebody else's machine only the name counts
    for folder in folders:
        if said and is_file(folder / said):
            return folder / said
    for folder in folders:
        for suffix in sorted(PICTURE_SUFFIXES):
            for name in (f"{file.stem}{suffix}", f"{file.stem}{suffix.upper()}"):
                if is_file(folder / name):
                    return folder / name
    raise _Bad(f"{file}: there is no picture {said or file.stem!r} in {', '.join(str(f) for f in folders)}")


def _size(file: Path, tree: Element) -> tuple[int, int] | None:
    size = tree.first("size")
    if size is None:
        return None
    sides = [_number(file, size, name) for name in ("height", "width")]
    return None if 0 in sides else (int(sides[0]), int(sides[1]))  # some tools write zeros


def _box(file: Path, element: Element) -> Box:
    where = f"{file}, line {element.line}"
    name, corners = element.said("name"), element.first("bndbox")
    if not name or corners is None:
        raise _Bad(f"{where}: the object has no {'bndbox' if name else 'name'}")
    left, top, right, bottom = (_number(file, corners, side) for side in CORNERS)
    line = f"{file}, line {corners.line}"
    return Box(line, name, (left, top, right, bottom), element.said("difficult") == "1")


def _number(file: Path, element: Element, name: str) -> float:
    text = element.said(name)
    try:
        return float(text)
    except ValueError:
        found = element.first(name)
        line = element.line if found is None else found.line
        raise _Bad(f"{file}, line {line}: <{name}> is {text!r:.40}, not a number") from None


def _parsed(file: Path) -> Element:
    """The elements of a file. Document types, and with them entities of any kind, are refused: no annotation has
    them, and they are how a small file becomes gigabytes or asks for other files.
    """
    try:
        data = file.read_bytes() if file.stat().st_size <= MAX_BYTES else None
    except OSError as error:
        raise _Bad(f"{file}: cannot be read: {error.strerror or error}") from error
    if data is None:
        raise _Bad(f"{file}: is larger than {MAX_BYTES:,} bytes")
    parser = expat.ParserCreate()
    top = Element("", 0)
    stack = [top]

    def start(name: str, _: Any) -> None:
        if len(stack) > MAX_DEPTH:
            raise _Bad(f"{file}, line {parser.CurrentLineNumber}: is nested more than {MAX_DEPTH} deep")
        element = Element(name, parser.CurrentLineNumber)
        stack[-1].inside.append(element)
        stack.append(element)

    def text(piece: str) -> None:
        stack[-1].text += piece

    def refuse(*_: Any) -> Any:
        raise _Bad(f"{file}, line {parser.CurrentLineNumber}: has a document type or an entity, which is not read")

    parser.StartElementHandler, parser.CharacterDataHandler = start, text
    parser.EndElementHandler = lambda _: stack.pop() and None
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = parser.ExternalEntityRefHandler = refuse
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise _Bad(f"{file}, line {error.lineno}: is not XML: {expat.ErrorString(error.code)}") from error
    return top.inside[0]

"""Reading a CSV file that lists pictures: `path,label` or `path,label,split`, with or without that header."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from mobilenet.errors import DataError
from mobilenet.pictures.split import NamedPicture
from mobilenet.pictures.walk import is_file

UNSPLIT = ""
"""The key of pictures that no one has put into a split yet."""

SPLIT_NAMES = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}
"""What a split may be called in a folder or a list -> what it is called here."""

_HEADER = ["path", "label", "split"]


def read_picture_list(path: Path) -> dict[str, list[NamedPicture]]:
    """Read a list of pictures: UTF-8, separated by commas, quoted as in RFC 4180; relative to its own folder.

    Returns:
        split -> pictures, in the order of the file; the only key is `UNSPLIT` if there is no column `split`.

    Raises:
        DataError: the file cannot be read, or a row is not valid, names a file that does not exist, or one that
            another row names; the message gives file and line.
    """
    splits: dict[str, list[NamedPicture]] = {}
    first_lines: dict[Path, int] = {}
    columns = 0
    for line, row in _rows(path):
        where = f"{path}, line {line}"
        columns = columns or len(row)
        split, picture = _read_row(where, row, columns, path.parent)
        if picture.path in first_lines:
            raise DataError(f"{where}: {row[0]!r} is listed in line {first_lines[picture.path]} already")
        first_lines[picture.path] = line
        splits.setdefault(split, []).append(picture)
    if not splits:
        raise DataError(f"{path}: lists no pictures; a row is path,label or path,label,split")
    return splits


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the stripped cells of every row that is neither empty nor the header."""
    line = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                cells = [cell.strip() for cell in row]
                is_header = line == 0 and [cell.lower() for cell in cells] == _HEADER[: len(cells)]
                line = reader.line_num
                if any(cells) and not is_header:
                    yield line, cells
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, after line {line}: is not UTF-8 text; save it as UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{path}, line {line + 1}: is not CSV: {error}") from error


def _read_row(where: str, row: list[str], columns: int, folder: Path) -> tuple[str, NamedPicture]:
    if len(row) not in (2, 3) or len(row) != columns:
        expected = _HEADER[:columns] if columns in (2, 3) else _HEADER[:2]
        raise DataError(f"{where}: has {len(row)} cells, expected {','.join(expected)} separated by commas")
    name, label = row[0], unicodedata.normalize("NFC", row[1])
    if not name or not label:
        raise DataError(f"{where}: the {'path' if not name else 'label'} is empty")
    if columns == 3 and row[2].lower() not in SPLIT_NAMES:
        raise DataError(f"{where}: the split {row[2]!r} is not one of {', '.join(SPLIT_NAMES)}")
    split = SPLIT_NAMES[row[2].lower()] if columns == 3 else UNSPLIT
    path = folder / name
    if not is_file(path):
        raise DataError(f"{where}: there is no file {str(path)!r} (a header is written {','.join(_HEADER[:2])})")
    return split, NamedPicture(path, label, unicodedata.normalize("NFC", name))

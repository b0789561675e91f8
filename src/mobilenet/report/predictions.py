"""How `mobilenet predict` writes answers about places in a picture, and pictures of any answer."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, TextIO

from mobilenet.errors import ArgumentError

Write = Callable[[Any, float], None]


def placed_writer(stream: TextIO, *, as_json: bool, as_csv: bool) -> Write:
    """A function of a result of a detector or segmenter, and of the least confidence: writes its lines.

    Args:
        stream: where to.
        as_json: one JSON object a line; a segment's mask is in it, in COCO's run lengths.
        as_csv: rows, after a header.
    """
    rows: list[Any] = []

    def write(result: Any, least: float) -> None:
        if least > 0 and hasattr(result, "at_least"):
            result = result.at_least(least)
        if as_json:
            values = result.to_dict(runs=True) if hasattr(result, "masks") else result.to_dict()
            stream.write(json.dumps(values, ensure_ascii=False) + "\n")
        elif as_csv:
            if not hasattr(result, "csv_rows"):
                raise ArgumentError("answers of this kind have no --csv; there is --json")
            if not rows:
                rows.append(csv.writer(stream))
                rows[0].writerow(result.csv_header)
            rows[0].writerows(result.csv_rows())
        else:
            stream.write(f"{result}\n")

    return write


def picture_saver(folder: str) -> Callable[[Any], None]:
    """A function of a result: writes its picture to the folder, NAME.png, and a segmenter's mask, NAME-mask.png.

    The folder is made where it is missing. A name that another picture has taken gets a number: NAME-2.png.

    Raises:
        ArgumentError: there is a file of that name.
    """
    target = Path(folder)
    if target.exists() and not target.is_dir():
        raise ArgumentError(f"{folder}: is a file, not a folder to save pictures in")
    target.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()

    def save(result: Any) -> None:
        endings = (".png", "-mask.png") if hasattr(result, "masks") else (".png",)
        stem = Path(result.path).stem
        names = (stem if number == 1 else f"{stem}-{number}" for number in count(1))
        name = next(name for name in names if taken.isdisjoint(name + ending for ending in endings))
        taken.update(name + ending for ending in endings)
        result.plot().save(target / f"{name}.png")
        if len(endings) > 1:
            result.save(target / f"{name}-mask.png")

    return save

"""The official weights that can be fetched: one row a file, in published.csv beside this module.

Facts as their publishers state them: address, checksum (of torch hub's files the first digits of the SHA-256,
which are in the file's name; of Keras's V3 the MD5; of the others none is published), licence of the publishing
project, top-1 on ImageNet's validation pictures, and how pictures are prepared. TF-slim's checkpoints are archives
of a kind that is not read, so they have no rows; Keras and timm publish most of them converted.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from mobilenet.errors import ArgumentError

TABLE = Path(__file__).with_name("published.csv")
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
# Mean and deviation of the pixel values 0 to 255.
PIXELS = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "centred": ((127.5,) * 3, (127.5,) * 3),
    "unit": ((0.0,) * 3, (255.0,) * 3),
}


@dataclass(frozen=True)
class Published:
    """Weights that somebody published.

    Attributes:
        name: "<source>/<what they are>".
        url: address of the file.
        checksum: "sha256:<first digits>", "md5:<digits>", or empty where none is published.
        licence: SPDX expression of the project that publishes them; empty if unknown.
        top1: per cent on ImageNet's validation pictures, as published; none for other classes.
        network: what it is: a name that `family.names.resolve` knows.
        width_multiplier: none where the network's name says it.
        resolution: side of the picture in pixels.
        classes: outputs.
        crop_fraction, interpolation: see `Preprocessing`.
        pixels: a key of `PIXELS`.
    """

    name: str
    url: str
    checksum: str
    licence: str
    top1: float | None
    network: str
    width_multiplier: float | None
    resolution: int
    classes: int
    crop_fraction: float
    interpolation: str
    pixels: str

    @property
    def source(self) -> str:
        """Who published them."""
        return self.name.partition("/")[0]

    @property
    def file_name(self) -> str:
        """Under which the file is kept, unlike that of any other row: the name, and the ending of the address."""
        return self.name.replace("/", "--") + Path(urlsplit(self.url).path).suffix


@cache
def published() -> dict[str, Published]:
    """All rows by name, in the table's order."""
    with TABLE.open(encoding="utf-8", newline="") as stream:
        rows = [_row(**values) for values in csv.DictReader(stream)]
    return {row.name: row for row in rows}


def _row(
    *, top1: str, width: str, resolution: str, classes: str, crop: str, pixels: str, **texts: str
) -> Published:
    if pixels not in PIXELS:
        raise ValueError(f"{texts['name']}: pixels are one of {', '.join(PIXELS)}, not {pixels!r}")
    return Published(
        **texts,
        top1=float(top1) if top1 else None,
        width_multiplier=float(width) if width else None,
        resolution=int(resolution),
        classes=int(classes),
        crop_fraction=float(crop),
        pixels=pixels,
    )


def find_published(name: str) -> Published | None:
    """The row of this name; without its source if that leaves one: "mobilenetv2_100.ra_in1k"."""
    rows = published()
    if name in rows:
        return rows[name]
    endings = [row for row in rows.values() if row.name.partition("/")[2] == name]
    return endings[0] if len(endings) == 1 else None


def known(name: str) -> Published:
    """As `find_published`; raises `ArgumentError` with the nearest names if there is none."""
    row = find_published(name)
    if row is not None:
        return row
    raise ArgumentError(f"no published weights are called {name!r}; {nearest(name)}")


def nearest(name: str) -> str:
    """What may have been meant, for a message."""
    rows = published()
    containing = [row for row in rows if name and name.lower() in row]
    close = containing or get_close_matches(name, rows, 3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close[:3])}? " if close else ""
    return f"{hint}`mobilenet list --pretrained` names all"

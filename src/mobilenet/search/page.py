"""What a search found, as one HTML page that needs nothing else, or as one picture."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mobilenet.errors import ImageError
from mobilenet.files.atomic import write_atomically
from mobilenet.pictures.decode import decode
from mobilenet.report.page import picture, thumbnail_jpeg

if TYPE_CHECKING:
    from mobilenet.search.index import Match

_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; color: #1f2530; background: #fff; margin: 2rem auto; max-width: 72rem;
       padding: 0 1rem }
h1 { font-size: 1.2rem; font-weight: 600 }
.found { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1.2rem }
figure { margin: 0 }
img { width: 100%; height: 11rem; object-fit: contain; background: #f2f4f7; border-radius: 6px }
.query img { width: 11rem }
figcaption { overflow-wrap: anywhere; font-size: .85rem; color: #4a5361 }
figcaption b { color: #1f2530 }
.gone { height: 11rem; display: grid; place-items: center; background: #f2f4f7; color: #8a94a3 }
"""


def write_page(path: str, query: str, matches: Sequence[Match], index: str) -> None:
    """Writes a page with the picture that was looked for, and small copies of those that were found.

    One that has gone or changed beyond reading since it was indexed is shown as a grey field with its name.

    Raises:
        OSError: the page cannot be written.
    """
    found = "\n".join(_figure(match.path, match.name, f"<b>{match.similarity:.3f}</b> ") for match in matches)
    name = escape(Path(query).name)
    text = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Like {name}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>\n'
        f"<h1>{len(matches)} pictures of {escape(os.fspath(index))} that are most like this one</h1>\n"
        f'<div class="query">{_figure(query, Path(query).name, "")}</div>\n<hr>\n'
        f'<div class="found">\n{found}\n</div></body></html>\n'
    )
    write_atomically(path, text.encode("utf-8", "replace"))


def write_sheet(path: str, query: str, matches: Sequence[Match]) -> None:
    """Writes a PNG of the picture that was looked for and of those that were found; see `write_page`.

    Raises:
        ArgumentError: nothing was found.
        OSError: the picture cannot be written.
    """
    from mobilenet.report.neighbours import draw_neighbours

    shown = [(_readable(match.path), f"{match.similarity:.3f}  {match.name}") for match in matches]
    stream = io.BytesIO()
    draw_neighbours(decode(query), Path(query).name, shown).save(stream, "PNG", optimize=True)
    write_atomically(path, stream.getvalue())


def _readable(path: str) -> NDArray[np.uint8] | None:
    try:
        return decode(path)
    except ImageError:
        return None


def _figure(path: str, name: str, before: str) -> str:
    shown = escape(name, quote=True)
    image = _readable(path)
    gone = '<div class="gone">cannot be read any more</div>'
    small = gone if image is None else picture(thumbnail_jpeg(image), name)
    return f"<figure>{small}<figcaption>{before}{shown}</figcaption></figure>"

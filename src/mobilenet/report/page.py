"""What all reports share: one HTML file that needs nothing else, its parts, and writing it."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mobilenet.errors import ArgumentError
from mobilenet.files.atomic import write_atomically
from mobilenet.report.draw import fit_picture

UNKNOWN = "\N{EN DASH}"  # stands where there is nothing to measure a figure on


def page(title: str, parts: Iterable[str]) -> str:
    """The text of a self-contained page: `parts` are its sections in HTML, `title` is plain text.

    The content security policy allows no script but report.js.
    """
    style, script = asset("report.css"), asset("report.js")
    head = f"{content_policy(script)}<title>{escaped(title)}</title><style>{style}</style>"
    header = f"<header><h1>{escaped(title)}</h1></header>"
    footer = "<footer>Made by mobilenet. This file is complete: it loads nothing from elsewhere.</footer>"
    body = f"<main>{header}{''.join(parts)}{footer}</main><script>{script}</script>"
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def check_target(path: str | os.PathLike[str]) -> None:
    """To be asked before measuring, which may take hours: can a page be written there?

    Raises:
        ArgumentError: it is a folder, or its folder is missing or not writable; the message names the path.
    """
    target = Path(path)
    if target.is_dir():
        raise ArgumentError(f"{target}: is a folder; a report is written to a file")
    if not target.parent.is_dir():
        raise ArgumentError(f"{target}: cannot be written: there is no folder {target.parent}")
    if not os.access(target.parent, os.W_OK):
        raise ArgumentError(f"{target}: cannot be written: the folder {target.parent} is not writable")


def write_html(path: str | os.PathLike[str], text: str) -> None:
    """Writes a page, which is there whole or not at all; raises `OSError` as `write_atomically`."""
    write_atomically(path, text.encode("utf-8"))


def asset(name: str) -> str:
    """The text of a file that lies beside this one: report.css, report.js."""
    return resources.files("mobilenet.report").joinpath(name).read_text("utf-8")


def content_policy(script: str) -> str:
    """The first lines of a page's head: it may run this script, and load nothing from elsewhere."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rules = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    return (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{rules}">'
    )


def escaped(value: object) -> str:
    """Anything as text that a page shows as it is, also within quotes."""
    # a file name that is not UTF-8 has lone surrogates, which no UTF-8 file can hold
    whole = str(value).encode("utf-8", "backslashreplace").decode("utf-8")
    return html.escape(whole, quote=True)


def jpeg(image: Image.Image) -> bytes:
    """An RGB picture as JPEG bytes of the quality that reports use."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=82, optimize=True)
    return stream.getvalue()


def thumbnail_jpeg(image: NDArray[np.uint8], size: int = 160) -> bytes:
    """JPEG bytes of `image`, uint8 [H, W, 3], its longer side at most `size` pixels, aspect ratio kept.

    A smaller picture is enlarged by a whole factor. Raises `ArgumentError` for another shape or dtype.
    """
    return jpeg(fit_picture(image, size))


def picture(jpeg_bytes: bytes, alternative: str) -> str:
    """A JPEG within the page; `alternative` is plain text, for those who cannot see it."""
    data = base64.b64encode(jpeg_bytes).decode("ascii")
    return f'<img src="data:image/jpeg;base64,{data}" alt="{escaped(alternative)}">'


def tiles(values: Iterable[tuple[str, str]]) -> str:
    """The figures that come first: (name, value), plain texts."""
    cells = (
        f'<div class="tile{" first" if number == 0 else ""}"><b>{escaped(value)}</b>'
        f"<span>{escaped(name)}</span></div>"
        for number, (name, value) in enumerate(values)
    )
    return f'<div class="tiles">{"".join(cells)}</div>'


def words_section(sentences: Iterable[str]) -> str:
    """What the figures say; sentences of HTML, of which empty ones are left out."""
    items = "".join(f"<li>{sentence}</li>" for sentence in sentences if sentence)
    return f'<section><h2>In words</h2><ul class="words">{items}</ul></section>'


def facts_section(heading: str, facts: Mapping[str, str]) -> str:
    """Names and values, plain texts; nothing where there are none."""
    if not facts:
        return ""
    rows = "".join(f"<dt>{escaped(key)}</dt><dd>{escaped(value)}</dd>" for key, value in facts.items())
    return f"<section><h2>{heading}</h2><dl>{rows}</dl></section>"


def sortable_table(headings: Sequence[tuple[str, bool]], rows: Sequence[str]) -> str:
    """A table that report.js sorts.

    Args:
        headings: a name, and whether the column is text.
        rows: of HTML, `<tr>` to `</tr>`; cells carry what they are sorted by in `data-value`.
    """
    head = "".join(
        f'<th scope="col"{" class=text" if is_text else ""}><button type="button">{name}</button></th>'
        for name, is_text in headings
    )
    return (
        f'<div class="scroll"><table class="list"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def name_cell(name: str) -> str:
    """A cell of plain text."""
    return f'<td class="text" data-value="{escaped(name)}">{escaped(name)}</td>'


def count_cell(count: int) -> str:
    """A cell of a whole number."""
    return f'<td data-value="{count}">{count:,}</td>'


def share_cell(share: float | None) -> str:
    """A cell of a share, 0 to 1, with its bar; one that is not known is sorted below all others."""
    if share is None:
        return f'<td data-value="-1">{UNKNOWN}</td>'
    bar = f'<span class="bar" style="--share:{share:.4f}"></span>'
    return f'<td data-value="{share:.6f}">{share:.1%}{bar}</td>'


def percent(share: float | None) -> str:
    """A share, 0 to 1, in words."""
    return UNKNOWN if share is None else f"{share:.1%}"


def key(colour: tuple[int, int, int], name: str) -> str:
    """A legend's entry: a swatch and what it stands for, plain text."""
    red, green, blue = colour
    style = f"background: rgb({red}, {green}, {blue})"
    return f'<span class="entry"><span class="key" style="{style}"></span>{escaped(name)}</span> '

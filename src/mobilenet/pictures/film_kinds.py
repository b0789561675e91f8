"""Telling films from pictures, by what is in a file or what it is called."""

from __future__ import annotations

import re
from pathlib import Path

from mobilenet.pictures.walk import is_fifo, is_file

FILM_SUFFIXES = frozenset(
    (
        ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".wmv", ".flv",
        ".3gp", ".ogv", ".vob", ".mjpeg", ".mjpg", ".h264", ".264", ".h265", ".265", ".hevc", ".ivf", ".y4m",
        ".m3u8",
    )
)  # fmt: skip
_HEAD = 512
_STILL = rb"avif|avis|heic|heix|mif1|msf1|jxl "  # pictures in the boxes that MP4 uses
_CONTENT = re.compile(
    rb".{4}ftyp(?!" + _STILL + rb")"  # MP4, QuickTime
    rb"|.{4}(?:moov|mdat|wide|free)"  # older QuickTime
    rb"|\x1a\x45\xdf\xa3"  # Matroska, WebM
    rb"|RIFF.{4}AVI "
    rb"|\x47.{187}\x47.{187}\x47"  # MPEG transport stream
    rb"|\x00\x00\x01[\xba\xb3]"  # MPEG program stream, MPEG video
    rb"|FLV\x01|OggS|DKIF|YUV4MPEG2 |#EXTM3U",
    re.DOTALL,
)


def is_film(path: Path) -> bool:
    """Whether this is a film's file, or a named pipe, which can be nothing else that is read."""
    if is_fifo(path):
        return True
    if not is_file(path):
        return False
    if path.suffix.lower() in FILM_SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return _CONTENT.match(file.read(_HEAD)) is not None
    except OSError:
        return False

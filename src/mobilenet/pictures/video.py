"""Frames of films, folders of pictures, cameras and network streams, one after the other; PyAV decodes.

Everything gives `Frame`s, upright RGB. A camera or stream is live: where it breaks off it is opened again, after
pauses that double from half a second to half a minute. A film that is damaged inside, or ends in mid-frame, gives
what can be decoded, and `Frames.damaged` counts what cannot. Memory stays flat: one frame is held at a time.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenet.errors import ArgumentError, ImageError, MissingExtraError
from mobilenet.pictures.decode import MAX_PIXELS, decode
from mobilenet.pictures.walk import is_file, is_folder, is_picture_name, list_folder

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds before a broken stream is opened again
OPEN_SECONDS, READ_SECONDS = 10.0, 10.0  # that a stream may take before it counts as broken
STREAMS = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp", "srt")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("dshow", "video={}")}
_PATTERN = re.compile(r"%0?(\d*)d")
# A film on the disk may name others (playlists): these are read from the disk too, never from the network.
_FILE_OPTIONS = {"protocol_whitelist": "file,crypto,data"}

Sleep = Callable[[float], None]


@dataclass(frozen=True)
class Frame:
    """One picture of a film.

    Attributes:
        number: counted from 0 in this source; frames that could not be decoded are not counted.
        seconds: since the source's beginning, as it says itself; none if it does not.
        pixels: uint8 (height, width, 3), upright RGB.
    """

    number: int
    seconds: float | None
    pixels: NDArray[np.uint8]


@dataclass
class Frames:
    """The frames of a source: iterate over it once.

    Attributes:
        source: as it was given.
        live: whether it is a camera or network stream, which does not wait for whoever reads it.
        rate: frames a second, as it says itself; none if it does not. Known once it is opened.
        damaged: how many packets or pictures could not be decoded, so far.
        reconnections: how often a live source was opened again, so far.
    """

    source: str
    live: bool
    _opened: Callable[[Frames], Iterator[tuple[float | None, NDArray[np.uint8]]]] = field(repr=False)
    attempts: int = 10
    sleep: Sleep = field(default=time.sleep, repr=False)
    rate: float | None = None
    damaged: int = 0
    reconnections: int = 0

    def __iter__(self) -> Iterator[Frame]:
        """Raises `ImageError` if it cannot be opened, holds no frame, or stays away for `attempts` openings."""
        number = failures = 0
        while True:
            error: ImageError | None = None
            try:
                for seconds, pixels in self._opened(self):
                    failures = 0
                    yield Frame(number, seconds, pixels)
                    number += 1
            except ImageError as reason:
                error = reason
            if not self.live:
                if error or not number:
                    raise error or ImageError(f"{self.source}: holds no frame that can be decoded")
                return
            failures += 1
            if failures > self.attempts:
                said = f": {error}" if error else ""
                raise ImageError(f"{self.source}: gave no frame in {self.attempts} openings; gave up{said}")
            self.sleep(pause(failures))
            self.reconnections += 1


def pause(failures: int) -> float:
    """Seconds to wait after so many openings without a frame: from half a second, doubling, to half a minute."""
    return float(min(FIRST_PAUSE * 2.0 ** min(failures - 1, 30), LONGEST_PAUSE))


def open_frames(source: str | int | Path, *, attempts: int = 10, sleep: Sleep = time.sleep) -> Frames:
    """The frames of a source. It is opened when the first one is asked for.

    Args:
        source: a film's file; a folder of pictures, or a pattern such as `frames/%04d.png`; a camera's number (0,
            or "0"); the address of a stream (rtsp://, http://, ...).
        attempts: how many openings in a row of a live source may give no frame.
        sleep: waits between these.

    Raises:
        ArgumentError: no such file or folder, another kind of address, or an impossible number.
        MissingExtraError: PyAV is needed and not installed.
    """
    if type(attempts) is not int or attempts < 0:
        raise ArgumentError(f"attempts is {attempts!r}: a whole number from 0 is needed")
    name = str(source)
    if name.isascii() and name.isdigit():
        return Frames(name, True, _camera, attempts, sleep)
    if scheme := _SCHEME.match(name):
        if scheme[1].lower() not in STREAMS:
            raise ArgumentError(f"{name}: addresses of {', '.join(STREAMS)} are read, not {scheme[1]}")
        return Frames(name, True, _stream, attempts, sleep)
    path = Path(name)
    if is_folder(path) or _PATTERN.search(path.name):
        return Frames(name, False, _pictures)
    if not is_file(path):
        raise ArgumentError(f"{name}: no such film, folder, camera or stream")
    return Frames(name, False, _film)


def _pictures(frames: Frames) -> Iterator[tuple[float | None, NDArray[np.uint8]]]:
    """A folder's pictures, or those of a pattern, in the order of the numbers in their names."""
    path = Path(frames.source)
    folder, pattern = (path, None) if is_folder(path) else (path.parent, _as_expression(path.name))
    if not is_folder(folder):
        raise ImageError(f"{frames.source}: there is no folder {folder}")
    found = [
        p for p in list_folder(folder) if is_picture_name(p) and (pattern is None or pattern.fullmatch(p.name))
    ]
    for picture in sorted(found, key=_by_numbers):
        try:
            yield None, decode(picture)
        except ImageError:
            frames.damaged += 1


def _as_expression(name: str) -> re.Pattern[str]:
    """A name with %d or %04d in it as an expression."""
    found = _PATTERN.search(name)
    assert found is not None
    before, after = re.escape(name[: found.start()]), re.escape(name[found.end() :])
    return re.compile(f"{before}\\d{{{min(int(found[1] or 1), 99)},}}{after}")


def _by_numbers(path: Path) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isascii() and part.isdigit() else (-1, part) for part in parts]


def _film(frames: Frames) -> Iterator[tuple[float | None, NDArray[np.uint8]]]:
    yield from _decoded(frames, frames.source, options=_FILE_OPTIONS)


def _camera(frames: Frames) -> Iterator[tuple[float | None, NDArray[np.uint8]]]:
    kind, name = _CAMERAS.get(sys.platform, _CAMERAS["linux"])
    yield from _decoded(frames, name.format(frames.source), format=kind)


def _stream(frames: Frames) -> Iterator[tuple[float | None, NDArray[np.uint8]]]:
    options = {"rtsp_transport": "tcp"} if frames.source.lower().startswith("rtsp") else {}
    yield from _decoded(frames, frames.source, options=options, timeout=(OPEN_SECONDS, READ_SECONDS))


def _decoded(frames: Frames, place: str, **words: Any) -> Iterator[tuple[float | None, NDArray[np.uint8]]]:
    """Opens, and gives (seconds, pixels) until it ends or breaks off; `ImageError` if it cannot be opened."""
    try:
        import av
    except ModuleNotFoundError as error:
        raise MissingExtraError("reading films, cameras and streams", "video") from error
    try:
        container = av.open(place, **words)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise ImageError(f"{frames.source}: cannot be opened: {_one_line(error)}") from error
    with container:
        if not container.streams.video:
            raise ImageError(f"{frames.source}: holds no moving pictures")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        rate = stream.average_rate or stream.guessed_rate
        frames.rate = float(rate) if rate else None
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.error.FFmpegError, OSError):  # it breaks off: a live source is opened again
                frames.damaged += 1
                return
            try:
                decoded = packet.decode()
            except (av.error.FFmpegError, ValueError):
                frames.damaged += 1
                continue
            for picture in decoded:
                yield picture.time, _pixels(frames.source, picture)


def _pixels(source: str, picture: Any) -> NDArray[np.uint8]:
    """A decoded picture as upright RGB; its rotation is counted against the clock, as FFmpeg's display matrix."""
    if picture.width * picture.height > MAX_PIXELS:
        raise ImageError(f"{source}: {picture.width} x {picture.height} is more than {MAX_PIXELS:,} pixels")
    pixels: NDArray[np.uint8] = picture.to_ndarray(format="rgb24")
    turns = 0
    with suppress(AttributeError):
        turns = round(picture.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _one_line(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split())[:200] or type(error).__name__

"""Frames of films, folders of pictures, cameras and network streams, one after the other; PyAV decodes.

Everything gives `Frame`s, upright RGB. A camera or stream is live: where it breaks off it is opened again, after
pauses that double from half a second to half a minute. A film that is damaged inside, or ends in mid-frame, gives
what can be decoded; what cannot, or only in part, is left out, counted and named. Memory stays flat: one frame is
held at a time. `pictures/video_decode.py` is the part that knows PyAV.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mobilenet.errors import ArgumentError, ImageError
from mobilenet.pictures.walk import is_fifo, is_file, is_folder

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds before a broken stream is opened again
STREAMS = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp", "srt")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_PASSWORD = re.compile(r"^([a-z][a-z0-9+.-]+://[^/@:]*:)[^/@]*@", re.IGNORECASE)
PATTERN = re.compile(r"%0?(\d*)d")
FIRST_ATTEMPTS = 3  # before there was a frame: it may be a slip of the pen
MAX_RATE = 1000
SHORTEST = 1 / MAX_RATE  # seconds between a frame and the next after the source was away
MAX_NAMED = 20  # of damaged frames, so that a day of bad weather does not fill the memory

Sleep = Callable[[float], object]
Opened = Callable[["Frames"], Iterator["Decoded"]]


class Decoded(NamedTuple):
    """A picture that a source gives: its time as the source counts, how long it took, and its pixels on demand."""

    seconds: float | None
    milliseconds: float
    pixels: Callable[[], NDArray[np.uint8]]


@dataclass(frozen=True)
class Frame:
    """One picture of a film.

    Attributes:
        number: counted from 0 in this source; frames that could not be decoded are not counted.
        seconds: since the source's beginning, as it says itself; none if it does not. Of a live source since its
            first frame; the time that it was away counts.
        pixels: uint8 (height, width, 3), upright RGB.
        milliseconds: that decoding took, without the time that was waited for the source.
        made: when it was decoded, as `time.perf_counter` counts.
    """

    number: int
    seconds: float | None
    pixels: NDArray[np.uint8]
    milliseconds: float = 0.0
    made: float = field(default_factory=time.perf_counter, compare=False)


@dataclass
class Frames:
    """The frames of a source: iterate over it once.

    Attributes:
        source: as it was given.
        live: whether it is a camera or network stream, which does not wait for whoever reads it.
        rate: frames a second, as it says itself; none if it does not. Known once it is opened.
        every: only each n-th frame is given (0, n, 2 n, ...); the others are decoded, because later ones need
            them, but not made pixels of.
        damaged: how many packets or pictures could not be decoded, or only in part, so far.
        damage: where the first of these were, in words.
        reconnections: how often a live source was opened again, so far.
        notice: is told, in words, of what is damaged and of broken connections.
    """

    source: str
    live: bool
    _opened: Opened = field(repr=False)
    attempts: int = 10
    sleep: Sleep = field(default=time.sleep, repr=False)
    every: int = 1
    rate: float | None = None
    damaged: int = 0
    damage: list[str] = field(default_factory=list)
    reconnections: int = 0
    notice: Callable[[str], None] | None = field(default=None, repr=False)
    _seen: int = field(default=0, repr=False)

    @property
    def name(self) -> str:
        """The source as messages and results name it: without the password that an address may hold."""
        return _PASSWORD.sub(r"\1***@", self.source)

    def __iter__(self) -> Iterator[Frame]:
        """Raises `ImageError` if it cannot be opened, holds no frame, or stays away for `attempts` openings."""
        failures, clock = 0, _Clock()
        while True:
            error: ImageError | None = None
            clock.reopen()
            try:
                for decoded in self._opened(self):
                    failures = 0
                    yield from self._frame(decoded, clock)
            except ImageError as reason:
                error = reason
            if not self.live:
                if error or not self._seen:
                    raise error or ImageError(f"{self.name}: holds no frame that can be decoded")
                return
            failures += 1
            allowed = self.attempts if self._seen else min(self.attempts, FIRST_ATTEMPTS)
            if failures > allowed:
                said = f": {error}" if error else ""
                raise ImageError(f"{self.name}: gave no frame in {allowed} openings; gave up{said}")
            self._say(f"{error or f'{self.name}: broke off'}; opened again in {pause(failures):g} s")
            self.sleep(pause(failures))
            self.reconnections += 1

    def skip(self, reason: str) -> None:
        """Counts and names a picture that is left out."""
        self.damaged += 1
        text = f"{self.name}: after {self._seen} frames: {reason}; left out"
        if len(self.damage) < MAX_NAMED:
            self.damage.append(text)
            self._say(text)

    def _say(self, text: str) -> None:
        if self.notice is not None:
            self.notice(text)

    def _frame(self, decoded: Decoded, clock: _Clock) -> Iterator[Frame]:
        """The frame, if it is one of those that are given."""
        number, self._seen = self._seen, self._seen + 1
        seconds = clock.seconds(decoded.seconds) if self.live else decoded.seconds
        if number % self.every == 0:
            start = time.perf_counter()
            pixels = decoded.pixels()
            spent = decoded.milliseconds + (time.perf_counter() - start) * 1e3
            yield Frame(number, seconds, pixels, spent)


class _Clock:
    """Seconds since the first frame of a source whose own clock begins anew, anywhere, at every opening."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._first: float | None = None
        self._away, self._last = 0.0, -SHORTEST

    def reopen(self) -> None:
        self._first = None

    def seconds(self, own: float | None) -> float:
        now = time.monotonic()
        if self._began is None:
            self._began = now
        if own is None:
            return now - self._began
        if self._first is None:  # it may have sent faster than time runs
            self._first, self._away = own, max(now - self._began, self._last + SHORTEST)
        self._last = max(self._last, self._away + own - self._first)
        return self._last


def pause(failures: int) -> float:
    """Seconds to wait after so many openings without a frame: from half a second, doubling, to half a minute."""
    return float(min(FIRST_PAUSE * 2.0 ** min(failures - 1, 30), LONGEST_PAUSE))


def open_frames(
    source: str | int | os.PathLike[str],
    *,
    attempts: int = 10,
    sleep: Sleep = time.sleep,
    every: int = 1,
    fps: float | None = None,
    low_delay: bool = False,
    notice: Callable[[str], None] | None = None,
) -> Frames:
    """The frames of a source. It is opened when the first one is asked for.

    Args:
        source: a film's file, or a named pipe that carries one; a folder of pictures, or a pattern such as
            `frames/%04d.png`; a camera's number (0, or "0"); the address of a stream (rtsp://, http://, ...).
        attempts: how many openings in a row of a live source may give no frame; before its first, at most 3.
        sleep: waits between these.
        every: only each n-th frame is given.
        fps: of a folder or pattern, how many pictures a second it is; then its frames have `seconds`.
        low_delay: decode each frame at once, rather than several side by side, each of them later.
        notice: see `Frames`.

    Raises:
        ArgumentError: no such file or folder, another kind of address, or an impossible number.
    """
    _check_numbers(attempts, every, fps)
    name, path = str(source), Path(source) if not isinstance(source, int) else Path(str(source))
    if type(source) is int and source < 0:
        raise ArgumentError(f"there is no camera {source}: they are counted from 0")
    live = False
    opened: Opened = partial(_of_film, low_delay=low_delay)
    if is_address(name) and name.isdigit():
        live, opened = True, _of_camera
    elif scheme := _SCHEME.match(name):
        if scheme[1].lower() not in STREAMS:
            raise ArgumentError(f"{name}: addresses of {', '.join(STREAMS)} are read, not {scheme[1]}")
        live, opened = True, _of_stream
    elif is_folder(path) or PATTERN.search(path.name):
        return Frames(name, False, partial(_of_folder, fps=fps), every=every, rate=fps, notice=notice)
    elif not (is_file(path) or is_fifo(path)):
        raise ArgumentError(f"{name}: no such film, folder, camera or stream")
    if fps is not None:
        raise ArgumentError(f"{name}: has a frame rate of its own; fps is for a folder or pattern of pictures")
    return Frames(name, live, opened, attempts, sleep, every, notice=notice)


def open_pictures(
    paths: Sequence[Path],
    name: str,
    *,
    fps: float,
    every: int = 1,
    notice: Callable[[str], None] | None = None,
) -> Frames:
    """Pictures as the frames of a film of `fps` frames a second, in the order of the numbers in their names.

    Args:
        paths: the pictures.
        name: what messages call the source.
        fps, every, notice: as for `open_frames`.

    Raises:
        ArgumentError: an impossible number.
    """
    _check_numbers(0, every, fps)
    opened = partial(_of_list, list(paths), fps)
    return Frames(name, False, opened, every=every, rate=fps, notice=notice)


def is_address(source: str) -> bool:
    """Whether this is a camera's number or has the form of an address."""
    return (source.isascii() and source.isdigit()) or _SCHEME.match(source) is not None


def is_pattern(source: str) -> bool:
    """Whether this is a pattern of pictures' names, with %d or %04d in it."""
    return PATTERN.search(Path(source).name) is not None


def _check_numbers(attempts: int, every: int, fps: float | None) -> None:
    if type(attempts) is not int or attempts < 0:
        raise ArgumentError(f"attempts is {attempts!r}: a whole number from 0 is needed")
    if type(every) is not int or every < 1:
        raise ArgumentError(f"every is {every!r}: a whole number from 1 is needed")
    if fps is not None and not 0 < fps <= MAX_RATE:
        raise ArgumentError(f"fps is {fps!r}: a number above 0, up to {MAX_RATE}, is needed")


def _of_film(frames: Frames, *, low_delay: bool) -> Iterator[Decoded]:
    from mobilenet.pictures.video_decode import decoded_film

    yield from decoded_film(frames, low_delay=low_delay)


def _of_camera(frames: Frames) -> Iterator[Decoded]:
    from mobilenet.pictures.video_decode import decoded_camera

    yield from decoded_camera(frames)


def _of_stream(frames: Frames) -> Iterator[Decoded]:
    from mobilenet.pictures.video_decode import decoded_stream

    yield from decoded_stream(frames)


def _of_folder(frames: Frames, *, fps: float | None) -> Iterator[Decoded]:
    from mobilenet.pictures.video_pictures import folder_pictures

    yield from folder_pictures(frames, fps)


def _of_list(paths: Sequence[Path], fps: float, frames: Frames) -> Iterator[Decoded]:
    from mobilenet.pictures.video_pictures import decoded_pictures

    yield from decoded_pictures(paths, fps, frames)

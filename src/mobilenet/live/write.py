"""Writes frames as a film, by PyAV."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenet.errors import ArgumentError, FilmError, MissingExtraError

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

# Ending -> codecs, the first that this build of FFmpeg has; and their options: a frame may not take long.
_FAST = {"preset": "veryfast", "crf": "23"}
CODECS: dict[str, tuple[tuple[str, dict[str, str]], ...]] = {
    **dict.fromkeys((".mp4", ".mov", ".mkv", ".m4v", ".ts"), (("libx264", _FAST), ("mpeg4", {"qscale": "4"}))),
    ".avi": (("mpeg4", {"qscale": "4"}),),
    ".webm": (("libvpx", {"deadline": "realtime", "cpu-used": "8"}),),
}
# Ticks a second: whole numbers of them are a frame at 24, 25, 30, 50, 60 and 30000 / 1001 frames a second, and
# MPEG-4 takes no more than 65535.
TICKS = 60_000
USUAL_RATE = 25.0  # where the source does not say its own
BITS_A_PIXEL = 0.2  # for encoders that have no quality setting


class FilmWriter:
    """A film that is written frame by frame. The file is whole once it is closed, also after an error.

    Args:
        path: ends in .mp4, .mkv, .mov, .m4v, .ts, .avi or .webm.
        rate: frames a second, where these do not say their time.

    Raises:
        ArgumentError: another ending, or the folder is missing.
        MissingExtraError: PyAV is not installed.
    """

    def __init__(self, path: str | Path, rate: float | None = None) -> None:
        self.path, self.frames = Path(path), 0
        check_film_name(self.path)
        try:
            import av
        except ModuleNotFoundError as error:
            raise MissingExtraError("writing films", "video") from error
        self._av, self._rate = av, rate or USUAL_RATE
        self._container: Any = None
        self._stream: Any = None
        self._converter = av.video.reformatter.VideoReformatter()
        # An .avi has one frame at every tick, so that there these are the frames.
        avi = self.path.suffix.lower() == ".avi"
        self._ticks = Fraction(self._rate).limit_denominator(1001) if avi else Fraction(TICKS)
        self._last = -1

    def __enter__(self) -> FilmWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, pixels: NDArray[np.uint8], seconds: float | None = None) -> None:
        """Writes one frame.

        Args:
            pixels: uint8 (height, width, 3) RGB. The first frame says the film's size (less a row or column where
                it is odd, which codecs do not take); others are scaled to it.
            seconds: since the beginning; default: one frame after the last. Time never runs backwards.

        Raises:
            FilmError: it cannot be written; the message names the file.
        """
        try:
            if self._stream is None:
                self._open(*pixels.shape[:2])
            frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            stream = self._stream
            frame = self._converter.reformat(frame, stream.width, stream.height, stream.pix_fmt, threads=1)
            when = self.frames / self._rate if seconds is None else seconds
            self._last = frame.pts = max(round(when * self._ticks), self._last + 1)
            frame.time_base = 1 / self._ticks
            self._container.mux(stream.encode(frame))
        except (self._av.error.FFmpegError, OSError, ValueError) as error:
            raise FilmError(f"{self.path}: cannot be written: {_one_line(error)}") from error
        self.frames += 1

    def close(self) -> None:
        """Writes what the encoder still holds, and the end of the file. A second time it does nothing.

        Raises:
            FilmError: it cannot be written.
        """
        container, self._container = self._container, None
        if container is None:
            return
        try:
            try:
                container.mux(self._stream.encode())
            finally:
                container.close()
        except (self._av.error.FFmpegError, OSError, ValueError) as error:
            raise FilmError(f"{self.path}: cannot be written to its end: {_one_line(error)}") from error

    def _open(self, height: int, width: int) -> None:
        name, options = next(
            ((name, options) for name, options in CODECS[self.path.suffix.lower()] if self._has(name)), (None, {})
        )
        if name is None:
            raise FilmError(f"{self.path}: this build of PyAV has no encoder for {self.path.suffix}; take .avi")
        width, height = max(2, width // 2 * 2), max(2, height // 2 * 2)
        self._container = self._av.open(str(self.path), "w")
        rate = Fraction(self._rate).limit_denominator(1001)
        self._stream = self._container.add_stream(name, rate=rate, options=dict(options))
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._stream.bit_rate = int(width * height * self._rate * BITS_A_PIXEL) if name != "libx264" else 0
        self._stream.codec_context.time_base = 1 / self._ticks

    def _has(self, name: str) -> bool:
        try:
            return bool(self._av.Codec(name, "w"))
        except ValueError:  # FFmpeg's "unknown codec"
            return False


def check_film_name(path: Path) -> None:
    """Raises `ArgumentError` for an ending that no film is written with, or a folder that is not there."""
    if path.suffix.lower() not in CODECS:
        raise ArgumentError(f"{path}: a film is written as {', '.join(CODECS)}")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ArgumentError(f"{path}: " + ("is a folder" if path.is_dir() else "its folder does not exist"))


def _one_line(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split())[:200] or type(error).__name__

"""Films, cameras and network streams decoded by PyAV, for `pictures/video.py` and nobody else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenet.errors import ImageError, MissingExtraError
from mobilenet.pictures.decode import MAX_PIXELS
from mobilenet.pictures.video import Decoded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mobilenet.pictures.video import Frames

OPEN_SECONDS, READ_SECONDS = 10.0, 10.0  # that a stream may take before it counts as broken
MAX_BROKEN = 64  # times of broken packets that are remembered until their pictures come out of the decoder
_CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("dshow", "video={}")}
# A film on the disk may name others (playlists): these are read from the disk too, never from the network.
_FILE_OPTIONS = {"protocol_whitelist": "file,crypto,data"}
# A stream may name others too, over the network; but never files of this machine.
_STREAM_OPTIONS = {
    "protocol_whitelist": "rtsp,rtsps,rtp,srtp,rtmp,rtmps,http,https,httpproxy,tls,tcp,udp,srt,crypto,data",
}


def decoded_film(frames: Frames, *, low_delay: bool = False) -> Iterator[Decoded]:
    """The pictures of a file or named pipe."""
    yield from _decoded(frames, frames.source, low_delay, options=_FILE_OPTIONS)


def decoded_camera(frames: Frames) -> Iterator[Decoded]:
    """The pictures of a camera, until it breaks off."""
    kind, name = _CAMERAS.get(sys.platform, _CAMERAS["linux"])
    yield from _decoded(frames, name.format(frames.source), True, format=kind)


def decoded_stream(frames: Frames) -> Iterator[Decoded]:
    """The pictures of a network stream, until it breaks off."""
    rtsp = {"rtsp_transport": "tcp"} if frames.source.lower().startswith("rtsp") else {}
    options = {**_STREAM_OPTIONS, **rtsp}
    yield from _decoded(frames, frames.source, True, options=options, timeout=(OPEN_SECONDS, READ_SECONDS))


def _decoded(frames: Frames, place: str, low_delay: bool, **words: Any) -> Iterator[Decoded]:
    """Opens, and gives pictures until it ends or breaks off; `ImageError` if it cannot be opened."""
    try:
        import av
    except ModuleNotFoundError as error:
        raise MissingExtraError("reading films, cameras and streams", "video") from error
    try:
        container = av.open(place, **words)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise ImageError(f"{frames.name}: cannot be opened: {_one_line(error)}") from error
    with container:
        if not container.streams.video:
            raise ImageError(f"{frames.name}: holds no moving pictures")
        stream = container.streams.video[0]
        # Threads that decode whole frames side by side give each of them later: slices do not.
        stream.thread_type = "SLICE" if low_delay else "AUTO"
        rate = stream.average_rate or stream.guessed_rate
        frames.rate = float(rate) if rate else None
        if words.get("timeout") and container.duration:  # a film that lies on a server: it has an end
            frames.live = False
        first = float(stream.start_time * stream.time_base) if stream.start_time else 0.0
        yield from _pictures(frames, container, stream, 0.0 if frames.live else first)


def _pictures(frames: Frames, container: Any, stream: Any, first: float) -> Iterator[Decoded]:
    """The pictures that are whole; `first` is the time of the beginning."""
    import av

    converter = (
        av.video.reformatter.VideoReformatter()
    )  # one for all: making its tables takes longer than using them
    packets, broken = container.demux(stream), _Broken()
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.error.FFmpegError, OSError) as error:  # it breaks off: a live source is opened again
            frames.skip(f"breaks off ({_one_line(error)})")
            return
        start = time.perf_counter()
        broken.note(packet)
        try:
            found = packet.decode()
        except (av.error.FFmpegError, ValueError) as error:
            frames.skip(f"a packet cannot be decoded ({_one_line(error)})")
            continue
        spent = (time.perf_counter() - start) * 1e3 / max(len(found), 1)
        for picture in found:
            if picture.is_corrupt or broken.holds(picture.pts):
                frames.skip("a picture is damaged or breaks off")
                continue
            _check(frames.name, picture)
            seconds = None if picture.time is None else float(picture.time) - first
            yield Decoded(seconds, spent, partial(_pixels, converter, picture))


class _Broken:
    """Times of packets that came damaged or cut: not every decoder says so of the pictures that it makes."""

    def __init__(self) -> None:
        self._times: dict[int, None] = {}

    def note(self, packet: Any) -> None:
        if packet.is_corrupt and packet.pts is not None:
            self._times[packet.pts] = None
            if len(self._times) > MAX_BROKEN:
                del self._times[next(iter(self._times))]

    def holds(self, time: int | None) -> bool:
        return time is not None and time in self._times


def _check(name: str, picture: Any) -> None:
    if picture.width * picture.height > MAX_PIXELS:
        raise ImageError(f"{name}: {picture.width} x {picture.height} is more than {MAX_PIXELS:,} pixels")


def _pixels(converter: Any, picture: Any) -> NDArray[np.uint8]:
    """A decoded picture as upright RGB; its rotation is counted against the clock, as FFmpeg's display matrix."""
    pixels: NDArray[np.uint8] = converter.reformat(picture, format="rgb24", threads=1).to_ndarray()
    turns = 0
    with suppress(AttributeError):
        turns = round(picture.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _one_line(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split())[:200] or type(error).__name__

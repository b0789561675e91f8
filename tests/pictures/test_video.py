"""Frames of films, sequences and streams that the tests make themselves; damage and broken connections."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilenet.errors import ArgumentError, ImageError
from mobilenet.pictures.video import Frame, Frames, open_frames, open_pictures, pause

LEVELS = (10, 60, 110, 160, 210)


def film(path: Path, count: int = 25, size: tuple[int, int] = (64, 48), codec: str = "mpeg4") -> Path:
    """A film whose frames are grey, brighter and brighter, five frames each."""
    av = pytest.importorskip("av", reason="PyAV is not installed: pip install 'mobilenet[video]'")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.bit_rate = 4_000_000
        stream.gop_size = 5
        for number in range(count):
            level = LEVELS[number * len(LEVELS) // count]
            pixels = np.full((size[1], size[0], 3), level, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def levels(frames: Frames) -> list[int]:
    return [round(float(frame.pixels.mean())) for frame in frames]


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv", "ts"])
def test_a_film_gives_every_frame_in_order(suffix: str, tmp_path: Path) -> None:
    frames = open_frames(film(tmp_path / f"f.{suffix}"))
    found = list(frames)
    assert [frame.number for frame in found] == list(range(25))
    assert all(frame.pixels.shape == (48, 64, 3) and frame.pixels.dtype == np.uint8 for frame in found)
    means = [float(frame.pixels.mean()) for frame in found]
    assert np.abs(np.array(means) - np.repeat(LEVELS, 5)).max() < 6
    seconds = [frame.seconds for frame in found]
    assert np.diff(seconds) == pytest.approx(np.full(24, 0.04), abs=2e-3)
    assert (frames.live, frames.damaged, frames.rate) == (False, 0, 25.0)


def test_pictures_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (1, 2, 10, 11):
        Image.fromarray(np.full((4, 6, 3), number, np.uint8)).save(tmp_path / f"f{number}.png")
    (tmp_path / "f3.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("x")
    frames = open_frames(tmp_path)
    assert levels(frames) == [1, 2, 10, 11]
    assert frames.damaged == 1
    assert levels(open_frames(tmp_path / "f%02d.png")) == [10, 11]
    with pytest.raises(ImageError, match="no frame"):
        list(open_frames(tmp_path / "g%d.png"))
    with pytest.raises(ImageError, match="no folder"):
        list(open_frames(tmp_path / "none" / "g%d.png"))


def test_a_film_that_ends_in_mid_frame_gives_what_there_is(tmp_path: Path) -> None:
    data = film(tmp_path / "f.ts").read_bytes()
    (tmp_path / "cut.ts").write_bytes(data[: len(data) * 3 // 5 + 77])
    found = levels(open_frames(tmp_path / "cut.ts"))
    assert 5 <= len(found) < 25
    assert abs(found[0] - LEVELS[0]) < 6


def test_a_film_with_damage_inside_goes_on_behind_it(tmp_path: Path) -> None:
    data = bytearray(film(tmp_path / "f.ts").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = np.random.default_rng(0).integers(0, 256, 2000, dtype=np.uint8).tobytes()
    (tmp_path / "bad.ts").write_bytes(data)
    found = levels(open_frames(tmp_path / "bad.ts"))
    assert abs(found[0] - LEVELS[0]) < 6 and abs(found[-1] - LEVELS[-1]) < 12


@pytest.mark.parametrize(
    "content", [b"", b"no film", b"\x00" * 5000, b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n"]
)
def test_what_is_no_film_is_named(content: bytes, tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed: pip install 'mobilenet[video]'")
    (tmp_path / "x.m3u8").write_bytes(content)
    with pytest.raises(ImageError, match=r"x\.m3u8: (cannot be opened|holds no)"):
        list(open_frames(tmp_path / "x.m3u8"))


@pytest.mark.parametrize(
    ("source", "message"),
    [("missing.mp4", "no such film"), ("ftp://x/y.mp4", "not ftp"), ("file:///etc/passwd", "not file")],
)
def test_what_is_no_source_is_named(source: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        open_frames(source)


def test_pauses_double_up_to_half_a_minute() -> None:
    assert [pause(n) for n in (1, 2, 3, 7, 100)] == [0.5, 1.0, 2.0, 30.0, 30.0]


class Server:
    """Serves one film; each request in turn gets the part of it that `parts` says, or an error where that is 0."""

    def __init__(self, data: bytes, parts: list[float]) -> None:
        waiting = iter(parts)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                part = next(waiting, 0.0)
                if not part:
                    self.send_error(503)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "video/mp2t")
                self.end_headers()
                self.wfile.write(data[: int(len(data) * part)])

            def log_message(self, *words: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}/live.ts"


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[object]:
    servers: list[Server] = []

    def start(parts: list[float]) -> Server:
        servers.append(Server(film(tmp_path / "f.ts").read_bytes(), parts))
        return servers[-1]

    yield start
    for each in servers:
        each.server.shutdown()
        each.server.server_close()


def test_a_broken_stream_is_opened_again_with_growing_pauses(serve) -> None:
    server = serve([0.5, 0.0, 0.0, 1.0])
    pauses: list[float] = []
    frames = open_frames(server.address, attempts=3, sleep=pauses.append)
    found: list[Frame] = []
    with pytest.raises(ImageError, match="gave no frame in 3 openings"):
        keep(frames, found)
    numbers = [frame.number for frame in found]
    assert numbers == list(range(len(found)))
    assert 25 + 5 <= len(found) <= 50
    assert pauses == [0.5, 1.0, 2.0, 0.5, 1.0, 2.0]
    assert frames.live and frames.reconnections == 6


def keep(frames: Frames, found: list[Frame]) -> None:
    """Appends as it goes, so that what came before an error is there."""
    for frame in frames:
        found.append(frame)  # noqa: PERF402


def test_a_stream_that_is_not_there_is_given_up(serve) -> None:
    server = serve([])
    pauses: list[float] = []
    with pytest.raises(ImageError, match="gave up: .*cannot be opened"):
        list(open_frames(server.address, attempts=2, sleep=pauses.append))
    assert pauses == [0.5, 1.0]


def test_a_camera_that_is_not_there_is_given_up() -> None:
    pytest.importorskip("av", reason="PyAV is not installed: pip install 'mobilenet[video]'")
    with pytest.raises(ImageError, match="87: gave no frame in 1 openings"):
        list(open_frames(87, attempts=1, sleep=lambda seconds: None))


def test_memory_stays_flat(tmp_path: Path) -> None:
    """Frames are made as they are asked for: the first comes before the rest is decoded."""
    frames = iter(open_frames(film(tmp_path / "f.mp4", count=50)))
    assert next(frames).number == 0
    frames.close()


def test_only_each_nth_frame_keeps_its_number_and_time(tmp_path: Path) -> None:
    found = list(open_frames(film(tmp_path / "f.mp4"), every=10, low_delay=True))
    assert [(frame.number, frame.seconds) for frame in found] == [(0, 0.0), (10, 0.4), (20, 0.8)]
    assert [round(float(frame.pixels.mean()) / 50) for frame in found] == [0, 2, 4]


def test_pictures_have_times_where_there_is_a_rate(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        Image.fromarray(np.full((4, 6, 3), number, np.uint8)).save(tmp_path / f"f{number}.png")
    paths = [tmp_path / f"f{number}.png" for number in (10, 2, 1)]
    for frames in (open_frames(tmp_path, fps=4), open_pictures(paths, "three", fps=4)):
        assert [(frame.seconds, int(frame.pixels.mean())) for frame in frames] == [(0.0, 1), (0.25, 2), (0.5, 10)]
        assert frames.rate == 4
    assert [frame.seconds for frame in open_frames(tmp_path)] == [None] * 3


def test_a_frame_that_breaks_off_is_left_out_and_named(tmp_path: Path) -> None:
    data = film(tmp_path / "f.avi", size=(320, 240)).read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) * 3 // 5])
    said: list[str] = []
    frames = open_frames(tmp_path / "cut.avi", notice=said.append)
    count = len(list(frames))
    assert frames.damaged == 1 and frames.damage == said
    assert said[0].startswith(f"{tmp_path / 'cut.avi'}: after {count} frames: ")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are of POSIX")
def test_a_film_through_a_named_pipe_that_breaks_off(tmp_path: Path) -> None:
    data = film(tmp_path / "f.ts").read_bytes()
    os.mkfifo(tmp_path / "pipe")

    def send() -> None:
        with (tmp_path / "pipe").open("wb") as pipe:
            pipe.write(data[: len(data) * 3 // 5 + 77])

    threading.Thread(target=send, daemon=True).start()
    assert 5 <= len(list(open_frames(tmp_path / "pipe"))) < 25


def test_a_password_is_in_no_message() -> None:
    pytest.importorskip("av", reason="PyAV is not installed: pip install 'mobilenet[video]'")
    frames = open_frames("rtsp://me:secret@127.0.0.1:1/x", attempts=0)
    with pytest.raises(ImageError, match=r"rtsp://me:\*\*\*@127\.0\.0\.1:1/x") as caught:
        list(frames)
    assert "secret" not in str(caught.value)


def test_a_source_that_never_was_there_is_given_up_early(serve) -> None:
    server = serve([])
    with pytest.raises(ImageError, match="gave no frame in 3 openings"):
        list(open_frames(server.address, attempts=10, sleep=lambda seconds: None))


def test_a_film_on_a_server_ends(tmp_path: Path) -> None:
    """Its length is known: it is no live source, which would begin anew for ever."""
    film(tmp_path / "f.mp4")
    handler = partial(QuietHandler, directory=str(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        frames = open_frames(f"http://127.0.0.1:{server.server_port}/f.mp4")
        assert len(list(frames)) == 25
        assert (frames.live, frames.reconnections) == (False, 0)
    finally:
        server.shutdown()
        server.server_close()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        pass


@pytest.mark.parametrize(
    ("words", "message"),
    [({"every": 0}, "every is 0"), ({"fps": 0.0}, "fps is 0.0"), ({"attempts": True}, "attempts is True")],
)
def test_impossible_numbers_are_named(words: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=message):
        open_frames(tmp_path, **words)

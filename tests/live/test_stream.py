"""Streams of answers: the same as of single pictures, in order; dropping, stopping, errors, films out, memory."""

from __future__ import annotations

import gc
import pickle
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from moving_pictures import pictures

from mobilenet.errors import ArgumentError, FilmError, ImageError
from mobilenet.live.stream import AHEAD, open_stream
from mobilenet.live.track import Tracker
from mobilenet.model import Model
from mobilenet.pictures.video import Frames, open_frames

MakeFilm = Callable[..., Path]
MakeSource = Callable[..., Frames]


def no_threads_left() -> bool:
    return not any(thread.name.startswith("mobilenet-") for thread in threading.enumerate())


@pytest.mark.parametrize("task", ["classifier", "detector", "segmenter"])
@pytest.mark.parametrize("threads", [1, 2])
def test_every_frame_of_a_film_is_answered_as_its_picture_is(
    task: str, threads: int, make_film: MakeFilm, request: pytest.FixtureRequest
) -> None:
    model: Model = request.getfixturevalue(task)
    film = make_film()
    results = list(open_stream(model, film))
    model.threads = threads
    assert [result.number for result in results] == list(range(20))
    for result, frame in zip(results, open_frames(film), strict=True):
        np.testing.assert_array_equal(result.pixels, frame.pixels)
        assert result.seconds == frame.seconds
        expected = model.predict(frame.pixels)
        if task == "detector":
            np.testing.assert_array_equal(result.boxes.xyxy, expected.boxes.xyxy)
            np.testing.assert_array_equal(result.boxes.conf, expected.boxes.conf)
            assert result.boxes.id.shape == result.boxes.conf.shape and expected.boxes.id is None
        elif task == "segmenter":
            np.testing.assert_array_equal(result.masks, expected.masks)
        else:
            np.testing.assert_array_equal(result.probs.data, expected.probs.data)
        assert result.plot().size == (64, 48)
    assert no_threads_left()
    model.threads = None


def test_a_result_says_where_it_is_from(classifier: Model, detector: Model, make_film: MakeFilm) -> None:
    film = make_film(count=3)
    last = list(classifier.stream(film))[-1]
    values = last.to_dict(top=2)
    assert (values["frame"], values["seconds"], values["path"]) == (2, 0.08, str(film))
    assert len(values["top"]) == 2 and {"decode", "inference", "total"} <= values["speed"].keys()
    assert str(last).startswith(f"{film} 2 (0.08 s): ")
    assert pickle.loads(pickle.dumps(last)).label == last.label
    with pytest.raises(AttributeError, match="boxes"):
        _ = last.boxes
    tracked = next(iter(detector.stream(film, track=Tracker(sure=0.0, unsure=0.0))))
    ids = [box["id"] for box in tracked.to_dict()["boxes"]]
    assert ids == list(range(len(tracked.boxes)))
    assert tracked.at_least(1.0).boxes.id.shape == (0,)
    untracked = next(iter(detector.stream(film, track=False)))
    assert untracked.boxes.id is None and "id" not in untracked.to_dict()["boxes"][0]


def test_every_and_max_frames(classifier: Model, make_film: MakeFilm) -> None:
    film = make_film(count=30)
    assert [result.number for result in classifier.stream(film, every=7)] == [0, 7, 14, 21, 28]
    stream = classifier.stream(film, every=2, max_frames=4)
    assert [result.number for result in stream] == [0, 2, 4, 6]
    assert stream.report()["results"] == 4
    assert no_threads_left()


def test_a_slow_reader_of_a_film_loses_nothing_and_little_waits(classifier: Model, source: MakeSource) -> None:
    """All wait for the reader: the source is never more ahead than all belts and hands hold."""
    given: list[int] = []
    stream = classifier.stream(source(pictures(200, (32, 32)), given.append))
    ahead = 0
    for result in stream:
        ahead = max(ahead, len(given) - result.number)
    in_hands = 2 * classifier._thread_count() + 4
    assert ahead <= 2 * AHEAD + in_hands
    assert (len(given), stream.report()["results"], stream.report()["dropped"]) == (200, 200, 0)


def test_live_a_slow_reader_gets_the_newest_and_the_rest_is_dropped(classifier: Model, source: MakeSource) -> None:
    """The reader takes one result and is away until the source has given all: at most what belts hold is left."""
    taken, all_given = threading.Event(), threading.Event()

    def before(number: int) -> None:
        if number == 1:
            assert taken.wait(30)
        if number == 299:
            all_given.set()

    stream = classifier.stream(source(pictures(300, (32, 32)), before, live=True), live=True, attempts=0)
    numbers = []
    with pytest.raises(ImageError, match="gave no frame"):  # a live source that has ended stays away
        for result in stream:
            numbers.append(result.number)
            taken.set()
            assert all_given.wait(60)
    report = stream.report()
    assert numbers[0] == 0 and numbers[-1] == 299 and numbers == sorted(set(numbers))
    assert len(numbers) <= 6
    assert report["dropped"] == 300 - len(numbers)


def test_a_film_that_is_seen_live_comes_at_its_own_speed(classifier: Model, source: MakeSource) -> None:
    """Each frame waits until its time has come, by the line's own clock, which is told here."""
    frames = source(pictures(10, (32, 32)))
    stream = classifier.stream(frames, live=True)
    waits: list[float] = []
    stream._line.stopping.wait = waits.append  # type: ignore[assignment,method-assign]
    results = list(stream)
    assert len(waits) == 10 and max(waits) > 0
    assert len(results) + stream.report()["dropped"] == 10


def test_stopping_from_the_loop_and_from_another_thread(classifier: Model, source: MakeSource) -> None:
    stream = classifier.stream(source(pictures(500, (32, 32))))
    for result in stream:
        if result.number == 3:
            break
    gc.collect()
    assert no_threads_left()
    other = classifier.stream(source(pictures(500, (32, 32))))
    for result in other:
        if result.number == 3:
            other.stop()
    assert no_threads_left()
    with pytest.raises(ArgumentError, match="once"):
        next(iter(other))


def test_an_error_of_the_source_comes_behind_all_results(classifier: Model, source: MakeSource) -> None:
    def before(number: int) -> None:
        if number == 9:
            raise ImageError("made: a lion ate the cable")

    found = []
    with pytest.raises(ImageError, match="lion"):
        for result in classifier.stream(source(pictures(20, (32, 32)), before)):
            found.append(result.number)  # noqa: PERF401
    assert found == list(range(9))
    assert no_threads_left()


def test_an_error_of_the_answer_ends_all(classifier: Model, source: MakeSource) -> None:
    mixed = [*pictures(5, (32, 32)), np.zeros((0, 32, 3), np.uint8), *pictures(50, (32, 32))]
    with pytest.raises(ImageError):
        list(classifier.stream(source(mixed)))
    assert no_threads_left()


def test_what_is_damaged_is_counted_and_named(classifier: Model, make_film: MakeFilm, tmp_path: Path) -> None:
    data = make_film("film.avi", count=40, size=(160, 120)).read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2 + 40])
    said: list[str] = []
    stream = classifier.stream(tmp_path / "cut.avi", notice=said.append)
    count = sum(1 for _ in stream)
    report = stream.report()
    assert 5 <= count < 30
    assert report["damaged"] == len(report["damage"]) == len(said) >= 1
    assert f"cut.avi: after {count} frames: " in said[-1]


def serve(parts: list[bytes]) -> ThreadingHTTPServer:
    """Each request in turn gets one of these, then nothing more."""
    waiting = iter(parts)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            part = next(waiting, None)
            self.send_response(200 if part is not None else 503)
            self.send_header("Content-Type", "video/mp2t")
            self.end_headers()
            self.wfile.write(part or b"")

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def test_a_stream_that_breaks_off_is_opened_again_and_its_time_goes_on(
    classifier: Model, make_film: MakeFilm
) -> None:
    data = make_film("film.ts", count=40).read_bytes()
    server = serve([data[: len(data) // 2], data])
    said: list[str] = []
    try:
        frames = open_frames(f"http://user:secret@127.0.0.1:{server.server_port}/x.ts", attempts=1)
        frames.notice = said.append
        stream = open_stream(classifier, frames, live=False)
        stream.frames.sleep = lambda seconds: None
        results = []
        with pytest.raises(ImageError, match="gave no frame in 1 openings"):
            for result in stream:
                results.append(result)  # noqa: PERF402
    finally:
        server.shutdown()
        server.server_close()
    assert 40 + 10 <= len(results) <= 80
    assert [result.number for result in results] == list(range(len(results)))
    assert (np.diff([result.seconds for result in results]) > 0).all()
    assert frames.reconnections >= 1
    assert any("broke off; opened again in 0.5 s" in text for text in said)
    assert "secret" not in "".join(said) + results[0].to_json()


def test_an_annotated_film_holds_every_result(detector: Model, make_film: MakeFilm, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    stream = detector.stream(make_film(size=(64, 48)), save=out, confidence=0.0)
    results = list(stream)
    written = list(open_frames(out))
    assert len(written) == len(results) == 20
    assert [frame.seconds for frame in written] == pytest.approx([result.seconds for result in results], abs=1e-3)
    assert written[0].pixels.shape == (48, 64, 3)
    for result, frame in zip(results, written, strict=True):
        drawn = np.asarray(result.plot(confidence=0.0)).astype(float)
        assert np.abs(frame.pixels - drawn).mean() < np.abs(frame.pixels - result.pixels.astype(float)).mean()
    assert {"draw", "encode"} <= stream.report()["steps_ms"].keys()


def test_a_film_that_is_stopped_is_whole(classifier: Model, source: MakeSource, tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed: pip install 'mobilenet[video]'")
    out = tmp_path / "out.mkv"
    stream = classifier.stream(source(pictures(300, (64, 48))), save=out)
    for result in stream:
        if result.number == 10:
            stream.stop()
    assert 10 <= len(list(open_frames(out))) < 300
    limited = classifier.stream(source(pictures(300, (64, 48))), save=out, max_frames=5)
    assert len(list(limited)) == len(list(open_frames(out))) == 5


def test_what_cannot_be_asked_for_is_named(classifier: Model, make_film: MakeFilm, tmp_path: Path) -> None:
    film = make_film(count=3)
    for words, message in (
        ({"every": 0}, "every is 0"),
        ({"max_frames": 0}, "max_frames is 0"),
        ({"fps": 5.0}, "frame rate of its own"),
        ({"attempts": -1}, "attempts is -1"),
        ({"save": film}, "is the film that is read"),
        ({"save": tmp_path / "x.gif"}, r"written as \.mp4"),
        ({"save": tmp_path / "none" / "x.mp4"}, "folder does not exist"),
    ):
        with pytest.raises(ArgumentError, match=message):
            classifier.stream(film, **words)
    with pytest.raises(ArgumentError, match="no such film"):
        classifier.stream(tmp_path / "none.mp4")
    with pytest.raises(ArgumentError, match="no camera -1"):
        classifier.stream(-1)


def test_a_film_that_cannot_be_written_ends_all(classifier: Model, make_film: MakeFilm) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    film = make_film(count=3)
    target = film.parent / "full.mkv"
    target.symlink_to("/dev/full")
    with pytest.raises(FilmError, match=r"full\.mkv: cannot be written"):
        list(classifier.stream(film, save=target))
    assert no_threads_left()


def test_memory_is_flat_over_thousands_of_frames(classifier: Model, make_film: MakeFilm) -> None:
    """After the first thousand nothing more is taken: 4,000 tiny frames of 3 kB would be 12 MB, each kept once."""
    psutil = pytest.importorskip("psutil", reason="psutil is not installed")
    process, grown = psutil.Process(), {}
    stream = classifier.stream(make_film(count=5000, size=(32, 32)))
    for result in stream:
        if result.number in (1000, 4990):
            grown[result.number] = process.memory_info().rss
    assert stream.report()["results"] == 5000
    assert grown[4990] - grown[1000] < 4 << 20

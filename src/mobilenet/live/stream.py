"""Answers about the frames of films, cameras and streams, as they come.

    decode -> infer -> track -> draw and write -> whoever takes the results

Each is a thread of its own with a short belt behind it (`live.belt`), so that they work at the same time and
memory stays flat. A film waits for whoever is slow, and every frame is answered. Live, nobody waits: on every belt
the newest counts and the others fall off, counted, so that what is taken is what was seen a moment ago.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenet.errors import ArgumentError
from mobilenet.live.answer import Answering
from mobilenet.live.belt import Belt, Line, Stopped
from mobilenet.live.draw import drawn
from mobilenet.live.measure import Meter
from mobilenet.live.result import FrameResult
from mobilenet.live.track import Tracker
from mobilenet.live.write import FilmWriter, check_film_name
from mobilenet.model import PLACED
from mobilenet.parallel import in_order
from mobilenet.pictures.video import Frame, Frames, open_frames

if TYPE_CHECKING:
    from mobilenet.model import Model

AHEAD = 4  # frames or results that may wait on a belt where all are kept
LIVE_AHEAD = 1


class Stream:
    """The answers about a source's frames: iterate over it once; it can be stopped from another thread.

    Attributes:
        frames: the source, with what was damaged and how often it was opened again.
        live: whether frames are dropped rather than answered late.
    """

    def __init__(
        self,
        model: Model,
        frames: Frames,
        *,
        live: bool,
        max_frames: int | None,
        tracker: Tracker | None,
        save: str | Path | None,
        confidence: float,
    ) -> None:
        self.frames, self.live = frames, live
        self._model, self._tracker, self._max_frames = model, tracker, max_frames
        self._save, self._confidence = save, confidence
        self._line, self._meter, self._written = Line(), Meter(), 0
        self.frames.sleep = self._line.stopping.wait

    def __iter__(self) -> Iterator[FrameResult]:
        """Results in the order of their frames.

        Raises:
            ImageError: the source cannot be opened, holds no frame, or stays away.
            FilmError: the annotated film cannot be written.
            ArgumentError: the results were taken before.
        """
        if self._meter.results or self._line.belts:
            raise ArgumentError("the results of a stream can be taken once: make another")
        self._meter.start()
        try:
            for result in self._started():
                result.speed["total"] = (time.perf_counter() - result.frame.made) * 1e3
                self._meter.add(result.speed)
                yield result
                if self._meter.results == self._max_frames:
                    return
        except Stopped:
            return
        finally:
            self.stop()

    def stop(self) -> None:
        """Ends all threads; the annotated film is closed, and whole. Results that wait are let go."""
        self._line.stop()

    def report(self) -> dict[str, Any]:
        """How fast it was, and what was left out.

        Returns:
            `source`, `results` (frames answered), `dropped` (frames and results that newer ones replaced),
            `damaged`, `damage` (the first of these, in words), `reconnections`, `elapsed_s`, `fps`, `steps_ms`:
            for `decode`, `preprocess`, `inference`, `postprocess`, `track`, `draw`, `encode` and `total` (from the
            decoded frame to the taken result) `mean`, `p50`, `p90`, `p99` and `max`, in milliseconds.
        """
        return {
            "source": self.frames.name,
            "live": self.live,
            "dropped": sum(belt.dropped for belt in self._line.belts.values()),
            "damaged": self.frames.damaged,
            "damage": list(self.frames.damage),
            "reconnections": self.frames.reconnections,
            **self._meter.to_dict(),
        }

    def _started(self) -> Belt[FrameResult]:
        """All stages running; the belt behind the last."""
        capacity = LIVE_AHEAD if self.live else AHEAD
        put = partial(self._line.stage, capacity=capacity, newest=self.live)
        decoded = put("decode", self._paced())
        results = put("infer", self._answered(decoded))
        if self._tracker is not None:
            results = put("track", map(self._tracked, results))
        if self._save is not None:
            results = put("save", self._saved(results))
        return results

    def _paced(self) -> Iterator[Frame]:
        """The frames; those of a film that is to be seen live come when their time has come."""
        began: float | None = None
        # Where all are kept, the source is left after the last that is wanted; live, some of these fall off.
        for frame in islice(self.frames, None if self.live else self._max_frames):
            if self.live and not self.frames.live and frame.seconds is not None:
                now = time.monotonic()
                began = now - frame.seconds if began is None else began
                self._line.stopping.wait(max(0.0, began + frame.seconds - now))
                frame = replace(frame, made=time.perf_counter())
            yield frame

    def _answered(self, decoded: Iterable[Frame]) -> Iterator[FrameResult]:
        """A film's frames are answered several at once, each by one thread; others one by one, by all threads."""
        threads = self._model._thread_count()
        several = not self.live and not self.frames.live and threads > 1
        answer = Answering(self._model, self.frames.name, threads=1 if several else threads)
        if several:
            return in_order(answer, iter(decoded), workers=threads, ahead=lambda _: True)
        return map(answer, decoded)

    def _tracked(self, result: FrameResult) -> FrameResult:
        assert self._tracker is not None
        start = time.perf_counter()
        boxes = result.answer.boxes
        ids = self._tracker.update(boxes.xyxy, boxes.conf, boxes.cls, result.number)
        tracked = result.with_ids(ids)
        tracked.speed["track"] = (time.perf_counter() - start) * 1e3
        return tracked

    def _saved(self, results: Iterable[FrameResult]) -> Iterator[FrameResult]:
        assert self._save is not None
        writer: FilmWriter | None = None
        try:
            for result in results:
                if writer is None:
                    rate = self.frames.rate
                    writer = FilmWriter(self._save, rate / self.frames.every if rate else None)
                start = time.perf_counter()
                picture = drawn(result.pixels, result.answer, self._confidence)
                middle = time.perf_counter()
                writer.add(np.asarray(picture), result.seconds)
                result.speed["draw"] = (middle - start) * 1e3
                result.speed["encode"] = (time.perf_counter() - middle) * 1e3
                yield result
        finally:
            if writer is not None:
                writer.close()


def open_stream(
    model: Model,
    source: str | int | os.PathLike[str] | Frames,
    *,
    live: bool | None = None,
    every: int = 1,
    max_frames: int | None = None,
    fps: float | None = None,
    track: bool | Tracker = True,
    save: str | Path | None = None,
    confidence: float = 0.25,
    attempts: int = 10,
    notice: Callable[[str], None] | None = None,
) -> Stream:
    """Answers about the frames of a source; nothing is opened before the first is asked for.

    Args:
        model: of a task that `Model.predict` answers.
        source: as for `pictures.video.open_frames`, or what that gives.
        live: drop frames rather than lag. Default: for cameras and network streams. A file is then played at its
            own speed, as a camera would see it.
        every: answer only each n-th frame.
        max_frames: end after so many results.
        fps: of a folder or pattern of pictures, how many a second it is.
        track: follow a detector's boxes (`result.boxes.id`), by this tracker or a new one.
        save: write the frames with their answers drawn over them to this film.
        confidence: boxes and classes that are less probable are not drawn.
        attempts: how many openings in a row of a live source may give no frame.
        notice: is told, in words, of what is damaged and of broken connections; it is called by another thread.

    Raises:
        ArgumentError: no such source, a value out of its range, or the model answers with something else.
    """
    model._need("classify", *PLACED)
    if max_frames is not None and (type(max_frames) is not int or max_frames < 1):
        raise ArgumentError(f"max_frames is {max_frames!r}: a whole number from 1 is needed")
    if not isinstance(source, Frames):
        source = open_frames(source, attempts=attempts, every=every, fps=fps, low_delay=bool(live), notice=notice)
    if save is not None:
        _check_target(Path(save), source.source)
    detects = model.task == "detect"
    tracker = (track if isinstance(track, Tracker) else Tracker()) if track and detects else None
    return Stream(
        model,
        source,
        live=source.live if live is None else live,
        max_frames=max_frames,
        tracker=tracker,
        save=save,
        confidence=confidence,
    )


def _check_target(target: Path, source: str) -> None:
    check_film_name(target)
    if target.exists() and Path(source).exists() and target.samefile(source):
        raise ArgumentError(f"{target}: is the film that is read; give the new one another name")

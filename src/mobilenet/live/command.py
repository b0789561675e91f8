"""What `mobilenet predict` does with films, sequences, cameras and streams."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from mobilenet.live.stream import open_stream
from mobilenet.pictures.sources import expand_sources
from mobilenet.pictures.video import Frames, is_pattern, open_frames, open_pictures

if TYPE_CHECKING:
    from mobilenet.live.result import FrameResult
    from mobilenet.live.stream import Stream
    from mobilenet.model import Model

INTERRUPTED = 130  # exit status, as shells have it for Ctrl-C
STEPS = ("decode", "preprocess", "inference", "postprocess", "track", "draw", "encode", "total")


def predict_stream(
    model: Model,
    sources: Sequence[str],
    *,
    live: bool | None,
    every: int | None,
    max_frames: int | None,
    fps: float | None,
    track: bool | None,
    save: str | None,
    as_json: bool,
    least: float,
    top: int,
) -> int:
    """Writes a line for each frame to standard output, and a report to standard error; returns the exit status.

    Ctrl-C and SIGTERM end it as the film's end does: what is written is whole.
    """
    every = 1 if every is None else every
    frames = _frames(sources, fps, every, bool(live))
    stream = open_stream(
        model,
        frames,
        live=live,
        max_frames=max_frames,
        track=track is not False,
        save=save,
        confidence=least or 0.25,
    )
    interrupted = False
    try:
        with _terminable():
            for result in stream:
                _write(result, sys.stdout, as_json=as_json, least=least, top=top)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        stream.stop()
        _report(stream, as_json=as_json)
    if interrupted:
        return INTERRUPTED
    return 1 if frames.damaged and not frames.live else 0


def _frames(sources: Sequence[str], fps: float | None, every: int, low_delay: bool) -> Frames:
    if fps is None or (len(sources) == 1 and is_pattern(sources[0])):
        return open_frames(sources[0], every=every, fps=fps, low_delay=low_delay, notice=_notice)
    name = sources[0] if len(sources) == 1 else f"{sources[0]} ..."
    return open_pictures(
        list(expand_sources(sources, stdin=sys.stdin)), name, fps=fps, every=every, notice=_notice
    )


def _write(result: FrameResult, stream: TextIO, *, as_json: bool, least: float, top: int) -> None:
    """One line, at once: whoever reads a pipe sees what the camera sees now."""
    shown = result.at_least(least) if least > 0 else result
    if as_json:
        stream.write(json.dumps(_values(shown, least, top), ensure_ascii=False) + "\n")
    elif hasattr(shown, "probs"):
        best = [number for number in shown.probs.top(top) if shown.probs.data[number] >= least]
        named = ", ".join(f"{shown.names[n]} {shown.probs.data[n]:.1%}" for n in best)
        stream.write(f"{shown.place}: {named or f'no class reaches {least:.0%}'}\n")
    else:
        stream.write(f"{shown}\n")
    stream.flush()


def _values(result: FrameResult, least: float, top: int) -> dict[str, Any]:
    if hasattr(result, "masks"):
        return result.to_dict(runs=True)
    if not hasattr(result, "probs"):
        return result.to_dict()
    values = result.to_dict(top=top)
    values["top"] = [entry for entry in values["top"] if entry["confidence"] >= least]
    return values if values["top"] else {**values, "label": None}


def _notice(text: str) -> None:
    sys.stderr.write(f"note: {text}\n")


def _report(stream: Stream, *, as_json: bool) -> None:
    """As one line of JSON, the last, or as text."""
    report = stream.report()
    if as_json:
        sys.stderr.write(json.dumps({"report": report}) + "\n")
        return
    counts = ", ".join(f"{report[name]} {name}" for name in ("dropped", "damaged", "reconnections"))
    lines = [f"{report['results']} frames in {report['elapsed_s']:.1f} s: {report['fps']:.1f} a second; {counts}"]
    steps = report["steps_ms"]
    known = [step for step in STEPS if step in steps]
    table = [("milliseconds", *steps[known[0]])] if known else []
    table += [(step, *(f"{value:.2f}" for value in steps[step].values())) for step in known]
    lines += [f"{name:<14}" + "".join(f"{cell:>9}" for cell in cells) for name, *cells in table]
    sys.stderr.write("\n".join(lines) + "\n")


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM, which service managers send, is Ctrl-C meanwhile."""
    try:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # not in the main thread: whoever runs us there handles signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

"""Frames a second of a detector on a film, decoding included, and where the milliseconds go.

    python bench/live.py [--frames 600] [--name ssdlite320_mobilenet_v3_small] [--candidates 60] [--threads 2]

Makes a film (H.264, 640 x 480, 30 frames a second, rectangles that move over noise), and a detector with random
weights, quantised to int8 by minima and maxima; the background's bias is raised until about `--candidates` pairs
of a prior and a class pass the threshold of 0.001, because a network that has learnt nothing finds everything
everywhere. Every box that it finds is tracked, and drawn where there is drawing. Each of these `--rounds` times in
turns: decoding alone; decoding, inference and tracking; with drawing and encoding too; and the second step by step
in one thread, to show what working at the same time brings. Prints Markdown tables: frames a second, minimum,
median and maximum of the rounds, and the least processor time of all threads together; and of the best round of a
pipeline, the milliseconds of each step (by the clock, so that waiting for a processor is in them; `total` is from
the decoded frame to the taken result, with all waiting on the belts, which are full because nothing is dropped).

Needs `pip install '.[video]'`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import mobilenet
from detection import quietened
from mobilenet.bench.tables import processor
from mobilenet.bench.timing import pinned
from mobilenet.live.track import Tracker
from mobilenet.model import Model
from mobilenet.pictures.video import open_frames
from mobilenet.quantise.quantise import quantise
from mobilenet.quantise.random import random_batch, random_model

WIDTH, HEIGHT, RATE = 640, 480, 30
BAR = 60  # frames a second of decoding, inference and tracking, with 2 threads
CALIBRATION = 4

Report = dict[str, Any]


def main() -> None:
    """Reads the command line and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="ssdlite320_mobilenet_v3_small")
    parser.add_argument("--classes", type=int, default=91)
    parser.add_argument("--candidates", type=int, default=60)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    words = parser.parse_args()
    model = detector(words.name, words.classes, words.candidates)
    model.threads = words.threads
    with tempfile.TemporaryDirectory() as folder, pinned(words.threads):
        film = make_film(Path(folder) / "film.mp4", words.frames)
        runs: dict[str, Callable[[], Report]] = {
            "decoding alone": partial(decoding, film),
            "decoding, inference, tracking": partial(streamed, model, film),
            "the same, drawn and encoded (H.264)": partial(streamed, model, film, Path(folder) / "out.mp4"),
            "decoding, inference, tracking in one thread": partial(one_by_one, model, film),
        }
        reports: dict[str, list[Report]] = {name: [] for name in runs}
        for _ in range(words.rounds):
            for name, run in runs.items():
                spent = time.process_time()
                report = run()
                reports[name].append({**report, "cpu_ms": (time.process_time() - spent) * 1e3 / words.frames})
    print(
        f"{words.name} int8, {words.threads} thread(s), {WIDTH} x {HEIGHT}, {words.frames} frames, {processor()}\n"
    )
    print_rates(reports)
    print_steps(reports)
    if words.threads == 2:
        best = max(report["fps"] for report in reports["decoding, inference, tracking"])
        print(f"\nBar {BAR} frames a second: {'holds' if best >= BAR else 'missed'} ({best:.0f})")


def detector(name: str, classes: int, candidates: int) -> Model:
    """The detector with random weights, in integers."""
    model = quietened(random_model(name, classes=classes), candidates)
    batches = (random_batch(model, seed=number) for number in range(CALIBRATION))
    return Model.of(quantise(model, batches))


def make_film(path: Path, frames: int, seed: int = 0) -> Path:
    """Coloured rectangles that move over a background of noise that moves, too."""
    import av

    noise = np.random.default_rng(seed).integers(60, 90, (HEIGHT + 64, WIDTH + 64, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(frames):
            top, left = number % 64, number // 2 % 64
            pixels = noise[top : top + HEIGHT, left : left + WIDTH].copy()
            for which in range(6):
                x = (number * (2 + which) + 100 * which) % (WIDTH - 80)
                y = (number * (1 + which) + 60 * which) % (HEIGHT - 60)
                pixels[y : y + 60, x : x + 80] = 40 * which, 220 - 30 * which, 90
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def tracker() -> Tracker:
    """One that follows every box, however improbable: what has learnt nothing is sure of nothing."""
    return Tracker(sure=0.0, unsure=0.0)


def decoding(film: Path) -> Report:
    """Frames decoded and made RGB, by this thread and those of the decoder."""
    start = time.perf_counter()
    count = sum(1 for _ in open_frames(film))
    return {"fps": count / (time.perf_counter() - start)}


def streamed(model: Model, film: Path, save: Path | None = None) -> Report:
    """The pipeline, as `Model.stream` has it."""
    stream = model.stream(film, track=tracker(), save=save, confidence=0.0)
    boxes = sum(len(result.boxes) for result in stream)
    report = stream.report()
    return {**report, "boxes": boxes / report["results"]}


def one_by_one(model: Model, film: Path) -> Report:
    """The same work without a pipeline: each frame with all threads of the engine, then the next."""
    follow, start, count = tracker(), time.perf_counter(), 0
    for frame in open_frames(film):
        boxes = model.predict(frame.pixels).boxes
        follow.update(boxes.xyxy, boxes.conf, boxes.cls, frame.number)
        count += 1
    return {"fps": count / (time.perf_counter() - start)}


def print_rates(reports: dict[str, list[Report]]) -> None:
    """Frames a second of each way."""
    columns = "frames a second, minimum | median | maximum | processor time a frame, ms | boxes a frame"
    print(f"| what | {columns} |\n|" + " --- |" * 6)
    for name, rounds in reports.items():
        rates = [report["fps"] for report in rounds]
        spent = min(report["cpu_ms"] for report in rounds)
        boxes = f"{rounds[0]['boxes']:.1f}" if "boxes" in rounds[0] else ""
        print(f"| {name} | {min(rates):.1f} | {median(rates):.1f} | {max(rates):.1f} | {spent:.2f} | {boxes} |")


def print_steps(reports: dict[str, list[Report]]) -> None:
    """Milliseconds of the steps in the best round of each way that has them."""
    print("\n| step, ms | mean | p50 | p90 | p99 | max |\n|" + " --- |" * 6)
    for name, rounds in reports.items():
        best = max(rounds, key=lambda report: report["fps"])
        for step, figures in best.get("steps_ms", {}).items():
            print(f"| {name}: {step} | {' | '.join(f'{value:.2f}' for value in figures.values())} |")


if __name__ == "__main__":
    print(f"mobilenet {mobilenet.__version__}\n")
    main()

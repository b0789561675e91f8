"""`mobilenet predict` on films, sequences and streams, as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilenet.errors import ArgumentError
from mobilenet.live.choose import is_moving
from mobilenet.model import Model
from mobilenet.pictures.video import open_frames

MakeFilm = Callable[..., Path]


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mobilenet", "predict", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=120, check=False)


@pytest.fixture
def home(tmp_path: Path, detector: Model) -> Path:
    detector.save(tmp_path / "m.safetensors")
    return tmp_path


def test_a_film_as_json_with_a_report_and_an_annotated_film(home: Path, make_film: MakeFilm) -> None:
    make_film("in.mp4")
    done = run(home, "m.safetensors", "in.mp4", "--json", "--every", "3", "--save", "out.mp4")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["frame"] for line in lines] == [0, 3, 6, 9, 12, 15, 18]
    assert [line["seconds"] for line in lines] == pytest.approx(np.arange(7) * 0.12)
    assert all(line["path"] == "in.mp4" and line["boxes"] and "id" in line["boxes"][0] for line in lines)
    report = json.loads(done.stderr.splitlines()[-1])["report"]
    assert (report["results"], report["dropped"], report["live"]) == (7, 0, False)
    assert report["fps"] > 0 and {"p50", "p99"} <= report["steps_ms"]["inference"].keys()
    assert len(list(open_frames(home / "out.mp4"))) == 7


def test_pictures_as_a_film(home: Path) -> None:
    (home / "frames").mkdir()
    for number in (1, 2, 10):
        Image.fromarray(np.full((48, 64, 3), number, np.uint8)).save(home / "frames" / f"f{number}.png")
    (home / "frames" / "f3.png").write_bytes(b"no picture")
    for source in ("frames", "frames/*.png", "frames/f%d.png"):
        done = run(home, "m.safetensors", source, "--json", "--fps", "2")
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert [line["seconds"] for line in lines] == [0.0, 0.5, 1.5]
        assert done.returncode == 1 and "f3.png" in done.stderr


def test_the_report_as_text_and_the_limit(home: Path, make_film: MakeFilm) -> None:
    make_film("in.mp4")
    done = run(home, "m.safetensors", "in.mp4", "--max-frames", "4", "--no-track", "--min-confidence", "1")
    assert done.stdout.splitlines() == [f"in.mp4 {n} ({n * 0.04:.2f} s): nothing found" for n in range(4)]
    assert done.stderr.startswith("4 frames in ") and "inference" in done.stderr and "p99" in done.stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are of POSIX")
@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_what_is_written_whole(home: Path, make_film: MakeFilm, which: int) -> None:
    """The film comes through a pipe that stays open: it would wait for ever."""
    os.mkfifo(home / "pipe")
    words = ["predict", "m.safetensors", "pipe", "--json", "--save", "out.mkv"]
    with (home / "errors").open("w") as errors_file:
        process = subprocess.Popen(
            [sys.executable, "-m", "mobilenet", *words],
            cwd=home, stdout=subprocess.PIPE, stderr=errors_file, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
    with process, (home / "pipe").open("wb") as pipe:
        pipe.write(make_film("in.ts", count=60).read_bytes())
        pipe.flush()
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(5)]
        process.send_signal(which)
        rest = process.stdout.read()  # not communicate(), which forgets what was read ahead of the five lines
        assert process.wait(60) is not None
    errors = (home / "errors").read_text()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    numbers = [line["frame"] for line in lines] + [json.loads(line)["frame"] for line in rest.splitlines()]
    assert numbers == list(range(len(numbers)))
    assert json.loads(errors.splitlines()[-1])["report"]["results"] in (len(numbers), len(numbers) + 1)
    assert len(list(open_frames(home / "out.mkv"))) >= len(numbers)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("in.mp4", "in.mp4"), "is predicted alone"),
        (("in.mp4", "--csv"), "no --csv"),
        (("a.png", "--every", "2"), "--every is for films"),
        (("frames%d.png",), "holds no frame"),
    ],
)
def test_what_cannot_be_asked_for_is_one_line(
    home: Path, make_film: MakeFilm, words: tuple[str, ...], message: str
) -> None:
    make_film("in.mp4", count=3)
    Image.new("RGB", (8, 8)).save(home / "a.png")
    done = run(home, "m.safetensors", *words)
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr


def test_films_are_told_from_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "0", "pic.png"):
        (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n")
    none: dict[str, object] = {"--every": None, "--fps": None}
    assert [is_moving([s], none) for s in ("a.mp4", "1", "rtsp://x/y", "f%04d.png")] == [True] * 4
    assert [is_moving([s], none) for s in ("0", "pic.png", "*.png", "missing.jpg", "-")] == [False] * 5
    assert is_moving(["pic.png", "0"], {"--fps": 5.0})
    with pytest.raises(ArgumentError, match="--fps"):
        is_moving(["a.mp4"], {"--fps": 5.0})

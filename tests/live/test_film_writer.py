"""Films that are written: endings, sizes, times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from moving_pictures import pictures

from mobilenet.errors import ArgumentError
from mobilenet.live.write import FilmWriter
from mobilenet.pictures.video import open_frames

pytest.importorskip("av", reason="PyAV is not installed: pip install 'mobilenet[video]'")


@pytest.mark.parametrize("ending", ["mp4", "mkv", "mov", "ts", "avi", "webm"])
@pytest.mark.parametrize("rate", [25.0, 30000 / 1001])
def test_frames_come_back_at_their_times(ending: str, rate: float, tmp_path: Path) -> None:
    path = tmp_path / f"x.{ending}"
    with FilmWriter(path, rate) as writer:
        for picture in pictures(30, (64, 48)):
            writer.add(picture)
    frames = open_frames(path)
    found = list(frames)
    assert len(found) == writer.frames == 30
    assert frames.rate == pytest.approx(rate, rel=0.02)
    assert [frame.seconds for frame in found] == pytest.approx(np.arange(30) / rate, abs=2e-3)
    for frame, picture in zip(found, pictures(30, (64, 48)), strict=True):
        assert np.abs(frame.pixels.astype(float) - picture).mean() < 12


def test_gaps_stay_gaps_and_time_never_runs_backwards(tmp_path: Path) -> None:
    path, moments = tmp_path / "x.mp4", [0.0, 0.04, 0.5, 0.5, 0.3, 2.0]
    with FilmWriter(path, 25) as writer:
        for picture, seconds in zip(pictures(6, (64, 48)), moments, strict=True):
            writer.add(picture, seconds)
    found = [frame.seconds for frame in open_frames(path)]
    assert found == pytest.approx([0.0, 0.04, 0.5, 0.5, 0.5, 2.0], abs=1e-3)
    assert (np.diff(np.asarray(found)) > 0).all()


def test_odd_and_changing_sizes(tmp_path: Path) -> None:
    path = tmp_path / "x.mkv"
    with FilmWriter(path) as writer:
        for size in ((65, 49), (32, 32), (200, 100), (1, 1)):
            writer.add(np.full((*size[::-1], 3), 200, np.uint8))
    found = list(open_frames(path))
    assert [frame.pixels.shape for frame in found] == [(48, 64, 3)] * 4
    assert all(abs(float(frame.pixels.mean()) - 200) < 5 for frame in found)


def test_what_is_no_film_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"x\.png: a film is written as \.mp4"):
        FilmWriter(tmp_path / "x.png")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(ArgumentError, match="is a folder"):
        FilmWriter(tmp_path / "folder.mp4")
    with FilmWriter(tmp_path / "none.mp4"):
        pass
    assert not (tmp_path / "none.mp4").exists()

"""Which files are taken for films."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from mobilenet.pictures.film_kinds import is_film


@pytest.mark.parametrize("kind", ["mp4", "mov", "avi", "matroska", "webm", "mpegts", "mpeg", "flv", "ogg"])
def test_films_are_recognised_by_what_is_in_them(kind: str, tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="PyAV is not installed: pip install 'mobilenet[video]'")
    codec = {"webm": "libvpx", "mpeg": "mpeg1video", "flv": "flv", "ogg": "libtheora"}.get(kind, "mpeg4")
    try:
        av.Codec(codec, "w")
    except ValueError:
        pytest.skip(f"this build of PyAV has no {codec}")
    with av.open(str(tmp_path / "film"), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        container.mux(stream.encode())
    assert is_film(tmp_path / "film")


@pytest.mark.parametrize("kind", ["jpeg", "png", "gif", "bmp", "webp", "ppm", "avif"])
def test_pictures_are_no_films(kind: str, tmp_path: Path) -> None:
    data = io.BytesIO()
    try:
        Image.new("RGB", (64, 48), (200, 30, 90)).save(data, kind)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow writes no {kind}")
    (tmp_path / "picture").write_bytes(data.getvalue())
    assert not is_film(tmp_path / "picture")


def test_names_folders_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.MP4").write_bytes(b"")
    (tmp_path / "empty").write_bytes(b"")
    assert is_film(tmp_path / "x.MP4")
    assert not any(is_film(tmp_path / name) for name in ("empty", "missing.mp4", "."))

"""Films that the tests make, coloured rectangles that move, and models small enough for thousands of frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from moving_pictures import pictures

import mobilenet
from mobilenet.model import Model
from mobilenet.pictures.video import Decoded, Frames


@pytest.fixture
def make_film(tmp_path: Path) -> Callable[..., Path]:
    """A function that makes a film and gives its path."""
    av = pytest.importorskip("av", reason="PyAV is not installed: pip install 'mobilenet[video]'")

    def make(name: str = "film.mp4", count: int = 20, size: tuple[int, int] = (64, 48), rate: int = 25) -> Path:
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream("mpeg4", rate=rate)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            stream.bit_rate, stream.gop_size = 2_000_000, 5
            for pixels in pictures(count, size):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
        return tmp_path / name

    return make


@pytest.fixture(scope="session")
def classifier() -> Model:
    return mobilenet.create("mobilenet_v3_small", width_multiplier=0.25, resolution=32, classes=4)


@pytest.fixture(scope="session")
def detector() -> Model:
    model = mobilenet.create("mobilenet_v3_small", head="ssdlite", width_multiplier=0.35, resolution=96, classes=3)
    assert model.decoding is not None
    model.decoding = replace(model.decoding, detections=12)
    return model


@pytest.fixture(scope="session")
def segmenter() -> Model:
    return mobilenet.create("mobilenet_v3_small", head="lraspp", width_multiplier=0.35, resolution=64, classes=3)


@pytest.fixture
def source() -> Callable[..., Frames]:
    """A function of pixels, and of what happens before each of them is given, to a source of frames."""

    def make(
        pixels: list[np.ndarray], before: Callable[[int], object] = lambda number: None, *, live: bool = False
    ) -> Frames:
        def opened(frames: Frames):
            for number, picture in enumerate(pixels):
                before(number)
                yield Decoded(number / 25, 0.0, partial(np.copy, picture))

        return Frames("made", live, opened, attempts=0)

    return make

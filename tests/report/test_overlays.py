"""Truth and answer side by side."""

from __future__ import annotations

import numpy as np
import pytest

from mobilenet.errors import ArgumentError
from mobilenet.pictures.palette import voc_palette
from mobilenet.report.overlays import draw_overlays

NAMES = ("background", "cell")


def row(height: int, width: int, found: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A white picture without any cell, and an answer of one class."""
    picture = np.full((height, width, 3), 255, np.uint8)
    return picture, np.zeros((height, width), np.uint8), np.full((height, width), found, np.uint8)


def test_truth_is_on_the_left_and_the_answer_on_the_right() -> None:
    image = np.asarray(draw_overlays([row(260, 260, 1)], NAMES))
    height, width, _ = image.shape
    left, right = image[height - 100, 40], image[height - 100, width - 40]
    np.testing.assert_array_equal(left, 255)
    colour = 255 + (voc_palette()[1].astype(float) - 255) * 0.55
    np.testing.assert_allclose(right, colour, atol=2)


def test_pictures_of_all_sizes_have_their_place() -> None:
    one = draw_overlays([row(90, 120, 1)], NAMES)
    many = draw_overlays([row(90, 120, 1), row(600, 300, 0), row(20, 900, 1)], NAMES)
    assert many.width > one.width
    assert many.height > one.height
    three = [str(number) for number in range(30)]
    assert draw_overlays([row(90, 120, 7)], three).height > one.height, "the legend takes more lines"


def test_what_cannot_be_drawn() -> None:
    with pytest.raises(ArgumentError, match="no pictures"):
        draw_overlays([], NAMES)
    picture, truth, _ = row(50, 60, 0)
    with pytest.raises(ArgumentError, match=r"masks of \[9, 9\] do not fit"):
        draw_overlays([(picture, truth, np.zeros((9, 9), np.uint8))], NAMES)

"""Faces by five points: the transform is the one that was put in, and pixels come from where it says."""

from __future__ import annotations

import numpy as np
import pytest

from mobilenet.errors import ArgumentError, ImageError
from mobilenet.pictures.align import SIDE, TEMPLATE, align, similarity_transform


def moved(points: np.ndarray, degrees: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return scale * points @ turn.T + shift


@pytest.mark.parametrize("degrees", [0.0, 17.0, 90.0, 180.0, -135.0])
@pytest.mark.parametrize("scale", [0.2, 1.0, 7.5])
def test_a_known_transform_is_found(degrees: float, scale: float) -> None:
    start = np.array(TEMPLATE)
    matrix = similarity_transform(start, moved(start, degrees, scale, (31.0, -8.0)))
    angle = np.deg2rad(degrees)
    expected = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    np.testing.assert_allclose(matrix[:, :2], expected, atol=1e-9)
    np.testing.assert_allclose(matrix[:, 2], (31.0, -8.0), atol=1e-9)


def test_noise_gives_the_least_squares_and_mirrored_points_no_mirroring() -> None:
    generator = np.random.default_rng(0)
    start = generator.normal(size=(5, 2))
    end = moved(start, 40.0, 2.0, (1.0, 2.0)) + generator.normal(scale=0.3, size=(5, 2))
    matrix = similarity_transform(start, end)
    # in two dimensions a similarity is linear in (a, b, x, y): an ordinary least squares problem
    zero, one = np.zeros(5), np.ones(5)
    rows = np.concatenate(
        [np.stack([start[:, 0], -start[:, 1], one, zero], 1), np.stack([start[:, 1], start[:, 0], zero, one], 1)]
    )
    a, b, x, y = np.linalg.lstsq(rows, end.T.reshape(-1), rcond=None)[0]
    np.testing.assert_allclose(matrix, [[a, -b, x], [b, a, y]], atol=1e-9)
    mirrored = similarity_transform(start, start * (-1.0, 1.0))
    assert np.linalg.det(mirrored[:, :2]) >= 0.0


def test_points_on_the_template_leave_the_picture_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    np.testing.assert_array_equal(align(pixels, TEMPLATE), pixels)


def test_a_shifted_face_comes_back_and_outside_is_black() -> None:
    pixels = np.random.default_rng(1).integers(1, 256, (150, 140, 3), dtype=np.uint8)
    found = align(pixels, np.add(TEMPLATE, (10, 20)))
    np.testing.assert_array_equal(found, pixels[20 : 20 + SIDE, 10 : 10 + SIDE])
    found = align(pixels, np.add(TEMPLATE, (-10, 60)))
    assert not found[:, :10].any()
    assert not found[90:].any()
    np.testing.assert_array_equal(found[:90, 10:], pixels[60:150, :102])


def test_half_a_pixel_is_the_mean_and_a_ramp_stays_a_ramp() -> None:
    pixels = np.repeat((np.arange(160, dtype=np.uint8) + 20)[None, :, None], 160, axis=0).repeat(3, axis=2)
    found = align(pixels, np.add(TEMPLATE, (8.5, 5.0)))
    np.testing.assert_allclose(found[5, :, 0], np.arange(SIDE) + 28.5, atol=0.51)
    turned = align(pixels, moved(np.array(TEMPLATE), 90.0, 1.0, (130.0, 0.0)))  # x of the source falls with y
    np.testing.assert_allclose(turned[:, 50, 0], 150.0 - np.arange(SIDE), atol=0.51)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((4, 2)), "five"),
        (np.zeros((5, 3)), "five"),
        (np.ones((5, 2)), "fall together"),
        (np.full((5, 2), np.nan), "finite"),
    ],
)
def test_impossible_points_are_refused(points: np.ndarray, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        align(np.zeros((20, 20, 3), np.uint8), points)


def test_far_points_and_a_bad_picture() -> None:
    far = np.array(TEMPLATE) * 1e12
    assert not align(np.full((20, 20, 3), 9, np.uint8), far)[1:, 1:].any()
    with pytest.raises(ImageError):
        align(b"no picture", TEMPLATE)

"""Faces brought to one place and size, from five points that somebody found in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mobilenet.errors import ArgumentError
from mobilenet.pictures.decode import decode

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from mobilenet.pictures.decode import Picture

SIDE = 112
# Where ArcFace (Deng et al. 2019) and MobileFaceNet want the eyes, the nose and the corners of the mouth: (x, y)
# in pixels of a 112 x 112 picture, left and right as the viewer sees them.
TEMPLATE = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)


def align(picture: Picture, five_points: ArrayLike) -> NDArray[np.uint8]:
    """A face, turned, scaled and moved (never sheared or mirrored) so that its points lie on `TEMPLATE`.

    Interpolation is bilinear; what lies outside of the picture is black. As in OpenCV, a point's whole numbers are
    the middle of a pixel.

    Args:
        picture: a path, bytes, PIL image, or uint8 array (height, width, 3).
        five_points: (5, 2), x and y in pixels: the eye on the left of the picture, the eye on its right, the tip
            of the nose, the left and the right corner of the mouth.

    Returns:
        uint8 (112, 112, 3), RGB.

    Raises:
        ImageError: the picture cannot be read.
        ArgumentError: there are not five finite points, or they all fall together.
    """
    points = np.asarray(five_points, np.float64)
    if points.shape != (5, 2):
        raise ArgumentError(f"five_points has shape {points.shape}: five (x, y), that is (5, 2), are needed")
    back = similarity_transform(np.array(TEMPLATE), points)
    return _sampled(np.asarray(decode(picture), np.uint8), back)


def similarity_transform(source: ArrayLike, target: ArrayLike) -> NDArray[np.float64]:
    """The rotation, uniform scale and shift that bring points nearest to others, by least squares.

    Umeyama 1991, "Least-squares estimation of transformation parameters between two point patterns", equations 40
    to 43, in two dimensions: mirroring is never part of it.

    Args:
        source, target: (N, 2) with N >= 2, x and y.

    Returns:
        float64 (2, 3): target = matrix[:, :2] @ source + matrix[:, 2].

    Raises:
        ArgumentError: shapes differ, a number is not finite, or all points of either side fall together.
    """
    start, end = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if start.shape != end.shape or start.ndim != 2 or start.shape[1] != 2 or len(start) < 2:
        raise ArgumentError(f"points have shapes {start.shape} and {end.shape}: (N, 2) of two or more are needed")
    if not (np.isfinite(start).all() and np.isfinite(end).all()):
        raise ArgumentError("points must be finite numbers")
    middle, goal = start.mean(axis=0), end.mean(axis=0)
    spread = np.mean(np.sum((start - middle) ** 2, axis=1))
    covariance = (end - goal).T @ (start - middle) / len(start)
    if spread < 1e-12 or np.mean(np.sum((end - goal) ** 2, axis=1)) < 1e-12:
        raise ArgumentError("all points fall together: no scale and no direction can be seen in them")
    left, singular, right = np.linalg.svd(covariance)
    signs = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right)) or 1.0])
    rotation = (left * signs) @ right
    scale = float(singular @ signs) / spread
    return np.concatenate([scale * rotation, (goal - scale * rotation @ middle)[:, None]], axis=1)


def _sampled(pixels: NDArray[np.uint8], back: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The picture (height, width, 3) at the places to which `back` takes the pixels of the aligned one."""
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    x = back[0, 0] * columns + back[0, 1] * rows + back[0, 2]
    y = back[1, 0] * columns + back[1, 1] * rows + back[1, 2]
    height, width = pixels.shape[:2]
    # clipped to where all four neighbours are black, so that far points do not overflow
    x, y = np.clip(x, -2.0, width + 1.0), np.clip(y, -2.0, height + 1.0)
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right_share, lower_share = (x - left)[..., None], (y - top)[..., None]
    framed = np.pad(pixels, ((2, 3), (2, 3), (0, 0)))
    left, top = left + 2, top + 2
    upper = framed[top, left] * (1 - right_share) + framed[top, left + 1] * right_share
    lower = framed[top + 1, left] * (1 - right_share) + framed[top + 1, left + 1] * right_share
    mixed: NDArray[np.uint8] = np.rint(upper * (1 - lower_share) + lower * lower_share).astype(np.uint8)
    return mixed

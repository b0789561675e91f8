"""Where boxes will be: a Kalman filter of constant velocity for centre, width and height.

The state of a box is (centre x, centre y, width, height) and their velocities, per frame (SORT: Bewley et al.,
arXiv:1602.00763, section 3.2; the noise is proportional to the box's height, as in DeepSORT: Wojke et al.,
arXiv:1703.07402). The noises are independent, so that the filter of eight numbers is four filters of two: position
p and velocity v, with covariance [[a, b], [b, c]]. All boxes are computed at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

POSITION, VELOCITY = 1 / 20, 1 / 160  # standard deviations of noise, as shares of the height of the box
START_POSITION, START_VELOCITY = 2 * POSITION, 10 * VELOCITY

Numbers = NDArray[np.float64]


@dataclass
class Motion:
    """The filters of T boxes, each float64 (T, 4): positions, velocities and the covariance of the two."""

    p: Numbers
    v: Numbers
    a: Numbers
    b: Numbers
    c: Numbers

    @classmethod
    def of(cls, measured: Numbers) -> Motion:
        """Filters that start at these boxes (centre x, centre y, width, height), and stand still."""
        height = np.maximum(measured[:, 3:], 1e-3)
        zero = np.zeros_like(measured)
        a, c = (np.broadcast_to((share * height) ** 2, zero.shape) for share in (START_POSITION, START_VELOCITY))
        return cls(measured.copy(), zero, a.copy(), zero.copy(), c.copy())

    def __len__(self) -> int:
        return len(self.p)

    def predict(self, steps: int) -> None:
        """Moves all by so many frames."""
        height = np.maximum(self.p[:, 3:], 1e-3)
        self.p = self.p + steps * self.v
        self.p[:, 2:] = np.maximum(self.p[:, 2:], 1e-3)  # a side that shrinks steadily does not turn over
        self.a = self.a + steps * (2 * self.b + steps * self.c) + steps * (POSITION * height) ** 2
        self.b = self.b + steps * self.c
        self.c = self.c + steps * (VELOCITY * height) ** 2

    def correct(self, rows: NDArray[np.int64], measured: Numbers) -> None:
        """Takes what was measured of some boxes (R) into account: float64 (R, 4)."""
        noise = (POSITION * np.maximum(self.p[rows, 3:], 1e-3)) ** 2
        gain = 1 / (self.a[rows] + noise)
        of_position, of_velocity = self.a[rows] * gain, self.b[rows] * gain
        error = measured - self.p[rows]
        self.p[rows] += of_position * error
        self.v[rows] += of_velocity * error
        self.c[rows] -= of_velocity * self.b[rows]
        self.b[rows] *= 1 - of_position
        self.a[rows] *= 1 - of_position

    def hold_size(self, rows: NDArray[np.int64]) -> None:
        """Boxes that are not seen keep their size: a box that is half covered seemed to shrink."""
        self.v[rows, 2:] = 0
        self.b[rows, 2:] = 0

    def kept(self, rows: NDArray[np.bool_]) -> Motion:
        """Only these."""
        return Motion(self.p[rows], self.v[rows], self.a[rows], self.b[rows], self.c[rows])

    def joined(self, others: Motion) -> Motion:
        """These, then the others."""
        mine, theirs = vars(self), vars(others)
        return Motion(**{name: np.concatenate([mine[name], theirs[name]]) for name in mine})

    @property
    def corners(self) -> Numbers:
        """left, top, right, bottom: float64 (T, 4)."""
        half = self.p[:, 2:] / 2
        return np.concatenate([self.p[:, :2] - half, self.p[:, :2] + half], axis=1)


def measured(corners: NDArray[np.float32]) -> Numbers:
    """(N, 4) of left, top, right, bottom as centre x, centre y, width, height, in float64."""
    wide = corners.astype(np.float64)
    return np.concatenate([(wide[:, :2] + wide[:, 2:]) / 2, wide[:, 2:] - wide[:, :2]], axis=1)

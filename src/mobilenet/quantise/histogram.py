"""The distribution of one value of a network, gathered in one pass and in little memory."""

from __future__ import annotations

from math import frexp

import numpy as np

SIDE = 2048  # bins below 0, and as many from 0 on: at least 8 for each step of 8 bits
_FINEST = -100  # the narrowest bin is 2^-100: what lies below is 0 for any network
_KEPT = 0.9  # of the moving average, when another batch comes


class Histogram:
    """Counts in bins of equal width, a power of two, with a border at 0.

    Nobody knows the range before the last batch. When a number lies outside, pairs of bins are joined until it
    fits; as widths are powers of two and 0 stays a border, that loses nothing that coarser bins would have had.

    Attributes:
        low, high: the extremes of all numbers and 0.
        average_low, average_high: the moving average (0.9 old, 0.1 new) of the batches' extremes.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(2 * SIDE, np.int64)
        self.exponent = _FINEST
        self.low = self.high = self.average_low = self.average_high = 0.0
        self.batches = 0

    def add(self, values: np.ndarray) -> None:
        """Counts the numbers of a batch: float32 of any shape, at least one, all finite."""
        low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
        self._make_room(max(-low, high))
        scaled = np.floor(np.multiply(values, 2.0**-self.exponent, dtype=np.float32)).astype(np.int32)
        self.counts += np.bincount(scaled.ravel() + SIDE, minlength=2 * SIDE)
        kept = _KEPT if self.batches else 0.0
        self.average_low = kept * self.average_low + (1 - kept) * low
        self.average_high = kept * self.average_high + (1 - kept) * high
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.batches += 1

    def points(self, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
        """Where numbers lie, ascending, and how many: the middles of bins that are not empty, cut to low..high.

        Returns:
            (n) float64 and (n) int64.
        """
        filled = np.flatnonzero(self.counts)
        middles = (filled - SIDE + 0.5) * 2.0**self.exponent
        return np.clip(middles, max(low, self.low), min(high, self.high)), self.counts[filled]

    def _make_room(self, peak: float) -> None:
        """Joins bins until a number of this size, or its negative, has one."""
        needed = frexp(peak / SIDE)[1] if peak else _FINEST  # peak / SIDE < 2^needed
        joined = needed - self.exponent
        if joined <= 0:
            return
        places = (np.arange(-SIDE, SIDE) >> min(joined, 12)) + SIDE
        self.counts = np.bincount(places, weights=self.counts, minlength=2 * SIDE).astype(np.int64)
        self.exponent = needed

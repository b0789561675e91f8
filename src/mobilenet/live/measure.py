"""How fast a stream was: frames a second, and percentiles of how long each step took, in constant memory."""

from __future__ import annotations

import time
from math import log
from typing import Any

import numpy as np

LEAST, GROWTH = 1e-3, 1.02  # milliseconds; each class of durations is 2% wider than the one below
CLASSES = 1200  # up to LEAST * GROWTH ** CLASSES milliseconds, half a year
PERCENTILES = (50, 90, 99)


class Durations:
    """Counts durations in milliseconds by classes: percentiles are right within 1%, mean and maximum exactly."""

    def __init__(self) -> None:
        self.count, self.sum, self.maximum = 0, 0.0, 0.0
        self._counts = np.zeros(CLASSES, np.int64)

    def add(self, milliseconds: float) -> None:
        """Counts one."""
        self.count += 1
        self.sum += milliseconds
        self.maximum = max(self.maximum, milliseconds)
        place = int(log(milliseconds / LEAST) / log(GROWTH)) if milliseconds > LEAST else 0
        self._counts[min(place, CLASSES - 1)] += 1

    def percentile(self, percent: float) -> float:
        """Milliseconds that so many percent do not exceed; 0 of nothing."""
        if not self.count:
            return 0.0
        wanted = max(1, int(np.ceil(percent / 100 * self.count)))
        place = int(np.searchsorted(np.cumsum(self._counts), wanted))
        return float(min(LEAST * GROWTH ** (place + 0.5), self.maximum))

    def to_dict(self) -> dict[str, float]:
        """`mean`, `p50`, `p90`, `p99` and `max`, rounded to microseconds."""
        mean = self.sum / self.count if self.count else 0.0
        shares = {f"p{percent}": self.percentile(percent) for percent in PERCENTILES}
        return {name: round(value, 3) for name, value in {"mean": mean, **shares, "max": self.maximum}.items()}


class Meter:
    """Measures a stream while its results are taken.

    Attributes:
        results: how many frames were answered so far.
    """

    def __init__(self) -> None:
        self.results = 0
        self._steps: dict[str, Durations] = {}
        self._first: float | None = None
        self._last = 0.0

    def start(self) -> None:
        """The first frame is asked for."""
        self._first = self._last = time.perf_counter()

    def add(self, speed: dict[str, float]) -> None:
        """One result with the milliseconds of its steps."""
        self._last = time.perf_counter()
        self.results += 1
        for step, milliseconds in speed.items():
            self._steps.setdefault(step, Durations()).add(milliseconds)

    def to_dict(self) -> dict[str, Any]:
        """`results`, `elapsed_s` from the start to the last result, `fps`, and `steps_ms`, step -> figures."""
        elapsed = self._last - self._first if self._first is not None else 0.0
        return {
            "results": self.results,
            "elapsed_s": round(elapsed, 3),
            "fps": round(self.results / elapsed, 2) if elapsed > 0 else 0.0,
            "steps_ms": {step: durations.to_dict() for step, durations in self._steps.items()},
        }

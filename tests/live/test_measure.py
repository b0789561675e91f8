"""Percentiles that are counted by classes, beside those of all values."""

from __future__ import annotations

import numpy as np
import pytest

from mobilenet.live.measure import Durations, Meter


def test_percentiles_are_within_a_hundredth() -> None:
    values = np.random.default_rng(0).lognormal(1.5, 1.0, 20_000)
    durations = Durations()
    for value in values:
        durations.add(float(value))
    found = durations.to_dict()
    for percent in (50, 90, 99):
        exact = float(np.percentile(values, percent, method="inverted_cdf"))
        assert found[f"p{percent}"] == pytest.approx(exact, rel=0.011)
    assert found["mean"] == pytest.approx(values.mean(), abs=1e-3)
    assert found["max"] == pytest.approx(values.max(), abs=1e-3)


def test_nothing_little_and_much() -> None:
    durations = Durations()
    assert set(durations.to_dict().values()) == {0.0}
    for value in (0.0, 1e-9, 1e12):
        durations.add(value)
    assert durations.percentile(1) < 2e-3 and durations.maximum == 1e12


def test_a_meter_that_measured_nothing() -> None:
    assert Meter().to_dict() == {"results": 0, "elapsed_s": 0.0, "fps": 0.0, "steps_ms": {}}

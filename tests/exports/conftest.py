"""Models that the tests of exports share: small, trained-like, in floats and in integers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mobilenet.model import Model
from mobilenet.quantise.random import random_quantised_model

LABELS = tuple(f"kind {number}" for number in range(100))


@pytest.fixture(scope="session")
def models() -> dict[str, Model]:
    """A small V2 of 100 classes with labels, a licence and a temperature: "fp32" and "int8"."""
    pair = random_quantised_model("mobilenet_v2", resolution=64, width_multiplier=0.35, classes=100, pictures=2)
    more = {
        "labels": LABELS,
        "licence": "Apache-2.0",
        "calibration": {"temperature": 1.5},
        "metrics": {"top1": 0.9},
    }
    return {name: Model.of(replace(model, **more)) for name, model in zip(("fp32", "int8"), pair, strict=True)}

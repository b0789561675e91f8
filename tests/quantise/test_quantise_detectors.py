"""Detectors in integers: every node has an integer form, the engine is exact, and boxes come out near."""

from __future__ import annotations

import numpy as np
import pytest

from mobilenet.model import Model
from mobilenet.quantise import quantise
from mobilenet.quantise.random import random_batch, random_model
from mobilenet.run import reference


@pytest.mark.parametrize("head", ["ssdlite", "yolo"])
def test_a_detector_in_integers(head: str) -> None:
    model = random_model("mobilenet_v2", head=head, classes=4, resolution=96, width_multiplier=0.35)
    batches = [random_batch(model, seed=seed) for seed in range(3)]
    integers = Model.of(quantise(model, batches))
    assert integers.task == "detect" and integers.decoding == model.decoding
    assert all(kind.integer for kind in integers.graph.types.values())
    integers.validate()
    quanta = integers.to_input(np.random.default_rng(0).integers(0, 256, (1, 96, 96, 3), dtype=np.uint8))
    expected, found = reference.run(integers.graph, integers.weights, quanta), integers.run(quanta)
    assert all(np.array_equal(found[name], expected[name]) for name in ("boxes", "scores"))
    real, near = model.run(batches[0]), integers.run(batches[0])
    for name in ("boxes", "scores"):
        assert np.linalg.norm(near[name] - real[name]) < 0.5 * np.linalg.norm(real[name])
    picture = np.random.default_rng(1).integers(0, 256, (70, 50, 3), dtype=np.uint8)
    assert integers.predict(picture).boxes.size == (70, 50)

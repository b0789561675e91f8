"""From a float model to an integer one, by calibration on pictures and without training."""

from __future__ import annotations

from mobilenet.quantise.quantise import calibration_batches, quantise, quantise_graph

__all__ = ["calibration_batches", "quantise", "quantise_graph"]

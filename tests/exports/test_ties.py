"""Constants that move so that no integer of a gate lies half-way between two."""

from __future__ import annotations

import numpy as np
import pytest

from mobilenet.exports.ties import MOST, SLOPES, clear_factor, exact_summands, gate_offset
from mobilenet.graph.graph import Quantisation, TensorType
from mobilenet.run.reference_float import activate


def integers(scale: float, zero_point: int, dtype: str = "uint8") -> TensorType:
    return TensorType((1, 1, 4), dtype, Quantisation(scale, zero_point))


@pytest.mark.parametrize("activation", SLOPES)
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("scale", [1 / 255, 1 / 256, 0.0021, 0.01])
def test_gates_in_float32_are_the_references_table(activation: str, dtype: str, scale: float) -> None:
    low = np.iinfo(dtype).min
    read, made = integers(0.0625, low + 120, dtype), integers(float(np.float32(scale)), low, dtype)
    slope = SLOPES[activation]
    three = gate_offset(read, made, slope)
    assert abs(three - 3) <= MOST
    real = 0.0625 * (np.arange(256) - 120)
    steps = activate(activation, real) / np.float64(np.float32(scale))
    clipped = np.clip((real + three).astype(np.float32), 0, np.float32(6)) * np.float32(slope)
    found = clipped.astype(np.float64) / np.float64(np.float32(scale))
    tie = (np.rint(steps) <= 255) & (np.abs(np.abs(steps - np.rint(steps)) - 0.5) < 1e-9)
    np.testing.assert_array_equal(np.minimum(np.rint(found), 255), np.minimum(np.rint(steps), 255))
    assert not tie.any() or (np.abs(np.abs(found - np.rint(found)) - 0.5)[tie] > 1e-5).all()


def test_a_gate_of_floats_keeps_its_three() -> None:
    assert gate_offset(TensorType((4,)), TensorType((4,)), 1 / 6) == 3


def test_the_scales_of_a_sum_are_those_of_fixed_point() -> None:
    kinds = [integers(0.1, 3), integers(0.037, 5)]
    exact = exact_summands(kinds, Quantisation(0.11, 0))
    for kind, found in zip(kinds, exact, strict=True):
        assert kind.quantisation is not None and found.zero_point == kind.quantisation.zero_point
        steps = found.scale / float(np.float32(0.11)) * 2**21
        assert steps == pytest.approx(round(steps), abs=1e-6)
        assert found.scale == pytest.approx(kind.quantisation.scale, rel=1e-5)


def test_products_are_kept_off_the_edge() -> None:
    """77 * 116 gives 63.5000009 quanta here, which loses its last digits when the zero point 15 is added."""
    first, second = integers(0.040501199662685394, 9), integers(0.003921568859368563, 0)
    made = integers(0.022341005504131317, 15)
    assert first.quantisation is not None and made.quantisation is not None
    scale = clear_factor(first, second, made).scale
    assert scale == pytest.approx(first.quantisation.scale, rel=3e-6)
    ratio = np.float32(scale) * np.float32(0.003921568859368563) / np.float32(0.022341005504131317)
    products = np.unique(np.multiply.outer(np.arange(256) - 9, np.arange(256))).astype(np.float32)
    plain = np.float32(0.040501199662685394) * np.float32(0.003921568859368563) / np.float32(0.022341005504131317)
    expected = np.clip(np.rint(products * plain) + 15, 0, 255)
    np.testing.assert_array_equal(np.clip(np.rint(products * ratio + np.float32(15)), 0, 255), expected)
    assert (np.clip(np.rint(products * plain + np.float32(15)), 0, 255) != expected).any()

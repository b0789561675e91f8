"""How far a runtime's answers may be from the model's."""

from __future__ import annotations

import numpy as np
import pytest

from mobilenet.errors import ModelFileError
from mobilenet.exports.prove import Cases, Proof, compare
from mobilenet.graph.graph import Quantisation

SCALE = 0.5


def floats(expected: np.ndarray) -> Cases:
    return Cases(np.zeros((len(expected), 1)), {"logits": expected}, {"logits": None}, False)


def integers(expected: np.ndarray, name: str = "logits") -> Cases:
    return Cases(np.zeros((len(expected), 1)), {name: expected}, {name: Quantisation(SCALE, 3)}, True)


def test_floats_may_differ_by_a_ten_thousandth_of_the_largest() -> None:
    expected = np.array([[100.0, -3.0, 2.0]], np.float32)
    proof = compare({"logits": expected + np.float32(0.0099)}, floats(expected), "r")
    assert proof.difference == pytest.approx(9.9e-5, rel=1e-2) and "within 9.9e-05" in str(proof)
    with pytest.raises(ModelFileError, match=r"in r output 'logits' is up to 1\.1.e-04"):
        compare({"logits": expected + np.float32(0.0112)}, floats(expected), "r")


def test_one_output_in_two_hundred_may_be_more_than_a_quantum_away() -> None:
    expected = np.zeros((2, 500), np.float32)
    expected[:, 0] = 100 * SCALE
    found = expected + np.float32(SCALE)  # all of them one quantum away
    assert compare({"logits": found}, integers(expected), "r").far == 0
    found[0, 5:10] += SCALE * 3
    assert compare({"logits": found}, integers(expected), "r") == Proof("r", 2, 4, 0.005, True)
    found[1, 7] += SCALE
    with pytest.raises(ModelFileError, match="0.60% of output 'logits' are more than 1 quantum away, at most 4"):
        compare({"logits": found}, integers(expected), "r")


def test_the_first_class_must_be_the_same_where_it_leads_clearly() -> None:
    expected = np.zeros((1, 1000), np.float32)
    expected[0, 3], expected[0, 4] = 50 * SCALE, 29 * SCALE
    found = expected.copy()
    found[0, [3, 4]] = found[0, [4, 3]]
    with pytest.raises(ModelFileError, match="names another class first for test picture 0"):
        compare({"logits": found}, integers(expected), "r")
    expected[0, 4] = 30 * SCALE  # leads by 20 quanta, which is not clear
    found[0, 3] = 30 * SCALE
    assert compare({"logits": found}, integers(expected), "r").far == 0.002


def test_class_maps_may_differ_in_few_pixels() -> None:
    expected = np.zeros((1, 40, 50), np.int64)
    tested = Cases(np.zeros((1, 1)), {"classes": expected}, {"classes": None}, True)
    found = expected.copy()
    found[0, 0, :10] = 1
    assert compare({"classes": found}, tested, "r").far == 0.005
    found[0, 1, 0] = 1
    with pytest.raises(ModelFileError, match="0.55% of output 'classes'"):
        compare({"classes": found}, tested, "r")


@pytest.mark.parametrize("wrong", [np.array([[np.nan, 1]]), np.array([[1.0, 2, 3]])])
def test_nan_and_other_shapes_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ModelFileError, match="output 'logits' the shape"):
        compare({"logits": wrong}, floats(np.ones((1, 2), np.float32)), "r")

"""Run lengths: round trips, COCO's own text, hostile texts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilenet.errors import DataError
from mobilenet.pictures.run_lengths import encode_runs, from_coco, pack, to_coco, unpack


def noise(height: int, width: int, seed: int, share: float) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width)) < share


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9999), st.sampled_from([0, 0.02, 0.5, 0.98, 1]))
def test_masks_come_back(height: int, width: int, seed: int, share: float) -> None:
    mask = noise(height, width, seed, share)
    runs = encode_runs(mask)
    assert sum(runs) == mask.size
    assert all(runs[1:])
    assert (from_coco({"size": [height, width], "counts": runs}, "x") == mask).all()
    packed = to_coco(mask)
    assert unpack(packed["counts"], "x") == runs
    assert (from_coco(packed, "x") == mask).all()


def test_columns_come_first_and_runs_begin_with_zeros() -> None:
    mask = np.array([[1, 0], [1, 0], [0, 1]], bool)
    assert encode_runs(mask) == [0, 2, 3, 1]


@pytest.mark.parametrize("seed", range(5))
def test_the_text_is_pycocotools_own(seed: int) -> None:
    coco = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    mask = noise(200, 300, seed, (0.001, 0.01, 0.3, 0.7, 0.999)[seed])
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert to_coco(mask) == {"size": theirs["size"], "counts": theirs["counts"].decode()}
    assert (from_coco({"size": [200, 300], "counts": theirs["counts"]}, "x") == mask).all()


def test_a_known_text() -> None:
    """6, 1, 40, 4, 5, 4, 5, 4, 21 in COCO's letters: the fourth run on is packed as a difference."""
    runs = [6, 1, 40, 4, 5, 4, 5, 4, 21]
    assert pack(runs) == "61X13mN000`0"
    assert unpack("61X13mN000`0", "x") == runs


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"counts": [4]}, "size None"),
        ({"size": [2], "counts": [4]}, "is not"),
        ({"size": [2, True], "counts": [2]}, "is not"),
        ({"size": [2, -2], "counts": [4]}, "is not"),
        ({"size": [10**9, 10**9], "counts": [10**18]}, "is not"),
        ({"size": [2, 2], "counts": [3]}, "do not add up to its 2 x 2"),
        ({"size": [2, 2], "counts": [6, -2]}, "no list of whole numbers"),
        ({"size": [2, 2], "counts": [4.0]}, "no list of whole numbers"),
        ({"size": [2, 2], "counts": None}, "no list of whole numbers"),
        ({"size": [2, 2], "counts": "4~"}, "no part of them"),
        ({"size": [2, 2], "counts": "T"}, "cut off"),
        ({"size": [2, 2], "counts": "T" * 50}, "no part of them"),
        ({"size": [2, 2], "counts": "é"}, "no part of them|add up"),
        ({"size": [2, 2], "counts": "F"}, "negative"),
    ],
)
def test_hostile_masks_are_refused(value: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_coco(value, "a.json: annotation 3")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40))
def test_any_text_is_read_or_refused(data: bytes) -> None:
    try:
        runs = unpack(data, "x")
    except DataError:
        return
    assert all(run >= 0 for run in runs)

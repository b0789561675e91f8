"""Masks as run lengths, in COCO's form: columns first, runs of 0 and 1 in turn, the first of 0 (it may be empty).

COCO packs the runs into a text, too: each run from the fourth on less the one two before it, in groups of five
bits, the lowest first; bit 5 of a group says that another follows, bit 4 of the last is the sign; 48 is added to
each group to make a letter (cocoapi, maskApi.c).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenet.errors import DataError

MAX_SIDE = 2**16
_LOWEST, _GROUP, _MORE, _SIGN = 48, 5, 0x20, 0x10
_MAX_GROUPS = 7  # 35 bits: above any picture that is read


def encode_runs(mask: NDArray[np.bool_]) -> list[int]:
    """The runs of a mask, bool [H, W]."""
    flat = np.asarray(mask, bool).T.reshape(-1)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return [0, *runs] if flat.size and flat[0] else [int(run) for run in runs]


def to_coco(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """{"size": [H, W], "counts": text}, as pycocotools gives and takes it."""
    return {"size": [int(side) for side in mask.shape], "counts": pack(encode_runs(mask))}


def from_coco(value: Mapping[str, Any], where: str) -> NDArray[np.bool_]:
    """The mask, bool [H, W], of {"size": [H, W], "counts": a list of runs, or a text}.

    Raises:
        DataError: it is of another form, or its runs do not add up to its size; begins with `where`.
    """
    size, counts = value.get("size"), value.get("counts")
    if (
        not isinstance(size, list | tuple)
        or len(size) != 2
        or any(type(side) is not int or not 1 <= side <= MAX_SIDE for side in size)
    ):
        raise DataError(f"{where}: the size {size!r} of a run-length mask is not [height, width]")
    runs = unpack(counts, where) if isinstance(counts, str | bytes) else counts
    if not isinstance(runs, list | tuple) or any(type(run) is not int or run < 0 for run in runs):
        raise DataError(f"{where}: the runs of a mask are no list of whole numbers from 0")
    if sum(runs) != size[0] * size[1]:
        raise DataError(f"{where}: the runs of a mask do not add up to its {size[0]} x {size[1]} pixels")
    return decode_runs(runs, (size[0], size[1]))


def decode_runs(runs: Sequence[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask, bool [H, W], of runs that add up to H * W."""
    values = np.arange(len(runs)) % 2 == 1
    return np.ascontiguousarray(np.repeat(values, runs).reshape(size[1], size[0]).T)


def pack(runs: Sequence[int]) -> str:
    """Runs as COCO's text."""
    letters = []
    for place, run in enumerate(runs):
        rest = run - (runs[place - 2] if place > 2 else 0)
        more = True
        while more:
            group, rest = rest & 0x1F, rest >> _GROUP
            more = rest != (-1 if group & _SIGN else 0)
            letters.append(chr((group | (_MORE if more else 0)) + _LOWEST))
    return "".join(letters)


def unpack(text: str | bytes, where: str) -> list[int]:
    """COCO's text as runs.

    Raises:
        DataError: another letter, a run that is cut off or negative; begins with `where`.
    """
    data = text.encode("ascii", "replace") if isinstance(text, str) else text
    runs: list[int] = []
    value = groups = 0
    for letter in data:
        group = letter - _LOWEST
        if not 0 <= group < 64 or groups == _MAX_GROUPS:
            raise DataError(f"{where}: a mask's packed runs hold {bytes([letter])!r}, which is no part of them")
        value |= (group & 0x1F) << (_GROUP * groups)
        groups += 1
        if group & _MORE:
            continue
        if group & _SIGN:
            value -= 1 << (_GROUP * groups)
        value += runs[-2] if len(runs) > 2 else 0
        if value < 0:
            raise DataError(f"{where}: a mask's packed runs hold a negative one")
        runs.append(value)
        value = groups = 0
    if groups:
        raise DataError(f"{where}: a mask's packed runs are cut off")
    return runs

"""The tensors of a .safetensors file that is already in memory, as views of its bytes: nothing is copied.

(The safetensors package copies each tensor; half of what a small model needs in memory would be copies.)
"""

from __future__ import annotations

import json
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenet.errors import ModelFileError

if TYPE_CHECKING:
    from mobilenet.graph.graph import Weights

DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
MAX_RANK = 32


def read_tensors(data: bytes, *, only: str = "") -> tuple[Weights, dict[str, str]]:
    """Name -> read-only array over `data`, and the file's own texts (`__metadata__`).

    Args:
        data: the bytes of the file.
        only: how the names of the wanted tensors begin; the others are then not looked at.

    Raises:
        ModelFileError: the bytes are no safetensors file, or damaged; the message names the tensor.
    """
    size = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > len(data) or data[8:9] != b"{":
        raise ModelFileError("is no model file, or cut off")
    try:
        header = json.loads(data[8:size])
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"is no model file, or damaged: its header is no JSON ({error})") from error
    texts = header.pop("__metadata__", {})
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise ModelFileError("is damaged: the header's __metadata__ holds something that is no text")
    places = sorted((_place(name, entry), name) for name, entry in header.items() if name.startswith(only))
    _check_layout(places, len(data) - size, all_named=not only)
    return {name: _view(data, size + begin, header[name]) for (begin, _), name in places}, texts


def _place(name: str, entry: Any) -> tuple[int, int]:
    """Where a tensor begins and ends, counted from the end of the header."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ModelFileError(f"is damaged: tensor '{name}' needs dtype, shape, data_offsets and nothing else")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2 or len(shape) > MAX_RANK:
        raise ModelFileError(f"is damaged: tensor '{name}' has an impossible shape or place")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in DTYPES:
        raise ModelFileError(f"holds a tensor of an unknown dtype: '{name}' is {entry['dtype']}")
    begin, end = offsets
    if end - begin != prod(shape) * np.dtype(DTYPES[entry["dtype"]]).itemsize:
        raise ModelFileError(f"is damaged: tensor '{name}' of shape {shape} does not take {end - begin} bytes")
    return begin, end


def _sizes(values: Any) -> bool:
    """Whether this is a list of whole numbers that a size can be."""
    return isinstance(values, list) and all(type(n) is int and 0 <= n < 2**63 for n in values)


def _check_layout(places: list[tuple[tuple[int, int], str]], size: int, *, all_named: bool) -> None:
    """The tensors must lie in the bytes after the header, and all of them together fill these, each byte once."""
    expected = 0
    for (begin, end), name in places:
        if begin != expected and (all_named or not expected <= begin <= end <= size):
            raise ModelFileError(f"is damaged: tensor '{name}' begins at byte {begin}, not at {expected}")
        expected = end
    if expected != size and (all_named or expected > size):
        raise ModelFileError(f"is cut off or damaged: it holds {size} bytes of tensors, and {expected} are named")


def _view(data: bytes, begin: int, entry: dict[str, Any]) -> np.ndarray:
    dtype, shape = np.dtype(DTYPES[entry["dtype"]]), entry["shape"]
    return np.frombuffer(data, dtype, prod(shape), begin if prod(shape) else 0).reshape(shape)

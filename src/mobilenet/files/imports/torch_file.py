"""Tensors of torch projects: .safetensors files, and .pth and .bin files, which are pickles.

A pickle is read by torch with `weights_only`, which runs none of its code, and after its archive was checked: what
is stored uncompressed cannot be larger than the file.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mobilenet.errors import MissingExtraError, ModelFileError
from mobilenet.files.imports.bundle import Bundle, Hints
from mobilenet.files.tensors import read_tensors

# Where training scripts keep the weights of a checkpoint, averaged ones first (as timm prefers them).
WRAPPERS = (
    "state_dict_ema", "ema_state_dict", "model_ema", "ema_model", "ema",
    "state_dict", "model_state_dict", "model_state", "model", "net", "weights", "params",
)  # fmt: skip
MAX_DEPTH = 4  # of wrappers inside wrappers
DAMAGE = (
    RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, AssertionError,
    ImportError, OverflowError, MemoryError, NotImplementedError, pickle.UnpicklingError, zipfile.BadZipFile,
    struct.error, zlib.error, OSError,
)  # fmt: skip


def read_safetensors_bundle(data: bytes, hints: Hints) -> Bundle:
    """The tensors of a .safetensors file; bfloat16 becomes float32.

    Raises:
        ModelFileError: damaged; the tensor is named.
    """
    size = 8 + int.from_bytes(data[:8], "little")
    header = data[8:size]
    if b'"BF16"' in header:  # numpy has no such type: read as whole numbers first
        data = data[:8] + header.replace(b'"BF16"', b'"U16" ') + data[size:]
    tensors, _ = read_tensors(data)
    for name in _bfloat16_names(header):
        bits = tensors[name].astype(np.uint32) << 16  # bfloat16 is the upper half of a float32
        tensors[name] = bits.view(np.float32)
    return Bundle(tensors, "torch", "safetensors", hints)


def _bfloat16_names(header: bytes) -> list[str]:
    if b'"BF16"' not in header:
        return []
    entries = json.loads(header)  # which `read_tensors` has checked
    return [name for name, entry in entries.items() if name != "__metadata__" and entry["dtype"] == "BF16"]


def read_torch_bundle(data: bytes, hints: Hints) -> Bundle:
    """The tensors of a torch checkpoint, unwrapped.

    Raises:
        MissingExtraError: torch is not installed.
        ModelFileError: damaged, or a pickle that holds more than tensors, numbers, texts and containers.
    """
    _check_archive(data)
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingExtraError("reading a torch checkpoint (.pth, .bin)", "train") from error
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise ModelFileError(
            "is a pickle that holds more than weights, which could run code, and is not read "
            f"({reason}); save the network's state_dict() alone"
        ) from error
    except DAMAGE as error:
        raise ModelFileError(f"is a damaged torch checkpoint: {_first_line(error)}") from error
    found, notes = _unwrapped(content)
    tensors = {name: _array(name, value) for name, value in found.items()}
    return Bundle(tensors, "torch", "torch checkpoint", hints, notes)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().partition("\n")[0] or type(error).__name__)[:200]


def _check_archive(data: bytes) -> None:
    """torch stores without compression; a compressed archive could unpack to any size."""
    if not data.startswith(b"PK"):
        return  # the format before torch 1.6: its tensors follow the pickle, one after the other
    try:
        entries = zipfile.ZipFile(io.BytesIO(data)).infolist()
    except DAMAGE as error:
        raise ModelFileError(f"is a damaged or truncated archive: {_first_line(error)}") from error
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ModelFileError(f"is no torch checkpoint: '{entry.filename}' in it is compressed")
    if sum(entry.file_size for entry in entries) > len(data):
        raise ModelFileError("is damaged: what it packs is larger than the file")


def _unwrapped(content: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The dictionary of tensors inside a checkpoint, and which part of it was taken."""
    notes: list[str] = []
    for _ in range(MAX_DEPTH):
        if not isinstance(content, Mapping):
            raise ModelFileError(f"holds a {type(content).__name__}, not a dictionary of tensors")
        keys = [key for key in WRAPPERS if isinstance(content.get(key), Mapping) and content[key]]
        if not keys:
            break
        notes.append(f"its '{keys[0]}'")
        content = content[keys[0]]
    tensors = {name: value for name, value in content.items() if hasattr(value, "dtype") and isinstance(name, str)}
    if not tensors:
        raise ModelFileError(f"holds no tensors; it has {', '.join(map(repr, list(content)[:8])) or 'nothing'}")
    return tensors, tuple(notes)


def _array(name: str, tensor: Any) -> np.ndarray:
    """A tensor as an array. One whose elements overlap would be larger in memory than it is in the file."""
    if tensor.is_quantized or str(tensor.layout) != "torch.strided" or tensor.device.type != "cpu":
        raise ModelFileError(f"tensor '{name}' is quantised, sparse or has no values; plain floats are read")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ModelFileError(
            f"tensor '{name}' of shape {tuple(tensor.shape)} has fewer values than its shape says"
        )
    if tensor.dtype.is_floating_point:
        tensor = tensor.float()
    return np.asarray(tensor.detach().contiguous().numpy())

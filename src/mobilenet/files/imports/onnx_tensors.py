"""Constants of an ONNX file as arrays, after their sizes were checked against what the file really holds."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from mobilenet.errors import ModelFileError

# TensorProto.data_type -> numpy's type, and the field that holds values which are not raw bytes.
_TYPES = {
    1: ("<f4", "float_data"),
    2: ("|u1", "int32_data"),
    3: ("|i1", "int32_data"),
    6: ("<i4", "int32_data"),
    7: ("<i8", "int64_data"),
    9: ("|b1", "int32_data"),
    10: ("<f2", ""),
    11: ("<f8", "double_data"),
}
_EXTERNAL = 1


def tensor_values(tensor: Any, folder: Path, limit: int) -> np.ndarray:
    """The values of a TensorProto; floats of any size become float32.

    Args:
        tensor: the message.
        folder: where the file lies: values may be stored in other files of this folder, and nowhere else.
        limit: how many bytes the values may take.

    Raises:
        ModelFileError: sizes that do not fit, an unknown type, or values outside of the folder; it says which.
    """
    name = tensor.name or "a constant"
    if tensor.data_type not in _TYPES:
        raise ModelFileError(f"tensor '{name}' has the type {tensor.data_type}, which is not read")
    code, field = _TYPES[tensor.data_type]
    dtype, shape = np.dtype(code), tuple(tensor.dims)
    size = prod(shape) * dtype.itemsize
    if min(shape, default=1) < 0 or size > limit:
        raise ModelFileError(f"tensor '{name}' of shape {shape} is larger than the file can hold")
    if tensor.data_location == _EXTERNAL:
        raw = _external(tensor, name, folder, size)
    elif tensor.HasField("raw_data") or not field:
        raw = bytes(tensor.raw_data)
    else:
        values = getattr(tensor, field)
        if len(values) != prod(shape):
            raise ModelFileError(f"tensor '{name}' of shape {shape} holds {len(values)} values")
        return _plain(np.array(values, dtype).reshape(shape))
    if len(raw) != size:
        raise ModelFileError(f"tensor '{name}' of shape {shape} needs {size} bytes, but holds {len(raw)}")
    return _plain(np.frombuffer(raw, dtype).reshape(shape))


def _plain(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def _external(tensor: Any, name: str, folder: Path, size: int) -> bytes:
    """Bytes of another file, which must lie in the folder itself, whatever links or dots its path has."""
    said = {entry.key: entry.value for entry in tensor.external_data}
    location = said.get("location", "")
    place = (folder / location.replace("\0", "/")).resolve()
    if not location or place.parent != folder.resolve() or place.name != Path(location).name:
        raise ModelFileError(f"tensor '{name}' lies in '{location}', outside of the file's folder: it is not read")
    try:
        offset, length = int(said.get("offset", 0)), int(said.get("length", size))
        if offset < 0 or length != size or not place.is_file() or place.stat().st_size < offset + length:
            raise ModelFileError(
                f"tensor '{name}' needs {size} bytes from byte {offset} of '{location}', which has not as many"
            )
        with place.open("rb") as file:
            file.seek(offset)
            return bytes(file.read(size))
    except (ValueError, OSError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"tensor '{name}' lies in '{location}', which cannot be read: {error}") from error

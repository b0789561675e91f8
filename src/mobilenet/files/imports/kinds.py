"""What kind of file bytes are, by their beginning. Imports nothing, because every `load` asks."""

from __future__ import annotations

_HDF5 = b"\x89HDF\r\n\x1a\n"
_ONNX_FIELDS = b"\x12\x1a\x22\x28\x32\x3a\x42\x72"  # what follows the version in an ONNX file: ModelProto's keys


def kind_of(data: bytes) -> str:
    """ "safetensors" (of another project), "zip", "pickle", "hdf5" or "onnx"; "" for anything else.

    Model files of this project are "": their reader says what is wrong with a damaged one.
    """
    if data[8:9] == b"{":
        size = int.from_bytes(data[:8], "little")
        return "" if size > len(data) - 8 or b'"mobilenet"' in data[8 : 8 + size] else "safetensors"
    if data[:4] == b"PK\x03\x04":
        return "zip"
    if data[:8] == _HDF5:
        return "hdf5"
    if data[:1] == b"\x80" and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle"
    if data[:1] == b"\x08" and len(data) > 16 and data[1] < 32 and data[2:3] in (bytes([f]) for f in _ONNX_FIELDS):
        return "onnx"
    return ""

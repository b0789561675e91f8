"""The model file: a plain .safetensors file with one JSON text beside its tensors (docs/format.md).

Everything in it is untrusted until `read_model_file` returns.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenet.errors import GraphError, ModelFileError
from mobilenet.files.contents import Check, ModelContents, check_ends
from mobilenet.files.tensors import read_tensors
from mobilenet.pictures.preprocess import Preprocessing

if TYPE_CHECKING:
    from mobilenet.family.decoding import Decoding
    from mobilenet.graph.graph import Weights
    from mobilenet.graph.ops import Shape

KEY = "mobilenet"
VERSION = 1
MAX_BYTES = 2**32
CHECK_PREFIX = "checks/"  # "checks/<number>/picture" and "checks/<number>/outputs/<name>"
MAX_CHECK_SIDE = 256
FIELDS = {
    "version": int,
    "task": str,
    "graph": dict,
    "preprocessing": dict,
    "labels": list,
    "calibration": dict,
    "metrics": dict,
    "licence": str,
    "provenance": dict,
}
OPTIONAL = {"decoding": dict}  # written where there is one, so that files without are read by older readers


def write_model_file(contents: ModelContents, path: str | os.PathLike[str]) -> None:
    """Writes a model atomically; the same contents give the same bytes.

    Raises:
        ModelFileError: the parts of the model do not fit together, or cannot be written as JSON.
        OSError: the folder is missing or the disk is full; a file that was there before stays as it was.
    """
    from mobilenet.files.atomic import write_atomically

    write_atomically(path, encode(contents))


def encode(contents: ModelContents) -> bytes:
    """The bytes of the model file; errors as `write_model_file`."""
    from safetensors.numpy import save

    try:
        contents.validate()
        text = json.dumps(_header(contents), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (GraphError, TypeError, ValueError) as error:
        raise ModelFileError(f"the model cannot be written: {error}") from error
    tensors = {name: np.ascontiguousarray(array) for name, array in contents.weights.items()}
    for number, check in enumerate(contents.checks):
        tensors[f"{CHECK_PREFIX}{number}/picture"] = np.ascontiguousarray(check.picture)
        for name, array in check.outputs.items():
            tensors[f"{CHECK_PREFIX}{number}/outputs/{name}"] = np.ascontiguousarray(array)
    return save(tensors, {KEY: text})


def _header(contents: ModelContents) -> dict[str, Any]:
    decoding = {"decoding": contents.decoding.to_dict()} if contents.decoding else {}
    return {
        "version": VERSION,
        "task": contents.task,
        "graph": contents.graph.to_dict(),
        "preprocessing": contents.preprocessing.to_dict() if contents.preprocessing else {},
        "labels": list(contents.labels),
        "calibration": contents.calibration,
        "metrics": contents.metrics,
        "licence": contents.licence,
        "provenance": contents.provenance,
        **decoding,
    }


def read_model_file(path: str | os.PathLike[str]) -> ModelContents:
    """Reads and checks a model file.

    Raises:
        ModelFileError: missing, damaged, of another kind or of a newer version; the message names the file.
    """
    return decode(read_bytes(path), os.fspath(path))


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """All of a file; raises `ModelFileError` naming it if it is no file, too large, or cannot be read."""
    name = os.fspath(path)
    if "\0" in os.fsdecode(name):
        raise ModelFileError(f"{name!r}: no file has such a name")
    try:
        state = os.stat(path)  # noqa: PTH116 - importing pathlib takes longer than reading a small model
        if not stat.S_ISREG(state.st_mode):  # reading a pipe would wait for ever
            kind = "a folder" if stat.S_ISDIR(state.st_mode) else "a pipe or a device"
            raise ModelFileError(f"{name}: is {kind}, not a file")
        if state.st_size > MAX_BYTES:
            raise ModelFileError(f"{name}: has {state.st_size:,} bytes; at most {MAX_BYTES:,} are read")
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read()
    except OSError as error:
        raise ModelFileError(f"{name}: cannot be read: {error.strerror or error}") from error


def decode(data: bytes, name: str = "model file") -> ModelContents:
    """Checks and reads the bytes of a model file; the weights are read-only views of them.

    Raises:
        ModelFileError: damaged, of another kind or of a newer version; the message begins with `name`.
    """
    from mobilenet.graph.graph import Graph

    with _naming(name):
        header, tensors = _read(data)
        weights = {key: array for key, array in tensors.items() if not key.startswith(CHECK_PREFIX)}
        contents = ModelContents(Graph.from_dict(header["graph"]), weights, **_fields(header, tensors))
        contents.validate()
    return contents


def decode_around_graph(
    data: bytes, name: str, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape]
) -> dict[str, Any]:
    """The fields of `ModelContents` but `graph` and `weights`, which the engine has read and found good.

    Args:
        data, name: as `decode`.
        inputs, outputs: their shapes by name, as the engine says.

    Raises:
        ModelFileError: as `decode`.
    """
    with _naming(name):
        fields = _fields(*_read(data, only=CHECK_PREFIX))
        ends = {key: fields[key] for key in ("task", "labels", "preprocessing", "decoding")}
        check_ends(inputs, outputs, **ends)
    return fields


@contextmanager
def _naming(name: str) -> Iterator[None]:
    try:
        yield
    except (GraphError, ModelFileError) as error:
        raise ModelFileError(f"{name}: {error}") from error


def _read(data: bytes, *, only: str = "") -> tuple[dict[str, Any], Weights]:
    """The description, whose fields are of their types, and the tensors whose names begin with `only`."""
    tensors, texts = read_tensors(data, only=only)
    if KEY not in texts:
        raise ModelFileError("is a .safetensors file, but holds no mobilenet model (no 'mobilenet' metadata)")
    try:
        header = json.loads(texts[KEY], parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"its description is no JSON: {error}") from error
    _check_header(header)
    return header, tensors


def _fields(header: dict[str, Any], tensors: Weights) -> dict[str, Any]:
    """What is said around the graph."""
    return {
        "preprocessing": Preprocessing.from_dict(header["preprocessing"]) if header["preprocessing"] else None,
        "labels": _strings("labels", header["labels"]),
        "task": header["task"],
        "calibration": _numbers("calibration", header["calibration"]),
        "metrics": header["metrics"],
        "licence": header["licence"],
        "provenance": header["provenance"],
        "checks": _checks({name: array for name, array in tensors.items() if name.startswith(CHECK_PREFIX)}),
        "decoding": _decoding(header),
    }


def _decoding(header: dict[str, Any]) -> Decoding | None:
    if "decoding" not in header:
        return None
    from mobilenet.family.decoding import Decoding  # here: a classifier's start is not to wait for it

    return Decoding.from_dict(header["decoding"])


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _check_header(header: Any) -> None:
    if not isinstance(header, dict):
        raise ModelFileError("its description is no JSON object")
    version = header.get("version")
    if version != VERSION:
        raise ModelFileError(f"has format version {version!r}; this release reads {VERSION}: upgrade mobilenet")
    for name, kind in FIELDS.items():
        if not isinstance(header.get(name), kind):
            raise ModelFileError(f"field '{name}' is missing or no {kind.__name__}")
    for name in header:
        if name in OPTIONAL and not isinstance(header[name], OPTIONAL[name]):
            raise ModelFileError(f"field '{name}' is no {OPTIONAL[name].__name__}")
        if name not in FIELDS and name not in OPTIONAL:
            raise ModelFileError(f"unknown field '{name}'")


def _strings(name: str, values: list[Any]) -> tuple[str, ...]:
    if not all(isinstance(value, str) for value in values):
        raise ModelFileError(f"field '{name}' holds something that is no text")
    return tuple(values)


def _numbers(name: str, values: dict[str, Any]) -> dict[str, float]:
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise ModelFileError(f"field '{name}.{key}' is no finite number")
    return values


def _checks(tensors: Weights) -> tuple[Check, ...]:
    grouped: dict[int, Check] = {}
    for name in sorted(tensors, key=_check_order):
        number, picture, output = _parse_check(name)
        if picture:
            grouped[number] = Check(_check_picture(name, tensors[name]), {})
        elif number not in grouped:
            raise ModelFileError(f"tensor '{name}' has no picture")
        else:
            grouped[number].outputs[output] = tensors[name]
    return tuple(grouped[number] for number in sorted(grouped))


def _check_order(name: str) -> tuple[bool, str]:
    return not name.endswith("/picture"), name


def _parse_check(name: str) -> tuple[int, bool, str]:
    parts = name.removeprefix(CHECK_PREFIX).split("/", 2)
    if not parts[0].isdecimal() or len(parts[0]) > 3:
        raise ModelFileError(f"tensor '{name}' has no number")
    if parts[1:] == ["picture"]:
        return int(parts[0]), True, ""
    if len(parts) == 3 and parts[1] == "outputs":
        return int(parts[0]), False, parts[2]
    raise ModelFileError(f"tensor '{name}' is neither a picture nor an output")


def _check_picture(name: str, picture: np.ndarray) -> np.ndarray:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ModelFileError(f"tensor '{name}' is no uint8 picture")
    if min(picture.shape) < 1 or max(picture.shape) > MAX_CHECK_SIDE:
        raise ModelFileError(f"tensor '{name}' of shape {picture.shape} is no tiny picture")
    return picture

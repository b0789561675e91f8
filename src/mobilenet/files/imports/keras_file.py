"""Tensors of Keras files: .h5 (weights, or whole models), .weights.h5 and .keras (a zip with a .weights.h5).

Only tensors and the text of the configuration are read: no layer is built, so no Lambda and no custom object of a
file runs. Of HDF5, links to other files are not followed; values that are stored in other files, and datasets that
are larger than the file, are refused.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from mobilenet.errors import MissingExtraError, ModelFileError
from mobilenet.files.imports.bundle import Bundle, Hints
from mobilenet.files.imports.keras_names import plain_keras_name

MAX_CONFIG = 2**25  # bytes of the JSON text of a configuration
MAX_OBJECTS = 50_000
NORM = ("gamma", "beta", "moving_mean", "moving_variance")
LINEAR = ("kernel", "bias")
DAMAGE = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError)


class _Dataset(NamedTuple):
    """One array in an HDF5 file: its path, its values, and the `name` that Keras 3 writes on its group."""

    path: str
    array: np.ndarray
    layer: str


def read_keras_bundle(data: bytes) -> Bundle:
    """The tensors of a .keras file.

    Raises:
        MissingExtraError: h5py is not installed.
        ModelFileError: damaged, or packed so that it unpacks to more than it is.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        packed = {name: archive.getinfo(name) for name in ("config.json", "model.weights.h5")}
        limit = 16 * len(data) + MAX_CONFIG
        for name, entry in packed.items():
            if entry.file_size > (MAX_CONFIG if name == "config.json" else limit):
                raise ModelFileError(f"packs '{name}' of {entry.file_size:,} bytes, many times the file's size")
        texts = {name: _unpacked(archive, entry) for name, entry in packed.items()}
    except (*DAMAGE, zipfile.BadZipFile, zlib.error, EOFError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"is a damaged .keras archive: {error}") from error
    hints, names = _configuration(texts["config.json"].decode("utf-8", "replace"))
    bundle = read_hdf5_bundle(texts["model.weights.h5"])
    tensors = {_renamed(name, names): array for name, array in bundle.tensors.items()}
    return Bundle(tensors, "keras", "Keras (.keras)", hints)


def _unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """At most as many bytes as the directory says, whatever the compressed data would give."""
    with archive.open(entry) as stream:
        return stream.read(entry.file_size)


def _renamed(name: str, names: Mapping[str, str]) -> str:
    layer, _, parameter = name.rpartition("/")
    return f"{names.get(layer, layer)}/{parameter}"


def read_hdf5_bundle(data: bytes) -> Bundle:
    """The tensors of an .h5 file: "<layer>/<parameter>" with names as `plain_keras_name` writes them.

    Raises:
        MissingExtraError: h5py is not installed.
        ModelFileError: damaged, or values that lie outside of the file.
    """
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise MissingExtraError("reading a Keras file (.h5, .keras)", "import") from error
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            datasets = list(_datasets(file, len(data)))
            text = file.attrs.get("model_config", "")
    except DAMAGE as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"is a damaged or truncated HDF5 file: {error}") from error
    if not datasets:
        raise ModelFileError("is an HDF5 file without any weights")
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    hints = _configuration(text)[0] if text else Hints(where="the file")
    return Bundle(_named(datasets), "keras", "Keras (HDF5)", hints)


def _datasets(file: Any, limit: int) -> Iterator[_Dataset]:
    """Every array that lies in the file itself. `visititems` follows no soft or external links."""
    import h5py

    found: list[tuple[str, Any]] = []

    def visit(path: str, item: Any) -> None:
        if len(found) > MAX_OBJECTS:
            raise ModelFileError(f"is an HDF5 file of more than {MAX_OBJECTS} objects")
        if isinstance(item, h5py.Dataset):
            found.append((path, item))

    file.visititems(visit)
    kept = [(path, item) for path, item in found if not _is_of_training(path)]
    total = 0
    for path, item in kept:
        if item.is_virtual or item.external:
            raise ModelFileError(f"'{path}' in it refers to another file, which is not read")
        total += item.size * item.dtype.itemsize if item.dtype.kind == "f" else 0
        if total > limit:
            raise ModelFileError(f"'{path}' in it claims {item.size:,} values, more than the file can hold")
    for path, item in kept:
        if item.dtype.kind == "f":
            layer = str(item.parent.attrs.get("name", "")) if path.split("/")[-2:-1] == ["vars"] else ""
            yield _Dataset(path, np.asarray(item[()]), layer)


def _is_of_training(path: str) -> bool:
    """The optimiser's state, and the counters of random layers."""
    return path.startswith(("optimizer", "optimizer_weights")) or "seed_generator" in path


def _named(datasets: list[_Dataset]) -> dict[str, np.ndarray]:
    """Plain name -> array; what Keras 3 only numbers ("vars/0") gets its name by its place and rank."""
    tensors: dict[str, np.ndarray] = {}
    groups: dict[str, list[_Dataset]] = {}
    for dataset in datasets:
        groups.setdefault(dataset.path.rpartition("/")[0], []).append(dataset)
    for path, members in groups.items():
        if path.endswith("/vars"):
            layer = members[0].layer or path.removesuffix("/vars").rpartition("/")[2]
            names: tuple[str, ...] = NORM if len(members) == 4 else LINEAR
            members = sorted(members, key=lambda member: _number(member.path))
        else:
            layer = _legacy_layer(path)
            names = tuple(_legacy_parameter(member.path) for member in members)
        for name, member in zip(names, members, strict=False):
            _add(tensors, f"{plain_keras_name(layer)}/{name}", member)
    return tensors


def _number(path: str) -> int:
    last = path.rpartition("/")[2]
    return int(last) if last.isdecimal() else 0


def _add(tensors: dict[str, np.ndarray], name: str, member: _Dataset) -> None:
    if name in tensors:
        raise ModelFileError(f"holds '{name}' twice, the second time as '{member.path}'")
    tensors[name] = member.array


def _legacy_layer(path: str) -> str:
    """Keras writes a layer's name twice: once as its group and once in front of each of its arrays.

    The layer "expanded_conv/project" has the group "expanded_conv/project/expanded_conv/project".
    """
    parts = path.removeprefix("model_weights/").split("/")
    half = len(parts) // 2
    return "/".join(parts[half:] if parts[:half] == parts[half:] else parts[1:] or parts)


def _legacy_parameter(path: str) -> str:
    name = path.rpartition("/")[2].partition(":")[0]
    return "kernel" if name == "depthwise_kernel" else name


def _configuration(text: str) -> tuple[Hints, dict[str, str]]:
    """What a model's JSON says, and for layers that are numbered by class, "conv2d_3" -> their names."""
    try:
        config = json.loads(text)
        layers = list(_layers(config))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"has a configuration that is no JSON: {error}") from error
    return _hints(layers), _class_names(layers)


def _layers(config: Any) -> Iterator[Mapping[str, Any]]:
    """The layers, those of models inside models too."""
    inner = config.get("config") if isinstance(config, Mapping) else None
    if not isinstance(inner, Mapping):
        return
    layers = inner.get("layers")
    if not isinstance(layers, list):
        yield config
        return
    for layer in layers:
        yield from _layers(layer)


def _hints(layers: list[Mapping[str, Any]]) -> Hints:
    """Epsilon of batch norm, the size of the picture, and how a Rescaling layer maps pixels."""
    epsilons = {
        layer["config"].get("epsilon") for layer in layers if layer.get("class_name") == "BatchNormalization"
    }
    if len(epsilons) > 1:
        raise ModelFileError(f"has batch norms of different epsilons: {sorted(map(str, epsilons))}")
    epsilon = epsilons.pop() if epsilons else None
    if epsilon is not None and not (isinstance(epsilon, float) and 0 < epsilon < 1):
        raise ModelFileError(f"has a batch norm of epsilon {epsilon!r}")
    return Hints(
        where="its configuration", epsilon=epsilon, size=_input_size(layers), preprocessing=_rescaling(layers)
    )


def _input_size(layers: list[Mapping[str, Any]]) -> tuple[int, int] | None:
    for layer in layers:
        shape = layer["config"].get("batch_shape") or layer["config"].get("batch_input_shape")
        if isinstance(shape, list) and len(shape) == 4 and all(type(n) is int and n > 0 for n in shape[1:3]):
            return shape[1], shape[2]
    return None


def _rescaling(layers: list[Mapping[str, Any]]) -> dict[str, Any]:
    """scale * pixel + offset is (pixel - mean) / std."""
    for layer in layers:
        if layer.get("class_name") == "Rescaling":
            scale, offset = layer["config"].get("scale"), layer["config"].get("offset", 0.0)
            if not isinstance(scale, float) or not isinstance(offset, int | float) or not 0 < scale <= 1e6:
                raise ModelFileError(f"rescales pictures by {scale!r} and {offset!r}; one number each is read")
            return {"mean": (-offset / scale,) * 3, "std": (1 / scale,) * 3}
    return {}


def _class_names(layers: list[Mapping[str, Any]]) -> dict[str, str]:
    count: dict[str, int] = {}
    names = {}
    for layer in layers:
        kind = {
            "Conv2D": "conv2d",
            "DepthwiseConv2D": "depthwise_conv2d",
            "BatchNormalization": "batch_normalization",
            "Dense": "dense",
        }.get(str(layer.get("class_name")))
        name = layer["config"].get("name")
        if kind and isinstance(name, str):
            number = count.get(kind, 0)
            names[f"{kind}_{number}" if number else kind] = plain_keras_name(name)
            count[kind] = number + 1
    return names

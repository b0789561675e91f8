"""From somebody's file or folder to a model: find the reader, recognise the network, convert, describe."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

from mobilenet.errors import ArgumentError, GraphError, ModelFileError, UnsupportedOperatorError
from mobilenet.family.decoding import Decoding
from mobilenet.family.dialects import Dialect, preprocessing_preset
from mobilenet.family.heads import HEADS, detector
from mobilenet.files.contents import ModelContents
from mobilenet.files.imports.bundle import Bundle, Hints, plain_names
from mobilenet.files.imports.config import read_hints
from mobilenet.files.imports.convert import Wanted, converted
from mobilenet.files.imports.kinds import kind_of
from mobilenet.files.imports.recognise import Match, recognise
from mobilenet.files.model_file import read_bytes
from mobilenet.files.tflite_labels import read_labels
from mobilenet.graph.edit import pruned
from mobilenet.graph.graph import Graph, Weights
from mobilenet.pictures.preprocess import MAX_SIZE, PRESETS, Preprocessing

Labels = str | os.PathLike[str] | Sequence[str]
# What a folder of a hub holds, the preferred first.
FILES = ("model.safetensors", "pytorch_model.bin", "model.onnx")
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".h5", ".keras", ".onnx")
SMALLEST_SIDE = 32
BACKGROUND = "background"


def read_import(
    path: str | os.PathLike[str],
    *,
    labels: Labels | None = None,
    resolution: int | tuple[int, int] | None = None,
    name: str | None = None,
) -> ModelContents:
    """A checkpoint of another project as a model.

    Args:
        path: a file (.safetensors, .pth, .bin, .h5, .keras, .onnx, told by what is in it), or a folder with one
            and its config.json and preprocessor_config.json.
        labels: a text file with one label a line, or the labels. ImageNet's may be 1000 or 1001 (background
            first): they are made to fit.
        resolution: side of the picture, or (height, width); default: what a configuration says, else what is
            usual.
        name: which network it is, where several have the same tensors ("tf_mobilenetv3_large_100"), as
            `mobilenet.list_models(aliases=True)` gives it.

    Raises:
        ModelFileError: missing, damaged, hostile, of another architecture, or with tensors that do not fit; the
            message names the file and the tensor.
        MissingExtraError: a .pth file without torch, a Keras file without h5py, an ONNX file without onnx.
        UnsupportedOperatorError: an ONNX file with operators that no MobileNet needs; they are named.
        ArgumentError: an impossible resolution.
    """
    place = Path(path)
    size = _size(resolution)
    try:
        file = _file_in(place) if place.is_dir() else place
        data = read_bytes(file)
        return _read(file, data, labels, size, name)
    except UnsupportedOperatorError as error:
        raise UnsupportedOperatorError(_named(place, error)) from error
    except (ModelFileError, GraphError, ArgumentError) as error:
        raise ModelFileError(_named(place, error)) from error


def read_any(
    path: str | os.PathLike[str],
    *,
    labels: Labels | None = None,
    resolution: int | tuple[int, int] | None = None,
    name: str | None = None,
    to_float: bool = False,
) -> ModelContents:
    """As `read_import`, and .tflite files too; `to_float` dequantises these (see `files.tflite.read_tflite`).

    Raises:
        ModelFileError, UnsupportedOperatorError, MissingExtraError: as `read_import`.
        ArgumentError: an option that the kind of file does not have.
    """
    if Path(path).is_dir() or not _is_tflite(path):
        if to_float:
            raise ArgumentError(f"{os.fspath(path)}: only a .tflite file is dequantised; leave --float out")
        return read_import(path, labels=labels, resolution=resolution, name=name)
    if name is not None or resolution is not None:
        raise ArgumentError(f"{os.fspath(path)}: a .tflite file has its own name and resolution; leave these out")
    from mobilenet.files.tflite import read_tflite

    return read_tflite(path, labels=labels, to_float=to_float)


def _is_tflite(path: str | os.PathLike[str]) -> bool:
    return read_bytes(path)[4:8] == b"TFL3"


def _named(path: Path, error: Exception) -> str:
    text = str(error)
    return text if text.startswith(os.fspath(path)) else f"{os.fspath(path)}: {text}"


def _size(resolution: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if resolution is None:
        return None
    sides = resolution if isinstance(resolution, tuple | list) else (resolution, resolution)
    if len(sides) != 2 or any(type(side) is not int or not SMALLEST_SIDE <= side <= MAX_SIZE for side in sides):
        raise ArgumentError(
            f"resolution {resolution!r} must be whole numbers of pixels, {SMALLEST_SIDE} to {MAX_SIZE}"
        )
    return sides[0], sides[1]


def _file_in(folder: Path) -> Path:
    """The checkpoint of a folder."""
    for name in FILES:
        if (folder / name).is_file():
            return folder / name
    found = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())
    if len(found) != 1:
        what = f"several ({', '.join(path.name for path in found[:4])})" if found else "none"
        raise ModelFileError(
            f"a folder needs one checkpoint, {' or '.join(FILES[:1] + FILES[2:3])}; it has {what}"
        )
    return found[0]


def _read(
    file: Path, data: bytes, labels: Labels | None, size: tuple[int, int] | None, name: str | None
) -> ModelContents:
    kind = kind_of(data)
    if kind == "onnx":
        from mobilenet.files.imports.onnx_file import read_onnx

        given = None if labels is None else read_labels(labels)
        return read_onnx(file, data, labels=given, size=size)
    bundle = _bundle(file, data, kind)
    contents = _contents(bundle, size, name)
    contents.labels = _fitting_labels(contents, bundle.hints, labels)
    contents.provenance = {
        "source": file.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "format": bundle.format,
        **contents.provenance,
    }
    contents.validate()
    return contents


def _bundle(file: Path, data: bytes, kind: str) -> Bundle:
    """The tensors, by the reader of the file's kind."""
    if kind == "zip":
        kind = _packed_kind(data)
    if kind == "safetensors":
        from mobilenet.files.imports.torch_file import read_safetensors_bundle

        return read_safetensors_bundle(data, read_hints(file.parent))
    if kind in ("torch", "pickle"):
        from mobilenet.files.imports.torch_file import read_torch_bundle

        return read_torch_bundle(data, read_hints(file.parent))
    if kind in ("hdf5", "keras"):
        from mobilenet.files.imports.keras_file import read_hdf5_bundle, read_keras_bundle

        return read_hdf5_bundle(data) if kind == "hdf5" else read_keras_bundle(data)
    if data[8:9] == b"{" and b'"mobilenet"' in data[:4096]:
        raise ModelFileError("is a model file already, or a damaged one: mobilenet.load reads it")
    raise ModelFileError("is of no kind that is imported: .safetensors, .pth, .bin, .h5, .keras, .onnx, .tflite")


def _packed_kind(data: bytes) -> str:
    try:
        names = zipfile.ZipFile(BytesIO(data)).namelist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise ModelFileError(f"is a damaged or truncated archive: {error}") from error
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return "torch"
    if "model.weights.h5" in names:
        return "keras"
    raise ModelFileError(f"is an archive of no known kind; it packs {', '.join(names[:4]) or 'nothing'}")


def _contents(bundle: Bundle, size: tuple[int, int] | None, name: str | None) -> ModelContents:
    hints = bundle.hints
    originals = plain_names(bundle.tensors)
    tensors = {short: bundle.tensors[full] for short, full in originals.items()}
    match = recognise({short: array.shape for short, array in tensors.items()}, bundle.layout, hints, name)
    candidate, rules = match.candidate, _rules(match, hints)
    table = candidate.rows
    usual = table.resolution if candidate.head is None else HEADS[candidate.head].resolution
    height, width = size or hints.size or (usual, usual)
    if not SMALLEST_SIDE <= min(height, width) <= max(height, width) <= MAX_SIZE:
        raise ModelFileError(
            f"{hints.where} says pictures of {height} x {width}; {SMALLEST_SIDE} to {MAX_SIZE} are read"
        )
    graph = candidate.graph(match.width_multiplier, match.ends, (height, width), rules)
    wanted = _in_full(candidate.wanted(graph), originals)
    graph, weights = _without_auxiliary(graph, converted(wanted, bundle.tensors))
    return ModelContents(
        graph=graph,
        weights=weights,
        preprocessing=_preprocessing(match, hints, height, width),
        task=candidate.task if match.ends.output == "logits" else "embed",
        decoding=_decoding(match, graph),
        licence=hints.licence,
        provenance=_provenance(match, bundle, rules, name),
    )


def _decoding(match: Match, graph: Graph) -> Decoding | None:
    """How a detector's outputs are read."""
    if match.candidate.task != "detect" or match.candidate.head is None:
        return None
    return detector(match.candidate.head, {}).decoding(graph)


def _without_auxiliary(graph: Graph, weights: Weights) -> tuple[Graph, Weights]:
    """A segmenter without the classifier that only its training used."""
    if "auxiliary_logits" not in graph.outputs:
        return graph, weights
    graph = pruned(graph, {"logits": graph.outputs["logits"]})
    return graph, {name: weights[name] for name in graph.parameters()}


def _in_full(wanted: dict[str, Wanted], originals: dict[str, str]) -> dict[str, Wanted]:
    """With the names as they are in the file, so that errors say these."""
    return {ours: tensor._replace(name=originals[tensor.name]) for ours, tensor in wanted.items()}


def _rules(match: Match, hints: Hints) -> Dialect:
    changes: dict[str, object] = {}
    if hints.epsilon is not None:
        if not 0 < hints.epsilon < 1:
            raise ModelFileError(f"{hints.where}: the epsilon of batch norm is {hints.epsilon!r}")
        changes["epsilon"] = hints.epsilon
    if hints.padding is not None:
        changes["padding"] = hints.padding
    return match.candidate.with_rules(**changes)


def _preprocessing(match: Match, hints: Hints, height: int, width: int) -> Preprocessing | None:
    """The project's usual rule, with what a configuration says instead; none for what is no picture."""
    dialect = match.candidate.dialect
    usual = PRESETS[preprocessing_preset(dialect)](height, width)
    if match.candidate.task == "segment":  # torchvision's keeps the aspect ratio and cuts nothing
        usual = replace(usual, resize="pad")
    if match.candidate.task == "detect":  # torchvision's sees all, as -1 to 1
        usual = replace(PRESETS["tf"](height, width), resize="stretch", crop_fraction=1.0)
    rule = replace(usual, **hints.preprocessing)
    channels = match.ends.channels
    if channels == 1:
        mean, std = (sum(values) / len(values) for values in (rule.mean, rule.std))
        return replace(rule, channels="L", mean=(mean,), std=(std,))
    return rule if channels == 3 else None


def _provenance(match: Match, bundle: Bundle, rules: Dialect, name: str | None) -> dict[str, Any]:
    candidate, hints = match.candidate, bundle.hints
    said: dict[str, Any] = {"taken": ", ".join(bundle.notes)} if bundle.notes else {}
    if match.others:
        others = " and ".join(other.name for other in match.others)
        said["ambiguous"] = (
            f"taken for {candidate.project}'s {candidate.name}, but {others} has the very same tensors and other "
            "padding, epsilon or pools: a config.json beside it, or `mobilenet import --name`, says which it is"
        )
    if not hints.preprocessing:
        said["assumed"] = f"the preprocessing of pictures that is usual in {candidate.project}"
    return {
        "model": candidate.table if candidate.head is None else candidate.name,
        "width_multiplier": match.width_multiplier,
        "project": candidate.project,
        "name": name or hints.architecture or candidate.name,
        "dialect": candidate.dialect,
        "epsilon": rules.epsilon,
        **said,
    }


def _detector_labels(contents: ModelContents, hints: Hints, labels: Labels | None) -> tuple[str, ...]:
    """The names of what is found. The background, which is no such thing, may be named first and is left out."""
    assert contents.decoding is not None
    scores = contents.graph.types[contents.graph.outputs["scores"]]
    classes = contents.decoding.classes(scores.shape[-1])
    given = hints.labels if labels is None else read_labels(labels)
    if len(given) == classes + 1 and given[0].lower().strip("_") == BACKGROUND:
        return given[1:]
    if len(given) not in (0, classes):
        where = f"in {hints.where}" if labels is None else "given"
        raise ModelFileError(f"finds {classes} classes, but the labels {where} are {len(given)}")
    return given


def _fitting_labels(contents: ModelContents, hints: Hints, labels: Labels | None) -> tuple[str, ...]:
    """The labels in the order of the outputs. A background class comes first where there is one."""
    if contents.decoding is not None:
        return _detector_labels(contents, hints, labels)
    if "logits" not in contents.graph.outputs:
        if labels is not None:
            raise ModelFileError("has no classes that the given labels could name")
        return ()
    classes = contents.graph.types[contents.graph.outputs["logits"]].shape[-1]
    given = hints.labels if labels is None else read_labels(labels)
    if len(given) == classes or not given:
        return given
    if len(given) == classes + 1 and given[0].lower() == BACKGROUND:
        return given[1:]
    if len(given) == classes - 1 == 1000:
        return (BACKGROUND, *given)
    where = f"in {hints.where}" if labels is None else "given"
    raise ModelFileError(f"has {classes} outputs, but the labels {where} are {len(given)}")

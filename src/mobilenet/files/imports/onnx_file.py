"""ONNX files of MobileNets: the graph is read operator by operator into ours, channels last.

Only the file's bytes and, for large constants, files of the same folder are read. What an ONNX file does not say,
how a picture becomes the input, is taken from arithmetic on the input inside the file, or assumed and noted.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mobilenet.errors import GraphError, MissingExtraError, ModelFileError, UnsupportedOperatorError
from mobilenet.files.contents import ModelContents
from mobilenet.files.description import KEY, Description, parse_description
from mobilenet.files.imports.onnx_constants import KINDS, folded
from mobilenet.files.imports.onnx_graph import INPUT, PASSING, Conversion, Value, title
from mobilenet.files.imports.onnx_integers import settle
from mobilenet.files.imports.onnx_rules import RULES
from mobilenet.files.tflite import with_outputs
from mobilenet.files.tflite_labels import MAX_LABEL_BYTES, split_labels
from mobilenet.graph.graph import MAX_NODES, Graph, TensorType
from mobilenet.pictures.preprocess import PRESETS, Preprocessing

WEIGHT_FACTOR, WEIGHT_BYTES = 12, 2**24  # weights may take the files' size times the one plus the other
USUAL_SIDE = 224
_FLOAT, _UINT8 = 1, 2
KNOWN_OUTPUTS = {"logits", "probabilities", "embedding"}


def read_onnx(
    path: Path, data: bytes, *, labels: tuple[str, ...] | None = None, size: tuple[int, int] | None = None
) -> ModelContents:
    """An ONNX file as a model.

    Args:
        path: of the file, for its folder and name.
        data: its bytes.
        labels: of the classes.
        size: (height, width) of the picture; default: the file's own, 224 where it leaves that open.

    Raises:
        MissingExtraError: the onnx package is not installed.
        UnsupportedOperatorError: operators, or forms of them, that no MobileNet needs; they are named.
        ModelFileError: damaged or hostile.
    """
    model = _parsed(data)
    conversion = _converted(model, path, data, size)
    said = {entry.key: entry.value for entry in model.metadata_props}
    try:
        graph = conversion.finish(settle(conversion, conversion.outputs(), ends=KEY in said))
    except UnsupportedOperatorError:
        raise
    except GraphError as error:
        raise ModelFileError(str(error)) from error
    if size is not None and graph.inputs[INPUT].shape[:2] != size:
        graph = graph.resized(*size)
    contents = _contents(graph, conversion, said)
    contents.labels = _labels(contents, said, labels)
    contents.provenance = {
        **contents.provenance,
        "source": path.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "format": f"ONNX, by {model.producer_name or 'an unknown exporter'} {model.producer_version}".strip(),
    }
    contents.validate()
    return contents


def _parsed(data: bytes) -> Any:
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ModuleNotFoundError as error:
        raise MissingExtraError("reading an ONNX file", "import") from error
    try:
        model = onnx.ModelProto.FromString(data)
    except (DecodeError, ValueError, RuntimeError) as error:
        raise ModelFileError(f"is a damaged or truncated ONNX file: {error}") from error
    graph = model.graph
    if not graph.node or not graph.output:
        raise ModelFileError("is an ONNX file without a network, or damaged")
    if len(graph.node) > MAX_NODES:
        raise ModelFileError(f"has {len(graph.node)} nodes; at most {MAX_NODES} are accepted")
    if model.functions or graph.sparse_initializer:
        raise UnsupportedOperatorError("has functions of its own or sparse tensors, which are not read")
    return model


def _converted(model: Any, path: Path, data: bytes, size: tuple[int, int] | None) -> Conversion:
    kinds = {_kind(node) for node in model.graph.node}
    if "NonMaxSuppression" in kinds:
        raise UnsupportedOperatorError(
            "gives boxes that NonMaxSuppression has chosen, which is not read: read the detector's file with its "
            "raw outputs (`mobilenet export` without --nms)"
        )
    if missing := sorted(kinds - RULES.keys() - KINDS):
        raise UnsupportedOperatorError(f"the import of ONNX files does not have: {', '.join(missing)}")
    limit = WEIGHT_FACTOR * (len(data) + _beside(model, path.parent)) + WEIGHT_BYTES
    conversion = Conversion(model, path.parent, limit)
    _add_input(conversion, size)
    for conversion.place, node in enumerate(model.graph.node):
        if not node.output or (node.op_type not in PASSING and not node.input and node.op_type != "Constant"):
            raise ModelFileError(f"is damaged: a {node.op_type} reads or writes nothing")
        if folded(conversion, node):
            continue
        if node.op_type not in RULES:
            raise UnsupportedOperatorError(f"the import of ONNX files has no {node.op_type} of computed values")
        try:
            RULES[node.op_type](conversion, node)
        except UnsupportedOperatorError:
            raise
        except GraphError as error:
            raise ModelFileError(f"{title(node)}: {error}") from error
    return conversion


def _kind(node: Any) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def _beside(model: Any, folder: Path) -> int:
    """The size of the files beside it that its constants say they lie in."""
    names = {
        entry.value
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location" and "/" not in entry.value and "\0" not in entry.value
    }
    return sum((folder / name).stat().st_size for name in names if (folder / name).is_file())


def _add_input(conversion: Conversion, size: tuple[int, int] | None) -> None:
    """The one input that is no constant: a picture, channels first or last."""
    graph = conversion.model.graph
    inputs = [value for value in graph.input if value.name not in conversion.tensors]
    if len(inputs) != 1:
        raise ModelFileError(f"has {len(inputs)} inputs; one picture is expected")
    kind = inputs[0].type.tensor_type
    sizes = [int(axis.dim_value) if axis.HasField("dim_value") else 0 for axis in kind.shape.dim]
    if kind.elem_type not in (_FLOAT, _UINT8, 10, 11) or len(sizes) != 4:
        raise ModelFileError(
            f"has an input of {len(sizes)} axes or of type {kind.elem_type}; a picture is expected"
        )
    first = sizes[1] in (1, 3) or sizes[3] not in (1, 3)
    channels, rows, columns = (sizes[1], *sizes[2:]) if first else (sizes[3], *sizes[1:3])
    height, width = (rows or USUAL_SIDE, columns or USUAL_SIDE) if rows and columns else size or (USUAL_SIDE,) * 2
    if channels < 1 or min(rows, columns) < 0:
        raise ModelFileError(f"has an input of shape {sizes}; its channels must be known")
    conversion.inputs[INPUT] = TensorType((height, width, channels))
    conversion.values[inputs[0].name] = Value(INPUT, (height, width, channels), first)
    conversion.input_names.add(inputs[0].name)
    conversion.made[INPUT] = inputs[0].name
    conversion.batch = sizes[0] or 1


def _contents(graph: Graph, conversion: Conversion, said: dict[str, str]) -> ModelContents:
    """What the file says about itself if this package wrote it, else what its graph shows."""
    if KEY in said:
        description = parse_description(said[KEY].encode())
        if set(description.outputs) == set(graph.outputs) or len(description.outputs) == len(graph.outputs) == 1:
            return _described(graph, conversion, description)
    graph, task = _with_task(graph)
    rule, assumed = _preprocessing(conversion)
    provenance = {"assumed": assumed} if assumed else {}
    return ModelContents(graph, conversion.weights, rule, task=task, provenance=provenance)


def _with_task(graph: Graph) -> tuple[Graph, str]:
    """With outputs that go by what they mean: by their names, or where there is only one by what it is."""
    if set(graph.outputs) == {"embedding"}:
        return graph, "embed"
    if len(graph.outputs) > 1 and set(graph.outputs) <= KNOWN_OUTPUTS:
        return graph, "classify"
    if len(graph.outputs) > 1:
        return graph, "features"
    (value,) = graph.outputs.values()
    return with_outputs(replace(graph, outputs={"output": value}))


def _described(graph: Graph, conversion: Conversion, said: Description) -> ModelContents:
    if len(said.outputs) == 1:
        ends = {said.outputs[0]: next(iter(graph.outputs.values()))}
        graph = Graph(graph.inputs, graph.nodes, ends)
        if "classes" in ends:  # with the scores that they are the largest of
            graph, _ = with_outputs(replace(graph, outputs={"output": ends[said.outputs[0]]}))
    rule = said.preprocessing
    if conversion.normalises:
        rule = _folded(conversion, rule)
    return ModelContents(
        graph=graph,
        weights=conversion.weights,
        preprocessing=rule,
        task=said.task,
        calibration=said.calibration,
        metrics=said.metrics,
        licence=said.licence,
        provenance=dict(said.provenance),
        labels=said.labels,
        decoding=said.decoding,
    )


def _preprocessing(conversion: Conversion) -> tuple[Preprocessing | None, str]:
    """How a picture becomes the input, and what of it is only assumed."""
    height, width, channels = conversion.inputs[INPUT].shape
    if channels != 3:
        return None, ""
    if conversion.normalises:
        return _folded(conversion, None), "that its input takes pixels of 0 to 255, and how pictures are cropped"
    first = next(iter(conversion.values.values()))
    preset = "imagenet" if isinstance(first, Value) and first.first else "tf"
    what = "ImageNet's mean and deviation" if preset == "imagenet" else "a range of -1 to 1"
    return PRESETS[preset](height, width), f"how pictures are cropped, and {what} for the input"


def _folded(conversion: Conversion, rule: Preprocessing | None) -> Preprocessing:
    """scale * x + shift of the pixels, inside the file, as mean and deviation."""
    height, width, channels = conversion.inputs[INPUT].shape
    scale, shift = (np.broadcast_to(row, (channels,)) for row in (conversion.scale, conversion.shift))
    if not (np.isfinite(scale) & np.isfinite(shift) & (scale > 0)).all():
        raise ModelFileError(f"scales pixels by {scale.tolist()} and shifts them by {shift.tolist()}")
    base = rule or PRESETS["tf"](height, width)
    said = zip(rule.mean, rule.std, strict=True) if rule else [(0.0, 1.0)] * channels
    before = [(-m / s, 1 / s) for m, s in said]
    mean, deviation = [], []
    for (offset, factor), a, b in zip(before, scale, shift, strict=True):  # a * (factor * pixel + offset) + b
        deviation.append(float(1 / (a * factor)))
        mean.append(float(-(a * offset + b) / (a * factor)))
    return replace(base, mean=tuple(mean), std=tuple(deviation))


def _labels(contents: ModelContents, said: dict[str, str], given: tuple[str, ...] | None) -> tuple[str, ...]:
    output = contents.graph.outputs.get("logits") or contents.graph.outputs.get("probabilities")
    if contents.decoding is not None:  # whose labels are checked with the rest
        return contents.labels if given is None else given
    if output is None:
        if given is not None:
            raise ModelFileError("has no classes that the given labels could name")
        return ()
    classes = contents.graph.types[output].shape[-1]
    text = said.get("labels", "")[:MAX_LABEL_BYTES]
    labels = given if given is not None else contents.labels or split_labels(text)
    if labels and len(labels) != classes:
        raise ModelFileError(f"has {classes} outputs, but {len(labels)} labels")
    return labels

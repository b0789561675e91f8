"""Reads the official quantised MobileNets and other .tflite files of the family into a model.

What a .tflite file does not say is filled in by the convention of its makers and noted in the provenance: how a
picture is cropped, and the range of a float input. Everything in the file is untrusted.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mobilenet.errors import ArgumentError, GraphError, ModelFileError, UnsupportedOperatorError
from mobilenet.files.contents import ModelContents
from mobilenet.files.dequantise import to_float as dequantised
from mobilenet.files.description import KEY, Description, parse_description
from mobilenet.files.tflite_graph import INPUT, build_graph
from mobilenet.files.tflite_labels import packed_labels, read_labels
from mobilenet.files.tflite_schema import parse_tflite
from mobilenet.graph.edit import classifier_node
from mobilenet.graph.graph import Graph, TensorType, Weights
from mobilenet.graph.ops import ArgMax, AveragePool, Dequantise, L2Normalise, Mean, Quantise, Reshape, Softmax
from mobilenet.pictures.preprocess import Preprocessing

MAX_FILE_BYTES = 2**31
WEIGHT_FACTOR, WEIGHT_BYTES = 8, 2**24  # weights may take the file's size times the one plus the other


def read_tflite(
    path: str | os.PathLike[str],
    *,
    labels: str | os.PathLike[str] | Sequence[str] | None = None,
    to_float: bool = False,
) -> ModelContents:
    """A .tflite file as a model.

    The graph's input is "image". A classifier has the outputs "probabilities" (if the file ends in a softmax),
    "logits" and "embedding" (what the classifier layer reads), an embedding extractor "embedding", a segmenter
    "classes" and "logits" (what the classes are the largest of). Quantised files stay quantised, bit for bit;
    float files whose weights are stored as integers or float16 get float weights.

    Args:
        path: the file.
        labels: a text file with one label a line (what follows an empty line is a remark), or the labels; by
            default those that are packed into the file, if any.
        to_float: dequantise to a float graph, ready for fine-tuning (see `files.dequantise`).

    Raises:
        UnsupportedOperatorError: the file uses operators that a graph does not have; they are named.
        ModelFileError: the file is missing, damaged, hostile or not of a kind that is read, or its labels do not
            fit its outputs. Both errors name the file.
    """
    try:
        return _read(Path(path), labels, to_float)
    except UnsupportedOperatorError as error:
        raise UnsupportedOperatorError(f"{os.fspath(path)}: {error}") from error
    except (ModelFileError, GraphError, ArgumentError) as error:
        raise ModelFileError(f"{os.fspath(path)}: {error}") from error
    except OSError as error:
        raise ModelFileError(f"{os.fspath(path)}: cannot be read: {error.strerror or error}") from error


def _read(path: Path, labels: str | os.PathLike[str] | Sequence[str] | None, to_float: bool) -> ModelContents:
    raw = _bytes(path)
    data = memoryview(raw)
    model = parse_tflite(data)
    graph, weights = build_graph(model, WEIGHT_FACTOR * len(raw) + WEIGHT_BYTES)
    if (said := model.metadata.get(KEY)) is not None:
        description = parse_description(said.tobytes())
        contents = _described(path, graph, weights, description, labels, data)
    else:
        contents = _undescribed(path, raw, graph, weights, labels, model.description)
    contents.validate()
    return dequantised(contents) if to_float else contents


def _described(
    path: Path,
    graph: Graph,
    weights: Weights,
    said: Description,
    labels: str | os.PathLike[str] | Sequence[str] | None,
    data: memoryview,
) -> ModelContents:
    """A file that this package wrote says what it is; a classifier's embedding is found again."""
    if len(said.outputs) != len(graph.outputs) or len(set(said.outputs)) != len(said.outputs):
        raise ModelFileError(
            f"has {len(graph.outputs)} outputs, but describes {', '.join(said.outputs) or 'none'}"
        )
    named = dict(zip(said.outputs, graph.outputs.values(), strict=True))
    if len(named) == 1 and (said.task == "classify" or "classes" in named):
        graph = with_outputs(graph)[0]
        if set(named) - set(graph.outputs):
            raise ModelFileError(f"describes the output '{said.outputs[0]}', which it does not end in")
    else:
        graph = replace(graph, outputs=named)
    return ModelContents(
        graph=graph,
        weights=weights,
        preprocessing=said.preprocessing,
        labels=(said.labels or _labels(None, data, graph)) if labels is None else _labels(labels, data, graph),
        task=said.task,
        calibration=said.calibration,
        metrics=said.metrics,
        licence=said.licence,
        provenance={**said.provenance, "imported": path.name},
        decoding=said.decoding,
    )


def _undescribed(
    path: Path,
    raw: bytes,
    graph: Graph,
    weights: Weights,
    labels: str | os.PathLike[str] | Sequence[str] | None,
    description: str,
) -> ModelContents:
    """Any other file: conventions fill in what it does not say."""
    graph, task = with_outputs(graph)
    return ModelContents(
        graph=graph,
        weights=weights,
        preprocessing=_preprocessing(graph.inputs[INPUT], task),
        labels=_labels(labels, memoryview(raw), graph),
        task=task,
        provenance={
            "source": path.name,
            "sha256": hashlib.sha256(raw).hexdigest(),
            "format": "TensorFlow Lite",
            "description": description,
            "assumed": "the crop and interpolation of pictures, and for a float input its range, -1 to 1",
        },
    )


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise ModelFileError("is a folder, not a file" if path.is_dir() else "does not exist")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ModelFileError(f"is larger than {MAX_FILE_BYTES} bytes")
    return path.read_bytes()


def with_outputs(graph: Graph) -> tuple[Graph, str]:
    """The graph with outputs that go by what they mean, and the task."""
    if len(graph.outputs) != 1:
        return graph, "features"
    output = graph.outputs["output"]
    last = _without(graph, output, (Quantise, Dequantise))
    operator = None if last in graph.inputs else graph.node(last).operator
    if isinstance(operator, ArgMax):
        return replace(graph, outputs={"classes": output, "logits": graph.node(last).inputs[0]}), "segment"
    if isinstance(operator, Softmax):
        logits = graph.node(last).inputs[0]
        return _classifier(graph, {"probabilities": output, "logits": logits}), "classify"
    source = _without(graph, last, (Quantise, Dequantise, Reshape, L2Normalise))
    if source not in graph.inputs and isinstance(graph.node(source).operator, Mean | AveragePool):
        return replace(graph, outputs={"embedding": output}), "embed"
    classifier = _classifier(graph, {"logits": last})
    if "embedding" in classifier.outputs:
        return classifier, "classify"
    return graph, "features"  # none of the known kinds: the output keeps its neutral name


def _without(graph: Graph, name: str, skipped: tuple[type, ...]) -> str:
    """The value behind the nodes of some kinds."""
    while name not in graph.inputs and isinstance(graph.node(name).operator, skipped):
        name = graph.node(name).inputs[0]
    return name


def _classifier(graph: Graph, outputs: dict[str, str]) -> Graph:
    """With the output "embedding" too if there is a classifier layer; some nets average their last map instead."""
    named = replace(graph, outputs=outputs)
    try:
        return replace(graph, outputs={**outputs, "embedding": classifier_node(named).inputs[0]})
    except GraphError:
        return named


def _preprocessing(kind: TensorType, task: str) -> Preprocessing | None:
    """How a picture becomes the input, or none for an input that is no picture.

    The file's makers feed a quantised input with the pixels themselves (less 128 for int8), so that a pixel p
    stands for scale * (p - zero point): mean is the pixel of 0 and std the pixels of 1. A float input is taken as
    -1 to 1, the range of TF-slim and TFLite's own float models. Pictures are cropped as TF-slim's evaluation does;
    a segmenter sees the whole picture.
    """
    if len(kind.shape) != 3 or kind.shape[2] not in (1, 3):
        return None
    height, width, channels = kind.shape
    mean = std = 127.5
    if kind.quantisation:
        mean = float(kind.quantisation.zero_point + (128 if kind.dtype == "int8" else 0))
        std = 1 / kind.quantisation.scale
    return Preprocessing(
        height=height,
        width=width,
        resize="pad" if task == "segment" else "crop",
        channels="RGB" if channels == 3 else "L",
        mean=(mean,) * channels,
        std=(std,) * channels,
    )


def _labels(
    labels: str | os.PathLike[str] | Sequence[str] | None, data: memoryview, graph: Graph
) -> tuple[str, ...]:
    """Checked against the outputs here, so that the message can say where the labels come from."""
    given = packed_labels(data) if labels is None else read_labels(labels)
    if labels is None and not (given and "logits" in graph.outputs):
        return ()
    if "logits" not in graph.outputs:
        raise ModelFileError("has no classes that the given labels could name")
    classes = graph.types[graph.outputs["logits"]].shape[-1]
    if len(given) != classes:
        where = "packed into it" if labels is None else "given"
        raise ModelFileError(f"has {classes} outputs, but the labels {where} are {len(given)}")
    return given

"""Where training starts from: a new network with random weights, or a file's network with a new last layer."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mobilenet.errors import ArgumentError, GraphError, TrainingError
from mobilenet.files.contents import ModelContents
from mobilenet.graph.edit import classifier_node, pruned, with_classes
from mobilenet.graph.graph import Graph, Node, Weights
from mobilenet.graph.ops import Add, Conv, Dense
from mobilenet.learn.options import TrainOptions
from mobilenet.pictures.preprocess import Preprocessing

TFLITE_MAGIC = b"TFL3"


@dataclass(frozen=True)
class Start:
    """What is trained.

    Attributes:
        contents: a float classifier with outputs "logits" and "embedding", labelled with the data's classes.
        preprocessing: that of `contents`, which it always has.
        classifier: name of its last layer.
    """

    contents: ModelContents
    preprocessing: Preprocessing
    classifier: str


def make_start(options: TrainOptions, classes: tuple[str, ...]) -> Start:
    """The network to train for these classes.

    Raises:
        ArgumentError: an unknown model, or a size that it cannot have.
        ModelFileError, GraphError: the pretrained file is damaged, or is no classifier of pictures.
    """
    make = _pretrained if options.pretrained else _from_scratch
    graph, weights, preprocessing, origin = make(options, classes)
    classifier = classifier_node(graph).name
    graph = _regularised(graph, classifier, options.dropout, options.drop_path)
    contents = replace(origin, graph=graph, weights=weights, preprocessing=preprocessing, labels=classes)
    return Start(contents, preprocessing, classifier)


Parts = tuple[Graph, Weights, Preprocessing, ModelContents]
"""Graph, weights, preprocessing, and contents whose licence and provenance stay."""


def _from_scratch(options: TrainOptions, classes: tuple[str, ...]) -> Parts:
    from mobilenet.family.initialise import initialise
    from mobilenet.family.names import build, preprocessing_preset, resolve
    from mobilenet.pictures.preprocess import PRESETS

    graph = build(
        options.model,
        width_multiplier=options.width,
        resolution=options.resolution,
        classes=len(classes),
        dialect=options.dialect,
    )
    height, width, _ = next(iter(graph.inputs.values())).shape
    if "logits" not in graph.outputs:
        raise ArgumentError(
            f"--model {options.model} has no classifier; `mobilenet list` names those that have one"
        )
    preset = PRESETS[preprocessing_preset(options.dialect or resolve(options.model).dialect)]
    preprocessing, weights = preset(height, width), initialise(graph, options.seed)
    return graph, weights, preprocessing, ModelContents(graph, weights, preprocessing)


def _pretrained(options: TrainOptions, classes: tuple[str, ...]) -> Parts:
    assert options.pretrained is not None
    file = read_float_model(Path(options.pretrained))
    if file.preprocessing is None:
        raise TrainingError(f"{options.pretrained}: takes no pictures, so it cannot be trained on them")
    try:
        graph = with_classes(file.graph, len(classes))
        graph = _with_bias(graph, classifier_node(graph).name)
        if options.resolution:
            graph = graph.resized(options.resolution, options.resolution)
    except GraphError as error:
        raise GraphError(f"{options.pretrained}: cannot be fine-tuned: {error}") from error
    height, width, _ = next(iter(graph.inputs.values())).shape
    origin = ModelContents(
        graph, {}, file.preprocessing, licence=file.licence, provenance={"pretrained": file.provenance}
    )
    weights = _with_empty_classifier(graph, file.weights, classifier_node(graph))
    return graph, weights, file.preprocessing.with_size(height, width), origin


def _with_bias(graph: Graph, classifier: str) -> Graph:
    """The last layer is new, so it may have what fitting it needs: a bias, and no activation."""
    nodes = []
    for node in graph.nodes:
        if node.name == classifier and isinstance(node.operator, Dense | Conv):
            node = replace(node, operator=replace(node.operator, bias=True, activation="none"))
        nodes.append(node)
    return Graph(graph.inputs, tuple(nodes), graph.outputs)


def read_float_model(path: Path) -> ModelContents:
    """A model file or an official .tflite file as a float network.

    Raises:
        ModelFileError, UnsupportedOperatorError: it cannot be read; the message names it.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(8)
    except OSError as error:
        raise ArgumentError(f"--pretrained {path}: cannot be read: {error.strerror or error}") from error
    if head[4:8] == TFLITE_MAGIC:
        from mobilenet.files.tflite import read_tflite

        return read_tflite(path, to_float=True)
    from mobilenet.files.model_file import read_model_file

    contents = read_model_file(path)
    if any(kind.integer for kind in contents.graph.types.values()):
        from mobilenet.files.dequantise import to_float

        return to_float(contents)
    return contents


def _with_empty_classifier(graph: Graph, weights: Weights, classifier: Node) -> Weights:
    """The weights with zeros in the last layer: every class is as likely until the layer has learnt."""
    kept = {}
    for name, parameter in graph.parameters().items():
        own = name.startswith(f"{classifier.name}.")
        kept[name] = np.zeros(parameter.shape, np.float32) if own else weights[name]
    return kept


def _regularised(graph: Graph, classifier: str, dropout: float | None, drop_path: float) -> Graph:
    """Dropout before the last layer; stochastic depth that rises linearly to `drop_path` at the last block."""
    additions = [node.name for node in graph.nodes if isinstance(node.operator, Add)]
    nodes = []
    for node in graph.nodes:
        if dropout is not None and node.name == classifier:
            if not isinstance(node.operator, Dense):
                raise ArgumentError("--dropout: the last layer of this network is a convolution, which has none")
            node = replace(node, operator=replace(node.operator, dropout=dropout))
        if drop_path and isinstance(node.operator, Add):
            rate = drop_path * (additions.index(node.name) + 1) / len(additions)
            node = replace(node, operator=replace(node.operator, drop_path=rate))
        nodes.append(node)
    return Graph(graph.inputs, tuple(nodes), graph.outputs)


def fingerprint(contents: ModelContents, *, features_only: bool = False) -> str:
    """SHA-256 of graph, weights and preprocessing; without the last layer if only the features count."""
    graph = contents.graph
    if features_only:
        graph = pruned(graph, {"embedding": graph.outputs["embedding"]})
    digest = hashlib.sha256(repr((graph.to_dict(), contents.preprocessing)).encode())
    for name in graph.parameters():
        array = contents.weights[name]
        digest.update(f"{name}{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()

"""Where training starts from: a new network with random weights, or a file's network with a new last layer.

With another width than the file's, the network is cut out of the file's: `narrow`, `slicing`.
"""

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
        new: names of its nodes that nobody trained yet: of a classifier, its last layer.
        wide: the network that it was sliced from, if it was; see `renew.renewed`.
    """

    contents: ModelContents
    preprocessing: Preprocessing
    new: frozenset[str]
    wide: ModelContents | None = None


def make_start(options: TrainOptions, classes: tuple[str, ...]) -> Start:
    """The network to train for these classes.

    Raises:
        ArgumentError: an unknown model, or a size that it cannot have.
        ModelFileError, GraphError: the pretrained file is damaged, or is no classifier of pictures.
    """
    made = _pretrained(options, classes) if options.pretrained else _from_scratch(options, classes)
    sliced = bool(options.pretrained) and options.width is not None
    contents, wide = _sliced(options, made) if sliced else (made, None)
    classifier = classifier_node(contents.graph).name
    graph = _regularised(contents.graph, classifier, options.dropout, options.drop_path)
    assert contents.preprocessing is not None
    new = frozenset((classifier,))
    return Start(replace(contents, graph=graph, labels=classes), contents.preprocessing, new, wide)


def _from_scratch(options: TrainOptions, classes: tuple[str, ...]) -> ModelContents:
    from mobilenet.model import create

    made = create(
        options.model,
        width_multiplier=options.width,
        resolution=options.resolution,
        classes=len(classes),
        dialect=options.dialect,
        seed=options.seed,
    )
    if "logits" not in made.graph.outputs:
        raise ArgumentError(
            f"--model {options.model} has no classifier; `mobilenet list` names those that have one"
        )
    return ModelContents(made.graph, made.weights, made.preprocessing)


def _pretrained(options: TrainOptions, classes: tuple[str, ...]) -> ModelContents:
    assert options.pretrained is not None
    file = read_float_model(options.pretrained)
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
    return ModelContents(
        graph,
        _with_empty_classifier(graph, file.weights, classifier_node(graph)),
        file.preprocessing.with_size(height, width),
        licence=file.licence,
        provenance={"pretrained": file.provenance},
    )


def _sliced(options: TrainOptions, contents: ModelContents) -> tuple[ModelContents, ModelContents]:
    """The network at the width that is wanted, and the one that it is cut from, both with batch norms."""
    from mobilenet.learn.narrow import narrowed
    from mobilenet.learn.slicing import sliced_weights
    from mobilenet.learn.unfold import with_batch_norms

    assert options.width is not None
    wide = with_batch_norms(contents)
    said = contents.provenance["pretrained"].get("dialect")
    graph = narrowed(wide.graph, options.width, dialect=said if isinstance(said, str) else None)
    weights = sliced_weights(wide.graph, wide.weights, graph)
    provenance = {**contents.provenance, "sliced_to_width": options.width}
    return replace(contents, graph=graph, weights=weights, provenance=provenance), wide


def _with_bias(graph: Graph, classifier: str) -> Graph:
    """The last layer is new, so it may have what fitting it needs: a bias, and no activation."""
    nodes = []
    for node in graph.nodes:
        if node.name == classifier and isinstance(node.operator, Dense | Conv):
            node = replace(node, operator=replace(node.operator, bias=True, activation="none"))
        nodes.append(node)
    return Graph(graph.inputs, tuple(nodes), graph.outputs)


def read_float_model(source: str, option: str = "pretrained") -> ModelContents:
    """Somebody's weights as a float network.

    Args:
        source: a model file, a .tflite file, a checkpoint of another project or its folder, or a name of
            `mobilenet list --pretrained`, which is fetched.
        option: where it was given, for messages.

    Raises:
        ArgumentError: it is neither there nor published.
        ModelFileError, UnsupportedOperatorError: it cannot be read; the message names it.
        DownloadError: it is published, and could not be fetched.
    """
    from mobilenet.files.imports.kinds import kind_of
    from mobilenet.files.model_file import read_bytes
    from mobilenet.files.pull import find_weights

    path = find_weights(source, f"--{option} {source}")
    data = b"" if path.is_dir() else read_bytes(path)
    if data[4:8] == TFLITE_MAGIC:
        from mobilenet.files.tflite import read_tflite

        return read_tflite(path, to_float=True)
    if not data or kind_of(data):
        return _imported(path)
    from mobilenet.files.model_file import read_model_file

    contents = read_model_file(path)
    if any(kind.integer for kind in contents.graph.types.values()):
        from mobilenet.files.dequantise import to_float

        return to_float(contents)
    return contents


def _imported(path: Path) -> ModelContents:
    from mobilenet.files.imports.read import read_import

    return read_import(path)


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

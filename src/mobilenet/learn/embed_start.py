"""The network that learns to embed: a classifier's features with a new last layer, or what embeds already.

The new last layer is dense without bias and has a batch norm, the form that ArcFace's authors found best
(arXiv:1801.07698, section 3.1: "option E", without its dropout).
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from mobilenet.errors import ArgumentError, GraphError, TrainingError
from mobilenet.family.initialise import initialise
from mobilenet.files.contents import ModelContents
from mobilenet.graph.edit import classifier_node, pruned
from mobilenet.graph.graph import Graph, Node
from mobilenet.graph.ops import BatchNorm, Dense, Reshape
from mobilenet.learn.options import TrainOptions
from mobilenet.learn.start import Start, make_start, read_float_model

SIZE = 128  # of an embedding in place of a classifier: MobileFaceNet's
LINEAR, NORM, FLAT = "embedding.dense", "embedding.batch_norm", "embedding.flat"


def make_embedder(options: TrainOptions) -> Start:
    """The network to train, before `as_embedder`: a classifier with as many classes as the embedding has numbers.

    What embeds already, as MobileFaceNet does, stays as it is unless another length is wanted.

    Raises:
        ArgumentError: an unknown model, or a size that it cannot have.
        ModelFileError, GraphError: the pretrained file is damaged, or does not embed pictures.
    """
    own = _own_embedder(options)
    if own is None:
        classes = tuple(str(number) for number in range(options.embedding or SIZE))
        return make_start(options, classes)
    if options.width is not None and options.pretrained:
        raise ArgumentError(f"--width: {options.pretrained} has no classifier, so it cannot be sliced")
    assert own.preprocessing is not None
    return Start(own, own.preprocessing, frozenset())


def _own_embedder(options: TrainOptions) -> ModelContents | None:
    """The network that embeds by itself; none if it is a classifier."""
    if options.pretrained:
        contents = read_float_model(options.pretrained)
        if "logits" in contents.graph.outputs:
            return None
        return _resized(contents, options)
    from mobilenet.family.names import describe
    from mobilenet.model import create

    if "logits" in describe(options.model).outputs:
        return None
    made = create(
        options.model,
        width_multiplier=options.width,
        resolution=options.resolution,
        dialect=options.dialect,
        seed=options.seed,
        drop_path=options.drop_path,
    )
    return ModelContents(made.graph, made.weights, made.preprocessing, task="embed")


def _resized(contents: ModelContents, options: TrainOptions) -> ModelContents:
    name = options.pretrained
    if "embedding" not in contents.graph.outputs:
        raise GraphError(
            f"{name}: has neither logits nor an embedding; it has {', '.join(contents.graph.outputs)}"
        )
    if contents.preprocessing is None:
        raise TrainingError(f"{name}: takes no pictures, so it cannot be trained on them")
    graph = pruned(contents.graph, {"embedding": contents.graph.outputs["embedding"]})
    try:
        graph = graph.resized(options.resolution, options.resolution) if options.resolution else graph
    except GraphError as error:
        raise GraphError(f"{name}: cannot be trained at --resolution {options.resolution}: {error}") from error
    height, width, _ = next(iter(graph.inputs.values())).shape
    return ModelContents(
        graph,
        {parameter: contents.weights[parameter] for parameter in graph.parameters()},
        contents.preprocessing.with_size(height, width),
        licence=contents.licence,
        provenance={"pretrained": contents.provenance},
    )


def as_embedder(start: Start, options: TrainOptions) -> Start:
    """The start as a model of task "embed": output "embedding" [D], no classifier, the whole picture as input.

    The pictures of identities are cut to their subject, so none of it is cropped away; the new layer has random
    weights.
    """
    graph, new = start.contents.graph, frozenset[str]()
    if wanted := _new_layer(graph, options.embedding):
        graph, new = with_embedding(graph, *wanted), frozenset((LINEAR, NORM))
    preprocessing = replace(start.preprocessing, resize="stretch", crop_fraction=1.0)
    random = initialise(graph, options.seed)
    weights = {
        name: random[name] if name.rpartition(".")[0] in new else start.contents.weights[name]
        for name in graph.parameters()
    }
    contents = replace(
        start.contents, graph=graph, weights=weights, preprocessing=preprocessing, labels=(), task="embed"
    )
    return Start(contents, preprocessing, new)


def _new_layer(graph: Graph, size: int | None) -> tuple[str, int, float] | None:
    """What a new last layer reads, its length and its dropout; none if the network's own stays."""
    if "logits" in graph.outputs:
        classifier = classifier_node(graph)
        dropout = classifier.operator.dropout if isinstance(classifier.operator, Dense) else 0.0
        return classifier.inputs[0], size or SIZE, dropout
    if size in (None, prod(graph.types[graph.outputs["embedding"]].shape)):
        return None
    assert size is not None
    made_here = graph.outputs["embedding"] == NORM
    return graph.node(LINEAR).inputs[0] if made_here else graph.outputs["embedding"], size, 0.0


def with_embedding(graph: Graph, features: str, size: int, dropout: float = 0.0) -> Graph:
    """The graph up to a node, then a dense layer and a batch norm whose value is the output "embedding" [size]."""
    kept = pruned(graph, {"embedding": features})
    nodes, before = list(kept.nodes), features
    if len(kept.types[features].shape) != 1:
        nodes.append(Node(FLAT, Reshape((-1,)), (before,)))
        before = FLAT
    nodes.append(Node(LINEAR, Dense(size, bias=False, dropout=dropout), (before,)))
    nodes.append(Node(NORM, BatchNorm(), (LINEAR,)))
    return Graph(kept.inputs, tuple(nodes), {"embedding": NORM})


def features_of(start: Start) -> ModelContents | None:
    """The network up to what its new last layer reads; none if that layer is not new."""
    contents = start.contents
    if LINEAR not in start.new:
        return None
    graph = pruned(contents.graph, {"embedding": contents.graph.node(LINEAR).inputs[0]})
    return replace(contents, graph=graph, weights={name: contents.weights[name] for name in graph.parameters()})

"""The segmenter that is trained: a new one, a file's with new last layers, or a classifier under a new head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mobilenet.errors import ArgumentError, GraphError, TrainingError
from mobilenet.family.graft import grafted
from mobilenet.family.heads import HEADS, make_head
from mobilenet.family.initialise import initialise
from mobilenet.family.segmenters import Segmenter
from mobilenet.files.contents import ModelContents
from mobilenet.graph.edit import pruned
from mobilenet.graph.graph import Graph, Node, Weights
from mobilenet.graph.ops import Add, Conv, Resize
from mobilenet.learn.options import TrainOptions
from mobilenet.learn.start import Start, read_float_model
from mobilenet.pictures.preprocess import Preprocessing

HEAD = "deeplabv3plus"  # where none is asked for
RESOLUTION = 320  # of a classifier under a new head: its own would lose what is small
SEGMENTERS = tuple(name for name, head in HEADS.items() if issubclass(head, Segmenter))


def make_segmenter(options: TrainOptions, classes: tuple[str, ...]) -> Start:
    """The network to train for these classes.

    A file's segmenter keeps its last layers if its classes are the same, else gets new ones. A file's classifier
    keeps what is below its mean and gets the head of --head. Pictures are stretched to the input as a whole.

    Raises:
        ArgumentError: an unknown model or head, or a size that it cannot have.
        ModelFileError, GraphError: the pretrained file is damaged, or no head fits it.
        TrainingError: it takes no pictures.
    """
    if options.head is not None and options.head not in SEGMENTERS:
        raise ArgumentError(f"--head {options.head} is for no segmenter; accepted: {', '.join(SEGMENTERS)}")
    contents, new = (_pretrained if options.pretrained else _from_scratch)(options, classes)
    contents = replace(contents, labels=classes, task="segment", calibration={}, metrics={}, checks=())
    contents.validate()
    assert contents.preprocessing is not None
    return Start(contents, contents.preprocessing, new)


def _from_scratch(options: TrainOptions, classes: tuple[str, ...]) -> tuple[ModelContents, frozenset[str]]:
    from mobilenet.family.names import resolve_head
    from mobilenet.model import create

    head, _ = resolve_head(options.model, options.head)
    if head is not None and head not in SEGMENTERS:
        raise ArgumentError(f"--model {options.model} is no segmenter; its head is one of {', '.join(SEGMENTERS)}")
    made = create(
        options.model,
        width_multiplier=options.width,
        resolution=options.resolution,
        classes=len(classes),
        dialect=options.dialect,
        seed=options.seed,
        head=head or HEAD,
        output_stride=options.output_stride,
        drop_path=options.drop_path,
    )
    last = last_layers(made.graph)
    return ModelContents(made.graph, _with_even_answers(made.graph, made.weights, last), made.preprocessing), last


def _pretrained(options: TrainOptions, classes: tuple[str, ...]) -> tuple[ModelContents, frozenset[str]]:
    assert options.pretrained is not None
    if options.width is not None:
        raise ArgumentError(
            "--width with --pretrained: a segmenter is not sliced; slice a classifier (--task classify) and start "
            "from that"
        )
    file = read_float_model(options.pretrained)
    if file.preprocessing is None:
        raise TrainingError(f"{options.pretrained}: takes no pictures, so it cannot be trained on them")
    make = _reclassed if is_segmenter(file.graph) else _under_head
    try:
        graph, new, preprocessing = make(file, options, classes)
    except GraphError as error:
        raise GraphError(f"{options.pretrained}: cannot be fine-tuned: {error}") from error
    height, width, _ = next(iter(graph.inputs.values())).shape
    weights = _with_even_answers(graph, _filled(graph, file.weights, new, options.seed), last_layers(graph) & new)
    contents = ModelContents(
        graph,
        weights,
        preprocessing.with_size(height, width),
        licence=file.licence,
        provenance={"pretrained": file.provenance},
    )
    return contents, new


Made = tuple[Graph, frozenset[str], Preprocessing]
"""A graph, its nodes that nobody trained yet, and how pictures reach it, but for the size."""


def _reclassed(file: ModelContents, options: TrainOptions, classes: tuple[str, ...]) -> Made:
    if options.head is not None or options.output_stride is not None:
        raise ArgumentError(
            f"{options.pretrained} is a segmenter, which has a head and an output stride of its own: leave out "
            "--head and --output-stride"
        )
    assert file.preprocessing is not None
    graph = pruned(file.graph, {"logits": file.graph.outputs["logits"]})
    last = last_layers(graph)
    known = file.labels == classes
    if not known:
        graph = _changed(graph, last, lambda operator: replace(operator, out_channels=len(classes), bias=True))
    return _resized(graph, options.resolution), frozenset() if known else last, file.preprocessing


def _under_head(file: ModelContents, options: TrainOptions, classes: tuple[str, ...]) -> Made:
    assert file.preprocessing is not None
    head = make_head(options.head or HEAD, {})
    graph = _resized(_with_input_named(file.graph, "image"), options.resolution or RESOLUTION)
    graph = grafted(graph, head, len(classes), output_stride=options.output_stride or head.output_stride)
    graph = pruned(graph, {"logits": graph.outputs["logits"]})
    new = frozenset(node.name for node in graph.nodes) - {node.name for node in file.graph.nodes}
    return graph, new, whole_picture(file.preprocessing)


def _resized(graph: Graph, resolution: int | None) -> Graph:
    return graph.resized(resolution, resolution) if resolution else graph


def _with_input_named(graph: Graph, name: str) -> Graph:
    """The head's last layer enlarges scores to the size of the input, by its name."""
    ((given, kind),) = graph.inputs.items()
    nodes = (replace(node, inputs=tuple(name if i == given else i for i in node.inputs)) for node in graph.nodes)
    return graph if given == name else Graph({name: kind}, tuple(nodes), graph.outputs)


def whole_picture(preprocessing: Preprocessing) -> Preprocessing:
    """The same values, but nothing of a picture is cut off: every pixel is to get an answer."""
    return replace(preprocessing, resize="stretch", crop_fraction=1.0)


def is_segmenter(graph: Graph) -> bool:
    """Whether the output "logits" has scores for many places."""
    shape = graph.types[graph.outputs["logits"]].shape if "logits" in graph.outputs else ()
    return len(shape) == 3 and shape[0] * shape[1] > 1


def last_layers(graph: Graph) -> frozenset[str]:
    """The convolutions whose channels are the classes: those behind "logits" but for sums and enlarging.

    Raises:
        GraphError: something else makes the scores.
    """
    found: set[str] = set()
    waiting = [graph.outputs["logits"]]
    while waiting:
        name = waiting.pop()
        node = None if name in graph.inputs else graph.node(name)
        if node is not None and isinstance(node.operator, Conv):
            found.add(name)
        elif node is not None and isinstance(node.operator, Add):
            waiting += node.inputs
        elif node is not None and isinstance(node.operator, Resize):
            waiting.append(node.inputs[0])  # the second only says the size
        else:
            raise GraphError(f"'{name}' makes the scores of the classes, and no convolution does")
    return frozenset(found)


def _changed(graph: Graph, names: frozenset[str], change: Callable[[Conv], Conv]) -> Graph:
    nodes = []
    for node in graph.nodes:
        if node.name in names and isinstance(node.operator, Conv):
            node = Node(node.name, change(node.operator), node.inputs)
        nodes.append(node)
    return Graph(graph.inputs, tuple(nodes), graph.outputs)


def _filled(graph: Graph, weights: Weights, new: frozenset[str], seed: int) -> Weights:
    """A file's weights, and random ones for the new nodes."""
    random = initialise(graph, seed)
    return {name: (random if name.rpartition(".")[0] in new else weights)[name] for name in graph.parameters()}


def _with_even_answers(graph: Graph, weights: Weights, last: frozenset[str]) -> Weights:
    """Zeros in these last layers: every class is as likely until they have learnt."""
    own = {name for name in graph.parameters() if name.rpartition(".")[0] in last}
    return {name: np.zeros_like(array) if name in own else array for name, array in weights.items()}

"""The detector that learns: a new one, a file's with new class layers, or a file's classifier under a new head."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mobilenet.errors import ArgumentError, GraphError, TrainingError
from mobilenet.family.decoding import Decoding, feature_maps
from mobilenet.family.detectors import with_first_biases
from mobilenet.family.graft import grafted
from mobilenet.family.heads import detector
from mobilenet.family.initialise import initialise
from mobilenet.files.contents import ModelContents
from mobilenet.graph.graph import Graph, Weights
from mobilenet.graph.ops import Add, Conv, Reshape
from mobilenet.learn.options import TrainOptions
from mobilenet.learn.start import Start, read_float_model

USUAL_HEAD = "yolo"
PREDICTOR_DEVIATION = 0.01  # of a predictor's first weights: all places start about equal (arXiv:1708.02002, 4.1)


def make_detector(options: TrainOptions, classes: tuple[str, ...]) -> Start:
    """The network to train for these classes, which are counted without the background.

    Raises:
        ArgumentError: an unknown model or head, or a size that it cannot have.
        ModelFileError, GraphError: the pretrained file is damaged, or no head can stand on its network.
    """
    contents, new = _pretrained(options, classes) if options.pretrained else _from_scratch(options, classes)
    assert contents.preprocessing is not None
    graph = _with_drop_path(contents.graph, options.drop_path)
    return Start(replace(contents, graph=graph, labels=classes), contents.preprocessing, new)


def _from_scratch(options: TrainOptions, classes: tuple[str, ...]) -> tuple[ModelContents, frozenset[str]]:
    from mobilenet.family.names import resolve_head
    from mobilenet.model import create

    head = resolve_head(options.model, options.head)[0] or USUAL_HEAD
    columns = len(classes) + _background(head)
    made = create(
        options.model,
        head=head,
        width_multiplier=options.width,
        resolution=options.resolution,
        classes=columns,
        dialect=options.dialect,
        seed=options.seed,
    )
    new = frozenset(node.name for node in made.graph.nodes)
    weights = _with_small_predictors(made.weights, _predictors(made.graph))
    contents = ModelContents(
        made.graph, weights, made.preprocessing, task="detect", decoding=made.decoding, provenance={}
    )
    return contents, new


def _background(head: str) -> int:
    """How many columns of the scores are no class."""
    detector(head, {})  # raises for heads that find no boxes
    return 0 if head == "yolo" else 1


def _pretrained(options: TrainOptions, classes: tuple[str, ...]) -> tuple[ModelContents, frozenset[str]]:
    assert options.pretrained is not None
    if options.width is not None:
        raise ArgumentError(
            "--width with --pretrained slices classifiers: slice and train that, then its detector"
        )
    file = read_float_model(options.pretrained)
    if file.preprocessing is None:
        raise TrainingError(f"{options.pretrained}: takes no pictures, so it cannot be trained on them")
    try:
        if file.decoding is None:
            return _under_a_new_head(options, file, classes)
        if options.head is not None:
            raise ArgumentError(f"--head {options.head}: {options.pretrained} is a detector and has a head")
        return _for_classes(options, file, classes)
    except GraphError as error:
        raise GraphError(f"{options.pretrained}: cannot be made a detector: {error}") from error


def _under_a_new_head(
    options: TrainOptions, file: ModelContents, classes: tuple[str, ...]
) -> tuple[ModelContents, frozenset[str]]:
    """The file's network up to its last features, and a head with random weights."""
    name = options.head or USUAL_HEAD
    columns = len(classes) + _background(name)
    head = detector(name, {})
    side = options.resolution or head.resolution
    graph = grafted(file.graph, head, columns, side=side)
    random = with_first_biases(head, graph, initialise(graph, options.seed))
    random = _with_small_predictors(random, _predictors(graph))
    own = {node.name for node in file.graph.nodes}
    new = frozenset(node.name for node in graph.nodes if node.name not in own)
    weights = {key: random[key] if key.rpartition(".")[0] in new else file.weights[key] for key in random}
    return _contents(file, graph, weights, head.decoding(graph)), new


def _for_classes(
    options: TrainOptions, file: ModelContents, classes: tuple[str, ...]
) -> tuple[ModelContents, frozenset[str]]:
    """The file's detector, with new layers for the scores unless its classes are these already."""
    assert file.decoding is not None
    graph, decoding = file.graph, file.decoding
    if options.resolution:
        graph = graph.resized(options.resolution, options.resolution)
        decoding = decoding.fitted(graph)
    new = frozenset[str]()
    weights = file.weights
    if file.labels != classes:
        graph, names = with_score_columns(graph, len(classes) + decoding.background)
        new = frozenset(names)
        random = _with_small_predictors(initialise(graph, options.seed), new)
        head = detector("yolo" if decoding.scores == "sigmoid" else "ssd", {})
        for name, (rows, columns) in zip(names, decoding.maps, strict=True):
            bias = head.first_bias("scores", rows * columns)
            random[f"{name}.bias"] = np.full_like(random[f"{name}.bias"], bias)
        weights = {key: random[key] if key.rpartition(".")[0] in new else weights[key] for key in random}
    return _contents(file, graph, weights, decoding), new


def _contents(file: ModelContents, graph: Graph, weights: Weights, decoding: Decoding) -> ModelContents:
    assert file.preprocessing is not None
    height, width, _ = next(iter(graph.inputs.values())).shape
    preprocessing = file.preprocessing.with_size(height, width)
    if file.decoding is None:  # objects at the sides of a picture count, so nothing is cropped away
        preprocessing = replace(preprocessing, resize="stretch", crop_fraction=1.0)
    return ModelContents(
        graph,
        {name: weights[name] for name in graph.parameters()},
        preprocessing,
        task="detect",
        licence=file.licence,
        provenance={"pretrained": file.provenance},
        decoding=decoding,
    )


def with_score_columns(graph: Graph, columns: int) -> tuple[Graph, list[str]]:
    """A detector with other columns of scores, and the convolutions that give them, whose weights no longer fit.

    Raises:
        GraphError: the output "scores" is not joined from convolutions.
    """
    final = graph.node(graph.outputs["scores"])
    predictors = _predictors_of(graph, "scores")
    old = graph.types[final.name].shape[-1]
    nodes = []
    for node in graph.nodes:
        operator = node.operator
        if node.name in predictors and isinstance(operator, Conv):
            priors = operator.out_channels // old
            node = replace(node, operator=replace(operator, out_channels=priors * columns, bias=True))
        elif isinstance(operator, Reshape) and operator.shape[-1] == old and node.name == final.name:
            node = replace(node, operator=Reshape((*operator.shape[:-1], columns)))
        nodes.append(node)
    changed = Graph(graph.inputs, tuple(nodes), graph.outputs)
    if changed.types[final.name].shape[-1] != columns:
        raise GraphError(f"'{final.name}' of output 'scores' is no reshape of joined feature maps")
    return changed, predictors


def _predictors(graph: Graph) -> list[str]:
    return [*_predictors_of(graph, "boxes"), *_predictors_of(graph, "scores")]


def _predictors_of(graph: Graph, output: str) -> list[str]:
    """The convolutions whose flattened values an output is joined from."""
    feature_maps(graph)  # raises unless "boxes" has the form that is walked here
    name = graph.outputs[output]
    while len((node := graph.node(name)).inputs) == 1:
        name = node.inputs[0]
    found = []
    for part in node.inputs:
        while not isinstance((conv := graph.node(part)).operator, Conv):
            if not isinstance(conv.operator, Reshape):
                raise GraphError(f"node '{conv.name}' of output '{output}' is no reshaped convolution")
            part = conv.inputs[0]
        found.append(conv.name)
    return found


def _with_small_predictors(weights: Weights, predictors: frozenset[str] | list[str]) -> Weights:
    small = dict(weights)
    for name in predictors:
        weight = weights[f"{name}.weight"]
        scale = PREDICTOR_DEVIATION / max(float(weight.std()), 1e-12)
        small[f"{name}.weight"] = (weight * np.float32(scale)).astype(np.float32)
    return small


def _with_drop_path(graph: Graph, drop_path: float) -> Graph:
    """Stochastic depth of the network's own sums, rising linearly to `drop_path`; not a pyramid's."""
    if not drop_path:
        return graph
    sums = [n.name for n in graph.nodes if isinstance(n.operator, Add) and not n.name.startswith("pyramid.")]
    nodes = []
    for node in graph.nodes:
        if node.name in sums and isinstance(node.operator, Add):
            rate = drop_path * (sums.index(node.name) + 1) / len(sums)
            node = replace(node, operator=replace(node.operator, drop_path=rate))
        nodes.append(node)
    return Graph(graph.inputs, tuple(nodes), graph.outputs)

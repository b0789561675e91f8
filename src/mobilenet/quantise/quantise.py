"""Post-training static quantisation of a model: ranges by min-max over calibration pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from mobilenet.errors import ArgumentError
from mobilenet.files.contents import ModelContents
from mobilenet.graph.graph import Graph, Weights
from mobilenet.pictures.decode import Picture
from mobilenet.pictures.preprocess import Preprocessing
from mobilenet.quantise.integer import to_integers
from mobilenet.quantise.lower import lower
from mobilenet.quantise.ranges import Range, measure_ranges


def quantise(contents: ModelContents, batches: Iterable[np.ndarray]) -> ModelContents:
    """The model with uint8 values and int8 weights, which answers nearly as the float model does.

    The input's range is that of the preprocessing, whatever the pictures; every other value's range is the
    lowest to the highest that it takes on the calibration inputs. The temperature stays; metrics and checks were
    the float model's and go.

    Args:
        contents: a float model.
        batches: preprocessed pictures, float32 (N, height, width, channels): a hundred that are like those that
            the model will see are plenty, a few are enough for a try.

    Raises:
        ArgumentError: the model is quantised already, there is no batch, or a batch does not fit.
        GraphError: the weights do not fit the graph, or a layer is too large for int32 sums.
    """
    graph, weights = quantise_graph(
        contents.graph, contents.weights, batches, input_range=picture_range(contents.preprocessing)
    )
    return replace(
        contents,
        graph=graph,
        weights=weights,
        metrics={},
        checks=(),
        provenance={**contents.provenance, "quantised": "uint8 values, int8 weights by channel, min-max"},
    )


def quantise_graph(
    graph: Graph, weights: Weights, batches: Iterable[np.ndarray], *, input_range: Range | None = None
) -> tuple[Graph, Weights]:
    """A float graph in integers; see `quantise`.

    Args:
        graph: a float graph with one input; batch norms may be folded or not.
        weights: of the graph.
        batches: float32 (N, ...) of the input's shape, at least one.
        input_range: of the input; default: what the batches show.

    Returns:
        The integer graph (uint8 input and outputs, which keep their names) and its weights.

    Raises:
        ArgumentError, GraphError: as `quantise`.
    """
    check_quantisable(graph)
    graph.check_weights(weights)
    lowered, weights = lower(graph, weights)
    ranges = measure_ranges(lowered, weights, batches)
    if input_range is not None:
        ranges |= dict.fromkeys(graph.inputs, input_range)
    return to_integers(lowered, weights, ranges)


def check_quantisable(graph: Graph) -> None:
    """Raises `ArgumentError` for a graph that is quantised already, or that has several inputs."""
    if any(kind.integer for kind in graph.types.values()):
        raise ArgumentError(
            "the model is quantised already; to quantise a .tflite file anew, import it with --float first"
        )
    if len(graph.inputs) != 1:
        raise ArgumentError(f"the graph has the inputs {', '.join(graph.inputs)}; one is quantised")


def calibration_batches(
    contents: ModelContents,
    pictures: Sequence[Picture],
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[np.ndarray]:
    """Each picture as a batch of its own, float32 (1, height, width, channels), by the model's preprocessing.

    Args:
        contents: a model with preprocessing.
        pictures: what to read.
        on_progress: called with (done, total) before each picture and at the end.

    Raises:
        ArgumentError: the model takes arrays, not pictures.
        ImageError: a picture cannot be read.
    """
    if contents.preprocessing is None:
        raise ArgumentError("this model takes arrays, not pictures: call quantise with batches of arrays")
    for done, picture in enumerate(pictures):
        if on_progress is not None:
            on_progress(done, len(pictures))
        yield contents.preprocessing(picture)[None]
    if on_progress is not None:
        on_progress(len(pictures), len(pictures))


def picture_range(preprocessing: Preprocessing | None) -> Range | None:
    """The lowest and highest value that preprocessing can give; none if the input is no picture."""
    if preprocessing is None:
        return None
    channels = len(preprocessing.mean)
    extremes = preprocessing.normalise(np.array([[0] * channels, [255] * channels], np.uint8))
    return Range(float(extremes.min()), float(extremes.max()))

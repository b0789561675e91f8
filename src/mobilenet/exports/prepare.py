"""From a model to the network that goes into a file: precision, size, outputs, folded, picture or array in."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mobilenet.errors import ArgumentError, GraphError, ModelFileError
from mobilenet.exports.ends import main_output_only, with_picture_input
from mobilenet.files.contents import ModelContents
from mobilenet.files.dequantise import to_float
from mobilenet.graph.fold import fold

PRECISIONS = ("fp32", "int8")
MAX_BATCH = 4096


@dataclass(frozen=True)
class Options:
    """How a model is to be exported.

    Attributes:
        precision: "fp32" or "int8"; none: the model's own. An integer model can be written in floats, but a
            float model must be quantised before it is exported in integers.
        resolution: side of the picture in pixels; none: the model's own.
        batch: how many pictures at once; none: any number.
        picture_input: whether the file takes uint8 pixels and normalises them itself.
        nms: whether a detector's file gives boxes, by the runtime's own suppression, instead of its raw outputs.
    """

    precision: str | None = None
    resolution: int | None = None
    batch: int | None = 1
    picture_input: bool = False
    nms: bool = False

    def __post_init__(self) -> None:
        if self.precision not in (None, *PRECISIONS):
            raise ArgumentError(f"precision is one of {', '.join(PRECISIONS)}, not {self.precision!r}")
        if self.batch is not None and not (type(self.batch) is int and 1 <= self.batch <= MAX_BATCH):
            raise ArgumentError(f"batch is 'dynamic' or a whole number from 1 to {MAX_BATCH}, not {self.batch!r}")


def parse_batch(text: str) -> int | None:
    """A number of pictures, or none for "dynamic"; raises `ArgumentError` for anything else."""
    if text == "dynamic":
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise ArgumentError(f"batch is 'dynamic' or a whole number from 1 to {MAX_BATCH}, not {text!r}")
    return int(text)


def source_of(contents: ModelContents, options: Options) -> ModelContents:
    """The model at the precision and size that are wanted, with its main output: what the file must agree with.

    Raises:
        ArgumentError: a float model in int8, or a size that a node cannot work at.
        ModelFileError: a weight is no finite number; it is named.
    """
    _check_weights(contents)
    integer = is_integer(contents)
    if options.precision == "int8" and not integer:
        raise ArgumentError(
            "the model is of floats: quantise it first (mobilenet quantise MODEL --data FOLDER -o SMALL), "
            "then export that"
        )
    if options.precision == "fp32" and integer:
        contents = to_float(contents)
    if options.resolution is not None:
        contents = _resized(contents, options.resolution)
    return main_output_only(contents)


def exported(source: ModelContents, options: Options) -> ModelContents:
    """What goes into the file: batch norms folded and, if wanted, the values of the preprocessing inside.

    Raises:
        ArgumentError: the model has no preprocessing that could be inside.
    """
    graph, weights = fold(source.graph, source.weights)
    contents = replace(source, graph=graph, weights=weights, checks=())
    return with_picture_input(contents) if options.picture_input else contents


def is_integer(contents: ModelContents) -> bool:
    """Whether any value is quantised."""
    return any(kind.integer for kind in contents.graph.types.values())


def _check_weights(contents: ModelContents) -> None:
    for name, array in contents.weights.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ModelFileError(
                f"tensor '{name}' holds NaN or infinity: such a model answers nothing, export another"
            )


def _resized(contents: ModelContents, resolution: int) -> ModelContents:
    (kind,) = contents.graph.inputs.values()
    if kind.shape[:2] == (resolution, resolution):
        return contents
    rule = contents.preprocessing
    try:
        graph = contents.graph.resized(resolution, resolution)
        graph.check_weights(contents.weights)
    except GraphError as error:
        raise ArgumentError(f"the model cannot work at a resolution of {resolution}: {error}") from error
    rule = rule.with_size(resolution, resolution) if rule is not None else None
    decoding = contents.decoding.fitted(graph) if contents.decoding else None
    return replace(contents, graph=graph, preprocessing=rule, checks=(), decoding=decoding)

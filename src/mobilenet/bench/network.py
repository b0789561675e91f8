"""The one network that every runtime of a bench gets, in each runtime's own form, made when first asked for."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import mobilenet
from mobilenet.errors import ArgumentError, MissingExtraError
from mobilenet.exports.ends import float_ends
from mobilenet.files.contents import ModelContents
from mobilenet.files.dequantise import to_float
from mobilenet.files.model_file import encode
from mobilenet.graph.cost import cost
from mobilenet.graph.edit import pruned
from mobilenet.graph.fold import fold
from mobilenet.graph.graph import Graph, Weights
from mobilenet.graph.ops import Shape
from mobilenet.model import Model
from mobilenet.quantise import quantise
from mobilenet.quantise.random import random_batch, random_model

PRECISIONS = ("fp32", "bf16", "int8")
CALIBRATION_PICTURES = 4
MAIN_OUTPUTS = ("logits", "probabilities", "classes", "embedding")  # the first that a network has is compared


@dataclass
class Network:
    """A network with one output, folded, and a batch of pictures for it.

    Attributes:
        name: how it is called in tables.
        contents: the float model.
        quantised: the same in integers, if the caller has one; otherwise it is quantised here on random pictures.
        batch_size: how many pictures run at once.
    """

    name: str
    contents: ModelContents
    quantised: ModelContents | None = None
    batch_size: int = 1

    @cached_property
    def batch(self) -> np.ndarray:
        """Preprocessed pictures, float32 (N, height, width, channels)."""
        return random_batch(Model.of(self.contents), count=self.batch_size, seed=1)

    @cached_property
    def batch_nchw(self) -> np.ndarray:
        """The same, float32 (N, channels, height, width)."""
        return np.ascontiguousarray(self.batch.transpose(0, 3, 1, 2))

    @property
    def float_graph(self) -> tuple[Graph, Weights]:
        """Folded, with one output."""
        return self.contents.graph, self.contents.weights

    @property
    def main_shape(self) -> Shape:
        """The output's, without the batch."""
        graph = self.contents.graph
        return graph.types[next(iter(graph.outputs.values()))].shape

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of one picture, attention included."""
        counted = cost(self.contents.graph)
        return counted.macs + counted.attention_macs

    @cached_property
    def integers(self) -> ModelContents:
        """The quantised model; takes and gives integers."""
        if self.quantised is not None:
            return self.quantised
        return quantise(self.contents, self.calibration())

    def calibration(self) -> Iterator[np.ndarray]:
        """A few random pictures, each a batch of one."""
        model = Model.of(self.contents)
        return (random_batch(model, seed=100 + number) for number in range(CALIBRATION_PICTURES))

    @cached_property
    def onnx(self) -> bytes:
        """The float model for runtimes that read ONNX."""
        from mobilenet.exports.onnx_writer import to_onnx

        return bytes(to_onnx(*self.float_graph, batch=self.batch_size).SerializeToString())

    @cached_property
    def onnx_int8(self) -> bytes:
        """`onnx`, quantised by onnxruntime: uint8 activations, int8 weights by channel, float32 ends."""
        try:
            return _quantised_onnx(self)
        except ModuleNotFoundError as error:
            raise MissingExtraError(f"an int8 ONNX model (no module named {error.name!r})", "bench") from error

    @cached_property
    def tflite(self) -> bytes:
        """The float model for LiteRT."""
        from mobilenet.exports.tflite_writer import to_tflite

        return to_tflite(*self.float_graph, batch=self.batch_size)

    @cached_property
    def tflite_int8(self) -> bytes:
        """Our integer graph for LiteRT, with float32 ends."""
        from mobilenet.exports.tflite_writer import to_tflite

        return to_tflite(self.integers.graph, self.integers.weights, batch=self.batch_size)

    def model_file(self, precision: str) -> bytes:
        """The model for the engine: for int8 the integer graph with float32 ends, otherwise the float one."""
        return encode(with_float_ends(self.integers) if precision == "int8" else self.contents)


def find_network(
    name: str, *, resolution: int | None = None, width: float | None = None, batch_size: int = 1
) -> Network:
    """The network that a model file or the name of a family member stands for.

    Args:
        name: a path to a model file or .tflite file, or a name as for `mobilenet.create`; a name gets random
            weights.
        resolution: side of the picture; default: the model's own.
        width: width multiplier of a family member.
        batch_size: how many pictures run at once.

    Raises:
        ArgumentError: an unknown name, or a width multiplier for a file.
        ModelFileError: the file cannot be read.
    """
    if batch_size < 1:
        raise ArgumentError(f"batch is {batch_size}: at least 1 is needed")
    if not Path(name).is_file():
        model = random_model(name, resolution=resolution, width_multiplier=width)
        return Network(name, reduced(model), batch_size=batch_size)
    if width is not None:
        raise ArgumentError(f"'{name}' is a file, whose width is fixed: leave --width out")
    contents: ModelContents = mobilenet.load(name)
    if resolution is not None:
        contents = _resized(contents, resolution)
    integer = any(kind.integer for kind in contents.graph.types.values())
    quantised = _main_output_only(contents) if integer else None
    return Network(Path(name).name, reduced(to_float(contents)), quantised, batch_size)


def with_float_ends(contents: ModelContents) -> ModelContents:
    """A quantised model that takes and gives float32 and converts both itself, as those of its peers do."""
    return _with(contents, graph=float_ends(contents.graph))


def _resized(contents: ModelContents, resolution: int) -> ModelContents:
    rule = contents.preprocessing
    if rule is not None:
        rule = replace(rule, height=resolution, width=resolution)
    return _with(contents, graph=contents.graph.resized(resolution, resolution), preprocessing=rule)


def _main_output_only(contents: ModelContents) -> ModelContents:
    """The model with one output, so that every runtime computes the same."""
    outputs = contents.graph.outputs
    main = next((name for name in MAIN_OUTPUTS if name in outputs), next(iter(outputs)))
    graph = pruned(contents.graph, {main: outputs[main]})
    return _with(contents, graph=graph, weights={name: contents.weights[name] for name in graph.parameters()})


def reduced(contents: ModelContents) -> ModelContents:
    """The model with one output and its batch norms folded."""
    contents = _main_output_only(contents)
    graph, weights = fold(contents.graph, contents.weights)
    return _with(contents, graph=graph, weights=weights)


def _with(contents: ModelContents, **changes: Any) -> ModelContents:
    """Other contents without what no longer fits: checks are of all outputs, at the model's own size."""
    values = {
        "graph": contents.graph,
        "weights": contents.weights,
        "preprocessing": contents.preprocessing,
        "task": "features",
        **changes,
    }
    return ModelContents(**values)


def _quantised_onnx(network: Network) -> bytes:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = (
                np.ascontiguousarray(picture.transpose(0, 3, 1, 2).repeat(network.batch_size, 0))
                for picture in network.calibration()
            )

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {next(iter(network.contents.graph.inputs)): batch}

    with tempfile.TemporaryDirectory() as folder, _without_warnings():
        path = Path(folder) / "quantised.onnx"
        quantize_static(
            onnx.load_from_string(network.onnx),
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return path.read_bytes()


@contextmanager
def _without_warnings() -> Iterator[None]:
    """onnxruntime warns of a preparation that folding has done already."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)

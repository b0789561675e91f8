"""Whether a file, run by the runtime that it is for, gives the model's answers on the model's own test pictures.

Floats must be within 1e-4 of the largest absolute value of an output. In integers at most 0.5% of the outputs may
be more than one quantum away, and the first class must be the same where it leads by more than 20 quanta: that is
how close the runtimes' own sets of kernels are to each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np

from mobilenet.errors import ModelFileError
from mobilenet.exports.ends import takes_pixels
from mobilenet.exports.prepare import is_integer
from mobilenet.files.contents import ModelContents
from mobilenet.graph.graph import Quantisation, Weights
from mobilenet.graph.ops import Shape
from mobilenet.run import reference
from mobilenet.run.quanta import dequantise_array

FLOAT_TOLERANCE = 1e-4
FAR_SHARE, CLEAR_MARGIN = 0.005, 20  # quanta
ENOUGH_OUTPUTS, MOST_PICTURES = 1000, 64  # a share of a few outputs says nothing
COARSE = 4  # squares a side of a test picture, as in a model file's own

RunFile = Callable[[bytes, np.ndarray, list[str]], Weights]


@dataclass(frozen=True)
class Proof:
    """How a file compares with its model.

    Attributes:
        runtime: its name and version, or the name alone if it is not installed.
        pictures: how many were compared; 0: the runtime is not installed, nothing was.
        difference: the largest of an output: a share of its largest absolute value, or quanta.
        far: the share of outputs that are more than one quantum away; 0 for floats.
        integer: whether quanta were compared.
    """

    runtime: str
    pictures: int = 0
    difference: float = 0.0
    far: float = 0.0
    integer: bool = False

    def __str__(self) -> str:
        if not self.pictures:
            return f"not checked: {self.runtime} is not installed"
        if self.integer:
            found = f"at most {self.difference:g} quanta away, {self.far:.2%} of the outputs more than 1"
        else:
            found = f"within {self.difference:.1e} of the largest output"
        return f"checked with {self.runtime} on {self.pictures} pictures: {found}"


@dataclass(frozen=True)
class Cases:
    """Test pictures as the file takes them, float32 or uint8 or int8 (N, ...), and the real outputs for them."""

    inputs: np.ndarray
    expected: Weights
    quanta: dict[str, Quantisation | None]
    integer: bool


def cases(source: ModelContents, exported: ModelContents, pictures: Sequence[np.ndarray] | None = None) -> Cases:
    """What the file is tried on, and what the reference says to it.

    Args:
        source: the model.
        exported: what is in the file: the same network, perhaps with the preprocessing's values inside.
        pictures: uint8 (height, width, 3); default: the model's own test pictures, and as many more of their kind
            as make the count of outputs telling.
    """
    from mobilenet.model import Model

    model = Model.of(source)
    pixels = _pixels(model, pictures)
    batch = pixels if source.preprocessing is None else model.to_input(pixels)
    outputs = _answers(model, batch)
    kinds = {name: source.graph.types[value] for name, value in source.graph.outputs.items()}
    expected = {}
    for name, array in outputs.items():
        quantisation = kinds[name].quantisation
        expected[name] = array if quantisation is None else dequantise_array(array, quantisation)
    given = pixels if exported.graph.inputs != source.graph.inputs or takes_pixels(exported) else batch
    quanta = {name: kind.quantisation for name, kind in kinds.items()}
    return Cases(given, expected, quanta, is_integer(source))


def _pixels(model: ModelContents, given: Sequence[np.ndarray] | None) -> np.ndarray:
    """uint8 pixels (N, height, width, channels), or random numbers in the input's dtype if it is no picture."""
    generator = np.random.default_rng(1)
    elements = sum(int(np.prod(model.graph.types[value].shape)) for value in model.graph.outputs.values())
    count = int(np.clip(-(-ENOUGH_OUTPUTS // elements), 2, MOST_PICTURES))
    rule, (kind,) = model.preprocessing, model.graph.inputs.values()
    if rule is None:
        if kind.quantisation is None:
            return np.asarray(generator.uniform(-1, 1, (count, *kind.shape)), np.float32)
        info = np.iinfo(kind.dtype)
        return generator.integers(info.min, info.max, (count, *kind.shape), kind.dtype, endpoint=True)
    pictures = list(given or [check.picture for check in model.checks][:count])
    while not given and len(pictures) < count:
        coarse = generator.integers(0, 256, (COARSE, COARSE, 3), dtype=np.uint8)
        pictures.append(coarse.repeat(8, axis=0).repeat(8, axis=1))
    return np.stack([rule.geometry(picture) for picture in pictures])


def _answers(model: ModelContents, batch: np.ndarray) -> Weights:
    """By the reference, which is the truth, one picture after the other."""
    answers = [reference.run(model.graph, model.weights, picture[None]) for picture in batch]
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


def prove(data: bytes, target: str, tested: Cases, *, batch: int | None) -> Proof:
    """Runs a file in its runtime and compares.

    Args:
        data: the bytes of the file.
        target: "onnx" or "tflite".
        tested: of `cases`.
        batch: how many pictures the file takes; none: any number.

    Raises:
        ModelFileError: an output is too far away, or the runtime refuses the file; the message says by how much.
    """
    runtime, package, _ = RUNTIMES[target]
    try:
        title = f"{runtime} {version(package)}"
        found = run_all(target, data, tested.inputs, list(tested.expected), batch)
    except ModuleNotFoundError:
        return Proof(runtime)
    except (RuntimeError, ValueError) as error:
        raise ModelFileError(f"not written: {title} cannot run the file: {str(error).strip()[:300]}") from error
    return compare(found, tested, title)


def run_all(target: str, data: bytes, inputs: np.ndarray, names: Sequence[str], batch: int | None) -> Weights:
    """The outputs for all pictures, in runs of as many as the file takes (the last ones repeated to fill)."""
    count, run = len(inputs), RUNTIMES[target][2]
    size = count if batch is None else batch
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for start in range(0, count, size):
        places = np.minimum(np.arange(start, start + size), count - 1)
        for name, array in run(data, np.ascontiguousarray(inputs[places]), list(names)).items():
            parts[name].append(array)
    return {name: np.concatenate(arrays)[:count] for name, arrays in parts.items()}


def compare(found: Weights, tested: Cases, runtime: str) -> Proof:
    """The differences; raises `ModelFileError` if they are too large."""
    worst, most_far = 0.0, 0.0
    for name, expected in tested.expected.items():
        got = found[name]
        if got.shape != expected.shape or not np.isfinite(got).all():
            raise ModelFileError(
                f"not written: {runtime} gives output '{name}' the shape {got.shape} or NaN; "
                f"{expected.shape} is expected"
            )
        unit = _unit(expected, tested.quanta[name], tested.integer)
        away = np.abs(got.astype(np.float64) - expected.astype(np.float64)) / unit
        away = np.rint(away) if tested.integer else away
        far = float((away > 1).mean()) if tested.integer else 0.0
        worst, most_far = max(worst, float(away.max())), max(most_far, far)
        _judge(name, runtime, tested.integer, float(away.max()), far)
        if tested.integer and expected.ndim == 2 and name != "embedding":
            _judge_first_class(name, runtime, got, expected, unit)
    return Proof(runtime, len(tested.inputs), worst, most_far, tested.integer)


def _unit(expected: np.ndarray, quantisation: Quantisation | None, integer: bool) -> float:
    """What differences are counted in: quanta, or the largest absolute value; of class maps, classes."""
    if expected.dtype.kind == "i":
        return 0.25  # another class is 4 quanta away: far
    if quantisation is not None:
        return quantisation.scale
    largest = float(np.abs(expected).max()) or 1.0
    return largest / 255 if integer else largest


def _judge(name: str, runtime: str, integer: bool, worst: float, far: float) -> None:
    if integer and far > FAR_SHARE:
        raise ModelFileError(
            f"not written: in {runtime} {far:.2%} of output '{name}' are more than 1 quantum away, at most "
            f"{worst:g} (accepted: {FAR_SHARE:.2%})"
        )
    if not integer and worst > FLOAT_TOLERANCE:
        raise ModelFileError(
            f"not written: in {runtime} output '{name}' is up to {worst:.2e} of its largest value away "
            f"(accepted: {FLOAT_TOLERANCE:.0e})"
        )


def _judge_first_class(name: str, runtime: str, got: np.ndarray, expected: np.ndarray, unit: float) -> None:
    ordered = np.sort(expected, axis=1)
    if ordered.shape[1] < 2:
        return
    clear = (ordered[:, -1] - ordered[:, -2]) / unit > CLEAR_MARGIN
    other = clear & (got.argmax(axis=1) != expected.argmax(axis=1))
    if other.any():
        raise ModelFileError(
            f"not written: in {runtime} output '{name}' names another class first for test picture "
            f"{int(other.argmax())}, where the first leads by more than {CLEAR_MARGIN} quanta"
        )


def run_onnx(data: bytes, inputs: np.ndarray, names: list[str]) -> Weights:
    """The outputs of an ONNX file by onnxruntime, in the graph's order of axes.

    Args:
        data: of the file.
        inputs: (N, ...) in the graph's order of axes; int8 is shifted to the file's uint8.
        names: of the outputs.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        (place,) = session.get_inputs()
        outputs = session.run(names, {place.name: onnx_feed(inputs, place.type, place.shape)})
    except Exception as error:  # its own errors have no common base but this
        raise RuntimeError(str(error)) from error
    return {name: _nhwc(array) for name, array in zip(names, outputs, strict=True)}


def onnx_feed(inputs: np.ndarray, kind: str, shape: Shape) -> np.ndarray:
    """An input in the graph's order of axes as an ONNX file of ours takes it: its type and shape say how."""
    if kind == "tensor(uint8)":
        inputs = (inputs.astype(np.int16) + (128 if inputs.dtype == np.int8 else 0)).astype(np.uint8)
    first = inputs.ndim == 4 and tuple(shape[1:]) != inputs.shape[1:]
    return np.ascontiguousarray(inputs.transpose(0, 3, 1, 2)) if first else inputs


def _nhwc(array: np.ndarray) -> np.ndarray:
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def run_tflite(data: bytes, inputs: np.ndarray, names: list[str]) -> Weights:
    """The outputs of a .tflite file by LiteRT, quantised ones as real numbers.

    Args:
        data: of the file.
        inputs: (N, ...); uint8 is shifted where the file has int8.
        names: of the outputs, in the file's order.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data, num_threads=1)
    (place,) = interpreter.get_input_details()
    if tuple(place["shape"]) != inputs.shape:
        interpreter.resize_tensor_input(place["index"], inputs.shape)
    interpreter.allocate_tensors()
    if place["dtype"] == np.int8 and inputs.dtype != np.int8:
        inputs = (inputs.astype(np.int16) - 128).astype(np.int8)
    interpreter.set_tensor(place["index"], inputs.astype(place["dtype"]))
    interpreter.invoke()
    outputs = {}
    for name, detail in zip(names, interpreter.get_output_details(), strict=True):
        array, (scale, zero_point) = interpreter.get_tensor(detail["index"]), detail["quantization"]
        quantised = array.dtype in (np.int8, np.uint8)
        outputs[name] = dequantise_array(array, Quantisation(scale, zero_point)) if quantised else array
    return outputs


RUNTIMES: dict[str, tuple[str, str, RunFile]] = {
    "onnx": ("onnxruntime", "onnxruntime", run_onnx),
    "tflite": ("LiteRT", "ai-edge-litert", run_tflite),
}

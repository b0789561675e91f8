"""Our integer files beside what the runtimes' own converters make of the same float network: time and accuracy.

    python bench/export_speed.py MODEL... --data DIR [--tensorflow PYTHON] [--rounds 20] [--float-input]

Every MODEL is the file of a float classifier. It is quantised by `mobilenet quantise` with its defaults and
exported to ONNX and .tflite by us; beside that

- onnxruntime's `quantize_static` (QDQ, min-max, by channel, uint8 values) makes integers of our float ONNX file;
- the TFLite converter makes integers of the same float network, if `--tensorflow` names a Python that has
  TensorFlow: the network is built there operator by operator from its graph and calibrated on the same pictures.

All files run in turns, A B A B, in one process, on one thread, on one picture. The peers' files take floats, as
they come; ours take uint8 pixels or, with `--float-input`, floats too. Prints a Markdown table: minimum and median
in ms, ours over theirs, and top-1 on DIR's test pictures.

Needs `pip install '.[bench,export]'`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

import mobilenet
from mobilenet.bench.timing import Times, in_turns
from mobilenet.exports.ends import float_ends
from mobilenet.exports.export import onnx_bytes, tflite_bytes
from mobilenet.exports.prepare import Options, exported, source_of
from mobilenet.files.contents import ModelContents
from mobilenet.model import Model
from mobilenet.pictures.folders import Sample, read_dataset
from mobilenet.quantise.options import QuantiseOptions
from mobilenet.quantise.outcome import quantise_within
from mobilenet.quantise.pictures import draw_pictures
from quantise import quantised_by_onnxruntime

HEADER = ("network", "runtime", "ours, ms", "theirs, ms", "theirs / ours", "our top-1", "their top-1", "MB")
Call = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class File:
    """A file, how it is run, and whether it takes the integers of the quantised model or the floats."""

    data: bytes
    call: Call
    integers: bool


def main() -> None:
    """Reads the command line and prints the table, line by line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tensorflow", type=Path, help="a Python with TensorFlow")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--method", default="auto")
    parser.add_argument("--float-input", action="store_true")
    words = parser.parse_args()
    print(f"onnxruntime {version('onnxruntime')}, LiteRT {version('ai-edge-litert')}, one thread, batch 1\n")
    print(f"| {' | '.join(HEADER)} |\n|{' --- |' * len(HEADER)}", flush=True)
    for path in map(Path, words.models):
        for row in rows(path, words):
            print(f"| {' | '.join(row)} |", flush=True)


def rows(path: Path, words: argparse.Namespace) -> list[list[str]]:
    """The lines of one network: onnxruntime, and LiteRT if there is a converter."""
    model = mobilenet.load(path)
    options = QuantiseOptions(method=words.method, max_drop=1.0)
    integer = Model.of(quantise_within(model, words.data, options).model)
    wish = Options()
    network = exported(source_of(integer, wish), wish)
    if words.float_input:
        network = replace(network, graph=float_ends(network.graph))
    data = onnx_bytes(network, wish)
    theirs = quantised_by_onnxruntime(model, words.data, options, "MinMax")
    pairs = {"onnxruntime": (_onnx(data), _onnx(theirs))}
    if words.tensorflow is not None:
        converted = converted_by_tensorflow(model, words, options)
        pairs["LiteRT"] = _tflite(tflite_bytes(network, wish)), _tflite(converted)
    tested = read_dataset(words.data, classes=model.names).splits["test"]
    name = path.stem if path.stem != "best" else path.parent.name
    return [_row(name, runtime, pair, (integer, model), tested, words) for runtime, pair in pairs.items()]


def _row(
    name: str,
    runtime: str,
    pair: tuple[File, File],
    models: tuple[Model, Model],
    tested: Sequence[Sample],
    words: argparse.Namespace,
) -> list[str]:
    feeds = [
        _feed(model if file.integers else models[1], tested[0]) for model, file in zip(models, pair, strict=True)
    ]
    calls = {
        str(n): (lambda file=file, x=x: file.call(x)) for n, (file, x) in enumerate(zip(pair, feeds, strict=True))
    }
    times = list(in_turns(calls, rounds=words.rounds).values())
    top1 = [_top1(file, models[0] if file.integers else models[1], tested) for file in pair]
    sizes = " / ".join(f"{len(file.data) / 1e6:.2f}" for file in pair)
    ratio = f"{times[1].minimum / times[0].minimum:.2f}"
    return [name, runtime, *map(_in_words, times), ratio, *(f"{value:.4f}" for value in top1), sizes]


def _in_words(times: Times) -> str:
    return f"{times.minimum:.3f} ({times.median:.3f})"


def _feed(model: Model, sample: Sample) -> np.ndarray:
    assert model.preprocessing is not None
    picture = model.preprocessing.geometry(_pixels(sample))
    return model.to_input(picture[None])


def _pixels(sample: Sample) -> np.ndarray:
    from mobilenet.pictures.decode import decode_image

    return np.asarray(decode_image(sample.path).convert("RGB"))


def _top1(file: File, model: Model, tested: Sequence[Sample]) -> float:
    return float(np.mean([int(file.call(_feed(model, one)).argmax()) == one.label for one in tested]))


def _onnx(data: bytes) -> File:
    import onnxruntime

    from mobilenet.exports.prove import onnx_feed

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    (place,) = session.get_inputs()

    def call(batch: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(None, {place.name: onnx_feed(batch, place.type, place.shape)})[0])

    return File(data, call, place.type != "tensor(float)")


def _tflite(data: bytes) -> File:
    from ai_edge_litert.interpreter import Interpreter

    runtime = Interpreter(model_content=data, num_threads=1)
    runtime.allocate_tensors()
    (given,), (made,) = runtime.get_input_details(), runtime.get_output_details()

    def call(batch: np.ndarray) -> np.ndarray:
        if given["dtype"] == np.int8 and batch.dtype == np.uint8:
            batch = (batch ^ 128).view(np.int8)
        runtime.set_tensor(given["index"], batch)
        runtime.invoke()
        return np.asarray(runtime.get_tensor(made["index"]))

    return File(data, call, given["dtype"] != np.float32)


def converted_by_tensorflow(model: Model, words: argparse.Namespace, options: QuantiseOptions) -> bytes:
    """What the TFLite converter makes of a float network, calibrated on the pictures that we calibrate on."""
    network: ModelContents = exported(source_of(model, Options()), Options())
    drawn = draw_pictures(model, model.names, words.data, options)
    assert model.preprocessing is not None
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "network.npz", Path(folder) / "network.tflite"
        pictures = np.stack([model.preprocessing(picture) for picture in drawn.calibration])
        np.savez(given, pictures=pictures, **{f"weight/{name}": array for name, array in network.weights.items()})
        given.with_suffix(".json").write_text(_as_json(network))
        program = Path(__file__).with_name("tensorflow_converter.py")
        command = [str(words.tensorflow), str(program), str(given), str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"the TFLite converter failed:\n{done.stderr[-2000:]}")
        return made.read_bytes()


def _as_json(network: ModelContents) -> str:
    import json

    return json.dumps(network.graph.to_dict())


if __name__ == "__main__":
    main()

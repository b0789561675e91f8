"""What integers cost trained classifiers: top-1 on held-out pictures, ours beside onnxruntime's quantiser.

    python bench/quantise.py DATA MODEL...
    python bench/quantise.py DATA --train mobilenet_v1,mobilenet_v2,mobilenet_v3_large [--epochs 8]

Every float MODEL (a model file that was trained on DATA), and every network that is trained here first, is

- quantised by `mobilenet quantise` with its defaults: pictures of train calibrate, those of val hold the budget;
- exported to ONNX in floats by us and quantised by onnxruntime's `quantize_static` (QDQ, uint8 values, int8
  weights by channel, its own preparation first), calibrated on the same pictures;
- made integers of by the TFLite converter on the same pictures, if `--tensorflow` names a Python that has
  TensorFlow.

All are measured on test, which none has seen, ours by the engine, the others by onnxruntime and LiteRT. Prints a
Markdown table; a drop is in points, "same" is the share of pictures that are named as the float network names
them, and one picture's weight in points stands in the last column.

Needs `pip install '.[bench,export]'`, and for `--train` the train extra.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

import mobilenet
from mobilenet.errors import BudgetError
from mobilenet.exports.export import onnx_bytes
from mobilenet.exports.prepare import Options, exported, source_of
from mobilenet.model import Model
from mobilenet.pictures.folders import Sample, read_dataset
from mobilenet.quantise.options import QuantiseOptions
from mobilenet.quantise.outcome import Outcome, quantise_within
from mobilenet.quantise.pictures import draw_pictures
from mobilenet.quantise.report import write_outcome

HEADER = (
    *("network", "float top-1", "ours", "drop", "same", "how", "in float", "MB"),
    *("peer", "top-1", "drop", "same", "MB", "a picture"),
)
METHODS = {"min-max": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}  # ours and onnxruntime's names


def main() -> None:
    """Reads the command line and prints the table, line by line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--train", default="", help="networks to train first, separated by commas")
    parser.add_argument("--pretrained", default="", help="what training starts from, a file for each, by commas")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--resolution", type=int)
    parser.add_argument("--peer-methods", default="min-max,entropy,percentile")
    parser.add_argument("--tensorflow", type=Path, help="a Python with TensorFlow")
    parser.add_argument("--max-drop", type=float, default=0.01)
    parser.add_argument("--qat-epochs", type=int, default=0, help="as of `mobilenet quantise`")
    parser.add_argument("--runs", type=Path, help="where trained networks stay; default: nowhere")
    words = parser.parse_args()
    print(f"mobilenet {mobilenet.__version__} beside onnxruntime {version('onnxruntime')}\n")
    print(f"| {' | '.join(HEADER)} |\n|{' --- |' * len(HEADER)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for path in itertools.chain(words.models, _trained(words, words.runs or Path(folder))):
            for row in rows(path, words, Path(folder)):
                print(f"| {' | '.join(row)} |", flush=True)


def _trained(words: argparse.Namespace, folder: Path) -> Iterator[Path]:
    """The model files of the networks that are to be trained, one after the other."""
    starts = words.pretrained.split(",") if words.pretrained else []
    for number, name in enumerate(filter(None, words.train.split(","))):
        start = {"pretrained": starts[number]} if starts else {"model": name}
        options = {key: getattr(words, key) for key in ("epochs", "resolution") if getattr(words, key)}
        model = mobilenet.train(words.data, project=str(folder), name=name, **start, **options)
        target = folder / f"{name}.safetensors"
        model.save(target)
        yield target


def rows(path: Path, words: argparse.Namespace, folder: Path) -> Iterator[Sequence[str]]:
    """A line for each peer; ours stands in the first."""
    model = mobilenet.load(path)
    options = QuantiseOptions(max_drop=words.max_drop, qat_epochs=words.qat_epochs)
    tested = read_dataset(words.data, classes=model.names).splits["test"]
    labels = np.array([sample.label for sample in tested])
    named = _named(model, tested)
    real = float((named == labels).mean())
    ours = _ours(model, path, words.data, options, folder, tested, named)
    weight = f"{100 / len(tested):.2f}"
    for peer, found, size in _peers(model, words, options, tested):
        figures = (peer, *_figures(found, named, labels), f"{size / 1e6:.2f}")
        yield (path.stem if path.stem != "best" else path.parent.name, f"{real:.4f}", *ours, *figures, weight)
        ours = [""] * len(ours)


def _peers(
    model: Model, words: argparse.Namespace, options: QuantiseOptions, tested: Sequence[Sample]
) -> Iterator[tuple[str, np.ndarray, int]]:
    """Each peer's name, the classes that its integers name, and its file's bytes."""
    for method in words.peer_methods.split(","):
        data = quantised_by_onnxruntime(model, words.data, options, METHODS[method])
        yield f"onnxruntime {method}", _onnx_named(data, model, tested), len(data)
    if words.tensorflow is not None:
        from export_speed import converted_by_tensorflow

        data = converted_by_tensorflow(model, words, options)
        yield "TFLite converter", _litert_named(data, model, tested), len(data)


def _ours(
    model: Model,
    path: Path,
    data: Path,
    options: QuantiseOptions,
    folder: Path,
    tested: Sequence[Sample],
    named: np.ndarray,
) -> list[str]:
    try:
        outcome: Outcome = quantise_within(model, data, options)
    except BudgetError as error:
        print(f"\n{path}: {error}\n")
        return ["budget broken", *[""] * 5]
    _, size = write_outcome(outcome, path, folder / "quantised.safetensors")
    found = _named(mobilenet.load(folder / "quantised.safetensors"), tested)
    figures = _figures(found, named, np.array([sample.label for sample in tested]))
    return [*figures, outcome.prepared.describe(), str(len(outcome.found.kept)), f"{size / 1e6:.2f}"]


def _figures(found: np.ndarray, named: np.ndarray, labels: np.ndarray) -> tuple[str, str, str]:
    """Top-1, its drop in points, and the share that is named as by the float network."""
    top1, real = float((found == labels).mean()), float((named == labels).mean())
    return f"{top1:.4f}", f"{100 * (real - top1):.2f}", f"{(found == named).mean():.4f}"


def _named(model: Model, samples: Sequence[Sample]) -> np.ndarray:
    return np.array([result.probs.top1 for result in model.predict(sample.path for sample in samples)])


def quantised_by_onnxruntime(model: Model, data: Path, options: QuantiseOptions, method: str) -> bytes:
    """Our float ONNX file, quantised by onnxruntime on the pictures that we calibrate on.

    Args:
        model: a float classifier.
        data: the data set.
        options: how many pictures, and the seed.
        method: MinMax, Entropy or Percentile.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    drawn = draw_pictures(model, model.names, data, options)
    wish = Options(batch=1)
    source = onnx_bytes(exported(source_of(model, wish), wish), wish)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.pictures = iter(drawn.calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            picture = next(self.pictures, None)
            return None if picture is None else {_input_name(source): _planes(model, picture)}

    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("float.onnx", "prepared.onnx", "quantised.onnx")]
        files[0].write_bytes(source)
        quant_pre_process(files[0], files[1])
        quantize_static(
            files[1],
            files[2],
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod[method],
        )
        return files[2].read_bytes()


def _input_name(data: bytes) -> str:
    import onnx

    return str(onnx.load_from_string(data).graph.input[0].name)


def _planes(model: Model, picture: Path) -> np.ndarray:
    """A preprocessed picture as onnxruntime takes it: float32 (1, channels, height, width)."""
    assert model.preprocessing is not None
    return np.ascontiguousarray(model.preprocessing(picture).transpose(2, 0, 1)[None])


def _onnx_named(data: bytes, model: Model, samples: Sequence[Sample]) -> np.ndarray:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.array([session.run(None, {name: _planes(model, sample.path)})[0].argmax() for sample in samples])


def _litert_named(data: bytes, model: Model, samples: Sequence[Sample]) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    assert model.preprocessing is not None
    runtime = Interpreter(model_content=data, num_threads=1)
    runtime.allocate_tensors()
    (given,), (made,) = runtime.get_input_details(), runtime.get_output_details()
    found = []
    for sample in samples:
        runtime.set_tensor(given["index"], model.preprocessing(sample.path)[None])
        runtime.invoke()
        found.append(runtime.get_tensor(made["index"]).argmax())
    return np.array(found)


if __name__ == "__main__":
    main()

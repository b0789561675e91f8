"""How close the reference is to LiteRT on the official quantised MobileNets: layer by layer and end to end.

    python bench/tflite_parity.py [--shared ../shared] [--clothing 100] [--models v2] [--json parity.json]

Needs `ai-edge-litert` and a folder with weights/coral/*.tflite, data/photos and data/clothing.

Layer by layer, every layer is given LiteRT's own input, in three comparisons:
- with XNNPACK, LiteRT's default kernels (the file is rewritten so that every layer is an output);
- with the built-in reference kernels. They round twice when they requantise, first to a whole number of a finer
  grid and then, half away from zero, to a quantum, so that up to a quarter of a layer's values differ from the
  nearest quantum, which XNNPACK and we take;
- with the built-in reference kernels and their double rounding put in the place of ours, which leaves the
  differences that are not due to it.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any
from unittest.mock import patch

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from mobilenet.files.contents import ModelContents
from mobilenet.files.tflite import read_tflite
from mobilenet.run import reference_integer
from mobilenet.run.reference import run, run_node

KERNELS = {
    "xnnpack": OpResolverType.AUTO,
    "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "builtin_ref": OpResolverType.BUILTIN_REF,
}
CLEAR_MARGIN = 20  # quanta between LiteRT's two largest outputs from which on top-1 must be the same


@dataclass
class LayerParity:
    """Differences of one layer, given LiteRT's own input, in quanta."""

    values: int = 0
    off: int = 0
    largest: int = 0

    def add(self, ours: np.ndarray, theirs: np.ndarray) -> None:
        """Counts one picture."""
        difference = np.abs(ours.astype(np.int64) - theirs.astype(np.int64))
        self.values += difference.size
        self.off += int((difference > 0).sum())
        self.largest = max(self.largest, int(difference.max()))

    @property
    def share_off(self) -> float:
        """Part of the values that differ at all."""
        return self.off / self.values


@dataclass
class PairParity:
    """Differences of two runtimes' outputs over several pictures, in quanta."""

    pictures: int = 0
    values: int = 0
    beyond_one: int = 0
    largest: int = 0
    same_top1: int = 0
    unclear: int = 0  # pictures on which a top-1 differs though LiteRT's margin is clear

    def add(self, first: np.ndarray, second: np.ndarray) -> None:
        """Counts one picture's output; `second` is LiteRT's where only one of the two is."""
        difference = np.abs(first.astype(np.int64) - second.astype(np.int64))
        same = int(first.argmax()) == int(second.argmax())
        least, most = np.sort(second.ravel())[-2:].astype(np.int64)
        self.pictures += 1
        self.values += difference.size
        self.beyond_one += int((difference > 1).sum())
        self.largest = max(self.largest, int(difference.max()))
        self.same_top1 += same
        self.unclear += int(not same and most - least > CLEAR_MARGIN)

    @property
    def share_beyond_one(self) -> float:
        """Part of the outputs that are more than one quantum apart; for classes, that differ by more than 1."""
        return self.beyond_one / self.values


@dataclass
class Parity:
    """All that is measured of one file."""

    file: str
    pictures: int = 0
    layers: dict[str, dict[str, LayerParity]] = field(default_factory=dict)
    pairs: dict[str, PairParity] = field(default_factory=lambda: defaultdict(PairParity))
    same_classes: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    float_top1: int = 0


def measure(path: Path, pictures: list[Path], threads: int = 1) -> Parity:
    """Runs one file on pictures, here and in LiteRT's three kernel sets."""
    contents, floats = read_tflite(path), read_tflite(path, to_float=True)
    runtimes = {name: _interpreter(path, name, threads) for name in KERNELS}
    exposed = ExposedModel(path, threads)
    parity = Parity(path.name)
    for picture in pictures:
        pixels = contents.preprocessing.pixels(picture)[None]
        outputs = {name: _invoke(runtime, pixels) for name, runtime in runtimes.items()}
        reference = layer_values(runtimes["builtin_ref"])
        _count(parity, "xnnpack", contents, pixels, exposed.run(pixels))
        _count(parity, "builtin_ref", contents, pixels, reference)
        with patch.object(reference_integer, "_requantise", requantise_twice):
            _count(parity, "builtin_ref, rounded as it does", contents, pixels, reference)
        ours = run(contents.graph, contents.weights, pixels)
        _compare(parity, {"ours": _main_output(ours), **outputs})
        real = run(floats.graph, floats.weights, floats.preprocessing.normalise(pixels))
        if contents.task == "classify":
            parity.float_top1 += int(_main_output(real).argmax() == outputs["xnnpack"].argmax())
        parity.pictures += 1
    return parity


def _interpreter(path: Path, kernels: str, threads: int) -> Interpreter:
    runtime = Interpreter(
        str(path),
        experimental_op_resolver_type=KERNELS[kernels],
        experimental_preserve_all_tensors=kernels == "builtin_ref",
        num_threads=threads,
    )
    runtime.allocate_tensors()
    return runtime


def _invoke(runtime: Interpreter, pixels: np.ndarray) -> np.ndarray:
    runtime.set_tensor(runtime.get_input_details()[0]["index"], pixels)
    runtime.invoke()
    return np.asarray(runtime.get_tensor(runtime.get_output_details()[0]["index"]))


def _main_output(outputs: dict[str, np.ndarray]) -> np.ndarray:
    return next(outputs[name] for name in ("probabilities", "classes", "embedding") if name in outputs)


def layer_values(runtime: Interpreter) -> list[np.ndarray]:
    """What each operator of a file wrote, in the file's order; the interpreter must preserve all tensors."""
    return [runtime.get_tensor(int(op["outputs"][0])) for op in runtime._get_ops_details()]


class ExposedModel:
    """A file run by XNNPACK, which keeps no values within, rewritten so that each of them is an output."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
        self._indices = [int(operator.outputs[0]) for operator in model.subgraphs[0].operators]
        model.subgraphs[0].outputs, model.signatureDefs = self._indices, None
        builder = flatbuffers.Builder(0)
        builder.Finish(model.Pack(builder), b"TFL3")
        self._runtime = Interpreter(model_content=bytes(builder.Output()), num_threads=threads)
        self._runtime.allocate_tensors()

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """What each operator wrote, in the file's order."""
        _invoke(self._runtime, pixels)
        places = [output["index"] for output in self._runtime.get_output_details()]
        return [self._runtime.get_tensor(place) for place in places]


def requantise_twice(call: Any, total: np.ndarray, multiplier: Any) -> np.ndarray:
    """TFLite's MultiplyByQuantizedMultiplier: a product with 31 bits of the multiplier, rounded to a whole number
    (the half upwards), then shifted right and rounded half away from zero.
    """
    fraction, exponent = np.frexp(np.float64(multiplier))
    left, right = np.maximum(exponent, 0), np.maximum(-exponent, 0)
    product = (total.astype(np.int64) << left) * np.rint(fraction * 2**31).astype(np.int64)
    nudged = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    high = np.sign(nudged) * (np.abs(nudged) >> 31)
    mask = (1 << right) - 1
    rounded = (high >> right) + ((high & mask) > (mask >> 1) + (high < 0))
    zero = call.output.quantisation.zero_point
    return np.clip(rounded + zero, *reference_integer._range(call)).astype(call.output.dtype)


def compare_layers(
    contents: ModelContents, pixels: np.ndarray, written: list[np.ndarray]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(node, ours, LiteRT's) of every operator, each given what LiteRT itself wrote before it."""
    values = {"image": pixels}
    for node in contents.graph.nodes:
        ours = run_node(node, contents.graph, contents.weights, [values[name] for name in node.inputs])
        place, kind = node.name.removeprefix("layer_").split(".")
        if kind == "flatten":  # part of LiteRT's dense layer
            values[node.name] = ours
            continue
        values[node.name] = written[int(place)].reshape(ours.shape)
        yield node.name, ours, values[node.name]


def _count(
    parity: Parity, kernels: str, contents: ModelContents, pixels: np.ndarray, written: list[np.ndarray]
) -> None:
    layers = parity.layers.setdefault(kernels, defaultdict(LayerParity))
    for name, ours, theirs in compare_layers(contents, pixels, written):
        layers[name].add(ours, theirs)


def _compare(parity: Parity, outputs: dict[str, np.ndarray]) -> None:
    for first, second in combinations(outputs, 2):
        pair = f"{first} - {second}"
        if outputs[first].dtype == np.int64:
            parity.same_classes[pair].append(float((outputs[first] == outputs[second]).mean()))
        else:
            parity.pairs[pair].add(outputs[first].ravel(), outputs[second].ravel())


def find_pictures(shared: Path, clothing: int) -> list[Path]:
    """All photographs and `clothing` pictures spread evenly over the test split."""
    photos = sorted(p for p in (shared / "data/photos").iterdir() if p.suffix in (".bmp", ".jpg"))
    test = sorted((shared / "data/clothing/test").glob("*/*.jpg"))
    return photos + [test[i * len(test) // clothing] for i in range(clothing)]


def report(parity: Parity) -> list[str]:
    """The lines of one file's table."""
    lines = [f"{parity.file}: {parity.pictures} pictures"]
    for kernels, layers in parity.layers.items():
        name, worst = max(layers.items(), key=lambda item: item[1].share_off)
        total = sum(layer.off for layer in layers.values()) / sum(layer.values for layer in layers.values())
        largest = max(layer.largest for layer in layers.values())
        lines.append(
            f"  layers - {kernels:32} largest {largest} quanta, {total:.4%} of values off, "
            f"worst {name} {worst.share_off:.4%}"
        )
    for pair, result in parity.pairs.items():
        lines.append(
            f"  {pair:24} more than 1 apart {result.share_beyond_one:.3%}, largest {result.largest:3d}, "
            f"same top-1 {result.same_top1}/{result.pictures}, different in spite of a margin {result.unclear}"
        )
    for pair, shares in parity.same_classes.items():
        lines.append(f"  {pair:24} same class on {np.mean(shares):.3%} of pixels, least {min(shares):.3%}")
    if parity.float_top1:
        lines.append(f"  float graph: top-1 as LiteRT {parity.float_top1}/{parity.pictures}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--clothing", type=int, default=100)
    parser.add_argument("--models", default="", help="only files with this in their name")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    pictures = find_pictures(arguments.shared, arguments.clothing)
    results = []
    print(f"{time.strftime('%Y-%m-%d')}, ai-edge-litert {version('ai-edge-litert')}, {platform.machine()}")
    for path in sorted((arguments.shared / "weights/coral").glob("*.tflite")):
        if arguments.models in path.name and not path.name.startswith("movenet"):
            results.append(measure(path, pictures, arguments.threads))
            print("\n".join(report(results[-1])), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, default=vars, indent=1) + "\n")


if __name__ == "__main__":
    main()

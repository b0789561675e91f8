"""How close exported files are to the model in onnxruntime, openvino and LiteRT, and if they come back the same.

    python bench/export_parity.py [--shared ../shared] [--models 'mobilenet_v2*'] [--resolution 96] [--photos]
    python bench/export_parity.py --files MODEL... --pictures DIR [--most 40]

Every member of the family, with detectors and segmenters, in floats, with random weights that behave as trained
ones do, and the official quantised classifiers in integers, are exported to ONNX and .tflite and run on the
models' own test pictures; with `--photos`, the classifiers on the photographs of SHARED. Prints a Markdown table:
floats as the share of the largest output, integers as the largest difference in quanta and the share of outputs
more than one quantum away. "back" says for both files whether they are read as the same graph with the same
weights. With `--files` it is these models alone, on the first pictures below DIR.

Needs `pip install '.[bench,export]'`, and for the classifiers a folder with weights/coral/*.tflite.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import mobilenet
from mobilenet.errors import MobilenetError
from mobilenet.exports.export import onnx_bytes, tflite_bytes
from mobilenet.exports.prepare import Options, exported, source_of
from mobilenet.exports.prove import Cases, Proof, cases, compare, onnx_feed, run_onnx, run_tflite
from mobilenet.files.contents import ModelContents
from mobilenet.graph.graph import Graph, Weights
from mobilenet.model import Model
from mobilenet.pictures.decode import decode_image
from mobilenet.quantise.random import random_model

CLASSIFIERS = (
    "mobilenet_v1_0.25_128_quant",
    "mobilenet_v1_0.5_160_quant",
    "mobilenet_v1_0.75_192_quant",
    "mobilenet_v2_1.0_224_quant",
    "tf2_mobilenet_v2_1.0_224_ptq",
)
# What of an operator's fields decides about its answers, if shapes are compared as well.
KEPT_FIELDS = (
    *("kind", "stride", "dilation", "padding", "activation", "multiplier", "transpose_second", "axes"),
    *("beta", "keep_axes", "constant", "method", "align_corners", "half_pixel_centers"),
)
HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "ssdlite320_mobilenet_v3_large": ("ssdlite320_mobilenet_v3_large", {"classes": 91}),
    "mobilenet_v4_conv_small, yolo": ("mobilenet_v4_conv_small", {"head": "yolo", "classes": 80}),
    "lraspp_mobilenet_v3_large": ("lraspp_mobilenet_v3_large", {"classes": 21}),
    "deeplabv3_mobilenet_v3_large": ("deeplabv3_mobilenet_v3_large", {"classes": 21}),
    "mobilenet_v2, deeplabv3plus": ("mobilenet_v2", {"head": "deeplabv3plus", "classes": 21}),
}
FORMATS = ("onnx", "tflite")
RUNTIMES = ("onnxruntime", "openvino", "LiteRT")
HEADER = ("network", "precision", "ONNX MB", "tflite MB", *RUNTIMES, "back")


def main() -> None:
    """Reads the command line and prints the table, line by line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--models", default="*")
    parser.add_argument("--resolution", type=int, help="of the family's members; default: their own")
    parser.add_argument("--photos", action="store_true", help="the classifiers on photographs")
    parser.add_argument("--files", nargs="+", type=Path, default=[], help="model files, instead of all that")
    parser.add_argument("--pictures", type=Path, help="for --files: a folder, at any depth")
    parser.add_argument("--most", type=int, default=40, help="of --pictures")
    words = parser.parse_args()
    packages = ("onnxruntime", "openvino", "ai-edge-litert")
    print(", ".join(f"{name} {version(name)}" for name in packages) + "\n")
    print(_line(HEADER))
    print(_line("---" for _ in HEADER))
    for name, contents, pictures in networks(words):
        print(_line(row(name, contents, pictures)), flush=True)


def networks(words: argparse.Namespace) -> Iterator[tuple[str, ModelContents, list[np.ndarray] | None]]:
    """Names, models, and the pictures to try them on if they are not the model's own."""
    if words.files:
        given = _photos(words.pictures, words.most) if words.pictures else None
        yield from ((path.stem, mobilenet.load(path), given) for path in words.files)
        return
    for name in mobilenet.list_models(words.models):
        # Random attention amplifies every rounding; the initial weights of training keep it flat.
        make = mobilenet.create if "hybrid" in name else random_model
        size = None if "facenet" in name else words.resolution
        yield name, make(name, resolution=size), None
    for name, (network, options) in HEADS.items():
        if fnmatchcase(name, words.models):
            yield name, random_model(network, resolution=words.resolution, **options), None
    photos = _photos(words.shared / "data/photos") if words.photos else None
    for name in CLASSIFIERS:
        path = words.shared / f"weights/coral/{name}.tflite"
        if path.is_file() and fnmatchcase(name, words.models):
            yield name, mobilenet.load(path), photos


def _photos(folder: Path, most: int | None = None) -> list[np.ndarray]:
    files = [path for path in sorted(folder.rglob("*.*")) if "mask" not in path.name]
    return [np.asarray(decode_image(path).convert("RGB")) for path in files[:most]]


def row(name: str, contents: ModelContents, pictures: list[np.ndarray] | None) -> list[str]:
    """One line of the table."""
    options = Options()
    source = source_of(contents, options)
    network = exported(source, options)
    tested = cases(source, network, pictures)
    files = onnx_bytes(network, options), tflite_bytes(network, options)
    cells = [_cell(runtime, files, tested) for runtime in RUNTIMES]
    precision = "int8" if tested.integer else "fp32"
    sizes = [f"{len(data) / 1e6:.2f}" for data in files]
    return [name, precision, *sizes, *cells, _back(files, network)]


def _back(files: tuple[bytes, bytes], network: ModelContents) -> str:
    """Of which formats the file is read as another network."""
    others = [kind for kind, data in zip(FORMATS, files, strict=True) if not comes_back(data, network, kind)]
    return f"**another from {' and '.join(others)}**" if others else "same"


def _cell(runtime: str, files: tuple[bytes, bytes], tested: Cases) -> str:
    run = {"onnxruntime": run_onnx, "openvino": run_openvino, "LiteRT": run_tflite}[runtime]
    data, names = files[runtime == "LiteRT"], list(tested.expected)
    try:
        parts = [run(data, picture[None], names) for picture in tested.inputs]
        found = {name: np.concatenate([part[name] for part in parts]) for name in names}
        return _in_words(compare(found, tested, runtime))
    except MobilenetError as error:
        return f"**{str(error).removeprefix('not written: ')}**"


def _in_words(proof: Proof) -> str:
    return f"{proof.difference:g}, {proof.far:.2%}" if proof.integer else f"{proof.difference:.1e}"


def run_openvino(data: bytes, inputs: np.ndarray, names: list[str]) -> Weights:
    """The outputs of an ONNX file by openvino in float32, in the graph's order of axes."""
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    network = core.compile_model(core.read_model(data), "CPU", settings)
    place = network.input(0)
    kind = "tensor(uint8)" if place.get_element_type() == openvino.Type.u8 else "tensor(float)"
    result = network([onnx_feed(inputs, kind, tuple(place.get_shape()))])
    arrays = {name: np.array(result[network.output(name)]) for name in names}
    return {name: array.transpose(0, 2, 3, 1) if array.ndim == 4 else array for name, array in arrays.items()}


def comes_back(data: bytes, network: ModelContents, kind: str) -> bool:
    """Whether an "onnx" or "tflite" file is read as the same graph, its nodes under other names."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"network.{kind}"
        path.write_bytes(data)
        again = Model.of(mobilenet.load(path))
    return same_network(network, again)


def same_network(one: ModelContents, other: ModelContents) -> bool:
    """Whether two models have the same operators, edges and weights.

    An int8 value counts as uint8 less 128, a batch norm as the depthwise convolution that .tflite files have, and
    no bias as one of zeros.
    """
    first, second = (_described(contents.graph) for contents in (one, other))
    if first != second:
        return False
    pairs = zip(one.graph.nodes, other.graph.nodes, strict=True)
    return all(_same_weights(one, a.name, other, b.name) for a, b in pairs if a.operator.kind != "batch_norm")


def _described(graph: Graph) -> list[tuple[object, ...]]:
    places = {name: place for place, name in enumerate([*graph.inputs, *(node.name for node in graph.nodes)])}
    lines: list[tuple[object, ...]] = []
    for node in graph.nodes:
        fields = {k: v for k, v in node.operator.to_dict().items() if k in KEPT_FIELDS}
        fields |= {k: np.float32(v) for k, v in fields.items() if isinstance(v, float)}  # as files hold it
        if fields["kind"] == "batch_norm":
            fields = {"kind": "depthwise_conv"}
        kind = graph.types[node.name]
        zero = kind.quantisation.zero_point + 128 * (kind.dtype == "int8") if kind.quantisation else None
        scale = np.float32(kind.quantisation.scale) if kind.quantisation else None
        inputs = tuple(
            places[name] for name in node.inputs[: 1 if fields["kind"] in ("reshape", "resize") else None]
        )
        lines.append((tuple(fields.items()), kind.shape, scale, zero, inputs))
    return lines


def _same_weights(one: ModelContents, first: str, other: ModelContents, second: str) -> bool:
    names = ("weight", "bias", "alpha", "weight_scale", "weight_zero_point")
    for name in names:
        a, b = one.weights.get(f"{first}.{name}"), other.weights.get(f"{second}.{name}")
        if not np.array_equal(np.zeros(1) if a is None else a, np.zeros(1) if b is None else b):
            zeros = name == "bias" and not np.any(b if a is None else a)
            if not (zeros and (a is None or b is None)):
                return False
    return True


def _line(cells: object) -> str:
    return f"| {' | '.join(cells)} |"  # type: ignore[arg-type]


if __name__ == "__main__":
    main()

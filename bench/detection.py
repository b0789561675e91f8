"""A detector in our engine beside onnxruntime and openvino, from a preprocessed picture to boxes.

    python bench/detection.py [--name ssdlite320_mobilenet_v3_large] [--threads 1] [--rounds 8]

All run the same network with random weights, floats from our ONNX export and integers from onnxruntime's
`quantize_static` (ours from our own quantiser), all with float32 ends; and what comes out of each goes through the
same `mobilenet.tasks.detect.decoded`, suppression included. A network that has learnt nothing finds everything
everywhere, so the background's bias is raised until `--candidates` pairs of a prior and a class pass the
threshold. Prints a Markdown table: milliseconds, minimum and median, of the network alone and with boxes, and how
many times as long as ours it takes.

Needs `pip install '.[bench,export]'`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from importlib.metadata import version

import numpy as np

import mobilenet
from mobilenet.bench.network import Network
from mobilenet.bench.timing import in_turns, pinned
from mobilenet.family.decoding import Decoding
from mobilenet.files.contents import ModelContents
from mobilenet.graph.fold import fold
from mobilenet.graph.graph import Weights
from mobilenet.model import Model
from mobilenet.quantise.random import random_batch, random_model
from mobilenet.run.engine import Engine
from mobilenet.tasks.detect import candidates, decoded

Run = Callable[[], Weights]  # "boxes" (A, 4) and "scores" (A, columns)
HEADER = ("runtime", "precision", "network, ms", "with boxes, ms", "network / ours", "with boxes / ours", "error")


def main() -> None:
    """Reads the command line and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="ssdlite320_mobilenet_v3_large")
    parser.add_argument("--classes", type=int, default=91)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--candidates", type=int, default=1000)
    words = parser.parse_args()
    model = random_model(words.name, classes=words.classes)
    assert model.decoding is not None
    model = quietened(model, words.candidates)
    network = Network(words.name, folded(model))
    decoding = model.decoding
    assert decoding is not None
    with pinned(words.threads):
        runs = prepared(network, words.threads)
        expected = runs["mobilenet fp32"]()
        found = decoded(expected, decoding, *model.input.shape[:2])
        pairs = len(candidates(expected["scores"], decoding)[0])
        print(f"{words.name}, {words.threads} thread(s): {pairs} candidates, {len(found.boxes)} boxes kept\n")
        calls = {f"{key} alone": run for key, run in runs.items()}
        calls |= {f"{key} boxes": partial(boxes_of, run, decoding, model) for key, run in runs.items()}
        times = in_turns(calls, rounds=words.rounds)
    print(f"| {' | '.join(HEADER)} |\n|{' --- |' * len(HEADER)}")
    for key, run in runs.items():
        runtime, precision = key.split()
        alone, whole = times[f"{key} alone"], times[f"{key} boxes"]
        ours = times[f"mobilenet {precision} alone"], times[f"mobilenet {precision} boxes"]
        cells = (
            f"{runtime} {version(runtime)}",
            precision,
            f"{alone.minimum:.2f} ({alone.median:.2f})",
            f"{whole.minimum:.2f} ({whole.median:.2f})",
            f"{alone.minimum / ours[0].minimum:.2f}",
            f"{whole.minimum / ours[1].minimum:.2f}",
            f"{error(run(), expected):.4f}",
        )
        print(f"| {' | '.join(cells)} |")


def quietened(model: Model, wanted: int) -> Model:
    """The model with a background so sure that about `wanted` pairs pass the threshold on a random picture."""
    batch, decoding = random_batch(model, count=1, seed=1), model.decoding
    assert decoding is not None
    scores = model.run(batch)["scores"][0]
    low, high = 0.0, 40.0
    for _ in range(20):
        middle = (low + high) / 2
        raised = scores.copy()
        raised[:, 0] += middle
        passing = np.exp(raised - raised.max(1, keepdims=True))
        passing /= passing.sum(1, keepdims=True)
        many = (passing[:, 1:] > decoding.score_threshold).sum() > wanted
        low, high = (middle, high) if many else (low, middle)
    columns = scores.shape[1]
    weights = dict(model.weights)
    for name in weights:
        if name.startswith("detect.") and name.endswith(".scores.predict.bias"):
            weights[name] = weights[name].copy()
            weights[name][::columns] += np.float32(high)
    model.weights = weights
    return model


def folded(model: Model) -> ModelContents:
    """The network alone, without batch norms, as every runtime gets it."""
    graph, weights = fold(model.graph, model.weights)
    return ModelContents(graph, weights, model.preprocessing, task="features")


def prepared(network: Network, threads: int) -> dict[str, Run]:
    """Every runtime at both precisions, ready to run the network's batch."""
    runs: dict[str, Run] = {}
    for precision in ("fp32", "int8"):
        runs[f"mobilenet {precision}"] = ours(network, precision, threads)
        runs[f"onnxruntime {precision}"] = onnxruntime(network, precision, threads)
        runs[f"openvino {precision}"] = openvino(network, precision, threads)
    return runs


def ours(network: Network, precision: str, threads: int) -> Run:
    """Our engine."""
    engine = Engine(network.model_file(precision), threads=threads)
    return lambda: {name: array[0] for name, array in engine.run(network.batch).items()}


def onnxruntime(network: Network, precision: str, threads: int) -> Run:
    """onnxruntime on the processor."""
    import onnxruntime as peer

    options = peer.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    data = network.onnx_int8 if precision == "int8" else network.onnx
    session = peer.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: network.batch_nchw}
    names = [output.name for output in session.get_outputs()]
    return lambda: {name: array[0] for name, array in zip(names, session.run(names, feed), strict=True)}


def openvino(network: Network, precision: str, threads: int) -> Run:
    """openvino; its precision is given, because it would take bf16."""
    import openvino as peer

    core = peer.Core()
    read = core.read_model(network.onnx_int8 if precision == "int8" else network.onnx)
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    request = core.compile_model(read, "CPU", settings).create_infer_request()

    def run() -> Weights:
        request.infer({0: network.batch_nchw}, share_inputs=True, share_outputs=True)
        return {name: np.asarray(request.get_tensor(name).data)[0] for name in ("boxes", "scores")}

    return run


def boxes_of(run: Run, decoding: Decoding, model: Model) -> int:
    """The network and all that follows: how many boxes there are."""
    height, width = model.input.shape[:2]
    return len(decoded(run(), decoding, height, width).boxes)


def error(found: Weights, expected: Weights) -> float:
    """The largest distance of an output over its length."""
    return max(
        float(np.linalg.norm(found[name] - expected[name]) / np.linalg.norm(expected[name])) for name in expected
    )


if __name__ == "__main__":
    print(f"mobilenet {mobilenet.__version__}\n")
    main()

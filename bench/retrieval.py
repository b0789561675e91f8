"""Recall@1 of embeddings, ours beside LiteRT's of the same file in the same run.

    python bench/retrieval.py DATA MODEL.tflite

DATA is ROOT/{train,test}/<class>/*. Each test picture looks for its nearest train picture by cosine; it is right
if that is of its class. LiteRT gets the same pixels, and the file with its outputs replaced by the tensor that the
classifier reads (`mobilenet` calls it the embedding), on its default kernels (XNNPACK).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

import mobilenet
from mobilenet.model import Model
from mobilenet.pictures.folders import Sample, read_dataset
from mobilenet.search.model import embedder
from mobilenet.search.nearest import unit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("model", type=Path)
    words = parser.parse_args()

    folder = read_dataset(words.data, val_fraction=0.0)
    model = embedder(mobilenet.load(words.model, threads=1))
    theirs = LiteRT(words.model, model)
    print("| embeddings | recall@1 | ms a picture |\n| --- | --- | --- |")
    found = {}
    for name, embed in ((f"LiteRT {version('ai-edge-litert')}", theirs.embed), ("mobilenet", model.embed)):
        start = time.perf_counter()
        train, test = (_embedded(embed, folder.splits[split]) for split in ("train", "test"))
        spent = (time.perf_counter() - start) * 1e3 / (len(train) + len(test))
        found[name] = np.concatenate([train, test])
        labels = [np.array([sample.label for sample in folder.splits[split]]) for split in ("train", "test")]
        print(f"| {name} | {_recall(train, test, *labels):.4f} | {spent:.2f} |")
    first, second = found.values()
    different = int(np.sum(np.any(first != second, axis=1)))
    print(f"\n{len(first)} pictures; embeddings that are not equal to the last bit: {different}")


class LiteRT:
    """LiteRT on a file that is cut before its classifier."""

    def __init__(self, path: Path, model: Model) -> None:
        self.model = model
        content = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
        graph = content.subgraphs[0]
        graph.outputs = [_tensor_of_embedding(graph, model)]
        content.signatureDefs = None
        builder = flatbuffers.Builder(0)
        builder.Finish(content.Pack(builder), b"TFL3")
        self.runtime = Interpreter(model_content=bytes(builder.Output()), num_threads=1)
        self.runtime.allocate_tensors()

    def embed(self, path: Path) -> np.ndarray:
        assert self.model.preprocessing is not None
        pixels = self.model.preprocessing.pixels(path)[None]
        self.runtime.set_tensor(self.runtime.get_input_details()[0]["index"], pixels)
        self.runtime.invoke()
        details = self.runtime.get_output_details()[0]
        scale, zero_point = details["quantization"]
        values = self.runtime.get_tensor(details["index"]).reshape(-1).astype(np.float32)
        return np.asarray(np.float32(scale) * (values - np.float32(zero_point)))


def _tensor_of_embedding(graph: object, model: Model) -> int:
    """The tensor that the node of our embedding writes: a node's name begins with its operator's number."""
    operator = int(model.graph.outputs["embedding"].split(".")[0].removeprefix("layer_"))
    return int(graph.operators[operator].outputs[0])  # type: ignore[attr-defined]


def _embedded(embed: Callable[[Path], np.ndarray], samples: Sequence[Sample]) -> np.ndarray:
    return np.stack([embed(sample.path) for sample in samples])


def _recall(train: np.ndarray, test: np.ndarray, train_labels: np.ndarray, test_labels: np.ndarray) -> float:
    nearest = np.argmax(unit(test) @ unit(train).T, axis=1)
    return float(np.mean(train_labels[nearest] == test_labels))


if __name__ == "__main__":
    main()

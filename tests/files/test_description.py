"""What a .tflite file of this package says about itself is not believed before it is checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mobilenet.errors import ModelFileError
from mobilenet.files.description import parse_description
from mobilenet.files.tflite import read_tflite
from mobilenet.graph.graph import Graph, Node, TensorType
from mobilenet.graph.ops import Dense
from mobilenet.pictures.preprocess import Preprocessing

GOOD: dict[str, Any] = {
    "version": 1,
    "task": "classify",
    "outputs": ["logits"],
    "preprocessing": Preprocessing(32, 48).to_dict(),
    "calibration": {"temperature": 1.5},
    "metrics": {},
    "licence": "MIT",
    "provenance": {"model": "x"},
}


def test_a_good_one_is_read() -> None:
    said = parse_description(json.dumps({**GOOD, "labels": ["a", "b"]}).encode())
    assert said.preprocessing == Preprocessing(32, 48) and said.labels == ("a", "b") and said.licence == "MIT"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "has version 2"),
        ({"task": "paint"}, "unknown task 'paint'"),
        ({"task": None}, "field 'task' is missing"),
        ({"outputs": "logits"}, "field 'outputs' is missing or no list"),
        ({"outputs": [1]}, "lists of texts"),
        ({"labels": "ab"}, "lists of texts"),
        ({"labels": [["a"]]}, "lists of texts"),
        ({"calibration": {"temperature": "hot"}}, "no number"),
        ({"surprise": 1}, "unknown field 'surprise'"),
        ({"preprocessing": {"height": 1}}, "preprocessing lacks"),
        ({"licence": ["MIT"]}, "field 'licence'"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        parse_description(json.dumps({**GOOD, **changes}).encode())


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"version": NaN}', b"[" * 100_000, b'{"version": 1}', b"0" * (2**24 + 1)],
)
def test_bytes_that_are_no_description_are_refused(raw: bytes) -> None:
    with pytest.raises(ModelFileError, match="description"):
        parse_description(raw)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outputs": []}, "has 1 outputs, but describes none"),
        ({"outputs": ["logits", "embedding"]}, "has 1 outputs, but describes logits, embedding"),
        ({"outputs": ["probabilities"]}, "describes the output 'probabilities', which it does not end in"),
        ({"preprocessing": Preprocessing(32, 48).to_dict()}, "preprocessing gives"),
        ({"labels": ["one"]}, "1 labels do not name the 4 outputs"),
    ],
)
def test_what_does_not_fit_the_network_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="needs mobilenet[export]")
    import numpy as np

    from mobilenet.exports.tflite_writer import to_tflite

    graph = Graph({"image": TensorType((3,))}, (Node("d", Dense(4), ("image",)),), {"logits": "d"})
    weights = {"d.weight": np.ones((4, 3), np.float32), "d.bias": np.ones(4, np.float32)}
    path = tmp_path / "m.tflite"

    def write(said: dict[str, Any]) -> None:
        path.write_bytes(to_tflite(graph, weights, metadata={"mobilenet": json.dumps(said).encode()}))

    write({**GOOD, "preprocessing": {}})
    assert read_tflite(path).task == "classify"
    write({**GOOD, "preprocessing": {}, **changes})
    with pytest.raises(ModelFileError, match=message) as caught:
        read_tflite(path)
    assert str(path) in str(caught.value)

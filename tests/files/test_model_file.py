"""A model file is exact, atomic, and never trusted."""

from __future__ import annotations

import json
import os
import random
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mobilenet.errors import ModelFileError
from mobilenet.files import atomic
from mobilenet.files.contents import Check, ModelContents
from mobilenet.files.model_file import encode, read_model_file, write_model_file
from mobilenet.graph.graph import Graph, Node, Quantisation, TensorType
from mobilenet.graph.ops import Conv, Dense, Mean
from mobilenet.pictures.preprocess import Preprocessing


def contents() -> ModelContents:
    graph = Graph(
        {"image": TensorType((32, 32, 3))},
        (
            Node("conv", Conv(kernel=(3, 3), out_channels=4, activation="relu"), ("image",)),
            Node("mean", Mean(), ("conv",)),
            Node("classifier", Dense(out_features=2), ("mean",)),
        ),
        {"logits": "classifier", "embedding": "mean"},
    )
    generator = np.random.default_rng(0)
    weights = {k: generator.normal(size=p.shape).astype(np.float32) for k, p in graph.parameters().items()}
    check = Check(np.full((8, 8, 3), 7, np.uint8), {"logits": np.array([1, 2], np.float32)})
    return ModelContents(
        graph,
        weights,
        Preprocessing(32, 32),
        labels=("chat <é>", "dog"),
        calibration={"temperature": 1.25},
        metrics={"top1": 0.9, "data": "pets"},
        licence="Apache-2.0",
        provenance={"model": "test"},
        checks=(check,),
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = contents()
    write_model_file(written, tmp_path / "m.safetensors")
    read = read_model_file(tmp_path / "m.safetensors")
    for name in ("graph", "preprocessing", "labels", "task", "calibration", "metrics", "licence", "provenance"):
        assert getattr(read, name) == getattr(written, name)
    assert read.weights.keys() == written.weights.keys()
    for name, array in written.weights.items():
        np.testing.assert_array_equal(read.weights[name], array)
    np.testing.assert_array_equal(read.checks[0].picture, written.checks[0].picture)
    np.testing.assert_array_equal(read.checks[0].outputs["logits"], written.checks[0].outputs["logits"])


def test_the_same_model_gives_the_same_bytes() -> None:
    assert encode(contents()) == encode(contents())


def test_it_is_a_plain_safetensors_file(tmp_path: Path) -> None:
    write_model_file(contents(), tmp_path / "m.safetensors")
    assert load_file(tmp_path / "m.safetensors")["conv.weight"].shape == (4, 3, 3, 3)


def test_integer_tensors_survive(tmp_path: Path) -> None:
    quantised = TensorType((4, 4, 3), "uint8", Quantisation(0.5, 128))
    node = Node("conv", Conv(out_channels=2, bias=True), ("image",), "uint8", Quantisation(0.25, 3))
    graph = Graph({"image": quantised}, (node,), {"embedding": "conv"})
    weights = {
        "conv.weight": np.arange(6, dtype=np.uint8).reshape(2, 1, 1, 3),
        "conv.weight_scale": np.array([0.1], np.float32),
        "conv.weight_zero_point": np.array([120], np.int32),
        "conv.bias": np.array([5, -7], np.int32),
    }
    write_model_file(ModelContents(graph, weights, Preprocessing(4, 4), task="embed"), tmp_path / "m")
    read = read_model_file(tmp_path / "m")
    assert read.graph == graph
    assert all((read.weights[name] == array).all() for name, array in weights.items())


def test_parts_that_do_not_fit_are_not_written(tmp_path: Path) -> None:
    target = tmp_path / "m.safetensors"
    write_model_file(contents(), target)
    before = target.read_bytes()
    for bad, message in (
        (replace(contents(), labels=("one",)), "1 labels do not name the 2 outputs"),
        (replace(contents(), preprocessing=Preprocessing(16, 16)), "the preprocessing gives"),
        (replace(contents(), task="divine"), "unknown task 'divine'"),
        (replace(contents(), metrics={"top1": float("nan")}), "cannot be written"),
        (replace(contents(), weights={}), "tensor 'conv.weight' of shape .* is missing"),
    ):
        with pytest.raises(ModelFileError, match=message):
            write_model_file(bad, target)
    assert target.read_bytes() == before


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "m.safetensors"
    write_model_file(contents(), target)
    before = target.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_model_file(replace(contents(), licence="MIT"), target)
    assert target.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.safetensors"]  # noqa: PTH208


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: p.write_bytes(b"")])
def test_what_is_no_file_is_named(tmp_path: Path, make: Any) -> None:
    target = tmp_path / "odd.safetensors"
    make(target)
    with pytest.raises(ModelFileError, match="odd.safetensors"):
        read_model_file(target)


def test_truncated_anywhere_is_an_error(tmp_path: Path) -> None:
    data = encode(contents())
    target = tmp_path / "cut.safetensors"
    for length in {*range(0, len(data), 97), len(data) - 1}:
        target.write_bytes(data[:length])
        with pytest.raises(ModelFileError, match="cut.safetensors"):
            read_model_file(target)


def test_flipped_bits_never_give_another_error(tmp_path: Path) -> None:
    data = encode(contents())
    header = struct.unpack("<Q", data[:8])[0] + 8
    target = tmp_path / "flipped.safetensors"
    generator = random.Random(0)
    refused = 0
    for _ in range(400):
        broken = bytearray(data)
        broken[generator.randrange(header)] ^= 1 << generator.randrange(8)
        target.write_bytes(broken)
        try:
            read_model_file(target)
        except ModelFileError as error:
            assert "flipped.safetensors" in str(error)
            refused += 1
    assert refused > 200  # many flips change a number or a label into another valid one


def header_of(model: ModelContents, tmp_path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    target = tmp_path / "source.safetensors"
    write_model_file(model, target)
    data = target.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["mobilenet"]), load_file(target)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "format version 2; this release reads 1"),
        ({"version": "1"}, "format version '1'"),
        ({"author": "me"}, "unknown field 'author'"),
        ({"labels": [1, 2]}, "'labels' holds something that is no text"),
        ({"labels": None}, "field 'labels' is missing or no list"),
        ({"calibration": {"temperature": "hot"}}, "'calibration.temperature' is no finite number"),
        ({"preprocessing": {"height": 32}}, "preprocessing"),
        ({"preprocessing": []}, "field 'preprocessing' is missing or no dict"),
        ({"graph": {"nodes": []}}, "graph"),
        ({"task": "divine"}, "unknown task 'divine'"),
    ],
)
def test_bad_descriptions_name_the_field(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    header, tensors = header_of(contents(), tmp_path)
    save_file(tensors, tmp_path / "bad.safetensors", {"mobilenet": json.dumps({**header, **change})})
    with pytest.raises(ModelFileError, match=message) as caught:
        read_model_file(tmp_path / "bad.safetensors")
    assert "bad.safetensors" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"version": NaN}', "null"])
def test_descriptions_that_are_no_objects(tmp_path: Path, text: str) -> None:
    save_file({}, tmp_path / "bad.safetensors", {"mobilenet": text})
    with pytest.raises(ModelFileError, match="bad.safetensors"):
        read_model_file(tmp_path / "bad.safetensors")


@pytest.mark.parametrize(
    "name", ["checks/0", "checks/x/picture", "checks/0/outputs/logits", "checks/9999/picture", "checks/0/picture"]
)
def test_bad_checks_are_named(tmp_path: Path, name: str) -> None:
    header, tensors = header_of(replace(contents(), checks=()), tmp_path)
    tensors[name] = np.zeros(3, np.float32)
    save_file(tensors, tmp_path / "bad.safetensors", {"mobilenet": json.dumps(header)})
    with pytest.raises(ModelFileError, match=name):
        read_model_file(tmp_path / "bad.safetensors")


def test_another_projects_safetensors_is_told_apart(tmp_path: Path) -> None:
    save_file({"a": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelFileError, match="holds no mobilenet model"):
        read_model_file(tmp_path / "other.safetensors")

"""The network that all runtimes of a bench get: sizes, outputs, integers with float ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mobilenet
from mobilenet.bench.network import Network, find_network, with_float_ends
from mobilenet.errors import ArgumentError, ModelFileError
from mobilenet.files.contents import ModelContents
from mobilenet.graph.graph import has_batch_norm
from mobilenet.model import Model
from mobilenet.quantise.random import random_quantised_model
from mobilenet.run.reference import dequantise_array, quantise_array, run


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A float and an integer model file of one network."""
    folder = tmp_path_factory.mktemp("models")
    models = random_quantised_model("mobilenet_v2", resolution=64, width_multiplier=0.35, pictures=1)
    paths = {"float": folder / "float.safetensors", "int8": folder / "int8.safetensors"}
    for path, model in zip(paths.values(), models, strict=True):
        model.save(path)
    return paths


def test_a_name_gets_random_weights_one_output_and_folded_batch_norms() -> None:
    network = find_network("mobilenet_v3_small", resolution=64, width=0.5, batch_size=3)
    graph, weights = network.float_graph
    assert list(graph.outputs) == ["logits"] and not has_batch_norm(graph)
    assert network.batch.shape == (3, 64, 64, 3) and network.batch.dtype == np.float32
    np.testing.assert_array_equal(network.batch_nchw.transpose(0, 2, 3, 1), network.batch)
    answer = run(graph, weights, network.batch)["logits"]
    assert answer.shape == (3, *network.main_shape) and answer.std() > 0.01


def test_the_same_name_gives_the_same_network() -> None:
    first, second = (find_network("mobilenet_v1", resolution=32, width=0.25) for _ in range(2))
    np.testing.assert_array_equal(first.batch, second.batch)
    assert first.model_file("fp32") == second.model_file("fp32")
    assert first.model_file("int8") == second.model_file("int8")


def test_a_float_file_keeps_its_weights_at_another_resolution(files: dict[str, Path]) -> None:
    network = find_network(str(files["float"]), resolution=96)
    model = mobilenet.load(files["float"])
    resized = model.graph.resized(96, 96)
    expected = run(resized, model.weights, network.batch)["logits"]
    found = run(*network.float_graph, network.batch)["logits"]
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_an_integer_file_is_not_quantised_anew(files: dict[str, Path]) -> None:
    network = find_network(str(files["int8"]))
    model = mobilenet.load(files["int8"])
    assert network.integers.graph.nodes == tuple(
        node for node in model.graph.nodes if node.name in {n.name for n in network.integers.graph.nodes}
    )
    for name, array in network.integers.weights.items():
        np.testing.assert_array_equal(array, model.weights[name])
    assert not any(kind.integer for kind in network.contents.graph.types.values())


def test_float_ends_change_nothing_but_the_ends(files: dict[str, Path]) -> None:
    network = find_network(str(files["int8"]))
    plain, ended = network.integers, with_float_ends(network.integers)
    kind, output = plain.graph.inputs["image"], plain.graph.types[plain.graph.outputs["logits"]]
    assert kind.quantisation is not None and output.quantisation is not None
    assert ended.graph.inputs["image"].dtype == "float32"
    quanta = quantise_array(network.batch, kind.quantisation, kind.dtype)
    expected = dequantise_array(run(plain.graph, plain.weights, quanta)["logits"], output.quantisation)
    np.testing.assert_array_equal(run(ended.graph, ended.weights, network.batch)["logits"], expected)


def test_float_ends_of_a_float_network_are_its_own() -> None:
    network = find_network("mobilenet_v1", resolution=32, width=0.25)
    assert with_float_ends(network.contents).graph == network.contents.graph


def test_an_embedding_network_has_its_embedding_compared() -> None:
    network = find_network("mobilefacenet_s", width=0.25)
    assert list(network.contents.graph.outputs) == ["embedding"]


def test_macs_count_attention_too() -> None:
    network = find_network("mobilenet_v4_hybrid_medium", resolution=64)
    assert network.macs > sum(
        node.operator.macs(
            network.contents.graph.input_shapes(node), network.contents.graph.types[node.name].shape
        )
        for node in network.contents.graph.nodes
        if node.operator.kind != "matmul"
    )


def test_a_model_without_preprocessing_can_be_timed() -> None:
    model = mobilenet.create("mobilenet_v2", channels=5, resolution=32, width_multiplier=0.35)
    network = Network("five channels", ModelContents(model.graph, model.weights, None))
    assert Model.of(network.contents).preprocessing is None
    assert network.batch.shape == (1, 32, 32, 5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"name": "mobilenet_v9"}, "mobilenet_v9"),
        ({"name": "mobilenet_v2", "resolution": 8}, "at least 32"),
        ({"name": "mobilenet_v2", "batch_size": 0}, "batch is 0"),
    ],
)
def test_impossible_values_are_named(words: dict[str, object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        find_network(**words)  # type: ignore[arg-type]


def test_the_width_of_a_file_is_fixed(files: dict[str, Path]) -> None:
    with pytest.raises(ArgumentError, match="--width"):
        find_network(str(files["float"]), width=0.5)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(b"\x00" * 20)
    with pytest.raises(ModelFileError, match="damaged"):
        find_network(str(path))

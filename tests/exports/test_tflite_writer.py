"""Files that the .tflite writer makes, run by LiteRT, against the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mobilenet
from mobilenet.errors import GraphError, UnsupportedOperatorError
from mobilenet.files.contents import ModelContents
from mobilenet.files.tflite import read_tflite
from mobilenet.graph.graph import Graph, Weights
from mobilenet.graph.ops import AveragePool, Conv, MaxPool
from mobilenet.quantise.random import random_batch, random_quantised_model
from mobilenet.run.reference import dequantise_array, quantise_array, run

interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="needs mobilenet[export]")

from export_graphs import FLOAT_GRAPHS, random_inputs, random_weights, single  # noqa: E402

from mobilenet.exports.tflite_writer import to_tflite  # noqa: E402

# Networks whose integer layers LiteRT counts as the reference does: all without attention.
LAYERS_ALIKE = (
    *("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "mobilenet_v4_conv_small"),
    "mobilenet_edgetpu",
)


def run_tflite(data: bytes, inputs: list[np.ndarray]) -> list[np.ndarray]:
    runtime = interpreter.Interpreter(model_content=data, num_threads=1)
    runtime.allocate_tensors()
    for place, array in zip(runtime.get_input_details(), inputs, strict=True):
        runtime.set_tensor(place["index"], array)
    runtime.invoke()
    return [runtime.get_tensor(place["index"]) for place in runtime.get_output_details()]


def run_float(graph: Graph, weights: Weights, inputs: dict[str, np.ndarray], batch: int) -> np.ndarray:
    return run_tflite(to_tflite(graph, weights, batch=batch), list(inputs.values()))[0]


@pytest.mark.parametrize("name", FLOAT_GRAPHS)
def test_every_operator_gives_the_references_answer(name: str) -> None:
    graph = FLOAT_GRAPHS[name]
    weights, inputs = random_weights(graph), random_inputs(graph)
    expected = run(graph, weights, inputs)["result"]
    found = run_float(graph, weights, inputs, 2)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("dialect", ["paper", "timm"])
@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v4_conv_small"])
def test_a_whole_float_network_gives_the_references_answer(name: str, dialect: str) -> None:
    options = {} if "v4" in name else {"dialect": dialect}
    model, _ = random_quantised_model(name, resolution=64, pictures=1, **options)
    picture = random_batch(model, seed=5)
    expected = run(model.graph, model.weights, picture)["logits"]
    found = run_float(model.graph, model.weights, {"image": picture}, 1)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def integers_of(contents: ModelContents, picture: np.ndarray) -> dict[str, np.ndarray]:
    """The reference's integer answer, as the float numbers that it stands for."""
    ((_, kind),) = contents.graph.inputs.items()
    assert kind.quantisation is not None
    quanta = quantise_array(picture, kind.quantisation, kind.dtype)
    found = {}
    for name, values in run(contents.graph, contents.weights, quanta).items():
        quantisation = contents.graph.types[contents.graph.outputs[name]].quantisation
        found[name] = values if quantisation is None else dequantise_array(values, quantisation)
    return found


@pytest.mark.parametrize("name", LAYERS_ALIKE)
def test_integer_networks_give_the_references_answer_bit_for_bit(name: str) -> None:
    model, quantised = random_quantised_model(name, resolution=64, pictures=1)
    picture = random_batch(model, seed=5)
    found = run_tflite(to_tflite(quantised.graph, quantised.weights), [picture])
    for values, expected in zip(found, integers_of(quantised, picture).values(), strict=True):
        np.testing.assert_array_equal(values, expected)


def test_integer_ends_stay_integers_where_they_are_wanted() -> None:
    model, quantised = random_quantised_model("mobilenet_v2", resolution=64, pictures=1, width_multiplier=0.35)
    kind = quantised.input
    assert kind.dtype == "uint8" and kind.quantisation is not None
    quanta = quantise_array(random_batch(model), kind.quantisation, kind.dtype)
    data = to_tflite(quantised.graph, quantised.weights, float_ends=False)
    found = run_tflite(data, [(quanta.astype(np.int16) - 128).astype(np.int8)])[0]
    expected = run(quantised.graph, quantised.weights, quanta)["logits"]
    np.testing.assert_array_equal(found.astype(np.int16) + 128, expected)


def test_what_is_written_is_read_back_as_the_same_network(tmp_path: Path) -> None:
    model, quantised = random_quantised_model("mobilenet_v2", resolution=64, pictures=1, width_multiplier=0.35)
    path = tmp_path / "network.tflite"
    path.write_bytes(to_tflite(quantised.graph, quantised.weights, float_ends=False))
    kind = quantised.input
    assert kind.quantisation is not None
    quanta = quantise_array(random_batch(model), kind.quantisation, kind.dtype)
    again = read_tflite(path)
    found = next(iter(run(again.graph, again.weights, (quanta.astype(np.int16) - 128).astype(np.int8)).values()))
    expected = run(quantised.graph, quantised.weights, quanta)["logits"]
    np.testing.assert_array_equal(found.astype(np.int16) + 128, expected)


def test_an_official_file_is_written_as_it_was_read(shared: Path) -> None:
    path = shared / "weights/coral/mobilenet_v2_1.0_224_quant.tflite"
    contents = mobilenet.load(path)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    expected = run_tflite(path.read_bytes(), [pixels])[0]
    outputs = {"probabilities": contents.graph.outputs["probabilities"]}
    graph = Graph(contents.graph.inputs, contents.graph.nodes, outputs)
    found = run_tflite(to_tflite(graph, contents.weights, float_ends=False), [pixels])[0]
    np.testing.assert_array_equal(found, expected)


def test_an_average_pool_with_other_padding_is_refused() -> None:
    graph = single(AveragePool((3, 3), (1, 1), padding=(0, 0, 1, 0)))
    with pytest.raises(UnsupportedOperatorError, match=r"average pool.*'node'"):
        to_tflite(graph, {})


def test_padding_of_a_max_pool_never_wins() -> None:
    graph = single(MaxPool((3, 3), (2, 2), padding=(2, 0, 0, 2)))
    inputs = {"x0": -1 - np.abs(random_inputs(graph)["x0"])}
    np.testing.assert_array_equal(run_float(graph, {}, inputs, 2), run(graph, {}, inputs)["result"])


def test_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(GraphError, match=r"node\.weight"):
        to_tflite(single(Conv((1, 1), out_channels=2)), {})

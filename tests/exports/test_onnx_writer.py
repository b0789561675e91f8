"""ONNX models that the writer makes, run by onnxruntime, against the reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import mobilenet
from mobilenet.errors import GraphError
from mobilenet.graph.fold import fold
from mobilenet.graph.graph import Graph, Node, TensorType, Weights
from mobilenet.graph.ops import Activation
from mobilenet.run.reference import run

pytest.importorskip("onnx", reason="needs mobilenet[export]")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs mobilenet[export]")

from export_graphs import FLOAT_GRAPHS, random_inputs, random_weights  # noqa: E402

from mobilenet.exports.onnx_writer import to_onnx  # noqa: E402


def run_onnx(
    graph: Graph, weights: Weights, inputs: dict[str, np.ndarray], batch: int | None
) -> dict[str, np.ndarray]:
    """The outputs in the graph's own order of axes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        to_onnx(graph, weights, batch=batch).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = {name: x.transpose(0, 3, 1, 2) if x.ndim == 4 else x for name, x in inputs.items()}
    found = dict(zip(graph.outputs, session.run(list(graph.outputs), feed), strict=True))
    return {name: y.transpose(0, 2, 3, 1) if y.ndim == 4 else y for name, y in found.items()}


def assert_close(found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("name", FLOAT_GRAPHS)
@pytest.mark.parametrize("batch", [2, None])
def test_every_operator_gives_the_references_answer(name: str, batch: int | None) -> None:
    graph = FLOAT_GRAPHS[name]
    weights, inputs = random_weights(graph), random_inputs(graph)
    expected = run(graph, weights, inputs)["result"]
    assert_close(run_onnx(graph, weights, inputs, batch)["result"], expected, 1e-5)


@pytest.mark.parametrize("name", mobilenet.list_models())
def test_every_family_member_gives_the_references_answer(name: str) -> None:
    model = mobilenet.create(name, resolution=112 if "face" in name else 64)
    graph, weights = fold(model.graph, model.weights)
    picture = np.random.default_rng(0).standard_normal((1, *model.input.shape)).astype(np.float32)
    expected = run(graph, weights, picture)
    found = run_onnx(graph, weights, {"image": picture}, 1)
    assert found.keys() == expected.keys()
    for output, values in expected.items():
        assert_close(found[output], values, 1e-4)


def test_a_graph_with_batch_norms_left_in_it_is_written_too() -> None:
    model = mobilenet.create("mobilenet_v2", resolution=64)
    picture = np.random.default_rng(0).standard_normal((1, 64, 64, 3)).astype(np.float32)
    found = run_onnx(model.graph, model.weights, {"image": picture}, 1)
    assert_close(found["logits"], run(model.graph, model.weights, picture)["logits"], 1e-4)


def test_an_output_that_is_an_input_or_read_again_is_written() -> None:
    nodes = (Node("a", Activation("relu"), ("x",)), Node("b", Activation("sigmoid"), ("a",)))
    graph = Graph({"x": TensorType((3, 4, 2))}, nodes, {"first": "a", "second": "b", "same": "x"})
    inputs = random_inputs(graph)
    for name, expected in run(graph, {}, inputs).items():
        assert_close(run_onnx(graph, {}, inputs, 2)[name], expected, 1e-6)


def test_weights_that_do_not_fit_are_refused() -> None:
    graph = FLOAT_GRAPHS["conv_without_bias"]
    with pytest.raises(GraphError, match=r"node\.weight"):
        to_onnx(graph, {})


def test_an_output_with_the_name_of_another_value_is_refused() -> None:
    nodes = (Node("a", Activation("relu"), ("x",)), Node("b", Activation("sigmoid"), ("a",)))
    graph = Graph({"x": TensorType((3,))}, nodes, {"a": "b"})
    with pytest.raises(GraphError, match="output 'a'"):
        to_onnx(graph, {})
    assert to_onnx(replace(graph, outputs={"b": "b"}), {}).graph.output[0].name == "b"

"""A histogram that grows while numbers come: what it counts, and what the methods make of it."""

from __future__ import annotations

import numpy as np
import pytest

from mobilenet.errors import ArgumentError
from mobilenet.graph.graph import Graph, Node, TensorType
from mobilenet.graph.ops import Activation, Concat, Conv, Reshape
from mobilenet.quantise.histogram import Histogram
from mobilenet.quantise.integer import STEPS, quantisation_of
from mobilenet.quantise.methods import METHODS, choose_range, choose_ranges
from mobilenet.quantise.ranges import Range


def histogram(*batches: np.ndarray) -> Histogram:
    made = Histogram()
    for batch in batches:
        made.add(np.asarray(batch, np.float32))
    return made


def squared_error(numbers: np.ndarray, span: Range) -> float:
    kind = quantisation_of(span)
    steps = np.clip(np.rint(numbers / kind.scale) + kind.zero_point, 0, STEPS)
    return float(np.square(numbers - (steps - kind.zero_point) * kind.scale).mean())


def test_no_number_is_lost_while_the_range_grows() -> None:
    generator = np.random.default_rng(0)
    batches = [generator.standard_normal(500) * size for size in (1e-6, 3.0, 1e-3, 4000.0)]
    found = histogram(*batches)
    everything = np.concatenate(batches).astype(np.float32)
    places, counts = found.points(-np.inf, np.inf)
    assert counts.sum() == 2000
    assert (found.low, found.high) == (everything.min(), everything.max())
    width = 2.0**found.exponent
    for edge in (-1024 * width, -width, 0.0, width, 1024 * width):  # bins end at whole multiples of their width
        assert counts[places < edge].sum() == (everything < edge).sum()


def test_order_does_not_matter_for_counts() -> None:
    generator = np.random.default_rng(1)
    batches = [generator.standard_normal(100) * size for size in (0.01, 50.0, 1.0)]
    first, second = histogram(*batches), histogram(*reversed(batches))
    assert first.exponent == second.exponent
    np.testing.assert_array_equal(first.counts, second.counts)


@pytest.mark.parametrize("numbers", [[0.0], [-0.0, 0.0], [1e-42], [3e38, -3e38], [5.0], [-2.0]], ids=str)
def test_extreme_numbers(numbers: list[float]) -> None:
    found = histogram(np.zeros(3), np.array(numbers))
    assert found.counts.sum() == 3 + len(numbers)
    for method in METHODS:
        span = choose_range(found, method)
        assert span.low <= 0 <= span.high
        assert np.isfinite(span).all()


def test_methods_on_a_bell_with_an_outlier() -> None:
    """Each method does what its name says; the same numbers, so that they can be compared."""
    numbers = np.random.default_rng(2).standard_normal(20000).astype(np.float32)
    batches = [*np.split(numbers, 20), np.array([300.0], np.float32)]
    found = histogram(*batches)
    everything = np.concatenate(batches)
    spans = {method: choose_range(found, method, percentile=99.9) for method in METHODS}
    assert spans["min-max"] == Range(float(numbers.min()), 300.0)
    assert 20 < spans["moving-average"].high < 50  # a tenth of the last batch's
    assert spans["percentile"].high == pytest.approx(np.quantile(everything, 0.999), abs=0.3)
    assert spans["percentile"].low == pytest.approx(np.quantile(everything, 0.001), abs=0.3)
    assert spans["entropy"].high < 100
    errors = {method: squared_error(everything, span) for method, span in spans.items()}
    assert errors["mse"] <= 1.02 * min(errors.values())


@pytest.mark.parametrize("seed", range(3))
def test_mse_is_the_best_of_a_fine_search(seed: int) -> None:
    generator = np.random.default_rng(seed)
    numbers = np.maximum(generator.standard_t(3, 20000), 0).astype(np.float32)  # one-sided, as behind a relu
    span = choose_range(histogram(numbers), "mse")
    best = min(squared_error(numbers, Range(0, float(high))) for high in np.linspace(0.5, numbers.max(), 400))
    assert span.low == 0
    assert squared_error(numbers, span) <= 1.1 * best
    assert squared_error(numbers, span) <= squared_error(numbers, Range(0, float(numbers.max())))


def test_all_in_one_number_or_few() -> None:
    two = histogram(np.array([1.0] * 90 + [7.0] * 10))
    assert choose_range(two, "percentile", percentile=80).high == pytest.approx(1, rel=0.01)
    assert choose_range(two, "percentile", percentile=100) == Range(0, 7)
    assert choose_range(two, "mse").high > 6.5


def test_outputs_are_never_clipped_and_activations_limit_what_they_read() -> None:
    nodes = (
        Node("conv", Conv(out_channels=1), ("x",)),
        Node("curve", Activation("hard_swish"), ("conv",)),
        Node("last", Conv(out_channels=1), ("curve",)),
    )
    graph = Graph({"x": TensorType((2, 2, 1))}, nodes, {"y": "last"})
    wild = np.concatenate([np.random.default_rng(0).standard_normal(200_000), [-9.0, 9.0]])
    seen = {name: histogram(wild) for name in graph.types}
    ranges = choose_ranges(graph, seen, "mse")
    assert ranges["last"] == Range(-9, 9)
    assert ranges["x"].high < 8
    assert ranges["conv"].low == -3


def test_what_an_output_is_a_copy_of_is_not_clipped_either() -> None:
    nodes = (
        Node("a", Conv(out_channels=1), ("x",)),
        Node("b", Conv(out_channels=1), ("x",)),
        Node("flat", Reshape((-1,)), ("a",)),
        Node("other", Reshape((-1,)), ("b",)),
        Node("join", Concat(), ("flat", "other")),
        Node("rows", Reshape((-1, 1)), ("join",)),
    )
    graph = Graph({"x": TensorType((2, 2, 1))}, nodes, {"y": "rows"})
    wild = np.concatenate([np.random.default_rng(0).standard_normal(200_000), [-9.0, 9.0]])
    seen = {name: histogram(wild) for name in graph.types}
    ranges = choose_ranges(graph, seen, "mse")
    assert {ranges[name] for name in ("a", "flat", "b", "other", "join", "rows")} == {Range(-9, 9)}
    cut = choose_ranges(graph, seen, "mse", of_outputs={"y": (-2.0, np.inf)})
    assert {cut[name] for name in ("a", "flat", "b", "other", "join", "rows")} == {Range(-2, 9)}
    assert cut["x"].high < 8


@pytest.mark.parametrize(
    ("method", "percentile", "message"),
    [("median", 99.0, "min-max, moving"), ("mse", 50.0, "50"), ("mse", 100.5, "100"), ("mse", np.nan, "nan")],
)
def test_unknown_methods_and_percentiles(method: str, percentile: float, message: str) -> None:
    graph = Graph({"x": TensorType((1,))}, (), {"y": "x"})
    with pytest.raises(ArgumentError, match=message):
        choose_ranges(graph, {}, method, percentile)

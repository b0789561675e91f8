"""Networks with random weights that behave as trained ones do: for benches and tests of runtimes.

The initial weights of training give values that grow or fade from layer to layer, and in integers a faded layer is
all zeros. Here every layer is scaled, and every batch norm gets its statistics, by what random pictures give, so
that all values are about normal.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mobilenet.graph.graph import Graph, Weights
from mobilenet.graph.ops import Add, BatchNorm, Conv, Dense, Mul, Operator
from mobilenet.model import Model, create
from mobilenet.quantise.quantise import quantise
from mobilenet.run.reference import run_node

_BRANCH = 0.3  # of what a residual branch adds
_NO_SIGNAL = 1e-6


def random_model(name: str, **options: Any) -> Model:
    """A float member of the family; the same name, options and seed give the same weights.

    Args:
        name: as for `mobilenet.create`.
        **options: as for `mobilenet.create`.
    """
    model = create(name, **options)
    model.weights = dict(model.weights)
    _damp_branches(model.graph, model.weights)
    _set_statistics(model.graph, model.weights, random_batch(model, count=4))
    return model


def random_quantised_model(name: str, *, pictures: int = 4, **options: Any) -> tuple[Model, Model]:
    """A float member of the family with random weights, and the same quantised.

    Args:
        name: as for `mobilenet.create`.
        pictures: how many random ones the ranges are measured on.
        **options: as for `mobilenet.create`.
    """
    model = random_model(name, **options)
    batches = (random_batch(model, seed=number) for number in range(pictures))
    return model, Model.of(quantise(model, batches))


def random_batch(model: Model, *, count: int = 1, seed: int = 0) -> np.ndarray:
    """Pictures of coarse and fine noise as the input takes them: float32 (count, height, width, channels).

    Args:
        model: a float model.
        count: how many.
        seed: of the noise.
    """
    generator = np.random.default_rng(seed)
    height, width, channels = model.input.shape
    coarse = generator.normal(0, 50, (count, 8, 8, channels))
    fine = generator.normal(128, 30, (count, height, width, channels))
    rows, columns = np.arange(height) * 8 // height, np.arange(width) * 8 // width
    noise = np.rint(fine + coarse[:, rows][:, :, columns])
    pixels = np.asarray(np.clip(noise, 0, 255), np.uint8)
    if model.preprocessing is None:
        return np.asarray(pixels / np.float32(127.5) - 1, np.float32)
    return model.preprocessing.normalise(pixels)


def _damp_branches(graph: Graph, weights: Weights) -> None:
    """Ends a residual branch in a small batch norm or layer scale: deep random networks amplify every rounding."""
    sums = [node for node in graph.nodes if isinstance(node.operator, Add)]
    ends = {node.inputs[1] for node in sums}
    for node in graph.nodes:
        if isinstance(node.operator, Mul) and node.operator.constant:
            weights[f"{node.name}.weight"] = np.full_like(weights[f"{node.name}.weight"], _BRANCH)
        elif isinstance(node.operator, BatchNorm) and node.name in ends:
            weights[f"{node.name}.gamma"] = np.full_like(weights[f"{node.name}.gamma"], _BRANCH)


def _set_statistics(graph: Graph, weights: Weights, batch: np.ndarray) -> None:
    """Gives a batch norm its input's statistics, and a linear layer without one values of deviation 1."""
    values = {next(iter(graph.inputs)): batch}
    normed = {node.inputs[0] for node in graph.nodes if isinstance(node.operator, BatchNorm)}
    free = {node.name for node in graph.nodes if _is_linear(node.operator)} - normed
    generator = np.random.default_rng(0)
    for node in graph.nodes:
        inputs = [values[name] for name in node.inputs]
        if isinstance(node.operator, BatchNorm):
            _set_norm(node.name, weights, inputs[0], generator)
        values[node.name] = run_node(node, graph, weights, inputs)
        deviation = values[node.name].std()
        if node.name in free and deviation > _NO_SIGNAL:
            weights[f"{node.name}.weight"] = weights[f"{node.name}.weight"] / deviation
            values[node.name] = run_node(node, graph, weights, inputs)


def _is_linear(operator: Operator) -> bool:
    return isinstance(operator, Conv | Dense) and operator.activation == "none"


def _set_norm(name: str, weights: Weights, x: np.ndarray, generator: np.random.Generator) -> None:
    """Mean and variance of x, spread a little over the channels, so that they do not cancel exactly."""
    axes = tuple(range(x.ndim - 1))
    spread = np.asarray(generator.uniform(0.7, 1.4, x.shape[-1]), np.float32)
    # One pixel or a dead channel has no variance of its own: a part of that of all channels is the floor.
    floor = 0.1 * x.var() + np.float32(_NO_SIGNAL)
    weights[f"{name}.mean"] = x.mean(axis=axes) * spread
    weights[f"{name}.variance"] = np.maximum(x.var(axis=axes), floor) * spread

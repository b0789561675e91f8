"""Statistics that are right again after channels were cut out of a network.

When half of what a value is a sum of is gone, its mean and deviation are others. So each batch norm is first put
at the mean and deviation that its values really have in the wide network on the user's pictures (which changes no
answer); in the narrow one they are then measured anew, and every channel that stays has again the mean and
deviation that it had. Jordan et al. (2022, arXiv:2211.08403) do the same to repair merged networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from mobilenet.graph.graph import Graph, Weights
from mobilenet.graph.ops import BatchNorm
from mobilenet.learn.data import EvaluationData
from mobilenet.learn.machine import Machine
from mobilenet.learn.slicing import sliced_weights
from mobilenet.learn.start import Start
from mobilenet.pictures.folders import Sample
from mobilenet.run.torch_module import GraphModule

PICTURES, BATCH = 512, 64  # for the statistics
Batches = Callable[[], Iterable[Tensor]]
"""Gives the same pictures each time: float32 (B, height, width, C)."""


def renewed(start: Start, samples: Sequence[Sample], machine: Machine, workers: int = 0) -> Start:
    """A sliced start with its channels chosen and its batch norms measured on some of these pictures.

    The same in every process. A start that is not sliced is returned as it is.

    Raises:
        ImageError: a picture cannot be read.
    """
    if start.wide is None:
        return start
    chosen = [samples[i] for i in sorted({len(samples) * i // PICTURES for i in range(PICTURES)})]
    data = EvaluationData(chosen, start.preprocessing, batch=BATCH, workers=workers, budget_bytes=2**28)
    wide, graph = start.wide, start.contents.graph
    weights = measured(wide.graph, wide.weights, data.batches, machine.device)
    weights = sliced_weights(wide.graph, weights, graph)
    weights = with_new_statistics(graph, weights, data.batches, machine.device)
    agreed = {name: machine.agreed(array) for name, array in weights.items()}
    return replace(start, contents=replace(start.contents, weights=agreed))


@torch.no_grad()
def measured(graph: Graph, weights: Weights, batches: Batches, device: torch.device) -> Weights:
    """The same function, with each batch norm at the mean and variance that its values have on these pictures."""
    module = GraphModule.from_weights(graph, weights).to(device).eval()
    changed = dict(weights)
    for name, counter in _counted(module, batches(), device).items():
        operator = graph.node(name).operator
        assert isinstance(operator, BatchNorm)
        changed.update(_moved(name, operator.epsilon, weights, *counter.moments()))
    return changed


class _Sums:
    """A hook that adds up the values of each channel, (B, C, ...), and their squares, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.first: np.ndarray | float = 0.0
        self.second: np.ndarray | float = 0.0

    def __call__(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        value = inputs[0] if inputs[0].dim() in (2, 4) else inputs[0].movedim(-1, 1)
        axes = [axis for axis in range(value.dim()) if axis != 1]
        self.count += value.numel() // value.shape[1]
        self.first = self.first + value.sum(axes, dtype=torch.float64).cpu().numpy()
        self.second = self.second + value.square().sum(axes, dtype=torch.float64).cpu().numpy()

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance, float64 (C)."""
        mean = np.asarray(self.first) / self.count
        return mean, np.maximum(np.asarray(self.second) / self.count - mean**2, 0)


def _moved(name: str, epsilon: float, weights: Weights, mean: np.ndarray, variance: np.ndarray) -> Weights:
    """gamma, beta, mean and variance of the same line, which other statistics make of other numbers."""
    old = {key: weights[f"{name}.{key}"].astype(np.float64) for key in ("gamma", "beta", "mean", "variance")}
    slope = old["gamma"] / np.sqrt(old["variance"] + epsilon)
    gamma = slope * np.sqrt(variance + epsilon)
    beta = old["beta"] + slope * (mean - old["mean"])
    new = {"gamma": gamma, "beta": beta, "mean": mean, "variance": variance}
    return {f"{name}.{key}": value.astype(np.float32) for key, value in new.items()}


@torch.no_grad()
def with_new_statistics(graph: Graph, weights: Weights, batches: Batches, device: torch.device) -> Weights:
    """The weights with each batch norm's mean and variance as they are on these pictures, all else as it is.

    The batch norms take their batches' statistics meanwhile, as in training, so that each layer sees what the
    layers before it give after their own correction. Dropout and stochastic depth leave nothing out.
    """
    module = GraphModule.from_weights(graph, weights).to(device).eval()
    norms = module.batch_norms()
    for norm in norms.values():
        norm.train()
    changed = dict(weights)
    for name, counter in _counted(module, (batch for batch in batches() if len(batch) > 1), device).items():
        if counter.count:  # a single picture is too few to measure by
            mean, variance = counter.moments()
            changed[f"{name}.mean"] = mean.astype(np.float32)
            changed[f"{name}.variance"] = variance.astype(np.float32)
    return changed


def _counted(module: GraphModule, batches: Iterable[Tensor], device: torch.device) -> dict[str, _Sums]:
    """What each batch norm of the module is given when these batches run."""
    norms = module.batch_norms()
    sums = {name: _Sums() for name in norms}
    hooks = [norms[name].register_forward_pre_hook(counter) for name, counter in sums.items()]
    for batch in batches:
        module(batch.to(device))
    for hook in hooks:
        hook.remove()
    return sums

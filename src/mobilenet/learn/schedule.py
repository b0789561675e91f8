"""Learning rates: over the steps (warm-up, then a cosine) and over the layers (lower ones learn slower)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import cos, pi
from typing import Any

import torch
from torch import nn

from mobilenet.graph.graph import Graph
from mobilenet.learn.options import TrainOptions

WARMUP_START = 0.04  # of the highest rate
COSINE_END = 0.01
MOMENTUM = 0.9


@dataclass(frozen=True)
class Schedule:
    """The learning rate of each step as a share of its highest: a line up, then half a cosine down."""

    warmup_steps: int
    total_steps: int

    def share(self, step: int) -> float:
        """For step 0, 1, ... `total_steps` - 1."""
        if step < self.warmup_steps:
            return WARMUP_START + (1 - WARMUP_START) * step / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        return COSINE_END + (1 - COSINE_END) * (1 + cos(pi * min(progress, 1.0))) / 2

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Sets the rate of each parameter group from its own highest rate."""
        for group in optimizer.param_groups:
            group["lr"] = group["highest_lr"] * self.share(step)


def make_schedule(options: TrainOptions, steps_per_epoch: int) -> Schedule:
    """The schedule of filled options; the warm-up takes at most half of all steps."""
    assert options.epochs is not None and options.warmup_epochs is not None
    total = options.epochs * steps_per_epoch
    return Schedule(min(round(options.warmup_epochs * steps_per_epoch), total // 2), total)


def layer_shares(graph: Graph, first: float) -> dict[str, float]:
    """Node -> share of the highest rate, rising geometrically from `first` at the first layer to 1 at the last.

    Depth counts nodes with parameters, in the order in which they run.
    """
    nodes = list(dict.fromkeys(name.rpartition(".")[0] for name in graph.parameters()))
    last = max(1, len(nodes) - 1)
    return {name: first ** (1 - position / last) for position, name in enumerate(nodes)}


def make_optimizer(
    named_parameters: Iterable[tuple[str, nn.Parameter]], graph: Graph, options: TrainOptions
) -> torch.optim.Optimizer:
    """An optimizer over the parameters that learn, one group for each rate and decay.

    Only weights of convolutions and dense layers decay: not biases, batch norms, PReLU slopes or layer scales.
    """
    assert options.lr0 is not None and options.weight_decay is not None and options.layer_rate is not None
    shares = layer_shares(graph, options.layer_rate)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            decay = options.weight_decay if parameter.dim() > 1 else 0.0
            rate = options.lr0 * shares[name.rpartition(".")[0]]
            groups.setdefault((rate, decay), []).append(parameter)
    listed = [
        {"params": parameters, "lr": rate, "highest_lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]
    return _make(options.optimizer, listed)


def _make(name: str, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    if name == "adamw":
        return torch.optim.AdamW(groups, fused=True)
    if name == "sgd":
        return torch.optim.SGD(groups, momentum=MOMENTUM, nesterov=True, fused=True)
    # The MobileNet papers train with RMSProp; epsilon 1e-3 is TensorFlow's for MobileNets.
    return torch.optim.RMSprop(groups, alpha=0.9, momentum=MOMENTUM, eps=1e-3)

"""A running average of the weights, which often answers better than the weights themselves."""

from __future__ import annotations

import copy

import torch

from mobilenet.run.torch_module import GraphModule


class WeightAverage:
    """Exponential moving average of a module's parameters, and of its batch norms' statistics with them.

    The decay of step t is min(decay, (1 + t) / (10 + t)), so that the start does not weigh on short runs (as
    TensorFlow's `ExponentialMovingAverage` with `num_updates`).

    Attributes:
        module: a copy in evaluation mode that holds the averages.
        updates: how often it was updated.
    """

    def __init__(self, module: GraphModule, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self._averages = list(self.module.state_dict().values())

    @torch.no_grad()
    def update(self, module: GraphModule) -> None:
        """Takes the weights of a training step into the average."""
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for average, value in zip(self._averages, module.state_dict().values(), strict=True):
            average.lerp_(value, weight)

"""The network that learns, and beside it what only learning needs: a map to a teacher, a matrix of classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mobilenet.learn import checkpoint
from mobilenet.learn.options import TrainOptions
from mobilenet.run.torch_module import GraphModule


class Student(nn.Module):
    """A network with modules beside it that are learnt, saved and resumed with it, and not kept in the model.

    All are one module, so that the gradients of several processes are averaged for all of them.

    Args:
        network: what becomes the model.
        beside: name -> a module that makes more outputs of the network's outputs.
    """

    def __init__(self, network: GraphModule, beside: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.network = network
        self.beside = nn.ModuleDict(beside)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The network's outputs, and those of what is beside it."""
        outputs: dict[str, Tensor] = self.network(images)
        for module in self.beside.values():
            outputs |= module(outputs)
        return outputs

    def own_parameters(self) -> Iterator[tuple[str, str, nn.Parameter]]:
        """(module, parameter's name, parameter) of what is beside the network."""
        for module, part in self.beside.items():
            for name, parameter in part.named_parameters():
                yield module, name, parameter

    def join(self, optimizer: torch.optim.Optimizer, options: TrainOptions) -> None:
        """Lets the optimizer learn what is beside the network too, at the highest rate."""
        if parameters := [parameter for *_, parameter in self.own_parameters()]:
            group: dict[str, Any] = {"params": parameters, "weight_decay": 0.0}
            optimizer.add_param_group({**group, "lr": options.lr0, "highest_lr": options.lr0})

    def load(self, tensors: dict[str, Tensor]) -> None:
        """What is beside the network from a saved state; raises `TrainingError` if the state has none."""
        for name, module in self.beside.items():
            checkpoint.copy_into(module, tensors, f"{name}/")

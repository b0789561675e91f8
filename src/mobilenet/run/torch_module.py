"""One `nn.Module` that runs any float graph, for learning. Using a model needs no torch: see `run/engine.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from mobilenet.errors import ArgumentError, GraphError, TrainingError, UnsupportedOperatorError
from mobilenet.graph.graph import Graph, Node, Weights
from mobilenet.run.torch_batch_norm import widened
from mobilenet.run.torch_layer import Layer, nchw, nhwc
from mobilenet.run.torch_layers import BatchNormLayer, layer


class GraphModule(nn.Module):
    """A float graph with trainable parameters.

    `state_dict` has exactly the names, shapes and layouts of `graph.parameters()`: "<node>.<parameter>",
    convolution weights (out, height, width, in), depthwise weights (height, width, channels); a batch norm's mean
    and variance are buffers. All start at zero (gamma and variance at one): use `from_weights`.

    Training mode means batch statistics in batch norms, dropout and stochastic depth. When
    `torch.distributed` runs several processes, batch statistics are over all of them.

    Raises:
        UnsupportedOperatorError: a node is quantised; the message names it.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        _check_float(graph)
        self.graph = graph
        self.frozen: frozenset[str] = frozenset()
        self._layers = {node.name: _layer(graph, node) for node in graph.nodes}
        for name, module in self._layers.items():
            _attach(self, name, module)
        self._last_reader = _last_readers(graph)

    @classmethod
    def from_weights(cls, graph: Graph, weights: Mapping[str, np.ndarray]) -> Self:
        """A module with these float32 weights (copied); raises `GraphError` if they do not fit the graph."""
        graph.check_weights(weights)
        module = cls(graph)
        module.load_weights(weights)
        return module

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Copies float32 weights into the module, on whatever device it is; raises as `from_weights`."""
        self.graph.check_weights(weights)
        own = self.state_dict()
        with torch.no_grad():
            for name, array in weights.items():
                own[name].copy_(torch.from_numpy(np.array(array)))

    def to_weights(self) -> Weights:
        """A copy of the weights as float32 numpy arrays, in the order of `graph.parameters()`."""
        own = self.state_dict()
        return {name: own[name].detach().float().cpu().numpy().copy() for name in self.graph.parameters()}

    def freeze(self, nodes: Iterable[str]) -> None:
        """From now on the parameters of these nodes do not learn, and their statistics do not change."""
        self.frozen = frozenset(nodes)
        for name in self.frozen - self._layers.keys():
            raise GraphError(f"there is no node '{name}' to freeze")
        for name, module in self._layers.items():
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(name not in self.frozen)
        self.train(self.training)

    def batch_norms(self) -> dict[str, BatchNormLayer]:
        """Node -> layer of every batch norm that is not frozen, in the order in which they run."""
        found = {name: module for name, module in self._layers.items() if isinstance(module, BatchNormLayer)}
        return {name: module for name, module in found.items() if name not in self.frozen}

    def train(self, mode: bool = True) -> Self:
        """As in every module, except that frozen nodes stay in evaluation mode."""
        super().train(mode)
        for name in self.frozen:
            self._layers[name].training = False
        return self

    def forward(self, batch: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The graph's outputs by name, in the graph's order of axes, floats as float32.

        Args:
            batch: float (batch, height, width, channels), or one tensor for each input by name.

        Raises:
            ArgumentError: an input is missing, unknown or of another shape than the graph's.
            TrainingError: a batch norm is given one value per channel in training mode.
        """
        values = self._inputs(batch)
        for node in self.graph.nodes:
            values[node.name] = self._run(node, [values[name] for name in node.inputs])
            for name in node.inputs:
                if self._last_reader.get(name) == node.name:
                    values.pop(name, None)
        outputs = {name: nhwc(values[node]) for name, node in self.graph.outputs.items()}
        return {name: widened(value) for name, value in outputs.items()}

    def _run(self, node: Node, inputs: list[Tensor]) -> Tensor:
        try:
            return cast(Tensor, self._layers[node.name](*inputs))
        except TrainingError as error:
            raise TrainingError(f"node '{node.name}': {error}") from error

    def _inputs(self, batch: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
        if isinstance(batch, Tensor):
            if len(self.graph.inputs) != 1:
                raise ArgumentError(
                    f"the graph has several inputs; give each by name: {', '.join(self.graph.inputs)}"
                )
            batch = {next(iter(self.graph.inputs)): batch}
        if batch.keys() != self.graph.inputs.keys():
            raise ArgumentError(
                f"inputs {', '.join(batch)} were given; the graph has {', '.join(self.graph.inputs)}"
            )
        for name, value in batch.items():
            shape = self.graph.inputs[name].shape
            if tuple(value.shape[1:]) != shape:
                raise ArgumentError(f"input '{name}' is (batch, {shape}), not {tuple(value.shape)}")
        return {name: nchw(value) for name, value in batch.items()}


def _check_float(graph: Graph) -> None:
    for name, kind in graph.types.items():
        if kind.integer:
            raise UnsupportedOperatorError(
                f"node '{name}' is {kind.dtype}: torch learns with float graphs only; run it on the reference, "
                "or import the file as a float graph"
            )


def _layer(graph: Graph, node: Node) -> Layer:
    return layer(node.name, node.operator, graph.input_shapes(node))


def _attach(root: nn.Module, name: str, module: nn.Module) -> None:
    """Puts a node's layer where its dotted name says, so that `state_dict` spells the graph's names.

    Names come from files, so they may clash with attributes of `nn.Module` ("type"); `_modules` does not mind.
    """
    *folders, last = name.split(".")
    for folder in folders:
        root._modules.setdefault(folder, nn.Module())
        root = cast(nn.Module, root._modules[folder])
    held: Any = root._modules.get(last)
    if held is not None:
        module._modules.update(held._modules)
    root._modules[last] = module


def _last_readers(graph: Graph) -> dict[str, str]:
    """For every value that is no output, the last node that reads it: it can be let go of after that."""
    last = {name: node.name for node in graph.nodes for name in node.inputs}
    return {name: reader for name, reader in last.items() if name not in graph.outputs.values()}

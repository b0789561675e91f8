"""The integer form of a float network, imitated in floats so that weights, biases and ranges can learn.

It makes the same decisions as `integer.to_integers`: what shares a scale, what stays in float, how far a bias may
reach. `LearnedIntegers.prepared` gives back what `to_integers` makes integers of, and they answer as this module.

Batch norms are folded before (`lower`), with the statistics that training left: what learns is what runs, a weight
scale for each channel takes up what the folded norms scale, and there are no batch statistics to be noisy or to
differ between training and use (Nagel et al. 2021, section 5.2.1, "static folding").
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from mobilenet.graph.graph import Node, Weights
from mobilenet.graph.ops import Conv, DepthwiseConv, MatMul
from mobilenet.quantise.budget import Prepared
from mobilenet.quantise.integer import SMALLEST_MULTIPLIER, STEPS, WEIGHT_LEVELS, room_for_bias
from mobilenet.quantise.learned_run import LINEAR, Run
from mobilenet.quantise.lower import has_integer_form
from mobilenet.quantise.ranges import Range
from mobilenet.run.torch_fake import Scale, bias_steps, scale_of, weight_steps
from mobilenet.run.torch_layer import nchw, nhwc
from mobilenet.run.torch_layers import layer

UNMOVED = 1e-6  # of a layer whose output never changes: what a bias step is then


class LearnedIntegers(nn.Module):
    """A lowered graph whose values and weights are rounded as integers would round them.

    Parameters: of each linear layer the weights in steps of their first scale and the bias in steps of the
    output's, so that one learning rate suits all layers; the logarithms of weight scales and of the ends of
    ranges, relative to where they began. In training mode what is only an output is not rounded; see `widen`.

    Args:
        prepared: a float network and the ranges of its values.
    """

    def __init__(self, prepared: Prepared) -> None:
        super().__init__()
        self.start = prepared
        self.graph = prepared.graph
        self.plain = {node.name: _plain_layer(prepared, node) for node in self.graph.nodes}
        linear = [node for node in self.graph.nodes if isinstance(node.operator, LINEAR)]
        self.own = {node.name: LinearSteps(prepared, node) for node in linear if has_integer_form(node.operator)}
        self.linear = nn.ModuleList(self.own.values())
        names = [name for name, kind in self.graph.types.items() if kind.dtype == "float32"]
        self.place = {name: place for place, name in enumerate(names)}
        ends = np.array([_around_zero(prepared.ranges[name]) for name in names])
        self.register_buffer("first_ends", torch.from_numpy(ends))
        self.log_ends = nn.Parameter(torch.zeros(len(names), 2))
        read = {name for node in self.graph.nodes for name in node.inputs}
        self.only_outputs = set(self.graph.outputs.values()) - read
        self.multiplied = {
            name for node in self.graph.nodes if isinstance(node.operator, MatMul) for name in node.inputs
        }

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        """The graph's outputs by name: real numbers, as the integers stand for them.

        Args:
            batch: float32 (batch, ...) of the input's shape.
        """
        (source,) = self.graph.inputs
        run = Run(self, source, nchw(batch))
        for node in self.graph.nodes:
            run.node(node)
        return {name: nhwc(run.output(value)) for name, value in self.graph.outputs.items()}

    def ends(self) -> Tensor:
        """Low and high of every value, float64 (values, 2)."""
        first = cast(Tensor, self.first_ends)
        return first * self.log_ends.double().exp()

    def fixed(self, source: str) -> Scale:
        """Of the input, which does not learn: what a picture can be is known."""
        low, high = _around_zero(self.start.ranges[source])
        return scale_of(torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64))

    @torch.no_grad()
    def widen(self, batches: Iterable[Tensor]) -> None:
        """Sets the ranges of what is only an output to all that these batches give: scores are never clipped."""
        mode = self.training
        self.train()
        spans: dict[str, Range] = {}
        for batch in batches:
            for name, value in self(batch).items():
                node = self.graph.outputs[name]
                known = spans.get(node, Range())
                spans[node] = Range(min(known.low, float(value.min())), max(known.high, float(value.max())))
        self.train(mode)
        first = cast(Tensor, self.first_ends)
        for name in self.only_outputs & self.place.keys() & spans.keys():
            first[self.place[name]] = torch.tensor(_around_zero(spans[name]), dtype=torch.float64)
            self.log_ends[self.place[name]] = 0

    @torch.no_grad()
    def prepared(self) -> Prepared:
        """What was learnt, in the form that integers are made of."""
        ends = self.ends().numpy()
        ranges = {name: Range(*map(float, ends[place])) for name, place in self.place.items()}
        ranges |= {name: self.start.ranges[name] for name in self.graph.inputs}
        weights: Weights = dict(self.start.weights)
        for own in self.own.values():
            weights |= own.weights()
        scales = {name: own.scale().numpy() for name, own in self.own.items()}
        made = {"weights": weights, "ranges": ranges, "weight_scales": scales}
        return replace(self.start, **made, exact=None, trained=True)  # type: ignore[arg-type]


class LinearSteps(nn.Module):
    """Weights, bias and weight scales of a convolution or dense layer."""

    def __init__(self, prepared: Prepared, node: Node) -> None:
        super().__init__()
        self.node = node
        weight = torch.from_numpy(np.array(prepared.weights[f"{node.name}.weight"]))
        last = isinstance(node.operator, DepthwiseConv)
        rows = weight.reshape(-1, weight.shape[-1]).T if last else weight.reshape(len(weight), -1)
        self.room = room_for_bias(node, rows.shape[1])
        scale = rows.double().abs().amax(1) / WEIGHT_LEVELS
        if prepared.weight_scales is not None:
            scale = torch.from_numpy(np.array(prepared.weight_scales[node.name]))
        self.register_buffer("first_scale", scale)
        self.register_buffer("unit", self.shaped(torch.where(scale > 0, scale, 1.0).float()))
        self.log_scale = nn.Parameter(torch.zeros(len(scale)))
        self.steps = nn.Parameter(weight / cast(Tensor, self.unit))
        bias = prepared.weights.get(f"{node.name}.bias")
        self.biased = bias is not None
        if bias is not None:
            low, high = _around_zero(prepared.ranges[node.name])
            self.bias_unit = max(high - low, UNMOVED) / STEPS
            self.register_buffer("first_bias", torch.from_numpy(np.array(bias)))
            self.moved = nn.Parameter(torch.zeros(len(bias)))

    def scale(self) -> Tensor:
        """Of the weights as they are learnt, float64 (channels)."""
        return cast(Tensor, self.first_scale) * self.log_scale.double().exp()

    def weight(self) -> Tensor:
        """As the float network has it."""
        return self.steps * cast(Tensor, self.unit)

    def bias(self) -> Tensor:
        """As the float network has it."""
        return cast(Tensor, self.first_bias) + self.moved * self.bias_unit

    def weights(self) -> Weights:
        """Both, float32, under their names in the graph."""
        named = {"weight": self.weight()} | ({"bias": self.bias()} if self.biased else {})
        return {f"{self.node.name}.{key}": value.numpy().copy() for key, value in named.items()}

    def integers(self, given: Scale, written: Scale) -> tuple[dict[str, Tensor], Tensor]:
        """The parameters in whole steps, and the scale of the weights, float32 (channels).

        Args:
            given, written: the scales of input and output, which limit that of the weights as in `to_integers`.
        """
        scale_in, scale_out = float(given.scale.detach()), float(written.scale.detach())
        least = torch.tensor(scale_out / scale_in * SMALLEST_MULTIPLIER, dtype=torch.float64)
        if self.biased:
            least = torch.maximum(least, self.bias().detach().double().abs() / (scale_in * self.room))
        scale = torch.maximum(self.scale(), least).float()
        found = {"weight": weight_steps(self.weight(), self.shaped(scale))}
        if self.biased:
            found["bias"] = bias_steps(self.bias(), given.scale, scale, self.room)
        return found, scale

    def shaped(self, scale: Tensor) -> Tensor:
        """A (channels) tensor so that it multiplies the weights."""
        if isinstance(self.node.operator, DepthwiseConv):
            return scale
        return scale.view(-1, 1, 1, 1) if isinstance(self.node.operator, Conv) else scale.view(-1, 1)


def _plain_layer(prepared: Prepared, node: Node) -> nn.Module:
    """The node's float layer in evaluation mode (no dropout, no stochastic depth), without a clamp of its own."""
    operator = node.operator
    if has_integer_form(operator) and getattr(operator, "activation", "none") in ("relu", "relu6"):
        operator = replace(operator, activation="none")  # type: ignore[call-arg]
    found = layer(node.name, operator, prepared.graph.input_shapes(node)).eval().requires_grad_(False)
    for name in found.parameter_names:
        found.held(name).copy_(torch.from_numpy(np.array(prepared.weights[f"{node.name}.{name}"])))
    return found


def _around_zero(span: Range) -> tuple[float, float]:
    return min(span.low, 0.0), max(span.high, 0.0)

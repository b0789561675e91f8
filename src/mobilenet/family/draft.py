"""A graph in the making: layers are added one after the other, each reading what came before it."""

from __future__ import annotations

from typing import Any

from mobilenet.family.dialects import Dialect
from mobilenet.graph.graph import Node
from mobilenet.graph.ops import (
    AveragePool,
    BatchNorm,
    Conv,
    DepthwiseConv,
    Operator,
    Pad,
    Shape,
    same_sides,
    symmetric_sides,
)


class Draft:
    """The nodes so far and `value`, the name of what the next layer reads.

    Args:
        shape: of the picture, (height, width, channels).
        dialect: padding, batch norm and widths.
        width_multiplier: above 0.
    """

    def __init__(self, shape: Shape, dialect: Dialect, width_multiplier: float) -> None:
        self.dialect = dialect
        self.width_multiplier = width_multiplier
        self.antialias = "none"  # see `rows.Table`; the stem has none
        self.nodes: list[Node] = []
        self.shapes: dict[str, Shape] = {"image": shape}
        self.value = "image"

    @property
    def shape(self) -> Shape:
        """Of what the next layer reads."""
        return self.shapes[self.value]

    @property
    def channels(self) -> int:
        """Of what the next layer reads."""
        return self.shape[-1]

    def add(self, name: str, operator: Operator, *inputs: str) -> str:
        """Adds a node that reads `inputs`, or the value so far; returns its name."""
        read = inputs or (self.value,)
        self.nodes.append(Node(name, operator, read))
        self.shapes[name] = operator.output_shape([self.shapes[i] for i in read])
        self.value = name
        return name

    def width(self, channels: int, scale: str = "width") -> int:
        """Channels of a layer that has `channels` at width 1."""
        return self.dialect.channels(channels, self.width_multiplier, scale)

    def conv(
        self,
        prefix: str,
        out: int,
        kernel: int = 1,
        stride: int = 1,
        dilation: int = 1,
        activation: str = "none",
    ) -> None:
        """`prefix`.conv without bias, `prefix`.batch_norm with the activation."""
        pooled = stride > 1 and self.antialias != "none"
        window = self._window(kernel, 1 if pooled else stride, dilation)
        self.add(f"{prefix}.conv", Conv(**window, out_channels=out))
        self.batch_norm(prefix, activation)
        if pooled:
            self._pool(prefix, stride)

    def depthwise(
        self,
        prefix: str,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        activation: str = "none",
    ) -> None:
        """`prefix`.conv, one filter a channel, and `prefix`.batch_norm with the activation."""
        pooled = stride > 1 and self.antialias != "none"
        window = self._window(kernel, 1 if pooled else stride, dilation)
        if self.dialect.padding == "bottom_right" and stride == 2:
            window |= {"padding": (0, 1, 0, 1), "same": False}
        self.add(f"{prefix}.conv", DepthwiseConv(**window))
        self.batch_norm(prefix, activation)
        if pooled:
            self._pool(prefix, stride)

    def batch_norm(self, prefix: str, activation: str = "none") -> None:
        """`prefix`.batch_norm on the value so far."""
        norm = BatchNorm(self.dialect.epsilon, self.dialect.momentum, activation)
        self.add(f"{prefix}.batch_norm", norm)

    def _window(self, kernel: int, stride: int, dilation: int) -> dict[str, Any]:
        sides = {"kernel": (kernel, kernel), "stride": (stride, stride)}
        if kernel == 1:
            return sides
        spread = (dilation, dilation)
        if self.dialect.padding == "symmetric":
            padding = symmetric_sides((kernel, kernel), spread)
            return {**sides, "dilation": spread, "padding": padding}
        padding = same_sides((self.shape[0], self.shape[1]), (kernel, kernel), (stride, stride), spread)
        return {**sides, "dilation": spread, "padding": padding, "same": True}

    def _pool(self, prefix: str, stride: int) -> None:
        """timm's antialiasing: a mean over `stride`, or the 1-2-1 filter on zero padding, as two means of 2."""
        if self.antialias == "blur":
            self.add(f"{prefix}.pad", Pad((1, 1, 1, 1)))
            self.add(f"{prefix}.blur", AveragePool((2, 2)))
            self.add(f"{prefix}.pool", AveragePool((2, 2), (stride, stride)))
        else:
            self.add(f"{prefix}.pool", AveragePool((stride, stride), (stride, stride)))

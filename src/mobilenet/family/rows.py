"""What a row of a MobileNet table can be. A table is data; `builder.py` turns it into a graph.

Channels are those at width 1. A row is checked when it is made, so that a typo fails at import.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace

from mobilenet.errors import ArgumentError
from mobilenet.graph.ops import ACTIVATIONS

# What the width multiplier does to a layer: "width" the rule of the blocks; "stem", "last" and "ratio" the
# dialect's rule for the stem, the last wide layer and V3's last convolution; "fixed" nothing.
SCALES = ("width", "stem", "last", "ratio", "fixed")
ANTIALIASES = ("none", "average", "blur")


@dataclass(frozen=True, kw_only=True)
class Row:
    """Base of all rows. `repeats` blocks in a row: the first has the stride, the others have stride 1."""

    out: int = 0  # 0: as many channels as come in
    kernel: int = 3
    stride: int = 1
    repeats: int = 1
    activation: str = "relu"

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(item.default, int) and (type(value) is not type(item.default) or value < 0):
                raise ArgumentError(f"{type(self).__name__}: {item.name} {value!r} must be like {item.default!r}")
        if min(self.kernel, self.stride, self.repeats) < 1:
            raise ArgumentError(f"{type(self).__name__}: kernel, stride and repeats must be at least 1")
        if self.activation not in ACTIVATIONS:
            raise ArgumentError(f"{type(self).__name__}: unknown activation '{self.activation}'")


@dataclass(frozen=True, kw_only=True)
class ConvRow(Row):
    """A convolution with batch norm. In a head, `name` tells several apart."""

    scale: str = "width"
    name: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_scale(self.scale)


@dataclass(frozen=True, kw_only=True)
class DepthwiseRow(Row):
    """A depthwise convolution with batch norm. In a head it is as large as the picture that it gets."""


@dataclass(frozen=True, kw_only=True)
class SeparableRow(Row):
    """Depthwise and pointwise convolution, both with batch norm and activation (V1, Table 1)."""


@dataclass(frozen=True, kw_only=True)
class ExpandingRow(Row):
    """Base of blocks that are wider inside, by the factor `expansion` or to `expanded` channels at width 1.

    The input is added to the output where shapes allow, unless `residual` is off.
    """

    expansion: int = 0
    expanded: int = 0
    residual: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.expansion > 0) == (self.expanded > 0):
            raise ArgumentError(f"{type(self).__name__}: needs either expansion or expanded")


@dataclass(frozen=True, kw_only=True)
class InvertedResidualRow(ExpandingRow):
    """Expand 1x1, depthwise, squeeze-excite (V3), project 1x1 without activation (V2, 3.3; V3, 5)."""

    squeeze_excite: bool = False


@dataclass(frozen=True, kw_only=True)
class FusedRow(ExpandingRow):
    """Expand by a full convolution, project 1x1 (MobileNet-EdgeTPU; V4's FusedIB)."""


@dataclass(frozen=True, kw_only=True)
class UniversalRow(ExpandingRow):
    """V4's universal inverted bottleneck (section 4): depthwise, expand, depthwise, project.

    `start` and `middle` are the kernels of the two depthwise convolutions, 0 where there is none; the first has
    no activation. The stride belongs to the second where it exists.
    """

    start: int = 0
    middle: int = 0
    layer_scale: bool = False


@dataclass(frozen=True, kw_only=True)
class AttentionRow(Row):
    """V4's mobile multi-query attention (section 5): many queries, one key and one value, residual.

    With a `key_stride` above 1, keys and values are first reduced by a depthwise convolution of `kernel`.
    """

    heads: int = 4
    key_dim: int = 64
    key_stride: int = 1


@dataclass(frozen=True, kw_only=True)
class MeanRow(Row):
    """The mean over the picture: (channels)."""


@dataclass(frozen=True, kw_only=True)
class FlattenRow(Row):
    """One pixel to a vector: (channels)."""


@dataclass(frozen=True, kw_only=True)
class HiddenRow(Row):
    """A dense layer on the vector, with a bias, with batch norm, or with neither."""

    scale: str = "last"
    bias: bool = False
    batch_norm: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_scale(self.scale)


def _check_scale(scale: str) -> None:
    if scale not in SCALES:
        raise ArgumentError(f"unknown scale '{scale}'; accepted are {', '.join(SCALES)}")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A network at width 1.

    Args:
        family: which dialects apply (`dialects.DIALECTS`).
        source: paper and table, or the code that it reproduces.
        stem: the first convolution.
        blocks: what repeats; features are what comes out of these.
        head: from the last block to what the classifier reads.
        classifier: whether a dense layer to the classes ends it; otherwise it ends in an embedding.
        resolution: side of the picture that it was published for, in pixels.
        width_multiplier: where the name stands for one width.
        dialect: what its own rules are called.
        dropout: before the classifier.
        antialias: how strides above 1 after the stem are taken: "none" by the convolution; "average" and
            "blur" by a pool after a convolution of stride 1 (timm's `aa` and `blur` forms).
    """

    family: str
    source: str
    stem: ConvRow
    blocks: tuple[Row, ...]
    head: tuple[Row, ...] = field(default_factory=lambda: (MeanRow(),))
    classifier: bool = True
    resolution: int = 224
    width_multiplier: float = 1.0
    dialect: str = "paper"
    dropout: float = 0.2
    antialias: str = "none"

    def __post_init__(self) -> None:
        if self.antialias not in ANTIALIASES:
            raise ArgumentError(f"unknown antialias '{self.antialias}'; accepted are {', '.join(ANTIALIASES)}")

    def unrolled(self) -> Iterator[Row]:
        """The blocks one by one."""
        for row in self.blocks:
            yield replace(row, repeats=1)
            for _ in range(row.repeats - 1):
                yield replace(row, repeats=1, stride=1)

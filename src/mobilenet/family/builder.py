"""The one builder: a table, a dialect and a few numbers become a graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mobilenet.family.blocks import Place, add_block
from mobilenet.family.dialects import Dialect
from mobilenet.family.draft import Draft
from mobilenet.family.rows import ConvRow, DepthwiseRow, FlattenRow, HiddenRow, MeanRow, Row, Table
from mobilenet.family.trunk import Head, Trunk
from mobilenet.graph.graph import Graph, TensorType
from mobilenet.graph.ops import Dense, DepthwiseConv, Mean, Reshape


@dataclass(frozen=True)
class Options:
    """What a graph can differ in, given its table and dialect; checked by `names.build`.

    Args:
        width_multiplier: above 0.
        size: (height, width) of the picture, each at least 32.
        classes: outputs of the classifier.
        channels: of the picture.
        output_stride: 8, 16 or 32: a stride that would go beyond it becomes dilation of what follows.
        dropout: probability before the classifier.
        drop_path: probability with which training skips the last block; it grows linearly with depth.
        features_only: give the last value at each stride and leave the head out.
        head: what stands in the place of the table's own head and classifier.
    """

    width_multiplier: float
    size: tuple[int, int]
    classes: int = 1000
    channels: int = 3
    output_stride: int = 32
    dropout: float = 0.0
    drop_path: float = 0.0
    features_only: bool = False
    head: Head | None = None


class Strides:
    """Follows the stride from the picture on; beyond the limit, strides become dilation (DeepLab's rule)."""

    def __init__(self, limit: int, dilates_striding_block: bool) -> None:
        self.limit = limit
        self.dilates_striding_block = dilates_striding_block
        self.reached = 1
        self.dilation = 1

    def take(self, stride: int) -> tuple[int, int]:
        """The (stride, dilation) with which a layer of this stride in the table is built."""
        if self.reached * stride <= self.limit:
            self.reached *= stride
            return stride, self.dilation
        before, self.dilation = self.dilation, self.dilation * stride
        return 1, self.dilation if self.dilates_striding_block else before


def build_graph(table: Table, dialect: Dialect, options: Options) -> Graph:
    """The graph: input "image" (height, width, channels), outputs as `names.build` states them.

    Raises:
        GraphError: a width, size or number of classes too large for any graph.
    """
    shape = (*options.size, options.channels)
    draft = Draft(shape, dialect, options.width_multiplier)
    trunk = _add_trunk(draft, table, options)
    if options.features_only:
        outputs = {f"features_{stride}": value for stride, value in trunk.last.items()}
    elif options.head is not None:
        outputs = options.head.add(draft, table, trunk, options.classes)
    else:
        outputs = _add_head(draft, table, options, trunk.nominal)
    return Graph({"image": TensorType(shape)}, tuple(draft.nodes), outputs)


def _add_trunk(draft: Draft, table: Table, options: Options) -> Trunk:
    """Stem and blocks."""
    strides = Strides(options.output_stride, draft.dialect.dilates_striding_block)
    add_block(draft, table.stem, Place("stem", options.channels, *strides.take(table.stem.stride)))
    draft.antialias = table.antialias
    first, last = {strides.reached: draft.value}, {strides.reached: draft.value}
    nominal = table.stem.out
    blocks = list(table.unrolled())
    for number, row in enumerate(blocks):
        drop_path = options.drop_path * number / max(len(blocks) - 1, 1)
        place = Place(f"blocks.{number}", nominal, *strides.take(row.stride), drop_path)
        add_block(draft, row, place)
        first.setdefault(strides.reached, draft.value)
        last[strides.reached] = draft.value
        nominal = row.out or nominal
    return Trunk(first, last, nominal)


def _add_head(draft: Draft, table: Table, options: Options, nominal: int) -> dict[str, str]:
    for row in table.head:
        _HEADS[type(row)](draft, row, nominal)
        nominal = row.out or nominal
    outputs = {"embedding": draft.value}
    if table.classifier:
        classifier = Dense(out_features=options.classes, dropout=options.dropout)
        outputs = {"logits": draft.add("classifier", classifier), **outputs}
    return outputs


def _conv_head(draft: Draft, row: ConvRow, nominal: int) -> None:
    prefix = f"head.{row.name}" if row.name else "head"
    add_block(draft, row, Place(prefix, nominal))


def _global_depthwise_head(draft: Draft, row: DepthwiseRow, nominal: int) -> None:  # noqa: ARG001
    """MobileFaceNet's GDConv: the kernel is the picture, one weight for every place."""
    height, width, _ = draft.shape
    draft.add("head.depthwise.conv", DepthwiseConv(kernel=(height, width)))
    draft.batch_norm("head.depthwise", row.activation)


def _mean_head(draft: Draft, row: MeanRow, nominal: int) -> None:  # noqa: ARG001
    draft.add("head.mean", Mean())


def _flatten_head(draft: Draft, row: FlattenRow, nominal: int) -> None:  # noqa: ARG001
    draft.add("head.flatten", Reshape((-1,)))


def _hidden_head(draft: Draft, row: HiddenRow, nominal: int) -> None:  # noqa: ARG001
    activation = "none" if row.batch_norm else row.activation
    dense = Dense(draft.width(row.out, row.scale), bias=row.bias, activation=activation)
    draft.add("head.hidden.dense", dense)
    if row.batch_norm:
        draft.batch_norm("head.hidden", row.activation)


_HEADS: dict[type[Row], Callable[[Draft, Any, int], None]] = {
    ConvRow: _conv_head,
    DepthwiseRow: _global_depthwise_head,
    MeanRow: _mean_head,
    FlattenRow: _flatten_head,
    HiddenRow: _hidden_head,
}

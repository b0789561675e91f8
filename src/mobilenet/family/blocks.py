"""How each kind of row becomes layers of a draft."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mobilenet.family.draft import Draft
from mobilenet.family.rows import (
    AttentionRow,
    ConvRow,
    DepthwiseRow,
    ExpandingRow,
    FusedRow,
    InvertedResidualRow,
    Row,
    SeparableRow,
    UniversalRow,
)
from mobilenet.graph.ops import Add, Conv, MatMul, Mean, Mul, Reshape, Softmax


@dataclass(frozen=True)
class Place:
    """Where a block stands: the prefix of its names, its input's channels at width 1, what its stride became."""

    prefix: str
    nominal_input: int
    stride: int = 1
    dilation: int = 1
    drop_path: float = 0.0


def add_block(draft: Draft, row: Row, place: Place) -> None:
    """Adds the layers of one row (its repeats are the caller's)."""
    _BLOCKS[type(row)](draft, row, place)


def conv_block(draft: Draft, row: ConvRow, place: Place) -> None:
    """A convolution with batch norm; `row.scale` says how its width follows the multiplier."""
    out = _ratio_width(draft, row, place) if row.scale == "ratio" else draft.width(row.out, row.scale)
    draft.conv(place.prefix, out, row.kernel, place.stride, place.dilation, row.activation)


def _ratio_width(draft: Draft, row: ConvRow, place: Place) -> int:
    if draft.dialect.last_convolution == "width":
        return draft.width(row.out)
    return draft.dialect.rounding(draft.channels * row.out / place.nominal_input)


def depthwise_block(draft: Draft, row: DepthwiseRow, place: Place) -> None:
    """A depthwise convolution alone."""
    prefix = f"{place.prefix}.depthwise"
    draft.depthwise(prefix, row.kernel, place.stride, place.dilation, row.activation)


def separable_block(draft: Draft, row: SeparableRow, place: Place) -> None:
    """V1's block: no residual, an activation after both convolutions."""
    depthwise_block(draft, DepthwiseRow(kernel=row.kernel, activation=row.activation), place)
    draft.conv(f"{place.prefix}.pointwise", draft.width(row.out), activation=row.activation)


def inverted_residual_block(draft: Draft, row: InvertedResidualRow, place: Place) -> None:
    """V2's and V3's block. Without expansion (expanded width = input) there is no expand convolution."""
    start, expanded = draft.value, expanded_width(draft, row, place)
    expands = expanded != draft.channels
    if expands:
        draft.conv(f"{place.prefix}.expand", expanded, activation=row.activation)
    late = row.squeeze_excite and expands and draft.dialect.squeezes_before_activation
    activation = "none" if late else row.activation
    draft.depthwise(f"{place.prefix}.depthwise", row.kernel, place.stride, place.dilation, activation)
    if row.squeeze_excite:
        squeeze_excite(draft, place.prefix, row.activation, row.activation if late else "none")
    draft.conv(f"{place.prefix}.project", draft.width(row.out))
    _add_residual(draft, row, place, start)


def squeeze_excite(draft: Draft, prefix: str, block_activation: str, activation: str) -> None:
    """Each channel times a gate that sees the mean of all (V3, 5.3; the rest of the rule is the dialect's)."""
    value, channels, dialect = draft.value, draft.channels, draft.dialect
    inner = block_activation if dialect.squeeze_activation == "block" else "relu"
    reduce = Conv(out_channels=dialect.squeezed(channels), bias=True, activation=inner)
    expand = Conv(out_channels=channels, bias=True, activation=dialect.gate)
    draft.add(f"{prefix}.squeeze_excite.mean", Mean(keep_axes=True))
    draft.add(f"{prefix}.squeeze_excite.reduce", reduce)
    gate = draft.add(f"{prefix}.squeeze_excite.expand", expand)
    draft.add(f"{prefix}.squeeze_excite.multiply", Mul(activation=activation), value, gate)


def fused_block(draft: Draft, row: FusedRow, place: Place) -> None:
    """Expansion and depthwise convolution in one full convolution; without expansion only the projection."""
    start, expanded = draft.value, expanded_width(draft, row, place)
    if expanded != draft.channels or row.stride > 1:
        prefix = f"{place.prefix}.expand"
        draft.conv(prefix, expanded, row.kernel, place.stride, place.dilation, row.activation)
    draft.conv(f"{place.prefix}.project", draft.width(row.out))
    _add_residual(draft, row, place, start)


def universal_block(draft: Draft, row: UniversalRow, place: Place) -> None:
    """V4's block; which of the two depthwise convolutions exist makes it IB, ConvNext, ExtraDW or FFN."""
    start, expanded = draft.value, expanded_width(draft, row, place)
    if row.start:
        stride = 1 if row.middle else place.stride
        draft.depthwise(f"{place.prefix}.depthwise_start", row.start, stride, place.dilation)
    draft.conv(f"{place.prefix}.expand", expanded, activation=row.activation)
    if row.middle:
        prefix = f"{place.prefix}.depthwise"
        draft.depthwise(prefix, row.middle, place.stride, place.dilation, row.activation)
    draft.conv(f"{place.prefix}.project", draft.width(row.out))
    if row.layer_scale:
        draft.add(f"{place.prefix}.layer_scale", Mul(constant=True))
    _add_residual(draft, row, place, start)


def expanded_width(draft: Draft, row: ExpandingRow, place: Place) -> int:
    """How wide a block is inside: the dialect decides if the input or the table is the base."""
    if row.expansion:
        return row.expansion * draft.channels
    if draft.dialect.expansion == "width":
        return draft.width(row.expanded)
    if row.expanded == place.nominal_input:
        return draft.channels
    return draft.dialect.rounding(draft.channels * row.expanded / place.nominal_input)


def _add_residual(draft: Draft, row: ExpandingRow, place: Place, start: str) -> None:
    if row.residual and row.stride == 1 and draft.channels == draft.shapes[start][2]:
        draft.add(f"{place.prefix}.add", Add(drop_path=place.drop_path), start, draft.value)


def attention_block(draft: Draft, row: AttentionRow, place: Place) -> None:
    """V4's attention: all heads' queries are rows of one matrix, because they share one key and one value.

    Shapes, with n = height * width, m of them left for keys, h heads of d: queries (n h, d), keys and values
    (m, d), scores (n h, m), result (n h, d), back to (height, width, h d).
    """
    prefix, start, channels = place.prefix, draft.value, draft.channels
    draft.batch_norm(prefix)
    normed = draft.value
    queries = _matrix(draft, row, f"{prefix}.query", row.heads * row.key_dim)
    keys, values = (_keys(draft, row, place, f"{prefix}.{name}", normed) for name in ("key", "value"))
    draft.add(f"{prefix}.attention.scores", MatMul(transpose_second=True), queries, keys)
    draft.add(f"{prefix}.attention.softmax", Softmax(beta=row.key_dim**-0.5))
    draft.add(f"{prefix}.attention.values", MatMul(), draft.value, values)
    draft.add(f"{prefix}.attention.reshape", Reshape((row.heads * row.key_dim,)), draft.value, start)
    draft.add(f"{prefix}.project.conv", Conv(out_channels=channels))
    draft.add(f"{prefix}.layer_scale", Mul(constant=True))
    draft.add(f"{prefix}.add", Add(drop_path=place.drop_path), start, draft.value)


def _keys(draft: Draft, row: AttentionRow, place: Place, prefix: str, normed: str) -> str:
    draft.value = normed
    if row.key_stride > 1:
        draft.depthwise(f"{prefix}.depthwise", row.kernel, row.key_stride, place.dilation)
    return _matrix(draft, row, prefix, row.key_dim)


def _matrix(draft: Draft, row: AttentionRow, prefix: str, channels: int) -> str:
    draft.add(f"{prefix}.conv", Conv(out_channels=channels))
    return draft.add(f"{prefix}.reshape", Reshape((-1, row.key_dim)))


_BLOCKS: dict[type[Row], Callable[[Draft, Any, Place], None]] = {
    ConvRow: conv_block,
    DepthwiseRow: depthwise_block,
    SeparableRow: separable_block,
    InvertedResidualRow: inverted_residual_block,
    FusedRow: fused_block,
    UniversalRow: universal_block,
    AttentionRow: attention_block,
}

"""MobileFaceNet (arXiv:1804.07573): faces of 112 x 112 pixels to an embedding."""

from __future__ import annotations

from dataclasses import replace

from mobilenet.family.rows import ConvRow, DepthwiseRow, FlattenRow, InvertedResidualRow, Table


def _bottleneck(expansion: int, out: int, repeats: int, stride: int) -> InvertedResidualRow:
    """One line of table 1: t, c, n, s."""
    return InvertedResidualRow(expansion=expansion, out=out, repeats=repeats, stride=stride, activation="prelu")


TABLE_1 = (
    DepthwiseRow(activation="prelu"),
    _bottleneck(2, 64, 5, 2),
    _bottleneck(4, 128, 1, 2),
    _bottleneck(2, 128, 6, 1),
    _bottleneck(4, 128, 1, 2),
    _bottleneck(2, 128, 2, 1),
)

WIDEN = ConvRow(out=512, kernel=1, activation="prelu", scale="last")
GLOBAL_DEPTHWISE = DepthwiseRow(activation="none")
PROJECT = ConvRow(out=128, kernel=1, activation="none", scale="fixed", name="project")

_FULL = Table(
    family="facenet",
    source="arXiv:1804.07573, table 1",
    stem=ConvRow(out=64, stride=2, activation="prelu", scale="stem"),
    blocks=TABLE_1,
    head=(WIDEN, GLOBAL_DEPTHWISE, PROJECT, FlattenRow()),
    classifier=False,
    resolution=112,
)

TABLES = {
    "mobilefacenet": _FULL,
    "mobilefacenet_m": replace(
        _FULL, source="arXiv:1804.07573, 3.3", head=(WIDEN, GLOBAL_DEPTHWISE, FlattenRow())
    ),
    "mobilefacenet_s": replace(_FULL, source="arXiv:1804.07573, 3.3", head=(GLOBAL_DEPTHWISE, FlattenRow())),
}

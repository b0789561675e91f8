"""MobileNetV2 (arXiv:1801.04381), and timm's deeper forms."""

from __future__ import annotations

from mobilenet.family.rows import ConvRow, InvertedResidualRow, MeanRow, Table


def _bottleneck(expansion: int, out: int, repeats: int, stride: int) -> InvertedResidualRow:
    """One line of table 2: t, c, n, s."""
    return InvertedResidualRow(expansion=expansion, out=out, repeats=repeats, stride=stride, activation="relu6")


def _stem(scale: str) -> ConvRow:
    return ConvRow(out=32, stride=2, activation="relu6", scale=scale)


def _head(scale: str) -> tuple[ConvRow, MeanRow]:
    return ConvRow(out=1280, kernel=1, activation="relu6", scale=scale), MeanRow()


TABLE_2 = (
    _bottleneck(1, 16, 1, 1),
    _bottleneck(6, 24, 2, 2),
    _bottleneck(6, 32, 3, 2),
    _bottleneck(6, 64, 4, 2),
    _bottleneck(6, 96, 3, 1),
    _bottleneck(6, 160, 3, 2),
    _bottleneck(6, 320, 1, 1),
)

# 1.2 times as deep, all but the first and the last stage.
DEEP_110 = (
    _bottleneck(1, 16, 1, 1),
    _bottleneck(6, 24, 3, 2),
    _bottleneck(6, 32, 4, 2),
    _bottleneck(6, 64, 5, 2),
    _bottleneck(6, 96, 4, 1),
    _bottleneck(6, 160, 4, 2),
    _bottleneck(6, 320, 1, 1),
)

# 1.4 times as deep.
DEEP_120 = (
    _bottleneck(1, 16, 1, 1),
    _bottleneck(6, 24, 3, 2),
    _bottleneck(6, 32, 5, 2),
    _bottleneck(6, 64, 6, 2),
    _bottleneck(6, 96, 5, 1),
    _bottleneck(6, 160, 5, 2),
    _bottleneck(6, 320, 1, 1),
)

TABLES = {
    "mobilenet_v2": Table(
        family="v2",
        source="arXiv:1801.04381, table 2",
        stem=_stem("stem"),
        blocks=TABLE_2,
        head=_head("last"),
    ),
    "mobilenet_v2_110d": Table(
        family="v2",
        source="timm 1.0.31, mobilenetv2_110d",
        stem=_stem("fixed"),
        blocks=DEEP_110,
        head=_head("fixed"),
        width_multiplier=1.1,
        dialect="timm",
    ),
    "mobilenet_v2_120d": Table(
        family="v2",
        source="timm 1.0.31, mobilenetv2_120d",
        stem=_stem("fixed"),
        blocks=DEEP_120,
        head=_head("fixed"),
        width_multiplier=1.2,
        dialect="timm",
    ),
}

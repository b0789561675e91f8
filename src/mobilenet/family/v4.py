"""MobileNetV4 (arXiv:2404.10518, appendix D), laid out as TF Model Garden and timm build it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mobilenet.family.rows import AttentionRow, ConvRow, FusedRow, HiddenRow, MeanRow, Row, Table, UniversalRow


def _stem(out: int) -> ConvRow:
    return ConvRow(out=out, stride=2, scale="stem")


def _uib(start: int, middle: int, expanded: int, out: int, stride: int = 1, repeats: int = 1) -> UniversalRow:
    """One line of the tables: kernels of the two depthwise convolutions (0: none), expanded and output width."""
    return UniversalRow(start=start, middle=middle, expanded=expanded, out=out, stride=stride, repeats=repeats)


def _scaled(rows: Iterable[Row], activation: str = "relu") -> tuple[Row, ...]:
    """The rows of a hybrid: every universal block ends in a layer scale."""
    return tuple(
        replace(row, layer_scale=True, activation=activation)
        if isinstance(row, UniversalRow)
        else replace(row, activation=activation)
        for row in rows
    )


def _head(activation: str = "relu") -> tuple[Row, ...]:
    return (
        ConvRow(out=960, kernel=1, activation=activation),
        MeanRow(),
        HiddenRow(out=1280, batch_norm=True, activation=activation),
    )


# The paper writes the first two stages as fused blocks; the code has two plain convolutions each.
CONV_SMALL = (
    ConvRow(kernel=3, out=32, stride=2),
    ConvRow(kernel=1, out=32),
    ConvRow(kernel=3, out=96, stride=2),
    ConvRow(kernel=1, out=64),
    _uib(5, 5, 192, 96, stride=2),
    _uib(0, 3, 192, 96, repeats=4),
    _uib(3, 0, 384, 96),
    _uib(3, 3, 576, 128, stride=2),
    _uib(5, 5, 512, 128),
    _uib(0, 5, 512, 128),
    _uib(0, 5, 384, 128),
    _uib(0, 3, 512, 128, repeats=2),
)

_MEDIUM_START = (
    FusedRow(kernel=3, expanded=128, out=48, stride=2),
    _uib(3, 5, 192, 80, stride=2),
    _uib(3, 3, 160, 80),
    _uib(3, 5, 480, 160, stride=2),
)

CONV_MEDIUM = (
    *_MEDIUM_START,
    _uib(3, 3, 640, 160, repeats=2),
    _uib(3, 5, 640, 160),
    _uib(3, 3, 640, 160),
    _uib(3, 0, 640, 160),
    _uib(0, 0, 320, 160),
    _uib(3, 0, 640, 160),
    _uib(5, 5, 960, 256, stride=2),
    _uib(5, 5, 1024, 256),
    _uib(3, 5, 1024, 256, repeats=2),
    _uib(0, 0, 1024, 256),
    _uib(3, 0, 1024, 256),
    _uib(3, 5, 512, 256),
    _uib(5, 5, 1024, 256),
    _uib(0, 0, 1024, 256, repeats=2),
    _uib(5, 0, 512, 256),
)

_LARGE_START = (
    FusedRow(kernel=3, expanded=96, out=48, stride=2),
    _uib(3, 5, 192, 96, stride=2),
    _uib(3, 3, 384, 96),
    _uib(3, 5, 384, 192, stride=2),
    _uib(3, 3, 768, 192, repeats=3),
    _uib(3, 5, 768, 192),
)

CONV_LARGE = (
    *_LARGE_START,
    _uib(5, 3, 768, 192, repeats=5),
    _uib(3, 0, 768, 192),
    _uib(5, 5, 768, 512, stride=2),
    _uib(5, 5, 2048, 512, repeats=3),
    _uib(5, 0, 2048, 512),
    _uib(5, 3, 2048, 512),
    _uib(5, 0, 2048, 512, repeats=2),
    _uib(5, 3, 2048, 512),
    _uib(5, 5, 2048, 512),
    _uib(5, 0, 2048, 512, repeats=3),
)

_MEDIUM_16 = AttentionRow(heads=4, key_dim=64, key_stride=2)
_MEDIUM_32 = AttentionRow(heads=4, key_dim=64)
_LARGE_16 = AttentionRow(heads=8, key_dim=48, key_stride=2)
_LARGE_32 = AttentionRow(heads=8, key_dim=64)

HYBRID_MEDIUM = (
    *_MEDIUM_START,
    _uib(0, 0, 320, 160),
    _uib(3, 3, 640, 160),
    _uib(3, 5, 640, 160),
    _MEDIUM_16,
    _uib(3, 3, 640, 160),
    _MEDIUM_16,
    _uib(3, 0, 640, 160),
    _MEDIUM_16,
    _uib(3, 3, 640, 160),
    _MEDIUM_16,
    _uib(3, 0, 640, 160),
    _uib(5, 5, 960, 256, stride=2),
    _uib(5, 5, 1024, 256),
    _uib(3, 5, 1024, 256, repeats=2),
    _uib(0, 0, 512, 256),
    _uib(3, 5, 512, 256),
    _uib(0, 0, 512, 256),
    _uib(0, 0, 1024, 256),
    _MEDIUM_32,
    _uib(3, 0, 1024, 256),
    _MEDIUM_32,
    _uib(5, 5, 1024, 256),
    _MEDIUM_32,
    _uib(5, 0, 1024, 256),
    _MEDIUM_32,
    _uib(5, 0, 1024, 256),
)

# Table 14 of the paper, which no published code or weights follow. It leaves the attention's sizes blank.
HYBRID_MEDIUM_PAPER = (
    *_MEDIUM_START,
    _uib(3, 3, 640, 160, repeats=2),
    _uib(3, 5, 640, 160),
    _MEDIUM_16,
    _uib(3, 3, 640, 160),
    _MEDIUM_16,
    _uib(3, 0, 640, 160),
    _MEDIUM_16,
    _uib(0, 0, 640, 160),
    _MEDIUM_16,
    _uib(3, 0, 640, 160),
    _uib(5, 5, 960, 256, stride=2),
    _uib(5, 5, 1024, 256),
    _uib(3, 5, 1024, 256, repeats=2),
    _uib(0, 0, 1024, 256),
    _uib(3, 0, 1024, 256),
    _uib(3, 5, 512, 256),
    _MEDIUM_32,
    _uib(5, 5, 1024, 256),
    _MEDIUM_32,
    _uib(0, 0, 1024, 256),
    _MEDIUM_32,
    _uib(0, 0, 1024, 256),
    _MEDIUM_32,
    _uib(5, 0, 1024, 256),
)

HYBRID_LARGE = (
    *_LARGE_START,
    _uib(5, 3, 768, 192, repeats=2),
    _LARGE_16,
    _uib(5, 3, 768, 192),
    _LARGE_16,
    _uib(5, 3, 768, 192),
    _LARGE_16,
    _uib(5, 3, 768, 192),
    _LARGE_16,
    _uib(3, 0, 768, 192),
    _uib(5, 5, 768, 512, stride=2),
    _uib(5, 5, 2048, 512, repeats=3),
    _uib(5, 0, 2048, 512),
    _uib(5, 3, 2048, 512),
    _uib(5, 0, 2048, 512, repeats=2),
    _uib(5, 3, 2048, 512),
    _uib(5, 5, 2048, 512),
    _LARGE_32,
    _uib(5, 0, 2048, 512),
    _LARGE_32,
    _uib(5, 0, 2048, 512),
    _LARGE_32,
    _uib(5, 0, 2048, 512),
    _LARGE_32,
    _uib(5, 0, 2048, 512),
)

_PAPER = "arXiv:2404.10518, appendix D"
_SMALL = Table(family="v4", source=_PAPER, stem=_stem(32), blocks=CONV_SMALL, head=_head())
_MEDIUM = replace(_SMALL, blocks=CONV_MEDIUM, resolution=256)
_LARGE = replace(_SMALL, stem=_stem(24), blocks=CONV_LARGE, resolution=384)

TABLES = {
    "mobilenet_v4_conv_small": _SMALL,
    "mobilenet_v4_conv_medium": _MEDIUM,
    "mobilenet_v4_conv_large": _LARGE,
    "mobilenet_v4_hybrid_medium": replace(
        _MEDIUM, source="TF Model Garden; timm 1.0.31", blocks=_scaled(HYBRID_MEDIUM)
    ),
    "mobilenet_v4_hybrid_medium_paper": replace(_MEDIUM, blocks=_scaled(HYBRID_MEDIUM_PAPER)),
    "mobilenet_v4_hybrid_large": replace(
        _LARGE,
        stem=replace(_stem(24), activation="gelu"),
        blocks=_scaled(HYBRID_LARGE, "gelu"),
        head=_head("gelu"),
    ),
    "mobilenet_v4_conv_aa_medium": replace(
        _MEDIUM, source="timm 1.0.31, mobilenetv4_conv_aa_medium", dialect="timm", antialias="average"
    ),
    "mobilenet_v4_conv_blur_medium": replace(
        _MEDIUM,
        source="timm 1.0.31, mobilenetv4_conv_blur_medium",
        dialect="timm",
        antialias="blur",
        resolution=224,
    ),
    "mobilenet_v4_conv_aa_large": replace(
        _LARGE,
        source="timm 1.0.31, mobilenetv4_conv_aa_large",
        dialect="timm",
        antialias="average",
        resolution=448,
    ),
}

"""MobileNet-EdgeTPU, as TF-slim's V3_EDGETPU has it. Its first block expands by 1: only the projection is left."""

from __future__ import annotations

from mobilenet.family.rows import ConvRow, FusedRow, InvertedResidualRow, MeanRow, Table


def _fused(kernel: int, expanded: int, out: int, stride: int, repeats: int = 1) -> FusedRow:
    return FusedRow(kernel=kernel, expanded=expanded, out=out, stride=stride, repeats=repeats)


def _bneck(
    kernel: int, expanded: int, out: int, stride: int, repeats: int = 1, residual: bool = True
) -> InvertedResidualRow:
    return InvertedResidualRow(
        kernel=kernel, expanded=expanded, out=out, stride=stride, repeats=repeats, residual=residual
    )


EDGETPU = (
    _fused(3, 32, 16, 1),
    _fused(3, 128, 32, 2),
    _fused(3, 128, 32, 1, repeats=3),
    _fused(3, 256, 48, 2),
    _fused(3, 192, 48, 1, repeats=3),
    _bneck(3, 384, 96, 2),
    _bneck(3, 384, 96, 1, repeats=3),
    _bneck(3, 768, 96, 1, residual=False),
    _bneck(3, 384, 96, 1, repeats=3),
    _bneck(5, 768, 160, 2),
    _bneck(5, 640, 160, 1, repeats=3),
    _bneck(3, 1280, 192, 1, residual=False),
)

TABLES = {
    "mobilenet_edgetpu": Table(
        family="edgetpu",
        source="TF-slim, V3_EDGETPU",
        stem=ConvRow(out=32, stride=2, scale="stem"),
        blocks=EDGETPU,
        head=(ConvRow(out=1280, kernel=1, scale="last"), MeanRow()),
    ),
}

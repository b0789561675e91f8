"""Multi-hardware MobileNets (arXiv:2008.08178), as TF Model Garden has them."""

from __future__ import annotations

from mobilenet.family.rows import ConvRow, HiddenRow, InvertedResidualRow, MeanRow, Row, Table


def _bneck(kernel: int, expanded: int, out: int, stride: int, repeats: int = 1) -> InvertedResidualRow:
    return InvertedResidualRow(kernel=kernel, expanded=expanded, out=out, stride=stride, repeats=repeats)


MAX = (
    _bneck(3, 96, 32, 2),
    _bneck(5, 192, 64, 2),
    _bneck(3, 128, 64, 1, repeats=2),
    _bneck(5, 384, 128, 2),
    _bneck(3, 512, 128, 1),
    _bneck(3, 384, 128, 1, repeats=2),
    _bneck(3, 768, 128, 1),
    _bneck(3, 384, 128, 1),
    _bneck(3, 768, 160, 2),
    _bneck(5, 640, 160, 1),
    _bneck(3, 800, 160, 1),
    _bneck(5, 640, 160, 1),
)

AVG = (
    _bneck(3, 96, 32, 2),
    _bneck(3, 64, 32, 1),
    _bneck(5, 160, 64, 2),
    _bneck(3, 192, 64, 1),
    _bneck(3, 128, 64, 1),
    _bneck(3, 192, 64, 1),
    _bneck(5, 384, 128, 2),
    _bneck(3, 384, 128, 1, repeats=3),
    _bneck(3, 768, 160, 1),
    _bneck(3, 640, 160, 1),
    _bneck(3, 960, 192, 2),
    _bneck(5, 768, 192, 1, repeats=3),
)

HEAD = (
    ConvRow(out=960, kernel=1),
    MeanRow(),
    HiddenRow(out=1280, batch_norm=True),
)


def _table(blocks: tuple[Row, ...]) -> Table:
    return Table(
        family="multi",
        source="arXiv:2008.08178; TF Model Garden",
        stem=ConvRow(out=32, stride=2, scale="stem"),
        blocks=blocks,
        head=HEAD,
    )


TABLES = {"mobilenet_multi_max": _table(MAX), "mobilenet_multi_avg": _table(AVG)}

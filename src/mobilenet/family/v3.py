"""MobileNetV3 (arXiv:1905.02244v5) and its minimalistic, reduced and deeper forms.

Table 2 of the paper ticks squeeze-excite on the last 1x1 convolution of V3-Small; the official code and every
other one have none there.
"""

from __future__ import annotations

from dataclasses import replace

from mobilenet.family.rows import ConvRow, HiddenRow, InvertedResidualRow, MeanRow, Row, Table

RE, HS = "relu", "hard_swish"
SE, NO = True, False


def _bneck(
    kernel: int, expanded: int, out: int, squeeze_excite: bool, activation: str, stride: int, repeats: int = 1
) -> InvertedResidualRow:
    """One line of tables 1 and 2: kernel, exp size, #out, SE, NL, s."""
    return InvertedResidualRow(
        kernel=kernel,
        expanded=expanded,
        out=out,
        squeeze_excite=squeeze_excite,
        activation=activation,
        stride=stride,
        repeats=repeats,
    )


def _stem(out: int, activation: str) -> ConvRow:
    return ConvRow(out=out, stride=2, activation=activation, scale="stem")


def _head(convolution: int, hidden: int, activation: str = HS, bias: bool = True) -> tuple[Row, ...]:
    """V3's efficient last stage (5.1): the mean comes before the wide layer, which has no batch norm."""
    return (
        ConvRow(out=convolution, kernel=1, activation=activation, scale="ratio"),
        MeanRow(),
        HiddenRow(out=hidden, bias=bias, activation=activation),
    )


LARGE = (
    _bneck(3, 16, 16, NO, RE, 1),
    _bneck(3, 64, 24, NO, RE, 2),
    _bneck(3, 72, 24, NO, RE, 1),
    _bneck(5, 72, 40, SE, RE, 2),
    _bneck(5, 120, 40, SE, RE, 1),
    _bneck(5, 120, 40, SE, RE, 1),
    _bneck(3, 240, 80, NO, HS, 2),
    _bneck(3, 200, 80, NO, HS, 1),
    _bneck(3, 184, 80, NO, HS, 1),
    _bneck(3, 184, 80, NO, HS, 1),
    _bneck(3, 480, 112, SE, HS, 1),
    _bneck(3, 672, 112, SE, HS, 1),
    _bneck(5, 672, 160, SE, HS, 2),
    _bneck(5, 960, 160, SE, HS, 1),
    _bneck(5, 960, 160, SE, HS, 1),
)

SMALL = (
    _bneck(3, 16, 16, SE, RE, 2),
    _bneck(3, 72, 24, NO, RE, 2),
    _bneck(3, 88, 24, NO, RE, 1),
    _bneck(5, 96, 40, SE, HS, 2),
    _bneck(5, 240, 40, SE, HS, 1),
    _bneck(5, 240, 40, SE, HS, 1),
    _bneck(5, 120, 48, SE, HS, 1),
    _bneck(5, 144, 48, SE, HS, 1),
    _bneck(5, 288, 96, SE, HS, 2),
    _bneck(5, 576, 96, SE, HS, 1),
    _bneck(5, 576, 96, SE, HS, 1),
)

# For detection and segmentation, half as wide after the last stride (6.3, 6.4).
LARGE_REDUCED_TAIL = (
    *LARGE[:12],
    _bneck(5, 672, 80, SE, HS, 2),
    _bneck(5, 480, 80, SE, HS, 1),
    _bneck(5, 480, 80, SE, HS, 1),
)

SMALL_REDUCED_TAIL = (
    *SMALL[:8],
    _bneck(5, 288, 48, SE, HS, 2),
    _bneck(5, 288, 48, SE, HS, 1),
    _bneck(5, 288, 48, SE, HS, 1),
)

# timm's mobilenetv3_large_150d: 1.2 times as deep.
LARGE_150D = (
    _bneck(3, 16, 16, NO, RE, 1, repeats=2),
    _bneck(3, 64, 24, NO, RE, 2),
    _bneck(3, 72, 24, NO, RE, 1, repeats=2),
    _bneck(5, 72, 40, SE, RE, 2),
    _bneck(5, 120, 40, SE, RE, 1, repeats=3),
    _bneck(3, 240, 80, NO, HS, 2),
    _bneck(3, 200, 80, NO, HS, 1, repeats=2),
    _bneck(3, 184, 80, NO, HS, 1, repeats=2),
    _bneck(3, 480, 112, SE, HS, 1),
    _bneck(3, 672, 112, SE, HS, 1, repeats=2),
    _bneck(5, 672, 160, SE, HS, 2),
    _bneck(5, 960, 160, SE, HS, 1, repeats=3),
)


def _minimalistic(rows: tuple[InvertedResidualRow, ...]) -> tuple[InvertedResidualRow, ...]:
    """TF-slim's rule: 3x3 kernels, ReLU and no squeeze-excite everywhere."""
    return tuple(replace(row, kernel=3, squeeze_excite=False, activation=RE) for row in rows)


_LARGE = Table(
    family="v3", source="arXiv:1905.02244v5, table 1", stem=_stem(16, HS), blocks=LARGE, head=_head(960, 1280)
)
_SMALL = Table(
    family="v3", source="arXiv:1905.02244v5, table 2", stem=_stem(16, HS), blocks=SMALL, head=_head(576, 1024)
)
TABLES = {
    "mobilenet_v3_large": _LARGE,
    "mobilenet_v3_small": _SMALL,
    "mobilenet_v3_large_minimalistic": replace(
        _LARGE,
        source="TF-slim, V3_LARGE_MINIMALISTIC",
        stem=_stem(16, RE),
        blocks=_minimalistic(LARGE),
        head=_head(960, 1280, RE),
    ),
    "mobilenet_v3_small_minimalistic": replace(
        _SMALL,
        source="TF-slim, V3_SMALL_MINIMALISTIC",
        stem=_stem(16, RE),
        blocks=_minimalistic(SMALL),
        head=_head(576, 1024, RE),
    ),
    "mobilenet_v3_large_reduced_tail": replace(
        _LARGE,
        source="arXiv:1905.02244v5, 6.3; torchvision 0.28.0, reduced_tail",
        blocks=LARGE_REDUCED_TAIL,
        head=_head(480, 640),
    ),
    "mobilenet_v3_small_reduced_tail": replace(
        _SMALL,
        source="arXiv:1905.02244v5, 6.3; torchvision 0.28.0, reduced_tail",
        blocks=SMALL_REDUCED_TAIL,
        head=_head(288, 512),
    ),
    "mobilenet_v3_large_rw": replace(
        _LARGE,
        source="timm 1.0.31, mobilenetv3_rw",
        blocks=(replace(LARGE[0], residual=False), *LARGE[1:]),
        head=_head(960, 1280, bias=False),
        dialect="timm_rw",
    ),
    "mobilenet_v3_large_150d": replace(
        _LARGE,
        source="timm 1.0.31, mobilenetv3_large_150d",
        blocks=LARGE_150D,
        head=(ConvRow(out=960, kernel=1, activation=HS, scale="ratio", name="first"), *_head(960, 1280)),
        resolution=256,
        width_multiplier=1.5,
        dialect="timm",
    ),
}

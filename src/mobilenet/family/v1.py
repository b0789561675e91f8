"""MobileNetV1 (arXiv:1704.04861) and the networks that its paper compares it with.

The paper says ReLU; TF-slim and every published checkpoint use ReLU6, and so do these rows. Table 1 prints
stride 2 in its last depthwise row; the sizes printed around it need stride 1.
"""

from __future__ import annotations

from mobilenet.family.rows import ConvRow, MeanRow, SeparableRow, Table


def _separable(out: int, stride: int = 1, repeats: int = 1) -> SeparableRow:
    return SeparableRow(out=out, stride=stride, repeats=repeats, activation="relu6")


def _full(out: int, stride: int = 1, repeats: int = 1) -> ConvRow:
    return ConvRow(out=out, stride=stride, repeats=repeats, activation="relu6")


STEM = ConvRow(out=32, stride=2, activation="relu6", scale="stem")

TABLE_1 = (
    _separable(64),
    _separable(128, stride=2),
    _separable(128),
    _separable(256, stride=2),
    _separable(256),
    _separable(512, stride=2),
    _separable(512, repeats=5),
    _separable(1024, stride=2),
    _separable(1024),
)

# Table 5: without the five layers of 14 x 14 x 512.
SHALLOW = TABLE_1[:6] + TABLE_1[7:]

# Table 4: a full 3x3 convolution in the place of each separable one.
FULL_CONVOLUTION = (
    _full(64),
    _full(128, stride=2),
    _full(128),
    _full(256, stride=2),
    _full(256),
    _full(512, stride=2),
    _full(512, repeats=5),
    _full(1024, stride=2),
    _full(1024),
)

# timm's mobilenetv1_100h: one more convolution before the mean.
CONVOLUTION_HEAD = (ConvRow(out=1024, kernel=1, activation="relu6", scale="last"), MeanRow())

TABLES = {
    "mobilenet_v1": Table(
        family="v1", source="arXiv:1704.04861, table 1", stem=STEM, blocks=TABLE_1, dropout=0.001
    ),
    "mobilenet_v1_shallow": Table(
        family="v1", source="arXiv:1704.04861, table 5", stem=STEM, blocks=SHALLOW, dropout=0.001
    ),
    "mobilenet_v1_full_convolution": Table(
        family="v1", source="arXiv:1704.04861, table 4", stem=STEM, blocks=FULL_CONVOLUTION, dropout=0.001
    ),
    "mobilenet_v1_convolution_head": Table(
        family="v1",
        source="timm 1.0.31, mobilenetv1_100h",
        stem=STEM,
        blocks=TABLE_1,
        head=CONVOLUTION_HEAD,
        dialect="timm",
        dropout=0.001,
    ),
}

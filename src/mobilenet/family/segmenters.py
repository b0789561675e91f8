"""Heads that give every pixel a class: LR-ASPP, DeepLabv3 and a light DeepLabv3+, on any member of the family.

The network below is the classifier's, so that the weights of one fit the other by name. V3 and V4 keep the wide
1x1 convolution that their classifier has before the mean ("head.conv"); the others end in their last block, as
V2's paper found to be enough (arXiv:1801.04381, 6.3). "logits" are resized to the picture: (height, width,
classes).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import ClassVar

from mobilenet.errors import ArgumentError
from mobilenet.family.blocks import Place, add_block
from mobilenet.family.dialects import Dialect
from mobilenet.family.draft import Draft
from mobilenet.family.rows import ConvRow, HiddenRow, Table
from mobilenet.family.trunk import Head, Trunk
from mobilenet.graph.ops import Add, Concat, Conv, DepthwiseConv, Mean, Mul, Resize, symmetric_sides

MAX_CHANNELS = 4096
IMAGE = "image"
PREFIX = "segment"


@dataclass(frozen=True)
class Segmenter(Head):
    """Base of these heads; `channels` is how wide the head is inside, whatever the width multiplier.

    With `auxiliary`, a small second classifier on the map of stride 8 gives "auxiliary_logits": a second loss
    while training (arXiv:1612.01105, 3.2), to be cut off (`graph.edit.pruned`) afterwards.
    """

    task: ClassVar[str] = "segment"
    resolution: ClassVar[int] = 512
    output_stride: ClassVar[int] = 16
    classes: ClassVar[int] = 21  # Pascal VOC's, which the published ones were trained for
    channels: int = 128
    auxiliary: bool = False

    def __post_init__(self) -> None:
        for item in fields(self):
            value, truth = getattr(self, item.name), isinstance(item.default, bool)
            if not (type(value) is bool if truth else type(value) is int and 1 <= value <= MAX_CHANNELS):
                wanted = "true or false" if truth else f"a whole number from 1 to {MAX_CHANNELS}"
                raise ArgumentError(f"head option '{item.name}' is {wanted}, not {value!r}")

    def add(self, draft: Draft, table: Table, trunk: Trunk, classes: int) -> dict[str, str]:
        """See `Head.add`: the output "logits", and "auxiliary_logits" if it is asked for."""
        high = _high_features(draft, table, trunk)
        draft.dialect = _rules_of_head(draft.dialect)
        draft.antialias = "none"
        draft.value = high
        self.decode(draft, trunk, classes)
        outputs = {"logits": _at_size_of(draft, f"{PREFIX}.resize", IMAGE)}
        if self.auxiliary:
            outputs["auxiliary_logits"] = _add_auxiliary(draft, _at(trunk.first, 8), classes)
        return outputs

    def decode(self, draft: Draft, trunk: Trunk, classes: int) -> None:
        """Adds the layers from the last features, `draft.value`, to the classes' scores at some stride."""
        raise NotImplementedError


@dataclass(frozen=True)
class LiteReducedAspp(Segmenter):
    """LR-ASPP (V3, arXiv:1905.02244v5, 6.4) as torchvision 0.28.0 has it: the gate sees the mean of all."""

    def decode(self, draft: Draft, trunk: Trunk, classes: int) -> None:
        high = draft.value
        draft.conv(f"{PREFIX}.reduce", self.channels, activation="relu")
        reduced = draft.value
        draft.add(f"{PREFIX}.gate.mean", Mean(keep_axes=True), high)
        gate = draft.add(f"{PREFIX}.gate.conv", Conv(out_channels=self.channels, activation="sigmoid"))
        draft.add(f"{PREFIX}.gate.multiply", Mul(), reduced, gate)
        low = _at(trunk.first, 8)
        _at_size_of(draft, f"{PREFIX}.enlarge", low)
        fine = draft.add(f"{PREFIX}.high_classifier", Conv(out_channels=classes, bias=True))
        coarse = draft.add(f"{PREFIX}.low_classifier", Conv(out_channels=classes, bias=True), low)
        draft.add(f"{PREFIX}.add", Add(), coarse, fine)


@dataclass(frozen=True)
class DeepLab(Segmenter):
    """DeepLabv3 (arXiv:1706.05587, 3.3) with torchvision 0.28.0's rates and widths; its dropout is left out.

    The rates are those of output stride 8, 12, 24 and 36, at every stride, as torchvision has them.
    """

    channels: int = 256

    def decode(self, draft: Draft, trunk: Trunk, classes: int) -> None:  # noqa: ARG002
        high = draft.value
        draft.conv(f"{PREFIX}.pyramid.0", self.channels, activation="relu")
        branches = [draft.value]
        for number, rate in enumerate((12, 24, 36), 1):
            draft.value = high
            _dilated(draft, f"{PREFIX}.pyramid.{number}", rate, self.channels)
            branches.append(draft.value)
        branches.append(_pooled_branch(draft, high, self.channels))
        _project(draft, branches, self.channels)
        prefix = f"{PREFIX}.refine"
        draft.conv(prefix, self.channels, 3, activation="relu")
        draft.add(f"{PREFIX}.classifier", Conv(out_channels=classes, bias=True))


@dataclass(frozen=True)
class DeepLabPlus(Segmenter):
    """DeepLabv3+ (arXiv:1802.02611, 3.1) made light: every 3x3 convolution is separable, and all is narrower.

    The pyramid's rates are 6, 12 and 18 at output stride 16, twice that at 8. Its result, enlarged to stride 4, is
    joined with `low_channels` made of the last block there, and refined by one separable convolution. There is no
    branch of the picture's mean: with a handful of pictures in a batch, the batch norm behind it sees a handful of
    numbers a channel, and what it keeps of them is not what it trained with. The widest rate sees 577 pixels.
    """

    low_channels: int = 32

    def decode(self, draft: Draft, trunk: Trunk, classes: int) -> None:
        high = draft.value
        stride = max(trunk.last)
        draft.conv(f"{PREFIX}.pyramid.0", self.channels, activation="relu")
        branches = [draft.value]
        for number, rate in enumerate((6, 12, 18), 1):
            draft.value = high
            _separable(draft, f"{PREFIX}.pyramid.{number}", max(1, rate * 16 // stride), self.channels)
            branches.append(draft.value)
        _project(draft, branches, self.channels)
        low = _at(trunk.last, 4)
        enlarged = _at_size_of(draft, f"{PREFIX}.enlarge", low)
        draft.value = low
        draft.conv(f"{PREFIX}.low", self.low_channels, activation="relu")
        draft.add(f"{PREFIX}.join", Concat(), enlarged, draft.value)
        _separable(draft, f"{PREFIX}.refine", 1, self.channels)
        draft.add(f"{PREFIX}.classifier", Conv(out_channels=classes, bias=True))


HEADS: dict[str, type[Head]] = {
    "lraspp": LiteReducedAspp,
    "deeplabv3plus": DeepLabPlus,  # before the name that it begins with
    "deeplabv3": DeepLab,
}


def _high_features(draft: Draft, table: Table, trunk: Trunk) -> str:
    """The last features: those before the mean where a hidden layer follows it (V3, V4), else the last block's."""
    draft.value = trunk.last[max(trunk.last)]
    if any(isinstance(row, HiddenRow) for row in table.head):
        nominal = trunk.nominal
        for row in table.head:
            if not isinstance(row, ConvRow):
                break
            add_block(draft, row, Place(f"head.{row.name}" if row.name else "head", nominal))
            nominal = row.out
    return draft.value


def _rules_of_head(dialect: Dialect) -> Dialect:
    if dialect.segmenter_norm is None:
        return dialect
    epsilon, momentum = dialect.segmenter_norm
    return replace(dialect, epsilon=epsilon, momentum=momentum)


def _at(values: dict[int, str], stride: int) -> str:
    if stride not in values:
        raise ArgumentError(f"this head needs a value of stride {stride}; the network has {sorted(values)}")
    return values[stride]


def _at_size_of(draft: Draft, name: str, other: str) -> str:
    return draft.add(name, Resize(), draft.value, other)


def _dilated(draft: Draft, prefix: str, rate: int, channels: int) -> None:
    """A 3x3 convolution whose padding keeps the size, in any dialect: at stride 1 they all agree."""
    window = {"kernel": (3, 3), "dilation": (rate, rate), "padding": symmetric_sides((3, 3), (rate, rate))}
    draft.add(f"{prefix}.conv", Conv(**window, out_channels=channels))  # type: ignore[arg-type]
    draft.batch_norm(prefix, "relu")


def _separable(draft: Draft, prefix: str, rate: int, channels: int) -> None:
    window = {"kernel": (3, 3), "dilation": (rate, rate), "padding": symmetric_sides((3, 3), (rate, rate))}
    draft.add(f"{prefix}.depthwise.conv", DepthwiseConv(**window))  # type: ignore[arg-type]
    draft.batch_norm(f"{prefix}.depthwise", "relu")
    draft.conv(f"{prefix}.pointwise", channels, activation="relu")


def _pooled_branch(draft: Draft, high: str, channels: int) -> str:
    draft.add(f"{PREFIX}.pool.mean", Mean(keep_axes=True), high)
    draft.conv(f"{PREFIX}.pool", channels, activation="relu")
    return _at_size_of(draft, f"{PREFIX}.pool.resize", high)


def _project(draft: Draft, branches: list[str], channels: int) -> None:
    draft.add(f"{PREFIX}.pyramid.join", Concat(), *branches)
    draft.conv(f"{PREFIX}.project", channels, activation="relu")


def _add_auxiliary(draft: Draft, low: str, classes: int) -> str:
    """torchvision's FCN head: a quarter as wide as what it reads."""
    draft.value = low
    draft.conv(f"{PREFIX}.auxiliary", max(1, draft.channels // 4), 3, activation="relu")
    draft.add(f"{PREFIX}.auxiliary.classifier", Conv(out_channels=classes, bias=True))
    return _at_size_of(draft, f"{PREFIX}.auxiliary.resize", IMAGE)

"""Heads that find objects, on any member of the family: SSD, SSDLite, and an anchor-free head on a pyramid.

All give "boxes" (A, 4) and "scores" (A, classes), raw: what they mean is a `Decoding`. A layer is made for each
feature map, flattened to a vector, and the vectors are joined: rows are then in the order map, row, column, prior.
For "ssd" kinds `classes` counts the background, which is column 0, as torchvision and TensorFlow count it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import log, sqrt
from typing import ClassVar, NamedTuple

import numpy as np

from mobilenet.errors import ArgumentError
from mobilenet.family.blocks import Place, add_block
from mobilenet.family.decoding import Decoding, Size, feature_maps
from mobilenet.family.dialects import DIALECTS, Rounding
from mobilenet.family.draft import Draft
from mobilenet.family.rows import ConvRow, Table
from mobilenet.family.trunk import Head, Trunk
from mobilenet.graph.graph import Graph, Weights
from mobilenet.graph.ops import (
    Add,
    BatchNorm,
    Concat,
    Conv,
    DepthwiseConv,
    Reshape,
    Resize,
    symmetric_sides,
)

PREFIX = "detect"
# Widths of what a head adds: cut, not rounded, and at least 16 (torchvision and TensorFlow agree).
HEAD_WIDTH = Rounding(1, minimum=16, truncate=True)
TORCHVISION_MOMENTUM = 0.03  # of every batch norm of torchvision's SSDLite, trunk and head
MAX_CHANNELS = 4096


@dataclass(frozen=True)
class PriorRow:
    """Which boxes each place of a map has: scales grow evenly from `least` at the first map to `most` at the last.

    A map of scale s has squares of s and of sqrt(s * next scale), and s * (sqrt(r), 1 / sqrt(r)) with its mirror
    image for each ratio r (SSD, arXiv:1512.02325, 2.2).

    Args:
        least, most: shares of the picture's sides.
        ratios: width to height, above 1.
        reduced_first: the first map has three only: a square of 0.1, and the scale with ratios 2 and 1/2
            (TensorFlow's `reduce_boxes_in_lowest_layer`).
        squares_apart: the second square comes after the ratios (TensorFlow's order), not before them.
        in_pixels: ratios hold in pixels of a picture that is not square (TensorFlow), else in shares of sides.
        clipped: no side is longer than the picture's.
    """

    least: float = 0.2
    most: float = 0.95
    ratios: tuple[float, ...] = (2.0, 3.0)
    reduced_first: bool = False
    squares_apart: bool = False
    in_pixels: bool = False
    clipped: bool = True

    def sizes(self, maps: int, height: int, width: int) -> tuple[tuple[Size, ...], ...]:
        """(width, height) of the priors of each of `maps` maps, for a picture of this size."""
        step = (self.most - self.least) / max(maps - 1, 1)
        scales = [self.least + step * number for number in range(maps)] + [1.0]
        return tuple(
            tuple(self._shaped(size, height, width) for size in self._of_map(number, scales[number : number + 2]))
            for number in range(maps)
        )

    def count(self, number: int) -> int:
        """How many boxes each place of a map has."""
        return 3 if self.reduced_first and number == 0 else 2 + 2 * len(self.ratios)

    def _of_map(self, number: int, scales: list[float]) -> list[Size]:
        scale, following = scales
        square = [(sqrt(scale * following),) * 2]
        if self.reduced_first and number == 0:
            return [(0.1, 0.1), *_mirrored(scale, self.ratios[0])]
        ratios = [size for ratio in self.ratios for size in _mirrored(scale, ratio)]
        return [(scale, scale), *ratios, *square] if self.squares_apart else [(scale, scale), *square, *ratios]

    def _shaped(self, size: Size, height: int, width: int) -> Size:
        shorter = min(height, width)
        across, down = (shorter / width, shorter / height) if self.in_pixels else (1.0, 1.0)
        shaped = size[0] * across, size[1] * down
        return (min(shaped[0], 1.0), min(shaped[1], 1.0)) if self.clipped else shaped


def _mirrored(scale: float, ratio: float) -> list[Size]:
    long, short = scale * sqrt(ratio), scale / sqrt(ratio)
    return [(long, short), (short, long)]


class Level(NamedTuple):
    """A feature map that boxes are predicted from: its value, and how many priors each of its places has."""

    value: str
    priors: int = 1


@dataclass(frozen=True)
class Detector(Head):
    """Base of these heads."""

    task: ClassVar[str] = "detect"
    resolution: ClassVar[int] = 320

    def decoding(self, graph: Graph) -> Decoding:
        """How the outputs of a graph with this head are read, with the thresholds that are usual for it."""
        raise NotImplementedError

    def first_bias(self, output: str, places: int) -> float:  # noqa: ARG002
        """What the biases of an output's layer are before training, on a map of so many places."""
        return 0.0


@dataclass(frozen=True)
class Ssd(Detector):
    """SSD (arXiv:1512.02325), light (arXiv:1801.04381, 6.2) or not.

    Feature maps are the wide inside of the block that takes stride 16 to 32 (its input, where the block has no
    such inside: V1), the last features, with the classifier's convolution where it has one, and `extras`.

    Args:
        light: whether predictors and added maps are separable.
        kernel: of predictors that are not light.
        priors: see `PriorRow`.
        extras: channels of the added maps at width 1.
        score_threshold, iou_threshold, candidates, detections: see `Decoding`.
    """

    light: bool = False
    kernel: int = 3
    priors: PriorRow = PriorRow()
    extras: tuple[int, ...] = (512, 256, 256, 128)
    score_threshold: float = 0.001
    iou_threshold: float = 0.55
    candidates: int = 300
    detections: int = 300

    def __post_init__(self) -> None:
        if type(self.light) is not bool or not isinstance(self.priors, PriorRow):
            raise ArgumentError("head option 'light' is true or false, and 'priors' a PriorRow")
        if type(self.kernel) is not int or self.kernel not in (1, 3, 5):
            raise ArgumentError(f"head option 'kernel' is 1, 3 or 5, not {self.kernel!r}")
        sound = isinstance(self.extras, tuple) and all(
            type(n) is int and 1 <= n <= MAX_CHANNELS for n in self.extras
        )
        if not sound or len(self.extras) > 8:
            raise ArgumentError(f"head option 'extras' is up to 8 numbers of channels, not {self.extras!r}")

    def add(self, draft: Draft, table: Table, trunk: Trunk, classes: int) -> dict[str, str]:
        """See `Head.add`; raises `ArgumentError` for fewer than 2 classes or an output stride below 32."""
        _check_trunk(trunk, classes, 2, "one of which is the background")
        draft.antialias = "none"
        _follow_torchvision(draft, table)
        values = [_wide_inside(draft, trunk), _last_features(draft, table, trunk)]
        for number, channels in enumerate(self.extras):
            values.append(self._extra(draft, f"extra.{number}", HEAD_WIDTH(channels, draft.width_multiplier)))
        levels = [Level(value, self.priors.count(number)) for number, value in enumerate(values)]
        return {
            "boxes": self._predicted(draft, levels, "boxes", 4),
            "scores": self._predicted(draft, levels, "scores", classes),
        }

    def _extra(self, draft: Draft, prefix: str, channels: int) -> str:
        draft.conv(f"{prefix}.reduce", HEAD_WIDTH(channels / 2), activation="relu6")
        if self.light:
            draft.depthwise(f"{prefix}.depthwise", 3, 2, activation="relu6")
            draft.conv(f"{prefix}.expand", channels, activation="relu6")
        else:
            draft.conv(f"{prefix}.expand", channels, 3, 2, activation="relu6")
        return draft.value

    def _predicted(self, draft: Draft, levels: list[Level], output: str, columns: int) -> str:
        for number, level in enumerate(levels):
            prefix = f"{PREFIX}.{number}.{output}"
            draft.value = level.value
            if self.light:
                draft.depthwise(f"{prefix}.depthwise", 3, activation="relu6")
            _predict(draft, prefix, level.priors * columns, 1 if self.light else self.kernel)
        return _joined(draft, len(levels), output, columns)

    def decoding(self, graph: Graph) -> Decoding:
        """See `Detector.decoding`."""
        maps = feature_maps(graph)
        ((height, width, _),) = (kind.shape for kind in graph.inputs.values())
        return Decoding(
            "ssd",
            maps,
            self.priors.sizes(len(maps), height, width),
            score_threshold=self.score_threshold,
            iou_threshold=self.iou_threshold,
            candidates=self.candidates,
            detections=self.detections,
        )


@dataclass(frozen=True)
class Yolo(Detector):
    """An anchor-free head: one box a place, scores and boxes by branches of their own, on a light pyramid.

    The pyramid goes down (arXiv:1612.03144) and up again (arXiv:1803.01534) over strides 8, 16 and 32, of
    separable convolutions; branches are decoupled as YOLOX's (arXiv:2107.08430) and light as NanoDet's.

    Args:
        channels: of the pyramid and the branches at width 1.
        kernel: of the depthwise convolutions.
        depth: separable convolutions of each branch.
    """

    channels: int = 96
    kernel: int = 5
    depth: int = 2

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if type(value) is not int or not 1 <= value <= MAX_CHANNELS:
                raise ArgumentError(f"head option '{item.name}' is a whole number above 0, not {value!r}")
        if self.kernel % 2 == 0:
            raise ArgumentError(f"head option 'kernel' is odd, not {self.kernel}")

    def add(self, draft: Draft, table: Table, trunk: Trunk, classes: int) -> dict[str, str]:  # noqa: ARG002
        """See `Head.add`; raises `ArgumentError` for an output stride below 32."""
        _check_trunk(trunk, classes, 1, "at least")
        draft.antialias = "none"
        width = draft.dialect.rounding(self.channels, draft.width_multiplier)
        values = self._pyramid(draft, [trunk.last[stride] for stride in (8, 16, 32)], width)
        outputs = {}
        for output, columns in (("boxes", 4), ("scores", classes)):
            for number, value in enumerate(values):
                draft.value = value
                for layer in range(self.depth):
                    self._separable(draft, f"{PREFIX}.{number}.{output}.{layer}", width)
                _predict(draft, f"{PREFIX}.{number}.{output}", columns, 1)
            outputs[output] = _joined(draft, len(values), output, columns)
        return outputs

    def _pyramid(self, draft: Draft, taps: list[str], width: int) -> list[str]:
        values = []
        for number, tap in enumerate(taps):
            draft.value = tap
            draft.conv(f"pyramid.{number}.lateral", width, activation="relu6")
            values.append(draft.value)
        for number in (1, 0):
            name = f"pyramid.{number}.down"
            enlarged = draft.add(f"{name}.resize", Resize(method="nearest"), values[number + 1], values[number])
            draft.add(f"{name}.add", Add(), values[number], enlarged)
            values[number] = self._separable(draft, name, width)
        for number in (1, 2):
            name = f"pyramid.{number}.up"
            draft.value = values[number - 1]
            reduced = self._separable(draft, f"{name}.reduce", width, 2)
            draft.add(f"{name}.add", Add(), values[number], reduced)
            values[number] = self._separable(draft, name, width)
        return values

    def _separable(self, draft: Draft, prefix: str, width: int, stride: int = 1) -> str:
        if stride == 1:  # symmetric padding is SAME padding here
            window = {"kernel": (self.kernel,) * 2, "padding": symmetric_sides((self.kernel,) * 2)}
            draft.add(f"{prefix}.depthwise.conv", DepthwiseConv(**window))  # type: ignore[arg-type]
            draft.batch_norm(f"{prefix}.depthwise", "relu6")
        else:
            draft.depthwise(f"{prefix}.depthwise", self.kernel, stride, activation="relu6")
        draft.conv(f"{prefix}.pointwise", width, activation="relu6")
        return draft.value

    def decoding(self, graph: Graph) -> Decoding:
        """See `Detector.decoding`."""
        return Decoding(
            "yolo",
            feature_maps(graph),
            scores="sigmoid",
            background=False,
            score_threshold=0.001,
            iou_threshold=0.65,
        )

    def first_bias(self, output: str, places: int) -> float:
        """Scores start as if each map held one object of each class, sides 1.3 cells away.

        Where every place of a large map starts likelier than that (0.01 is usual: arXiv:1708.02002, 3.3), the
        first gradients are those of thousands of places at once. Adam remembers their size for a thousand steps,
        in which the few places of a rare class move next to nothing. Boxes start 21, 42 and 84 pixels wide: an
        object that is far smaller than all of them is learnt late.
        """
        return -log(places) if output == "scores" else 1.0


_TENSORFLOW = PriorRow(reduced_first=True, squares_apart=True, in_pixels=True, clipped=False)


@dataclass(frozen=True)
class SsdLite(Ssd):
    """torchvision 0.28.0's SSDLite."""

    light: bool = True


@dataclass(frozen=True)
class TensorflowSsd(Ssd):
    """SSD as the TensorFlow detection API has it (ssd_mobilenet_v1_coco): 1x1 predictors, 1917 priors at 300."""

    resolution: ClassVar[int] = 300
    kernel: int = 1
    priors: PriorRow = _TENSORFLOW
    score_threshold: float = 1e-8
    iou_threshold: float = 0.6
    candidates: int = 100
    detections: int = 100


@dataclass(frozen=True)
class TensorflowSsdLite(TensorflowSsd):
    """SSDLite as the TensorFlow detection API has it (ssdlite_mobilenet_v2_coco)."""

    light: bool = True
    kernel: int = 3


HEADS: dict[str, type[Head]] = {
    "ssdlite_tf": TensorflowSsdLite,  # before the names that they begin with
    "ssd_tf": TensorflowSsd,
    "ssdlite": SsdLite,
    "ssd": Ssd,
    "yolo": Yolo,
}


NAMED: dict[str, tuple[str, str]] = {
    "ssdlite320_mobilenet_v3_large": ("ssdlite", "torchvision/mobilenet_v3_large_reduced_tail"),
    "ssdlite320_mobilenet_v3_small": ("ssdlite", "torchvision/mobilenet_v3_small_reduced_tail"),
    "ssd300_mobilenet_v1": ("ssd_tf", "slim/mobilenet_v1"),
    "ssdlite300_mobilenet_v2": ("ssdlite_tf", "slim/mobilenet_v2"),
}
"""Detectors that are known by a name of their own: head and network. All take pixels as -1 to 1."""


def with_first_biases(head: Detector, graph: Graph, weights: Weights) -> Weights:
    """Initial weights with the biases of the predictors as the head wants them before training."""
    biased = dict(weights)
    for number, (rows, columns) in enumerate(feature_maps(graph)):
        for output in ("boxes", "scores"):
            name = f"{PREFIX}.{number}.{output}.predict.bias"
            biased[name] = np.full_like(weights[name], head.first_bias(output, rows * columns))
    return biased


def _check_trunk(trunk: Trunk, classes: int, least: int, why: str) -> None:
    if 32 not in trunk.first:
        raise ArgumentError(
            "a detector needs output_stride 32: its maps begin at stride 8 or 16 and go on from 32"
        )
    if classes < least:
        raise ArgumentError(f"classes {classes}: this head needs {least}, {why}")


def _follow_torchvision(draft: Draft, table: Table) -> None:
    """torchvision's SSDLite gives all batch norms, of the network below too, a momentum of its own."""
    if draft.dialect != DIALECTS[table.family].get("torchvision"):
        return
    draft.dialect = replace(draft.dialect, momentum=TORCHVISION_MOMENTUM)
    for place, node in enumerate(draft.nodes):
        if isinstance(node.operator, BatchNorm):
            operator = replace(node.operator, momentum=TORCHVISION_MOMENTUM)
            draft.nodes[place] = replace(node, operator=operator)


def _wide_inside(draft: Draft, trunk: Trunk) -> str:
    """What the first block of stride 32 expands to, if that is still at stride 16; else the last value at 16."""
    if trunk.wide is not None:
        return trunk.wide
    before = trunk.last[16]
    block = ".".join(trunk.first[32].split(".")[:2])
    wide = f"{block}.expand.batch_norm"
    same_size = wide in draft.shapes and draft.shapes[wide][:2] == draft.shapes[before][:2]
    return wide if same_size else before


def _last_features(draft: Draft, table: Table, trunk: Trunk) -> str:
    """What the classifier would take the mean of: the last block's value, or the convolutions' that follow it."""
    if trunk.features is not None:
        draft.value = trunk.features
        return trunk.features
    draft.value, nominal = trunk.last[max(trunk.last)], trunk.nominal
    for row in table.head:
        if not isinstance(row, ConvRow):
            break
        add_block(draft, row, Place(f"head.{row.name}" if row.name else "head", nominal))
        nominal = row.out or nominal
    return draft.value


def _predict(draft: Draft, prefix: str, columns: int, kernel: int) -> None:
    window = {"kernel": (kernel, kernel), "padding": symmetric_sides((kernel, kernel))}
    predictor = Conv(**window, out_channels=columns, bias=True)  # type: ignore[arg-type]
    draft.add(f"{prefix}.predict", predictor)
    draft.add(f"{prefix}.flatten", Reshape((-1,)))


def _joined(draft: Draft, levels: int, output: str, columns: int) -> str:
    draft.add(f"{PREFIX}.{output}.join", Concat(), *(f"{PREFIX}.{n}.{output}.flatten" for n in range(levels)))
    return draft.add(f"{PREFIX}.{output}", Reshape((-1, columns)))

"""What a detector's raw outputs mean: where its priors are, how boxes and scores are read, what is thrown away.

A `Decoding` travels in the model file. Priors are a pure function of it: every place (row y, column x) of every
feature map has one box for each of the map's sizes, centred at ((x + 0.5) / columns, (y + 0.5) / rows). The order
of priors is map, row, column, size, which is the order of the rows of the outputs "boxes" and "scores".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenet.errors import ArgumentError, GraphError, ModelFileError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mobilenet.graph.graph import Graph

KINDS = ("ssd", "yolo")
SCORES = ("softmax", "sigmoid")
MAX_MAPS, MAX_SIDE, MAX_SIZES, MAX_PRIORS, MAX_KEPT = 16, 4096, 64, 2**20, 2**16
OUTPUTS = ("boxes", "scores")

Size = tuple[float, float]


@dataclass(frozen=True)
class Decoding:
    """From raw outputs to boxes; `tasks.detect` gives the arithmetic.

    Args:
        kind: "ssd": a row of "boxes" is (dx, dy, dw, dh) relative to a prior; "yolo": (left, top, right, bottom),
            the softplus of which is the distance of a side from a place's centre, in cells of its map.
        maps: (rows, columns) of each feature map.
        sizes: for each map the (width, height) of its priors, as shares of the picture's width and height; empty
            for "yolo", whose one prior is the cell.
        scores: how "scores" become probabilities: "softmax" over a row, or "sigmoid" of each.
        background: whether column 0 of "scores" is "nothing there"; class 0 is then column 1.
        variances: of "ssd": what dx, dy, dw and dh are multiplied by.
        score_threshold: a probability must be above it.
        iou_threshold: of two boxes of a class that overlap by more, the less probable one goes.
        candidates: how many boxes of a class are looked at, at most, the most probable ones.
        detections: how many are kept of a picture, at most.
        agnostic: boxes suppress those of other classes, too.

    Raises:
        ArgumentError: a value is not one that is accepted; it is named.
    """

    kind: str
    maps: tuple[tuple[int, int], ...]
    sizes: tuple[tuple[Size, ...], ...] = ()
    scores: str = "softmax"
    background: bool = True
    variances: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)
    score_threshold: float = 0.001
    iou_threshold: float = 0.55
    candidates: int = 300
    detections: int = 300
    agnostic: bool = False

    def __post_init__(self) -> None:
        _choice("kind", self.kind, KINDS)
        _choice("scores", self.scores, SCORES)
        for name in ("background", "agnostic"):
            if type(getattr(self, name)) is not bool:
                raise ArgumentError(f"decoding: {name} is true or false, not {getattr(self, name)!r}")
        for name in ("score_threshold", "iou_threshold"):
            object.__setattr__(self, name, _number(name, getattr(self, name), 0, 1))
        for name in ("candidates", "detections"):
            _whole(name, getattr(self, name), MAX_KEPT)
        object.__setattr__(self, "variances", _numbers("variances", self.variances, 4))
        object.__setattr__(self, "maps", _maps(self.maps))
        object.__setattr__(self, "sizes", _sizes(self.sizes))
        if len(self.sizes) != (len(self.maps) if self.kind == "ssd" else 0):
            raise ArgumentError(f"decoding: {len(self.sizes)} lists of sizes do not fit {len(self.maps)} maps")
        if self.prior_count > MAX_PRIORS:
            raise ArgumentError(f"decoding: {self.prior_count} priors; at most {MAX_PRIORS} are accepted")

    @property
    def prior_count(self) -> int:
        """How many rows the outputs have."""
        sizes = [len(sizes) for sizes in self.sizes] or [1] * len(self.maps)
        return sum(rows * columns * count for (rows, columns), count in zip(self.maps, sizes, strict=True))

    @cached_property
    def priors(self) -> NDArray[np.float64]:
        """(centre x, centre y, width, height) of every prior as shares of the input's sides: [A, 4]; read-only."""
        priors = np.concatenate([_grid(shape, sizes) for shape, sizes in self._places()])
        priors.setflags(write=False)
        return priors

    def _places(self) -> list[tuple[tuple[int, int], tuple[Size, ...]]]:
        sizes = self.sizes or tuple(((1 / columns, 1 / rows),) for rows, columns in self.maps)
        return list(zip(self.maps, sizes, strict=True))

    def classes(self, columns: int) -> int:
        """How many classes `columns` of "scores" stand for."""
        return columns - self.background

    def fitted(self, graph: Graph) -> Decoding:
        """The same for the network at another size: the maps are read from the graph.

        Raises:
            GraphError: the graph's output "boxes" is not joined from feature maps.
        """
        return replace(self, maps=feature_maps(graph))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` reads it back."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values["maps"] = [list(shape) for shape in self.maps]
        values["sizes"] = [[list(size) for size in sizes] for sizes in self.sizes]
        values["variances"] = list(self.variances)
        return values

    @classmethod
    def from_dict(cls, values: Any) -> Decoding:
        """What `to_dict` wrote.

        Raises:
            ModelFileError: a field is unknown, missing, of a wrong type or out of range; it is named.
        """
        known = {item.name for item in fields(cls)}
        if not isinstance(values, Mapping):
            raise ModelFileError(f"decoding is a table of fields, not {type(values).__name__}")
        for name in sorted(map(str, values.keys() - known)):
            raise ModelFileError(f"decoding has the unknown field '{name}'; known: {', '.join(sorted(known))}")
        for name in sorted(known - values.keys()):
            raise ModelFileError(f"decoding lacks the field '{name}'")
        try:
            return cls(**values)
        except ArgumentError as error:
            raise ModelFileError(str(error)) from error


def feature_maps(graph: Graph) -> tuple[tuple[int, int], ...]:
    """(rows, columns) of the feature maps that the output "boxes" is joined from, in the order of its rows.

    Raises:
        GraphError: there is no such output, or it is no reshaped concatenation of flat pictures.
    """
    from mobilenet.graph.ops import Concat, Reshape  # here, because reading a model file does not need it

    if "boxes" not in graph.outputs:
        raise GraphError(f"the graph has no output 'boxes'; it has {', '.join(graph.outputs)}")
    name = graph.outputs["boxes"]
    while not isinstance((node := graph.node(name)).operator, Concat):  # `node` raises at the graph's input
        name = node.inputs[0]
    maps = []
    for name in node.inputs:
        while not (isinstance((part := graph.node(name)).operator, Reshape)):
            name = part.inputs[0]
        shape = graph.types[part.inputs[0]].shape
        if len(shape) != 3:
            raise GraphError(f"node '{part.name}' of output 'boxes' reads {shape}, which is no picture")
        maps.append((shape[0], shape[1]))
    return tuple(maps)


def check_decoding(
    decoding: Decoding | None, task: str, outputs: Mapping[str, tuple[int, ...]], labels: Sequence[str] = ()
) -> None:
    """Raises `ModelFileError` if a detector's outputs (name -> shape), decoding and labels do not fit together."""
    if (decoding is not None) != (task == "detect"):
        what = "has no decoding" if decoding is None else "has a decoding"
        raise ModelFileError(f"a model of task '{task}' {what}")
    if decoding is None:
        return
    for name in OUTPUTS:
        shape = outputs.get(name)
        if shape is None or len(shape) != 2 or shape[0] != decoding.prior_count:
            raise ModelFileError(f"output '{name}' is {shape}, but the decoding has {decoding.prior_count} priors")
    classes = decoding.classes(outputs["scores"][1])
    if outputs["boxes"][1] != 4 or classes < 1:
        shapes = f"'boxes' {outputs['boxes']} and 'scores' {outputs['scores']}"
        raise ModelFileError(f"outputs {shapes} are no detector's")
    if labels and len(labels) != classes:
        raise ModelFileError(f"{len(labels)} labels do not name the {classes} classes of 'scores'")


def _grid(shape: tuple[int, int], sizes: tuple[Size, ...]) -> NDArray[np.float64]:
    rows, columns = shape
    grid = np.empty((rows, columns, len(sizes), 4))
    grid[..., 0] = ((np.arange(columns) + 0.5) / columns)[None, :, None]
    grid[..., 1] = ((np.arange(rows) + 0.5) / rows)[:, None, None]
    grid[..., 2:] = np.array(sizes)
    return grid.reshape(-1, 4)


def _choice(name: str, value: object, accepted: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in accepted:
        raise ArgumentError(f"decoding: {name} is one of {', '.join(accepted)}, not {value!r}")


def _number(name: str, value: object, low: float, high: float) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not isfinite(value)
        or not low <= value <= high
    ):
        raise ArgumentError(f"decoding: {name} is a number from {low:g} to {high:g}, not {value!r}")
    return float(value)


def _whole(name: str, value: object, most: int) -> int:
    if type(value) is not int or not 1 <= value <= most:
        raise ArgumentError(f"decoding: {name} is a whole number from 1 to {most}, not {value!r}")
    return value


def _list(name: str, values: object, most: int) -> tuple[Any, ...]:
    if not isinstance(values, list | tuple) or len(values) > most:
        raise ArgumentError(f"decoding: {name} is a list of at most {most}, not {values!r:.60}")
    return tuple(values)


def _numbers(name: str, values: object, count: int) -> tuple[float, ...]:
    found = tuple(_number(name, value, 1e-6, 100) for value in _list(name, values, count))
    if len(found) != count:
        raise ArgumentError(f"decoding: {name} is {count} numbers, not {values!r:.60}")
    return found


def _maps(values: object) -> tuple[tuple[int, int], ...]:
    maps = []
    for shape in _list("maps", values, MAX_MAPS):
        sides = [_whole("maps", side, MAX_SIDE) for side in _list("maps", shape, 2)]
        if len(sides) != 2:
            raise ArgumentError(f"decoding: a map is (rows, columns), not {shape!r:.60}")
        maps.append((sides[0], sides[1]))
    if not maps:
        raise ArgumentError("decoding: maps is empty")
    return tuple(maps)


def _sizes(values: object) -> tuple[tuple[Size, ...], ...]:
    sizes = []
    for number, of_map in enumerate(_list("sizes", values, MAX_MAPS)):
        pairs = [_numbers("sizes", size, 2) for size in _list("sizes", of_map, MAX_SIZES)]
        if not pairs:
            raise ArgumentError(f"decoding: map {number} has no sizes")
        sizes.append(tuple((width, height) for width, height in pairs))
    return tuple(sizes)

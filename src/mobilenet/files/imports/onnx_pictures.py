"""Resize and ArgMax of an ONNX file: what a segmenter ends in, and a detector's pyramid is joined by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from mobilenet.errors import ModelFileError, UnsupportedOperatorError
from mobilenet.files.imports.onnx_graph import Conversion, Value, attributes, title
from mobilenet.files.imports.onnx_shapes import onnx_shape
from mobilenet.graph import ops

MAX_SIDE, POSITION = 2**16, "coordinate_transformation_mode"
# Which of our rules a rule of ONNX is: (align_corners, half_pixel_centers).
_POSITIONS = {
    "half_pixel": (False, True),
    "pytorch_half_pixel": (False, True),
    "align_corners": (True, False),
    "asymmetric": (False, False),
}
_ROUNDED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda places: np.ceil(places - 0.5),
    "round_prefer_ceil": lambda places: np.floor(places + 0.5),
}


def resize(conversion: Conversion, node: Any) -> None:
    """Resize of height and width, linear or to the nearest neighbour, to constant sizes or by constant factors."""
    value, given = conversion.picture(node), attributes(node)
    size = _size(conversion, node, value)
    old = len(node.input) == 2  # opset 10: no rule but this one, and factors in the place of the region
    position = "asymmetric" if old else given.get(POSITION, "half_pixel")
    mode = given.get("mode", "nearest")
    if position not in _POSITIONS or mode not in ("linear", "nearest") or given.get("antialias", 0):
        raise UnsupportedOperatorError(f"{title(node)} is '{mode}' at '{position}' places, which is not read")
    if position == "pytorch_half_pixel" and 1 in size and value.shape[:2] != size:
        raise UnsupportedOperatorError(f"{title(node)} makes one pixel by a rule of its own")
    corners, centres = _POSITIONS[position]
    if mode == "nearest":
        rounding = "floor" if old else given.get("nearest_mode", "round_prefer_floor")
        corners, centres = _nearest(node, position, rounding, value.shape, size)
    method = "nearest" if mode == "nearest" else "bilinear"
    operator = ops.Resize(size, method, align_corners=corners, half_pixel_centers=centres)
    conversion.write(node, conversion.add(node, operator, value, first=True))


def _size(conversion: Conversion, node: Any, value: Value) -> ops.Pair:
    """(height, width) of the result."""
    before, rank = onnx_shape(value), len(value.shape) + 1
    axes = [axis % rank for axis in attributes(node).get("axes") or range(rank)]
    sizes = conversion.constant(node.input[3]) if len(node.input) > 3 and node.input[3] else None
    place = 1 if len(node.input) == 2 else 2
    factors = conversion.constant(node.input[place]) if len(node.input) > place and node.input[place] else None
    if sizes is not None and sizes.size:
        wanted = [float(size) for size in sizes.ravel()]
    elif factors is not None and factors.size == len(axes) and np.isfinite(factors).all():
        wanted = [_scaled(node, before[axis], f) for axis, f in zip(axes, factors.ravel(), strict=True)]
    else:
        raise UnsupportedOperatorError(f"{title(node)} computes its size, which must be a constant")
    after = dict(zip(axes, wanted, strict=False))
    if len(wanted) != len(axes) or attributes(node).get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise UnsupportedOperatorError(
            f"{title(node)} has {len(wanted)} sizes for {len(axes)} axes, or keeps ratios"
        )
    if any(after.get(axis, size) not in (size, conversion.batch) for axis, size in enumerate(before[:2])):
        raise UnsupportedOperatorError(f"{title(node)} resizes the batch or the channels: {wanted}")
    height, width = (after.get(axis, before[axis]) for axis in (2, 3))
    if not 1 <= min(height, width) <= max(height, width) <= MAX_SIDE:
        raise ModelFileError(f"{title(node)} makes {wanted} of {before}")
    return int(height), int(width)


def _scaled(node: Any, size: int, factor: np.float32) -> float:
    """A size times a factor; with a rest left over, pixels would lie elsewhere than the sizes say."""
    scaled = np.float32(size) * factor
    if not abs(scaled - np.rint(scaled)) < 1e-3 and attributes(node).get(POSITION) != "align_corners":
        raise UnsupportedOperatorError(
            f"{title(node)} has the factor {factor:g} for {size} pixels, which leaves a rest"
        )
    return float(np.rint(scaled) if abs(scaled - np.rint(scaled)) < 1e-3 else np.floor(scaled))


def _nearest(node: Any, position: str, rounding: str, shape: ops.Shape, size: ops.Pair) -> tuple[bool, bool]:
    """The rule of ours (align_corners, half_pixel_centers) that takes the same pixels as ONNX's at these sizes."""
    sides = tuple(zip(shape, size, strict=False))
    if rounding in _ROUNDED:
        wanted = [_places(before, after, position, rounding) for before, after in sides]
        ours = {"half_pixel": "round_prefer_ceil", "align_corners": "round_prefer_ceil", "asymmetric": "floor"}
        for rule in (position if position in ours else "half_pixel", *ours):
            found = [_places(before, after, rule, ours[rule]) for before, after in sides]
            if all(np.array_equal(a, b) for a, b in zip(wanted, found, strict=True)):
                return _POSITIONS[rule]
    raise UnsupportedOperatorError(f"{title(node)} takes nearest neighbours by '{position}' and '{rounding}'")


def _places(before: int, after: int, position: str, rounding: str) -> np.ndarray:
    """Which of `before` pixels each of `after` ones takes."""
    target = np.arange(after, dtype=np.float64)
    if position == "align_corners":
        places = target * (before - 1) / max(after - 1, 1)
    else:
        places = (
            target * before / after if position == "asymmetric" else (2 * target + 1) * before / (2 * after) - 0.5
        )
    return np.asarray(np.clip(_ROUNDED[rounding](places), 0, before - 1))


def argmax(conversion: Conversion, node: Any) -> None:
    """ArgMax over the channels, the lowest of equal ones."""
    value, given = conversion.value(node), attributes(node)
    rank = 1 + len(value.shape)
    axis = given.get("axis", 0) % rank
    if axis != (1 if value.first else rank - 1) or given.get("select_last_index", 0) or given.get("keepdims", 1):
        raise UnsupportedOperatorError(
            f"{title(node)} is along axis {axis}, keeps that axis, or takes the last of equal ones; only the "
            "first along the channels is read"
        )
    made = conversion.add(node, ops.ArgMax(), value)
    conversion.nodes[made.name] = replace(conversion.nodes[made.name], dtype="int64")
    conversion.write(node, made)

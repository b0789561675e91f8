"""Numbers that lie half-way between two integers, where runtimes do not round alike.

A gate is relu6(x + 3) / 6, and its scale is often 1/255: there x = 0 gives 127.5 quanta. The reference counts that
in float64 and rounds to even; a runtime that counts in float32 or in fixed point falls to one side or the other,
and a whole channel of a picture with it. The constant 3 can move a little, so that no integer lies on the edge any
more and all runtimes give the reference's table.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from mobilenet.graph.graph import Quantisation, TensorType

FIXED_BITS = 20  # of the larger scale of an integer sum
SLOPES = {"hard_sigmoid": 1 / 6, "hard_sigmoid_slim": 0.16667}  # of relu6(x + 3); the second is TF-slim's constant
MOST = 8e-6  # of the constant: readers of such files accept as much, and it is 1/3000 of a quantum of 6/255


def gate_offset(read: TensorType, made: TensorType, slope: float) -> float:
    """The constant c for which relu6(x + c) * slope, rounded, is what the reference has for c = 3.

    Args:
        read, made: the types of x and of the result.
        slope: 1/6, or what stands for it.

    Returns:
        3 for floats and where nothing is near an edge; otherwise a number within `MOST` of it.
    """
    if read.quantisation is None or made.quantisation is None:
        return 3.0
    quanta, target = np.iinfo(read.dtype), np.iinfo(made.dtype)
    stored = np.arange(quanta.min, quanta.max + 1)
    shifted = np.float64(np.float32(read.quantisation.scale)) * (stored - read.quantisation.zero_point) + 3
    steps = np.clip(shifted, 0, 6) * slope / np.float64(np.float32(made.quantisation.scale))
    nearest = np.rint(steps)
    written = nearest + made.quantisation.zero_point
    moves = (shifted > -MOST) & (shifted < 6 + MOST) & (written >= target.min) & (written <= target.max)
    if not moves.any():
        return 3.0
    rest = (steps - nearest)[moves]
    lowest, highest = (
        -0.5 - rest.min(),
        0.5 - rest.max(),
    )  # how far all may move, in quanta, and stay what they are
    quantum = float(np.float32(made.quantisation.scale)) / slope
    return 3.0 + float(np.clip((lowest + highest) / 2 * quantum, -MOST, MOST))


def exact_summands(kinds: list[TensorType], made: Quantisation) -> list[Quantisation]:
    """The scales that the inputs of an integer sum have in fixed point (`reference_integer`, rule 6).

    They differ from the inputs' own by less than a millionth, but where a sum lies that near to half a quantum,
    the next layers would make more of it.
    """
    output, given = np.float32(made.scale), [_quantisation(kind) for kind in kinds]
    ratios = [np.float32(kind.scale) / output for kind in given]
    shift = FIXED_BITS - math.frexp(max(ratios))[1] + 1
    found = []
    for kind, ratio in zip(given, ratios, strict=True):
        scale = math.ldexp(float(np.rint(math.ldexp(float(ratio), shift))), -shift) * float(output)
        found.append(replace(kind, scale=scale) if scale > 0 else kind)
    return found


def clear_factor(first: TensorType, second: TensorType, made: TensorType) -> Quantisation:
    """A scale for the first factor of an integer product, at most 16 units of float32's last place from its own.

    The one that keeps all products of two stored integers, rounded as the reference does, furthest from the edge:
    onnxruntime adds the zero point before it rounds, and loses some digits by that.
    """
    one, other, result = map(_quantisation, (first, second, made))
    scales = [np.float32(kind.scale) for kind in (one, other, result)]
    products = np.unique(np.multiply.outer(_centred(first), _centred(second)))
    expected = np.rint(products.astype(np.float32) * (scales[0] * scales[1] / scales[2]))
    limits = np.iinfo(made.dtype)
    inside = (expected + result.zero_point >= limits.min) & (expected + result.zero_point <= limits.max)
    products, expected = products[inside].astype(np.float64), expected[inside]

    def scale(units: int) -> float:
        return float(scales[0]) + units * float(np.spacing(scales[0]))

    def furthest(units: int) -> float:
        away = np.abs(products * (scale(units) * float(scales[1]) / float(scales[2])) - expected)
        return float(away.max(initial=0))

    return replace(one, scale=scale(min(sorted(range(-16, 17), key=abs), key=furthest)))


def _quantisation(kind: TensorType) -> Quantisation:
    assert kind.quantisation is not None
    return kind.quantisation


def _centred(kind: TensorType) -> np.ndarray:
    limits = np.iinfo(kind.dtype)
    return np.arange(limits.min, limits.max + 1) - _quantisation(kind).zero_point

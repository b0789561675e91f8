"""The closed set of operators that a MobileNet and its heads need, one small class each.

An operator knows its fields, its shape rule, its parameters and its multiply-accumulates. Shapes have no batch
dimension; pictures are (height, width, channels). Cost, memory, folding, fusion, quantisation and every export
read these same classes. What an operator computes, in float and in integers, is defined by `run/reference.py`.
"""

from __future__ import annotations

import types
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, replace
from math import isfinite, prod
from typing import Any, ClassVar, Self, Union, get_args, get_origin, get_type_hints

from mobilenet.errors import GraphError

Shape = tuple[int, ...]
Pair = tuple[int, int]
Sides = tuple[int, int, int, int]  # top, bottom, left, right

# hard_sigmoid is relu6(x + 3) / 6 and hard_swish is x * hard_sigmoid(x). TF-slim's checkpoints were trained with
# the constant 0.16667 in place of 1 / 6, which is kept apart because exactness needs it.
ACTIVATIONS = (
    "none",
    "relu",
    "relu6",
    "hard_swish",
    "hard_sigmoid",
    "hard_sigmoid_slim",
    "sigmoid",
    "prelu",
    "gelu",
)
INTEGER_DTYPES = ("int8", "uint8")
MAX_ELEMENTS = 2**31  # of one value: far above any real net, low enough to refuse a hostile file early
MAX_FIELD = 2**20  # of one size, stride or padding


@dataclass(frozen=True)
class Parameter:
    """What a graph expects of one weight tensor: its shape, the dtypes that are accepted, if it is learnt.

    With `or_single`, a tensor of shape (1,), one value for all channels, is accepted too.
    """

    shape: Shape
    dtypes: tuple[str, ...] = ("float32",)
    trainable: bool = True
    or_single: bool = False


@dataclass(frozen=True)
class Operator:
    """Base of all operators. A subclass is a frozen dataclass of typed fields and is registered by `kind`."""

    kind: ClassVar[str] = ""
    inputs: ClassVar[tuple[int, int]] = (1, 1)  # how many, at least and at most

    def __post_init__(self) -> None:
        for name, (hint, _) in field_types(type(self)).items():
            if not _fits(getattr(self, name), hint):
                raise GraphError(f"field '{name}' is {getattr(self, name)!r}, which is no {hint}")
        self.check()

    def check(self) -> None:
        """Raises `GraphError` if the fields do not fit together."""
        activation = getattr(self, "activation", "none")
        if activation not in ACTIVATIONS:
            raise GraphError(f"unknown activation '{activation}'; accepted are {', '.join(ACTIVATIONS)}")

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        """The shape of the output, given those of the inputs; raises `GraphError` if they do not fit."""
        raise NotImplementedError

    def parameters(self, inputs: Sequence[Shape]) -> dict[str, Parameter]:
        """The float parameters by name, given the shapes of the inputs."""
        return self._alpha(inputs)

    def macs(self, inputs: Sequence[Shape], output: Shape) -> int:  # noqa: ARG002
        """Multiply-accumulates of one picture, as the papers count: convolutions, dense layers, matmuls."""
        return 0

    def to_dict(self) -> dict[str, Any]:
        """The fields that differ from their defaults, JSON-able, with `kind` first."""
        changed = {f.name: getattr(self, f.name) for f in fields(self)}
        defaults = {f.name: f.default for f in fields(self)}
        kept = {k: _plain(v) for k, v in changed.items() if defaults[k] is MISSING or v != defaults[k]}
        return {"kind": self.kind, **kept}

    def _alpha(self, inputs: Sequence[Shape]) -> dict[str, Parameter]:
        if getattr(self, "activation", "none") != "prelu":
            return {}
        return {"alpha": Parameter((self.output_shape(inputs)[-1],))}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def field_types(kind: type[Operator]) -> dict[str, tuple[Any, bool]]:
    """The fields of an operator class: name -> (type hint, whether it must be given)."""
    if kind not in _field_types:  # resolving the hints takes longer than running a small layer
        hints = get_type_hints(kind)
        _field_types[kind] = {f.name: (hints[f.name], f.default is MISSING) for f in fields(kind)}
    return _field_types[kind]


_field_types: dict[type[Operator], dict[str, tuple[Any, bool]]] = {}


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and _tuple_fits(value, get_args(hint))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_FIELD
    return isinstance(value, hint)


def _tuple_fits(value: tuple[Any, ...], options: tuple[Any, ...]) -> bool:
    if len(options) == 2 and options[1] is Ellipsis:
        return len(value) <= 8 and all(_fits(v, options[0]) for v in value)
    return len(value) == len(options) and all(map(_fits, value, options))


def _spatial(shape: Shape) -> Shape:
    if len(shape) != 3:
        raise GraphError(f"needs an input of (height, width, channels), not {shape}")
    return shape


def same_sides(size: Pair, kernel: Pair, stride: Pair, dilation: Pair) -> Sides:
    """TensorFlow's "SAME" padding as numbers: the smaller half goes to the top and the left."""
    sides: list[int] = []
    for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        sides += [total // 2, total - total // 2]
    return (sides[0], sides[1], sides[2], sides[3])


def symmetric_sides(kernel: Pair, dilation: Pair = (1, 1)) -> Sides:
    """torch's habit: (k - 1) / 2 on every side, times the dilation, whatever the stride."""
    vertical, horizontal = ((k - 1) // 2 * d for k, d in zip(kernel, dilation, strict=True))
    return (vertical, vertical, horizontal, horizontal)


@dataclass(frozen=True)
class Window(Operator):
    """What slides over a picture. `same` records that `padding` follows the SAME rule if the size changes."""

    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: Sides = (0, 0, 0, 0)
    same: bool = False

    def check(self) -> None:
        super().check()
        for name in ("kernel", "stride", "dilation"):
            if min(getattr(self, name)) < 1:
                raise GraphError(f"{name} {getattr(self, name)} must be at least 1")
        if min(self.padding) < 0:
            raise GraphError(f"padding {self.padding} must not be negative")

    def window_shape(self, shape: Shape, channels: int) -> Shape:
        """(height, width, channels) of the output."""
        height, width, _ = _spatial(shape)
        if self.same and self.padding != self.same_sides(shape):
            raise GraphError(f"padding {self.padding} is not SAME for an input of {shape}")
        top, bottom, left, right = self.padding
        out = []
        for n, k, s, d in (
            (height + top + bottom, self.kernel[0], self.stride[0], self.dilation[0]),
            (width + left + right, self.kernel[1], self.stride[1], self.dilation[1]),
        ):
            if n < (k - 1) * d + 1:
                raise GraphError(f"kernel {self.kernel} is larger than the padded input of {shape}")
            out.append((n - (k - 1) * d - 1) // s + 1)
        return (out[0], out[1], channels)

    def same_sides(self, shape: Shape) -> Sides:
        """SAME padding for an input of this shape."""
        return same_sides((shape[0], shape[1]), self.kernel, self.stride, self.dilation)

    def fitted(self, shape: Shape) -> Self:
        """This operator for an input of another size: SAME padding is counted anew, explicit padding stays."""
        return replace(self, padding=self.same_sides(shape)) if self.same and len(shape) == 3 else self


@dataclass(frozen=True)
class Conv(Window):
    """Convolution. Parameters: weight (out, kernel height, kernel width, in), bias (out)."""

    kind: ClassVar[str] = "conv"
    out_channels: int = 1
    bias: bool = False
    activation: str = "none"

    def check(self) -> None:
        super().check()
        if self.out_channels < 1:
            raise GraphError(f"out_channels {self.out_channels} must be at least 1")

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        return self.window_shape(inputs[0], self.out_channels)

    def parameters(self, inputs: Sequence[Shape]) -> dict[str, Parameter]:
        weight = Parameter((self.out_channels, *self.kernel, _spatial(inputs[0])[2]))
        return {"weight": weight, **_bias(self.bias, self.out_channels), **self._alpha(inputs)}

    def macs(self, inputs: Sequence[Shape], output: Shape) -> int:
        return prod(output) * prod(self.kernel) * inputs[0][2]


@dataclass(frozen=True)
class DepthwiseConv(Window):
    """One filter per channel. Parameters: weight (kernel height, kernel width, channels * multiplier), bias.

    Output channel c * multiplier + m is filter m of input channel c.
    """

    kind: ClassVar[str] = "depthwise_conv"
    multiplier: int = 1
    bias: bool = False
    activation: str = "none"

    def check(self) -> None:
        super().check()
        if self.multiplier < 1:
            raise GraphError(f"multiplier {self.multiplier} must be at least 1")

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        return self.window_shape(inputs[0], _spatial(inputs[0])[2] * self.multiplier)

    def parameters(self, inputs: Sequence[Shape]) -> dict[str, Parameter]:
        channels = _spatial(inputs[0])[2] * self.multiplier
        weight = Parameter((*self.kernel, channels))
        return {"weight": weight, **_bias(self.bias, channels), **self._alpha(inputs)}

    def macs(self, inputs: Sequence[Shape], output: Shape) -> int:  # noqa: ARG002
        return prod(output) * prod(self.kernel)


@dataclass(frozen=True)
class Dense(Operator):
    """Fully connected over the last axis. Parameters: weight (out, in), bias (out).

    `dropout` is the probability with which training zeroes an input; it does nothing otherwise.
    """

    kind: ClassVar[str] = "dense"
    out_features: int = 1
    bias: bool = True
    activation: str = "none"
    dropout: float = 0.0

    def check(self) -> None:
        super().check()
        if self.out_features < 1:
            raise GraphError(f"out_features {self.out_features} must be at least 1")
        _check_probability("dropout", self.dropout)

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        if not inputs[0]:
            raise GraphError("needs an input with at least one axis")
        return (*inputs[0][:-1], self.out_features)

    def parameters(self, inputs: Sequence[Shape]) -> dict[str, Parameter]:
        weight = Parameter((self.out_features, inputs[0][-1]))
        return {"weight": weight, **_bias(self.bias, self.out_features), **self._alpha(inputs)}

    def macs(self, inputs: Sequence[Shape], output: Shape) -> int:
        return prod(output) * inputs[0][-1]


def _bias(present: bool, channels: int) -> dict[str, Parameter]:
    return {"bias": Parameter((channels,))} if present else {}


def _check_probability(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise GraphError(f"{name} {value} must be at least 0 and below 1")


@dataclass(frozen=True)
class Unary(Operator):
    """Base of what leaves the shape as it is."""

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        return inputs[0]


@dataclass(frozen=True)
class BatchNorm(Unary):
    """Normalisation by batch statistics. Parameters, all (channels): gamma, beta, mean, variance.

    `momentum` is the share of the new batch in the running statistics (torch's meaning, 1 - TensorFlow's).
    """

    kind: ClassVar[str] = "batch_norm"
    epsilon: float = 1e-5
    momentum: float = 0.1
    activation: str = "none"

    def check(self) -> None:
        super().check()
        if self.epsilon <= 0 or not 0 <= self.momentum <= 1:
            raise GraphError(f"epsilon {self.epsilon} must be above 0, momentum {self.momentum} within 0..1")

    def parameters(self, inputs: Sequence[Shape]) -> dict[str, Parameter]:
        shape = inputs[0][-1:]
        learnt = {name: Parameter(shape) for name in ("gamma", "beta")}
        statistics = {name: Parameter(shape, trainable=False) for name in ("mean", "variance")}
        return {**learnt, **statistics, **self._alpha(inputs)}


@dataclass(frozen=True)
class Activation(Unary):
    """An activation that follows no operator that could carry it as a field."""

    kind: ClassVar[str] = "activation"
    activation: str = "relu"


@dataclass(frozen=True)
class Add(Operator):
    """Sum of two values of the same shape.

    `drop_path` is the probability with which training leaves out the second input (stochastic depth).
    """

    kind: ClassVar[str] = "add"
    inputs: ClassVar[tuple[int, int]] = (2, 2)
    activation: str = "none"
    drop_path: float = 0.0

    def check(self) -> None:
        super().check()
        _check_probability("drop_path", self.drop_path)

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        if inputs[0] != inputs[1]:
            raise GraphError(f"inputs of {inputs[0]} and {inputs[1]} cannot be added")
        return inputs[0]


@dataclass(frozen=True)
class Mul(Operator):
    """Product with a second input that is of the same shape or 1 along an axis (a squeeze-excite gate).

    With `constant`, product with a parameter weight (channels) instead (layer scale).
    """

    kind: ClassVar[str] = "mul"
    inputs: ClassVar[tuple[int, int]] = (1, 2)
    constant: bool = False
    activation: str = "none"

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        if len(inputs) != 2 - self.constant:
            raise GraphError(f"takes {2 - self.constant} inputs, not {len(inputs)}")
        if not self.constant and (
            len(inputs[0]) != len(inputs[1]) or any(b not in (1, a) for a, b in zip(*inputs, strict=True))
        ):
            raise GraphError(f"inputs of {inputs[0]} and {inputs[1]} cannot be multiplied")
        return inputs[0]

    def parameters(self, inputs: Sequence[Shape]) -> dict[str, Parameter]:
        weight = {"weight": Parameter(inputs[0][-1:])} if self.constant else {}
        return {**weight, **self._alpha(inputs)}


@dataclass(frozen=True)
class Mean(Operator):
    """Mean over height and width: (channels), or (1, 1, channels) with `keep_axes`."""

    kind: ClassVar[str] = "mean"
    keep_axes: bool = False

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        channels = _spatial(inputs[0])[2]
        return (1, 1, channels) if self.keep_axes else (channels,)


@dataclass(frozen=True)
class AveragePool(Window):
    """Mean over a window; padding does not count as pixels (TensorFlow's meaning)."""

    kind: ClassVar[str] = "average_pool"
    activation: str = "none"

    def check(self) -> None:
        super().check()
        vertical, horizontal = max(self.padding[:2]), max(self.padding[2:])
        if self.dilation != (1, 1) or vertical >= self.kernel[0] or horizontal >= self.kernel[1]:
            raise GraphError("a pool has no dilation, and its padding is smaller than its kernel")

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        return self.window_shape(inputs[0], _spatial(inputs[0])[2])


@dataclass(frozen=True)
class MaxPool(AveragePool):
    """Maximum over a window; padding never wins."""

    kind: ClassVar[str] = "max_pool"


@dataclass(frozen=True)
class Pad(Operator):
    """Zeros around the picture (the zero point, if quantised)."""

    kind: ClassVar[str] = "pad"
    padding: Sides = (0, 0, 0, 0)

    def check(self) -> None:
        if min(self.padding) < 0:
            raise GraphError(f"padding {self.padding} must not be negative")

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        height, width, channels = _spatial(inputs[0])
        top, bottom, left, right = self.padding
        return (height + top + bottom, width + left + right, channels)


@dataclass(frozen=True)
class Concat(Operator):
    """Values side by side along the last axis."""

    kind: ClassVar[str] = "concat"
    inputs: ClassVar[tuple[int, int]] = (1, 64)

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        if any(shape[:-1] != inputs[0][:-1] or not shape for shape in inputs):
            raise GraphError(f"inputs of {', '.join(map(str, inputs))} cannot be joined along the last axis")
        return (*inputs[0][:-1], sum(shape[-1] for shape in inputs))


@dataclass(frozen=True)
class Resize(Operator):
    """Resampling to `size` (height, width), or without one to the size of the second input.

    Without `align_corners` and `half_pixel_centers`, source = target * scale (TensorFlow 1's rule).
    """

    kind: ClassVar[str] = "resize"
    inputs: ClassVar[tuple[int, int]] = (1, 2)
    size: Pair | None = None
    method: str = "bilinear"
    align_corners: bool = False
    half_pixel_centers: bool = True

    def check(self) -> None:
        if self.method not in ("bilinear", "nearest"):
            raise GraphError(f"unknown method '{self.method}'; accepted are bilinear, nearest")
        if self.align_corners and self.half_pixel_centers:
            raise GraphError("align_corners and half_pixel_centers exclude each other")
        if self.size is not None and min(self.size) < 1:
            raise GraphError(f"size {self.size} must be at least 1")

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        if len(inputs) != 1 + (self.size is None):
            raise GraphError("takes one input if it has a size, two if it has none")
        height, width = self.size or _spatial(inputs[1])[:2]
        return (height, width, _spatial(inputs[0])[2])


@dataclass(frozen=True)
class Reshape(Operator):
    """The same elements in another shape; one -1 stands for what is left over.

    With a second input, its height and width come first and `shape` is the rest: what an attention made of a
    picture becomes a picture again, at any resolution.
    """

    kind: ClassVar[str] = "reshape"
    inputs: ClassVar[tuple[int, int]] = (1, 2)
    shape: Shape = (-1,)

    def check(self) -> None:
        if self.shape.count(-1) > 1 or any(n < 1 and n != -1 for n in self.shape):
            raise GraphError(f"shape {self.shape} must be sizes with at most one -1")

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        wanted = (*_spatial(inputs[1])[:2], *self.shape) if len(inputs) == 2 else self.shape
        elements, known = prod(inputs[0]), prod(n for n in wanted if n != -1)
        shape = tuple(elements // known if n == -1 else n for n in wanted)
        if prod(shape) != elements:
            raise GraphError(f"an input of {inputs[0]} does not fit into {wanted}")
        return shape


@dataclass(frozen=True)
class Transpose(Operator):
    """Axes in another order."""

    kind: ClassVar[str] = "transpose"
    axes: Shape = ()

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        if sorted(self.axes) != list(range(len(inputs[0]))):
            raise GraphError(f"axes {self.axes} are no order of the axes of {inputs[0]}")
        return tuple(inputs[0][axis] for axis in self.axes)


@dataclass(frozen=True)
class MatMul(Operator):
    """Matrix product of (n, k) and (k, m), or with `transpose_second` of (n, k) and (m, k)."""

    kind: ClassVar[str] = "matmul"
    inputs: ClassVar[tuple[int, int]] = (2, 2)
    transpose_second: bool = False

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        first, second = inputs
        if len(first) != 2 or len(second) != 2 or first[1] != second[1 if self.transpose_second else 0]:
            raise GraphError(f"inputs of {first} and {second} cannot be multiplied as matrices")
        return (first[0], second[0 if self.transpose_second else 1])

    def macs(self, inputs: Sequence[Shape], output: Shape) -> int:
        return prod(output) * inputs[0][1]


@dataclass(frozen=True)
class Softmax(Unary):
    """exp(beta * x), divided by its sum over the last axis."""

    kind: ClassVar[str] = "softmax"
    beta: float = 1.0


@dataclass(frozen=True)
class L2Normalise(Unary):
    """x / sqrt(max(sum of squares over the last axis, epsilon))."""

    kind: ClassVar[str] = "l2_normalise"
    epsilon: float = 1e-12


@dataclass(frozen=True)
class ArgMax(Operator):
    """Index of the largest value along the last axis (the lowest index if several are equal); int64."""

    kind: ClassVar[str] = "argmax"

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        if not inputs[0]:
            raise GraphError("needs an input with at least one axis")
        return inputs[0][:-1]


@dataclass(frozen=True)
class Quantise(Unary):
    """To the integers of the node's own scale and zero point, from float or from other integers."""

    kind: ClassVar[str] = "quantise"


@dataclass(frozen=True)
class Dequantise(Unary):
    """From integers to float32: scale * (q - zero point)."""

    kind: ClassVar[str] = "dequantise"


OPERATORS: dict[str, type[Operator]] = {
    operator.kind: operator
    for operator in (
        Conv, DepthwiseConv, Dense, BatchNorm, Activation, Add, Mul, Mean, AveragePool, MaxPool, Pad, Concat,
        Resize, Reshape, Transpose, MatMul, Softmax, L2Normalise, ArgMax, Quantise, Dequantise,
    )
}  # fmt: skip


def operator_from_dict(values: dict[str, Any]) -> Operator:
    """The operator that `Operator.to_dict` wrote.

    Raises:
        GraphError: an unknown kind or field, a field of a wrong type, or one that is missing.
    """
    kind = OPERATORS.get(str(values.get("kind")))
    if kind is None:
        raise GraphError(f"unknown operator '{values.get('kind')}'; known are {', '.join(OPERATORS)}")
    known = field_types(kind)
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k != "kind"}
    for name in given.keys() - known.keys():
        raise GraphError(f"'{kind.kind}' has no field '{name}'; it has {', '.join(known)}")
    return kind(**given)

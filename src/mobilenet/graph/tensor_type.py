"""What flows along an edge of a graph. Apart from the operators, which most who read a type do not need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite, prod
from typing import Any

from mobilenet.errors import GraphError

Shape = tuple[int, ...]
INTEGER_DTYPES = ("int8", "uint8")
DTYPES = ("float32", "int64", *INTEGER_DTYPES)
MAX_ELEMENTS = 2**31  # of one value: far above any real net, low enough to refuse a hostile file early


@dataclass(frozen=True)
class Quantisation:
    """real = scale * (q - zero_point), per tensor (TFLite quantisation specification)."""

    scale: float
    zero_point: int = 0

    def __post_init__(self) -> None:
        if not (isinstance(self.scale, int | float) and isfinite(self.scale) and self.scale > 0):
            raise GraphError(f"scale {self.scale!r} must be a finite number above 0")
        if not (isinstance(self.zero_point, int) and -128 <= self.zero_point <= 255):
            raise GraphError(f"zero point {self.zero_point!r} must be a whole number within -128..255")


@dataclass(frozen=True)
class TensorType:
    """What flows along an edge: shape without the batch, dtype, and how integers stand for real numbers."""

    shape: Shape
    dtype: str = "float32"
    quantisation: Quantisation | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise GraphError(f"unknown dtype '{self.dtype}'; accepted are {', '.join(DTYPES)}")
        if any(not isinstance(n, int) or n < 1 for n in self.shape) or prod(self.shape) > MAX_ELEMENTS:
            raise GraphError(f"shape {self.shape} must be sizes above 0 of at most {MAX_ELEMENTS} elements")
        if (self.dtype in INTEGER_DTYPES) != (self.quantisation is not None):
            raise GraphError(f"dtype {self.dtype} and quantisation {self.quantisation} do not go together")

    @property
    def integer(self) -> bool:
        """Whether the values are quantised."""
        return self.quantisation is not None


def type_to_dict(kind: TensorType) -> dict[str, Any]:
    """JSON-able; `type_from_dict` reads it back."""
    values: dict[str, Any] = {"shape": list(kind.shape), "dtype": kind.dtype}
    if kind.quantisation:
        values |= {"scale": kind.quantisation.scale, "zero_point": kind.quantisation.zero_point}
    return values


def type_from_dict(where: str, values: Any) -> TensorType:
    """The type that `type_to_dict` wrote; raises `GraphError`, whose text begins with `where`."""
    check_keys(where, values, {"shape", "dtype"}, ("scale", "zero_point"))
    if not isinstance(values["shape"], list):
        raise GraphError(f"{where}: shape must be a list")
    try:
        return TensorType(tuple(values["shape"]), values["dtype"], quantisation_from_dict(values))
    except GraphError as error:
        raise GraphError(f"{where}: {error}") from None


def quantisation_from_dict(values: dict[str, Any]) -> Quantisation | None:
    """The fields "scale" and "zero_point", if there is one; raises `GraphError`."""
    if "scale" not in values and "zero_point" not in values:
        return None
    return Quantisation(values.get("scale", 0), values.get("zero_point", 0))


def check_keys(where: str, values: Any, known: set[str], optional: Iterable[str] = ()) -> None:
    """Raises `GraphError` unless `values` is an object with these fields, and no others than the optional ones."""
    if not isinstance(values, dict):
        raise GraphError(f"{where}: must be an object, not {type(values).__name__}")
    for key in values.keys() - known - set(optional):
        raise GraphError(f"{where}: unknown field '{key}'")
    for key in known - values.keys():
        raise GraphError(f"{where}: field '{key}' is missing")

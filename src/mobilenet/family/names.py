"""From a name to a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import isfinite
from typing import Any

from mobilenet.errors import ArgumentError, GraphError
from mobilenet.family.aliases import Spec, known_names, resolve
from mobilenet.family.builder import Options, build_graph
from mobilenet.family.dialects import DIALECTS, find_dialect, preprocessing_preset
from mobilenet.family.heads import make_head, split_head
from mobilenet.family.tables import TABLES
from mobilenet.graph.graph import Graph

__all__ = [
    "Description",
    "Spec",
    "build",
    "describe",
    "list_models",
    "preprocessing_preset",
    "resolve",
    "resolve_head",
]

SMALLEST_SIDE = 32
OUTPUT_STRIDES = (8, 16, 32)


@dataclass(frozen=True)
class Description:
    """A network in short: its spec, where its table is from, and the dialects that it can be built in."""

    spec: Spec
    source: str
    dialects: tuple[str, ...]
    outputs: tuple[str, ...]


def build(
    name: str,
    *,
    width_multiplier: float | None = None,
    resolution: int | tuple[int, int] | None = None,
    classes: int | None = None,
    channels: int = 3,
    dialect: str | None = None,
    output_stride: int | None = None,
    dropout: float | None = None,
    drop_path: float = 0.0,
    features_only: bool = False,
    head: str | None = None,
    head_options: Mapping[str, Any] | None = None,
) -> Graph:
    """The graph of a member of the family, without weights.

    Input "image" (height, width, channels). Outputs: "logits" (classes) and "embedding", what the classifier
    reads; MobileFaceNet has "embedding" alone, whatever `classes` is. With `features_only`: "features_2",
    "features_4" and so on up to the output stride, the last block's value at each stride; no head. With `head`,
    the outputs are that head's.

    Args:
        name: see `list_models` and `resolve`; a head's name may come before it ("lraspp_mobilenet_v3_large").
        width_multiplier: above 0; default: what the name says, else 1.
        resolution: side of the picture in pixels, or (height, width), at least 32; default: the name's.
        classes: number of classes, at least 1; default: 1000, or those that the head is published for.
        channels: of the picture, at least 1.
        dialect: whose details to follow; default: the one that the name implies, else "paper".
        output_stride: 8, 16 or 32; default: 32, or what the head is built for. A stride that would pass it becomes
            1, and what follows is dilated by it, as DeepLab does (arXiv:1706.05587); in torchvision's dialect the
            layer that had the stride is, too.
        dropout: probability before the classifier; default: the paper's.
        drop_path: stochastic depth: the probability with which training skips a residual block, from 0 at
            the first block growing linearly to this at the last (arXiv:1603.09382).
        features_only: see above.
        head: what it has in place of its classifier: a name of `heads.HEADS`.
        head_options: fields of that head.

    Raises:
        ArgumentError: an unknown name, dialect or head, or a value outside of what is accepted.
    """
    head, spec = resolve_head(name, head)
    chosen = None if head is None else make_head(head, head_options or {})
    if chosen is None and head_options:
        raise ArgumentError(f"'{name}' has no head, but its options are given: {', '.join(head_options)}")
    usual_classes = 1000 if chosen is None else chosen.classes
    if chosen is not None:
        resolution = chosen.resolution if resolution is None else resolution
        output_stride = chosen.output_stride if output_stride is None else output_stride
    table = TABLES[spec.name]
    rules = find_dialect(spec.dialect if dialect is None else dialect, table.family)
    options = Options(
        width_multiplier=_width_multiplier(name, spec, width_multiplier),
        size=_size(spec.resolution if resolution is None else resolution),
        classes=_at_least("classes", usual_classes if classes is None else classes, 1),
        channels=_at_least("channels", channels, 1),
        output_stride=_output_stride(32 if output_stride is None else output_stride),
        dropout=_probability("dropout", table.dropout if dropout is None else dropout),
        drop_path=_probability("drop_path", drop_path),
        features_only=features_only,
        head=chosen,
    )
    try:
        return build_graph(table, rules, options)
    except GraphError as error:
        raise ArgumentError(f"'{name}' cannot be built this large: {error}") from error


def resolve_head(name: str, head: str | None = None) -> tuple[str | None, Spec]:
    """The head that a name begins with, or that is given, and what the rest of the name stands for.

    Raises:
        ArgumentError: an unknown network, or a name that says another head than is given.
    """
    named, rest = split_head(name)
    if named is not None and head is not None and named != head:
        raise ArgumentError(f"'{name}' says head '{named}', but head is {head!r}; leave one out")
    return head or named, resolve(rest)


def list_models(pattern: str = "*", *, aliases: bool = False) -> list[str]:
    """The names of all networks that match a pattern with * and ?, in the family's order.

    With `aliases`, also the names of timm and Keras that `resolve` knows.
    """
    names = known_names() if aliases else TABLES
    return [name for name in names if fnmatchcase(name, pattern)]


def describe(name: str) -> Description:
    """What a name stands for; raises `ArgumentError` if it is unknown."""
    spec = resolve(name)
    table = TABLES[spec.name]
    outputs = ("logits", "embedding") if table.classifier else ("embedding",)
    return Description(spec, table.source, tuple(DIALECTS[table.family]), outputs)


def _width_multiplier(name: str, spec: Spec, given: float | None) -> float:
    value = spec.width_multiplier if given is None else given
    if not isinstance(value, int | float) or isinstance(value, bool) or not (isfinite(value) and value > 0):
        raise ArgumentError(f"width_multiplier {value!r} must be a number above 0")
    if spec.width_named and value != spec.width_multiplier:
        raise ArgumentError(
            f"'{name}' says width {spec.width_multiplier:g}, but width_multiplier is {value:g}; leave one out"
        )
    return float(value)


def _size(resolution: int | tuple[int, int]) -> tuple[int, int]:
    sides = resolution if isinstance(resolution, tuple | list) else (resolution, resolution)
    if len(sides) != 2 or any(type(side) is not int or side < SMALLEST_SIDE for side in sides):
        raise ArgumentError(
            f"resolution {resolution!r} must be a whole number of pixels, at least {SMALLEST_SIDE}, "
            "or (height, width) of such"
        )
    return (sides[0], sides[1])


def _at_least(name: str, value: int, least: int) -> int:
    if type(value) is not int or value < least:
        raise ArgumentError(f"{name} {value!r} must be a whole number, at least {least}")
    return value


def _output_stride(value: int) -> int:
    if type(value) is not int or value not in OUTPUT_STRIDES:
        raise ArgumentError(f"output_stride {value!r} must be one of {', '.join(map(str, OUTPUT_STRIDES))}")
    return value


def _probability(name: str, value: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
        raise ArgumentError(f"{name} {value!r} must be a probability, at least 0 and below 1")
    return float(value)

"""What a network costs, as a JSON-able dictionary and as tables on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mobilenet.errors import ArgumentError
from mobilenet.family.names import build, resolve
from mobilenet.graph.cost import Cost, NodeCost, cost
from mobilenet.graph.graph import Graph
from mobilenet.graph.ops import Operator, Window

if TYPE_CHECKING:
    from rich.console import Console

# The widths and sides that the V1 and V2 papers tabulate, for a grid without its own.
WIDTHS = (0.35, 0.5, 0.75, 1.0, 1.4)
RESOLUTIONS = (96, 128, 160, 192, 224)


def profile_to_dict(graph: Graph, name: str) -> dict[str, Any]:
    """What `mobilenet profile NAME --json` prints.

    Args:
        graph: float or quantised.
        name: how to call it.

    Returns:
        `name`, `input` (shapes by name), `params`, `macs`, `attention_macs`, `standard_convolution_macs`, `ratio`,
        `weights_bytes`, `peak_activation_bytes`, `peak_activation_bytes_banded` (all as in
        `mobilenet.graph.cost.Cost`), and `layers`: each with `name`, `kind`, `operator` (in words), `shape`,
        `params`, `macs`, `activation_bytes`. A batch norm, activation or layer scale counts to the layer that it
        follows.
    """
    counted = cost(graph)
    return {
        "name": name,
        "input": {key: list(kind.shape) for key, kind in graph.inputs.items()},
        **_totals(counted),
        "layers": _layers(graph, counted.nodes),
    }


def grid(
    name: str,
    widths: Sequence[float] | None = None,
    resolutions: Sequence[int] | None = None,
    *,
    classes: int = 1000,
    dialect: str | None = None,
) -> list[dict[str, Any]]:
    """The cost of a network at every width and resolution, the widest first.

    Args:
        name: see `mobilenet.family.names.resolve`; if it says a width, that is the only one.
        widths: width multipliers; default `WIDTHS`.
        resolutions: sides in pixels; default `RESOLUTIONS`.
        classes: number of classes.
        dialect: see `mobilenet.family.names.build`.

    Returns:
        for each point `name`, `width`, `resolution`, `params`, `macs` and the other totals of `profile_to_dict`.

    Raises:
        ArgumentError: an unknown name or an impossible value, or nothing to count.
    """
    spec = resolve(name)
    if widths is None:
        widths = (spec.width_multiplier,) if spec.width_named else WIDTHS
    resolutions = RESOLUTIONS if resolutions is None else resolutions
    if not widths or not resolutions:
        raise ArgumentError("a grid needs at least one width and one resolution")
    points = []
    for width in sorted(widths, reverse=True):
        for side in sorted(resolutions, reverse=True):
            graph = build(name, width_multiplier=width, resolution=side, classes=classes, dialect=dialect)
            points.append({"name": name, "width": width, "resolution": side, **_totals(cost(graph))})
    return points


def print_profile(profile: Mapping[str, Any], console: Console) -> None:
    """Prints what `profile_to_dict` gave: a table by layer, then the totals."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(profile["name"]), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    longest = max((len(layer["name"]) for layer in profile["layers"]), default=0)
    table.add_column("layer", overflow="fold", min_width=min(longest, 36))
    table.add_column("operator", overflow="fold")
    for column in ("output", "parameters", "MACs", "activation"):
        table.add_column(column, justify="right", no_wrap=True)
    for layer in profile["layers"]:
        numbers = (f"{layer['params']:,}", f"{layer['macs']:,}", in_bytes(layer["activation_bytes"]))
        table.add_row(escape(layer["name"]), layer["operator"], "×".join(map(str, layer["shape"])), *numbers)
    console.print(table)
    for label, value in _total_lines(profile):
        console.print(f"{label:<36}{value}", highlight=False)


def print_grid(points: Iterable[Mapping[str, Any]], console: Console) -> None:
    """Prints what `grid` gave, a line for each width and resolution."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    for column in ("width", "resolution", "parameters", "MACs", "peak activation", "in bands"):
        table.add_column(column, justify="right", no_wrap=True)
    for point in points:
        table.add_row(
            f"{point['width']:g}",
            str(point["resolution"]),
            in_millions(point["params"]),
            in_millions(point["macs"]),
            in_bytes(point["peak_activation_bytes"]),
            in_bytes(point["peak_activation_bytes_banded"]),
        )
    console.print(table)


def in_millions(count: int) -> str:
    """A count as people write it: 300.8 M."""
    return f"{count / 1e6:,.2f} M" if count < 1e7 else f"{count / 1e6:,.1f} M"


def in_bytes(size: int) -> str:
    """A size with a decimal unit (1 kB is 1000 bytes), or nothing for 0."""
    if size < 1000:
        return f"{size} B" if size else ""
    return f"{size / 1e3:,.1f} kB" if size < 1e6 else f"{size / 1e6:,.2f} MB"


def _totals(counted: Cost) -> dict[str, Any]:
    return {
        "params": counted.params,
        "macs": counted.macs,
        "attention_macs": counted.attention_macs,
        "standard_convolution_macs": counted.standard_convolution_macs,
        "ratio": counted.ratio,
        "weights_bytes": counted.weights_bytes,
        "peak_activation_bytes": counted.peak_activation_bytes,
        "peak_activation_bytes_banded": counted.peak_activation_bytes_banded,
    }


def _layers(graph: Graph, nodes: Iterable[NodeCost]) -> list[dict[str, Any]]:
    layers: list[dict[str, Any]] = []
    owner: dict[str, dict[str, Any]] = {}
    for node in nodes:
        operator, read = graph.node(node.name).operator, graph.node(node.name).inputs
        if not node.in_place:
            layers.append(_layer(node, operator))
            owner[node.name] = layers[-1]
            continue
        layer = owner[node.name] = owner[read[0]]
        layer["params"] += node.params
        layer["operator"] += _activation(operator)
    return layers


def _layer(node: NodeCost, operator: Operator) -> dict[str, Any]:
    return {
        "name": node.name,
        "kind": node.kind,
        "operator": _in_words(operator),
        "shape": list(node.shape),
        "params": node.params,
        "macs": node.macs,
        "activation_bytes": node.activation_bytes,
    }


def _in_words(operator: Operator) -> str:
    """ "conv 3×3 /2 relu6": kind, kernel, stride and dilation where they are not 1, activation."""
    words = operator.kind.replace("_", " ")
    if isinstance(operator, Window):
        words += " " + "×".join(map(str, operator.kernel))
        words += f" /{max(operator.stride)}" if max(operator.stride) > 1 else ""
        words += f" dilated {max(operator.dilation)}" if max(operator.dilation) > 1 else ""
    return words + _activation(operator)


def _activation(operator: Operator) -> str:
    activation = getattr(operator, "activation", "none")
    return "" if activation == "none" else f" {activation}"


def _total_lines(profile: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    yield "parameters", f"{profile['params']:,}"
    yield "multiply-accumulates", f"{profile['macs']:,}"
    if profile["attention_macs"]:
        yield "... of attention, not counted above", f"{profile['attention_macs']:,}"
    standard, ratio = profile["standard_convolution_macs"], profile["ratio"]
    yield "with standard convolutions", f"{standard:,} (ratio {ratio:.3f}, 1/{1 / ratio:.1f})" if ratio else "0"
    yield "weights", in_bytes(profile["weights_bytes"])
    yield "peak activation memory", in_bytes(profile["peak_activation_bytes"])
    yield "... in bands", in_bytes(profile["peak_activation_bytes_banded"])

"""How many bytes of activations are alive at once while a graph runs.

The model. Layers run one after the other, in the graph's order, on one picture. A layer's inputs and its output
exist whole while it runs, and a value exists from the layer that writes it to the last one that reads it; the
picture counts too, and what the graph gives out stays to the end. A batch norm, activation, layer scale or
reshape whose input nobody else reads is part of the layer before it and costs nothing. Weights, copies, borders
and workspace are not counted.

In bands (V2, section 5), a chain of layers runs as one: a row of its output at a time, so that of the values
inside only as many rows exist as the next window needs. What is a chain:

- an inverted residual: depthwise (V4), expansion, depthwise, 1x1 projection, each of the depthwise convolutions
  or none, narrower at its end than inside. The expansion is any convolution: V2's stem, read by nothing but the
  first depthwise convolution, expands the picture, and a fused block is an expansion and a projection;
- depthwise and pointwise convolution (V1);
- expansion and depthwise convolution in front of squeeze-excite, which sees all of its input before it scales;
- a convolution and the mean that reads it.

Pools that stand for a stride belong to the chain. A residual sum is added where the chain writes its output. A
chain runs in bands only where that takes less than its layers one by one: for V1's pairs it hardly ever does.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

from mobilenet.graph.graph import Graph, Node, TensorType
from mobilenet.graph.ops import (
    Activation,
    Add,
    AveragePool,
    BatchNorm,
    Conv,
    DepthwiseConv,
    Mean,
    Mul,
    Pad,
    Reshape,
    Window,
)

_BYTES = {"int8": 1, "uint8": 1, "int64": 8}
# A chain as a word: d depthwise, p pointwise, c another convolution, a pool (or its padding), m mean.
_INVERTED_RESIDUAL = re.compile(r"(?:da*)?(?P<expansion>[pc])a*(?:da*)?p")
_SEPARABLE = re.compile(r"da*p")
_MEAN = re.compile(r"[pc]m")
_EXPANDED = re.compile(r"[pc]a*da*")


def peak_activation_bytes(graph: Graph, *, float_bytes: int = 4, banded: bool = False) -> int:
    """The most bytes of activations that are alive at once; the module's docstring states the model.

    Args:
        graph: float or quantised; integers count 1 byte.
        float_bytes: of a float activation: 4, or 2 for half precision.
        banded: whether chains run in bands (V2, section 5).
    """
    layers = Layers(graph, float_bytes)
    return _peak(layers, _steps(layers, banded))


def whole_values(graph: Graph, *, float_bytes: int = 4, banded: bool = False) -> dict[str, int]:
    """The values that exist whole at some time, by the node (or input) that writes them, and their bytes."""
    layers = Layers(graph, float_bytes)
    return {name: layers.bytes(name) for name in _touched(layers, _steps(layers, banded))}


def value_bytes(kind: TensorType, float_bytes: int = 4) -> int:
    """The size of one value."""
    return prod(kind.shape) * _BYTES.get(kind.dtype, float_bytes)


class Layers:
    """A graph with what runs in place taken together: a convolution with its batch norm is one layer.

    Args:
        graph: any.
        float_bytes: of a float activation.

    `written[value]` is the layer (or input) whose buffer a value lives in; `readers[layer]` names the layers that
    read that buffer; `order` the layers as they run.
    """

    def __init__(self, graph: Graph, float_bytes: int = 4) -> None:
        self.graph = graph
        self.float_bytes = float_bytes
        self.nodes = {node.name: node for node in graph.nodes}
        uses = Counter(name for node in graph.nodes for name in node.inputs)
        uses.update(graph.outputs.values())
        self.written = {name: name for name in graph.inputs}
        self.readers: dict[str, list[str]] = defaultdict(list)
        self.order: list[str] = []
        for node in graph.nodes:
            if _writes_over(node) and uses[node.inputs[0]] == 1 and node.inputs[0] not in graph.inputs:
                self.written[node.name] = self.written[node.inputs[0]]
                continue
            self.written[node.name] = node.name
            self.order.append(node.name)
            for name in self.reads(node.name):
                self.readers[name].append(node.name)
        self.outputs = {self.written[name] for name in graph.outputs.values()}

    @cached_property
    def position(self) -> dict[str, int]:
        """When each layer runs."""
        return {name: number for number, name in enumerate(self.order)}

    def runs_in_place(self, name: str) -> bool:
        """Whether a node is part of the layer before it."""
        return self.written[name] != name

    def reads(self, name: str) -> list[str]:
        """Whose buffers a layer reads."""
        return list(dict.fromkeys(self.written[i] for i in self.nodes[name].inputs))

    def bytes(self, name: str) -> int:
        """Of what a node writes."""
        return value_bytes(self.graph.types[name], self.float_bytes)

    def channels(self, name: str) -> int:
        """Of what a node writes."""
        return self.graph.types[name].shape[-1]

    def only_reader(self, name: str) -> Node | None:
        """The one layer that reads this layer's buffer; None if there are several or the graph gives it out."""
        readers = self.readers[name]
        return self.nodes[readers[0]] if len(readers) == 1 and name not in self.outputs else None

    def path(self, name: str) -> list[str]:
        """This layer, the only one that reads it as its first input, and so on, as long as they can be a chain."""
        path = [name]
        while (reader := self.only_reader(path[-1])) is not None:
            if not _letter(reader) or self.written[reader.inputs[0]] != path[-1]:
                break
            path.append(reader.name)
        return path


def _writes_over(node: Node) -> bool:
    operator = node.operator
    return isinstance(operator, BatchNorm | Activation | Reshape) or (
        isinstance(operator, Mul) and operator.constant
    )


def _letter(node: Node) -> str:
    operator = node.operator
    if isinstance(operator, Conv):
        return "p" if (operator.kernel, operator.stride) == ((1, 1), (1, 1)) else "c"
    if isinstance(operator, Mean):
        return "" if operator.keep_axes else "m"
    if isinstance(operator, DepthwiseConv):
        return "d"
    return "a" if isinstance(operator, AveragePool | Pad) else ""


@dataclass
class _Step:
    """Layers that run as one; `rows` of their outputs exist at a time, of the last one all."""

    layers: list[str]
    rows: dict[str, int] = field(default_factory=dict)


def _steps(layers: Layers, banded: bool) -> list[_Step]:
    if not banded:
        return [_Step([name]) for name in layers.order]
    steps: list[_Step] = []
    taken: set[str] = set()
    for name in layers.order:
        if name not in taken:
            chain = _chain(layers, layers.path(name))
            apart = [_Step([layer]) for layer in chain.layers]
            steps.append(chain if _peak(layers, [chain]) < _peak(layers, apart) else apart[0])
            taken.update(steps[-1].layers)
    return sorted(steps, key=lambda step: layers.position[step.layers[-1]])


def _chain(layers: Layers, path: list[str]) -> _Step:
    """The chain that starts at the start of a path, with the residual sum that follows it."""
    chain = path[: _chain_length(layers, path)]
    step = _Step(list(chain), _rows(layers, chain))
    addition = layers.only_reader(chain[-1])
    if len(chain) > 1 and addition is not None and isinstance(addition.operator, Add):
        others = [name for name in layers.reads(addition.name) if name != chain[-1]]
        if len(others) == 1 and layers.position.get(others[0], -1) < layers.position[chain[-1]]:
            step.layers.append(addition.name)
            step.rows[chain[-1]] = 0
    return step


def _chain_length(layers: Layers, path: list[str]) -> int:
    word = "".join(_letter(layers.nodes[name]) or "-" for name in path)
    match = _INVERTED_RESIDUAL.match(word)
    if match and layers.channels(path[match.start("expansion")]) > layers.channels(path[match.end() - 1]):
        return match.end()
    for pattern in (_SEPARABLE, _MEAN):
        if match := pattern.match(word):
            return match.end()
    return len(path) if _EXPANDED.fullmatch(word) and _is_squeezed(layers, path) else 1


def _is_squeezed(layers: Layers, path: list[str]) -> bool:
    """Whether what the path ends in is scaled by a gate and then projected to less than it was expanded to."""
    for name in layers.readers[path[-1]]:
        scaled = layers.nodes[name]
        if isinstance(scaled.operator, Mul) and layers.written[scaled.inputs[0]] == path[-1]:
            projection = layers.only_reader(name)
            if projection is not None and _letter(projection) == "p":
                return layers.channels(projection.name) < layers.channels(path[0])
    return False


def _rows(layers: Layers, chain: list[str]) -> dict[str, int]:
    """How many rows of each value inside a chain one row of its output needs, from the end to the start."""
    rows, needed = {}, 1
    for writer, reader in zip(chain[-2::-1], chain[:0:-1], strict=True):
        operator = layers.nodes[reader].operator
        if isinstance(operator, Window):
            needed = (needed - 1) * operator.stride[0] + (operator.kernel[0] - 1) * operator.dilation[0] + 1
        needed = min(needed, layers.graph.types[writer].shape[0])
        rows[writer] = needed
    return rows


def _peak(layers: Layers, steps: list[_Step]) -> int:
    """The most bytes alive at once during these steps, of the values that they read or write."""
    alive = [_band_bytes(layers, step) for step in steps]
    for name in _touched(layers, steps):
        first, last = _life(layers, steps, name)
        for number in range(first, last + 1):
            alive[number] += layers.bytes(name)
    return max(alive, default=0)


def _band_bytes(layers: Layers, step: _Step) -> int:
    heights = {name: layers.graph.types[name].shape[0] for name in step.rows}
    return sum(layers.bytes(name) // heights[name] * rows for name, rows in step.rows.items())


def _touched(layers: Layers, steps: list[_Step]) -> list[str]:
    """The values that exist whole and that these steps read or write."""
    inside = {name for step in steps for name in step.rows}
    ran = [name for step in steps for name in step.layers]
    names = dict.fromkeys(value for name in ran for value in (*layers.reads(name), name))
    return [name for name in names if name not in inside]


def _life(layers: Layers, steps: list[_Step], name: str) -> tuple[int, int]:
    """The numbers of the first and the last of these steps during which a value exists."""
    ran = {layer: number for number, step in enumerate(steps) for layer in step.layers}
    first = ran.get(name, 0)
    read = [ran.get(reader, len(steps) - 1) for reader in layers.readers[name]]
    return first, len(steps) - 1 if name in layers.outputs else max(read, default=first)

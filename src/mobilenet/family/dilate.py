"""Finer feature maps of a network that exists already: strides become dilation, weights stay as they are.

DeepLab's rule (arXiv:1706.05587, 3.1), as `builder.Strides` has it for networks that are built here: a layer whose
stride would pass the limit takes a stride of 1, and what follows it is dilated by the stride that is gone.
"""

from __future__ import annotations

from dataclasses import replace

from mobilenet.errors import GraphError
from mobilenet.graph.graph import Graph, Node
from mobilenet.graph.ops import Conv, DepthwiseConv, Shape, Window, symmetric_sides

Reached = tuple[int, int]  # stride, and the dilation of what follows


def dilated(graph: Graph, output_stride: int) -> Graph:
    """The same layers at a stride of at most `output_stride`.

    Padding that follows the SAME rule is counted anew. Explicit padding of a layer that changes becomes the same
    on both sides, so that the size stays.

    Args:
        graph: with one picture as input; its names stay.
        output_stride: 1 or more.

    Raises:
        GraphError: a pool, a layer with unequal strides or one of fixed size stands where the stride is to change.
    """
    ((image, kind),) = graph.inputs.items()
    reached: dict[str, Reached] = {image: (1, 1)}
    shapes: dict[str, Shape] = {image: kind.shape}
    nodes = []
    for node in graph.nodes:
        stride, dilation = max(reached[name] for name in node.inputs)
        if isinstance(node.operator, Window):
            shape = shapes[node.inputs[0]]
            node, stride, dilation = _changed(node, shape, stride, dilation, output_stride)
        reached[node.name] = (stride, dilation)
        try:
            shapes[node.name] = node.operator.output_shape([shapes[name] for name in node.inputs])
        except GraphError as error:
            raise GraphError(f"'{node.name}' cannot work at output stride {output_stride}: {error}") from error
        nodes.append(node)
    return Graph(graph.inputs, tuple(nodes), graph.outputs)


def _changed(node: Node, shape: Shape, stride: int, dilation: int, limit: int) -> tuple[Node, int, int]:
    """The node at the stride and dilation that were reached, and what is reached after it."""
    operator = node.operator
    assert isinstance(operator, Window)
    own = max(operator.stride)
    keeps = stride * own <= limit
    if (keeps and dilation == 1) or operator.kernel == operator.stride == (1, 1):
        fitted = operator.fitted(shape)
        return replace(node, operator=fitted), stride * own, dilation
    if not isinstance(operator, Conv | DepthwiseConv) or min(operator.stride) != own:
        raise GraphError(
            f"'{node.name}' is a {operator.kind} of stride {operator.stride}, which has no dilated form: "
            f"output stride {limit} is too fine for this network"
        )
    spread = (operator.dilation[0] * dilation, operator.dilation[1] * dilation)
    changed = replace(operator, stride=operator.stride if keeps else (1, 1), dilation=spread, same=False)
    if operator.same:
        changed = replace(changed, same=True, padding=changed.same_sides(shape))
    else:
        changed = replace(changed, padding=symmetric_sides(operator.kernel, spread))
    after = (stride * own, dilation) if keeps else (stride, dilation * own)
    return replace(node, operator=changed), *after

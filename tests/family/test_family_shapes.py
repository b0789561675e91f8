"""Every weight tensor of the peers has one of the same shape here, and the other way round."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mobilenet.family.names import build
from mobilenet.graph.graph import Graph
from mobilenet.graph.ops import Conv, DepthwiseConv

KEYS = Path(__file__).resolve().parents[3] / "shared" / "reference" / "state_dict_keys.json"
FACTS: dict[str, Any] = json.loads(KEYS.read_text()) if KEYS.is_file() else {}
NO_HEADS = ("lraspp", "deeplab", "ssdlite")  # segmentation and detection are no members of the family


def in_torch_layout(graph: Graph) -> Counter[tuple[int, ...]]:
    """(out, in) for dense and 1x1, (out, in, k, k) for convolutions, (channels, 1, k, k) for depthwise ones."""
    shapes: Counter[tuple[int, ...]] = Counter()
    for name, parameter in graph.parameters().items():
        node, kind = name.rsplit(".", 1)
        operator, shape = graph.node(node).operator, parameter.shape
        if isinstance(operator, DepthwiseConv) and kind == "weight":
            shape = (shape[2], 1, *shape[:2])
        elif isinstance(operator, Conv) and kind == "weight":
            shape = (shape[0], shape[3], *shape[1:3])
        shapes[without_ones(shape)] += 1
    return shapes


def without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:2] if len(shape) == 4 and shape[2:] == (1, 1) else shape


def torch_cases() -> list[Any]:
    cases: list[Any] = [("timm", name, {}) for name in FACTS.get("timm", {})]
    for project, dialect in (("torchvision", "torchvision"), ("d-li14", "d_li14")):
        for entry in FACTS.get(project, {}):
            name, _, width = entry.rpartition("_")
            options: dict[str, Any] = {"dialect": dialect}
            if project == "torchvision":
                name = entry
            else:
                options["width_multiplier"] = float(width)
                name = name.replace("mobilenetv", "mobilenet_v")
            if not entry.startswith(NO_HEADS):
                cases.append((project, entry, {**options, "name": name}))
    return [pytest.param(*case, id=f"{case[0]} {case[1]}") for case in cases] or [absent()]


def absent() -> Any:
    skip = pytest.mark.skip(reason=f"{KEYS} is absent: reference data are not part of the project")
    return pytest.param("", "", {}, marks=skip)


@pytest.mark.parametrize(("project", "entry", "options"), torch_cases())
def test_same_tensors_as_torch_projects(project: str, entry: str, options: dict[str, Any]) -> None:
    theirs = Counter(
        without_ones(tuple(shape)) for key, shape in FACTS[project][entry] if "num_batches" not in key
    )
    assert in_torch_layout(build(**{"name": entry, **options})) == theirs


def keras_shape(kind: str, shape: list[int]) -> tuple[int, ...]:
    if len(shape) == 1:
        return (shape[0],)
    if kind == "DepthwiseConv2D":
        return (shape[2] * shape[3], 1, shape[0], shape[1])
    return without_ones((shape[-1], shape[-2], *shape[:-2]))


def keras_options(entry: str) -> dict[str, Any]:
    name, _, width = entry.rpartition("_")
    if entry == "v1":
        return {"name": "mobilenet_v1", "dialect": "keras"}
    if width == "min":
        return {"name": f"mobilenet_{name}_minimalistic", "dialect": "keras"}
    return {"name": f"mobilenet_{name}", "width_multiplier": float(width), "dialect": "keras"}


@pytest.mark.parametrize("entry", list(FACTS.get("keras_applications_3.15.1", {})) or [""])
def test_same_tensors_as_keras(entry: str, shared: Path) -> None:
    layers = FACTS["keras_applications_3.15.1"][entry]
    weighted = (
        layer for layer in layers if "Normalization" in layer[1] or "Conv" in layer[1] or "Dense" in layer[1]
    )
    theirs = Counter(keras_shape(kind, shape) for _, kind, weights in weighted for _, shape in weights)
    assert in_torch_layout(build(**keras_options(entry))) == theirs

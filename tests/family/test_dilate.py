"""Strides that became dilation: the finer map holds the coarser one's values, bit for bit in meaning."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from mobilenet.errors import GraphError
from mobilenet.family.dilate import dilated
from mobilenet.family.graft import found_trunk
from mobilenet.family.initialise import initialise
from mobilenet.family.names import build
from mobilenet.graph.edit import pruned
from mobilenet.graph.graph import Graph
from mobilenet.run.torch_module import GraphModule


def features(graph: Graph, seed: int) -> np.ndarray:
    module = GraphModule.from_weights(graph, initialise(graph, 0)).eval()
    images = torch.randn(1, 96, 64, 3, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return module(images)["deep"][0].numpy()


# A stride of 2 on an even picture looks at odd pixels with SAME padding, at even ones with torch's symmetric one.
@pytest.mark.parametrize(
    ("dialect", "places"), [("paper", {16: (1, 2), 8: (3, 4)}), ("timm", {16: (0, 2), 8: (0, 4)})]
)
@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v4_conv_small"])
def test_a_finer_map_holds_the_coarser_one(name: str, dialect: str, places: dict[int, tuple[int, int]]) -> None:
    graph = build(name, width_multiplier=0.25, resolution=(96, 64), classes=5, dialect=dialect)
    trunk = pruned(graph, {"deep": found_trunk(graph).last[32]})
    coarse = features(trunk, 1)
    assert coarse.shape[:2] == (3, 2)
    for stride, (first, step) in places.items():
        fine = features(dilated(trunk, stride), 1)
        assert fine.shape[:2] == (96 // stride, 64 // stride)
        np.testing.assert_allclose(fine[first::step, first::step], coarse, rtol=1e-4, atol=1e-5)


def test_a_limit_that_is_not_passed_changes_nothing() -> None:
    graph = build("mobilenet_v3_small", resolution=64, classes=5)
    assert dilated(graph, 32) == graph


def test_a_pool_has_no_dilated_form() -> None:
    graph = build("mobilenet_v4_conv_blur_medium", resolution=64, classes=5)
    deep = pruned(graph, {"deep": found_trunk(graph).last[32]})
    with pytest.raises(GraphError, match=r"is a average_pool of stride \(2, 2\).*too fine for this network"):
        dilated(deep, 8)

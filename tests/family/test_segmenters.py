"""Segmentation heads: counts of the running peers, any member of the family, strides, odd sizes, bad options."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import mobilenet
from mobilenet.errors import ArgumentError
from mobilenet.family.names import build
from mobilenet.graph.cost import cost
from mobilenet.graph.graph import Graph
from mobilenet.graph.ops import BatchNorm, Conv, DepthwiseConv
from mobilenet.run import reference

MEASURED = Path(__file__).resolve().parents[3] / "shared" / "reference" / "measured_counts.json"
CASES = [
    ("lraspp_mobilenet_v3_large", "lraspp_mobilenet_v3_large", {}),
    ("deeplabv3_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", {}),
    ("deeplabv3_mobilenet_v3_large_aux", "deeplabv3_mobilenet_v3_large", {"head_options": {"auxiliary": True}}),
]
HEADS = ("lraspp", "deeplabv3", "deeplabv3plus")


@pytest.mark.parametrize(("fact", "name", "options"), CASES)
@pytest.mark.parametrize("dialect", ["paper", "torchvision"])
def test_counts_are_those_of_the_running_peer(
    fact: str, name: str, options: dict, dialect: str, shared: Path
) -> None:
    expected = json.loads(MEASURED.read_text())["torchvision"][fact]
    for side, macs in expected["macs"].items():
        counted = cost(build(name, classes=21, resolution=int(side), dialect=dialect, **options))
        assert (counted.params, counted.macs) == (expected["params"], macs["total"])


def test_parameters_that_torchvision_publishes() -> None:
    counts = [cost(build(name, classes=21, **options)).params for _, name, options in CASES]
    assert counts == [3_221_538, 11_025_477, 11_029_328]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    "name",
    ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v4_conv_small", "mobilenet_edgetpu"],
)
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_any_member_at_any_stride_and_an_odd_size(head: str, name: str, stride: int) -> None:
    graph = build(name, head=head, classes=4, resolution=(97, 130), output_stride=stride, width_multiplier=0.5)
    assert {key: graph.types[value].shape for key, value in graph.outputs.items()} == {"logits": (97, 130, 4)}
    first, beside = {
        "lraspp": ("segment.reduce.conv", "segment.gate.mean"),
        "deeplabv3": ("segment.pyramid.0.conv", "segment.pool.mean"),
        "deeplabv3plus": ("segment.pyramid.0.conv", "segment.pyramid.1.depthwise.conv"),
    }[head]
    (last,) = graph.node(first).inputs
    assert graph.node(beside).inputs == (last,)
    assert graph.types[last].shape[:2] == (-(-97 // stride), -(-130 // stride))


@pytest.mark.parametrize("head", HEADS)
def test_names_are_no_prefixes_of_each_other(head: str) -> None:
    graph = build("mobilenet_v3_large", head=head, classes=4, head_options={"auxiliary": True})
    names = {node.name for node in graph.nodes}
    parents = {".".join(n.split(".")[:depth]) for n in names for depth in range(1, n.count(".") + 1)}
    assert not names & parents


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v4_conv_small"])
def test_a_classifiers_weights_fit_the_network_below(name: str) -> None:
    classifier, segmenter = build(name).parameters(), build(name, head="lraspp", classes=3).parameters()
    below = {key: value for key, value in segmenter.items() if not key.startswith("segment.")}
    assert below.keys() <= classifier.keys()
    assert all(classifier[key] == value for key, value in below.items())
    kept = {key.split(".")[0] for key in below}
    assert ("head" in kept) == (name in ("mobilenet_v3_large", "mobilenet_v4_conv_small"))


def test_a_head_in_the_name_is_the_head_as_an_option() -> None:
    assert build("lraspp_mobilenet_v2", classes=5) == build("mobilenet_v2", head="lraspp", classes=5)
    assert build("deeplabv3plus_mobilenet_v2", classes=5) == build("mobilenet_v2", head="deeplabv3plus", classes=5)
    assert build("lraspp_mobilenetv3_large_075", classes=5).types["stem.conv"].shape[2] == 16


def rates(graph: Graph) -> list[int]:
    kinds = (Conv, DepthwiseConv)
    nodes = [n for n in graph.nodes if n.name.startswith("segment.pyramid") and isinstance(n.operator, kinds)]
    return [n.operator.dilation[0] for n in nodes if n.operator.kernel == (3, 3)]


def test_rates_of_the_pyramids() -> None:
    assert rates(build("deeplabv3_mobilenet_v2", classes=2)) == [12, 24, 36]
    assert rates(build("deeplabv3plus_mobilenet_v2", classes=2)) == [6, 12, 18]
    assert rates(build("deeplabv3plus_mobilenet_v2", classes=2, output_stride=8)) == [12, 24, 36]
    assert rates(build("deeplabv3plus_mobilenet_v2", classes=2, output_stride=32)) == [3, 6, 9]


def test_torchvisions_heads_have_torchs_own_batch_norm() -> None:
    graph = build("lraspp_mobilenet_v3_large", classes=2, dialect="torchvision")
    norms = {
        n.name: (n.operator.epsilon, n.operator.momentum) for n in graph.nodes if isinstance(n.operator, BatchNorm)
    }
    assert norms["segment.reduce.batch_norm"] == (1e-5, 0.1)
    assert norms["head.batch_norm"] == norms["stem.batch_norm"] == (1e-3, 0.01)


def test_create_gives_a_segmenter_that_runs_and_saves(tmp_path: Path) -> None:
    model = mobilenet.create("deeplabv3plus_mobilenet_v2", classes=3, resolution=64, width_multiplier=0.35)
    assert model.task == "segment"
    assert model.preprocessing.resize == "stretch"
    batch = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype(np.float32)
    expected = reference.run(model.graph, model.weights, batch)["logits"]
    assert expected.std() > 0
    model.save(tmp_path / "m.safetensors")
    found = mobilenet.load(tmp_path / "m.safetensors")
    assert found.task == "segment"
    assert np.abs(found.run(batch)["logits"] - expected).max() <= 1e-4 * np.abs(expected).max()


def test_classes_are_those_of_voc_if_nothing_is_said() -> None:
    assert build("lraspp_mobilenet_v2", resolution=32).types["segment.resize"].shape == (32, 32, 21)
    assert build("mobilenet_v2", resolution=32).types["classifier"].shape == (1000,)


def test_create_at_another_stride_and_size() -> None:
    model = mobilenet.create("mobilenet_v2", head="lraspp", classes=2, resolution=(96, 64), output_stride=8)
    assert model.graph.types["segment.enlarge"].shape[:2] == (12, 8)
    assert (model.preprocessing.height, model.preprocessing.width) == (96, 64)


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("mobilenet_v2", {"head": "lrasp"}, "did you mean 'lraspp'"),
        ("lraspp_mobilenet_v2", {"head": "deeplabv3"}, "says head 'lraspp', but head is 'deeplabv3'"),
        ("lraspp_mobilenet_v2", {"head_options": {"chanels": 3}}, "no option 'chanels'; it has channels"),
        ("lraspp_mobilenet_v2", {"head_options": {"channels": 0}}, "whole number from 1 to 4096, not 0"),
        ("lraspp_mobilenet_v2", {"head_options": {"channels": True}}, "whole number from 1"),
        ("lraspp_mobilenet_v2", {"head_options": {"auxiliary": 1}}, "true or false, not 1"),
        ("mobilenet_v2", {"head_options": {"channels": 3}}, "has no head"),
        ("lraspp_mobilnet_v2", {}, "did you mean 'mobilenet_v2'"),
    ],
)
def test_what_there_is_not_is_named(name: str, words: dict, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        mobilenet.create(name, classes=3, resolution=64, **words)

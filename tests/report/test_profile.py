"""The profile's dictionary adds up, its tables say the same, and a grid is the papers' grid."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from mobilenet.errors import ArgumentError
from mobilenet.family.names import build
from mobilenet.graph.graph import Graph, Node, TensorType
from mobilenet.graph.ops import BatchNorm, Conv
from mobilenet.report.profile import grid, in_bytes, in_millions, print_grid, print_profile, profile_to_dict


def printed(show: object, *arguments: object) -> str:
    stream = io.StringIO()
    show(*arguments, Console(file=stream, width=120))  # type: ignore[operator]
    return stream.getvalue()


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v4_hybrid_medium", "mobilefacenet"])
def test_layers_sum_to_the_totals(name: str) -> None:
    values = json.loads(json.dumps(profile_to_dict(build(name), name)))
    assert {
        "name", "params", "macs", "peak_activation_bytes", "peak_activation_bytes_banded", "layers", "ratio",
        "attention_macs", "standard_convolution_macs", "weights_bytes", "input",
    } == set(values)  # fmt: skip
    assert sum(layer["params"] for layer in values["layers"]) == values["params"]
    assert sum(layer["macs"] for layer in values["layers"]) == values["macs"] + values["attention_macs"]
    assert values["input"] == {"image": list(build(name).types["image"].shape)}


def test_a_layer_is_a_convolution_with_its_norm_and_activation() -> None:
    values = profile_to_dict(build("mobilenet_v2"), "v2")
    assert values["layers"][0] == {
        "name": "stem.conv",
        "kind": "conv",
        "operator": "conv 3×3 /2 relu6",
        "shape": [112, 112, 32],
        "params": 27 * 32 + 64,
        "macs": 112 * 112 * 27 * 32,
        "activation_bytes": 112 * 112 * 32 * 4,
    }
    assert not any(layer["kind"] == "batch_norm" for layer in values["layers"])
    dilated = profile_to_dict(build("mobilenet_v2", output_stride=16), "v2")
    assert "depthwise conv 3×3 dilated 2 relu6" in {layer["operator"] for layer in dilated["layers"]}


def test_printed_table() -> None:
    text = printed(print_profile, profile_to_dict(build("mobilenet_v2"), "mobilenet_v2"))
    assert "3,504,872" in text and "300,774,272" in text and "6.02 MB" in text and "1.46 MB" in text
    assert "blocks.16.project.conv" in text and "112×112×32" in text
    assert "attention" not in text
    assert "41,943,040" in printed(print_profile, profile_to_dict(build("mobilenet_v4_hybrid_medium"), "hybrid"))


def test_names_are_no_markup() -> None:
    nodes = (Node("[/red]", Conv(out_channels=2), ("image",)), Node("norm", BatchNorm(), ("[/red]",)))
    graph = Graph({"image": TensorType((4, 4, 3))}, nodes, {"out": "norm"})
    text = printed(print_profile, profile_to_dict(graph, "[bold]mine"))
    assert "[/red]" in text and "[bold]mine" in text


def test_grid_of_the_v2_paper() -> None:
    """measured_counts.json: V2 0.5 at 160 and 1.4 at 224."""
    points = {(p["width"], p["resolution"]): p for p in grid("mobilenet_v2")}
    assert len(points) == 25 and next(iter(points)) == (1.4, 224)
    assert (points[0.5, 160]["params"], points[0.5, 160]["macs"]) == (1_968_680, 50_184_000)
    assert (points[1.4, 224]["params"], points[1.4, 224]["macs"]) == (6_108_776, 582_195_824)
    text = printed(print_grid, list(points.values()))
    assert "50.2 M" in text and "6.11 M" in text and "0.35" in text


def test_grid_of_a_name_that_says_its_width() -> None:
    points = grid("mobilenetv2_050", resolutions=[96], classes=10, dialect="torchvision")
    assert [(p["name"], p["width"], p["resolution"]) for p in points] == [("mobilenetv2_050", 0.5, 96)]
    with pytest.raises(ArgumentError, match="leave one out"):
        grid("mobilenetv2_050", widths=[1.0])
    with pytest.raises(ArgumentError, match="at least one width and one resolution"):
        grid("mobilenet_v2", widths=[])


@pytest.mark.parametrize(
    ("size", "text"), [(0, ""), (64, "64 B"), (1000, "1.0 kB"), (802_816, "802.8 kB"), (6_021_120, "6.02 MB")]
)
def test_sizes(size: int, text: str) -> None:
    assert in_bytes(size) == text
    assert (in_millions(3_504_872), in_millions(300_774_272)) == ("3.50 M", "300.8 M")

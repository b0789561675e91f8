"""Model files for the native tests: small members of the family at odd sizes, and the graphs of edge_graphs.py."""

from __future__ import annotations

from edge_graphs import CASES, build, encode_graph

from mobilenet.files.model_file import encode
from mobilenet.quantise.random import random_model, random_quantised_model

MEMBERS = [  # name, width multiplier, height and width of the picture
    ("mobilenet_v1", 0.35, (33, 47)),
    ("mobilenet_v2", 0.35, (61, 47)),
    ("mobilenet_v3_small", 0.6, (33, 47)),
    ("mobilenet_v4_conv_small", 0.35, (47, 33)),
    ("mobilefacenet_s", 0.35, (48, 40)),
]
HYBRID = ("mobilenet_v4_hybrid_medium", 0.35, (32, 32))
LARGE = ("many_channels", "a_mean_of_many_pixels")  # minutes in a program that checks every access


def write_members(folder):
    """Each float and quantised; the attention of the hybrid is float."""
    paths = []
    for name, width, resolution in MEMBERS:
        pair = random_quantised_model(name, pictures=1, width_multiplier=width, resolution=resolution)
        for kind, model in zip(("float", "integer"), pair, strict=True):
            paths.append(folder / f"{name}-{kind}.safetensors")
            paths[-1].write_bytes(encode(model))
    name, width, resolution = HYBRID
    paths.append(folder / f"{name}.safetensors")
    paths[-1].write_bytes(encode(random_model(name, width_multiplier=width, resolution=resolution)))
    return paths


def write_edges(folder):
    """The graphs at their edges."""
    paths = []
    for name in CASES:
        if name.partition("-")[0] not in LARGE:
            graph, weights, _ = build(name)
            paths.append(folder / f"{name}.safetensors")
            paths[-1].write_bytes(encode_graph(graph, weights))
    return paths

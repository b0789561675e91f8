"""The reference against LiteRT on the official quantised files, a few pictures each.

bench/tflite_parity.py measures the same on many pictures and explains the comparisons; its functions are used.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert.interpreter")

BENCH = Path(__file__).resolve().parents[2] / "bench" / "tflite_parity.py"
FILES = {  # with the number of pictures
    "mobilenet_v1_0.25_128_quant": 3,
    "mobilenet_v1_0.5_160_quant": 3,
    "mobilenet_v1_0.75_192_quant": 2,
    "mobilenet_v1_1.0_224_quant_embedding_extractor": 2,
    "mobilenet_v2_1.0_224_quant": 2,
    "mobilenet_v2_1.0_224_inat_bird_quant": 2,
    "tf2_mobilenet_v2_1.0_224_ptq": 2,
    "deeplabv3_mnv2_pascal_quant": 1,
}
MOST_OFF = 0.005  # of the values of all layers together
TWICE = "builtin_ref, rounded as it does"


@cache
def bench():
    specification = importlib.util.spec_from_file_location("tflite_parity", BENCH)
    module = importlib.util.module_from_spec(specification)
    __import__("sys").modules["tflite_parity"] = module
    specification.loader.exec_module(module)
    return module


@cache
def measured(shared, name):
    photos = [p for p in bench().find_pictures(shared, 0) if "mask" not in p.name]
    pictures = photos[:: len(photos) // FILES[name]][: FILES[name]]
    return bench().measure(shared / "weights/coral" / f"{name}.tflite", pictures)


@pytest.mark.parametrize("name", FILES)
def test_every_layer_is_that_of_the_default_kernels(shared, name):
    layers = measured(shared, name).layers["xnnpack"].values()
    assert max(layer.largest for layer in layers) <= 1
    assert sum(layer.off for layer in layers) <= MOST_OFF * sum(layer.values for layer in layers)


@pytest.mark.parametrize("name", FILES)
def test_every_layer_is_that_of_the_reference_kernels(shared, name):
    """Within 1 quantum as it is; all but equal if our requantisation is replaced by theirs, which rounds twice."""
    parity = measured(shared, name)
    assert max(layer.largest for layer in parity.layers["builtin_ref"].values()) <= 1
    layers = parity.layers[TWICE].values()
    assert max(layer.largest for layer in layers) <= 1
    assert sum(layer.off for layer in layers) <= MOST_OFF * sum(layer.values for layer in layers)


def pairs_of(parity, of_ours):
    return [pair for name, pair in parity.pairs.items() if name.startswith("ours") == of_ours]


@pytest.mark.parametrize("name", [name for name in FILES if "deeplab" not in name])
def test_no_further_from_litert_than_its_kernels_are_from_each_other(shared, name):
    parity = measured(shared, name)
    for measure in ("share_beyond_one", "largest"):
        ours, theirs = ([getattr(pair, measure) for pair in pairs_of(parity, who)] for who in (True, False))
        assert max(ours) <= max(theirs)
    assert min(p.same_top1 for p in pairs_of(parity, True)) >= min(p.same_top1 for p in pairs_of(parity, False))


@pytest.mark.parametrize("name", [name for name in FILES if "deeplab" not in name and "embedding" not in name])
def test_top1_is_that_of_the_default_kernels_where_it_is_clear(shared, name):
    assert measured(shared, name).pairs["ours - xnnpack"].unclear == 0


def test_deeplab_gives_the_same_class_map(shared):
    assert np.mean(measured(shared, "deeplabv3_mnv2_pascal_quant").same_classes["ours - xnnpack"]) >= 0.99


@pytest.mark.parametrize("name", ["mobilenet_v1_0.75_192_quant", "tf2_mobilenet_v2_1.0_224_ptq"])
def test_the_float_graph_sees_the_same(shared, name):
    parity = measured(shared, name)
    assert parity.float_top1 >= parity.pictures - 1

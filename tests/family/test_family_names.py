"""Names: what they stand for, what explicit arguments do to them, and how wrong ones are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mobilenet.errors import ArgumentError
from mobilenet.family.dialects import DIALECTS
from mobilenet.family.names import build, describe, list_models, preprocessing_preset, resolve
from mobilenet.family.tables import TABLES
from mobilenet.pictures.preprocess import PRESETS


@pytest.mark.parametrize(
    ("name", "table", "width", "side", "dialect"),
    [
        ("mobilenet_v2", "mobilenet_v2", 1.0, 224, "paper"),
        ("mobilefacenet", "mobilefacenet", 1.0, 112, "paper"),
        ("mobilenet_v4_conv_medium", "mobilenet_v4_conv_medium", 1.0, 256, "paper"),
        ("mobilenetv2_050", "mobilenet_v2", 0.5, 224, "timm"),
        ("mobilenetv3_large_100", "mobilenet_v3_large", 1.0, 224, "timm"),
        ("mobilenetv3_rw", "mobilenet_v3_large_rw", 1.0, 224, "timm_rw"),
        ("tf_mobilenetv3_small_minimal_100", "mobilenet_v3_small_minimalistic", 1.0, 224, "timm_tf"),
        ("mobilenetv4_conv_small", "mobilenet_v4_conv_small", 1.0, 224, "timm"),
        ("mobilenetv4_conv_small_035", "mobilenet_v4_conv_small", 0.35, 224, "timm"),
        ("mobilenetv2_110d", "mobilenet_v2_110d", 1.1, 224, "timm"),
        ("mobilenetv4_conv_medium.e500_r224_in1k", "mobilenet_v4_conv_medium", 1.0, 224, "timm"),
        ("timm/mobilenetv3_large_150d.ra4_e3600_r256_in1k", "mobilenet_v3_large_150d", 1.5, 256, "timm"),
        ("timm/tf_mobilenetv3_large_075.in1k", "mobilenet_v3_large", 0.75, 224, "timm_tf"),
        ("mobilenet_v2_0.5_160", "mobilenet_v2", 0.5, 160, "slim"),
        ("mobilenet_v1_1.0_224", "mobilenet_v1", 1.0, 224, "slim"),
        ("mobilenet_v2_050_160", "mobilenet_v2", 0.5, 160, "slim"),
        ("mobilenet_v3_small_0.35", "mobilenet_v3_small", 0.35, 224, "slim"),
        ("mobilenet_v4_conv_large_0.5_320", "mobilenet_v4_conv_large", 0.5, 320, "paper"),
        ("v3-large_224_0.75_float", "mobilenet_v3_large", 0.75, 224, "slim"),
        ("v3-small-minimalistic_224_1.0", "mobilenet_v3_small_minimalistic", 1.0, 224, "slim"),
        ("MobileNet", "mobilenet_v1", 1.0, 224, "keras"),
        ("MobileNetV3Small", "mobilenet_v3_small", 1.0, 224, "keras"),
        ("torchvision/mobilenet_v3_large", "mobilenet_v3_large", 1.0, 224, "torchvision"),
        ("google/mobilenet_v2_1.4_224", "mobilenet_v2", 1.4, 224, "slim"),
    ],
)
def test_known_names(name: str, table: str, width: float, side: int, dialect: str) -> None:
    spec = resolve(name)
    assert (spec.name, spec.width_multiplier, spec.resolution, spec.dialect) == (table, width, side, dialect)
    assert build(name).types["image"].shape == (side, side, 3)


def test_timms_sizes_are_theirs(shared: Path) -> None:
    measured = json.loads((shared / "reference/measured_counts.json").read_text())["timm"]
    assert {name: resolve(name).resolution for name in measured} == {
        name: fact["input_size"][1] for name, fact in measured.items()
    }


def test_explicit_arguments_win() -> None:
    graph = build("mobilenetv2_050", resolution=(96, 128), dialect="torchvision", width_multiplier=0.5)
    assert graph == build("mobilenet_v2", resolution=(96, 128), dialect="torchvision", width_multiplier=0.5)
    assert graph.types["image"].shape == (96, 128, 3)


@pytest.mark.parametrize("name", ["mobilenetv2_050", "mobilenet_v2_0.5_160", "mobilenet_v2_110d"])
def test_two_widths_are_a_contradiction(name: str) -> None:
    with pytest.raises(ArgumentError, match=r"says width .* width_multiplier is 0.75; leave one out"):
        build(name, width_multiplier=0.75)


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("mobilenetv2_50", "mobilenetv2"),
        ("mobilnet_v2", "mobilenet_v2"),
        ("MobilenetV2", "MobileNetV2"),
        ("mobilenet-v3-large", "mobilenetv3_large"),
        ("mobilenet_v2_1.0_224_quant", "mobilenet_v2"),
        ("torchvision/mobilenet_v22", "mobilenet_v2"),
    ],
)
def test_a_typo_is_answered_with_the_nearest_name(name: str, close: str) -> None:
    with pytest.raises(ArgumentError, match=f"unknown network .* did you mean '{close}"):
        resolve(name)


@pytest.mark.parametrize(
    "name", ["resnet50", "", "/", 3, None, ["mobilenet_v2"], "_1.0_224", "mobilenetv2_110d_050"]
)
def test_what_is_no_network_is_refused(name: Any) -> None:
    with pytest.raises(ArgumentError, match="unknown network"):
        build(name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width_multiplier": 0}, "width_multiplier 0 must be a number above 0"),
        ({"width_multiplier": -1.0}, "width_multiplier -1.0"),
        ({"width_multiplier": float("nan")}, "width_multiplier nan"),
        ({"width_multiplier": float("inf")}, "width_multiplier inf"),
        ({"width_multiplier": "1"}, "width_multiplier '1'"),
        ({"width_multiplier": True}, "width_multiplier True"),
        ({"width_multiplier": 1e7}, "cannot be built this large: field 'out_channels'"),
        ({"resolution": 31}, "resolution 31 must be a whole number of pixels, at least 32"),
        ({"resolution": 224.0}, "resolution 224.0"),
        ({"resolution": (224, 224, 3)}, r"resolution \(224, 224, 3\)"),
        ({"resolution": (224, 16)}, r"resolution \(224, 16\)"),
        ({"resolution": 10**6}, "cannot be built this large"),
        ({"classes": 2**21}, "cannot be built this large"),
        ({"classes": 0}, "classes 0 must be a whole number, at least 1"),
        ({"classes": 2.0}, "classes 2.0"),
        ({"channels": 0}, "channels 0"),
        ({"output_stride": 4}, "output_stride 4 must be one of 8, 16, 32"),
        ({"dropout": 1.0}, "dropout 1.0 must be a probability"),
        ({"drop_path": -0.1}, "drop_path -0.1 must be a probability"),
        ({"dialect": "torchvison"}, "no dialect 'torchvison'; did you mean 'torchvision'"),
        ({"dialect": "caffe"}, "no dialect 'caffe'; it has paper, slim, keras, torchvision, timm, d_li14"),
        ({"dialect": ["timm"]}, "no dialect"),
    ],
)
def test_impossible_values_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        build("mobilenet_v2", **options)


def test_a_project_that_has_no_such_network_is_refused() -> None:
    with pytest.raises(
        ArgumentError, match="family 'v1' has no dialect 'torchvision'; it has paper, slim, keras, timm"
    ):
        build("torchvision/mobilenet_v1")


def test_patterns() -> None:
    assert list_models("*v3*small*") == [
        "mobilenet_v3_small",
        "mobilenet_v3_small_minimalistic",
        "mobilenet_v3_small_reduced_tail",
    ]
    assert list_models() == list(TABLES) and list_models("resnet*") == []
    assert "MobileNetV2" in list_models("MobileNet*", aliases=True)
    for name in list_models(aliases=True):
        assert build(name).types["image"].shape[2] == 3


def test_description() -> None:
    description = describe("mobilenetv3_large_100")
    assert description.spec == resolve("mobilenetv3_large_100")
    assert "1905.02244" in description.source and description.outputs == ("logits", "embedding")
    assert "torchvision" in description.dialects
    assert describe("mobilefacenet").outputs == ("embedding",)


def test_every_dialect_has_a_preprocessing() -> None:
    names = {dialect for family in DIALECTS.values() for dialect in family}
    assert {preprocessing_preset(name) for name in names} <= set(PRESETS)
    assert (preprocessing_preset("keras"), preprocessing_preset("torchvision")) == ("tf", "imagenet")
    with pytest.raises(ArgumentError, match="unknown dialect 'caffe'; known are paper"):
        preprocessing_preset("caffe")

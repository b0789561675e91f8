"""What config.json and preprocessor_config.json say travels with the model; what they say wrongly is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from import_peers import look_alike, save

import mobilenet
from mobilenet.errors import ModelFileError
from mobilenet.files.imports.read import read_import
from mobilenet.files.imports.sources import Ends

TIMM = {
    "architecture": "mobilenetv4_conv_small_035",
    "num_classes": 2,
    "label_names": ["n1", "n2"],
    "label_descriptions": {"n1": "tench", "n2": "goldfish"},
    "pretrained_cfg": {
        "input_size": [3, 160, 192],
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "crop_mode": "squash",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.5, 0.5],
        "license": "apache-2.0",
    },
}
TRANSFORMERS = {
    "model_type": "mobilenet_v2",
    "architectures": ["MobileNetV2ForImageClassification"],
    "image_size": 96,
    "layer_norm_eps": 0.002,
    "tf_padding": False,
    "id2label": {"1": "tench", "0": "background"},
}
PROCESSOR = {
    "crop_size": {"height": 96, "width": 96},
    "do_center_crop": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 128},
}


def folder(path: Path, project: str, name: str, width: float, **files: Any) -> Path:
    save(look_alike(project, name, width, Ends(3, 2)), path / "model.safetensors")
    for stem, content in files.items():
        (path / f"{stem}.json").write_text(json.dumps(content))
    return path


def test_timms_folder(tmp_path: Path) -> None:
    model = mobilenet.load(folder(tmp_path, "timm", "mobilenetv4_conv_small", 0.35, config=TIMM))
    rule = model.preprocessing
    assert rule is not None
    assert (rule.height, rule.width, rule.resize, rule.crop_fraction) == (160, 192, "stretch", 0.95)
    assert (rule.interpolation, rule.mean, rule.std) == ("bicubic", (127.5,) * 3, (63.75, 127.5, 127.5))
    assert model.labels == ("tench", "goldfish")
    assert model.licence == "apache-2.0"
    assert model.input.shape == (160, 192, 3)
    assert "assumed" not in model.provenance


def test_transformers_folder(tmp_path: Path) -> None:
    place = folder(
        tmp_path, "transformers", "mobilenet_v2", 0.35, config=TRANSFORMERS, preprocessor_config=PROCESSOR
    )
    model = mobilenet.load(place)
    rule = model.preprocessing
    assert rule is not None
    assert (rule.height, rule.width, rule.crop_fraction, rule.interpolation) == (96, 96, 0.75, "bicubic")
    assert rule.mean == pytest.approx((127.5,) * 3)
    assert model.labels == ("background", "tench")
    stem = model.graph.node("stem.conv").operator
    assert stem.padding == (1, 1, 1, 1)  # type: ignore[attr-defined]  # tf_padding is off
    assert model.graph.node("stem.batch_norm").operator.epsilon == 0.002  # type: ignore[attr-defined]


def test_a_resolution_of_the_callers_comes_first(tmp_path: Path) -> None:
    place = folder(tmp_path, "timm", "mobilenetv4_conv_small", 0.35, config=TIMM)
    contents = read_import(place, resolution=128)
    assert contents.preprocessing is not None
    assert (contents.preprocessing.height, contents.preprocessing.width) == (128, 128)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("crop_mode", "zoom", "'crop_mode' is 'zoom'; accepted are center"),
        ("crop_pct", "much", "'crop_pct' is 'much', not a number"),
        ("interpolation", "sinc", "unknown|interpolation"),
        ("mean", [1, "a", 3], "'mean' is .* not a list of numbers"),
        ("mean", [0.5], "mean"),
        ("std", [0, 0, 0], "std"),
        ("input_size", [224], "'input_size'"),
        ("input_size", [3, 8, 8], "config.json says pictures of 8 x 8; 32 to 16384 are read"),
        ("input_size", [3, 1e9, 1e9], "config.json says pictures of 1000000000 x"),
        ("license", 3, "'license' is 3, not a text"),
    ],
)
def test_a_wrong_value_is_named(key: str, value: Any, message: str, tmp_path: Path) -> None:
    config = {**TIMM, "pretrained_cfg": {**TIMM["pretrained_cfg"], key: value}}  # type: ignore[dict-item]
    with pytest.raises(ModelFileError, match=message):
        read_import(folder(tmp_path, "timm", "mobilenetv4_conv_small", 0.35, config=config))


def test_labels_that_do_not_count_their_classes(tmp_path: Path) -> None:
    config = {**TRANSFORMERS, "id2label": {"0": "a", "7": "b"}}
    with pytest.raises(ModelFileError, match="'id2label' does not number its 2 labels from 0"):
        read_import(folder(tmp_path, "transformers", "mobilenet_v2", 0.35, config=config))


@pytest.mark.parametrize("text", ["", "[1]", '{"architecture": 3}', "[" * 100_000])
def test_a_config_that_is_none(text: str, tmp_path: Path) -> None:
    place = folder(tmp_path, "timm", "mobilenetv4_conv_small", 0.35)
    (place / "config.json").write_text(text)
    with pytest.raises(ModelFileError, match=r"config.json"):
        read_import(place)


def test_folders_with_no_or_several_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="a folder needs one checkpoint"):
        mobilenet.load(tmp_path)
    for name in ("a", "b"):
        save(look_alike("timm", "mobilenetv4_conv_small", 0.35), tmp_path / f"{name}.safetensors")
    with pytest.raises(ModelFileError, match=r"several \(a.safetensors, b.safetensors\)"):
        mobilenet.load(tmp_path)

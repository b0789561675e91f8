"""Nets that other projects built and saved give, once imported, those projects' own logits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from import_peers import parity, peer

import mobilenet
from mobilenet.files.imports.read import read_import

LIMIT = 1e-4  # of the largest logit

TIMM = [
    "mobilenetv1_100h",
    "mobilenetv2_035",
    "mobilenetv3_large_150d",
    "mobilenetv3_rw",
    "mobilenetv3_small_050",
    "tf_mobilenetv3_small_minimal_100",
    "tf_mobilenetv3_large_075",
    "mobilenetv4_conv_small_035",
    "mobilenetv4_conv_blur_medium",
    "mobilenet_edgetpu_100",
]
TORCHVISION = ["mobilenet_v2 0.35", "mobilenet_v3_small 0.75", "mobilenet_v3_large reduced_tail"]
KERAS = [
    "MobileNet 0.25",  # .keras, as are others, .h5 and .weights.h5: the program takes turns
    "MobileNetV2 0.35",
    "MobileNetV2 0.5",
    "MobileNetV3Small 0.35",
    "MobileNetV3Small minimalistic 0.35",
]


@pytest.mark.parametrize(
    ("project", "name"),
    [
        *(("timm", name) for name in TIMM),
        *(("torchvision", name) for name in TORCHVISION),
        *(("keras", name) for name in KERAS),
    ],
)
def test_logits_are_the_peers_own_at_two_sizes(project: str, name: str, tmp_path: Path) -> None:
    found = peer(project, name)
    net = found.build()
    path = found.save(net, tmp_path)
    for side in (96, 75):  # an odd size shows how a net pads
        error, varies = parity().compared(found, net, path, side)
        assert varies > 0.01, "the net answers the same to everything"
        assert error <= LIMIT, side


def test_attention_gives_the_peers_logits(tmp_path: Path) -> None:
    found = peer("timm", "mobilenetv4_hybrid_medium_075")
    net = found.build()
    path = found.save(net, tmp_path)
    assert parity().compared(found, net, path, 224)[0] <= LIMIT


def test_a_net_of_other_classes_and_channels_gives_the_peers_logits(tmp_path: Path) -> None:
    import_parity = parity()
    import_parity.declare_torchvision_operators()
    timm = pytest.importorskip("timm", reason="timm is not installed", exc_type=ImportError)
    import torch

    net = timm.create_model("mobilenetv3_small_050", num_classes=7, in_chans=1).eval()
    torch.save(
        {"model": {f"module.{name}": value for name, value in net.state_dict().items()}}, tmp_path / "x.pth"
    )
    model = mobilenet.load(tmp_path / "x.pth")
    assert model.preprocessing is not None
    assert model.preprocessing.channels == "L"
    batch = np.random.default_rng(0).standard_normal((1, 224, 224, 1)).astype(np.float32)
    expected = import_parity.torch_answer(net, batch)
    assert expected.shape == (1, 7)
    assert np.abs(model.run(batch)["logits"] - expected).max() <= LIMIT * np.abs(expected).max()


@pytest.mark.parametrize("form", ["num_classes=0", "half", "bfloat16"])
def test_a_net_without_classifier_or_in_half_precision(form: str, tmp_path: Path) -> None:
    import_parity = parity()
    import_parity.declare_torchvision_operators()
    timm = pytest.importorskip("timm", reason="timm is not installed", exc_type=ImportError)
    from safetensors.torch import save_file

    words = {"num_classes": 0} if form == "num_classes=0" else {}
    net = import_parity.settled(timm.create_model("mobilenetv3_small_050", **words), 96)
    if not words:
        net = (net.half() if form == "half" else net.bfloat16()).float()  # the values that the file can hold
    state = net.state_dict()
    kept = {
        name: v.half() if form == "half" else v.bfloat16() if form == "bfloat16" else v
        for name, v in state.items()
    }
    save_file(
        {name: v if v.is_floating_point() else state[name] for name, v in kept.items()}, tmp_path / "x.safetensors"
    )
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "mobilenetv3_small_050"}))
    model = mobilenet.load(tmp_path / "x.safetensors")
    batch = np.random.default_rng(0).standard_normal((1, 224, 224, 3)).astype(np.float32)
    expected = import_parity.torch_answer(net, batch)
    output = "embedding" if words else "logits"
    assert model.task == ("embed" if words else "classify")
    assert np.abs(model.run(batch)[output] - expected).max() <= LIMIT * np.abs(expected).max()


@pytest.mark.parametrize("name", ["MobileNet", "MobileNetV2", "MobileNetV3Small"])
def test_keras_without_its_top(name: str, tmp_path: Path) -> None:
    parity()
    keras = pytest.importorskip("keras", reason="keras is not installed")
    pytest.importorskip("h5py", reason="h5py is not installed: pip install 'mobilenet[import]'")
    words = {"weights": None, "include_top": False, "pooling": "avg", "input_shape": (96, 96, 3)}
    net = getattr(keras.applications, name)(**words)
    net.save(tmp_path / "x.keras")
    model = mobilenet.load(tmp_path / "x.keras")
    assert model.task == "embed"
    assert model.input.shape == (96, 96, 3)
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 96, 96, 3)).astype(np.float32)
    inside = "V3" in name  # where the net itself rescales
    expected = np.asarray(keras.ops.convert_to_numpy(net(pixels if inside else pixels / 127.5 - 1)))
    assert model.preprocessing is not None
    found = model.run((pixels - np.float32(model.preprocessing.mean[0])) / np.float32(model.preprocessing.std[0]))
    assert np.abs(found["embedding"] - expected).max() <= LIMIT * np.abs(expected).max()


def test_a_keras_model_inside_a_model_is_found(tmp_path: Path) -> None:
    """Transfer learning in Keras: a base without its top is one layer of another model."""
    parity()
    keras = pytest.importorskip("keras", reason="keras is not installed")
    pytest.importorskip("h5py", reason="h5py is not installed: pip install 'mobilenet[import]'")
    base = keras.applications.MobileNetV2(weights=None, include_top=False, alpha=0.35, input_shape=(64, 64, 3))
    picture = keras.Input((64, 64, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(base(picture))
    net = keras.Model(picture, keras.layers.Dense(3, name="predictions")(pooled))
    net.save(tmp_path / "x.keras")
    model = mobilenet.load(tmp_path / "x.keras")
    batch = np.random.default_rng(0).standard_normal((1, 64, 64, 3)).astype(np.float32)
    expected = np.asarray(keras.ops.convert_to_numpy(net(batch)))
    assert np.abs(model.run(batch)["logits"] - expected).max() <= LIMIT * np.abs(expected).max()


def test_a_deeper_resolution_may_be_a_rectangle(tmp_path: Path) -> None:
    found = peer("torchvision", "mobilenet_v2 0.35")
    net = found.build()
    path = found.save(net, tmp_path)
    contents = read_import(path, resolution=(64, 96))
    batch = np.random.default_rng(0).standard_normal((1, 64, 96, 3)).astype(np.float32)
    expected = found.answer(net, batch)
    logits = mobilenet.Model.of(contents).run(batch)["logits"]
    assert np.abs(logits - expected).max() <= LIMIT * np.abs(expected).max()

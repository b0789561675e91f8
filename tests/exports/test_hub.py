"""Folders for the Hugging Face hub: files, refusals, and that timm gives the model's logits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mobilenet
from mobilenet.errors import ArgumentError
from mobilenet.exports import Exported, Options, export
from mobilenet.graph.fold import fold
from mobilenet.model import Model
from mobilenet.quantise.random import random_model

LABELS = tuple(f"class: {number} #" for number in range(5))
NAMES = ("mobilenetv1_100h", "mobilenetv2_035", "mobilenetv3_small_050", "tf_mobilenetv3_small_minimal_100",
         "mobilenetv3_rw", "mobilenetv4_conv_small_035")  # fmt: skip


@pytest.fixture(scope="module")
def timm() -> Any:
    """The package, beside a CPU build of torch; torchvision wants two operators to be declared first."""
    torch = pytest.importorskip("torch", reason="timm needs mobilenet[train]")
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    try:
        import timm
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"timm is the peer that reads the folder: {error}")
    yield timm
    del library


def small(name: str, **words: Any) -> Model:
    model = random_model(name, resolution=64, classes=5, **words)
    return Model.of(
        replace(model, labels=LABELS, licence="Apache-2.0", metrics={"top1": 0.875, "data": "owls: 5"})
    )


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Model, Path, Exported]]:
    """A small model by its name, its folder, and how it was written: once for all tests, which only read it."""

    @cache
    def written(name: str) -> tuple[Model, Path, Exported]:
        model, folder = small(name), tmp_path_factory.mktemp(name) / "hub"
        return model, folder, export(model, folder, to="hub")

    return written


@pytest.mark.parametrize("name", NAMES)
def test_timm_gives_the_models_logits(name: str, hub: Any, timm: Any) -> None:
    import torch

    model, folder, done = hub(name)
    assert done.proof.pictures > 1 and done.proof.runtime.startswith("timm")
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    picture = np.random.default_rng(0).standard_normal((1, 64, 64, 3)).astype(np.float32)
    with torch.inference_mode():
        found = network(torch.from_numpy(picture.transpose(0, 3, 1, 2).copy())).numpy()
    expected = model.run(picture)["logits"]
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    assert network.num_classes == 5 and list(network.pretrained_cfg["input_size"]) == [3, 64, 64]


@pytest.mark.parametrize("name", ["mobilenetv1_100h", "mobilenetv2_035"])
def test_transformers_gives_the_models_logits(
    name: str,
    hub: Any,
    timm: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By its wrapper of timm's networks, which knows the folder by its config.json; nothing is missing for it."""
    import torch

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    transformers = pytest.importorskip("transformers", reason="transformers is a peer that reads the folder")
    model, folder, _ = hub(name)
    network, said = transformers.AutoModelForImageClassification.from_pretrained(folder, output_loading_info=True)
    assert not said["missing_keys"] and not said["unexpected_keys"] and not said["mismatched_keys"]
    assert list(network.config.id2label.values()) == list(LABELS)
    picture = np.random.default_rng(0).standard_normal((1, 64, 64, 3)).astype(np.float32)
    with torch.inference_mode():
        found = network.eval()(torch.from_numpy(picture.transpose(0, 3, 1, 2).copy())).logits.numpy()
    expected = model.run(picture)["logits"]
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    smooth = Image.fromarray(np.full((90, 80, 3), (200, 90, 30), np.uint8))
    pixels = processor(smooth, return_tensors="pt")["pixel_values"].numpy()
    expected = model.to_input(model.preprocessing.geometry(np.asarray(smooth))[None]).transpose(0, 3, 1, 2)
    assert np.abs(pixels - expected).max() < 1e-5


def test_timm_reads_the_preprocessing(hub: Any, timm: Any) -> None:
    network = timm.create_model(f"local-dir:{hub('mobilenetv2_035')[1]}", pretrained=True)
    rule = timm.data.resolve_model_data_config(network)
    assert rule["interpolation"] == "bicubic" and rule["crop_pct"] == 0.875 and rule["crop_mode"] == "center"
    assert rule["mean"] == pytest.approx((0.485, 0.456, 0.406)) and rule["std"] == pytest.approx(
        (0.229, 0.224, 0.225)
    )


def test_the_files_of_a_folder(hub: Any) -> None:
    _, folder, _ = hub("mobilenetv3_small_050")
    names = {path.name for path in folder.iterdir()}
    assert names == {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"] == "mobilenetv3_small_050" and config["label_names"] == list(LABELS)
    assert config["num_classes"] == 5 == config["pretrained_cfg"]["num_classes"]
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    assert processor["crop_size"] == {"height": 64, "width": 64} and processor["size"] == {"shortest_edge": 73}


def test_the_card_has_a_header_that_yaml_reads(hub: Any) -> None:
    yaml = pytest.importorskip("yaml", reason="needs mobilenet[train]")
    _, header, text = (hub("mobilenetv3_small_050")[1] / "README.md").read_text().split("---\n", 2)
    values = yaml.safe_load(header)
    assert values["license"] == "apache-2.0" and values["library_name"] == "timm"
    (result,) = values["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "accuracy", "value": 0.875}] and result["dataset"]["name"] == "owls: 5"
    assert "class: 4 #" in text


def test_a_networks_own_name_is_found_by_its_graph(tmp_path: Path) -> None:
    """V3 with TensorFlow's padding and epsilon is timm's tf_ form, whatever it was created as."""
    export(mobilenet.create("mobilenet_v3_small", resolution=64), tmp_path / "hub", to="hub")
    config = json.loads((tmp_path / "hub" / "config.json").read_text())
    assert config["architecture"] == "tf_mobilenetv3_small_100"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mobilenet_v2", {}),  # TensorFlow's padding, which timm's V2 does not have
        ("mobilenetv2_100", {"width_multiplier": 0.6}),
        ("mobilenet_v3_small", {"dialect": "d_li14"}),
    ],
)
def test_what_timm_does_not_have_is_refused(name: str, words: dict[str, Any], tmp_path: Path) -> None:
    base = name.removesuffix("_100") if words.get("width_multiplier") else name
    model = mobilenet.create(base, resolution=64, **words)
    with pytest.raises(ArgumentError, match=f"timm has no architecture like {base} in the same dialect"):
        export(model, tmp_path / "hub", to="hub")
    assert not list(tmp_path.iterdir())


def test_integers_folded_norms_and_embedders_are_refused(models: dict[str, Model], tmp_path: Path) -> None:
    model = mobilenet.create("mobilenetv2_035", resolution=64)
    graph, weights = fold(model.graph, model.weights)
    for refused, why in (
        (models["int8"], "of integers, which timm does not have"),
        (replace(model, graph=graph, weights=weights), "batch norms are folded"),
        (mobilenet.create("mobilefacenet"), "are classifiers; this model has embedding"),
    ):
        with pytest.raises(ArgumentError, match=why):
            export(refused, tmp_path / "hub", to="hub")
    with pytest.raises(ArgumentError, match="--batch and --picture-input"):
        export(model, tmp_path / "hub", to="hub", options=Options(batch=None))
    assert not list(tmp_path.iterdir())


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "mine.txt").write_text("mine")
    with pytest.raises(ArgumentError, match="not empty"):
        export(mobilenet.create("mobilenetv2_035", resolution=64), tmp_path / "hub", to="hub")
    assert [path.name for path in (tmp_path / "hub").iterdir()] == ["mine.txt"]

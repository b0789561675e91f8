"""torchvision's segmenters give torchvision's own scores once imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from import_peers import candidate, look_alike, parity, save

import mobilenet
from mobilenet.errors import ModelFileError
from mobilenet.files.imports.convert import converted
from mobilenet.files.imports.read import read_import
from mobilenet.files.imports.sources import Ends

LIMIT = 1e-4  # of the largest score
NAMES = [("lraspp_mobilenet_v3_large", {}), ("deeplabv3_mobilenet_v3_large", {"aux_loss": True})]


def peer(name: str, words: dict[str, Any]) -> Any:
    """torchvision's net with weights and statistics that are not those of a fresh one."""
    parity().declare_torchvision_operators()
    pytest.importorskip("torchvision", reason="torchvision is not installed", exc_type=ImportError)
    import torch
    from torchvision.models import segmentation

    torch.manual_seed(0)
    net = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=5, **words).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.7, 1.3)
            module.bias.data.normal_(0, 0.2)
    return net


def answer(net: Any, batch: np.ndarray) -> dict[str, np.ndarray]:
    import torch

    with torch.no_grad():
        outputs = net(torch.from_numpy(batch).permute(0, 3, 1, 2))
    return {name: value.permute(0, 2, 3, 1).numpy() for name, value in outputs.items()}


@pytest.mark.parametrize(("name", "words"), NAMES)
def test_scores_are_torchvisions_own(name: str, words: dict[str, Any], tmp_path: Path) -> None:
    net = peer(name, words)
    import torch

    torch.save(net.state_dict(), tmp_path / "x.pth")
    for size in ((96, 128), (75, 90)):
        model = mobilenet.Model.of(read_import(tmp_path / "x.pth", resolution=size))
        assert (model.task, model.provenance["model"]) == ("segment", name)
        batch = np.random.default_rng(0).standard_normal((1, *size, 3)).astype(np.float32)
        expected = answer(net, batch)["out"]
        assert expected.std() > 0.01, "the net answers the same to everything"
        found = model.run(batch)
        assert list(found) == ["logits"], "the auxiliary classifier is for training only"
        assert np.abs(found["logits"] - expected).max() <= LIMIT * np.abs(expected).max()


def test_the_auxiliary_scores_are_torchvisions_own() -> None:
    net = peer(*NAMES[1])
    found = candidate("torchvision", "deeplabv3_mobilenet_v3_large")
    graph = found.graph(1.0, Ends(classes=5), size=(96, 64))
    state = {name: value.numpy() for name, value in net.state_dict().items()}
    model = mobilenet.Model(graph, converted(found.wanted(graph), state), None, task="features")
    batch = np.random.default_rng(0).standard_normal((1, 96, 64, 3)).astype(np.float32)
    expected, outputs = answer(net, batch), model.run(batch)
    for ours, theirs in (("logits", "out"), ("auxiliary_logits", "aux")):
        assert np.abs(outputs[ours] - expected[theirs]).max() <= LIMIT * np.abs(expected[theirs]).max()


def test_labels_size_and_picture_rule(tmp_path: Path) -> None:
    tensors = look_alike("torchvision", "lraspp_mobilenet_v3_large", ends=Ends(classes=3))
    path = save(tensors, tmp_path / "x.safetensors")
    model = mobilenet.Model.of(read_import(path, labels=["background", "cat", "dog"]))
    assert model.names == ("background", "cat", "dog")
    assert model.preprocessing.resize == "pad"
    assert model.input.shape == (512, 512, 3)
    with pytest.raises(ModelFileError, match="3 outputs, but the labels given are 2"):
        read_import(path, labels=["a", "b"])


def test_a_name_may_say_which_head_it_is(tmp_path: Path) -> None:
    path = save(look_alike("torchvision", "lraspp_mobilenet_v3_small"), tmp_path / "x.safetensors")
    assert read_import(path, name="lraspp_mobilenet_v3_small").task == "segment"
    with pytest.raises(ModelFileError, match="says 'mobilenet_v3_small', but the tensors are those of"):
        read_import(path, name="mobilenet_v3_small")


def test_a_missing_tensor_of_the_head_is_named(tmp_path: Path) -> None:
    tensors = look_alike("torchvision", "deeplabv3_mobilenet_v3_large")
    del tensors["classifier.0.convs.4.1.weight"]
    path = save(tensors, tmp_path / "x.safetensors")
    with pytest.raises(ModelFileError, match=r"missing: 'classifier.0.convs.4.1.weight'"):
        read_import(path)

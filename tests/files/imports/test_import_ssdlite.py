"""torchvision's SSDLite: its state dict, its raw outputs, its priors, and what it makes of them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from import_peers import look_alike, parity, save

from mobilenet.errors import ModelFileError
from mobilenet.files.imports.read import read_import
from mobilenet.files.imports.sources import Ends
from mobilenet.model import Model
from mobilenet.tasks.detect import decoded

SIDE = 320


@cache
def network(classes: int = 91, reduced: bool = True) -> Any:
    """torchvision's, with random weights whose values neither grow nor vanish, and with unlike scores."""
    program = parity()
    program.declare_torchvision_operators()
    pytest.importorskip("torchvision", reason="torchvision is not installed", exc_type=ImportError)
    import torch
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    torch.manual_seed(0)
    net = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=classes)

    class Raw(torch.nn.Module):
        """Without what comes before and after the network."""

        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, pictures: torch.Tensor) -> Any:
            return net.head(list(net.backbone(pictures).values()))

    program.settled(Raw(), SIDE)
    with torch.no_grad():
        for head in (net.head.classification_head, net.head.regression_head):
            for layers in head.module_list:
                layers[1].weight.mul_(3)
    return net


def imported(folder: Path, classes: int = 91) -> Model:
    import torch

    path = folder / "weights.pth"
    torch.save(network(classes).state_dict(), path)
    return Model.of(read_import(path))


def raw_outputs(net: Any, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import torch

    with torch.no_grad():
        pictures = torch.from_numpy(np.ascontiguousarray(batch.transpose(0, 3, 1, 2)))
        found = net.head(list(net.backbone(pictures).values()))
    return found["bbox_regression"].numpy(), found["cls_logits"].numpy()


@pytest.mark.parametrize("classes", [91])
def test_raw_outputs_agree(tmp_path: Path, classes: int) -> None:
    model = imported(tmp_path, classes)
    assert (model.task, model.names[-1]) == ("detect", str(classes - 2))
    assert model.preprocessing is not None and model.preprocessing.mean == (127.5,) * 3
    batch = np.random.default_rng(0).standard_normal((2, SIDE, SIDE, 3)).astype(np.float32)
    found = model.run(batch)
    for ours, theirs in zip((found["boxes"], found["scores"]), raw_outputs(network(classes), batch), strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(theirs[0] - theirs[1]).max() > 0.1  # it sees its picture
        assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


@pytest.mark.parametrize("size", [(320, 320), (224, 352)])
def test_priors_are_torchvisions(tmp_path: Path, size: tuple[int, int]) -> None:
    model = imported(tmp_path)
    assert model.decoding is not None
    decoding = model.decoding.fitted(model.graph.resized(*size))
    theirs = network().anchor_generator._grid_default_boxes([list(shape) for shape in decoding.maps], list(size))
    assert np.abs(theirs.numpy() - decoding.priors).max() < 1e-6


def test_what_is_kept_is_what_torchvision_keeps(tmp_path: Path) -> None:
    """Its post-processing, for which its missing compiled suppression is replaced by the plain definition."""
    net, model = network(), imported(tmp_path)
    import torch
    from torchvision.models.detection.image_list import ImageList
    from torchvision.ops import boxes as box_ops

    def plain_nms(boxes: Any, scores: Any, classes: Any, threshold: float) -> Any:
        kept: list[int] = []
        for place in scores.argsort(descending=True, stable=True).tolist():
            same = [k for k in kept if classes[k] == classes[place]]
            if not same or not (box_ops.box_iou(boxes[place : place + 1], boxes[same]) > threshold).any():
                kept.append(place)
            if len(kept) == 60:
                break
        return torch.tensor(kept)

    batch = np.random.default_rng(1).standard_normal((1, SIDE, SIDE, 3)).astype(np.float32)
    raw_boxes, raw_scores = raw_outputs(net, batch)
    outputs = {"bbox_regression": torch.from_numpy(raw_boxes), "cls_logits": torch.from_numpy(raw_scores)}
    pictures = ImageList(torch.zeros(1, 3, SIDE, SIDE), [(SIDE, SIDE)])
    assert model.decoding is not None
    maps = [torch.zeros(1, 1, *shape) for shape in model.decoding.maps]
    anchors = net.anchor_generator(pictures, maps)
    original, box_ops.batched_nms = box_ops.batched_nms, plain_nms
    try:
        (theirs,) = net.postprocess_detections(outputs, anchors, pictures.image_sizes)
    finally:
        box_ops.batched_nms = original
    ours = decoded(
        {"boxes": raw_boxes[0], "scores": raw_scores[0]}, replace(model.decoding, detections=60), SIDE, SIDE
    )
    assert ours.classes.tolist() == (theirs["labels"] - 1).tolist() and len(set(ours.classes.tolist())) > 1
    assert np.allclose(ours.scores, theirs["scores"].numpy(), atol=1e-6)
    assert np.allclose(ours.boxes, theirs["boxes"].numpy(), atol=1e-3)


def test_a_picture_gives_boxes(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    result = imported(tmp_path).predict(picture)
    assert len(result) == 300 and result.boxes.size == (90, 120)


@pytest.mark.parametrize(
    "name",
    [
        "ssdlite320_mobilenet_v3_large_reduced_tail",
        "ssdlite320_mobilenet_v3_large",
        "ssdlite320_mobilenet_v3_small",
    ],
)
def test_look_alikes_are_recognised(tmp_path: Path, name: str) -> None:
    path = save(look_alike("torchvision", name, ends=Ends(classes=6)), tmp_path / "weights.safetensors")
    contents = read_import(path, labels=["background", "a", "b", "c", "d", "e"])
    assert (contents.provenance["name"], contents.labels) == (name, ("a", "b", "c", "d", "e"))
    with pytest.raises(ModelFileError, match="finds 5 classes, but the labels given are 4"):
        read_import(path, labels=["a", "b", "c", "d"])


def test_a_tensor_that_is_missing_is_named(tmp_path: Path) -> None:
    tensors = look_alike("torchvision", "ssdlite320_mobilenet_v3_small", ends=Ends(classes=6))
    del tensors["head.regression_head.module_list.3.1.bias"]
    with pytest.raises(ModelFileError, match=r"missing: 'head\.regression_head\.module_list\.3\.1\.bias'"):
        read_import(save(tensors, tmp_path / "weights.safetensors"))

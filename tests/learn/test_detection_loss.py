"""Detection's targets and losses: against torchvision, against the definition, and that they teach."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed: pip install 'mobilenet[train]'")

import torch

from mobilenet.errors import ArgumentError
from mobilenet.family.decoding import Decoding
from mobilenet.learn.detection_boxes import complete_ious, decoded_boxes, encoded_boxes, pair_ious, prior_tensor
from mobilenet.learn.detection_loss import detection_loss, focal_loss, hard_negative_loss
from mobilenet.learn.detection_targets import NOTHING, Objects, aligned_priors, matched_priors
from mobilenet.tasks.detect import boxes_of

SIDE = 64
SSD = Decoding("ssd", ((8, 8), (4, 4)), (((0.15, 0.15), (0.3, 0.15)), ((0.4, 0.4), (0.7, 0.4))))
CELLS = Decoding("yolo", ((8, 8), (4, 4), (2, 2)), scores="sigmoid", background=False)


def some_objects(count: int, seed: int, classes: int = 3) -> Objects:
    random = np.random.default_rng(seed)
    corner = random.uniform(0, 40, (count, 2))
    boxes = np.concatenate([corner, corner + random.uniform(4, 24, (count, 2))], 1).astype(np.float32)
    return Objects(torch.from_numpy(boxes), torch.from_numpy(random.integers(0, classes, count)))


def raw(decoding: Decoding, columns: int, batch: int = 2, seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, decoding.prior_count)
    return {
        "boxes": torch.randn(*shape, 4, generator=generator).requires_grad_(),
        "scores": torch.randn(*shape, columns, generator=generator).requires_grad_(),
    }


@pytest.mark.parametrize("decoding", [SSD, CELLS])
def test_boxes_are_decoded_as_in_numpy(decoding: Decoding) -> None:
    values = np.random.default_rng(0).standard_normal((decoding.prior_count, 4)).astype(np.float32) * 3
    priors = prior_tensor(decoding, 32, SIDE, torch.zeros(1))
    found = decoded_boxes(torch.from_numpy(values), priors, decoding).numpy()
    expected = boxes_of(values, decoding.priors, decoding) * (SIDE, 32, SIDE, 32)
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_encoding_is_the_inverse() -> None:
    priors = prior_tensor(SSD, SIDE, SIDE, torch.zeros(1))
    boxes = some_objects(SSD.prior_count, 1).boxes
    assert torch.allclose(decoded_boxes(encoded_boxes(boxes, priors, SSD), priors, SSD), boxes, atol=1e-3)


def torchvision() -> Any:
    """torchvision's detection code, whose Python part wants two operators to be declared; skips if absent."""
    if not hasattr(torch.ops.torchvision, "nms"):
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        torchvision.library = library  # type: ignore[attr-defined]
    return pytest.importorskip("torchvision", reason="torchvision is not installed", exc_type=ImportError)


@pytest.mark.parametrize("seed", range(4))
def test_multibox_is_torchvisions(seed: int) -> None:
    """Matching, encoding, smooth L1 and hard negatives, with the same number out as torchvision's SSD."""
    vision = torchvision()
    from torchvision.models.detection import _utils, ssd

    ssd_net = object.__new__(ssd.SSD)
    torch.nn.Module.__init__(ssd_net)
    ssd_net.box_coder = _utils.BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
    ssd_net.neg_to_pos_ratio = 3
    matcher = _utils.SSDMatcher(0.5)
    outputs, objects = raw(SSD, 4, seed=seed), [some_objects(5, seed), some_objects(seed, 10 + seed)]
    priors = prior_tensor(SSD, SIDE, SIDE, torch.zeros(1))
    corners = torch.cat([priors[:, :2] - priors[:, 2:] / 2, priors[:, :2] + priors[:, 2:] / 2], 1)
    targets = [{"boxes": each.boxes, "labels": each.labels + 1} for each in objects]
    matched = [
        matcher(vision.ops.box_iou(each.boxes, corners))
        if len(each.boxes)
        else torch.full((len(priors),), -1, dtype=torch.int64)
        for each in objects
    ]
    for each, theirs in zip(objects, matched, strict=True):
        assert torch.equal(matched_priors(priors, each.boxes), theirs.clamp(min=NOTHING))
    heads = {"bbox_regression": outputs["boxes"], "cls_logits": outputs["scores"]}
    theirs = ssd_net.compute_loss(targets, heads, [corners] * 2, matched)
    ours = detection_loss(outputs, objects, SSD, SIDE, SIDE)
    assert ours["boxes"].item() == pytest.approx(theirs["bbox_regression"].item(), rel=1e-5)
    assert ours["scores"].item() == pytest.approx(theirs["classification"].item(), rel=1e-5)


def test_every_object_has_a_prior() -> None:
    priors = prior_tensor(SSD, SIDE, SIDE, torch.zeros(1))
    tiny = torch.tensor([[10.0, 10.0, 11.0, 11.0], [50.0, 50.0, 52.0, 51.0]])
    assert set(matched_priors(priors, tiny).tolist()) == {NOTHING, 0, 1}
    assert set(matched_priors(priors, tiny[:0]).tolist()) == {NOTHING}


def test_hard_negatives_are_three_to_one() -> None:
    scores = torch.zeros(1, 10, 2)
    scores[0, 1:, 1] = torch.arange(9.0)  # wrong by more and more
    wanted = torch.zeros(1, 10, dtype=torch.int64)
    wanted[0, 0] = 1
    expected = math.log(2) + sum(math.log1p(math.exp(v)) for v in (8, 7, 6))
    assert hard_negative_loss(scores, wanted).item() == pytest.approx(expected, rel=1e-5)
    assert hard_negative_loss(scores, wanted * 0).item() == 0


def test_focal_loss() -> None:
    scores = torch.tensor([[[0.0, 1.0], [2.0, 0.0]]])
    wanted = torch.tensor([[1, 0]])
    first, second = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-2))
    expected = -0.25 * (1 - first) ** 2 * math.log(first) - 0.75 * (1 - second) ** 2 * math.log(second)
    assert focal_loss(scores, wanted).item() == pytest.approx(expected, rel=1e-5)


def test_ciou() -> None:
    box = torch.tensor([[0.0, 0.0, 4.0, 2.0]])
    assert complete_ious(box, box).item() == pytest.approx(1)
    other = torch.tensor([[4.0, 0.0, 6.0, 4.0]])  # beside it, and on end
    aspect = 4 / math.pi**2 * (math.atan(0.5) - math.atan(2)) ** 2
    expected = -((3**2 + 1**2) / (6**2 + 4**2)) - aspect / (1 + aspect) * aspect
    assert complete_ious(box, other).item() == pytest.approx(expected, rel=1e-4)
    degenerate = torch.tensor([[1.0, 1.0, 1.0, 1.0]], requires_grad=True)
    complete_ious(degenerate, box).sum().backward()
    assert torch.isfinite(degenerate.grad).all()


def test_alignment_chooses_those_that_find_it_best() -> None:
    priors = prior_tensor(CELLS, SIDE, SIDE, torch.zeros(1))
    objects = Objects(torch.tensor([[8.0, 8.0, 40.0, 40.0]]), torch.tensor([1]))
    predicted = torch.cat([priors[:, :2] - 2, priors[:, :2] + 2], 1)
    best = int(((priors[:, 0] == 20) & (priors[:, 1] == 20)).nonzero()[0])
    predicted[best] = objects.boxes[0] + 2
    scores = torch.full((len(priors), 3), 0.1)
    scores[best, 1] = 0.8
    found = aligned_priors(priors, predicted, scores, objects, top=3)
    assert int((found.matched == 0).sum()) == 3 and found.matched[best] == 0
    iou = float(pair_ious(objects.boxes, predicted)[0, best])
    assert found.scores[best].tolist() == pytest.approx([0, iou, 0])
    assert found.scores.sum() == pytest.approx(iou, rel=1e-3)
    outside = priors[found.matched == 0, :2]
    assert ((outside > 8) & (outside < 40)).all()


def test_a_prior_that_several_want_learns_the_nearest() -> None:
    priors = prior_tensor(CELLS, SIDE, SIDE, torch.zeros(1))
    objects = Objects(torch.tensor([[0.0, 0.0, 64.0, 64.0], [0.0, 0.0, 60.0, 60.0]]), torch.tensor([0, 1]))
    predicted = objects.boxes[1].repeat(len(priors), 1)
    found = aligned_priors(priors, predicted, torch.full((len(priors), 2), 0.5), objects, top=1000)
    assert (found.matched != 0).all() and (found.matched == 1).any()


def test_small_objects_between_places_are_not_lost() -> None:
    priors = prior_tensor(CELLS, SIDE, SIDE, torch.zeros(1))
    objects = Objects(torch.tensor([[15.5, 15.5, 16.5, 16.5]]), torch.tensor([0]))  # between four centres
    predicted = torch.cat([priors[:, :2] - 9, priors[:, :2] + 9], 1)
    found = aligned_priors(priors, predicted, torch.full((len(priors), 1), 0.5), objects)
    assert (found.matched == 0).any() and found.scores.max() > 0


def test_a_box_counts_as_much_however_bad_it_is_still() -> None:
    priors = prior_tensor(CELLS, SIDE, SIDE, torch.zeros(1))
    objects = Objects(torch.tensor([[8.0, 8.0, 40.0, 40.0], [44.0, 44.0, 52.0, 52.0]]), torch.tensor([0, 0]))
    predicted = torch.cat([priors[:, :2] - 16, priors[:, :2] + 16], 1)  # right for the first, far too large
    found = aligned_priors(priors, predicted, torch.full((len(priors), 1), 0.5), objects)
    for number, least_iou, most_iou in ((0, 0.7, 1.01), (1, 0.0, 0.1)):
        own = found.matched == number
        assert found.weights[own].max().item() == pytest.approx(1.0)
        assert least_iou < found.scores[own].max() < most_iou
    assert (found.weights[found.matched == -1] == 0).all()


@pytest.mark.parametrize(("decoding", "columns"), [(SSD, 4), (CELLS, 3)])
@pytest.mark.parametrize("count", [0, 3])
def test_gradients_are_finite(decoding: Decoding, columns: int, count: int) -> None:
    outputs = raw(decoding, columns)
    loss = sum(
        detection_loss(outputs, [some_objects(count, 0), some_objects(0, 1)], decoding, SIDE, SIDE).values()
    )
    assert torch.isfinite(loss)
    loss.backward()
    assert all(torch.isfinite(values.grad).all() for values in outputs.values())


@pytest.mark.parametrize(
    ("decoding", "columns", "words"),
    [(SSD, 4, {}), (SSD, 4, {"classification": "focal"}), (CELLS, 3, {})],
)
def test_what_is_learnt_is_found(decoding: Decoding, columns: int, words: dict[str, Any]) -> None:
    """Raw outputs, moved down the loss, decode to the very objects."""
    from dataclasses import replace

    from mobilenet.tasks.detect import decoded

    objects = Objects(torch.tensor([[4.0, 6.0, 30.0, 28.0], [36.0, 30.0, 60.0, 62.0]]), torch.tensor([2, 0]))
    outputs = raw(decoding, columns, batch=1)
    optimiser = torch.optim.Adam(outputs.values(), 0.1)
    for _ in range(250):
        optimiser.zero_grad()
        sum(detection_loss(outputs, [objects], decoding, SIDE, SIDE, **words).values()).backward()
        optimiser.step()
    arrays = {name: values.detach().numpy()[0] for name, values in outputs.items()}
    found = decoded(arrays, replace(decoding, score_threshold=0.4, iou_threshold=0.5), SIDE, SIDE)
    assert sorted(found.classes.tolist()) == [0, 2]
    for box, label in zip(found.boxes, found.classes, strict=True):
        expected = objects.boxes[objects.labels.tolist().index(label)].numpy()
        assert np.abs(box - expected).max() < 2


def test_bad_arguments_are_named() -> None:
    outputs, one = raw(SSD, 4), some_objects(2, 0)
    with pytest.raises(ArgumentError, match="classification is one of"):
        detection_loss(outputs, [one, one], SSD, SIDE, SIDE, classification="hinge")
    with pytest.raises(ArgumentError, match="objects of 1 pictures"):
        detection_loss(outputs, [one], SSD, SIDE, SIDE)
    with pytest.raises(ArgumentError, match="beyond the 3"):
        detection_loss(outputs, [one._replace(labels=one.labels + 3), one], SSD, SIDE, SIDE)

"""Which prior learns which object. Boxes and priors are in pixels of the input; classes without background."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mobilenet.learn.detection_boxes import EPSILON, as_corners, pair_ious

NOTHING = -1


class Objects(NamedTuple):
    """What is to be found in one picture: boxes, float (N, 4), and classes, int64 (N)."""

    boxes: Tensor
    labels: Tensor


class Assigned(NamedTuple):
    """What each prior of one picture is to say.

    Attributes:
        matched: int64 (A): the number of its object, -1 for none.
        scores: float (A, classes): of task-aligned assignment, how sure each class should be.
        weights: float (A): how much its box counts; 1 at each object's best prior.
    """

    matched: Tensor
    scores: Tensor
    weights: Tensor


def matched_priors(priors: Tensor, boxes: Tensor, least_iou: float = 0.5) -> Tensor:
    """SSD's matching (arXiv:1512.02325, 2.2) as torchvision 0.28.0 has it.

    Each prior takes the box that it overlaps most, if its IoU is at least `least_iou`; then each box takes the
    prior that overlaps it most, whatever the IoU is (of two boxes that want the same prior, the later one has it).

    Args:
        priors: (A, 4) centre x, centre y, width, height.
        boxes: (N, 4) corners.

    Returns:
        int64 (A): the number of the box, -1 for none.
    """
    if not len(boxes):
        return torch.full((len(priors),), NOTHING, dtype=torch.int64, device=priors.device)
    overlaps = pair_ious(boxes, as_corners(priors))
    best, matched = overlaps.max(dim=0)
    matched[best < least_iou] = NOTHING
    favourite = overlaps.max(dim=1).indices
    for number, prior in enumerate(favourite.tolist()):
        matched[prior] = number
    return matched


def aligned_priors(
    priors: Tensor,
    predicted: Tensor,
    scores: Tensor,
    objects: Objects,
    *,
    top: int = 10,
    alpha: float = 0.5,
    beta: float = 6.0,
) -> Assigned:
    """Task-aligned assignment (TOOD, arXiv:2108.07755, 3.2): an object learns where it is already found best.

    A prior may learn an object if its centre is in the object's box (one that is smaller than the prior is taken
    to be as large as it, so that small objects are not lost). Of these, the `top` with the highest
    score**alpha * IoU**beta learn it; one that several objects want learns the one that it overlaps most. Its
    score should be that measure, scaled so that the object's best prior should say the object's best IoU. Its box
    counts by the same measure scaled to 1 (TOOD takes the score), so that objects whose boxes are bad still, as
    those of small objects are at first, are not learnt least of all.

    Args:
        priors: (A, 4) centre and size.
        predicted: (A, 4) corners, as decoded now.
        scores: (A, classes), probabilities now.
        objects: of the picture.
    """
    matched = torch.full((len(priors),), NOTHING, dtype=torch.int64, device=priors.device)
    wanted = torch.zeros_like(scores)
    if not len(objects.labels):
        return Assigned(matched, wanted, wanted.sum(-1))
    inside = _centres_inside(priors, objects.boxes)  # (N, A)
    overlaps = pair_ious(objects.boxes, predicted) * inside
    alignment = scores[:, objects.labels].t().clamp(min=0) ** alpha * overlaps**beta
    chosen = _best(alignment, inside, top)
    several = chosen.sum(dim=0) > 1
    if several.any():
        owner = torch.where(chosen, overlaps, -1.0).max(dim=0).indices
        mine = torch.arange(len(chosen), device=chosen.device)[:, None] == owner
        chosen &= mine | ~several
    positive = chosen.any(dim=0)
    matched[positive] = chosen.to(torch.int8).argmax(dim=0)[positive]
    alignment, overlaps = alignment * chosen, overlaps * chosen
    share = alignment / alignment.max(dim=1, keepdim=True).values.clamp(min=EPSILON**3)
    strength = (share * overlaps.max(dim=1, keepdim=True).values).max(dim=0).values
    places = positive.nonzero()[:, 0]
    wanted[places, objects.labels[matched[places]]] = strength[places].to(wanted.dtype)
    return Assigned(matched, wanted, share.max(dim=0).values.to(wanted.dtype))


def _centres_inside(priors: Tensor, boxes: Tensor) -> Tensor:
    """Whether a prior's centre is in a box that is at least as large as the prior: bool (N, A)."""
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    reach = torch.maximum(half[:, None], priors[None, :, 2:] / 2)
    return ((priors[None, :, :2] - middle[:, None]).abs() <= reach).all(dim=-1)


def _best(alignment: Tensor, inside: Tensor, top: int) -> Tensor:
    """The places of the `top` highest values of each row, of those inside: bool (N, A)."""
    ranked = torch.where(inside, alignment, -1.0).topk(min(top, alignment.shape[1]), dim=1).indices
    return torch.zeros_like(inside).scatter_(1, ranked, True) & inside

"""What a detector's raw outputs cost, given the objects: SSD's multibox loss, and that of the anchor-free head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mobilenet.errors import ArgumentError
from mobilenet.family.decoding import Decoding
from mobilenet.learn.detection_boxes import complete_ious, decoded_boxes, encoded_boxes, prior_tensor
from mobilenet.learn.detection_targets import NOTHING, Objects, aligned_priors, matched_priors

CLASSIFICATIONS = ("hard-negatives", "focal")
BOX_WEIGHT, SCORE_WEIGHT = 5.0, 1.0  # of the anchor-free loss, as YOLOX has it (arXiv:2107.08430)
FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0


def detection_loss(
    outputs: Mapping[str, Tensor],
    objects: Sequence[Objects],
    decoding: Decoding,
    height: int,
    width: int,
    *,
    classification: str = "hard-negatives",
) -> dict[str, Tensor]:
    """The parts of the loss of a batch, whose sum is to be made small.

    Args:
        outputs: "boxes" (B, A, 4) and "scores" (B, A, columns), raw.
        objects: of each picture, boxes in pixels of the input.
        decoding: of the model; its kind chooses the loss.
        height, width: of the input.
        classification: of "ssd": "hard-negatives" (cross entropy with three times as many negatives as positives)
            or "focal".

    Returns:
        "boxes" and "scores", each a number.

    Raises:
        ArgumentError: an unknown classification, or another number of pictures or classes than there are outputs.
    """
    if classification not in CLASSIFICATIONS:
        raise ArgumentError(f"classification is one of {', '.join(CLASSIFICATIONS)}, not {classification!r}")
    boxes, scores = outputs["boxes"].float(), outputs["scores"].float()
    if len(objects) != len(boxes):
        raise ArgumentError(f"objects of {len(objects)} pictures do not fit a batch of {len(boxes)}")
    classes = decoding.classes(scores.shape[-1])
    if any(len(each.labels) and int(each.labels.max()) >= classes for each in objects):
        raise ArgumentError(f"an object is of a class beyond the {classes} that 'scores' has")
    priors = prior_tensor(decoding, height, width, boxes)
    if decoding.kind == "yolo":
        return _anchor_free(boxes, scores, objects, priors, decoding)
    return _multibox(boxes, scores, objects, priors, decoding, classification)


def _multibox(
    boxes: Tensor,
    scores: Tensor,
    objects: Sequence[Objects],
    priors: Tensor,
    decoding: Decoding,
    classification: str,
) -> dict[str, Tensor]:
    """SSD (arXiv:1512.02325, 2.2): smooth L1 of matched priors and a loss of all scores, over their number."""
    wanted = torch.zeros(scores.shape[:2], dtype=torch.int64, device=scores.device)  # 0 is the background
    distance = boxes.sum() * 0
    for row, found in enumerate(objects):
        matched = matched_priors(priors, found.boxes)
        places = (matched != NOTHING).nonzero()[:, 0]
        numbers = matched[places]
        wanted[row, places] = found.labels[numbers] + 1
        targets = encoded_boxes(found.boxes[numbers], priors[places], decoding)
        distance = distance + F.smooth_l1_loss(boxes[row, places], targets, reduction="sum")
    count = max(int((wanted > 0).sum()), 1)
    total = focal_loss(scores, wanted) if classification == "focal" else hard_negative_loss(scores, wanted)
    return {"boxes": distance / count, "scores": total / count}


def hard_negative_loss(scores: Tensor, wanted: Tensor, negatives: int = 3) -> Tensor:
    """Cross entropy of the positives and, in each picture, of the `negatives` times as many worst negatives;
    summed.

    Args:
        scores: (B, A, columns), raw.
        wanted: int64 (B, A), 0 for the background.
    """
    losses = F.cross_entropy(scores.flatten(0, 1), wanted.flatten(), reduction="none").view(wanted.shape)
    positive = wanted > 0
    with torch.no_grad():
        rank = losses.masked_fill(positive, -1.0).argsort(dim=1, descending=True).argsort(dim=1)
        hard = (rank < negatives * positive.sum(dim=1, keepdim=True)) & ~positive
    return (losses * (positive | hard)).sum()


def focal_loss(scores: Tensor, wanted: Tensor) -> Tensor:
    """Focal loss (arXiv:1708.02002) of the softmax, summed: the probability of the wanted column, alpha for
    objects and 1 - alpha for the background.
    """
    logs = F.log_softmax(scores, -1).gather(-1, wanted.unsqueeze(-1)).squeeze(-1)
    alpha = torch.where(wanted > 0, FOCAL_ALPHA, 1 - FOCAL_ALPHA)
    return -(alpha * (1 - logs.exp()) ** FOCAL_GAMMA * logs).sum()


def _anchor_free(
    boxes: Tensor, scores: Tensor, objects: Sequence[Objects], priors: Tensor, decoding: Decoding
) -> dict[str, Tensor]:
    """Binary cross entropy with task-aligned targets over their sum, and the weighted mean of 1 - CIoU."""
    predicted = decoded_boxes(boxes, priors, decoding)
    distance, wanted = boxes.sum() * 0, torch.zeros_like(scores)
    weight = 0.0
    for row, found in enumerate(objects):
        with torch.no_grad():
            assigned = aligned_priors(priors, predicted[row], scores[row].sigmoid(), found)
        wanted[row] = assigned.scores
        places = (assigned.matched != NOTHING).nonzero()[:, 0]
        overlap = complete_ious(predicted[row, places], found.boxes[assigned.matched[places]])
        distance = distance + ((1 - overlap) * assigned.weights[places]).sum()
        weight += float(assigned.weights[places].sum())
    total = wanted.sum().clamp(min=1)
    entropy = F.binary_cross_entropy_with_logits(scores, wanted, reduction="sum")
    return {"boxes": BOX_WEIGHT * distance / max(weight, 1.0), "scores": SCORE_WEIGHT * entropy / total}

"""Arithmetic of boxes in torch, which gradients flow through. Boxes are left, top, right, bottom, (..., 4)."""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor
from torch.nn import functional as F

from mobilenet.family.decoding import Decoding
from mobilenet.tasks.detect import MAX_EXPONENT

EPSILON = 1e-7


def prior_tensor(decoding: Decoding, height: int, width: int, like: Tensor) -> Tensor:
    """Centre x, centre y, width, height of the priors in pixels of the input: (A, 4), on the device of `like`."""
    scale = torch.tensor([width, height, width, height], dtype=torch.float32)
    return (torch.tensor(decoding.priors).float() * scale).to(like.device)


def decoded_boxes(raw: Tensor, priors: Tensor, decoding: Decoding) -> Tensor:
    """Raw rows (..., A, 4) as boxes in pixels, given the priors (A, 4) in pixels; as `tasks.detect.boxes_of`."""
    raw = raw.float()
    centre, size = priors[:, :2], priors[:, 2:]
    if decoding.kind == "yolo":
        reach = F.softplus(raw)
        return torch.cat([centre - reach[..., :2] * size, centre + reach[..., 2:] * size], -1)
    scaled = raw * raw.new_tensor(decoding.variances)
    middle = centre + scaled[..., :2] * size
    half = scaled[..., 2:].clamp(max=MAX_EXPONENT).exp() * size / 2
    return torch.cat([middle - half, middle + half], -1)


def encoded_boxes(boxes: Tensor, priors: Tensor, decoding: Decoding) -> Tensor:
    """What "ssd" rows must be to give these boxes, (N, 4) in pixels, at these priors, (N, 4)."""
    size = boxes[:, 2:] - boxes[:, :2]
    shift = ((boxes[:, :2] + boxes[:, 2:]) / 2 - priors[:, :2]) / priors[:, 2:]
    return torch.cat([shift, (size / priors[:, 2:]).log()], -1) / boxes.new_tensor(decoding.variances)


def as_corners(priors: Tensor) -> Tensor:
    """Centre and size as corners."""
    half = priors[..., 2:] / 2
    return torch.cat([priors[..., :2] - half, priors[..., :2] + half], -1)


def areas(boxes: Tensor) -> Tensor:
    """Of boxes (..., 4): (...)."""
    return (boxes[..., 2] - boxes[..., 0]).clamp(min=0) * (boxes[..., 3] - boxes[..., 1]).clamp(min=0)


def pair_ious(first: Tensor, second: Tensor) -> Tensor:
    """IoU of each box of (N, 4) with each of (M, 4): (N, M)."""
    corner = torch.maximum(first[:, None, :2], second[None, :, :2])
    other = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (other - corner).clamp(min=0).prod(-1)
    return shared / (areas(first)[:, None] + areas(second)[None] - shared).clamp(min=EPSILON)


def complete_ious(first: Tensor, second: Tensor) -> Tensor:
    """CIoU (arXiv:1911.08287, 3.3) of boxes (N, 4) with boxes (N, 4), row by row: (N), at most 1.

    IoU, less the squared distance of the centres over the diagonal's of the box around both, less a term for
    another aspect ratio, whose weight is taken as a constant.
    """
    corner, other = torch.maximum(first[:, :2], second[:, :2]), torch.minimum(first[:, 2:], second[:, 2:])
    shared = (other - corner).clamp(min=0).prod(-1)
    iou = shared / (areas(first) + areas(second) - shared).clamp(min=EPSILON)
    around = torch.maximum(first[:, 2:], second[:, 2:]) - torch.minimum(first[:, :2], second[:, :2])
    apart = (first[:, :2] + first[:, 2:] - second[:, :2] - second[:, 2:]).square().sum(-1) / 4
    aspect = 4 / pi**2 * (_angles(second) - _angles(first)).square()
    with torch.no_grad():
        weight = aspect / (1 - iou + aspect).clamp(min=EPSILON)
    return iou - apart / around.square().sum(-1).clamp(min=EPSILON) - weight * aspect


def _angles(boxes: Tensor) -> Tensor:
    size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=EPSILON)
    return torch.atan(size[:, 0] / size[:, 1])

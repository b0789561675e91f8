"""What a segmenter is trained to make small: pure functions of scores and class maps.

Scores are float (B, H, W, classes), as `run.torch_module` gives "logits"; class maps are integers (B, H, W) in
which 255 marks pixels without a class. These never count, in any term.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mobilenet.errors import ArgumentError
from mobilenet.pictures.palette import IGNORED

REGIONS = ("none", "dice", "lovasz")


@dataclass(frozen=True)
class SegmentationLoss:
    """The terms of a loss and their weights.

    Args:
        region: a second term that looks at whole regions, which cross entropy does not: "dice", "lovasz", "none".
        region_weight: its weight beside cross entropy's 1.
        auxiliary_weight: of cross entropy on "auxiliary_logits", where there are any (0.4 in arXiv:1612.01105).
        label_smoothing: of cross entropy, 0 to 1.
        class_weights: one for each class, or none: see `class_weights`.
    """

    region: str = "none"
    region_weight: float = 1.0
    auxiliary_weight: float = 0.4
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.region not in REGIONS:
            raise ArgumentError(f"region is one of {', '.join(REGIONS)}, not {self.region!r}")
        numbers = (self.region_weight, self.auxiliary_weight, self.label_smoothing, *(self.class_weights or ()))
        if not all(isinstance(n, int | float) and isfinite(n) and n >= 0 for n in numbers):
            raise ArgumentError(f"weights of a loss are numbers from 0, not {numbers}")
        if self.label_smoothing >= 1:
            raise ArgumentError(f"label_smoothing is {self.label_smoothing}: below 1 is needed")

    def __call__(self, outputs: Mapping[str, Tensor], target: Tensor) -> Tensor:
        """The loss, a scalar, of the outputs "logits" and perhaps "auxiliary_logits"."""
        logits = outputs["logits"]
        weights = None if self.class_weights is None else logits.new_tensor(self.class_weights)
        total = cross_entropy(logits, target, weights, self.label_smoothing)
        if "auxiliary_logits" in outputs and self.auxiliary_weight:
            second = cross_entropy(outputs["auxiliary_logits"], target, weights, self.label_smoothing)
            total = total + self.auxiliary_weight * second
        if self.region != "none" and self.region_weight:
            term = dice_loss if self.region == "dice" else lovasz_loss
            total = total + self.region_weight * term(logits, target)
        return total


def cross_entropy(
    logits: Tensor, target: Tensor, class_weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """The mean over pixels that have a class, weighted by their class's weight; 0 if there is none.

    Args:
        logits: float (B, H, W, classes).
        target: integers (B, H, W); 255 does not count.
        class_weights: float (classes), or none.
        label_smoothing: 0 to 1.
    """
    scores, classes = _maps(logits, target)
    if not (classes != IGNORED).any():
        return logits.sum() * 0  # keeps the graph: every process of several must have a gradient
    how = {"ignore_index": IGNORED, "label_smoothing": label_smoothing}
    return F.cross_entropy(scores, classes, weight=class_weights, **how)  # type: ignore[arg-type]


def dice_loss(logits: Tensor, target: Tensor, smooth: float = 1.0) -> Tensor:
    """1 - the mean Dice coefficient of the classes that the batch's truth has (Milletari et al. 2016, V-Net).

    The coefficient of a class over the whole batch is (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth), with the
    softmax p and the truth t.
    """
    scores, classes = _maps(logits, target)
    known = classes != IGNORED
    if not known.any():
        return logits.sum() * 0
    shares = scores.softmax(1) * known[:, None]
    numbers = torch.arange(scores.shape[1], device=classes.device)[:, None, None]
    truth = (classes[:, None] == numbers).to(shares.dtype)
    both, found, there = (value.sum((0, 2, 3)) for value in (shares * truth, shares, truth))
    dice = (2 * both + smooth) / (found + there + smooth)
    return 1 - dice[there > 0].mean()


def lovasz_loss(logits: Tensor, target: Tensor) -> Tensor:
    """The Lovász extension of 1 - IoU, mean of the classes in the truth (Berman et al., arXiv:1705.08790).

    For each class, the pixels' errors |t - p| are sorted downwards; each is weighted by how much the Jaccard loss
    grows when that pixel joins the wrong ones.
    """
    scores, classes = _pixels(logits, target)
    if not len(classes):
        return logits.sum() * 0
    shares = scores.softmax(1)
    losses = []
    for number in torch.bincount(classes).nonzero().flatten().tolist():
        truth = (classes == number).to(shares.dtype)
        errors, order = (truth - shares[:, number]).abs().sort(descending=True)
        losses.append(errors @ _jaccard_steps(truth[order]))
    return torch.stack(losses).mean()


def _jaccard_steps(truth: Tensor) -> Tensor:
    """How much 1 - IoU grows with each pixel that is taken for wrong, in this order."""
    positives = truth.sum()
    hits = positives - truth.cumsum(0)
    union = positives + (1 - truth).cumsum(0)
    jaccard = 1 - hits / union
    return torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])


def _pixels(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """(pixels, classes) scores as float32 and (pixels) classes of all pixels that have one."""
    _check(logits, target)
    known = target != IGNORED
    return logits[known].float(), target[known].long()


def _maps(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """(B, classes, H, W) scores as float32, whose softmax is fast in this order, and (B, H, W) classes."""
    _check(logits, target)
    return logits.permute(0, 3, 1, 2).float().contiguous(), target.long()


def _check(logits: Tensor, target: Tensor) -> None:
    if logits.ndim != 4 or target.shape != logits.shape[:3]:
        raise ArgumentError(
            f"logits are {tuple(logits.shape)} and the class map {tuple(target.shape)}: (B, H, W, classes) and "
            "(B, H, W) are needed"
        )


def class_weights(pixels: NDArray[np.int64], power: float = 0.5) -> tuple[float, ...]:
    """Weights that grow as classes are rarer: (mean count / count) ** power, of mean 1 over the pixels.

    Args:
        pixels: how many each class has, [classes] (`pictures.mask_set.Survey`); those with none weigh 0.
        power: 0 leaves all alike, 1 makes every class count the same.

    Raises:
        ArgumentError: no class has a pixel, or `power` is not from 0 to 1.
    """
    counts = np.asarray(pixels, np.float64)
    if counts.ndim != 1 or (counts < 0).any() or not counts.any():
        raise ArgumentError(f"pixels of classes are counts from 0, at least one of them above, not {pixels!r}")
    if not 0 <= power <= 1:
        raise ArgumentError(f"power is {power!r}: a number from 0 to 1 is needed")
    raw = np.divide(counts.mean(), counts, out=np.zeros_like(counts), where=counts > 0) ** power
    raw[counts == 0] = 0
    mean = (raw * counts).sum() / counts.sum()
    return tuple((raw / mean).tolist())

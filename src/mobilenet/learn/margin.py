"""Losses that draw pictures of one identity together and push identities apart, on the unit sphere.

ArcFace (Deng et al. 2019, arXiv:1801.07698) and CosFace (Wang et al. 2018, arXiv:1801.09414) classify the training
identities by the angle to a direction that is learnt for each, and demand a margin of the right one. The triplet
loss (Schroff et al. 2015, arXiv:1503.03832) compares pictures with each other; the hardest ones of a batch count
(Hermans et al. 2017, arXiv:1703.07737).
"""

from __future__ import annotations

from math import cos, pi, sin

import torch
import torch.nn.functional as F
from torch import Tensor, nn

COSINES = "cosines"  # of an embedding to the direction of each class
SMALLEST = 1e-7  # keeps the slope of a square root finite


class ClassMatrix(nn.Module):
    """A direction for each identity of the training split, learnt beside the network.

    Args:
        classes: identities.
        size: numbers of an embedding.
        seed: of the random directions it starts with: the same in every process.
        directions: (classes, size), what it starts with instead, of any length.
    """

    def __init__(self, classes: int, size: int, seed: int, directions: Tensor | None = None) -> None:
        super().__init__()
        if directions is not None:
            self.weight = nn.Parameter(F.normalize(directions))
            return
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(F.normalize(torch.randn(classes, size, generator=generator)))

    def forward(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """ "cosines", float32 (B, classes), of the output "embedding"."""
        embedding = F.normalize(outputs["embedding"].flatten(1).float())
        with torch.autocast(embedding.device.type, enabled=False):  # bfloat16 has no three digits of a cosine
            return {COSINES: embedding @ F.normalize(self.weight.float()).T}


def arcface(cosines: Tensor, labels: Tensor, *, margin: float, scale: float) -> Tensor:
    """Cross entropy (B) of `scale` times the cosines, the angle to the right class being `margin` radians wider.

    Where cos(angle + margin) would rise again, past pi, a straight line goes on falling, as in the authors' code.

    Args:
        cosines: float32 (B, classes).
        labels: int64 (B).
    """
    own = cosines.gather(1, labels[:, None])
    sines = (1 - own.square()).clamp_min(SMALLEST).sqrt()
    wider = own * cos(margin) - sines * sin(margin)
    wider = torch.where(own > cos(pi - margin), wider, own - margin * sin(margin))
    return F.cross_entropy(scale * cosines.scatter(1, labels[:, None], wider), labels, reduction="none")


def cosface(cosines: Tensor, labels: Tensor, *, margin: float, scale: float) -> Tensor:
    """Cross entropy (B) of `scale` times the cosines, the right class's less `margin`; arguments as `arcface`."""
    less = cosines - margin * F.one_hot(labels, cosines.shape[1])
    return F.cross_entropy(scale * less, labels, reduction="none")


def hardest_triplets(embeddings: Tensor, labels: Tensor, *, margin: float) -> Tensor:
    """max(0, margin + distance to the farthest of the same identity - to the nearest of another), (B).

    Distances are between the directions: 0 to 2. A picture without either in the batch has a loss of 0.

    Args:
        embeddings: (B, D), of any length but 0.
        labels: int64 (B).
    """
    directions = F.normalize(embeddings.float())
    with torch.autocast(directions.device.type, enabled=False):
        distances = (2 - 2 * directions @ directions.T).clamp_min(SMALLEST).sqrt()
    same = labels[:, None] == labels[None, :]
    others = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    farthest = distances.masked_fill(~(same & others), 0.0).amax(1)
    nearest = distances.masked_fill(same, 4.0).amin(1)
    counts = (same & others).any(1) & (~same).any(1)
    return (margin + farthest - nearest).clamp_min(0.0) * counts

"""How well class maps agree with the truth: IoU by class, pixel accuracy, boundary F. Picture after picture.

**IoU** of a class is |found and true| / |found or true| over the pixels of all pictures (Everingham et al. 2015,
the Pascal VOC challenge). **mIoU** is its mean over the classes that occur in the truth or in the answers. Pixels
whose truth is 255 never count; one that the answer leaves at 255 (not seen) is wrong.

**Boundary F** (Csurka et al. 2013, "What is a good evaluation measure for semantic segmentation?", 2.2) of a
class in a picture is 2 P R / (P + R): P is the part of the found boundary's pixels that lie within a distance of
the true boundary, R the part of the true ones near the found one. The distance is 0.75% of the picture's
diagonal, rounded up. A boundary pixel of a class has a neighbour above, below, left or right that is of another
class. A picture in which a class has no boundary in either map does not count for it; one in which it has one in
one map alone gives 0. The figure of a class is the mean over pictures, the whole figure the mean over classes.
"""

from __future__ import annotations

from math import ceil, hypot, isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenet.errors import ArgumentError
from mobilenet.pictures.palette import IGNORED, MAX_CLASSES, ClassMap

BOUNDARY_SHARE = 0.0075  # of the diagonal

Mask = NDArray[np.bool_]


class SegmentationMeter:
    """Counts over pictures; memory does not grow with their number.

    Args:
        classes: how many, 1 to 255.
        boundaries: whether boundary F is measured: it takes longer than all else.
        boundary_share: the distance as a share of the diagonal.
    """

    def __init__(self, classes: int, *, boundaries: bool = True, boundary_share: float = BOUNDARY_SHARE) -> None:
        if type(classes) is not int or not 1 <= classes <= MAX_CLASSES:
            raise ArgumentError(f"classes is {classes!r}: 1 to {MAX_CLASSES} are needed")
        if not 0 <= boundary_share <= 1:
            raise ArgumentError(f"boundary_share is {boundary_share!r}: a share from 0 to 1 is needed")
        self.classes = classes
        self.boundaries = boundaries
        self.boundary_share = boundary_share
        self.pictures = 0
        # [true class, found class], and a last column for what was not seen
        self.confusion: NDArray[np.int64] = np.zeros((classes, classes + 1), np.int64)
        self._boundary_sums = np.zeros(classes)
        self._boundary_counts = np.zeros(classes, np.int64)

    def add(self, found: ClassMap, truth: ClassMap) -> float | None:
        """Counts a picture: two class maps, uint8 [H, W]; 255 in `truth` means no class, in `found` not seen.

        Returns:
            mIoU of this picture alone, 0 to 1; None if none of its pixels has a class.

        Raises:
            ArgumentError: shapes differ, or a value is no class.
        """
        if found.shape != truth.shape or found.ndim != 2 or found.dtype != np.uint8 or truth.dtype != np.uint8:
            raise ArgumentError(
                f"maps of {found.shape} and {truth.shape}: two uint8 [H, W] of one size are needed"
            )
        for name, values in (("found", found), ("truth", truth)):
            known = values[values != IGNORED]
            if known.size and known.max() >= self.classes:
                raise ArgumentError(f"{name} holds class {known.max()}; there are {self.classes}")
        counts = np.where(truth == IGNORED, 0, truth).astype(np.intp) * (self.classes + 1)
        counts += np.where(found == IGNORED, self.classes, found)
        valid = counts[truth != IGNORED]
        own = np.bincount(valid, minlength=self.confusion.size).reshape(self.confusion.shape)
        self.confusion += own
        self.pictures += 1
        if self.boundaries:
            self._add_boundaries(found, truth)
        return _mean(_ious(own))

    def _add_boundaries(self, found: ClassMap, truth: ClassMap) -> None:
        radius = ceil(self.boundary_share * hypot(*truth.shape))
        ignored = truth == IGNORED
        for number in np.union1d(np.unique(found), np.unique(truth)).tolist():
            if number == IGNORED:
                continue
            true_edge = boundary(truth == number, ignored)
            found_edge = boundary((found == number) & ~ignored, ignored)
            figure = boundary_f(found_edge, true_edge, radius)
            if figure is not None:
                self._boundary_sums[number] += figure
                self._boundary_counts[number] += 1

    def iou(self) -> NDArray[np.float64]:
        """Of each class, [classes]; NaN where it is neither in the truth nor in the answers."""
        return _ious(self.confusion)

    def boundary(self) -> NDArray[np.float64]:
        """Boundary F of each class, [classes]; NaN where it has no boundary in any picture."""
        return _shares(self._boundary_sums, self._boundary_counts)

    def results(self, names: tuple[str, ...]) -> dict[str, Any]:
        """`miou`, `pixel_accuracy`, `mean_accuracy`, `boundary_f`, `images`, `per_class` and `confusion`.

        `per_class` is name -> `iou`, `accuracy` (recall), `precision`, `boundary_f` and `pixels` of the truth;
        None stands for what is not defined. `confusion` has a row for each true class, and a last column for the
        pixels that were not seen.

        Raises:
            ArgumentError: another number of names than classes, or no pixel was counted.
        """
        if len(names) != self.classes:
            raise ArgumentError(f"{len(names)} names for {self.classes} classes")
        total = int(self.confusion.sum())
        if not total:
            raise ArgumentError("no pixel with a class was counted")
        hits = np.diag(self.confusion)
        accuracy, precision = _shares(hits, self.confusion.sum(1)), _shares(hits, self.confusion.sum(0)[:-1])
        iou, edges = self.iou(), self.boundary()
        per_class = {
            name: {
                "iou": _figure(iou[number]),
                "accuracy": _figure(accuracy[number]),
                "precision": _figure(precision[number]),
                "boundary_f": _figure(edges[number]),
                "pixels": int(self.confusion[number].sum()),
            }
            for number, name in enumerate(names)
        }
        return {
            "miou": _mean(iou),
            "pixel_accuracy": _figure(float(hits.sum()) / total),
            "mean_accuracy": _mean(accuracy),
            "boundary_f": _mean(edges),
            "images": self.pictures,
            "per_class": per_class,
            "confusion": self.confusion.tolist(),
        }


def boundary(mask: Mask, ignored: Mask) -> Mask:
    """The pixels of a mask, bool [H, W], with one of four neighbours in the picture that is not in it.

    A neighbour that is `ignored` makes no boundary.
    """
    other = ~(mask | ignored)
    near = np.zeros_like(mask)
    near[1:] |= other[:-1]
    near[:-1] |= other[1:]
    near[:, 1:] |= other[:, :-1]
    near[:, :-1] |= other[:, 1:]
    return mask & near


def boundary_f(found: Mask, truth: Mask, radius: int) -> float | None:
    """F of two boundaries, bool [H, W], at a distance in pixels; None if neither has a pixel."""
    if not found.any() and not truth.any():
        return None
    if not found.any() or not truth.any():
        return 0.0
    precision = float(grown(truth, radius)[found].mean())
    recall = float(grown(found, radius)[truth].mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def grown(mask: Mask, radius: int) -> Mask:
    """All pixels that are at most `radius` from one of a mask, bool [H, W]."""
    height, width = mask.shape
    sums = np.zeros((height, width + 1), np.int32)
    np.cumsum(mask, axis=1, out=sums[:, 1:])
    columns = np.arange(width)
    result = np.zeros_like(mask)
    for step in range(min(radius, height - 1) + 1):
        reach = isqrt(radius * radius - step * step)
        first, last = np.maximum(columns - reach, 0), np.minimum(columns + reach + 1, width)
        wide = sums[:, last] > sums[:, first]
        result[step:] |= wide[: height - step]
        result[: height - step] |= wide[step:]
    return result


def _ious(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of each class, [C], from counts [C, C + 1]; NaN where it is neither in the truth nor in the answers."""
    hits = np.diag(confusion)
    return _shares(hits, confusion.sum(1) + confusion.sum(0)[:-1] - hits)


def _shares(part: NDArray[Any], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    """`part` / `whole`, NaN where `whole` is 0."""
    shares: NDArray[np.float64] = np.full(len(part), np.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return _figure(float(known.mean())) if known.size else None


def _figure(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)

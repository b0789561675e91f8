"""The HTML report of a segmenter: the worst pictures are kept small while measuring, and drawn at the end."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heappush, heappushpop
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from mobilenet.pictures.decode import decode
from mobilenet.pictures.palette import ClassMap
from mobilenet.report.draw import fit_picture, reduced_size
from mobilenet.report.overlays import draw_triple, untinted
from mobilenet.report.page import jpeg
from mobilenet.report.segmentation_page import Failure, segmentation_report
from mobilenet.tasks.evaluate import model_info, report_title

if TYPE_CHECKING:
    from mobilenet.model import Model

WORST_PICTURES = 12
SIDE = 240  # of a drawn picture, in pixels


class _Kept(NamedTuple):
    """A picture's place in the order: by falling IoU, of equal ones the later first; and small class maps."""

    negative_iou: float
    negative_number: int
    path: Path
    truth: ClassMap
    found: ClassMap


class WorstMasks:
    """The pictures with the lowest mIoU; memory does not grow with their number or size.

    Args:
        most: how many are kept.
        side: of what is kept of a class map, in pixels.
    """

    def __init__(self, most: int = WORST_PICTURES, side: int = SIDE) -> None:
        self.most, self.side = most, side
        self._seen = 0
        self._kept: list[_Kept] = []  # a heap whose first is the least bad

    def add(self, path: Path, iou: float | None, truth: ClassMap, found: ClassMap) -> None:
        """Looks at one picture: its mIoU (None and 1 are not bad), and two class maps, uint8 [H, W]."""
        self._seen += 1
        if iou is None or iou >= 1:
            return
        if len(self._kept) == self.most and -iou <= self._kept[0].negative_iou:
            return
        entry = _Kept(-iou, -self._seen, path, _reduced(truth, self.side), _reduced(found, self.side))
        if len(self._kept) < self.most:
            heappush(self._kept, entry)
        else:
            heappushpop(self._kept, entry)

    def failures(self, plain: list[int]) -> list[Failure]:
        """The worst first, drawn; classes of `plain` are left as they are.

        Raises:
            ImageError: a picture cannot be read any more.
        """
        return [_failure(entry, plain, self.side) for entry in sorted(self._kept, reverse=True)]


def segmenter_page(model: Model, metrics: Mapping[str, Any], worst: WorstMasks) -> str:
    """The page's text: of a segmenter, what `evaluate_segmenter` gives, and the worst of the pictures.

    Raises:
        ImageError: a picture cannot be read any more.
    """
    return segmentation_report(
        metrics,
        title=report_title(model, metrics),
        model_info=model_info(model),
        failures=worst.failures(untinted(model.names)),
    )


def _reduced(classes: ClassMap, side: int) -> ClassMap:
    height, width = classes.shape
    size = reduced_size(width, height, side)
    return np.array(Image.fromarray(classes).resize(size, Image.Resampling.NEAREST))


def _failure(entry: _Kept, plain: list[int], side: int) -> Failure:
    image = decode(entry.path)
    if image.shape[:2] != entry.truth.shape:
        image = np.asarray(fit_picture(image, side))
    maps = entry.truth, entry.found
    return Failure(
        path=str(entry.path),
        iou=-entry.negative_iou,
        classes=tuple(np.union1d(*maps).tolist()),
        drawn_jpeg=jpeg(draw_triple((image, *maps), plain, side)),
    )

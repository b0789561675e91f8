"""COCO's figures of a detector: average precision by faster-coco-eval, in one place.

AP is the mean over IoU thresholds 0.50, 0.55 ... 0.95 and over classes of the precision at 101 levels of recall;
at most 100 boxes of a picture count. Small is below 32 x 32 pixels, large from 96 x 96 on. Objects that are marked
as crowds or difficult are neither found nor missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenet.errors import ArgumentError, MissingExtraError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mobilenet.pictures.boxes import BoxedPicture
    from mobilenet.tasks.detect import Boxes

# Our name -> the place in COCO's row of figures.
FIGURES = {"ap": 0, "ap50": 1, "ap75": 2, "ap_small": 3, "ap_medium": 4, "ap_large": 5, "recall100": 8}
RECALLS = 101
MEASURED_FROM = 0.001  # boxes of a lower probability change no figure
MAX_BOXES = 100
MOST_CURVES = 10  # that can be told apart in one diagram
SMALL, LARGE = 32**2, 96**2  # square pixels


@dataclass(frozen=True)
class DetectionMetrics:
    """Figures of a set of pictures; a figure is None where there is nothing to measure it on.

    Attributes:
        images, objects: how many.
        figures: `ap`, `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large`, `recall100`; 0 to 1.
        per_class: class name -> `ap`, `ap50`, `objects`.
        precision: float (classes, 101): at IoU 0.5, the precision at recall 0.00, 0.01 ... 1.00; -1 where a class
            has no objects.
    """

    images: int
    objects: int
    figures: dict[str, float | None]
    per_class: dict[str, dict[str, Any]]
    precision: NDArray[np.float64]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, without the curves."""
        counts = {"images": self.images, "objects": self.objects}
        return {**counts, **self.figures, "per_class": self.per_class}

    def curves(self, most: int = MOST_CURVES) -> list[tuple[str, NDArray[np.float64]]]:
        """Name and row of `precision` of the classes that have objects, those with most first, at most so many."""
        numbered = list(enumerate(self.per_class.items()))
        numbered.sort(key=lambda item: -item[1][1]["objects"])
        return [(name, self.precision[n]) for n, (name, figures) in numbered[:most] if figures["objects"]]


def detection_metrics(
    pictures: Sequence[BoxedPicture], found: Sequence[Boxes], names: Sequence[str]
) -> DetectionMetrics:
    """COCO's figures of what was found in pictures.

    Args:
        pictures: with the objects that are there.
        found: for each, what a detector says.
        names: of the classes.

    Raises:
        ArgumentError: another number of answers than of pictures, no objects at all, or a class without a name.
        MissingExtraError: faster-coco-eval is not installed.
    """
    if len(pictures) != len(found):
        raise ArgumentError(f"{len(found)} answers do not fit {len(pictures)} pictures")
    objects = sum(int((~picture.ignored).sum()) for picture in pictures)
    if not objects:
        raise ArgumentError("the pictures have no objects: nothing can be measured")
    for numbers in (*(p.labels for p in pictures), *(f.cls for f in found)):
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(names):
            raise ArgumentError(f"class {numbers.max()} has no name: there are {len(names)}")
    evaluated = _evaluated(coco_annotations(pictures, names), coco_results(found))
    precision = evaluated.eval["precision"]  # (thresholds, recalls, classes, areas, limits)
    stats = [float(value) for value in evaluated.stats]
    per_class = {
        name: {
            "ap": _mean(precision[:, :, number, 0, -1]),
            "ap50": _mean(precision[0, :, number, 0, -1]),
            "objects": sum(int((p.labels[~p.ignored] == number).sum()) for p in pictures),
        }
        for number, name in enumerate(names)
    }
    figures = {name: _measured(stats[place]) for name, place in FIGURES.items()}
    curves = np.array(precision[0, :, :, 0, -1].T, np.float64)
    return DetectionMetrics(len(pictures), objects, figures, per_class, curves)


def object_sizes(pictures: Sequence[BoxedPicture]) -> dict[str, int]:
    """How many objects are `small`, `medium` and `large`, without ignored ones."""
    corners = [picture.boxes[~picture.ignored].astype(np.float64) for picture in pictures]
    areas = np.concatenate([(box[:, 2:] - box[:, :2]).prod(1) for box in corners] or [np.zeros(0)])
    small, large = int((areas < SMALL).sum()), int((areas >= LARGE).sum())
    return {"small": small, "medium": len(areas) - small - large, "large": large}


def coco_annotations(pictures: Sequence[BoxedPicture], names: Sequence[str]) -> dict[str, Any]:
    """What is there, as COCO has it: pictures and annotations count from 1, category ids are class numbers + 1."""
    listed: list[dict[str, Any]] = []
    for number, picture in enumerate(pictures, 1):
        for box, label, ignored in zip(_sides(picture.boxes), picture.labels, picture.ignored, strict=True):
            listed.append(
                {
                    "id": len(listed) + 1,
                    "image_id": number,
                    "category_id": int(label) + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(ignored),
                }
            )
    return {
        "info": {},
        "images": [
            {"id": n, "height": picture.size[0], "width": picture.size[1], "file_name": str(picture.path)}
            for n, picture in enumerate(pictures, 1)
        ],
        "annotations": listed,
        "categories": [{"id": n, "name": name} for n, name in enumerate(names, 1)],
    }


def coco_results(found: Sequence[Boxes]) -> list[dict[str, Any]]:
    """What was found, as COCO has it; the 100 most probable boxes of a picture."""
    return [
        {"image_id": number, "category_id": int(label) + 1, "bbox": box, "score": float(share)}
        for number, boxes in enumerate(found, 1)
        for box, share, label in zip(
            _sides(boxes.xyxy[:MAX_BOXES]), boxes.conf[:MAX_BOXES], boxes.cls[:MAX_BOXES], strict=True
        )
    ]


def _evaluated(truth: dict[str, Any], answers: list[dict[str, Any]]) -> Any:
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ModuleNotFoundError as error:
        raise MissingExtraError("measuring a detector (faster-coco-eval)", "detect") from error
    with redirect_stdout(StringIO()):  # it prints a table of its own
        known = COCO(truth)
        evaluated = COCOeval_faster(known, known.loadRes(answers) if answers else _nothing(known), "bbox")
        evaluated.evaluate()
        evaluated.accumulate()
        evaluated.summarize()
    return evaluated


def _nothing(known: Any) -> Any:
    """An answer without boxes, which the library does not load from an empty list."""
    from faster_coco_eval import COCO

    return COCO({**known.dataset, "annotations": []})


def _sides(corners: NDArray[np.float32]) -> list[list[float]]:
    wide = corners.astype(np.float64)
    return np.concatenate([wide[:, :2], wide[:, 2:] - wide[:, :2]], axis=1).tolist()  # type: ignore[no-any-return]


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[values > -1]
    return float(known.mean()) if known.size else None


def _measured(value: float) -> float | None:
    return None if value < 0 else value

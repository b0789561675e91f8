"""From a detector's raw outputs to boxes, and what is said about one picture.

**Probabilities.** softmax, exp(x - max) / sum, or sigmoid, 1 / (1 + exp(-x)), in float64, rounded to float32.
**Candidates.** Pairs of a prior and a class whose probability is above the threshold (in float32); of each class
the `candidates` most probable, of equal ones those of the lower prior. **Boxes**, in float64, with a prior
(cx, cy, w, h) and a row (x, y, z, t) of "boxes":

- ssd: centre (cx + x v0 w, cy + y v1 h), sides (w exp(min(z v2, M)), h exp(min(t v3, M))), M = log(1000 / 16);
- yolo: sides at cx - s(x) w, cy - s(y) h, cx + s(z) w, cy + s(t) h, s the softplus log(1 + exp(.));

times width and height of the input, cut at the input's borders, rounded to float32. **Suppression** (`tasks.nms`)
in the order of falling probability, then class, then prior. **Place**: from the input to the picture by
`Preprocessing.placement`, in float64, cut at the picture's borders, rounded to float32.

That is what torchvision 0.28.0's SSD does after its network, in which the order of equal ones is not said.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from math import log
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from mobilenet.errors import ArgumentError
from mobilenet.family.decoding import KINDS, SCORES
from mobilenet.pictures.native_pass import engine, our_errors
from mobilenet.tasks.nms import suppressed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from types import ModuleType

    from numpy.typing import NDArray
    from PIL import Image

    from mobilenet.family.decoding import Decoding
    from mobilenet.model import Answer, Model
    from mobilenet.pictures.decode import Picture

MAX_EXPONENT = log(1000 / 16)
BOX = np.dtype([("box", np.float32, 4), ("score", np.float32), ("class", np.int32)])  # the native one
SLACK = 1e-3  # in a score: room for what float32 rounds when candidates are looked for


class Found(NamedTuple):
    """Boxes in pixels of the network's input: float32 (N, 4), their probabilities and classes."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]


def decoded(outputs: Mapping[str, NDArray[np.float32]], decoding: Decoding, height: int, width: int) -> Found:
    """The boxes of one picture.

    Args:
        outputs: "boxes" (A, 4) and "scores" (A, columns), raw, of one picture.
        decoding: how they are read; a copy with other thresholds is `dataclasses.replace`.
        height, width: of the network's input.

    Raises:
        ArgumentError: the outputs are not of these shapes, or hold a NaN or an infinity.
    """
    raw, scores = (np.ascontiguousarray(outputs[name], np.float32) for name in ("boxes", "scores"))
    _check(raw, scores, decoding)
    if (native := engine()) is not None:
        return _decoded_by(native, raw, scores, decoding, height, width)
    return decoded_by_reference(raw, scores, decoding, height, width)


def decoded_by_reference(
    raw: NDArray[np.float32], scores: NDArray[np.float32], decoding: Decoding, height: int, width: int
) -> Found:
    """`decoded` in numpy: what native/src/detect.cc must give."""
    if not (np.isfinite(raw).all() and np.isfinite(scores).all()):
        raise ArgumentError("a detector's outputs hold a NaN or an infinity")
    priors, classes, chances = candidates(scores, decoding)
    order = np.lexsort((priors, classes, -chances))
    priors, classes, chances = priors[order], classes[order], chances[order]
    boxes = _within(
        boxes_of(raw[priors], decoding.priors[priors], decoding) * _sides(width, height), width, height
    )
    groups = None if decoding.agnostic else classes
    kept = suppressed(boxes, groups, decoding.iou_threshold, decoding.detections)
    return Found(boxes[kept], chances[kept], classes[kept])


def _decoded_by(
    native: ModuleType,
    raw: NDArray[np.float32],
    scores: NDArray[np.float32],
    decoding: Decoding,
    height: int,
    width: int,
) -> Found:
    numbers = (KINDS.index(decoding.kind), SCORES.index(decoding.scores))  # those of native/include/mobilenet.h
    switches = (decoding.background, decoding.agnostic, decoding.candidates, decoding.detections)
    thresholds = (decoding.score_threshold, decoding.iou_threshold)
    rule = (*numbers, *switches, decoding.variances, *thresholds, height, width)
    found = np.empty(decoding.detections, BOX)
    with our_errors(native):
        count = native.detect(raw, scores, decoding.priors, rule, found.view(np.uint8))
    return Found(
        found["box"][:count].copy(), found["score"][:count].copy(), found["class"][:count].astype(np.int64)
    )


def candidates(
    scores: NDArray[np.float32], decoding: Decoding
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """(prior, class, probability) of what is looked at, ordered by class, then falling probability, then prior."""
    threshold = np.float32(decoding.score_threshold)
    rows, chances = _likely_rows(scores, decoding)
    chosen = chances > threshold  # (rows, classes)
    for number in np.flatnonzero(chosen.sum(axis=0) > decoding.candidates):
        column = chances[:, number]
        least = -np.partition(-column, decoding.candidates - 1)[decoding.candidates - 1]
        chosen[:, number] &= column >= least
    places, classes = np.nonzero(chosen)
    values = chances[places, classes]
    order = np.lexsort((places, -values, classes))
    places, classes, values = places[order], classes[order], values[order]
    rank = np.arange(len(classes)) - np.searchsorted(classes, classes)  # within the class
    few = rank < decoding.candidates
    return rows[places[few]], classes[few], values[few]


def _likely_rows(scores: NDArray[np.float32], decoding: Decoding) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows that may hold something above the threshold, and the probabilities of their classes: float32."""
    first = int(decoding.background)
    threshold = decoding.score_threshold
    if decoding.scores == "sigmoid":
        least = (
            log(threshold / (1 - threshold)) - SLACK if 0 < threshold < 1 else (-np.inf if not threshold else 0)
        )
        rows = np.flatnonzero((scores[:, first:] > least).any(axis=1))
        return rows, probabilities(scores[rows], decoding).astype(np.float32)
    rows = np.arange(len(scores))
    if first and threshold > 0:  # no probability is above exp(score - background's score)
        ahead = scores[:, 1:].max(axis=1) - scores[:, 0]
        rows = np.flatnonzero(ahead > log(threshold) - SLACK)
    return rows, probabilities(scores[rows], decoding).astype(np.float32)


def probabilities(scores: NDArray[np.float32], decoding: Decoding) -> NDArray[np.float64]:
    """What scores (..., columns) say of the classes, without the background: (..., classes)."""
    wide = scores.astype(np.float64)
    if decoding.scores == "sigmoid":
        with np.errstate(over="ignore"):
            wide = 1 / (1 + np.exp(-wide))
    else:
        wide -= wide.max(axis=-1, keepdims=True)
        np.exp(wide, out=wide)
        wide /= wide.sum(axis=-1, keepdims=True)
    return wide[..., int(decoding.background) :]


def boxes_of(raw: NDArray[np.float32], priors: NDArray[np.float64], decoding: Decoding) -> NDArray[np.float64]:
    """(left, top, right, bottom) as shares of the input's sides: rows of "boxes", (N, 4), and their priors."""
    wide = raw.astype(np.float64)
    centre, size = priors[:, :2], priors[:, 2:]
    if decoding.kind == "yolo":
        reach = np.logaddexp(0, wide) * np.tile(size, 2)
        return np.concatenate([centre - reach[:, :2], centre + reach[:, 2:]], axis=1)
    wide *= decoding.variances
    centre = centre + wide[:, :2] * size
    half = np.exp(np.minimum(wide[:, 2:], MAX_EXPONENT)) * size / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def _check(raw: NDArray[np.float32], scores: NDArray[np.float32], decoding: Decoding) -> None:
    count = decoding.prior_count
    if (
        raw.shape != (count, 4)
        or scores.ndim != 2
        or len(scores) != count
        or decoding.classes(scores.shape[1]) < 1
    ):
        raise ArgumentError(f"outputs 'boxes' {raw.shape} and 'scores' {scores.shape} do not fit {count} priors")


@dataclass(frozen=True, eq=False)
class Boxes:
    """N boxes in a picture.

    Attributes:
        xyxy: left, top, right, bottom in pixels of the picture, float32 (N, 4); the most probable box first.
        conf: probabilities, float32 (N).
        cls: class numbers, int64 (N).
        size: (height, width) of the picture in pixels.
        id: of a film's frames, which box is which of the frames before, int64 (N), -1 for one that is not followed
            (`live.track`); none of single pictures.
    """

    xyxy: NDArray[np.float32]
    conf: NDArray[np.float32]
    cls: NDArray[np.int64]
    size: tuple[int, int]
    id: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.conf)

    @property
    def xywh(self) -> NDArray[np.float32]:
        """Centre x, centre y, width, height in pixels: float32 (N, 4)."""
        corner, other = self.xyxy[:, :2].astype(np.float64), self.xyxy[:, 2:].astype(np.float64)
        return np.concatenate([(corner + other) / 2, other - corner], axis=1).astype(np.float32)

    @property
    def xyxyn(self) -> NDArray[np.float32]:
        """`xyxy` as shares of the picture's width and height, 0 to 1."""
        return self.xyxy / self._scale

    @property
    def xywhn(self) -> NDArray[np.float32]:
        """`xywh` as shares of the picture's width and height, 0 to 1: what a YOLO label file holds."""
        return self.xywh / self._scale

    @property
    def _scale(self) -> NDArray[np.float32]:
        height, width = self.size
        return np.array([width, height, width, height], np.float32)


@dataclass(frozen=True, eq=False)
class DetectionResult:
    """One picture's boxes.

    `path` is the picture's file, None if it came from memory; `names` are the classes that `boxes.cls` counts;
    `speed` is in milliseconds: `preprocess`, `inference`, `postprocess`.
    """

    path: str | None
    boxes: Boxes
    names: tuple[str, ...]
    speed: dict[str, float] = field(default_factory=dict)
    csv_header: ClassVar[tuple[str, ...]] = ("path", "label", "confidence", "left", "top", "right", "bottom")

    def __len__(self) -> int:
        return len(self.boxes)

    def at_least(self, confidence: float) -> DetectionResult:
        """The same without boxes that are less probable than this."""
        kept = self.boxes.conf >= confidence
        ids = None if self.boxes.id is None else self.boxes.id[kept]
        boxes = Boxes(self.boxes.xyxy[kept], self.boxes.conf[kept], self.boxes.cls[kept], self.boxes.size, ids)
        return DetectionResult(self.path, boxes, self.names, self.speed)

    def to_dict(self) -> dict[str, Any]:
        """`path`, `size` [height, width], `boxes` (`label`, `index`, `confidence`, `xyxy`) and `speed`.

        Boxes of a film's frames also have their `id`, null where there is none.
        """
        ids = (
            [{}] * len(self)
            if self.boxes.id is None
            else [{"id": n if n >= 0 else None} for n in self.boxes.id.tolist()]
        )
        columns = self.boxes.xyxy, self.boxes.conf, self.boxes.cls
        listed = zip(*(column.tolist() for column in columns), ids, strict=True)
        return {
            "path": self.path,
            "size": list(self.boxes.size),
            "boxes": [
                {
                    "label": self.names[number],
                    "index": number,
                    "confidence": round(share, 6),
                    "xyxy": [round(value, 2) for value in corners],
                    **followed,
                }
                for corners, share, number, followed in listed
            ],
            "speed": {step: round(milliseconds, 3) for step, milliseconds in self.speed.items()},
        }

    def csv_rows(self) -> Iterator[tuple[Any, ...]]:
        """A row of `csv_header` for each box, the most probable first."""
        for entry in self.to_dict()["boxes"]:
            yield self.path, entry["label"], entry["confidence"], *entry["xyxy"]

    def to_json(self) -> str:
        """`to_dict` as one line of ASCII JSON."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def to_coco(self, image_id: int | str, category_ids: list[int] | None = None) -> list[dict[str, Any]]:
        """The boxes as entries of COCO's result file: `bbox` is left, top, width, height in pixels.

        Args:
            image_id: of the picture in the annotations.
            category_ids: of each class; default: class number + 1.
        """
        ids = category_ids or list(range(1, len(self.names) + 1))
        corners = self.boxes.xyxy.astype(np.float64)
        sides = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        return [
            {
                "image_id": image_id,
                "category_id": ids[number],
                "bbox": [round(value, 2) for value in box],
                "score": round(share, 6),
            }
            for box, share, number in zip(
                sides.tolist(), self.boxes.conf.tolist(), self.boxes.cls.tolist(), strict=True
            )
        ]

    def plot(self, picture: Picture | None = None, confidence: float = 0.25) -> Image.Image:
        """The picture with its boxes and their names, as an RGB PIL image of the picture's own size.

        Args:
            picture: may be left out if the result has a `path`.
            confidence: boxes that are less probable are not drawn.

        Raises:
            ArgumentError: there is neither a picture nor a path, or the picture is of another size.
            ImageError: the picture cannot be read.
        """
        from mobilenet.pictures.decode import decode
        from mobilenet.report.draw_boxes import draw_boxes

        source = self.path if picture is None else picture
        if source is None:
            raise ArgumentError("this result has no path: give the picture, plot(picture)")
        pixels = decode(source)
        if pixels.shape[:2] != self.boxes.size:
            raise ArgumentError(f"the picture has {pixels.shape[:2]} pixels, the result's had {self.boxes.size}")
        shown = self.at_least(confidence).boxes
        ids = [-1] * len(shown) if shown.id is None else shown.id.tolist()
        texts = [
            f"{self.names[n]} {share:.0%}" + (f" #{number}" if number >= 0 else "")
            for n, share, number in zip(shown.cls, shown.conf, ids, strict=True)
        ]
        return draw_boxes(pixels, shown.xyxy, texts, shown.cls.tolist())

    def save(self, path: str | Path, picture: Picture | None = None, confidence: float = 0.25) -> Path:
        """Writes `plot(picture, confidence)` to `path` (.png, .jpg or .webp) and returns the path."""
        from pathlib import Path  # here, because it takes a while to import

        target = Path(path)
        if target.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
            raise ArgumentError(f"{target}: a plot is saved as .png, .jpg or .webp")
        self.plot(picture, confidence).save(target)
        return target

    def __str__(self) -> str:
        counts: dict[str, int] = {}
        for number in self.boxes.cls.tolist():
            counts[self.names[number]] = counts.get(self.names[number], 0) + 1
        found = ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing found"
        return f"{self.path}: {found}" if self.path is not None else found

    def __repr__(self) -> str:
        return f"DetectionResult(path={self.path!r}, boxes={len(self.boxes)}, classes={len(self.names)})"


def detection_of(model: Model, answer: Answer, decoding: Decoding | None = None) -> DetectionResult:
    """The boxes that a detector's answer holds, in pixels of its picture.

    `decoding` is with other thresholds than the model's, which are meant for use, where all boxes count.

    Raises:
        ArgumentError: the answer is no detector's.
    """
    start = time.perf_counter()
    rule, decoding = model.preprocessing, decoding or model.decoding
    if rule is None or decoding is None or answer.size is None:
        raise ArgumentError("only a detector that takes pictures finds boxes in them: use model.run")
    found = decoded(answer.outputs, decoding, rule.height, rule.width)
    height, width = answer.size
    window, place = rule.placement(width, height)
    corners = placed_back(found.boxes, window, place, width, height)
    boxes = Boxes(corners, found.scores, found.classes, (height, width))
    speed = {**answer.speed, "postprocess": (time.perf_counter() - start) * 1e3}
    return DetectionResult(answer.path, boxes, model.names, speed)


def placed_back(
    boxes: NDArray[np.float32],
    window: tuple[float, float, float, float],
    place: tuple[float, float, float, float],
    width: int,
    height: int,
) -> NDArray[np.float32]:
    """Boxes (N, 4) of the input as boxes of a picture of this size; see `Preprocessing.placement`."""
    across = (window[2] - window[0]) / (place[2] - place[0])
    down = (window[3] - window[1]) / (place[3] - place[1])
    scale, start = np.array([across, down] * 2), np.array([window[0], window[1]] * 2)
    corner = np.array([place[0], place[1]] * 2)
    return _within((boxes.astype(np.float64) - corner) * scale + start, width, height)


def _sides(width: int, height: int) -> NDArray[np.float64]:
    return np.array([width, height, width, height], np.float64)


def _within(corners: NDArray[np.float64], width: int, height: int) -> NDArray[np.float32]:
    """Cut at the borders of a picture of this size, and rounded."""
    return np.asarray(np.clip(corners, 0, _sides(width, height)), np.float32)

"""What a segmenter answers about one picture: a class for every pixel; as an array, shares, JSON and pictures."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mobilenet.errors import ArgumentError
from mobilenet.pictures.decode import decode
from mobilenet.pictures.palette import IGNORED, MAX_CLASSES, save_class_map
from mobilenet.pictures.run_lengths import to_coco
from mobilenet.tasks.class_map import class_map

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL import Image

    from mobilenet.model import Answer, Model
    from mobilenet.pictures.decode import Picture
    from mobilenet.pictures.palette import ClassMap


@dataclass(frozen=True, eq=False)
class SegmentationResult:
    """One picture's answer.

    Args:
        path: the picture's file, None if it came from memory.
        masks: uint8 [H, W], the class of every pixel of the picture, upright and at its own size; 255 where the
            preprocessing cut it off, so that the network has not seen it.
        names: the classes, at most 255.
        speed: in milliseconds: `preprocess`, `inference`, `postprocess`.

    Raises:
        ArgumentError: the masks are of another shape or dtype, or hold a class that has no name.
    """

    path: str | None
    masks: ClassMap
    names: tuple[str, ...]
    speed: dict[str, float] = field(default_factory=dict)
    csv_header: ClassVar[tuple[str, ...]] = ("path", "label", "share")

    def __post_init__(self) -> None:
        masks = np.array(self.masks)
        if masks.dtype != np.uint8 or masks.ndim != 2 or masks.size == 0:
            raise ArgumentError(f"masks are {masks.dtype} {list(masks.shape)}: uint8 [H, W] is needed")
        if not 1 <= len(self.names) <= MAX_CLASSES:
            raise ArgumentError(f"{len(self.names)} classes: a class map has 1 to {MAX_CLASSES}")
        known = masks[masks != IGNORED]
        if known.size and known.max() >= len(self.names):
            raise ArgumentError(f"masks hold class {known.max()}, but there are {len(self.names)} names")
        masks.setflags(write=False)
        object.__setattr__(self, "masks", masks)

    @cached_property
    def pixels(self) -> NDArray[np.int64]:
        """How many pixels each class has: int64 [classes]."""
        return np.bincount(self.masks.reshape(-1), minlength=256)[: len(self.names)]

    @property
    def shares(self) -> dict[str, float]:
        """The part of the seen pixels that each class has, 0..1; every class once, in the order of `names`."""
        total = max(int(self.pixels.sum()), 1)
        return {name: count / total for name, count in zip(self.names, self.pixels.tolist(), strict=True)}

    @property
    def present(self) -> list[int]:
        """Numbers of the classes that have pixels, the largest first."""
        order = np.argsort(-self.pixels, kind="stable").tolist()
        return [number for number in order if self.pixels[number]]

    def mask(self, name: str | int) -> NDArray[np.bool_]:
        """The pixels of one class, bool [H, W]; raises `ArgumentError` for a class that there is not."""
        if isinstance(name, str):
            if name not in self.names:
                raise ArgumentError(f"no class {name!r}; there are {', '.join(self.names)}")
            name = self.names.index(name)
        if not 0 <= name < len(self.names):
            raise ArgumentError(f"no class {name}: there are {len(self.names)}")
        return np.asarray(self.masks == name)

    def to_dict(self, *, runs: bool = False) -> dict[str, Any]:
        """`path`, `size` (height, width), `segments` (`label`, `index`, `pixels`, `share`) and `speed`.

        The largest segment comes first; shares are rounded to 6 decimals. With `runs`, each segment has its mask
        as `segmentation`, in COCO's packed run lengths.
        """
        shares = list(self.shares.values())
        segments: list[dict[str, Any]] = [
            {
                "label": self.names[number],
                "index": number,
                "pixels": int(self.pixels[number]),
                "share": round(shares[number], 6),
                **({"segmentation": to_coco(self.masks == number)} if runs else {}),
            }
            for number in self.present
        ]
        speed = {step: round(milliseconds, 3) for step, milliseconds in self.speed.items()}
        return {"path": self.path, "size": list(self.masks.shape), "segments": segments, "speed": speed}

    def to_json(self, *, runs: bool = False) -> str:
        """`to_dict` as one line of ASCII JSON."""
        return json.dumps(self.to_dict(runs=runs), allow_nan=False)

    def csv_rows(self) -> Iterator[tuple[Any, ...]]:
        """A row of `csv_header` for each class that has pixels, the largest first."""
        shares = list(self.shares.values())
        for number in self.present:
            yield self.path, self.names[number], f"{shares[number]:.6f}"

    def plot(self, picture: Picture | None = None) -> Image.Image:
        """The picture tinted by class beside a legend with shares, as an RGB PIL image.

        `picture` may be left out if the result has a `path`. Raises `ArgumentError` if there is neither or its
        size is another, and `ImageError` if the picture cannot be read.
        """
        from mobilenet.report.draw_masks import draw_segments

        source = self.path if picture is None else picture
        if source is None:
            raise ArgumentError("this result has no path: give the picture, plot(picture)")
        shares = list(self.shares.values())
        legend = [(number, self.names[number], shares[number]) for number in self.present]
        return draw_segments(decode(source), self.masks, legend)

    def save(self, path: str | Path) -> Path:
        """Writes the masks as a PNG with a palette, whose pixels are the class numbers; returns the path."""
        return save_class_map(self.masks, path)

    def __str__(self) -> str:
        shares = list(self.shares.values())
        answers = ", ".join(f"{self.names[n]} {shares[n]:.1%}" for n in self.present[:5]) or "nothing is seen"
        return f"{self.path}: {answers}" if self.path is not None else answers

    def __repr__(self) -> str:
        height, width = self.masks.shape
        return f"SegmentationResult(path={self.path!r}, {width}x{height}, classes={len(self.names)})"


def segmentation_of(model: Model, answer: Answer) -> SegmentationResult:
    """The segmentation that an answer of a model holds.

    Raises:
        ArgumentError: the model has no output "logits" (height, width, classes), or too many classes.
    """
    start = time.perf_counter()
    logits = answer.outputs.get("logits")
    if logits is None or logits.ndim != 3 or answer.size is None or model.preprocessing is None:
        raise ArgumentError("a segmenter has an output 'logits' (height, width, classes) for a picture")
    best = answer.outputs.get("classes")
    if best is not None and best.shape != logits.shape[:2]:
        best = None
    masks = class_map(logits, model.preprocessing, answer.size, best)
    speed = {**answer.speed, "postprocess": (time.perf_counter() - start) * 1e3}
    return SegmentationResult(answer.path, masks, model.names, speed)

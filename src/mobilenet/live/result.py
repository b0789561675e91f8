"""What is said about one frame of a film: the answer of the model's task, with the frame that it is about."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mobilenet.errors import ArgumentError
from mobilenet.live.draw import drawn

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from mobilenet.pictures.video import Frame


@dataclass(frozen=True, eq=False)
class FrameResult:
    """One frame's answer. What the answer has, this has too: `result.boxes`, `.masks`, `.probs`, `.names` ...

    Attributes:
        frame: its number, time and pixels: uint8 (height, width, 3), upright RGB.
        answer: a `ClassificationResult`, `DetectionResult` or `SegmentationResult`, whose `path` is the source.
        speed: milliseconds of each step so far: `decode`, `preprocess`, `inference`, `postprocess`, `track` ...
    """

    frame: Frame
    answer: Any
    speed: dict[str, float] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """Of the frame, counted from 0 in its source; those that are left out count."""
        return self.frame.number

    @property
    def seconds(self) -> float | None:
        """Since the beginning of the source, as it says itself; none if it does not."""
        return self.frame.seconds

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """Of the frame: uint8 (height, width, 3), upright RGB."""
        return self.frame.pixels

    def with_ids(self, ids: NDArray[np.int64]) -> FrameResult:
        """The same with these as the `id` of its boxes."""
        boxes = replace(self.answer.boxes, id=ids)
        return FrameResult(self.frame, replace(self.answer, boxes=boxes), self.speed)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("frame", "answer"):  # asked for before there is anything, by pickle
            raise AttributeError(name)
        return getattr(self.answer, name)

    def at_least(self, confidence: float) -> FrameResult:
        """The same without boxes that are less probable than this; other answers stay as they are."""
        if not hasattr(self.answer, "at_least"):
            return self
        return FrameResult(self.frame, self.answer.at_least(confidence), self.speed)

    def to_dict(self, **words: Any) -> dict[str, Any]:
        """`frame` (its number), `seconds`, and what the answer's `to_dict` says; `speed` has every step."""
        seconds = None if self.seconds is None else round(self.seconds, 6)
        values = {"frame": self.number, "seconds": seconds, **self.answer.to_dict(**words)}
        return {**values, "speed": {step: round(spent, 3) for step, spent in self.speed.items()}}

    def to_json(self, **words: Any) -> str:
        """`to_dict` as one line of ASCII JSON."""
        return json.dumps(self.to_dict(**words), allow_nan=False)

    def plot(self, confidence: float = 0.25) -> Image.Image:
        """The frame with its boxes, tinted by its classes, or with its most probable class: an RGB PIL image."""
        return drawn(self.pixels, self.answer, confidence)

    def save(self, path: str | Path, confidence: float = 0.25) -> Path:
        """Writes `plot(confidence)` to `path` (.png, .jpg or .webp) and returns the path."""
        from pathlib import Path

        target = Path(path)
        if target.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
            raise ArgumentError(f"{target}: a plot is saved as .png, .jpg or .webp")
        self.plot(confidence).save(target)
        return target

    @property
    def place(self) -> str:
        """The source, the frame's number and time, for people."""
        when = "" if self.seconds is None else f" ({self.seconds:.2f} s)"
        return f"{self.answer.path} {self.number}{when}"

    def __str__(self) -> str:
        return f"{self.place}: {str(self.answer).removeprefix(f'{self.answer.path}: ')}"

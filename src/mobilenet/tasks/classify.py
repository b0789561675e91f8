"""What a classifier answers about one picture: probabilities, names, times; as text, JSON and a picture."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenet.errors import ArgumentError
from mobilenet.pictures.decode import decode
from mobilenet.tasks.metrics import check_temperature, softmax

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray
    from PIL import Image

    from mobilenet.pictures.decode import Picture

SPEED_KEYS = ("preprocess", "inference", "postprocess")


def scores_to_probabilities(outputs: ArrayLike, *, logits: bool, temperature: float = 1.0) -> NDArray[np.float32]:
    """Probabilities, float32 [N, C], of a graph's outputs [N, C].

    `logits` says whether the outputs come before a softmax. If they are probabilities already they stay as
    they are at temperature 1, and are otherwise p ** (1 / temperature), scaled to the sum 1: the same as
    dividing the lost logits. Raises `ArgumentError` for a wrong shape, a value that is not finite, a
    negative probability, or a temperature that is not positive.
    """
    if logits:
        return softmax(outputs, temperature)
    check_temperature(temperature)
    scores = np.asarray(outputs, dtype=np.float32)
    if scores.ndim != 2 or scores.size == 0:
        raise ArgumentError(f"outputs is {list(scores.shape)}: probabilities [N, C] are needed")
    if not (np.isfinite(scores).all() and (scores >= 0.0).all()):
        raise ArgumentError("outputs holds a negative or not finite probability: are these logits?")
    if temperature == 1.0:
        return scores
    # a quantised softmax gives zeros: the smallest float32 keeps their logarithm finite
    return softmax(np.log(np.maximum(scores, np.finfo(np.float32).tiny)), temperature)


@dataclass(frozen=True, eq=False)
class Probabilities:
    """The probability of every class: `data`, float32 [C]. Equal ones: the lower class number comes first."""

    data: NDArray[np.float32]

    def __post_init__(self) -> None:
        data = np.array(self.data, dtype=np.float32)
        if data.ndim != 1 or data.size == 0 or not np.isfinite(data).all():
            raise ArgumentError(f"probabilities are {list(data.shape)}: finite numbers [C], C >= 1, are needed")
        data.setflags(write=False)
        object.__setattr__(self, "data", data)

    def __len__(self) -> int:
        return len(self.data)

    def top(self, count: int) -> list[int]:
        """Class numbers of the `count` most probable classes (all of them if there are fewer), best first."""
        if count < 1:
            raise ArgumentError(f"top is {count}: at least 1 is needed")
        order: list[int] = np.argsort(-self.data, kind="stable")[:count].tolist()
        return order

    @property
    def top1(self) -> int:
        """Number of the most probable class."""
        return int(np.argmax(self.data))

    @property
    def top5(self) -> list[int]:
        """Numbers of the five most probable classes, best first; all of them if there are fewer."""
        return self.top(5)

    @property
    def top1conf(self) -> float:
        """Probability of the most probable class, 0..1."""
        return float(self.data[self.top1])

    @property
    def top5conf(self) -> list[float]:
        """Probabilities of `top5`, in its order."""
        return [float(self.data[number]) for number in self.top5]


@dataclass(frozen=True, eq=False)
class ClassificationResult:
    """One picture's answer.

    `path` is the picture's file, None if it came from memory; `names` are the C classes that `probs` speaks
    of; `speed` is in milliseconds: `preprocess`, `inference`, `postprocess`. Raises `ArgumentError` if the
    numbers of names and probabilities differ.
    """

    path: str | None
    probs: Probabilities
    names: tuple[str, ...]
    speed: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.names) != len(self.probs):
            raise ArgumentError(f"{len(self.names)} names for {len(self.probs)} probabilities: not equal")

    @property
    def label(self) -> str:
        """Name of the most probable class."""
        return self.names[self.probs.top1]

    @property
    def confidence(self) -> float:
        """Probability of the most probable class, 0..1."""
        return self.probs.top1conf

    def to_dict(self, top: int = 5) -> dict[str, Any]:
        """`path`, `label`, `confidence`, `top` (a list of `label`, `confidence`, `index`) and `speed`.

        Confidences are rounded to 6 decimals and milliseconds to 3: all that float32 and clocks can say.
        """
        return {
            "path": self.path,
            "label": self.label,
            "confidence": self._rounded(self.probs.top1),
            "top": [
                {"label": self.names[number], "confidence": self._rounded(number), "index": number}
                for number in self.probs.top(top)
            ],
            "speed": {step: round(milliseconds, 3) for step, milliseconds in self.speed.items()},
        }

    def to_json(self, top: int = 5) -> str:
        """`to_dict` as one line of ASCII JSON, which any terminal and pipe can carry."""
        return json.dumps(self.to_dict(top), allow_nan=False)

    def plot(self, picture: Picture | None = None, top: int = 5) -> Image.Image:
        """The picture beside bars of its `top` classes, as an RGB PIL image.

        `picture` may be left out if the result has a `path`. Raises `ArgumentError` if there is neither, and
        `ImageError` if the picture cannot be read.
        """
        from mobilenet.report.draw import draw_answer

        source = self.path if picture is None else picture
        if source is None:
            raise ArgumentError("this result has no path: give the picture, plot(picture)")
        bars = [(self.names[number], float(self.probs.data[number])) for number in self.probs.top(top)]
        return draw_answer(decode(source), bars, self._caption())

    def save(self, path: str | Path, picture: Picture | None = None, top: int = 5) -> Path:
        """Writes `plot(picture, top)` to `path` (.png, .jpg or .webp) and returns the path."""
        from pathlib import Path  # here, because it takes a while to import

        target = Path(path)
        if target.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
            raise ArgumentError(f"{target}: a plot is saved as .png, .jpg or .webp")
        self.plot(picture, top).save(target)
        return target

    def __str__(self) -> str:
        answers = ", ".join(f"{self.names[n]} {self.probs.data[n]:.1%}" for n in self.probs.top(3))
        return f"{self.path}: {answers}" if self.path is not None else answers

    def __repr__(self) -> str:
        return (
            f"ClassificationResult(path={self.path!r}, label={self.label!r}, "
            f"confidence={self.confidence:.4f}, classes={len(self.names)})"
        )

    def _rounded(self, number: int) -> float:
        return round(float(self.probs.data[number]), 6)

    def _caption(self) -> str:
        parts = [] if self.path is None else [os.path.basename(self.path)]  # noqa: PTH119
        known = [self.speed[step] for step in SPEED_KEYS if step in self.speed]
        if known:
            parts.append(f"{sum(known):.1f} ms")
        return "  ·  ".join(parts)

"""From a frame to the model's answer about it: the same answer as `Model.predict` gives of the frame's pixels."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mobilenet.live.result import FrameResult
from mobilenet.model import Answer, _real

if TYPE_CHECKING:
    from mobilenet.model import Model
    from mobilenet.pictures.video import Frame


class Answering:
    """A function of a frame, for several threads at once.

    Args:
        model: of a task that `Model.predict` answers.
        name: of the source, in results.
        threads: how many share the work of one frame.

    Raises:
        EngineMissingError, UnsupportedOperatorError, ArgumentError: as `Model.engine`.
    """

    def __init__(self, model: Model, name: str, *, threads: int) -> None:
        self._model, self._name = model, name
        self._engine = model.engine(threads)
        (self._kind,) = self._engine.inputs().values()

    def __call__(self, frame: Frame) -> FrameResult:
        """The answer, with the milliseconds of its steps."""
        start = time.perf_counter()
        item = self._model._input_of(frame.pixels, self._kind)
        middle = time.perf_counter()
        outputs = _real(self._engine, self._model._run(self._engine, item[None]))
        speed = {
            "decode": frame.milliseconds,
            "preprocess": (middle - start) * 1e3,
            "inference": (time.perf_counter() - middle) * 1e3,
        }
        found = {name: array[0] for name, array in outputs.items()}
        height, width = frame.pixels.shape[:2]
        answer = self._model.result(Answer(self._name, found, dict(speed), size=(height, width)))
        speed["postprocess"] = answer.speed["postprocess"]
        return FrameResult(frame, answer, speed)

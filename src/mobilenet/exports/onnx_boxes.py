"""What makes boxes of a detector's raw outputs, as ONNX operators around `NonMaxSuppression`.

The arithmetic is that of `tasks.detect`, in float32. `NonMaxSuppression` looks at every box, so the `candidates`
of a class are chosen before it: what is less probable than the last of them gets no chance. What it selects
becomes rows of a fixed count, the most probable first, of equal ones that of the lower class, then of the lower
prior.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from mobilenet.exports.onnx_writer import OnnxWriter
from mobilenet.family.decoding import Decoding
from mobilenet.tasks.detect import MAX_EXPONENT

OUTPUTS = ("boxes", "scores", "classes")
END = 2**31 - 1  # of a slice: the last
PREFIX = "decoding"  # of names


def add_boxes(writer: OnnxWriter, decoding: Decoding) -> list[onnx.ValueInfoProto]:
    """Adds the decoding and the suppression behind the raw outputs; returns the file's outputs instead of them.

    They are "boxes", float32 (N, K, 4) of (left, top, right, bottom) in pixels of the input, cut at its borders;
    "scores", float32 (N, K); "classes", int64 (N, K). K is the decoding's `detections`, or the count of all pairs
    of a prior and a class if there are fewer. Behind the last box, scores and boxes are 0 and classes -1.
    """
    return _Boxes(writer, decoding).add()


class _Boxes:
    """The operators one after the other; what they write is called "decoding/..."."""

    def __init__(self, writer: OnnxWriter, decoding: Decoding) -> None:
        self.writer, self.decoding = writer, decoding
        graph = writer.graph
        self.priors, columns = graph.types[graph.outputs["scores"]].shape
        self.classes = decoding.classes(columns)
        ((height, width, _),) = (kind.shape for kind in graph.inputs.values())
        self.sides = np.array([width, height], np.float64)
        self.rows = min(decoding.detections, self.priors * (1 if decoding.agnostic else self.classes))

    def add(self) -> list[onnx.ValueInfoProto]:
        corners, chances = self._corners(), self._chances()
        best = ""
        if self.decoding.agnostic:  # a prior stands for its most probable class
            best = self._emit("ArgMax", [chances], "best", axis=1, keepdims=0)
            chances = self._emit("ReduceMax", [chances], "most", axes=[1], keepdims=1)
        scores, places = self._ranked(corners, chances)
        count = self._integers("priors", [self.priors])
        prior = self._unsqueezed(self._emit("Mod", [places, count], "prior"), 2, "prior/column")
        if self.decoding.agnostic:
            classes = self._emit("GatherND", [best, prior], "class", batch_dims=1)
        else:
            classes = self._emit("Div", [places, count], "class")
        boxes = self._emit("GatherND", [corners, prior], "box", batch_dims=1)
        return self._outputs(boxes, scores, classes)

    def _raw(self, output: str) -> str:
        return self.writer.read(self.writer.graph.outputs[output])

    def _chances(self) -> str:
        """(N, classes, priors): the probabilities of a class' candidates, and 0 of all others."""
        scores = self._raw("scores")
        if self.decoding.scores == "softmax":
            chances = self._emit("Softmax", [scores], "probabilities", axis=2)
        else:
            chances = self._emit("Sigmoid", [scores], "probabilities")
        if self.decoding.background:
            chances = self._slice(chances, 1, END, "foreground")
        chances = self._emit("Transpose", [chances], "by_class", perm=[0, 2, 1])
        if self.decoding.candidates >= self.priors:
            return chances
        count = self._integers("candidates", [self.decoding.candidates])
        top = self._emit("TopK", [chances, count], "top", "top/places", axis=2)
        least = self._slice(top, self.decoding.candidates - 1, self.decoding.candidates, "least")
        likely = self._emit("GreaterOrEqual", [chances, least], "likely")
        return self._emit("Where", [likely, chances, self.writer.scalar(0)], "candidates/chances")

    def _corners(self) -> str:
        """(N, priors, 4): left, top, right, bottom in pixels."""
        priors, raw = self.decoding.priors, self._raw("boxes")
        centre, size = priors[:, :2] * self.sides, priors[:, 2:] * self.sides
        first, second = self._slice(raw, 0, 2, "first"), self._slice(raw, 2, 4, "second")
        middle = self._numbers("centre", centre)
        if self.decoding.kind == "yolo":
            cells = self._numbers("size", size)
            before, after = (
                self._emit("Mul", [self._emit("Softplus", [half], f"{half}/reach"), cells], f"{half}/pixels")
                for half in (first, second)
            )
        else:
            variances = np.array(self.decoding.variances)
            moved = self._emit("Mul", [first, self._numbers("step", size * variances[:2])], "moved")
            middle = self._emit("Add", [moved, middle], "middle")
            scaled = self._emit("Mul", [second, self._numbers("variances", variances[2:])], "scaled")
            limited = self._emit("Min", [scaled, self.writer.scalar(MAX_EXPONENT)], "limited")
            grown = self._emit("Exp", [limited], "grown")
            before = after = self._emit("Mul", [grown, self._numbers("half", size / 2)], "half/pixels")
        near = self._emit("Sub", [middle, before], "near")
        far = self._emit("Add", [middle, after], "far")
        corners = self._emit("Concat", [near, far], "corners", axis=2)
        within = self._emit("Max", [corners, self.writer.scalar(0)], "inside")
        return self._emit("Min", [within, self._numbers("sides", np.tile(self.sides, 2))], "within")

    def _ranked(self, corners: str, chances: str) -> tuple[str, str]:
        """What stays: probabilities in falling order (N, K), and their places among class * priors + prior."""
        limits = [
            self._integers("detections", [self.decoding.detections]),
            self.writer.scalar(self.decoding.iou_threshold),
            self.writer.scalar(self.decoding.score_threshold),
        ]
        chosen = self._emit("NonMaxSuppression", [corners, chances, *limits], "chosen")
        kept = self._emit("GatherND", [chances, chosen], "kept")
        shape = self._emit("Shape", [chances], "shape")
        nothing = self._emit("ConstantOfShape", [shape], "nothing")
        spread = self._emit("ScatterND", [nothing, chosen, kept], "spread")
        flat = self._emit("Reshape", [spread, self._integers("flat", [0, -1])], "spread/flat")
        scores = self._emit("TopK", [flat, self._integers("rows", [self.rows])], "ranked", "places", axis=1)
        return scores, f"{PREFIX}/places"

    def _outputs(self, boxes: str, scores: str, classes: str) -> list[onnx.ValueInfoProto]:
        """Rows without a box are marked; everything gets its name."""
        found = self._emit("Greater", [scores, self.writer.scalar(0)], "found")
        mask = self._unsqueezed(found, 2, "found/column")
        for name in OUTPUTS:
            self.writer.check_free(name)
        self.writer.emit("Where", [mask, boxes, self.writer.scalar(0)], OUTPUTS[0])
        self.writer.emit("Identity", [scores], OUTPUTS[1])
        self.writer.emit("Where", [found, classes, self._integers("absent", [-1])], OUTPUTS[2])
        batch = "batch" if self.writer.batch is None else self.writer.batch
        shapes = [batch, self.rows, 4], [batch, self.rows], [batch, self.rows]
        kinds = TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT64
        return [
            helper.make_tensor_value_info(name, kind, shape)
            for name, kind, shape in zip(OUTPUTS, kinds, shapes, strict=True)
        ]

    def _emit(self, kind: str, inputs: list[str], output: str, *more: str, **attributes: Any) -> str:
        outputs = [name if name.startswith(PREFIX) else f"{PREFIX}/{name}" for name in (output, *more)]
        self.writer.nodes.append(helper.make_node(kind, inputs, outputs, outputs[0], **attributes))
        return outputs[0]

    def _numbers(self, name: str, values: np.ndarray) -> str:
        """A float32 constant; one row a prior is for every picture."""
        array = values.astype(np.float32)
        return self.writer.constant(f"{PREFIX}/{name}/values", array[None] if array.ndim == 2 else array)

    def _integers(self, name: str, values: list[int]) -> str:
        return self.writer.integers(f"{PREFIX}/{name}/numbers", values)

    def _slice(self, source: str, start: int, end: int, name: str) -> str:
        """A part of the last axis."""
        limits = [self._integers(f"{name}/{at}", [n]) for at, n in (("start", start), ("end", end), ("axis", 2))]
        return self._emit("Slice", [source, *limits], name)

    def _unsqueezed(self, source: str, axis: int, name: str) -> str:
        return self._emit("Unsqueeze", [source, self._integers("column", [axis])], name)

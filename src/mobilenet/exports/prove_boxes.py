"""Whether a file that gives boxes gives the model's.

Its network is proven on the raw outputs, by the same file without the decoding (`prove`). What the runtime makes
of these is then compared with what `tasks.detect` makes of them, box by box: a box is the same if its class is,
its probability within 1e-4 and its corners within a thousandth of the input's sides. Where two boxes are as
probable as each other, or their overlap is the threshold to the last digit, the order of arithmetic decides which
one stays; therefore 98% of the boxes must be the same, not all. Boxes of which nothing lies in the picture overlap
with none, themselves included; `tasks.detect` gives one for each class where all classes suppress each other, a
runtime one for all classes, so that they are not counted there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mobilenet.errors import ModelFileError
from mobilenet.exports import tflite_boxes
from mobilenet.exports.prove import Cases, Proof, run_all
from mobilenet.family.decoding import MAX_KEPT, Decoding
from mobilenet.graph.graph import Weights
from mobilenet.tasks.detect import Found, boxes_of, candidates, decoded
from mobilenet.tasks.nms import suppressed

SAME_SHARE = 0.98
SCORE_TOLERANCE, CORNER_TOLERANCE = 1e-4, 1e-3
ROWS = {"onnx": ("boxes", "scores", "classes"), "tflite": tflite_boxes.OUTPUTS}
RAW = ("boxes", "scores")


@dataclass(frozen=True)
class BoxProof(Proof):
    """A `Proof` of the raw outputs, and how many boxes were compared, with the share that was the same.

    `alike`: the share of the model's own boxes that the file gives; less where the runtime's operator cuts or
    chooses otherwise, which `tflite_boxes` says.
    """

    boxes: int = 0
    same: float = 1.0
    alike: float = 1.0

    def __str__(self) -> str:
        found = f"{super().__str__()}; of {self.boxes} boxes {self.same:.1%} as decoded from these"
        return f"{found}, {self.alike:.1%} the model's own" if self.alike != self.same else found


def prove_boxes(
    data: bytes, raw: bytes, target: str, tested: Cases, proof: Proof, decoding: Decoding, batch: int | None
) -> Proof:
    """Runs a file with and without its decoding, and compares.

    Args:
        data, raw: the file, and the same with the raw outputs.
        target: "onnx" or "tflite".
        tested: of `cases`.
        proof: of `raw`; if nothing was checked there, nothing can be here.
        decoding: what is in the file.
        batch: how many pictures the files take; none: any number.

    Raises:
        ModelFileError: too few boxes are the same, or the runtime refuses the file.
    """
    if not proof.pictures:
        return proof
    try:
        outputs = run_all(target, raw, tested.inputs, RAW, batch)
        found = run_all(target, data, tested.inputs, ROWS[target], batch)
    except (RuntimeError, ValueError) as error:
        raise ModelFileError(f"not written: {proof.runtime} cannot run the file: {str(error)[:300]}") from error
    height, width = tested.inputs.shape[1:3]
    count, same, models, alike = 0, 0, 0, 0
    for place in range(len(tested.inputs)):
        given = {name: array[place] for name, array in outputs.items()}
        rows = rows_of({name: array[place] for name, array in found.items()}, target, height, width)
        own = decoded(given, decoding, 1, 1)
        expected = as_tflite(given, decoding) if target == "tflite" else own
        if decoding.agnostic:
            own, expected, rows = map(with_area, (own, expected, rows))
        count += max(len(expected.scores), len(rows.scores))
        same += same_boxes(expected, rows)
        models += len(own.scores)
        alike += same_boxes(own, rows._replace(boxes=rows.boxes.clip(0, 1)))
    share = same / max(count, 1)
    if share < SAME_SHARE:
        raise ModelFileError(
            f"not written: in {proof.runtime} {share:.1%} of {count} boxes are those of the raw outputs "
            f"(accepted: {SAME_SHARE:.0%})"
        )
    return BoxProof(**vars(proof), boxes=count, same=share, alike=alike / max(models, 1))


def rows_of(outputs: Weights, target: str, height: int, width: int) -> Found:
    """One picture's boxes as a file gives them; (left, top, right, bottom) as shares of the input's sides."""
    boxes, scores, classes = (outputs[name] for name in ("boxes", "scores", "classes"))
    if target == "tflite":
        there, boxes = np.arange(len(scores)) < outputs["count"], boxes[:, [1, 0, 3, 2]]
    else:
        there, boxes = classes >= 0, boxes / np.array([width, height, width, height])
    return Found(boxes[there].astype(np.float32), scores[there], classes[there].astype(np.int64))


def as_tflite(outputs: Weights, decoding: Decoding) -> Found:
    """What `TFLite_Detection_PostProcess` should give: all candidates, boxes not cut."""
    priors, classes, chances = candidates(outputs["scores"], replace(decoding, candidates=MAX_KEPT))
    order = np.lexsort((priors, classes, -chances))
    priors, classes, chances = priors[order], classes[order], chances[order]
    boxes = boxes_of(outputs["boxes"][priors], decoding.priors[priors], decoding).astype(np.float32)
    groups = None if decoding.agnostic else classes
    kept = suppressed(boxes, groups, decoding.iou_threshold, decoding.detections)
    return Found(boxes[kept], chances[kept], classes[kept])


def with_area(found: Found) -> Found:
    """Those of which something lies in the picture."""
    cut = found.boxes.clip(0, 1)
    there = (cut[:, 2:] > cut[:, :2]).all(axis=1)
    return Found(found.boxes[there], found.scores[there], found.classes[there])


def same_boxes(one: Found, other: Found) -> int:
    """How many boxes two findings have in common."""
    left = np.ones(len(other.scores), np.bool_)
    for box, score, number in zip(*one, strict=True):
        close = left & (other.classes == number) & (np.abs(other.scores - score) <= SCORE_TOLERANCE)
        close &= np.abs(other.boxes - box).max(axis=1, initial=0) <= CORNER_TOLERANCE
        left[close.argmax() if close.any() else len(left) :][:1] = False
    return int((~left).sum())

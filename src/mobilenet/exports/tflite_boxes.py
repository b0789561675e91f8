"""What makes boxes of a detector's raw outputs in a .tflite file: the operator `TFLite_Detection_PostProcess`.

It is a custom operator that LiteRT, TensorFlow Lite and MediaPipe register by themselves. It reads (y, x, height,
width) relative to anchors of the same order, probabilities with the background in front, and options that are a
FlexBuffer. Source: TensorFlow Lite's `detection_postprocess.cc`. It does three things otherwise than
`tasks.detect`: boxes are not cut at the input's borders, neither before nor after suppression; it looks at all
boxes above the threshold, not at `candidates`; and of equal ones any may come first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mobilenet.errors import ArgumentError
from mobilenet.family.decoding import Decoding
from mobilenet.tasks.detect import MAX_EXPONENT

if TYPE_CHECKING:
    from mobilenet.exports.tflite_writer import TfliteWriter

OPERATOR = "TFLite_Detection_PostProcess"
OUTPUTS = ("boxes", "classes", "scores", "count")
LEAST_IOU = 1e-6  # the operator wants more than 0
NO_LIMIT = float(np.finfo(np.float32).max)


def check_decoding(decoding: Decoding, batch: int | None) -> None:
    """Raises `ArgumentError` for what the operator cannot do: other boxes than SSD's, several pictures at once."""
    if decoding.kind != "ssd":
        raise ArgumentError(
            f"{OPERATOR} reads boxes as SSD heads give them, offsets from priors, and not those of a "
            f"'{decoding.kind}' head: export to onnx, or without the suppression inside"
        )
    if batch != 1:
        raise ArgumentError(f"{OPERATOR} takes one picture at a time: export with a batch of 1")


def add_boxes(writer: TfliteWriter, decoding: Decoding) -> dict[str, int]:
    """Adds the operator behind the raw outputs; returns the file's outputs instead of them, all float32.

    They are "boxes" (1, K, 4) of (top, left, bottom, right) as shares of the input's sides, "classes" (1, K),
    "scores" (1, K) and "count" (1): how many of the K rows are boxes; what is behind them is 0.
    """
    from flatbuffers import flexbuffers

    count, columns = writer.graph.types[writer.graph.outputs["scores"]].shape
    rows = min(decoding.detections, count * (1 if decoding.agnostic else decoding.classes(columns)))
    inputs = [_encoded(writer, decoding, count), _chances(writer, decoding), _anchors(writer, decoding)]
    shapes = ([1, rows, 4], [1, rows], [1, rows], [1])
    outputs = {
        name: writer.file.value(name, shape, "float32") for name, shape in zip(OUTPUTS, shapes, strict=True)
    }
    options = _options(decoding, rows, decoding.classes(columns))
    writer.file.emit_custom(OPERATOR, inputs, list(outputs.values()), bytes(flexbuffers.Dumps(options)))
    return outputs


def _options(decoding: Decoding, rows: int, classes: int) -> dict[str, float | int | bool]:
    """By the operator's own names; an agnostic suppression is its fast one, with one class a box."""
    across, down, width, height = (1 / variance for variance in decoding.variances)
    above = np.nextafter(np.float32(decoding.score_threshold), np.float32(2))  # the operator takes equal ones, too
    return {
        "max_detections": rows,
        "max_classes_per_detection": 1,
        "detections_per_class": rows,
        "use_regular_nms": not decoding.agnostic,
        "nms_score_threshold": float(above),
        "nms_iou_threshold": max(decoding.iou_threshold, LEAST_IOU),
        "num_classes": classes,
        "y_scale": down,
        "x_scale": across,
        "h_scale": height,
        "w_scale": width,
    }


def _encoded(writer: TfliteWriter, decoding: Decoding, count: int) -> int:
    """(1, priors, 4) of (y, x, height, width), sides limited as `tasks.detect` limits them."""
    order = writer.file.constant("decoding/order", np.array([1, 0, 3, 2], np.int32))
    turned = writer.file.value("decoding/turned", [1, count, 4], "float32")
    writer.file.emit("GATHER", [_real(writer, "boxes"), order], turned, "GatherOptions", axis=2)
    _, _, width, height = (MAX_EXPONENT / variance for variance in decoding.variances)
    most = np.array([[[NO_LIMIT, NO_LIMIT, height, width]]], np.float32)
    limited = writer.file.value("decoding/limited", [1, count, 4], "float32")
    limits = writer.file.constant("decoding/limits", most)
    return writer.file.emit("MINIMUM", [turned, limits], limited, "MaximumMinimumOptions")


def _chances(writer: TfliteWriter, decoding: Decoding) -> int:
    source, shape = _real(writer, "scores"), writer.graph.types[writer.graph.outputs["scores"]].shape
    chances = writer.file.value("decoding/probabilities", [1, *shape], "float32")
    if decoding.scores == "softmax":
        return writer.file.emit("SOFTMAX", [source], chances, "SoftmaxOptions", beta=1.0)
    return writer.file.emit("LOGISTIC", [source], chances)


def _anchors(writer: TfliteWriter, decoding: Decoding) -> int:
    """(priors, 4) of (centre y, centre x, height, width) as shares of the input's sides."""
    return writer.file.constant("decoding/anchors", decoding.priors[:, [1, 0, 3, 2]].astype(np.float32))


def _real(writer: TfliteWriter, output: str) -> int:
    """A raw output in real numbers."""
    value = writer.graph.outputs[output]
    tensor, kind = writer.values[value], writer.graph.types[value]
    if not kind.integer:
        return tensor
    real = writer.file.value(f"decoding/{output}", [1, *kind.shape], "float32")
    return writer.file.emit("DEQUANTIZE", [tensor], real)

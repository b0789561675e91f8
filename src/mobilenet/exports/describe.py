"""What a file says about its network, whatever its format: one JSON text, and the labels one a line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mobilenet.files.contents import ModelContents
from mobilenet.files.description import VERSION


def to_json(contents: ModelContents, outputs: Sequence[str] = ()) -> str:
    """All but graph, weights and labels: `files/description.py` reads it back.

    Preprocessing is that of the file's own input. Labels are in it only where their text (`label_text`) would lose
    something of them. `outputs`: the file's, if they are others than the network's.
    """
    values: dict[str, Any] = {
        "version": VERSION,
        "task": contents.task,
        "outputs": list(outputs or contents.graph.outputs),
        "preprocessing": contents.preprocessing.to_dict() if contents.preprocessing else {},
        "calibration": contents.calibration,
        "metrics": contents.metrics,
        "licence": contents.licence,
        "provenance": contents.provenance,
    }
    if contents.decoding is not None:
        values["decoding"] = contents.decoding.to_dict()
    unlike = list(contents.labels) != label_lines(contents.labels)
    if contents.labels and (unlike or contents.decoding is not None):  # a text file's are a classifier's outputs
        values["labels"] = list(contents.labels)
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def label_lines(labels: Sequence[str]) -> list[str]:
    """A line for each label: without line breaks, and never empty, which readers take for the end."""
    return [" ".join(label.split()) or f"class {number}" for number, label in enumerate(labels)]


def label_text(labels: Sequence[str]) -> str:
    """The labels as a text file of one a line."""
    return "".join(f"{line}\n" for line in label_lines(labels))

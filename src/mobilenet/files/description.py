"""What a file of another runtime says about its network, if this package wrote it: `exports/describe.py`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from mobilenet.errors import ModelFileError
from mobilenet.family.decoding import Decoding
from mobilenet.files.contents import TASKS
from mobilenet.pictures.preprocess import Preprocessing

KEY = "mobilenet"
VERSION = 1
MAX_BYTES = 2**24
_KINDS = {
    "task": str,
    "outputs": list,
    "preprocessing": dict,
    "calibration": dict,
    "metrics": dict,
    "licence": str,
    "provenance": dict,
}


@dataclass(frozen=True)
class Description:
    """All of a model but graph, weights and labels.

    `labels` are a detector's, and those that a text file could not hold.
    """

    task: str
    outputs: tuple[str, ...]
    preprocessing: Preprocessing | None
    calibration: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    decoding: Decoding | None = None


def parse_description(raw: bytes) -> Description:
    """Reads an untrusted description.

    Raises:
        ModelFileError: it is too large, no JSON, of another version, or a field is missing, unknown or of a wrong
            type.
    """
    if len(raw) > MAX_BYTES:
        raise ModelFileError(f"has a description of {len(raw)} bytes; at most {MAX_BYTES} are accepted")
    try:
        values = json.loads(raw.decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"its description is no JSON: {error}") from error
    _check(values)
    rule = Preprocessing.from_dict(values["preprocessing"]) if values["preprocessing"] else None
    return Description(
        values["task"],
        tuple(values["outputs"]),
        rule,
        values["calibration"],
        values["metrics"],
        values["licence"],
        values["provenance"],
        tuple(values.get("labels", ())),
        Decoding.from_dict(values["decoding"]) if "decoding" in values else None,
    )


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _check(values: Any) -> None:
    if not isinstance(values, dict):
        raise ModelFileError("its description is no JSON object")
    if values.get("version") != VERSION:
        raise ModelFileError(f"its description has version {values.get('version')!r}; {VERSION} is read")
    for name, kind in _KINDS.items():
        if not isinstance(values.get(name), kind):
            raise ModelFileError(f"its description: field '{name}' is missing or no {kind.__name__}")
    for name in values.keys() - _KINDS.keys() - {"version", "labels", "decoding"}:
        raise ModelFileError(f"its description: unknown field '{name}'")
    if values["task"] not in TASKS:
        raise ModelFileError(f"its description: unknown task '{values['task']}'; known are {', '.join(TASKS)}")
    texts = [*values["outputs"], *(values.get("labels") or ())]
    if not all(isinstance(text, str) for text in texts) or not isinstance(values.get("labels", []), list):
        raise ModelFileError("its description: outputs and labels must be lists of texts")
    if any(isinstance(v, bool) or not isinstance(v, int | float) for v in values["calibration"].values()):
        raise ModelFileError("its description: field 'calibration' holds something that is no number")

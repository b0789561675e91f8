"""A model card: README.md with the YAML header that the Hugging Face hub reads, and what the model file knows."""

from __future__ import annotations

import json
from typing import Any

from mobilenet.files.contents import ModelContents

# The hub's own list, in the spelling of SPDX; others are "other" with their name.
LICENCES = (
    "Apache-2.0",
    "MIT",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "CC-BY-4.0",
    "CC-BY-SA-4.0",
    "Unlicense",
)
FIGURES = {"top1": "accuracy", "top5": "top-5 accuracy", "ece": "expected calibration error"}
MAX_LABELS = 20  # that the text names


def model_card(source: ModelContents, architecture: str) -> str:
    """The card's text; what the model does not know is left out."""
    lines = ["---", *_header(source, architecture), "---", "", f"# {_title(source, architecture)}", ""]
    lines += _text(source, architecture)
    return "\n".join(lines) + "\n"


def _title(source: ModelContents, architecture: str) -> str:
    return f"{architecture}, {len(source.labels)} classes" if source.labels else architecture


def _header(source: ModelContents, architecture: str) -> list[str]:
    """YAML, written as JSON scalars, which YAML reads alike: labels and names can hold anything."""
    licence = next((name for name in LICENCES if name.lower() == source.licence.lower()), "")
    header = [
        f"license: {licence.lower() if licence else 'other' if source.licence else 'unknown'}",
        *([f"license_name: {_quoted(source.licence)}"] if source.licence and not licence else []),
        "library_name: timm",
        "pipeline_tag: image-classification",
        "tags:",
        "- image-classification",
        "- timm",
        "- transformers",
        "- mobilenet",
    ]
    return header + _results(source, architecture)


def _results(source: ModelContents, architecture: str) -> list[str]:
    """The hub's `model-index`: what was measured, and on what."""
    figures = {key: source.metrics[key] for key in FIGURES if isinstance(source.metrics.get(key), int | float)}
    if not figures:
        return []
    data = _quoted(str(source.metrics.get("data", "unknown")))
    lines = ["model-index:", f"- name: {_quoted(architecture)}", "  results:"]
    lines += ["  - task:", "      type: image-classification"]
    lines += ["    dataset:", f"      name: {data}", f"      type: {data}", "    metrics:"]
    for key, value in figures.items():
        lines += [f"    - type: {_quoted(FIGURES[key])}", f"      value: {value:.4f}"]
    return lines


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _text(source: ModelContents, architecture: str) -> list[str]:
    lines = [f"A `{architecture}` for image classification, exported by mobilenet.", "", "```python"]
    lines += [
        "import timm",
        "",
        'model = timm.create_model("local-dir:PATH_OF_THIS_FOLDER", pretrained=True).eval()',
    ]
    lines += ["```", "", "## Pictures", ""]
    rule = source.preprocessing
    lines += [rule.describe() + "." if rule is not None else "The model takes arrays, not pictures."]
    if source.labels:
        named = ", ".join(_one_line(label) for label in source.labels[:MAX_LABELS])
        rest = len(source.labels) - MAX_LABELS
        lines += ["", "## Classes", "", named + (f" and {rest} more (config.json)" if rest > 0 else "")]
    lines += _section("Measured", {k: v for k, v in source.metrics.items() if isinstance(v, int | float | str)})
    plain = {k: v for k, v in source.provenance.items() if isinstance(v, int | float | str)}
    return lines + _section("How it was made", plain)


def _section(title: str, values: dict[str, Any]) -> list[str]:
    if not values:
        return []
    return [
        "",
        f"## {title}",
        "",
        *(f"- {_one_line(key)}: {_one_line(str(value))}" for key, value in values.items()),
    ]


def _one_line(text: str) -> str:
    return " ".join(text.split())

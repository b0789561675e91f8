"""Whether timm, given an exported folder, computes the model's logits."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mobilenet.errors import ModelFileError
from mobilenet.exports.prove import Proof, cases, compare
from mobilenet.files.contents import ModelContents


def prove_with_timm(folder: Path, source: ModelContents) -> Proof:
    """Loads the folder as its users will, and compares; raises `ModelFileError` if the logits are too far away."""
    timm = _timm()
    if timm is None:
        return Proof("timm")
    import torch

    title = f"timm {version('timm')}"
    try:
        network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    except (RuntimeError, ValueError, KeyError) as error:
        raise ModelFileError(f"not written: {title} cannot load the folder: {str(error).strip()[:300]}") from error
    tested = cases(source, source)
    batch = torch.from_numpy(np.ascontiguousarray(tested.inputs.transpose(0, 3, 1, 2)))
    with torch.inference_mode():
        logits = network(batch).numpy()
    return compare({"logits": logits}, tested, title)


def _timm() -> Any:
    """The package, or none where it or torchvision, which it needs, is missing or of another torch."""
    try:
        import timm
    except (ImportError, RuntimeError):
        return None
    return timm

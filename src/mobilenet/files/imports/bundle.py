"""What a reader found in somebody's file: tensors by name, and what is said about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mobilenet.errors import ModelFileError

if TYPE_CHECKING:
    import numpy as np

# What wrappers put in front of every name: torch's DataParallel, compile, Lightning, transformers' TimmWrapper and
# its base models.
PREFIXES = ("module.", "model.", "_orig_mod.", "net.", "ema.", "timm_model.", "mobilenet_v1.", "mobilenet_v2.")
# Counters that training keeps beside the weights; no answer depends on them.
IGNORED = ("num_batches_tracked", "n_averaged")


@dataclass(frozen=True)
class Hints:
    """What a configuration beside the tensors says; None where it says nothing.

    Args:
        architecture: a name that `family.names.resolve` may know.
        where: the file that says so, for messages.
        epsilon: of batch norm.
        padding: "same" or "symmetric".
        size: (height, width) of the picture.
        classes: outputs of the classifier.
        labels: of the classes, in the order of the outputs.
        preprocessing: fields of `Preprocessing`, other than the size.
        licence: SPDX expression or a sentence.
    """

    architecture: str | None = None
    where: str = "config.json"
    epsilon: float | None = None
    padding: str | None = None
    size: tuple[int, int] | None = None
    classes: int | None = None
    labels: tuple[str, ...] = ()
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    licence: str = ""


@dataclass(frozen=True)
class Bundle:
    """Tensors of a checkpoint.

    Args:
        tensors: name -> array, in the layout of `layout`.
        layout: "torch" (out, in, height, width) or "keras" (height, width, in, out).
        format: of the file, in words.
        hints: what the file itself or a configuration beside it says.
        notes: what was chosen in reading it, for the provenance.
    """

    tensors: dict[str, np.ndarray]
    layout: str
    format: str
    hints: Hints = Hints()
    notes: tuple[str, ...] = ()


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """Name without the prefixes of wrappers -> name as it is in the file; counters are left out.

    Raises:
        ModelFileError: two names become one.
    """
    plain: dict[str, str] = {}
    for name in names:
        if name.rpartition(".")[2] in IGNORED:
            continue
        short = name
        while prefix := next((prefix for prefix in PREFIXES if short.startswith(prefix)), ""):
            short = short[len(prefix) :]
        if short in plain:
            raise ModelFileError(f"holds '{short}' twice: as '{plain[short]}' and as '{name}'")
        plain[short] = name
    return plain

"""The part of a model that makes embeddings, and a name for it that no other has."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

from mobilenet.errors import ArgumentError
from mobilenet.graph.edit import pruned

if TYPE_CHECKING:
    from mobilenet.model import Model


def embedder(model: Model) -> Model:
    """The same network without what the embedding does not need (a classifier, say); its task is "embed".

    Raises:
        ArgumentError: the model has no output "embedding", or takes no pictures.
    """
    from mobilenet.model import Model as Made

    if "embedding" not in model.graph.outputs:
        raise ArgumentError(f"this model has no output 'embedding'; it has {', '.join(model.graph.outputs)}")
    if model.preprocessing is None:
        raise ArgumentError(f"this model takes arrays of {model.input.shape}, not pictures: it cannot index them")
    graph = pruned(model.graph, {"embedding": model.graph.outputs["embedding"]})
    weights = {name: np.asarray(model.weights[name]) for name in graph.parameters()}
    made = Made(
        graph,
        weights,
        model.preprocessing,
        task="embed",
        licence=model.licence,
        provenance=dict(model.provenance),
    )
    made.precision, made.threads = model.precision, model.threads
    return made


def fingerprint(embedding_model: Model) -> str:
    """SHA-256, in hexadecimal, of all that decides what an `embedder` answers: graph, weights, preprocessing.

    Labels, calibration and whatever a classifier adds do not change it.
    """
    rule = embedding_model.preprocessing
    texts = {"graph": embedding_model.graph.to_dict(), "preprocessing": rule.to_dict() if rule else {}}
    digest = hashlib.sha256(json.dumps(texts, sort_keys=True).encode())
    for name, array in sorted(embedding_model.weights.items()):
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def dimension(embedding_model: Model) -> int:
    """How many numbers an embedding has."""
    shape = embedding_model.graph.types[embedding_model.graph.outputs["embedding"]].shape
    return int(np.prod(shape))

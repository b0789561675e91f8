"""Transfer first: embed every picture once with the features as they are, then fit only the last layer.

The last layer of a classifier on fixed features is multinomial logistic regression, a convex problem that L-BFGS
solves in seconds; how strongly its weights are held back is chosen on the validation pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from scipy.optimize import minimize

from mobilenet.files.atomic import write_atomically
from mobilenet.learn.checkpoint import explained
from mobilenet.learn.data import EvaluationData
from mobilenet.learn.evaluate import Scores, outputs_of, score
from mobilenet.learn.machine import Machine
from mobilenet.learn.progress import Advance
from mobilenet.learn.task import Score
from mobilenet.pictures.folders import Sample
from mobilenet.run.torch_module import GraphModule

Reals = NDArray[np.float64]

CHUNK = 512  # pictures whose embeddings are one file of the cache
# Weight of the L2 penalty per sample, on standardised features: from hardly any to very strong.
MAX_ITERATIONS = 100
PENALTIES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)


@dataclass(frozen=True)
class Embeddings:
    """features float32 (N, D) and labels int64 (N)."""

    features: Scores
    labels: NDArray[np.int64]


class EmbeddingCache:
    """Embeddings on the disk, one file for each chunk of pictures, named by a hash of what decides its content.

    Only the main process reads and writes; the others are told.
    """

    def __init__(self, folder: Path, model: str, machine: Machine) -> None:
        self.folder = folder
        self.model = f"{model} {machine.precision} {machine.device.type}"
        self.machine = machine

    def key(self, samples: Sequence[Sample]) -> str:
        """SHA-256 over the network, the precision, and each picture's path, size and time of change."""
        digest = hashlib.sha256(self.model.encode())
        for sample in samples:
            status = sample.path.stat()
            identity = f"{sample.path.absolute()}\0{status.st_size}\0{status.st_mtime_ns}\0"
            digest.update(identity.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def get(self, samples: Sequence[Sample], size: int) -> Scores | None:
        """The embeddings (N, size) of these pictures, if they are there and whole."""
        found = self._read(samples, size) if self.machine.is_main else None
        known = self.machine.from_main(torch.tensor(float(found is not None), device=self.machine.device))
        if not known.item():
            return None
        held = torch.zeros(len(samples), size) if found is None else torch.from_numpy(found)
        return self.machine.from_main(held.to(self.machine.device)).cpu().numpy()

    def _read(self, samples: Sequence[Sample], size: int) -> Scores | None:
        path = self.folder / f"{self.key(samples)}.safetensors"
        try:
            features = load_file(path).get("features")
        except (OSError, SafetensorError):  # absent or damaged: both mean that it is counted again
            return None
        if features is None or features.shape != (len(samples), size) or features.dtype != np.float32:
            return None
        return np.array(features)

    def put(self, samples: Sequence[Sample], features: Scores) -> None:
        """Keeps the embeddings of these pictures; raises `TrainingError` if the disk is full."""
        if self.machine.is_main:
            path = self.folder / f"{self.key(samples)}.safetensors"
            with explained("the embeddings", path):
                self.folder.mkdir(parents=True, exist_ok=True)
                write_atomically(path, save({"features": features}))


def embed(
    module: GraphModule,
    data: EvaluationData,
    cache: EmbeddingCache,
    machine: Machine,
    *,
    advance: Advance = lambda _: None,
    check: Callable[[], None] = lambda: None,
) -> Embeddings:
    """What the last layer reads, for every sample, from the cache where it can be.

    Raises:
        ImageError: a picture cannot be read.
        TrainingError: the cache cannot be written.
    """
    size = module.graph.types[module.graph.outputs["embedding"]].shape[-1]
    chunks = []
    for start in range(0, len(data.samples), CHUNK):
        part = data.part(slice(start, start + CHUNK))
        features = cache.get(part.samples, size)
        if features is None:
            features = outputs_of(module, part, "embedding", machine, advance=advance, check=check)
            cache.put(part.samples, features)
        else:
            advance(len(part.samples))
        chunks.append(features)
    return Embeddings(np.concatenate(chunks), data.labels)


@dataclass(frozen=True)
class Head:
    """A fitted last layer: weight float32 (classes, D), bias float32 (classes), and what it is worth."""

    weight: Scores
    bias: Scores
    penalty: float
    score: Score


def fit_head(
    train: Embeddings, val: Embeddings, classes: int, class_weights: NDArray[np.float32] | None = None
) -> Head:
    """Multinomial logistic regression with the L2 penalty that is best on `val` (top-1, then loss).

    Features are standardised for the fit, which is folded into the weights. Counted in float64; each fit starts
    from the one with the next stronger penalty.
    """
    centre, spread = train.features.mean(axis=0, dtype=np.float64), train.features.std(axis=0, dtype=np.float64)
    spread = np.where(spread > 1e-6 * max(float(spread.max()), 1e-30), spread, np.inf)  # constant: no say
    features = (train.features - centre) / spread
    weights = np.ones(classes) if class_weights is None else class_weights.astype(np.float64)
    parameters = np.zeros((classes, features.shape[1] + 1))
    best: Head | None = None
    for penalty in reversed(PENALTIES):
        parameters = _fit(features, train.labels, weights[train.labels], parameters, penalty)
        head = _folded(parameters, centre, spread, penalty, val)
        if best is None or head.score.beats(best.score):
            best = head
    assert best is not None
    return best


def _fit(features: Reals, labels: NDArray[np.int64], sample_weights: Reals, start: Reals, penalty: float) -> Reals:
    """(classes, D + 1): weights and, last, biases, which are not held back."""
    samples = np.arange(len(labels))
    shares = sample_weights / len(labels)

    def loss(flat: Reals) -> tuple[float, Reals]:
        parameters = flat.reshape(start.shape)
        weights, biases = parameters[:, :-1], parameters[:, -1]
        logits = features @ weights.T + biases  # (N, classes)
        logits -= logits.max(axis=1, keepdims=True)
        log_sums = np.log(np.exp(logits).sum(axis=1))
        value = shares @ (log_sums - logits[samples, labels]) + penalty / 2 * (weights**2).sum()
        slopes = np.exp(logits - log_sums[:, None])
        slopes[samples, labels] -= 1
        slopes *= shares[:, None]
        gradient = np.column_stack([slopes.T @ features + penalty * weights, slopes.sum(axis=0)])
        return float(value), gradient.ravel()

    found = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": MAX_ITERATIONS})
    return np.asarray(found.x, dtype=np.float64).reshape(start.shape)


def _folded(
    parameters: NDArray[np.float64],
    centre: NDArray[np.float64],
    spread: NDArray[np.float64],
    penalty: float,
    val: Embeddings,
) -> Head:
    """The fit for features as they are, and its score on the validation pictures."""
    weight = parameters[:, :-1] / spread
    bias = parameters[:, -1] - weight @ centre
    head_weight, head_bias = weight.astype(np.float32), bias.astype(np.float32)
    return Head(head_weight, head_bias, penalty, score(val.features @ head_weight.T + head_bias, val.labels))


def balanced_weights(labels: Sequence[int], classes: int) -> NDArray[np.float32]:
    """A weight for each class, inverse to its frequency, so that the mean over the samples is 1."""
    counts = np.bincount(labels, minlength=classes)
    return (len(labels) / (classes * np.maximum(counts, 1))).astype(np.float32)

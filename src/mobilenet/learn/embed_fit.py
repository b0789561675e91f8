"""A last layer that fits features as they are: within an identity all directions vary equally (Fisher, 1936).

Somebody's features were trained for other things, so they vary most with what does not tell people apart: light,
pose. Dividing by the variation within identities takes that away; the D directions of the most variation that is
left are kept. With few pictures the variation is known badly, so it is mixed with that of a ball (Ledoit and Wolf
2004); how much is chosen on the identities of val.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobilenet.graph.graph import Weights
from mobilenet.learn.embed_pairs import Pairs, balanced_threshold
from mobilenet.learn.embed_start import LINEAR, NORM
from mobilenet.learn.task import Score
from mobilenet.learn.transfer import Embeddings
from mobilenet.tasks.verify import area_under, roc

Reals = NDArray[np.float64]
SHRINKAGES = (0.1, 0.3, 0.6, 0.9)
EPSILON = 1e-5  # of the batch norm


@dataclass(frozen=True)
class Projection:
    """embedding = (features - centre) @ matrix, float64 [F] and [F, D]; and what it is worth on val."""

    centre: Reals
    matrix: Reals
    shrinkage: float
    score: Score

    def directions(self, train: Embeddings) -> Reals:
        """Where each identity of train lies on average, float64 [identities, D]; label 0 first."""
        embedded = (train.features - self.centre) @ self.matrix
        embedded /= np.maximum(np.linalg.norm(embedded, axis=1, keepdims=True), 1e-12)
        sums = np.zeros((int(train.labels.max()) + 1, embedded.shape[1]))
        np.add.at(sums, train.labels, embedded)
        return sums


def fit_projection(train: Embeddings, val: Embeddings, pairs: Pairs, size: int) -> Projection:
    """The projection to `size` numbers whose shrinkage is best on val.

    Args:
        train, val: features and identities.
        pairs: of val.
        size: D.
    """
    features = train.features.astype(np.float64)
    centre = features.mean(axis=0)
    features = features - centre
    scatter = _within(features, train.labels)
    best: Projection | None = None
    for shrinkage in SHRINKAGES:
        matrix = _matrix(features, scatter, shrinkage, size)
        embedded = (val.features - centre) @ matrix
        projection = Projection(centre, matrix, shrinkage, score_of(embedded.astype(np.float32), pairs))
        if best is None or projection.score.beats(best.score):
            best = projection
    assert best is not None
    return best


def score_of(embeddings: NDArray[np.float32], pairs: Pairs) -> Score:
    """Balanced accuracy at the best threshold; as loss, the share of wrongly ordered pairs (1 - AUC)."""
    curve = roc(pairs.similarities(embeddings), pairs.same)
    return Score(balanced_threshold(curve)[1], 1.0 - area_under(curve))


def _within(features: Reals, labels: NDArray[np.int64]) -> Reals:
    """Covariance of the features within identities, [F, F]."""
    _, numbers, counts = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), features.shape[1]))
    np.add.at(sums, numbers, features)
    inside = features - (sums / counts[:, None])[numbers]
    return np.asarray(inside.T @ inside / len(features))


def _matrix(features: Reals, scatter: Reals, shrinkage: float, size: int) -> Reals:
    """Whitening within identities, then the `size` principal directions, [F, size]."""
    ball = np.trace(scatter) / len(scatter)
    mixed = (1 - shrinkage) * scatter + shrinkage * ball * np.eye(len(scatter))
    values, vectors = np.linalg.eigh(mixed)
    whitening = vectors / np.sqrt(np.maximum(values, 1e-12 * max(float(values[-1]), 1e-30)))
    white = features @ whitening
    _, directions = np.linalg.eigh(white.T @ white)
    chosen = directions[:, ::-1][:, :size]
    matrix = np.zeros((features.shape[1], size))
    matrix[:, : chosen.shape[1]] = whitening @ chosen
    return matrix


def with_projection(weights: Weights, projection: Projection, train: Embeddings) -> Weights:
    """The weights with the projection as last layer.

    The batch norm's statistics are those of the pictures and its gamma their deviation, so that it does the same
    with a batch's own statistics, in training.
    """
    projected = (train.features - projection.centre) @ projection.matrix
    deviation = np.sqrt(projected.var(axis=0) + EPSILON)
    own = {
        f"{LINEAR}.weight": projection.matrix.T,
        f"{NORM}.mean": projection.centre @ projection.matrix,
        f"{NORM}.variance": projected.var(axis=0),
        f"{NORM}.gamma": deviation,
        f"{NORM}.beta": np.zeros(len(deviation)),
    }
    return {
        **weights,
        **{name: value.astype(np.float32).reshape(weights[name].shape) for name, value in own.items()},
    }

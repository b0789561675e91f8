"""How well a model's embeddings tell whether two pictures show the same one."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenet.errors import ArgumentError, DataError, ImageError
from mobilenet.tasks.verify import (
    at_threshold,
    cosine_similarities,
    rank1_identification,
    roc,
    threshold_at_far,
    verification_metrics,
)
from mobilenet.tasks.verify_data import Identities, Pair, check_disjoint, draw_pairs, read_identities, read_pairs

if TYPE_CHECKING:
    from mobilenet.model import Model

THRESHOLD = "verify_threshold"  # in a model's calibration: the cosine from which two pictures show the same one
THRESHOLD_FAR = "verify_far"  # and the FAR at which it was set
Progress = Callable[[int, int], None]


@dataclass
class _Embedded:
    """Embeddings by path, and the pictures that could not be read."""

    vectors: dict[Path, np.ndarray] = field(default_factory=dict)
    bad: list[ImageError] = field(default_factory=list)

    def similarities(self, pairs: Sequence[Pair]) -> tuple[list[Pair], np.ndarray]:
        """The pairs whose pictures are both good, with their cosines."""
        good = [pair for pair in pairs if pair.first in self.vectors and pair.second in self.vectors]
        if not good:
            raise DataError("there is no pair of two good pictures")
        sides = ([self.vectors[pair.first] for pair in good], [self.vectors[pair.second] for pair in good])
        return good, cosine_similarities(*(np.stack(side) for side in sides))


def evaluate_verification(
    model: Model,
    data: str | os.PathLike[str],
    *,
    pairs: str | os.PathLike[str] | None = None,
    draw: int = 3000,
    seed: int = 0,
    on_bad_picture: str = "stop",
    plot: str | os.PathLike[str] | None = None,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Figures of merit of verification on `DATA/<identity>/*`.

    Args:
        model: any model with an output "embedding".
        data: the folder of identities; with `pairs`, what their paths are relative to.
        pairs: a file of pairs (`verify_data.read_pairs`). Without it they are drawn.
        draw: how many pairs of each kind to draw, at most; 0: all there are.
        seed: of the draw and of the folds.
        on_bad_picture: stop, or skip: pairs of such pictures are left out, the pictures counted and named.
        plot: where to draw the ROC curve (.png).
        on_progress: is called with (pictures done, pictures in all).

    Returns:
        `verification_metrics`; `rank1` (where the pairs are drawn); `at_threshold`, where the model has a
        calibrated threshold; `single`: names of identities that were left out for having
        one picture; `skipped`: names of bad pictures; `data`, `seed`.

    Raises:
        DataError: the folder or file cannot be used, or a picture is bad and `on_bad_picture` is stop.
        ArgumentError: the model has no embedding.
        MissingExtraError: a plot is asked for and matplotlib is not installed.
    """
    if on_bad_picture not in ("stop", "skip"):
        raise ArgumentError(f"on_bad_picture is stop or skip, not {on_bad_picture!r}")
    identities = None if pairs else read_identities(Path(data))
    chosen = draw_pairs(identities, limit=draw, seed=seed) if identities else read_pairs(str(pairs), Path(data))
    wanted = [path for path, _ in identities.flat] if identities else _paths(chosen)
    embedded = _embed(model, wanted, on_bad_picture, on_progress)
    good, similarities = embedded.similarities(chosen)
    same, folds = np.array([pair.same for pair in good]), np.array([pair.fold for pair in good])
    metrics = verification_metrics(similarities, same, _without_gaps(folds))
    if identities:
        metrics["rank1"] = _rank1(identities, embedded)
    if THRESHOLD in model.calibration:
        threshold = float(model.calibration[THRESHOLD])
        metrics["at_threshold"] = {"threshold": threshold, **at_threshold(similarities, same, threshold)}
    if plot is not None:
        from mobilenet.report.roc import roc_plot

        roc_plot(roc(similarities, same), Path(plot), metrics)
    return metrics | {
        "single": list(identities.single) if identities else [],
        "skipped": [str(error) for error in embedded.bad],
        "data": os.fspath(data),
        "seed": seed,
    }


def calibrate_verification(
    model: Model,
    data: str | os.PathLike[str],
    *,
    test: str | os.PathLike[str] | None = None,
    pairs: str | os.PathLike[str] | None = None,
    far: float = 1e-3,
    draw: int = 0,
    seed: int = 0,
    on_bad_picture: str = "stop",
    on_progress: Progress | None = None,
) -> Model:
    """The same model with the threshold in its calibration that accepts at most `far` of the different pairs here.

    Args:
        model: any model with an output "embedding".
        data: a folder of identities, none of which is among those of `test`.
        test: the folder that the threshold will be judged on.
        pairs: the file of the pairs in it, if they are given.
        far: the false acceptance rate, above 0 and below 1.
        draw, seed, on_bad_picture, on_progress: as in `evaluate_verification`.

    Raises:
        ArgumentError: `far` is no such rate, or lower than the pairs can show.
        DataError: the folder cannot be used, or an identity is in `test` too.
    """
    identities = read_identities(Path(data))
    if test is not None:
        check_disjoint(identities, _tested(Path(test), pairs))
    drawn = draw_pairs(identities, limit=draw, seed=seed)
    embedded = _embed(model, _paths(drawn), on_bad_picture, on_progress)
    good, similarities = embedded.similarities(drawn)
    threshold = threshold_at_far(similarities, np.array([pair.same for pair in good]), far)
    calibration = {**model.calibration, THRESHOLD: threshold, THRESHOLD_FAR: far}
    made = replace(model, calibration=calibration)
    made.precision, made.threads = model.precision, model.threads
    return made


def _tested(root: Path, pairs: str | os.PathLike[str] | None) -> Iterable[Path]:
    """The folders of the identities that will be tested."""
    if pairs is not None:
        return {path.parent for path in _paths(read_pairs(str(pairs), root))}
    return (root / name for name in read_identities(root).pictures)


def _paths(pairs: Iterable[Pair]) -> list[Path]:
    return list(dict.fromkeys(path for pair in pairs for path in (pair.first, pair.second)))


def _embed(model: Model, paths: list[Path], on_bad_picture: str, on_progress: Progress | None) -> _Embedded:
    if "embedding" not in model.graph.outputs:
        raise ArgumentError(f"this model has no output 'embedding'; it has {', '.join(model.graph.outputs)}")
    embedded = _Embedded()
    for done, (path, answer) in enumerate(zip(paths, model.answers(paths), strict=True), 1):
        if on_progress:
            on_progress(done, len(paths))
        if answer.error:
            if on_bad_picture == "stop":
                raise DataError(f"{answer.error} (on_bad_picture=skip leaves such pictures out)") from answer.error
            embedded.bad.append(answer.error)
        else:
            embedded.vectors[path] = answer.outputs["embedding"].reshape(-1)
            if not math.isfinite(float(embedded.vectors[path] @ embedded.vectors[path])):
                raise DataError(f"{path}: the model's embedding of it is not finite: are its weights damaged?")
    return embedded


def _without_gaps(folds: np.ndarray) -> np.ndarray:
    """The folds' numbers without those that bad pictures have emptied."""
    return np.asarray(np.unique(folds, return_inverse=True)[1])


def _rank1(identities: Identities, embedded: _Embedded) -> float | None:
    found = [(embedded.vectors[path], number) for path, number in identities.flat if path in embedded.vectors]
    vectors, numbers = zip(*found, strict=True)
    return rank1_identification(np.stack(vectors), np.array(numbers))

"""Teaching a class by a handful of pictures: its prototype becomes a row of an ordinary dense layer.

A prototype is the direction of the mean of a class's embeddings, each of length 1 (Snell et al. 2017,
"Prototypical networks for few-shot learning"; as weights of a classifier, Qi et al. 2018, "Low-shot learning with
imprinted weights"). The graph goes on behind the embedding: flattened, l2-normalised, a dense layer of prototypes.
So the engine and every export have a taught class as they have any other. Nothing is trained.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mobilenet.errors import ArgumentError, DataError
from mobilenet.tasks import taught
from mobilenet.tasks.taught import NONE, Lesson, Lessons

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mobilenet.model import Model
    from mobilenet.pictures.decode import Picture

    Float32 = NDArray[np.float32]

KEPT = 0.95  # share of a class's own pictures that the threshold should let pass
_DEVIATIONS = 1.645  # that is how many standard deviations below the mean, of a normal distribution
# Before much is known, similarities are taken to lie 0.07 around their mean, as they do in ImageNet features of
# photographs; the guess weighs as much as four pictures.
_USUAL_DEVIATION, _USUAL_WEIGHT = 0.07, 4
DEFAULT_THRESHOLD = 0.4  # until a class has two pictures (docs/results.md)
MAX_SIMILARITIES = 64  # that are remembered of a class


class Seen(NamedTuple):
    """What the model says of a lesson's pictures: unit embeddings (N, D), and the own logits (N, C) or none."""

    embeddings: Float32
    logits: Float32 | None


def teach(
    model: Model,
    name: str,
    pictures: Iterable[Picture],
    *,
    keep: bool = True,
    threshold: float | None = None,
) -> Model:
    """A classifier that knows one class more, or knows a taught class better; `model` stays as it is.

    The classes that `model` was trained on are kept, or left out for good:

    - kept, a picture is of a taught class if it is nearer to its prototype than the threshold, and else of one of
      the own classes, as before;
    - not kept (or where there are none), the classes are the taught ones and "none of these", which comes first
      and is the answer where no prototype is nearer than the threshold.

    The threshold is a cosine. Without a given one it is set so that about 95% of the taught pictures, each
    compared with the others of its class, would pass; it moves with every lesson.

    Args:
        model: anything with an output "embedding"; a classifier that keeps its own classes needs "logits" too.
        name: of the class. A taught class of that name gets these pictures in addition.
        pictures: paths, bytes, PIL images or uint8 arrays (height, width, 3), of one or more.
        keep: whether the own classes stay, where they are still there.
        threshold: -1..1; stays until another is given.

    Raises:
        ImageError: a picture cannot be read.
        DataError: there are no pictures.
        ArgumentError: the name is empty, reserved or an own class's; the threshold is no cosine; the model has no
            embedding, or no logits and the own classes are to be kept.
    """
    _check(name, threshold)
    base, lessons = taught.read(model) if taught.is_taught(model) else _first(model, keep)
    if not keep:
        lessons = lessons._replace(kept=False)
    own = base.names if lessons.kept else ()
    if name in own:
        raise ArgumentError(
            f"the model has a class of its own that is called {name!r}: give the new one another name"
        )
    seen = _look(base, pictures, with_logits=lessons.kept)
    if threshold is not None:
        lessons = lessons._replace(given_threshold=threshold)
    lessons = _learn(lessons, name, seen)
    return taught.with_lessons(base, lessons, threshold_of(lessons))


def threshold_of(lessons: Lessons) -> float:
    """The cosine from which a picture is of a taught class: the given one, or by what is known of the pictures.

    The mean of the similarities of each picture to the others of its class, less 1.645 deviations; the deviation
    is that of the pictures and a usual one of 0.07, weighed as four pictures are.
    """
    if lessons.given_threshold is not None:
        return lessons.given_threshold
    known = np.array([one for lesson in lessons.classes for one in lesson.similarities], np.float64)
    if not len(known):
        return DEFAULT_THRESHOLD
    squares = float(np.sum((known - known.mean()) ** 2)) + _USUAL_WEIGHT * _USUAL_DEVIATION**2
    deviation = math.sqrt(squares / (len(known) - 1 + _USUAL_WEIGHT))
    return float(np.clip(known.mean() - _DEVIATIONS * deviation, -1.0, 1.0))


def _check(name: str, threshold: float | None) -> None:
    if not name.strip() or name != name.strip() or "\n" in name:
        raise ArgumentError(f"{name!r} is no name of a class: it is empty, or has space around it or a line break")
    if name == NONE:
        raise ArgumentError(f"{NONE!r} is what no class is called: it stands for what was not taught")
    if threshold is not None and not -1.0 <= threshold <= 1.0:
        raise ArgumentError(f"the threshold is {threshold}: a cosine, -1 to 1, is needed")


def _first(model: Model, keep: bool) -> tuple[Model, Lessons]:
    """The model before its first lesson, and what is known then."""
    if "embedding" not in model.graph.outputs:
        raise ArgumentError(f"this model has no output 'embedding'; it has {', '.join(model.graph.outputs)}")
    kept = keep and model.task == "classify"
    if kept and "logits" not in model.graph.outputs:
        raise ArgumentError("this model has no output 'logits', so its own classes cannot be kept: leave them out")
    return model, Lessons(kept=kept)


def _look(base: Model, pictures: Iterable[Picture], *, with_logits: bool) -> Seen:
    embeddings: list[NDArray[np.float32]] = []
    logits: list[NDArray[np.float32]] = []
    for answer in base.answers(pictures):
        if answer.error:
            raise answer.error
        vector = answer.outputs["embedding"].reshape(-1)
        length = float(np.linalg.norm(vector))
        if not math.isfinite(length) or length == 0.0:
            raise DataError(
                f"{answer.path or 'a picture'}: its embedding is zero or not finite: it teaches nothing"
            )
        unit = np.asarray(vector / length, np.float32)
        if any(np.array_equal(unit, other) for other in embeddings):
            continue  # the same picture twice would look like two that are very much alike
        embeddings.append(unit)
        if with_logits:
            logits.append(np.asarray(answer.outputs["logits"].reshape(-1), np.float32))
    if not embeddings:
        raise DataError("a class is taught by one picture or more; there are none")
    return Seen(np.stack(embeddings), np.stack(logits) if logits else None)


def _learn(lessons: Lessons, name: str, seen: Seen) -> Lessons:
    """What is known after the pictures that were seen."""
    before = next((lesson for lesson in lessons.classes if lesson.name == name), None)
    total = seen.embeddings.sum(axis=0, dtype=np.float64)
    count = len(seen.embeddings)
    if before is not None:
        total = total + before.prototype.astype(np.float64) * before.length * before.pictures
        count += before.pictures
    length = float(np.linalg.norm(total))
    if length < 1e-6:
        raise DataError(f"class {name!r}: its pictures point in opposite directions and have no mean")
    similarities = (*(before.similarities if before else ()), *_own_similarities(seen.embeddings, total, count))
    prototype = np.asarray(total / length, np.float32)
    lesson = Lesson(name, count, length / count, similarities[:MAX_SIMILARITIES], prototype)
    classes = _with(lessons.classes, lesson)
    return lessons._replace(classes=classes, level=_level(lessons, seen))


def _own_similarities(embeddings: Float32, total: NDArray[np.float64], count: int) -> Sequence[float]:
    """Cosine of each new picture and the mean of all others of the class; nothing for a single picture."""
    if count < 2:
        return ()
    others = total - embeddings
    lengths = np.maximum(np.linalg.norm(others, axis=1), 1e-12)
    return [round(float(one), 6) for one in np.sum(embeddings * others, axis=1) / lengths]


def _with(classes: tuple[Lesson, ...], lesson: Lesson) -> tuple[Lesson, ...]:
    if any(known.name == lesson.name for known in classes):
        return tuple(lesson if known.name == lesson.name else known for known in classes)
    return (*classes, lesson)


def _level(lessons: Lessons, seen: Seen) -> float:
    """How sure the own classes are of taught pictures, on average: what a taught class must outdo."""
    if seen.logits is None:
        return 0.0
    pictures = sum(lesson.pictures for lesson in lessons.classes)
    highest = float(seen.logits.max(axis=1).sum())
    return (lessons.level * pictures + highest) / (pictures + len(seen.logits))

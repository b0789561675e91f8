"""A taught model has beside its own network prototypes in the graph, and what made them in its provenance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mobilenet.errors import ModelFileError
from mobilenet.graph.edit import pruned
from mobilenet.graph.graph import Graph, Node
from mobilenet.graph.ops import Concat, Dense, Dequantise, L2Normalise, Reshape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mobilenet.model import Model

NONE = "none of these"
KEY = "taught"  # in the model's provenance
PROTOTYPES, JOINED, OWN = "taught.prototypes", "taught.joined", "taught.own"
# A logit is this times (cosine - threshold): without own classes what made the likelihood of held-out clothing
# photographs highest; beside own classes steeper, so that their own ups and downs decide little (docs/results.md).
SCALE, SCALE_BESIDE_OWN = 30.0, 50.0


class Lesson(NamedTuple):
    """A taught class.

    Attributes:
        name: of the class.
        pictures: how many it was taught by.
        length: of the mean of their unit embeddings: 1 if all are the same.
        similarities: of each picture to the others, as far as they are remembered.
        prototype: the mean's direction, float32 (D).
    """

    name: str
    pictures: int
    length: float
    similarities: tuple[float, ...]
    prototype: NDArray[np.float32]


class Lessons(NamedTuple):
    """All that was taught.

    Attributes:
        kept: whether the own classes are there too.
        classes: the taught ones, in the order of teaching.
        given_threshold: the one that was asked for, if any was.
        level: the own classes' highest logit, on average over the taught pictures.
    """

    kept: bool
    classes: tuple[Lesson, ...] = ()
    given_threshold: float | None = None
    level: float = 0.0


def is_taught(model: Model) -> bool:
    """Whether classes of it were taught."""
    return any(node.name == PROTOTYPES for node in model.graph.nodes)


def with_lessons(base: Model, lessons: Lessons, threshold: float) -> Model:
    """The classifier of what was taught, and of the own classes of `base` if they are kept.

    Outputs are "logits", float32, and "embedding", as before. Metrics go: they were another network's.
    """
    temperature = base.calibration.get("temperature", 1.0) if lessons.kept else 1.0
    scale = (SCALE_BESIDE_OWN if lessons.kept else SCALE) * temperature
    prototypes = np.stack([lesson.prototype for lesson in lessons.classes])
    if lessons.kept:
        weight, bias = scale * prototypes, np.full(len(prototypes), lessons.level - scale * threshold)
    else:
        weight = np.concatenate([np.zeros_like(prototypes[:1]), scale * prototypes])
        bias = np.concatenate([[scale * threshold], np.zeros(len(prototypes))])
    graph = _graph(base.graph, len(weight), kept=lessons.kept)
    expected = graph.parameters()
    weights = {name: array for name, array in base.weights.items() if name in expected}
    weights |= {f"{PROTOTYPES}.weight": weight.astype(np.float32), f"{PROTOTYPES}.bias": bias.astype(np.float32)}
    names = tuple(lesson.name for lesson in lessons.classes)
    calibration = {k: v for k, v in base.calibration.items() if lessons.kept or k != "temperature"}
    made = replace(
        base,
        graph=graph,
        weights=weights,
        labels=(*base.names, *names) if lessons.kept else (NONE, *names),
        task="classify",
        calibration=calibration,
        metrics={},
        provenance={**base.provenance, KEY: _to_dict(lessons, threshold)},
        checks=(),
    )
    made.precision, made.threads = base.precision, base.threads
    return made


def read(model: Model) -> tuple[Model, Lessons]:
    """The model as it was before it was taught (own logits and embedding), and what was taught since.

    Raises:
        ModelFileError: what the file says of its lessons does not fit its network.
    """
    try:
        values = model.provenance[KEY]
        lessons = _from_dict(values, model.weights[f"{PROTOTYPES}.weight"])
        outputs = {"embedding": model.graph.outputs["embedding"]}
        if lessons.kept:
            outputs["logits"] = model.graph.node(OWN).inputs[0]
        graph = pruned(model.graph, outputs)
        expected = graph.parameters()
        base = replace(
            model,
            graph=graph,
            weights={name: array for name, array in model.weights.items() if name in expected},
            labels=model.labels[: -len(lessons.classes)] if lessons.kept else (),
            task="classify" if lessons.kept else "embed",
            checks=(),
        )
        base.validate()
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"what the model says of its taught classes does not fit it: {error!r}") from error
    base.precision, base.threads = model.precision, model.threads
    return base, lessons


def _graph(own: Graph, rows: int, *, kept: bool) -> Graph:
    embedding = own.outputs["embedding"]
    outputs = {"embedding": embedding} | ({"logits": own.outputs["logits"]} if kept else {})
    nodes = list(pruned(own, outputs).nodes)
    flat = _flattened(nodes, own, embedding, "taught.embedding")
    nodes.append(Node("taught.direction", L2Normalise(), (flat,)))
    nodes.append(Node(PROTOTYPES, Dense(out_features=rows), ("taught.direction",)))
    logits = PROTOTYPES
    if kept:
        flat = _flattened(nodes, own, outputs["logits"], OWN)
        nodes.append(Node(JOINED, Concat(), (flat, PROTOTYPES)))
        logits = JOINED
    return Graph(own.inputs, tuple(nodes), {"logits": logits, "embedding": embedding})


def _flattened(nodes: list[Node], own: Graph, source: str, name: str) -> str:
    """Adds what makes (D) floats of a node's value; returns the last node's name. The first is called `name`."""
    if own.types[source].integer:
        nodes.append(Node(name, Dequantise(), (source,)))
        source, name = name, f"{name}.flat"
    nodes.append(Node(name, Reshape(), (source,)))
    return name


def _to_dict(lessons: Lessons, threshold: float) -> dict[str, Any]:
    return {
        "kept": lessons.kept,
        "threshold": threshold,
        "given_threshold": lessons.given_threshold,
        "level": lessons.level,
        "classes": [
            {
                "name": lesson.name,
                "pictures": lesson.pictures,
                "length": lesson.length,
                "similarities": list(lesson.similarities),
            }
            for lesson in lessons.classes
        ],
    }


def _from_dict(values: Mapping[str, Any], weight: NDArray[np.float32]) -> Lessons:
    kept, classes, given = values["kept"], values["classes"], values["given_threshold"]
    if not isinstance(kept, bool) or not classes or len(classes) + (not kept) != len(weight):
        raise ValueError(f"{len(classes)} classes, {len(weight)} rows")
    lengths = np.linalg.norm(weight, axis=1, keepdims=True)
    rows = (weight / np.maximum(lengths, 1e-12))[0 if kept else 1 :]
    lessons = tuple(_lesson(one, row) for one, row in zip(classes, rows, strict=True))
    if len({lesson.name for lesson in lessons}) != len(lessons):
        raise ValueError("a class comes twice")
    return Lessons(kept, lessons, None if given is None else _number(given, 1.0), _number(values["level"], 1e9))


def _lesson(values: Mapping[str, Any], row: NDArray[np.float32]) -> Lesson:
    name, pictures = values["name"], values["pictures"]
    if not isinstance(name, str) or type(pictures) is not int or pictures < 1:
        raise ValueError(f"class {name!r} of {pictures!r} pictures")
    similarities = tuple(_number(one, 1.001) for one in values["similarities"])
    return Lesson(name, pictures, _number(values["length"], 1.001), similarities, np.asarray(row, np.float32))


def _number(value: Any, largest: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    if abs(value) > largest:
        raise ValueError(f"{value} is larger than {largest:g}")
    return float(value)

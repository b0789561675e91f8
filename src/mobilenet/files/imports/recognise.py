"""Which network a checkpoint holds, by the names and shapes of its tensors alone.

Names tell the project and the table: the candidate with the most names in common, counted against all names of
both, is taken. Shapes then tell the width multiplier. Some of timm's networks have the very same tensors (those
trained by TensorFlow differ in padding and epsilon, the antialiased ones in their pools): then a name must say
which it is, or the usual one is taken and the choice is noted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from mobilenet.errors import ArgumentError, ModelFileError
from mobilenet.family.names import resolve_head
from mobilenet.files.imports.bundle import Hints
from mobilenet.files.imports.convert import Wanted
from mobilenet.files.imports.sources import Candidate, Ends, candidates, outer_layers
from mobilenet.files.imports.strangers import looks_like
from mobilenet.graph.ops import Shape

Shapes = Mapping[str, Shape]
# Published widths first: several widths can give the same channels.
WIDTHS = (1.0, 0.75, 0.5, 0.25, 0.35, 1.4, 1.3, 1.25, 0.1, 1.5, 1.1, 1.2, 2.0, *(n / 100 for n in range(4, 401)))
LEAST_LIKENESS = 0.5  # shared names over all names: below, the checkpoint is of another architecture
MAX_NAMED = 4  # tensors that one message names
_BIASES = ("classifier.bias", "segment.classifier.bias", "segment.low_classifier.bias")  # of as many as classes


@dataclass(frozen=True)
class Match:
    """A checkpoint's network.

    Args:
        candidate: what it is.
        width_multiplier: of its channels.
        ends: channels of the picture, classes, and where it ends.
        others: candidates with the very same tensors.
    """

    candidate: Candidate
    width_multiplier: float
    ends: Ends
    others: tuple[Candidate, ...] = ()


class _Fit(NamedTuple):
    likeness: float
    candidate: Candidate
    ends: Ends


def recognise(shapes: Shapes, layout: str, hints: Hints, name: str | None = None) -> Match:
    """The network whose tensors have these names and shapes.

    Args:
        shapes: name of a tensor, without the prefixes of wrappers -> its shape in the file.
        layout: "torch" or "keras".
        hints: what a configuration says.
        name: what the caller says that it is: any name that `resolve` knows.

    Raises:
        ModelFileError: another architecture; tensors that are missing, left over or of a wrong shape; or a name
            that contradicts the tensors.
    """
    fits = sorted((_likeness(c, shapes) for c in candidates(layout)), key=lambda fit: -fit.likeness)
    if fits[0].likeness < LEAST_LIKENESS:
        raise ModelFileError(_stranger(shapes))
    best = [fit for fit in fits if fit.likeness == fits[0].likeness]
    matches = [match for fit in best if (match := _exact(fit, shapes))]
    if not matches:
        raise ModelFileError(_differences(best, shapes))
    return _chosen(matches, hints, name)


def _likeness(candidate: Candidate, shapes: Shapes) -> _Fit:
    wanted, outer = _nominal(candidate)
    output = "logits"
    for node, names in outer:  # layers of the head that have no tensor at all are not there
        if not names.isdisjoint(shapes):
            break
        wanted, output = wanted - names, node
    shared = sum(name in shapes for name in wanted)
    return _Fit(shared / (len(wanted) + len(shapes) - shared), candidate, Ends(output=output))


@cache
def _nominal(candidate: Candidate) -> tuple[frozenset[str], tuple[tuple[str, frozenset[str]], ...]]:
    """All names at the nominal width; then for each outer layer, the last first, what it reads and its names."""
    graph = candidate.graph(candidate.rows.width_multiplier)
    layers: dict[str, set[str]] = {}
    for ours, tensor in candidate.wanted(graph).items():
        layers.setdefault(ours.rpartition(".")[0], set()).add(tensor.name)
    outer = tuple((graph.node(layer).inputs[0], frozenset(layers[layer])) for layer in outer_layers(graph))
    return frozenset().union(*layers.values()), outer


def _exact(fit: _Fit, shapes: Shapes) -> Match | None:
    """The network at the first width that fits all tensors."""
    for width in _widths(fit, shapes):
        ends = _ends(fit, shapes)
        wanted = fit.candidate.wanted(fit.candidate.graph(width, ends))
        if len(wanted) == len(shapes) and all(_fits(tensor, shapes) for tensor in wanted.values()):
            return Match(fit.candidate, width, ends)
    return None


def _fits(tensor: Wanted, shapes: Shapes) -> bool:
    return shapes.get(tensor.name) in tensor.shapes


def _widths(fit: _Fit, shapes: Shapes) -> Iterator[float]:
    """Width multipliers at which all blocks are as wide as in the checkpoint; each set of channels once."""
    table, rules, seen = fit.candidate.rows, fit.candidate.rules, set()
    if table.width_multiplier != 1:
        yield table.width_multiplier
        return
    observed = _block_widths(fit, shapes)
    layers = [(row.out, getattr(row, "scale", "width")) for row in (table.stem, *table.blocks, *table.head)]
    for width in WIDTHS:
        if all(rules.channels(row, width, "width") == found for row, found in observed):
            channels = tuple(rules.channels(row, width, scale) for row, scale in layers)
            if channels not in seen:
                seen.add(channels)
                yield width


def _block_widths(fit: _Fit, shapes: Shapes) -> set[tuple[int, int]]:
    """(channels at width 1, channels in the checkpoint) of what comes out of each block that has its tensor."""
    candidate = fit.candidate
    wanted = candidate.wanted(candidate.graph(1.0, fit.ends))
    last = {int(ours.split(".")[1]): tensor for ours, tensor in wanted.items() if _projects(ours)}
    out_axis = 0 if candidate.layout == "torch" else -1
    rows = list(candidate.rows.unrolled())
    return {
        (rows[number].out, shapes[tensor.name][out_axis])
        for number, tensor in last.items()
        if rows[number].out and shapes.get(tensor.name)
    }


def _projects(ours: str) -> bool:
    parts = ours.split(".")
    return (
        parts[0] == "blocks" and parts[-2:] == ["conv", "weight"] and parts[2] in ("project", "pointwise", "conv")
    )


def _ends(fit: _Fit, shapes: Shapes) -> Ends:
    wanted = fit.candidate.wanted(fit.candidate.graph(1.0, fit.ends))
    stem = shapes.get(wanted["stem.conv.weight"].name, ())
    last = next((shapes.get(wanted[name].name, ()) for name in _BIASES if name in wanted), ())
    channels = stem[1 if fit.candidate.layout == "torch" else 2] if len(stem) == 4 else 3
    classes = last[0] if len(last) == 1 else _detector_classes(wanted, shapes)
    return Ends(max(channels, 1), max(classes, 1), fit.ends.output)


def _detector_classes(wanted: Mapping[str, Wanted], shapes: Shapes) -> int:
    """Columns of a detector's scores: its predictors have them for each of their priors, and 4 for the boxes."""
    sizes = [
        shapes.get(wanted[name].name, ()) if name in wanted else ()
        for name in ("detect.0.scores.predict.bias", "detect.0.boxes.predict.bias")
    ]
    if any(len(size) != 1 or size[0] < 4 for size in sizes):
        return 1000
    return max(sizes[0][0] * 4 // sizes[1][0], 2)


def _chosen(matches: list[Match], hints: Hints, name: str | None) -> Match:
    """Of several networks with these tensors the one that is named, or the first."""
    said, where = (name, "the given name") if name else (hints.architecture, hints.where)
    if not said:
        first = matches[0]
        others = tuple(match.candidate for match in matches[1:])
        return Match(first.candidate, first.width_multiplier, first.ends, others)
    for match in matches:
        if _is_named(match, said):
            return match
    found = " or ".join(_title(match) for match in matches)
    raise ModelFileError(f"{where} says '{said}', but the tensors are those of {found}")


def _is_named(match: Match, said: str) -> bool:
    """Whether a name means this network; a name of another project is compared by its table alone."""
    try:
        head, spec = resolve_head(said)
    except ArgumentError:
        return said.partition(".")[0].rpartition("_")[0] == match.candidate.name  # timm's mobilenet_edgetpu_100
    same_width = not spec.width_named or match.candidate.graph(spec.width_multiplier, match.ends).parameters() == (
        match.candidate.graph(match.width_multiplier, match.ends).parameters()
    )
    timm = match.candidate.project == "timm" and spec.dialect.startswith("timm")
    same_dialect = not timm or spec.dialect == match.candidate.dialect
    return (head, spec.name) == (match.candidate.head, match.candidate.table) and same_width and same_dialect


def _title(match: Match) -> str:
    return f"{match.candidate.project}'s {match.candidate.name} at width {match.width_multiplier:g}"


def _stranger(shapes: Shapes) -> str:
    kind = looks_like(shapes)
    what = f"looks like {kind}" if kind else "is of no architecture that is known here"
    some = ", ".join(f"'{name}'" for name in list(shapes)[:MAX_NAMED])
    return (
        f"{what} (it has tensors such as {some}); what is read are MobileNets V1 to V4 of timm, torchvision, "
        "d-li14, transformers and Keras: docs/importing.md"
    )


def _differences(fits: list[_Fit], shapes: Shapes) -> str:
    """What is wrong with a checkpoint that is nearly one of ours: the tensors, with both shapes."""
    trials = [
        (fit, width, fit.candidate.wanted(fit.candidate.graph(width, _ends(fit, shapes))))
        for fit in fits
        for width in _likely_widths(fit, shapes)
    ]
    fit, width, wanted = max(trials, key=lambda trial: sum(_fits(t, shapes) for t in trial[2].values()))
    names = {tensor.name for tensor in wanted.values()}
    wrong = [t for t in wanted.values() if t.name in shapes and not _fits(t, shapes)]
    kind = looks_like(shapes)
    parts = [
        _listed("wrong shapes", [f"'{t.name}' is {shapes[t.name]}, not {t.shapes[0]}" for t in wrong]),
        _listed("missing", [f"'{t.name}' {t.shapes[0]}" for t in wanted.values() if t.name not in shapes]),
        _listed("left over", [f"'{name}' {shape}" for name, shape in shapes.items() if name not in names]),
    ]
    nearest = f"{fit.candidate.project}'s {fit.candidate.name} at width {width:g}"
    also = f", and looks like {kind}" if kind else ""
    return f"is nearest to {nearest}{also}, but does not fit it: " + "; ".join(filter(None, parts))


def _likely_widths(fit: _Fit, shapes: Shapes) -> list[float]:
    """Widths that fit all blocks, else those that fit the most blocks."""
    exact = list(_widths(fit, shapes))
    if exact:
        return exact[:MAX_NAMED]
    observed, rules = _block_widths(fit, shapes), fit.candidate.rules
    return sorted(WIDTHS, key=lambda w: -sum(rules.channels(row, w, "width") == n for row, n in observed))[:1]


def _listed(title: str, items: list[str]) -> str:
    if not items:
        return ""
    rest = f" and {len(items) - MAX_NAMED} more" if len(items) > MAX_NAMED else ""
    return f"{title}: {', '.join(items[:MAX_NAMED])}{rest}"

"""The whole of quantising within a budget: from a model and a folder to a model, or to the reason why not."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from mobilenet.errors import BudgetError
from mobilenet.model import Model
from mobilenet.quantise.budget import Judge, Prepared, Progress, Trial, calibrate, draw, layers_of
from mobilenet.quantise.options import QuantiseOptions
from mobilenet.quantise.pictures import Drawn
from mobilenet.quantise.search import Found, Sensitivity, most_harmful, search, sensitivities

SENSITIVITY_PICTURES = 64  # of the held-out ones: one network is run for each layer
_BLAMED = 5


@dataclass(frozen=True)
class Outcome:
    """A quantised model and how it came about.

    Attributes:
        model: the quantised model.
        prepared: the float network and the ranges that its integers were made of.
        drawn: the pictures.
        trials: the ways that were tried.
        measure: "top-1", "agreement" or "cosine similarity".
        float_score, score: of the float and the quantised model on the held-out pictures.
        found: which layers stayed in float.
        sensitivities: of each layer, in the graph's order; empty where nobody asked.
        options: what was asked for.
    """

    model: Model
    prepared: Prepared
    drawn: Drawn
    trials: tuple[Trial, ...]
    measure: str
    float_score: float
    score: float
    found: Found
    sensitivities: tuple[Sensitivity, ...]
    options: QuantiseOptions

    @property
    def drop(self) -> float:
        """By how much the quantised model is worse on the held-out pictures."""
        return self.float_score - self.score

    def __str__(self) -> str:
        kept = len(self.found.kept)
        layers = f"; {kept} layer{'s' * (kept != 1)} in float" if kept else ""
        return (
            f"{self.measure} {self.score:.4f}, was {self.float_score:.4f} on {len(self.drawn.held_out)} held-out "
            f"pictures; {self.prepared.describe()}{layers}"
        )


def quantise_within(
    model: Model,
    data: str | os.PathLike[str],
    options: QuantiseOptions | None = None,
    *,
    with_sensitivities: bool = False,
    on_progress: Progress | None = None,
) -> Outcome:
    """Quantises a model so that it becomes at most so much worse on pictures that calibration does not see.

    Args:
        model: a float model.
        data: pictures like those that the model will see: a folder, or a data set with labels, whose classes are
            the model's.
        options: the budget, the method, how many pictures; default: see `QuantiseOptions`.
        with_sensitivities: measure every layer even if all can be in integers.
        on_progress: called with (what is being done, done, total).

    Raises:
        BudgetError: it would become worse than that.
        ArgumentError: the model is quantised already or takes no pictures, or an option is out of range.
        DataError, ImageError: the pictures are too few or cannot be read.
        ModelFileError: a weight is NaN or infinite.
        GraphError: a layer is too large for int32 sums.
    """
    options = options or QuantiseOptions()
    tell = on_progress or _silent
    sets = draw(model, data, options, tell)
    drawn, holder = sets.drawn, sets.holder
    start = calibrate(sets, options, tell)
    prepared = start.prepared
    drop = holder.measure.drop(holder.outputs(prepared))
    found, measured = Found((), drop, drop <= options.max_drop), []
    if with_sensitivities or not found.within:
        few = _first(holder, drawn)
        measured = sensitivities(few, prepared, layers_of(prepared), tell)
    if not found.within:
        ranked = [entry.layer for entry in most_harmful(measured)]
        found = search(
            holder,
            prepared,
            ranked,
            max_drop=options.max_drop,
            max_float=options.max_float,
            on_progress=tell,
        )
        found = replace(found, kept=tuple(one.layer for one in measured if one.layer in found.kept))
    if not found.within:
        raise BudgetError(_falls_short(holder, drop, found, measured, options))
    kept = {name for layer in found.kept for name in layer.nodes}
    score = holder.measure.float_score - found.drop
    outcome = Outcome(
        holder.quantised(prepared, kept),
        prepared,
        drawn,
        start.trials,
        holder.measure.kind,
        holder.measure.float_score,
        score,
        found,
        tuple(measured),
        options,
    )
    outcome.model.provenance = {**model.provenance, **_provenance(outcome)}
    return outcome


def _silent(what: str, done: int, total: int) -> None:
    del what, done, total


def _first(judge: Judge, drawn: Drawn) -> Judge:
    """The same judge with fewer pictures."""
    pixels = judge.pixels[:SENSITIVITY_PICTURES]
    labels = drawn.labels[: len(pixels)] if drawn.labels is not None else None
    return Judge.of(judge.model, pixels, labels)


def _falls_short(
    judge: Judge, drop: float, found: Found, measured: list[Sensitivity], options: QuantiseOptions
) -> str:
    blamed = ", ".join(
        f"'{entry.layer.name}' ({entry.layer.kind}, noise {entry.noise:.2g})"
        for entry in most_harmful(measured)[:_BLAMED]
    )
    return (
        f"the budget is broken: {judge.measure.kind} falls by {drop:.4f} in integers and by {found.drop:.4f} with "
        f"{len(found.kept)} layers in float, on {len(judge.pixels)} held-out pictures; {options.max_drop:g} is "
        f"allowed, so it falls short by {found.drop - options.max_drop:.4f}. Most to blame: {blamed}. "
        "Allow a larger drop or more layers in float, or calibrate on more pictures"
    )


def _provenance(outcome: Outcome) -> dict[str, object]:
    kept = len(outcome.found.kept)
    return {
        "quantised": f"uint8 values, int8 weights by channel; {outcome.prepared.describe()}"
        + (f"; {kept} layers in float" if kept else ""),
        "quantisation": {
            "measure": outcome.measure,
            "float": round(outcome.float_score, 6),
            "quantised": round(outcome.score, 6),
            "held_out": len(outcome.drawn.held_out),
            "calibration": len(outcome.drawn.calibration),
            "max_drop": outcome.options.max_drop,
            "seed": outcome.options.seed,
            "in_float": [layer.name for layer in outcome.found.kept],
        },
    }

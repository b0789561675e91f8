"""The whole of quantising within a budget: from a model and a folder to a model, or to the reason why not."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass, replace

from mobilenet.errors import BudgetError, MissingExtraError
from mobilenet.model import Model
from mobilenet.quantise.budget import Judge, Prepared, Progress, Sets, Trial, calibrate, draw, layers_of
from mobilenet.quantise.lower import lower
from mobilenet.quantise.options import QuantiseOptions
from mobilenet.quantise.pictures import Drawn
from mobilenet.quantise.search import Found, Sensitivity, most_harmful, search, sensitivities, within

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
        MissingExtraError: `options.qat_epochs` is above 0 and torch is not installed.
        TrainingError: training with rounding diverged.
        ArgumentError: the model is quantised already or takes no pictures, or an option is out of range.
        DataError, ImageError: the pictures are too few or cannot be read.
        ModelFileError: a weight is NaN or infinite.
        GraphError: a layer is too large for int32 sums.
    """
    options = options or QuantiseOptions()
    _check_can_train(options)
    tell = on_progress or _silent
    sets = draw(model, data, options, tell)
    drawn, holder = sets.drawn, sets.holder
    start = calibrate(sets, options, tell)
    prepared = start.prepared
    drop = holder.measure.drop(holder.outputs(prepared))
    found, measured = Found((), drop, within(drop, options.max_drop)), []
    if with_sensitivities or not found.within:
        few = _first(holder, drawn)
        measured = sensitivities(few, prepared, layers_of(prepared), tell)
    if not found.within:
        found = _searched(holder, prepared, measured, options, tell)
    if not found.within and options.qat_epochs:
        learnt = _retrained(sets, prepared, options, tell)
        after = holder.measure.drop(holder.outputs(learnt))
        again = Found((), after, within(after, options.max_drop))
        if not again.within:
            again = _searched(holder, learnt, measured, options, tell)
        if again.within or again.drop < found.drop:
            prepared, drop, found = learnt, after, again
    if not found.within:
        raise BudgetError(_falls_short(holder, prepared, drop, found, measured, options))
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


def _searched(
    judge: Judge, prepared: Prepared, measured: list[Sensitivity], options: QuantiseOptions, tell: Progress
) -> Found:
    """Mixed precision; the layers that it keeps in float are in the graph's order."""
    ranked = [entry.layer for entry in most_harmful(measured)]
    limits = {"max_drop": options.max_drop, "max_float": options.max_float}
    found = search(judge, prepared, ranked, **limits, on_progress=tell)
    return replace(found, kept=tuple(one.layer for one in measured if one.layer in found.kept))


def _retrained(sets: Sets, prepared: Prepared, options: QuantiseOptions, tell: Progress) -> Prepared:
    from mobilenet.quantise.retrain import Lesson, rate_for, retrain

    model, drawn, measure = sets.holder.model, sets.drawn, sets.holder.measure
    assert model.preprocessing is not None
    lesson = Lesson(
        drawn.learning,
        drawn.learning_labels,
        measure.reference.shape[-1] if drawn.learning_labels is not None else 1,
        measure.output,
        model.preprocessing,
        options.qat_epochs,
        options.seed,
        model.threads,
        rate_for(sets.chooser.measure.noise(sets.chooser.outputs(prepared))),
    )
    return retrain(prepared, lower(model.graph, model.weights)[1], lesson, tell)


def _check_can_train(options: QuantiseOptions) -> None:
    """Raises `MissingExtraError` at once, and not after minutes of calibration."""
    for module in ("torch", "kornia") if options.qat_epochs else ():
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(f"quantisation-aware training (no module named '{module}')", "train")


def _first(judge: Judge, drawn: Drawn) -> Judge:
    """The same judge with fewer pictures."""
    pixels = judge.pixels[:SENSITIVITY_PICTURES]
    labels = drawn.labels[: len(pixels)] if drawn.labels is not None else None
    truth = drawn.truth[: len(pixels)] if drawn.truth is not None else None
    return Judge.of(judge.model, pixels, labels, truth)


def _falls_short(
    judge: Judge,
    prepared: Prepared,
    drop: float,
    found: Found,
    measured: list[Sensitivity],
    options: QuantiseOptions,
) -> str:
    blamed = ", ".join(
        f"'{entry.layer.name}' ({entry.layer.kind}, noise {entry.noise:.2g})"
        for entry in most_harmful(measured)[:_BLAMED]
    )
    trained = f" (trained for {options.qat_epochs} epochs)" if prepared.trained else ""
    others = "" if options.qat_epochs else ", train with --qat-epochs 4"
    return (
        f"the budget is broken: {judge.measure.kind} falls by {drop:.4f} in integers{trained} and by "
        f"{found.drop:.4f} with {len(found.kept)} layers in float, on {len(judge.pixels)} held-out pictures; "
        f"{options.max_drop:g} is allowed, so it falls short by {found.drop - options.max_drop:.4f}. "
        f"Most to blame: {blamed}. Allow a larger drop or more layers in float{others}, or take more pictures"
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

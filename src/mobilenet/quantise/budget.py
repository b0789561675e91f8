"""Quantising within a budget: the cheapest network in integers that is nearly as good as the float one.

1. Every way to choose ranges, with and without equalisation, is calibrated on some pictures and tried on others;
   the best get weights that make up for each other's rounding, and corrected biases. The one whose scores are
   nearest to the float network's wins.
2. It is measured on held-out pictures. If it is worse than the budget allows, the layers that do the most harm on
   their own stay in float, as few as are needed (`search`).
3. If too many would have to, weights and ranges are trained with rounding, where that is allowed (`retrain`), and
   step 2 is tried again.
4. If that does not do, `BudgetError` says by how much it falls short and which layers are to blame.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from mobilenet.errors import ArgumentError, ModelFileError
from mobilenet.graph.graph import Graph, Weights
from mobilenet.model import Model
from mobilenet.pictures.boxes import BoxedPicture
from mobilenet.pictures.palette import ClassMap
from mobilenet.quantise.bias import correct_biases
from mobilenet.quantise.equalise import equalise, pairs
from mobilenet.quantise.integer import to_integers
from mobilenet.quantise.layers import Layer, layers
from mobilenet.quantise.lower import lower
from mobilenet.quantise.measure import Measure, answers, read_pixels, useful_outputs
from mobilenet.quantise.methods import choose_ranges
from mobilenet.quantise.observe import observe
from mobilenet.quantise.options import QuantiseOptions
from mobilenet.quantise.pictures import Drawn, draw_pictures
from mobilenet.quantise.quantise import check_quantisable, picture_range
from mobilenet.quantise.ranges import Range
from mobilenet.quantise.rounding import compensated

CORRECTION_PICTURES = 16  # all of them are held at each layer at once
COMPENSATION_PICTURES = 32
IMPROVED = 3  # of the best trials, equalised or not, get other weights: what is worst before may gain most

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Prepared:
    """A float network and the ranges of its values: all that integers are made of.

    Attributes:
        graph, weights: lowered, float.
        ranges: of every value.
        method: how they were chosen.
        equalised, compensated, corrected: what was done to the weights.
        exact: the weights before they made up for rounding (`compensated`, `correct_biases`): those of layers that
            stay in float; None where they are `weights`.
        weight_scales: of linear layers by node, float64 (channels), where they were learnt.
        trained: whether weights and ranges learnt together, with rounding (`retrain`).
    """

    graph: Graph
    weights: Weights
    ranges: dict[str, Range]
    method: str
    equalised: bool = False
    corrected: bool = False
    weight_scales: Mapping[str, np.ndarray] | None = None
    trained: bool = False
    compensated: bool = False
    exact: Weights | None = None

    def integers(self, keep_float: Collection[str] = ()) -> tuple[Graph, Weights]:
        """The integer graph and its weights; see `to_integers`."""
        weights = self.weights
        if self.exact is not None and keep_float:
            kept = set(keep_float)
            weights = {n: self.exact[n] if n.rpartition(".")[0] in kept else w for n, w in weights.items()}
        return to_integers(self.graph, weights, self.ranges, keep_float, self.weight_scales)

    def describe(self) -> str:
        """In words, for people."""
        steps = [self.method, *["equalised"] * self.equalised, *["rounding compensated"] * self.compensated]
        steps += ["biases corrected"] * self.corrected
        steps += ["trained with rounding"] * self.trained
        return ", ".join(steps)


@dataclass(frozen=True)
class Judge:
    """Runs candidates on one set of pictures."""

    model: Model
    pixels: np.ndarray
    measure: Measure

    @classmethod
    def of(
        cls,
        model: Model,
        pixels: np.ndarray,
        labels: tuple[int, ...] | None,
        truth: tuple[BoxedPicture, ...] | tuple[ClassMap, ...] | None = None,
    ) -> Judge:
        """A judge who knows the float model's answers."""
        return cls(model, pixels, Measure.of(model, pixels, labels, truth))

    def outputs(self, prepared: Prepared, keep_float: Collection[str] = ()) -> np.ndarray:
        """What a candidate says of the pictures: real numbers (N, ...)."""
        return answers(self.quantised(prepared, keep_float), self.pixels, self.measure.output)

    def quantised(self, prepared: Prepared, keep_float: Collection[str] = ()) -> Model:
        """The candidate as a model."""
        graph, weights = prepared.integers(keep_float)
        candidate = Model.of(replace(self.model, graph=graph, weights=weights, metrics={}, checks=()))
        candidate.threads = self.model.threads
        return candidate


@dataclass(frozen=True)
class Trial:
    """One way to choose ranges and weights, and its noise on the trial pictures."""

    how: str
    noise: float


@dataclass(frozen=True)
class Start:
    """What calibration comes to: the best of the trials, before anything is held back in float."""

    prepared: Prepared
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class Sets:
    """The pictures, read.

    Attributes:
        drawn: which they are.
        calibration: uint8 (N, height, width, channels).
        chooser: judges ways to calibrate.
        holder: judges on the held-out pictures and holds the budget.
    """

    drawn: Drawn
    calibration: np.ndarray
    chooser: Judge
    holder: Judge


def draw(model: Model, data: str | os.PathLike[str], options: QuantiseOptions, on_progress: Progress) -> Sets:
    """Draws and reads the pictures.

    Raises:
        ArgumentError: the model is quantised already, or takes no pictures.
        ModelFileError: a weight is NaN or infinite.
        DataError: too few pictures, or none.
        ImageError: a picture cannot be read.
    """
    check_quantisable(model.graph)
    check_finite(model.weights)
    if model.preprocessing is None:
        raise ArgumentError("this model takes arrays, not pictures: call quantise with batches of arrays")
    drawn = draw_pictures(model, model.names if model.labels else (), data, options)

    def pixels(pictures: tuple[Path, ...]) -> np.ndarray:
        return read_pixels(model, pictures, partial(on_progress, "reading"))

    calibration = pixels(drawn.calibration)
    trial = calibration if drawn.trial == drawn.calibration else pixels(drawn.trial)
    held_out = Judge.of(model, pixels(drawn.held_out), drawn.labels, drawn.truth)
    return Sets(drawn, calibration, Judge.of(model, trial, None), held_out)


def check_finite(weights: Weights) -> None:
    """Raises `ModelFileError` naming the first tensor that holds NaN or infinity."""
    for name, array in weights.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ModelFileError(f"tensor '{name}' holds NaN or infinity: no integers stand for that; train again")


def calibrate(sets: Sets, options: QuantiseOptions, on_progress: Progress) -> Start:
    """Tries what the options leave open: ranges from the calibration pictures, judged on the trial pictures.

    Raises:
        ArgumentError: a value is not finite on a picture.
        GraphError: a layer is too large for int32 sums.
    """
    model, judge = sets.chooser.model, sets.chooser
    tried: list[tuple[float, Prepared]] = []
    candidates = _candidates(model, sets.calibration, options, on_progress)
    for done, candidate in enumerate(candidates):
        on_progress("choosing ranges", done, len(candidates))
        tried.append((judge.measure.noise(judge.outputs(candidate)), candidate))
    considered = tried
    if options.compensate is not False:
        kinds = [[trial for trial in tried if trial[1].equalised == kind] for kind in (False, True)]
        made = _compensated(sets, [candidate for kind in kinds for _, candidate in _best(kind)], on_progress)
        new = [(judge.measure.noise(judge.outputs(candidate)), candidate) for candidate in made]
        tried, considered = tried + new, new if options.compensate else tried + new
    if options.correct_bias is not False:
        made = [_corrected(model, sets.calibration, candidate) for _, candidate in _best(considered)]
        new = [(judge.measure.noise(judge.outputs(candidate)), candidate) for candidate in made]
        tried, considered = tried + new, new if options.correct_bias else considered + new
    chosen = _best(considered)[0][1]
    return Start(chosen, tuple(Trial(candidate.describe(), noise) for noise, candidate in tried))


def _best(tried: list[tuple[float, Prepared]]) -> list[tuple[float, Prepared]]:
    return sorted(tried, key=lambda trial: trial[0])[:IMPROVED]


def _candidates(
    model: Model, pixels: np.ndarray, options: QuantiseOptions, on_progress: Progress
) -> list[Prepared]:
    """Every method, with the weights as they are and equalised, as far as the options leave open."""
    graph, weights = lower(model.graph, model.weights)
    observed = observe(graph, weights, _batches(model, pixels, partial(on_progress, "measuring ranges")))
    variants = [(weights, observed, False)] if not options.equalise else []
    if options.equalise or (options.equalise is None and pairs(graph)):
        other = equalise(graph, weights, observed.peaks)
        batches = _batches(model, pixels, partial(on_progress, "equalised ranges"))
        variants.append((other, observe(graph, other, batches), True))
    fixed = picture_range(model.preprocessing)
    source = next(iter(graph.inputs))
    cuts = useful_outputs(model)
    found = []
    for own, seen, equalised in variants:
        for method in options.methods:
            ranges = choose_ranges(graph, seen.histograms, method, options.percentile, cuts)
            if fixed is not None:
                ranges[source] = fixed
            found.append(Prepared(graph, own, ranges, method, equalised))
    return found


def _batches(model: Model, pictures: np.ndarray, on_progress: Callable[[int, int], None]) -> Iterator[np.ndarray]:
    assert model.preprocessing is not None
    for done, pixels in enumerate(pictures):
        on_progress(done, len(pictures))
        yield model.preprocessing.normalise(pixels[None])


def _compensated(sets: Sets, candidates: list[Prepared], on_progress: Progress) -> list[Prepared]:
    """The same with other roundings of weights, which the ranges of values have no part in."""
    model, pictures = sets.chooser.model, sets.calibration[:COMPENSATION_PICTURES]
    tell = partial(on_progress, "compensating rounding")
    known: dict[bool, tuple[Weights, Weights]] = {}
    found = []
    for one in candidates:
        if one.equalised not in known:
            batches = partial(_batches, model, pictures, tell)
            known[one.equalised] = compensated(one.graph, one.weights, batches)
        weights, scales = known[one.equalised]
        made = replace(one, weights=weights, weight_scales=scales, exact=one.weights, compensated=True)
        found.append(made)
    return found


def _corrected(model: Model, pixels: np.ndarray, prepared: Prepared) -> Prepared:
    assert model.preprocessing is not None
    batch = model.preprocessing.normalise(pixels[:CORRECTION_PICTURES])
    graph, exact = prepared.graph, prepared.weights if prepared.exact is None else prepared.exact
    rounded, scales = prepared.weights, prepared.weight_scales
    weights = correct_biases(graph, exact, prepared.ranges, batch, rounded=rounded, weight_scales=scales)
    return replace(prepared, weights=weights, exact=exact, corrected=True)


def layers_of(prepared: Prepared) -> list[Layer]:
    """The layers that may stay in float."""
    return layers(prepared.graph)

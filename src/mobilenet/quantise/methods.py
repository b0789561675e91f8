"""From the distribution of a value to the range that its integers cover.

A wide range clips nothing and has coarse steps; a narrow one has fine steps and clips what is rare.

- min-max: all that was seen (Jacob et al. 2018, section 3).
- moving-average: of each picture's extremes, so that one odd picture does not decide (the same, section 3.1).
- percentile: all but the rarest at either end (Wu et al. 2020, section 5).
- mse: the range with the least mean squared error of what the integers stand for.
- entropy: the range after which the distribution says most about the one before (Migacz 2017): the least
  Kullback-Leibler divergence between the clipped and the quantised distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf

import numpy as np

from mobilenet.errors import ArgumentError
from mobilenet.graph.graph import Graph
from mobilenet.quantise.histogram import Histogram
from mobilenet.quantise.integer import STEPS, quantisation_of
from mobilenet.quantise.lower import read_once
from mobilenet.quantise.ranges import Range, joined, moved_from, useful_limits

METHODS = ("min-max", "moving-average", "percentile", "mse", "entropy")
PERCENTILE = 99.99  # of the numbers on each side are kept
_SHRINKS = np.geomspace(1.0, 0.05, 56)  # which part of a range is tried
_SHORTEST = 1e-12  # of a divergence's logarithm

Cost = Callable[[float, float], float]


def choose_ranges(
    graph: Graph,
    histograms: Mapping[str, Histogram],
    method: str,
    percentile: float = PERCENTILE,
    of_outputs: Mapping[str, tuple[float, float]] | None = None,
) -> dict[str, Range]:
    """The range of every observed value.

    What an activation alone reads is cut to what the activation can tell apart, whatever the method. Outputs get
    all that was seen, and so does what they are a reshaped or enlarged copy of, which has their scale: a clipped
    score would tie with the next best.

    Args:
        graph: the lowered float graph.
        histograms: of its values.
        method: one of `METHODS`.
        percentile: above 50, at most 100; only the method of that name uses it.
        of_outputs: name of an output -> outside of which numbers it says nothing more.

    Raises:
        ArgumentError: an unknown method, or a percentile out of range.
    """
    check_method(method, percentile)
    alone, cuts = read_once(graph), of_outputs or {}
    exact = {
        part: cuts.get(output, (-inf, inf))
        for output, name in graph.outputs.items()
        for part in {name, *moved_from(graph, name, alone)}
    }
    limits = useful_limits(graph) | exact
    chosen = {
        name: choose_range(
            histogram, "min-max" if name in exact else method, limits.get(name, (-inf, inf)), percentile
        )
        for name, histogram in histograms.items()
    }
    return joined(graph, chosen)


def check_method(method: str, percentile: float) -> None:
    """Raises `ArgumentError` for a method that there is not, or a percentile that is none."""
    if method not in METHODS:
        raise ArgumentError(f"method is one of {', '.join(METHODS)}, not {method!r}")
    if not 50 < percentile <= 100:
        raise ArgumentError(f"percentile is {percentile}: it must be above 50 and at most 100")


def choose_range(
    histogram: Histogram, method: str, limits: tuple[float, float] = (-inf, inf), percentile: float = PERCENTILE
) -> Range:
    """The range of one value; `limits` are those outside of which nothing is worth an integer."""
    widest = _cut(histogram.low, histogram.high, limits)
    if method == "min-max" or widest == Range():
        return widest
    if method == "moving-average":
        return _cut(histogram.average_low, histogram.average_high, limits)
    places, counts = histogram.points(*limits)
    if method == "percentile":
        return _percentile(places, counts, percentile, widest)
    cost = _squared_error(places, counts) if method == "mse" else _divergence(places, counts)
    return _narrowest(widest, cost)


def _cut(low: float, high: float, limits: tuple[float, float]) -> Range:
    return Range(min(max(low, limits[0]), 0.0), max(min(high, limits[1]), 0.0))


def _percentile(places: np.ndarray, counts: np.ndarray, percentile: float, widest: Range) -> Range:
    if percentile == 100:
        return widest
    total = counts.sum()
    below = np.cumsum(counts)
    high = places[np.searchsorted(below, total * percentile / 100)]
    low = places[np.searchsorted(below, total * (1 - percentile / 100), side="right")]
    return Range(min(float(low), 0.0), max(float(high), 0.0))


def _narrowest(widest: Range, cost: Cost) -> Range:
    """The cheapest of many ranges: both ends are drawn in together, then each on its own."""
    best = widest
    for moves_low, moves_high in ((True, True), (False, True), (True, False)):
        if not (best.low if moves_low else best.high):
            continue
        low, high = best
        tried = [
            Range(low * float(f) if moves_low else low, high * float(f) if moves_high else high) for f in _SHRINKS
        ]
        best = min(tried, key=lambda span: cost(*span))
    return best


def _squared_error(places: np.ndarray, counts: np.ndarray) -> Cost:
    def cost(low: float, high: float) -> float:
        error = places - _rounded(places, low, high)[0]
        return float(counts @ (error * error))

    return cost


def _divergence(places: np.ndarray, counts: np.ndarray) -> Cost:
    # Zeros are exact in any range; there are so many behind a relu that they would hide all others.
    counts = np.where(np.abs(places) <= np.abs(places).min(), 0, counts).astype(np.float64)

    def cost(low: float, high: float) -> float:
        inside = (places >= low) & (places <= high)
        if not counts[inside].any():
            return inf
        seen = counts[inside]
        clipped = seen.copy()
        clipped[0] += counts[places < low].sum()
        clipped[-1] += counts[places > high].sum()
        levels = _rounded(places[inside], low, high)[1]
        filled = np.bincount(levels, weights=seen > 0, minlength=STEPS + 1)
        total = np.bincount(levels, weights=seen, minlength=STEPS + 1)
        spread = np.where(seen > 0, (total / np.maximum(filled, 1))[levels], 0.0)
        before, after = clipped / clipped.sum(), spread / spread.sum()
        there = before > 0
        ratio = before[there] / np.maximum(after[there], _SHORTEST)
        return float(before[there] @ np.log(ratio))

    return cost


def _rounded(places: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """What the integers of a range make of real numbers, and the integers."""
    quantisation = quantisation_of(Range(low, high))
    steps = np.rint(places / quantisation.scale) + quantisation.zero_point
    levels = np.clip(steps, 0, STEPS).astype(np.int64)
    return (levels - quantisation.zero_point) * quantisation.scale, levels

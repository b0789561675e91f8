"""Which layers do the harm, and which of them stay in float so that the budget holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mobilenet.quantise.budget import Judge, Prepared
from mobilenet.quantise.layers import Layer

Progress = Callable[[str, int, int], None]

_EXACT = 1e-9  # shares of pictures are not exact: 1 - 0.99 is more than 0.01
_REMOVALS = 6  # attempts to give a layer back to the integers, each of which measures once


@dataclass(frozen=True)
class Sensitivity:
    """A layer, and what happens when it alone is quantised.

    Attributes:
        layer: which.
        drop: of the measure; may be below 0 by chance.
        noise: in the judged output, as a part of its energy.
    """

    layer: Layer
    drop: float
    noise: float


@dataclass(frozen=True)
class Found:
    """Where the search ended.

    Attributes:
        kept: the layers in float.
        drop: of the measure on held-out pictures.
        within: whether that is within the budget.
    """

    kept: tuple[Layer, ...]
    drop: float
    within: bool


def within(drop: float, max_drop: float) -> bool:
    """Whether a drop keeps the budget; as many pictures as it allows may be wrong."""
    return drop <= max_drop + _EXACT


def sensitivities(
    judge: Judge, prepared: Prepared, layers: Sequence[Layer], on_progress: Progress
) -> list[Sensitivity]:
    """Each layer quantised alone, in the order of `layers`; the others and their values stay float32."""
    everything = {name for layer in layers for name in layer.nodes}
    found = []
    for done, layer in enumerate(layers):
        on_progress("sensitivity of layers", done, len(layers))
        outputs = judge.outputs(prepared, everything - set(layer.nodes))
        found.append(Sensitivity(layer, judge.measure.drop(outputs), judge.measure.noise(outputs)))
    return found


def most_harmful(found: Sequence[Sensitivity]) -> list[Sensitivity]:
    """Worst first: by noise, of which there is some even where no picture changes sides."""
    return sorted(found, key=lambda entry: -entry.noise)


def search(
    judge: Judge,
    prepared: Prepared,
    ranked: Sequence[Layer],
    *,
    max_drop: float,
    max_float: float,
    on_progress: Progress,
) -> Found:
    """The fewest layers in float with which the drop is within the budget.

    The number of layers kept is doubled until the budget holds and then halved in between; afterwards the most
    expensive ones are given back one by one where the budget allows. Monotony is not taken for granted: what is
    returned has been measured.

    Args:
        judge: of the held-out pictures.
        prepared: the network.
        ranked: its layers, most harmful first.
        max_drop: the budget.
        max_float: which share of the multiply-accumulates may be in float.
        on_progress: called with what is done.

    Returns:
        What was found, or, where the budget holds for nothing that is allowed, the best that was measured.
    """
    allowed = _allowed(ranked, max_float)
    measured: dict[int, float] = {}

    def drop(count: int) -> float:
        if count not in measured:
            on_progress("mixed precision", len(measured), len(measured) + 4)
            measured[count] = _drop(judge, prepared, allowed[:count])
        return measured[count]

    low, high = -1, 0  # the budget breaks with `low` layers in float; it may hold with `high`
    while not within(drop(high), max_drop) and high < len(allowed):
        low, high = high, min(max(2 * high, 1), len(allowed))
    if not within(drop(high), max_drop):
        best = min(measured, key=lambda count: (measured[count], count))
        return Found(tuple(allowed[:best]), measured[best], within=False)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if within(drop(middle), max_drop) else (middle, high)
    return _given_back(judge, prepared, list(allowed[:high]), drop(high), max_drop)


def _given_back(judge: Judge, prepared: Prepared, kept: list[Layer], drop: float, max_drop: float) -> Found:
    """Without the layers that turn out not to be needed; the dearest are tried first."""
    for layer in sorted(kept, key=lambda one: -one.macs)[: _REMOVALS if len(kept) > 1 else 0]:
        rest = [one for one in kept if one is not layer]
        without = _drop(judge, prepared, rest)
        if within(without, max_drop):
            kept, drop = rest, without
    return Found(tuple(kept), drop, within=True)


def _drop(judge: Judge, prepared: Prepared, kept: Sequence[Layer]) -> float:
    names = {name for layer in kept for name in layer.nodes}
    return judge.measure.drop(judge.outputs(prepared, names))


def _allowed(ranked: Sequence[Layer], max_float: float) -> list[Layer]:
    """The most harmful layers that together stay within the share of the work; what is too dear is passed over."""
    room = max_float * sum(layer.macs for layer in ranked)
    allowed = []
    for layer in ranked:
        if layer.macs <= room:
            room -= layer.macs
            allowed.append(layer)
    return allowed

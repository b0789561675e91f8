"""What quantising did, on one self-contained HTML page, and writing it with the model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mobilenet.errors import ArgumentError
from mobilenet.files.atomic import write_atomically
from mobilenet.files.model_file import encode
from mobilenet.graph.graph import Quantisation
from mobilenet.model import make_checks
from mobilenet.quantise.outcome import Outcome
from mobilenet.quantise.search import Sensitivity
from mobilenet.report.page import (
    escaped,
    facts_section,
    name_cell,
    page,
    sortable_table,
    tiles,
    words_section,
    write_html,
)

_WORST = 5


def write_outcome(
    outcome: Outcome,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    report: str | os.PathLike[str] | None = None,
) -> tuple[int, int]:
    """Writes the quantised model, and a report if one is wanted; each file appears whole or not at all.

    Args:
        outcome: what `quantise_within` returned.
        source: the float model's file.
        target: the file to write.
        report: the HTML file to write.

    Returns:
        The sizes of both models in bytes, the float one first.

    Raises:
        ArgumentError: the target is the source.
        OSError: a folder is missing or not writable, or the disk is full.
    """
    if Path(target).resolve() == Path(source).resolve():
        raise ArgumentError(f"{target}: is the float model itself; say with -o where the new file goes")
    model = outcome.model
    model.checks = model.checks or make_checks(model)
    data = encode(model)
    sizes = Path(source).stat().st_size, len(data)
    if report is not None:
        write_html(report, quantisation_report(outcome, *sizes))
    write_atomically(target, data)
    return sizes


def quantisation_report(outcome: Outcome, before: int, after: int) -> str:
    """The text of the page.

    Args:
        outcome: what `quantise_within` returned.
        before, after: sizes of the float and the quantised model file in bytes.
    """
    title = f"{outcome.model.provenance.get('model') or 'A model'} in 8-bit integers"
    parts = [
        _tiles(outcome, before, after),
        _words(outcome),
        _configuration(outcome),
        _trials(outcome),
        _layers(outcome),
    ]
    return page(title, parts)


def _tiles(outcome: Outcome, before: int, after: int) -> str:
    values = [
        (f"{outcome.measure} in integers", f"{outcome.score:.1%}"),
        (f"{outcome.measure} in float", f"{outcome.float_score:.1%}"),
        ("Drop, in points", f"{outcome.drop * 100:.2f}"),
        ("Megabytes", f"{after / 1e6:.2f}"),
        ("Megabytes in float", f"{before / 1e6:.2f}"),
        ("Layers in float", str(len(outcome.found.kept))),
    ]
    return tiles(values)


def _words(outcome: Outcome) -> str:
    held_out = len(outcome.drawn.held_out)
    sentences = [
        f"On {held_out} held-out pictures, on which nothing was calibrated, it loses {outcome.drop * 100:.2f} "
        f"points; {outcome.options.max_drop * 100:g} are allowed. One picture weighs {100 / held_out:.2f} points.",
        _kept(outcome),
    ]
    if outcome.sensitivities:
        worst = sorted(outcome.sensitivities, key=lambda entry: -entry.noise)[:_WORST]
        names = ", ".join(f"<b>{escaped(entry.layer.name)}</b>" for entry in worst)
        sentences.append(f"The layers that suffer most from integers: {names}.")
    if outcome.drawn.labels is None and outcome.drawn.truth is None:
        sentences.append(f"The measure is what the float model says: {escaped(outcome.drawn.note)}.")
    return words_section(sentences)


def _kept(outcome: Outcome) -> str:
    if not outcome.found.kept:
        return "Every layer that has an integer form is in integers."
    names = ", ".join(escaped(layer.name) for layer in outcome.found.kept)
    return f"In float, because the budget would break otherwise: {names}."


def _configuration(outcome: Outcome) -> str:
    options = outcome.options
    rows = {
        "Ranges": outcome.prepared.method,
        "Asked for": options.method + (f", {options.percentile:g}%" if options.method == "percentile" else ""),
        "Cross-layer equalisation": "yes" if outcome.prepared.equalised else "no",
        "Compensated rounding": "yes" if outcome.prepared.compensated else "no",
        "Bias correction": "yes" if outcome.prepared.corrected else "no",
        "Trained with rounding": f"{options.qat_epochs} epochs" if outcome.prepared.trained else "no",
        "Values": "uint8, one scale and zero point each",
        "Weights": "int8, one scale for each output channel; biases int32",
        "Calibration": f"{len(outcome.drawn.calibration)} pictures",
        "Held out": f"{len(outcome.drawn.held_out)} pictures, seed {options.seed}",
        "Pictures": outcome.drawn.note,
        "Largest share of the work in float": f"{options.max_float:.0%}",
    }
    return facts_section("The configuration", rows)


def _trials(outcome: Outcome) -> str:
    headings = [("How", True), ("Noise", False)]
    rows = [
        f"<tr>{name_cell(trial.how)}{_figure(trial.noise, f'{trial.noise:.5f}')}</tr>" for trial in outcome.trials
    ]
    return (
        '<section><h2>What was tried</h2><p class="faint">Noise: the energy of what integers change in the '
        "network's output, over that of the output, on pictures that are neither calibrated on nor held out, if "
        "there are enough. The least wins.</p>"
        f"{sortable_table(headings, rows)}</section>"
    )


def _layers(outcome: Outcome) -> str:
    if not outcome.sensitivities:
        return ""
    headings = [
        ("Layer", True),
        ("Kind", True),
        ("Form", True),
        ("Lowest", False),
        ("Highest", False),
        ("Step", False),
        ("MMACs", False),
        ("Parameters", False),
        ("Drop alone", False),
        ("Noise alone", False),
    ]
    kept = {layer.name for layer in outcome.found.kept}
    rows = [_layer_row(outcome, entry, entry.layer.name in kept) for entry in outcome.sensitivities]
    return (
        '<section><h2>Every layer</h2><p class="faint">Lowest, highest: what its integers reach. Drop and noise '
        "alone: of the network in which only this layer is in integers, on a part of the held-out pictures. Click "
        f"a heading to sort.</p>{sortable_table(headings, rows)}</section>"
    )


def _layer_row(outcome: Outcome, entry: Sensitivity, in_float: bool) -> str:
    layer = entry.layer
    span = outcome.prepared.ranges[layer.nodes[-1]]
    low, high, step = span.low, span.high, (span.high - span.low) / 255
    kind = outcome.model.graph.types.get(layer.nodes[-1])
    if kind is not None and isinstance(kind.quantisation, Quantisation):
        step, zero = kind.quantisation.scale, kind.quantisation.zero_point
        low, high = -zero * step, (255 - zero) * step
    cells: Sequence[str] = (
        name_cell(layer.name),
        name_cell(layer.kind),
        name_cell("float" if in_float else f"integers, {outcome.prepared.method}"),
        _figure(low, f"{low:.4g}"),
        _figure(high, f"{high:.4g}"),
        _figure(step, f"{step:.3g}"),
        _figure(layer.macs, f"{layer.macs / 1e6:.2f}"),
        _figure(layer.parameters, f"{layer.parameters:,}"),
        _figure(entry.drop, f"{entry.drop:.4f}"),
        _figure(entry.noise, f"{entry.noise:.2e}"),
    )
    return f"<tr>{''.join(cells)}</tr>"


def _figure(value: float, text: str) -> str:
    return f'<td data-value="{value:.9g}">{text}</td>'

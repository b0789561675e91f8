"""Plots of a training run and of trade-offs, as PNG files. Matplotlib is imported only here, when drawing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mobilenet.errors import ArgumentError, MissingExtraError
from mobilenet.report.draw import check_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PathLike = str | Path
# A curve's name, colour, rows of the history that have its value, and these values.
Curve = tuple[str, str, list[int], list[float]]
Point = Mapping[str, Any]

BLUE, ORANGE, GREEN, RED, GREY = "#2563eb", "#d97706", "#15803d", "#c2410c", "#8a94a3"
INK, LINE = "#1f2530", "#dfe3e9"
DOTS_PER_INCH = 130
MARKERS = "os^Dv<>phX*"
LARGEST_COUNTS, LARGEST_NAMES = 20, 60
LARGEST_GRID = 48
AXIS_NAMES = {
    "macs": "multiply-accumulates",
    "params": "parameters",
    "top1": "top-1 accuracy",
    "latency_ms": "latency, ms",
}


# A panel's title, its curves (the key in a row of results.csv, the name in the legend, the colour), and whether
# its axis starts at zero, which keeps small differences of a rate small.
Panel = tuple[str, tuple[tuple[str, str, str], ...], bool]


def _panels(key: str, name: str) -> tuple[Panel, ...]:
    scores = ((f"val_{key}", "validation", ORANGE), (f"val_{key}_ema", "validation, averaged weights", GREEN))
    return (
        ("Loss", (("train_loss", "training", BLUE), ("val_loss", "validation", ORANGE)), False),
        (name[:1].upper() + name[1:], scores, False),
        ("Learning rate", (("lr", "learning rate", BLUE),), True),
        ("Pictures per second", (("images_per_second", "pictures per second", BLUE),), True),
    )


def training_curves(
    history: Sequence[Mapping[str, Any]], path: PathLike, *, figure: tuple[str, str] = ("top1", "top-1 accuracy")
) -> Path:
    """Loss, the task's figure, learning rate and speed over the epochs of a run; writes a PNG, returns its path.

    `history` is the rows of results.csv, numbers or their texts: `epoch`, `phase`, `train_loss`, `val_loss`,
    `val_<figure>`, `val_<figure>_ema`, `lr`, `images_per_second`. What a row lacks is left out, a panel that has
    nothing too. A dotted line marks where the phase changes. Raises `ArgumentError` if no row has a figure.
    """
    panels = [(title, _curves(history, curves), from_zero) for title, curves, from_zero in _panels(*figure)]
    panels = [panel for panel in panels if panel[1]]
    if not panels:
        raise ArgumentError("history holds no figure to plot: none of its rows has a loss or an accuracy")
    rows, columns = math.ceil(len(panels) / 2), min(2, len(panels))
    drawing = _figure("training curves", 5.25 * columns, 3.4 * rows)
    epochs = _epochs(history)
    for number, (title, curves, from_zero) in enumerate(panels):
        axes = drawing.add_subplot(rows, columns, number + 1)
        _style(axes, title)
        _draw_curves(axes, curves, epochs)
        _mark_phases(axes, history, epochs)
        if from_zero:
            axes.set_ylim(0.0, 1.15 * axes.get_ylim()[1])
    return _save(drawing, path)


def confusion_matrix_plot(confusion: ArrayLike, classes: Sequence[str], path: PathLike) -> Path:
    """A confusion matrix, [C, C] counts with a row for each truth, coloured by the share of its row.

    Counts are written in up to 20 classes, names in up to 60. Writes a PNG and returns its path; raises
    `ArgumentError` if the shape does not fit `classes`.
    """
    counts = np.asarray(confusion)
    if not classes or counts.shape != (len(classes), len(classes)):
        raise ArgumentError(f"confusion has shape {counts.shape} for {len(classes)} classes: [C, C] is needed")
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(4.0 + 0.36 * len(classes), 18.0)
    figure = _figure("the confusion matrix", side + 1.0, side)
    axes = figure.add_subplot()
    picture = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    bar = figure.colorbar(picture, ax=axes, label="share of the true class", shrink=0.8)
    bar.outline.set_visible(False)
    axes.set(xlabel="answer", ylabel="truth")
    axes.spines[:].set_visible(False)
    _name_classes(axes, classes)
    if len(classes) <= LARGEST_COUNTS:
        _write_counts(axes, counts, shares)
    return _save(figure, path)


def sample_predictions(
    images: Sequence[NDArray[np.uint8]],
    truths: Sequence[str],
    predictions: Sequence[str],
    confidences: Sequence[float],
    path: PathLike,
) -> Path:
    """A grid of pictures, uint8 [H, W, 3] each, under their answers: green if right, red with the truth if not.

    At most 48 are drawn. Writes a PNG and returns its path; raises `ArgumentError` if the lengths differ, if
    there are no pictures, or for another shape of picture.
    """
    lengths = {len(images), len(truths), len(predictions), len(confidences)}
    if len(lengths) != 1 or not len(images):
        raise ArgumentError(f"images, truths, predictions and confidences have lengths {sorted(lengths)}")
    shown = min(len(images), LARGEST_GRID)
    columns = min(shown, 6)
    rows = math.ceil(shown / columns)
    figure = _figure("sample predictions", 1.9 * columns, 2.3 * rows)
    for number in range(shown):
        check_picture(images[number], f"images[{number}]")
        axes = figure.add_subplot(rows, columns, number + 1)
        small = max(images[number].shape[:2]) < 64
        axes.imshow(images[number], interpolation="nearest" if small else "antialiased")
        axes.set_axis_off()
        right = truths[number] == predictions[number]
        title = f"{_plain(predictions[number], 18)} {confidences[number]:.0%}"
        title += "" if right else f"\n(truth: {_plain(truths[number], 16)})"
        axes.set_title(title, fontsize=9, color=GREEN if right else RED)
    return _save(figure, path)


def trade_off(
    points: Sequence[Point], path: PathLike, *, x: str = "macs", y: str = "params", title: str = ""
) -> Path:
    """The width x resolution trade-off: a line for each width multiplier, a marker for each resolution.

    A point has `name`, `width` (multiplier), `resolution` (pixels) and the figures `x` and `y` (`macs`,
    `params`, `top1` in 0..1, `latency_ms`). Points of several names with equal width and resolution get a
    line for each name. The x axis is logarithmic, the y axis too unless it is `top1`. Writes a PNG and
    returns its path; raises `ArgumentError` if there are no points or one lacks a figure.
    """
    _check_points(points, x, y)
    lines = _lines(points)
    figure = _figure("the trade-off", 8.4, 5.4)
    axes = figure.add_subplot()
    _style(axes, title or f"{AXIS_NAMES.get(y, y)} against {AXIS_NAMES.get(x, x)}")
    resolutions = sorted({point["resolution"] for point in points})
    markers = {size: MARKERS[number % len(MARKERS)] for number, size in enumerate(resolutions)}
    for number, (label, line) in enumerate(lines.items()):
        colour = _shade(number, len(lines))
        axes.plot([p[x] for p in line], [p[y] for p in line], color=colour, linewidth=1.8, label=_plain(label, 40))
        for point in line:
            axes.plot(point[x], point[y], markers[point["resolution"]], color=colour, markersize=7)
    _scale_axes(axes, x, y)
    _legends(figure, markers)
    return _save(figure, path)


def _figure(what: str, width: float, height: float) -> Figure:
    """A figure of `width` x `height` inches that belongs to nobody: no pyplot, no global state, no window."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise MissingExtraError(f"Drawing {what}", "plot") from error
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
    return Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout=layout)


def _save(figure: Figure, path: PathLike) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    target = Path(path)
    FigureCanvasAgg(figure).print_figure(target, format="png", facecolor="white")
    return target


def _plain(text: str, longest: int) -> str:
    """`text` on one line, at most `longest` letters, its dollar signs kept from meaning mathematics."""
    line = " ".join(str(text).split())
    line = line if len(line) <= longest else line[: longest - 1] + "…"
    return line.encode("utf-8", "replace").decode("utf-8").replace("$", r"\$")


def _style(axes: Axes, title: str) -> None:
    axes.set_title(_plain(title, 90), fontsize=11, color=INK, loc="left")
    axes.grid(True, color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors="#4a5361", labelsize=9)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _epochs(history: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    """The rows' epochs; their row numbers, from 1, if epochs are missing or start again in a phase."""
    epochs = [_number(row.get("epoch")) for row in history]
    known = [epoch for epoch in epochs if epoch is not None]
    rising = len(known) == len(epochs) and all(a < b for a, b in itertools.pairwise(known))
    return np.array(known if rising else range(1, len(epochs) + 1), dtype=np.float64)


def _curves(history: Sequence[Mapping[str, Any]], wanted: Sequence[tuple[str, str, str]]) -> list[Curve]:
    """The curves of the keys that have a finite number in some row."""
    curves = []
    for key, name, colour in wanted:
        found = [(row, _number(values.get(key))) for row, values in enumerate(history)]
        known = [(row, value) for row, value in found if value is not None]
        if known:
            curves.append((name, colour, [row for row, _ in known], [value for _, value in known]))
    return curves


def _draw_curves(axes: Axes, curves: Sequence[Curve], epochs: NDArray[np.float64]) -> None:
    from matplotlib.ticker import MaxNLocator

    for name, colour, rows, values in curves:
        marker = "o" if len(rows) < 25 else ""  # a single epoch is a point, many are a line
        axes.plot(epochs[rows], values, color=colour, label=name, linewidth=1.8, marker=marker, markersize=4)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    if len(curves) > 1:
        axes.legend(frameon=False)


def _mark_phases(axes: Axes, history: Sequence[Mapping[str, Any]], epochs: NDArray[np.float64]) -> None:
    phases = [str(row.get("phase") or "") for row in history]
    for row in range(1, len(phases)):
        if phases[row] != phases[row - 1]:
            place = (epochs[row - 1] + epochs[row]) / 2
            axes.axvline(place, color=GREY, linestyle=":", linewidth=1.2)
            axes.annotate(
                f" {_plain(phases[row], 16)}",
                (place, 1.0),
                xycoords=("data", "axes fraction"),
                va="top",
                fontsize=8,
                color="#4a5361",
            )


def _name_classes(axes: Axes, classes: Sequence[str]) -> None:
    if len(classes) > LARGEST_NAMES:
        return
    places = range(len(classes))
    names = [_plain(name, 24) for name in classes]
    axes.set_xticks(places, names, rotation=90, fontsize=9)
    axes.set_yticks(places, names, fontsize=9)
    axes.tick_params(length=0)


def _write_counts(axes: Axes, counts: NDArray[Any], shares: NDArray[Any]) -> None:
    for truth, answer in np.argwhere(counts):
        colour = "white" if shares[truth, answer] > 0.5 else INK
        axes.text(answer, truth, f"{counts[truth, answer]}", ha="center", va="center", color=colour, fontsize=9)


def _check_points(points: Sequence[Point], x: str, y: str) -> None:
    if not points:
        raise ArgumentError("there are no points to plot")
    for number, point in enumerate(points):
        for key in ("width", "resolution", x, y):
            value = _number(point.get(key))
            if value is None or (value <= 0 and key != "top1"):
                name = point.get("name", "")
                raise ArgumentError(
                    f"points[{number}] {name!r}: {key!r} is {point.get(key)!r}, a number is needed"
                )


def _lines(points: Sequence[Point]) -> dict[str, list[Point]]:
    """The points of each line by its label, smallest width first; each line by rising resolution."""
    several = len({(point["width"], point["resolution"]) for point in points}) < len(points)
    lines: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda point: (point["width"], point["resolution"])):
        label = f"width {point['width']:g}"
        lines.setdefault(f"{point.get('name', '')}, {label}" if several else label, []).append(point)
    return lines


def _shade(number: int, count: int) -> tuple[float, float, float, float]:
    from matplotlib import colormaps

    red, green, blue, alpha = colormaps["viridis"](0.88 * number / max(count - 1, 1))
    return float(red), float(green), float(blue), float(alpha)


def _scale_axes(axes: Axes, x: str, y: str) -> None:
    axes.set(xlabel=AXIS_NAMES.get(x, x), ylabel=AXIS_NAMES.get(y, y), xscale="log")
    _plain_ticks(axes, "x")
    if y == "top1":
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.1%}")
    else:
        axes.set_yscale("log")
        _plain_ticks(axes, "y")


def _plain_ticks(axes: Axes, which: str) -> None:
    """Ticks as 2 M or 300 M in place of powers of ten."""
    from matplotlib.ticker import EngFormatter, LogLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(EngFormatter())
    axis.set_minor_locator(LogLocator(subs=()))


def _legends(figure: Figure, markers: Mapping[int, str]) -> None:
    """Widths and resolutions beside the axes, where they hide no line."""
    from matplotlib.lines import Line2D

    shapes = [
        Line2D([], [], color=GREY, marker=marker, linestyle="", label=f"{size} px")
        for size, marker in markers.items()
    ]
    figure.legend(frameon=False, loc="outside right upper")
    figure.legend(handles=shapes, frameon=False, loc="outside right lower")

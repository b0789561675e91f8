"""How the engine's speed goes with resolution, width and batch: a table and a plot, and whether there is a cliff.

    python bench/scaling.py [--name mobilenet_v2 --precisions fp32 int8 --write docs/results.md --plot scaling.png]

Cost should grow linearly: the time of a picture against its multiply-accumulates, and of a batch against its size,
is fitted with a straight line (least squares of the relative error), and a point that takes over 15% longer than
the line says is a cliff. One thread on one processor; all points of a row of the table take turns.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobilenet.bench.network import Network, find_network
from mobilenet.bench.ours import open_engine
from mobilenet.bench.tables import markdown, processor, update_section
from mobilenet.bench.timing import in_turns, pinned

RESOLUTIONS = (96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448)
WIDTHS = (0.25, 0.35, 0.5, 0.6, 0.75, 0.9, 1.0, 1.15, 1.3, 1.4)
BATCHES = (1, 2, 3, 4, 8, 16, 32, 64)
SIDE = 224
CLIFF = 0.15
BLUE, ORANGE, GREEN, RED = "#2563eb", "#d97706", "#15803d", "#c2410c"


@dataclass(frozen=True)
class Point:
    """One measured network: what varies, its cost, and the time of a whole batch."""

    axis: str
    value: float
    precision: str
    pictures: int
    macs: int  # of one picture
    milliseconds: float

    @property
    def per_second(self) -> float:
        """Pictures a second on one processor."""
        return self.pictures / self.milliseconds * 1e3

    @property
    def cost(self) -> float:
        """What the time should be linear in."""
        return self.pictures if self.axis == "batch" else self.macs / 1e6


def main() -> None:
    words = arguments()
    points = [
        point
        for precision in words.precisions
        for axis in words.axes
        for point in measure(words.name, axis, precision, words.rounds)
    ]
    text = report(words, points)
    print(text)
    if words.write:
        update_section(words.write, "scaling", text)
    if words.plot:
        draw(points, words.plot, words.name)


def arguments() -> argparse.Namespace:
    """The words of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="mobilenet_v2")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "int8"], choices=["fp32", "bf16", "int8"])
    axes = ["resolution", "width", "batch"]
    parser.add_argument("--axes", nargs="+", default=axes, choices=axes)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--write", type=Path, help="a Markdown file whose section is to be replaced")
    parser.add_argument("--plot", type=Path, help="a PNG file to draw")
    return parser.parse_args()


def networks(name: str, axis: str) -> dict[float, Network]:
    """The networks along one axis, by what varies."""
    if axis == "resolution":
        return {side: find_network(name, resolution=side) for side in RESOLUTIONS}
    if axis == "width":
        return {width: find_network(name, resolution=SIDE, width=width) for width in WIDTHS}
    one = find_network(name, resolution=SIDE)
    return {size: Network(one.name, one.contents, one.integers, size) for size in BATCHES}


def measure(name: str, axis: str, precision: str, rounds: int) -> list[Point]:
    """All points along one axis, timed in turns on one processor."""
    print(f"{name} {precision}: {axis}", file=sys.stderr, flush=True)
    found = networks(name, axis)
    with pinned(1):
        engines = {value: open_engine(network, precision, 1) for value, network in found.items()}
        calls = {
            str(value): lambda engine=engines[value], batch=network.batch: engine.run(batch)
            for value, network in found.items()
        }
        times = in_turns(calls, rounds=rounds, calls_per_round=3)
    return [
        Point(axis, value, precision, network.batch_size, network.macs, times[str(value)].minimum)
        for value, network in found.items()
    ]


def over_trend(points: list[Point]) -> list[float]:
    """How much longer each point takes than the straight line through all of one axis says: 0.1 is 10%."""
    cost = np.array([point.cost for point in points])
    spent = np.array([point.milliseconds for point in points])
    terms = np.stack([np.ones_like(cost), cost], axis=1) / spent[:, None]
    line, *_ = np.linalg.lstsq(terms, np.ones_like(spent), rcond=None)
    return [float(value) for value in spent / (line[0] + line[1] * cost) - 1]


def along(points: list[Point], axis: str, precision: str) -> list[Point]:
    """The points of one axis and precision."""
    return [point for point in points if (point.axis, point.precision) == (axis, precision)]


def report(words: argparse.Namespace, points: list[Point]) -> str:
    """The section of docs/results.md."""
    lines, cliffs = [], []
    for precision in words.precisions:
        for axis in words.axes:
            row = along(points, axis, precision)
            for point, over in zip(row, over_trend(row), strict=True):
                rate = point.macs * point.per_second / 1e9
                flag = "cliff" if over > CLIFF else ""
                lines.append(
                    [precision, axis, f"{point.value:g}", f"{point.milliseconds:.3f}", f"{point.per_second:,.1f}",
                     f"{rate:.1f}", f"{over:+.1%}", flag]
                )  # fmt: skip
                cliffs += [f"{precision} {axis} {point.value:g} ({over:+.0%})"] if flag else []
    header = ("precision", "axis", "value", "ms a batch", "pictures/s", "GMAC/s", "against the trend", "")
    picture = f"![Pictures a second along each axis]({words.plot.name})\n\n" if words.plot else ""
    found = f"Over {CLIFF:.0%} above the trend: {', '.join(cliffs) if cliffs else 'none'}."
    return (
        f"## Speed against resolution, width and batch\n\n"
        f"`python bench/scaling.py` on {time.strftime('%Y-%m-%d')}, {processor()}: {words.name}, one thread, "
        f"minimum of {3 * words.rounds} calls, random weights. {found}\n\n{picture}{markdown(header, lines)}"
    )


def draw(points: list[Point], path: Path, name: str) -> None:
    """Pictures a second along each axis, cliffs marked."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    axes = list(dict.fromkeys(point.axis for point in points))
    precisions = list(dict.fromkeys(point.precision for point in points))
    figure, panels = pyplot.subplots(1, len(axes), figsize=(4.2 * len(axes), 3.4), squeeze=False)
    for panel, axis in zip(panels[0], axes, strict=True):
        for precision, colour in zip(precisions, (BLUE, ORANGE, GREEN), strict=False):
            row = along(points, axis, precision)
            panel.plot(
                [p.value for p in row], [p.per_second for p in row], "o-", color=colour, label=precision, ms=4
            )
            steep = [p for p, over in zip(row, over_trend(row), strict=True) if over > CLIFF]
            panel.plot([p.value for p in steep], [p.per_second for p in steep], "x", color=RED, ms=10)
        panel.set(xlabel=axis, yscale="log", xscale="log" if axis == "batch" else "linear")
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("pictures a second, one processor")
    panels[0][0].legend(frameon=False)
    figure.suptitle(name)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()

"""Diagrams as inline SVG, coloured by the page's style sheet: reliability, and precision over recall."""

from __future__ import annotations

from collections.abc import Sequence

# (lower, upper, confidence, accuracy, count), as mobilenet.tasks.metrics.reliability_bins gives them
Bin = tuple[float, float, float, float, int]
Curve = tuple[str, tuple[int, int, int], Sequence[float]]

LEFT, TOP, SIDE, COUNT_TOP, COUNT_HEIGHT = 62, 10, 300, 326, 50
WIDTH, HEIGHT = LEFT + SIDE + 22, COUNT_TOP + COUNT_HEIGHT + 40


def reliability_svg(bins: Sequence[Bin], description: str) -> str:
    """Accuracy against confidence, with how many pictures are in each bin below it.

    A bar's pale part is the distance between the bin's accuracy and its mean confidence, which is the short
    line: orange where the model is too sure, blue where it is too modest. `description` must be
    escaped already; it is what a screen reader says.
    """
    most = max((count for *_, count in bins), default=0)
    columns = [_column(one, most) for one in bins if one[4]]
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{description}">'
        f"{_axes(most)}{''.join(columns)}{_ideal_line()}</svg>"
    )


def curves_svg(curves: Sequence[Curve], description: str) -> str:
    """Precision over recall: a line for each (name, colour, precision at evenly spaced recalls from 0 to 1).

    `description` and the names must be escaped already.
    """
    return (
        f'<svg viewBox="0 0 {WIDTH} {TOP + SIDE + 40}" role="img" aria-label="{description}">'
        f"{_grid(TOP + SIDE, 'recall', 'precision')}{''.join(_curve(one) for one in curves)}</svg>"
    )


def _curve(curve: Curve) -> str:
    name, (red, green, blue), values = curve
    last = max(len(values) - 1, 1)
    points = " ".join(f"{_x(n / last):.1f},{_y(value):.1f}" for n, value in enumerate(values))
    line = f'<polyline class="curve" stroke="rgb({red}, {green}, {blue})" points="{points}"/>'
    return f"<g><title>{name}</title>{line}</g>"


def _x(share: float) -> float:
    return LEFT + share * SIDE


def _y(share: float) -> float:
    return TOP + (1.0 - share) * SIDE


def _axes(most: int) -> str:
    base = COUNT_TOP + COUNT_HEIGHT
    return (
        f"{_grid(base, 'confidence', 'accuracy')}"
        f'<line class="grid" x1="{LEFT}" x2="{LEFT + SIDE}" y1="{base}" y2="{base}"/>'
        f'<text x="{LEFT - 6}" y="{COUNT_TOP + 10}" text-anchor="end">{most}</text>'
    )


def _grid(base: int, across: str, up: str) -> str:
    """Lines and shares of the square, those of the x axis below `base`; the axes' names."""
    parts = []
    for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        x, y, label = _x(tick), _y(tick), f"{tick:.0%}"
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{LEFT + SIDE}" y1="{y:g}" y2="{y:g}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:g}" text-anchor="end">{label}</text>')
        parts.append(f'<text x="{x:g}" y="{base + 16}" text-anchor="middle">{label}</text>')
    parts.append(f'<text x="{_x(0.5):g}" y="{base + 34}" text-anchor="middle">{across}</text>')
    middle = f"{_y(0.5):g}"
    parts.append(f'<text x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">{up}</text>')
    return "".join(parts)


def _ideal_line() -> str:
    return f'<line class="ideal" x1="{_x(0):g}" y1="{_y(0):g}" x2="{_x(1):g}" y2="{_y(1):g}"/>'


def _column(one: Bin, most: int) -> str:
    lower, upper, confidence, accuracy, count = one
    left, width = _x(lower) + 1, max((upper - lower) * SIDE - 2, 1.0)
    title = f"{lower:.0%} to {upper:.0%} sure: {accuracy:.1%} right of {count}, mean confidence {confidence:.1%}"
    low, high = sorted((accuracy, confidence))
    gap = "over" if confidence > accuracy else "under"
    y = _y(confidence)
    count_height = max(COUNT_HEIGHT * count / most, 1.0)
    return (
        f"<g><title>{title}</title>"
        f"{_box('accuracy', left, _y(low), width, low * SIDE)}"
        f"{_box(gap, left, _y(high), width, (high - low) * SIDE)}"
        f'<line class="confidence" x1="{left:.2f}" x2="{left + width:.2f}" y1="{y:.2f}" y2="{y:.2f}"/>'
        f"{_box('count', left, COUNT_TOP + COUNT_HEIGHT - count_height, width, count_height)}</g>"
    )


def _box(kind: str, x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="{kind}" x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}"/>'

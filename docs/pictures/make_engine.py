"""Draws inverted_residual.svg: how an inverted residual runs in bands of rows (docs/engine.md).

    python docs/pictures/make_engine.py

The sizes are those of MobileNetV2's block 2 at 224 x 224, the first with a residual, in float32.
"""

from __future__ import annotations

from pathlib import Path

TARGET = Path(__file__).with_name("inverted_residual.svg")
WIDTH, HEIGHT = 960, 570

# What is drawn: fill and stroke in light and in dark surroundings. The background is drawn too, so that either is
# readable where a viewer asks for the one and shows it on the other.
PALETTE = {
    "back": (("#ffffff", "#d0d7de"), ("#0d1117", "#30363d")),
    "plain": (("#f6f8fa", "#8c959f"), ("#161b22", "#6e7681")),
    "new": (("#ddf4ff", "#0969da"), ("#0c2d6b", "#58a6ff")),
    "band": (("#dafbe1", "#1a7f37"), ("#033a16", "#3fb950")),
    "again": (("#fff8c5", "#9a6700"), ("#3b2300", "#d29922")),
    "zero": (("#eaeef2", "#8c959f"), ("#30363d", "#6e7681")),
}
INK = ("#1f2328", "#e6edf3")
FAINT = ("#59636e", "#9198a1")


def style() -> str:
    """The colours of both surroundings as CSS."""
    sheets = []
    for mode in (0, 1):
        rules = [f".{name}{{fill:{both[mode][0]};stroke:{both[mode][1]}}}" for name, both in PALETTE.items()]
        rules += [f"text{{fill:{INK[mode]}}}", f".faint{{fill:{FAINT[mode]}}}"]
        rules += [f".line{{fill:none;stroke:{INK[mode]};stroke-width:1.5}}", f".head{{fill:{INK[mode]}}}"]
        rules += [f".dash{{fill:none;stroke:{FAINT[mode]};stroke-width:1.2;stroke-dasharray:4 3}}"]
        sheets.append("".join(rules))
    fonts = "text{font:14px system-ui,'Segoe UI',Helvetica,Arial,sans-serif}"
    fonts += ".bold{font-weight:600}.small{font-size:12px}"
    return f"<style>{fonts}{sheets[0]}@media (prefers-color-scheme:dark){{{sheets[1]}}}</style>"


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{words}</text>'


def box(x: float, y: float, width: float, height: float, kind: str, radius: float = 2) -> str:
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}" class="{kind}"/>'


def row(x: float, y: float, width: float, words: str, kind: str = "plain") -> str:
    """A row of a picture."""
    return box(x, y, width, 26, kind) + text(x + width / 2, y + 18, words, "", "middle")


def arrow(*points: tuple[float, float]) -> str:
    """A line through points, with a head at its end."""
    (x0, y0), (x, y) = points[-2:]
    dx, dy = (x > x0) - (x < x0), (y > y0) - (y < y0)
    path = " ".join(f"{a},{b}" for a, b in points)
    head = f"{x},{y} {x - 9 * dx - 5 * dy},{y - 9 * dy - 5 * dx} {x - 9 * dx + 5 * dy},{y - 9 * dy + 5 * dx}"
    return f'<polyline points="{path}" class="line"/><polygon points="{head}" class="head"/>'


def step(x: float, y: float, number: int, title: str, *more: str) -> str:
    """A numbered caption of an arrow."""
    lines = [text(x, y, f"{number}  {title}", "bold")]
    lines += [text(x, y + 17 * (i + 1), words, "small faint") for i, words in enumerate(more)]
    return "".join(lines)


def source(x: float, y: float) -> str:
    """The input, whole, in the arena."""
    parts = [text(x, y, "input, 56 × 56 × 24", "bold"), text(x, y + 18, "in the arena: 401 kB", "small faint")]
    names = ["…", "row y − 1", "row y", "row y + 1", "row y + 2", "…"]
    kinds = ["plain", "plain", "again", "new", "plain", "plain"]
    for i, (words, kind) in enumerate(zip(names, kinds, strict=True)):
        parts.append(row(x, y + 30 + 30 * i, 150, words, kind))
    return "".join(parts)


def ring(x: float, y: float) -> str:
    """The last three rows of the expansion, with a column of zeros on either side."""
    parts = [
        text(x, y, "ring of the expansion, 3 × 58 × 144", "bold"),
        text(x, y + 18, "scratch: 100 kB", "small faint"),
    ]
    for i, (words, kind) in enumerate([("row y − 1", "plain"), ("row y", "plain"), ("row y + 1", "new")]):
        top = y + 30 + 30 * i
        parts += [
            box(x, top, 18, 26, "zero"),
            box(x + 232, top, 18, 26, "zero"),
            row(x + 18, top, 214, words, kind),
        ]
        parts.append(text(x + 9, top + 18, "0", "small faint", "middle"))
        parts.append(text(x + 241, top + 18, "0", "small faint", "middle"))
    below = y + 128
    parts += [row(x, below + 4, 250, "zeros: rows −1 and 56", "zero")]
    parts.append(text(x, below + 48, "Rows y − 1 and y + 1 are the halo of row y.", "small faint"))
    parts.append(text(x, below + 64, "Row y + 2 will take the place of row y − 1:", "small faint"))
    parts.append(text(x, below + 80, "nothing moves. All rows would take 1.8 MB.", "small faint"))
    return "".join(parts)


def band(x: float, y: float) -> str:
    """What the depthwise convolution writes: one row of all channels."""
    parts = [text(x, y, "band, 1 × 56 × 144", "bold"), text(x, y + 18, "scratch: 32 kB", "small faint")]
    parts.append(row(x, y + 60, 140, "row y", "band"))
    return "".join(parts)


def destination(x: float, y: float) -> str:
    """The output, whole, in the arena."""
    parts = [text(x, y, "output, 56 × 56 × 24", "bold"), text(x, y + 18, "in the arena: 401 kB", "small faint")]
    for i, (words, kind) in enumerate([("…", "plain"), ("row y − 1", "plain"), ("row y", "band"), ("", "plain")]):
        parts.append(row(x, y + 30 + 30 * i, 140, words, kind))
    return "".join(parts)


def slices(x: float, y: float) -> str:
    """The 144 channels, in the slices in which steps 1 and 2 take them."""
    parts = [text(x, y, "144 channels in slices, for each: 1, then 2", "small faint")]
    left = x
    for channels in (32, 32, 32, 32, 16):
        wide = channels * 250 / 144
        parts.append(box(left, y + 8, wide, 22, "plain"))
        parts.append(text(left + wide / 2, y + 23, str(channels), "small", "middle"))
        left += wide
    return "".join(parts)


def picture() -> str:
    """The whole SVG."""
    title = "Block 2 of MobileNetV2 at 224 × 224, float32: what happens for row y of its output"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">',
        style(),
        box(0.5, 0.5, WIDTH - 1, HEIGHT - 1, "back", 8),
        text(28, 40, title, "bold"),
        source(28, 84),
        ring(316, 84),
        band(752, 84),
        destination(752, 332),
        slices(316, 322),
        # The arrows, each with what it does.
        arrow((178, 217), (304, 217), (304, 187), (334, 187)),
        step(186, 238, 1, "expand", "1 × 1, 24 → 144,", "ReLU6"),
        arrow((566, 157), (752, 157)),
        step(582, 146, 2, "depthwise"),
        text(582, 176, "3 × 3, three rows", "small faint"),
        text(582, 192, "to one, ReLU6", "small faint"),
        arrow((822, 170), (822, 310), (934, 310), (934, 435), (892, 435)),
        step(660, 250, 3, "project", "1 × 1, 144 → 24, when", "all slices are there"),
        '<path d="M 28 187 H 14 V 435 H 690" class="dash"/>',
        arrow((690, 435), (752, 435)),
        step(186, 424, 4, "residual: row y of the input is added before row y is stored"),
        text(
            28,
            500,
            "Then y grows by one. Of the 144 channels in the middle only three rows ever exist, and they",
            "faint",
        ),
        text(
            28,
            521,
            "stay in the cache. With two threads each has rows, ring and band of its own: the second",
            "faint",
        ),
        text(
            28, 542, "begins at y = 28, and makes rows 27 and 28 of the expansion as the first one does.", "faint"
        ),
        "</svg>\n",
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(picture(), encoding="utf-8")

"""The engine beside its peers: five networks in fp32, bf16 and int8, on one and on two processors.

    python bench/engine.py [--nets mobilenet_v2 --columns int8-1 --rounds 8 --write docs/results.md]

Every cell is one run in which our engine and every installed peer take turns (see `mobilenet bench`). A cell says
how many times as long the fastest peer takes at the same precision, the two minima in ms, and which peer it is. An
int8 cell of V3 has a second ratio, to the fastest peer in int8 or fp32, because peers run V3 slower in int8.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from mobilenet.bench.compare import Row, best_peer, compare
from mobilenet.bench.network import Network, find_network
from mobilenet.bench.runtimes import RUNTIMES, find_runtimes
from mobilenet.bench.tables import markdown, processor, update_section

NETS = ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "mobilenet_v4_conv_small")
COLUMNS = {"fp32-1": ("fp32", 1), "bf16-1": ("bf16", 1), "int8-1": ("int8", 1), "int8-2": ("int8", 2)}
BARS = {  # best peer's minimum over ours: what the engine is asked for
    "mobilenet_v1": (1.0, 1.05, 1.25, 1.3),
    "mobilenet_v2": (1.1, 1.15, 1.5, 1.6),
    "mobilenet_v3_large": (1.15, 1.15, 2.2, 2.2),
    "mobilenet_v3_small": (1.2, 1.2, 2.2, 1.8),
    "mobilenet_v4_conv_small": (1.05, 1.1, 1.2, 1.2),
}
BAR_OF_EITHER = 1.8  # for V3 in int8: over the fastest peer in int8 or fp32


def main() -> None:
    words = arguments()
    lines, details = [], []
    for name in words.nets:
        network = find_network(name, resolution=words.resolution)
        line = [name]
        for column in words.columns:
            rows = measure(network, column, words)
            line.append(cell(name, column, rows))
            details += [[name, *detail(row)] for row in rows]
            print(f"{name} {column}: {line[-1]}", file=sys.stderr, flush=True)
        lines.append(line)
    text = report(words, lines, details)
    print(text)
    if words.write:
        update_section(words.write, "engine", text)


def arguments() -> argparse.Namespace:
    """The words of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", default=list(NETS), metavar="NAME")
    parser.add_argument("--columns", nargs="+", default=list(COLUMNS), choices=list(COLUMNS))
    parser.add_argument("--vs", help="peers, separated by commas; default: all that are installed")
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--write", type=Path, help="a Markdown file whose section is to be replaced")
    return parser.parse_args()


def measure(network: Network, column: str, words: argparse.Namespace) -> list[Row]:
    """The rows of one cell."""
    precision, threads = COLUMNS[column]
    both = precision == "int8" and "v3" in network.name
    return compare(
        network,
        precision,
        threads=threads,
        peers=find_runtimes(words.vs),
        peer_precisions=("int8", "fp32") if both else (),
        rounds=words.rounds,
    )


def cell(name: str, column: str, rows: list[Row]) -> str:
    """The ratio to the fastest peer, what it was counted from, and the bar if there is one."""
    ours = rows[0]
    best = best_peer(row for row in rows if row.precision == ours.precision)
    if best is None or best.min_ms is None or ours.min_ms is None:
        return f"no peer (ours {ours.min_ms:.3f})" if ours.min_ms else "-"
    bar = BARS[name][list(COLUMNS).index(column)] if name in BARS else None
    text = judged(best.min_ms / ours.min_ms, bar) + f": {ours.min_ms:.3f} / {best.min_ms:.3f} {best.runtime}"
    either = best_peer(rows)
    if either is not None and either.min_ms is not None and any(r.precision != ours.precision for r in rows):
        text += f"; {judged(either.min_ms / ours.min_ms, BAR_OF_EITHER)} over {either.runtime} {either.precision}"
    return text


def judged(ratio: float, bar: float | None) -> str:
    """A ratio, bold where it reaches its bar."""
    if bar is None:
        return f"{ratio:.2f}"
    return f"**{ratio:.2f}** (of {bar:g})" if ratio >= bar else f"{ratio:.2f} (of {bar:g})"


def detail(row: Row) -> list[str]:
    """The words of one measured row."""
    start = [f"{row.runtime} {row.version}".strip(), row.precision, str(row.threads)]
    if row.min_ms is None or row.median_ms is None or row.ratio_to_mobilenet is None:
        return [*start, "-", "-", "-", "-", "-", row.reason]
    share = "-" if row.ceiling_share is None else f"{row.ceiling_share:.0%}"
    memory = "-" if row.peak_activation_bytes is None else f"{row.peak_activation_bytes / 1e6:.3f}"
    return [
        *start,
        f"{row.min_ms:.3f}",
        f"{row.median_ms:.3f}",
        f"{row.ratio_to_mobilenet:.2f}",
        share,
        memory,
        "",
    ]


def report(words: argparse.Namespace, lines: list[list[str]], details: list[list[str]]) -> str:
    """The section of docs/results.md."""
    peers = ", ".join(f"{p.name} {p.version}" for p in find_runtimes(words.vs) if p.installed)
    head = [
        "network",
        *(f"{COLUMNS[c][0]}, {COLUMNS[c][1]} thread{'s' * (COLUMNS[c][1] > 1)}" for c in words.columns),
    ]
    every = ("network", "runtime", "precision", "threads", "min ms", "median ms", "ratio", "of ceiling", "MB", "")
    return (
        f"## The engine beside its peers\n\n"
        f"`python bench/engine.py` on {time.strftime('%Y-%m-%d')}, {processor()}, {words.resolution} × "
        f"{words.resolution}, batch 1, {words.rounds} rounds of 8 calls, random weights; mobilenet "
        f"{RUNTIMES['mobilenet'].version} beside {peers}. A cell is the ratio to the fastest peer of the same "
        "precision, bold where it reaches what was asked for, then both minima in ms.\n\n"
        f"{markdown(head, lines)}\nEvery row (MB: peak activation memory):\n\n{markdown(every, details)}"
    )


if __name__ == "__main__":
    main()

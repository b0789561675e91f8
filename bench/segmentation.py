"""Segmenters in our engine beside onnxruntime and openvino, which get the same network in our ONNX export.

    taskset -c 0 python bench/segmentation.py [--networks lraspp_mobilenet_v3_large] [--resolution 512]

Weights are random, 21 classes; scores are resized to the picture, as the network has them. int8 is ours from
`quantise` of this package against onnxruntime's quantiser. Every runtime is timed in turns on one processor.
Prints a Markdown table, and the ratios beside the bars that the classifier below has (fp32 1.15, int8 2.2). With
`--plan`, also the engine's slowest steps.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from mobilenet.bench.compare import Row, best_peer, compare
from mobilenet.bench.network import Network, reduced
from mobilenet.bench.ours import open_engine, plan
from mobilenet.bench.runtimes import find_runtimes
from mobilenet.bench.tables import markdown, processor
from mobilenet.quantise.random import random_model

BARS = {"fp32": 1.15, "int8": 2.2}
CLASSES = 21
PEERS = "onnxruntime,openvino"
HEADER = ("network", "precision", "runtime", "min ms", "median ms", "times ours", "error", "remark")
STEPS = 12


def network(name: str, resolution: int) -> Network:
    """The network with random weights, one output, folded."""
    return Network(name, reduced(random_model(name, classes=CLASSES, resolution=resolution)))


def cells(name: str, row: Row) -> list[str]:
    """A line of the table."""
    if row.min_ms is None or row.median_ms is None:
        return [name, row.precision, f"{row.runtime} {row.version}", "-", "-", "-", "-", row.reason]
    figures = [f"{row.min_ms:.2f}", f"{row.median_ms:.2f}", f"{row.ratio_to_mobilenet:.2f}", f"{row.error:.2g}"]
    return [name, row.precision, f"{row.runtime} {row.version}", *figures, ""]


def lines(measured: Network, precision: str, rounds: int) -> Iterator[list[str]]:
    """The table's lines for one network and precision, with the ratio to the fastest peer and its bar."""
    rows = compare(measured, precision, peers=find_runtimes(PEERS), rounds=rounds)
    yield from (cells(measured.name, row) for row in rows)
    best = best_peer(rows)
    if best is not None and best.ratio_to_mobilenet is not None:
        bar = BARS[precision]
        verdict = "holds" if best.ratio_to_mobilenet >= bar else "missed"
        ratio = f"{best.ratio_to_mobilenet:.2f}"
        yield [measured.name, precision, f"fastest: {best.runtime}", "", "", ratio, "", f"bar {bar}: {verdict}"]


def print_steps(measured: Network, precision: str) -> None:
    """The engine's slowest steps, with their kernels."""
    steps = plan(open_engine(measured, precision, 1), None, rounds=10)["steps"]
    total = sum(step["ms"] for step in steps)
    print(f"\n{measured.name} {precision}: {total:.2f} ms in {len(steps)} steps")
    for step in sorted(steps, key=lambda step: -step["ms"])[:STEPS]:
        print(f"  {step['ms']:8.3f} ms  {step['ms'] / total:5.1%}  {step['name']}  {step['kernel']}")


def main() -> None:
    """Reads the command line and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="lraspp_mobilenet_v3_large")
    parser.add_argument("--resolution", type=int, default=512)
    parser.add_argument("--precisions", default="fp32,int8")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--plan", action="store_true")
    words = parser.parse_args()
    print(f"{processor()}, 1 thread, {words.resolution} x {words.resolution}, {CLASSES} classes\n")
    table: list[list[str]] = []
    measured = [network(name, words.resolution) for name in words.networks.split(",")]
    for each in measured:
        for precision in words.precisions.split(","):
            table += lines(each, precision, words.rounds)
    print(markdown(HEADER, table))
    for each in measured if words.plan else ():
        for precision in words.precisions.split(","):
            print_steps(each, precision)


if __name__ == "__main__":
    main()

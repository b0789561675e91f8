"""The V1 paper's ablations and its width and resolution trade-off, in small, on handwritten digits.

    python bench/ablation.py [--epochs 12 --seeds 0 --output runs/ablation]

Three questions (arXiv:1704.04861, tables 4 to 7), each a pair of networks trained with the same words:

- depthwise separable against full convolutions (at one width);
- a thin network against a shallow one of about the same cost;
- how accuracy falls with width and with resolution.

The paper measured on ImageNet; 1,797 digits of 8 x 8 pixels cannot repeat its figures, but they show what each
choice costs and brings, at a hundredth of the time. Prints one table; writes ablation.json and trade_off.png.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import mean
from typing import Any

import mobilenet
from mobilenet.family.names import build
from mobilenet.graph.cost import cost
from mobilenet.report.plots import trade_off

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))
from digits import write_digits

WIDTHS = (0.25, 0.5, 1.0)
RESOLUTIONS = (32, 64)
PAIRS = (
    ("depthwise separable", "mobilenet_v1", 0.25, 32),
    ("full convolutions", "mobilenet_v1_full_convolution", 0.25, 32),
    ("thin", "mobilenet_v1", 0.75, 32),
    ("shallow", "mobilenet_v1_shallow", 1.0, 32),
)


def main() -> None:
    """Trains every row and prints the table."""
    words = arguments()
    data = words.output / "digits"
    write_digits(data)
    rows = [measure(label, name, width, side, data, words) for label, name, width, side in PAIRS]
    grid = [measure("grid", "mobilenet_v1", width, side, data, words) for width in WIDTHS for side in RESOLUTIONS]
    print_table(rows + grid)
    (words.output / "ablation.json").write_text(json.dumps(rows + grid, indent=2) + "\n", encoding="utf-8")
    title = "MobileNetV1 on digits: width and resolution"
    trade_off(grid, words.output / "trade_off.png", x="macs", y="top1", title=title)
    print(f"\nwritten: {words.output}/ablation.json, {words.output}/trade_off.png")


def arguments() -> argparse.Namespace:
    """The words of the command."""
    parser = argparse.ArgumentParser(description="The V1 paper's ablations and trade-off, in small, on digits.")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--output", type=Path, default=Path("runs/ablation"))
    return parser.parse_args()


def measure(
    label: str, name: str, width: float, side: int, data: Path, words: argparse.Namespace
) -> dict[str, Any]:
    """Trains one network once a seed; top-1 is the mean over held-out digits."""
    counted = cost(build(name, width_multiplier=width, resolution=side, classes=10))
    started = time.perf_counter()
    top1 = [train_once(name, width, side, seed, data, words) for seed in words.seeds]
    row = {"label": label, "name": name, "width": width, "resolution": side, "macs": counted.macs,
           "params": counted.params, "top1": mean(top1), "seconds": time.perf_counter() - started}  # fmt: skip
    print_row(row)
    return row


def train_once(name: str, width: float, side: int, seed: int, data: Path, words: argparse.Namespace) -> float:
    """Top-1 on the test split."""
    run = f"{name}_{width}_{side}_{seed}"
    model = mobilenet.train(data, model=name, width=width, resolution=side, epochs=words.epochs, seed=seed,
                            flip=0.0, project=str(words.output), name=run)  # fmt: skip
    return float(model.evaluate(data)["top1"])


def print_table(rows: list[dict[str, Any]]) -> None:
    """The Markdown that docs/results.md holds."""
    print("\n| | network | width | resolution | MMACs | parameters | top-1 |\n" + "| --- " * 7 + "|")
    for row in rows:
        print_row(row)


def print_row(row: dict[str, Any]) -> None:
    """One line of the table."""
    cells = (row["label"], row["name"], row["width"], row["resolution"], f"{row['macs'] / 1e6:.2f}",
             f"{row['params']:,}", f"{row['top1']:.4f}")  # fmt: skip
    print("|", " | ".join(map(str, cells)), "|", flush=True)


if __name__ == "__main__":
    main()

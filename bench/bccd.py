"""A detector of blood cells from an image classifier, by the public commands: train, evaluate, quantise, evaluate.

    python bench/bccd.py --data BCCD --weights tf2_mobilenet_v2_1.0_224_ptq.tflite [--seed 0] [--output runs/bccd]

BCCD is a folder of Pascal VOC annotations with lists of train, val and test. The epoch is chosen on val, the
integers are calibrated on train and held to their budget on val; the table is of test. A step that is finished is
not run again, and training that was interrupted goes on. Prints the Markdown of docs/results.md: what each
command took, by the clock and in processor minutes, and how good the result is.

Needs `pip install '.[train,detect]'`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mobilenet
from mobilenet.bench.tables import markdown

SPLIT = "test"


def main() -> None:
    """Runs what is not finished and prints the table."""
    words = arguments()
    words.output.mkdir(parents=True, exist_ok=True)
    model = words.output / "detect" / name_of(words) / "best.safetensors"
    small = words.output / f"{name_of(words)}-int8.safetensors"
    steps = {"train": train_command(words), "quantise": quantise_command(words, model, small)}
    took = {step: run_once(words, step, command) for step, command in steps.items()}
    rows = {"fp32": model, "int8": small}
    found = {row: evaluated(words, path) for row, path in rows.items()}
    for command in steps.values():
        print("mobilenet", " ".join(command))
    print_table(rows, found, took)


def arguments() -> argparse.Namespace:
    """The words of the command."""
    parser = argparse.ArgumentParser(description="A detector of blood cells, trained, quantised and measured.")
    parser.add_argument("--data", type=Path, required=True, help="The data set with its three lists.")
    parser.add_argument("--weights", required=True, help="A classifier: a file, or a published name.")
    parser.add_argument("--head", default="yolo", choices=("yolo", "ssd", "ssdlite"))
    parser.add_argument("--resolution", type=int, default=416)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=0, help="Default: torch's own choice.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-drop", type=float, default=0.01)
    parser.add_argument("--output", type=Path, default=Path("runs/bccd"))
    return parser.parse_args()


def name_of(words: argparse.Namespace) -> str:
    """Of the run."""
    return f"{words.head}-{words.resolution}-{words.epochs}-{words.seed}"


def train_command(words: argparse.Namespace) -> list[str]:
    """`mobilenet train`; a run that was begun goes on."""
    options = {
        "task": "detect", "pretrained": words.weights, "head": words.head, "resolution": words.resolution,
        "epochs": words.epochs, "batch": words.batch, "ema": 0.998, "flip-vertical": 0.5,
        "threads": words.threads, "seed": words.seed, "on-bad-picture": "skip",
        "project": words.output, "name": name_of(words),
    }  # fmt: skip
    listed = [text for option, value in options.items() for text in (f"--{option}", str(value))]
    begun = (words.output / "detect" / name_of(words) / "last.safetensors").exists()
    return ["train", str(words.data), *listed, *["--resume"] * begun]


def quantise_command(words: argparse.Namespace, model: Path, small: Path) -> list[str]:
    """`mobilenet quantise`."""
    drop = ["--max-drop", str(words.max_drop), "--seed", str(words.seed)]
    return ["quantise", str(model), "--data", str(words.data), "-o", str(small), *drop]


def run_once(words: argparse.Namespace, step: str, command: list[str]) -> dict[str, float]:
    """Minutes by the clock and of processors, from the file that a finished step leaves."""
    kept = words.output / f"{name_of(words)}-{step}.json"
    if not kept.exists():
        start, before = time.perf_counter(), os.times()
        subprocess.run([sys.executable, "-m", "mobilenet", *command], check=True)
        after = os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        minutes = {"clock": (time.perf_counter() - start) / 60, "processors": used / 60}
        kept.write_text(json.dumps(minutes) + "\n", encoding="utf-8")
    return dict(json.loads(kept.read_text("utf-8")))


def evaluated(words: argparse.Namespace, model: Path) -> dict[str, Any]:
    """What `mobilenet evaluate --json` says of the test pictures."""
    command = ["evaluate", str(model), str(words.data), "--split", SPLIT, "--on-bad-picture", "skip", "--json"]
    said = subprocess.run(
        [sys.executable, "-m", "mobilenet", *command], check=True, capture_output=True, text=True
    )
    return dict(json.loads(said.stdout))


def print_table(
    rows: dict[str, Path], found: dict[str, dict[str, Any]], took: dict[str, dict[str, float]]
) -> None:
    """The Markdown that docs/results.md holds."""
    classes = list(found["fp32"]["per_class"])
    own = (f"AP50, {name}" for name in classes)
    header = ["", "AP50", *own, "AP", "recall", "precision", "ms a picture", "MB"]
    lines = []
    for row, path in rows.items():
        figures = found[row]
        at = figures["confidence"]
        parts = [figures["per_class"][name]["ap50"] for name in classes]
        shares = [figures["ap50"], *parts, figures["ap"], at["recall"], at["precision"]]
        size = path.stat().st_size / 1e6
        cells = (f"{share:.4f}" for share in shares)
        lines.append([row, *cells, f"{figures['latency_ms']:.1f}", f"{size:.1f}"])
    print(f"\n{markdown(header, lines)}", end="")
    model = mobilenet.load(rows["fp32"])
    best = model.provenance["best"]
    print(f"\nbest epoch {best['epoch']} ({best['weights']}), val AP50 {best['ap50']:.4f}")
    for step, minutes in took.items():
        print(f"{step}: {minutes['clock']:.1f} minutes, {minutes['processors']:.1f} processor minutes")


if __name__ == "__main__":
    main()

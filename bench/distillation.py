"""What a narrow network gains from a wide one's weights: from scratch, sliced, sliced and distilled.

    python bench/distillation.py --data CLOTHING --weights tf2_mobilenet_v2_1.0_224_ptq.tflite [--rows scratch ...]

MobileNetV2 at width 0.5, every row with the same pictures, resolution and number of epochs; the teacher is the
wide network, fine-tuned likewise. A row that is finished is not trained again, so the command can be stopped and
repeated. Prints the Markdown table of docs/results.md; writes OUTPUT/distillation.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import mobilenet
from mobilenet.graph.cost import cost

ROWS = ("scratch", "sliced", "teacher", "distilled")
LABELS = {
    "scratch": "from scratch",
    "sliced": "sliced from the wide network",
    "teacher": "the wide network itself (the teacher)",
    "distilled": "sliced, and distilled from the teacher",
}


def main() -> None:
    """Trains the rows that are asked for and prints all that are finished."""
    words = arguments()
    words.output.mkdir(parents=True, exist_ok=True)
    for seed in words.seeds:
        for row in words.rows:
            result = words.output / f"{row}-{seed}.json"
            if not result.exists():
                result.write_text(json.dumps(measure(row, seed, words), indent=2) + "\n", encoding="utf-8")
    print_table(words)


def arguments() -> argparse.Namespace:
    """The words of the command."""
    parser = argparse.ArgumentParser(description="Width 0.5 from scratch, sliced, and sliced and distilled.")
    parser.add_argument("--data", type=Path, required=True, help="A folder of labelled pictures.")
    parser.add_argument("--weights", required=True, help="The wide network: a file, or a published name.")
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--resolution", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--teacher-epochs", type=int, help="Default: as the others.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--output", type=Path, default=Path("runs/distillation"))
    return parser.parse_args()


def measure(row: str, seed: int, words: argparse.Namespace) -> dict[str, Any]:
    """Trains one row. The epoch that is best on the validation pictures is measured on the test ones."""
    started = time.perf_counter()
    epochs = (row == "teacher" and words.teacher_epochs) or words.epochs
    model = mobilenet.train(
        words.data, resolution=words.resolution, epochs=epochs, seed=seed, threads=words.threads,
        project=str(words.output), name=f"{row}-{seed}", **options_of(row, seed, words),
    )  # fmt: skip
    counted = cost(model.graph)
    best = {key: model.provenance["best"][key] for key in ("epoch", "weights", "top1")}
    return {"row": row, "seed": seed, "resolution": words.resolution, "epochs": epochs, "best": best,
            "test_top1": model.metrics["top1"], "split": model.metrics["split"], "macs": counted.macs,
            "params": counted.params, "seconds": time.perf_counter() - started}  # fmt: skip


def options_of(row: str, seed: int, words: argparse.Namespace) -> dict[str, Any]:
    """What tells the rows apart. From scratch the rate rises for one epoch, as in the others, not for three."""
    if row == "scratch":
        return {"model": "mobilenet_v2", "width": words.width, "warmup_epochs": 1.0}
    if row == "teacher":
        return {"pretrained": words.weights}
    teacher = words.output / "classify" / f"teacher-{seed}" / "best.safetensors"
    distil = {"distill": str(teacher)} if row == "distilled" else {}
    return {"pretrained": words.weights, "width": words.width, **distil}


def print_table(words: argparse.Namespace) -> None:
    """The Markdown that docs/results.md holds, of the rows that are finished."""
    rows = [json.loads(path.read_text("utf-8")) for path in sorted(words.output.glob("*-*.json"))]
    rows.sort(key=lambda row: (row["seed"], ROWS.index(row["row"])))
    print("\n| | seed | epochs | parameters | MMACs | val top-1 | test top-1 | time |\n" + "| --- " * 8 + "|")
    for row in rows:
        cells = (LABELS[row["row"]], row["seed"], row["epochs"], f"{row['params']:,}", f"{row['macs'] / 1e6:.1f}",
                 f"{row['best']['top1']:.4f}", f"{row['test_top1']:.4f}", f"{row['seconds']:.0f} s")  # fmt: skip
        print("|", " | ".join(map(str, cells)), "|", flush=True)
    (words.output / "distillation.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Faces: people whom training has not seen are told apart, by models that are trained by the public command.

    python bench/faces.py --data ORL_FACES --weights mobilenet_v1_0.5_160_quant.tflite [--rows fitted ...]

ORL_FACES is s1..s40 with ten pictures each (AT&T Laboratories Cambridge). s1..s25 are trained on; s26..s30 choose
the epoch and set the threshold; all 4,950 pairs of s31..s40, which nothing has seen, are the test. Prints the
Markdown table of docs/results.md and the commands; writes OUTPUT/faces.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mobilenet
from mobilenet.graph.cost import cost
from mobilenet.tasks.verify_run import evaluate_verification

SPLITS = {"train": range(1, 26), "val": range(26, 31), "test": range(31, 41)}
ROWS = {
    "fitted": ("{name}, last layer fitted", ("--pretrained", "{weights}", "--freeze", "features")),
    "tuned": ("{name}, then all layers, ArcFace", ("--pretrained", "{weights}")),
    "triplet": ("{name}, then all layers, triplets", ("--pretrained", "{weights}", "--loss", "triplet")),
    "scratch": (
        "MobileFaceNet from scratch, ArcFace",
        ("--model", "mobilefacenet", "--resolution", "64", "--epochs", "60", "--ema", "0.99"),
    ),
}
COLUMNS = ("balanced_accuracy", "tar", "far", "auc", "eer", "rank1")


def main() -> None:
    """See the module."""
    words = _parser().parse_args()
    words.output.mkdir(parents=True, exist_ok=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        data = lay_out(words.data, Path(folder))
        for key in words.rows:
            for seed in words.seeds:
                rows.append(run(key, seed, data, words))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    (words.output / "faces.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    print(table(rows))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with s1 ... s40")
    parser.add_argument("--weights", type=Path, required=True, help="a classifier whose features are used")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=["fitted", "tuned"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("runs/faces"))
    return parser


def lay_out(faces: Path, root: Path) -> Path:
    """ROOT/{train,val,test}/sN as links to the people's folders."""
    for split, people in SPLITS.items():
        (root / split).mkdir()
        for person in people:
            folder = (faces / f"s{person}").resolve()
            if not folder.is_dir():
                sys.exit(f"{folder}: there is no such folder; --data is the folder with s1 ... s40")
            (root / split / f"s{person:02}").symlink_to(folder, target_is_directory=True)
    return root


def command(key: str, seed: int, data: Path, words: argparse.Namespace) -> list[str]:
    """`mobilenet train` for one row."""
    given = [word.format(weights=words.weights) for word in ROWS[key][1]]
    name = f"{key}-{seed}"
    own = ["--seed", str(seed), "--threads", str(words.threads), "--project", str(words.output), "--name", name]
    return ["mobilenet", "train", str(data), "--task", "embed", *given, *own]


def run(key: str, seed: int, data: Path, words: argparse.Namespace) -> dict[str, Any]:
    """Trains one row in a process of its own; measures the model file by the engine on the people of test."""
    line, start = command(key, seed, data, words), time.perf_counter()
    before = set((words.output / "embed").glob("*"))
    subprocess.run([sys.executable, "-m", "mobilenet", *line[1:]], check=True, stdout=sys.stderr)
    seconds = time.perf_counter() - start
    (made,) = set((words.output / "embed").glob("*")) - before
    model = mobilenet.load(made / "best.safetensors", threads=words.threads)
    found = evaluate_verification(model, data / "test", draw=0)
    figures = {name: value for name, value in found.items() if name in COLUMNS} | found["at_threshold"]
    shown = " ".join(line).replace(str(data), "FACES").replace(str(words.weights), words.weights.name)
    return {"row": key, "seed": seed, "seconds": seconds, "pairs": found["pairs"], "command": shown, **figures} | {
        "name": ROWS[key][0].format(name=words.weights.stem),
        "val": model.metrics["val"]["balanced_accuracy"],
        "macs": cost(model.graph).macs,
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The Markdown table, a line for each run."""
    lines = [
        "| network | seed | MACs | balanced accuracy | TAR | FAR | AUC | EER | rank-1 | seconds |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        figures = " | ".join(f"{row[name]:.4f}" for name in COLUMNS)
        lines.append(
            f"| {row['name']} | {row['seed']} | {row['macs'] / 1e6:.1f}M | {figures} | {row['seconds']:.0f} |"
        )
    shown = dict.fromkeys(row["command"].split(" --seed")[0] for row in rows)
    return "\n".join([*lines, "", *(f"`{line}`" for line in shown)])


if __name__ == "__main__":
    main()

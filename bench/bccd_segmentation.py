"""A segmenter of blood cells from 205 pictures: trained, measured and drawn by the public commands.

    python bench/bccd_segmentation.py BCCD PRETRAINED OUTPUT [--seed 0] [--picture docs/segmentation.png]
        [-- further words of `mobilenet train`]

BCCD is the folder of Pascal VOC annotations, PRETRAINED a classifier (a model file or a .tflite file), OUTPUT a
folder for the masks (every box's inscribed ellipse: `bccd_masks.py`), the run and the drawn pictures. Prints a
Markdown table of the best epoch's network on test, with the minutes by the clock and of processor time; --picture
draws two test pictures with truth and answer.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image

import mobilenet
from bccd_masks import write_masks
from mobilenet.bench.tables import markdown, processor
from mobilenet.pictures.decode import decode
from mobilenet.pictures.mask_file import read_class_map
from mobilenet.report.overlays import draw_overlays

HEADER = ("class", "IoU", "recall", "precision", "boundary F")
KEYS = ("iou", "accuracy", "precision", "boundary_f")
DRAWN = 2  # pictures


def command(*words: str, capture: bool = False) -> str:
    """Runs `mobilenet WORDS`, which may print; with `capture`, returns what it prints instead."""
    print("$ mobilenet", " ".join(words), flush=True)
    stream = subprocess.PIPE if capture else None
    done = subprocess.run([sys.executable, "-m", "mobilenet", *words], check=True, stdout=stream, text=True)
    return done.stdout or ""


def trained(data: Path, pretrained: Path, output: Path, seed: int, more: list[str]) -> tuple[Path, float, float]:
    """The model, and how many minutes it took by the clock and of processor time."""
    start, before = time.monotonic(), processor_seconds()
    words = ["--task", "segment", "--pretrained", str(pretrained), "--project", str(output), "--seed", str(seed)]
    command("train", str(data), *words, "--name", "bccd", *more)
    runs = sorted((output / "segment").glob("bccd*"), key=os.path.getmtime)
    return runs[-1] / "best.safetensors", (time.monotonic() - start) / 60, (processor_seconds() - before) / 60


def processor_seconds() -> float:
    """Of all commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(metrics: dict[str, Any]) -> str:
    """A line for each class, and one of all."""
    rows = [
        [name, *("-" if figures[key] is None else f"{figures[key]:.4f}" for key in KEYS)]
        for name, figures in metrics["per_class"].items()
    ]
    accuracy = f"{metrics['pixel_accuracy']:.4f} of the pixels"
    rows.append(["**mean**", f"**{metrics['miou']:.4f}**", accuracy, "", f"{metrics['boundary_f']:.4f}"])
    return markdown(HEADER, rows)


def draw(model: Path, masks: Path, names: list[str]) -> Image.Image:
    """Truth and answer of some pictures."""
    loaded = mobilenet.load(model)
    rows = []
    for name in names:
        path = masks / "images" / f"{name}.jpg"
        truth = read_class_map(masks / "masks" / f"{name}.png")
        rows.append((decode(path), truth, loaded.predict(path).masks))
    return draw_overlays(rows, loaded.names)


def main() -> None:
    """Reads the command line, runs the commands and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("pretrained", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path)
    words, more = parser.parse_known_args()
    more = [word for word in more if word != "--"]
    masks = words.output / "masks"
    write_masks(words.data, masks)
    model, minutes, own = trained(masks, words.pretrained, words.output, words.seed, more)
    metrics = json.loads(command("evaluate", str(model), str(masks), "--split", "test", "--json", capture=True))
    names = (masks / "test.txt").read_text().split()[:DRAWN]
    if words.picture is not None:
        draw(model, masks, names).save(words.picture, optimize=True)
    print(f"\n{processor()}; {minutes:.1f} minutes, {own:.1f} of processor time; seed {words.seed}\n")
    print(table(metrics))


if __name__ == "__main__":
    main()

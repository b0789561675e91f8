"""From a folder of pictures to answers, on real handwritten digits: what `make demo` runs.

The 1,797 pictures (8 x 8 pixels) come with scikit-learn, so nothing is downloaded. Every step is a command that
you can type yourself; they are printed as they run. Results are left in runs/demo.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

PROJECT = Path(__file__).resolve().parent.parent
FOLDER = Path("runs/demo")  # relative to the project, so that the printed commands can be typed as they are
NEEDED_TOP1 = 0.98


def main() -> None:
    """Writes the pictures, then trains, evaluates, saves and predicts with the command line."""
    shutil.rmtree(PROJECT / FOLDER, ignore_errors=True)
    pictures = write_digits(PROJECT / FOLDER / "digits")
    started = time.perf_counter()
    # A mirrored digit is no digit, and on pictures this small a second thread mostly waits for the first.
    run("train", FOLDER / "digits", "--model", "mobilenet_v3_small", "--width", "0.5", "--resolution", "32",
        "--epochs", "40", "--flip", "0", "--threads", "1", "--project", FOLDER, "--name", "model")  # fmt: skip
    model = FOLDER / "classify" / "model" / "best.safetensors"
    report = FOLDER / "report.html"
    figures = json.loads(run("evaluate", model, FOLDER / "digits", "--report", report, "--json", capture=True))
    run("info", model)
    run("predict", model, *[path.relative_to(PROJECT) for path in pictures[:: len(pictures) // 5]], "--top", "2")
    print(f"\nTop-1 on {figures['images']} digits that training never saw: {figures['top1']:.4f}")
    print(f"Latency: {figures['latency_ms']:.2f} ms a picture, from file to answer")
    print(f"Model file: {model}, {(PROJECT / model).stat().st_size / 1e6:.2f} MB")
    print(f"Report: {report}; curves, confusion matrix and sample predictions: {model.parent}")
    print(f"{time.perf_counter() - started:.0f} s in all")
    if figures["top1"] < NEEDED_TOP1:
        sys.exit(f"top-1 is below {NEEDED_TOP1}")


def write_digits(folder: Path) -> list[Path]:
    """Writes scikit-learn's digits as folder/<digit>/<number>.png and returns the paths."""
    data = load_digits()
    paths = []
    for number, (picture, digit) in enumerate(zip(data.images, data.target, strict=True)):
        path = folder / str(digit) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((picture * 255 / 16).round().astype(np.uint8)).save(path)
        paths.append(path)
    return paths


def run(*words: object, capture: bool = False) -> str:
    """Runs `mobilenet WORDS` in the project's folder; ends the demo if it fails."""
    print("\n$ mobilenet", *words, flush=True)
    command = [sys.executable, "-m", "mobilenet", *map(str, words)]
    done = subprocess.run(
        command, cwd=PROJECT, check=False, text=True, stdout=subprocess.PIPE if capture else None
    )
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout or ""


if __name__ == "__main__":
    main()

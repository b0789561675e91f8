"""Pictures that a segmenter learns in seconds: coloured discs on grey noise, and where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mobilenet.pictures.palette import save_class_map

DISCS = {1: (210, 50, 40), 2: (50, 180, 70)}
CLASSES = ("background", "red", "green")


def write_discs(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """images/ and masks/ with lists of the splits: pictures of several sizes with one disc of each colour."""
    generator = np.random.default_rng(seed)
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    (root / "labels.txt").write_text("\n".join(CLASSES) + "\n")
    for split, count in counts.items():
        names = [f"{split}{number:02}" for number in range(count)]
        (root / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            picture, mask = disc_picture(generator)
            Image.fromarray(picture).save(root / "images" / f"{name}.png")
            save_class_map(mask, root / "masks" / f"{name}.png")
    return root


def disc_picture(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [H, W, 3] and uint8 [H, W]; the outermost row is 255, without a class."""
    height, width = (int(side) for side in generator.integers(56, 90, 2))
    rows, columns = np.mgrid[:height, :width]
    colours = np.full((height, width, 3), 120.0)
    mask = np.zeros((height, width), np.uint8)
    for number, colour in DISCS.items():
        radius = generator.uniform(9, 16)
        y, x = generator.uniform(radius, height - radius), generator.uniform(radius, width - radius)
        inside = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
        colours[inside], mask[inside] = colour, number
    mask[0] = 255
    return np.clip(colours + generator.normal(0, 20, colours.shape), 0, 255).astype(np.uint8), mask


def quick(data: Path, project: Path, **more: Any) -> dict[str, Any]:
    """Options of a small, fast run."""
    return {
        "data": str(data), "task": "segment", "model": "mobilenet_v2", "width": 0.25, "resolution": 64,
        "epochs": 2, "batch": 8, "warmup_epochs": 0.5, "amp": "none", "device": "cpu", "threads": 1, "workers": 1,
        "project": str(project), **more,
    }  # fmt: skip

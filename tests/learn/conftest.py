"""Tiny pictures and options that make a training run take a second or two."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 70), "red": (210, 50, 40)}


def write_pictures(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """ROOT/SPLIT/CLASS/*.png: noisy pictures whose class is their colour, of several sizes."""
    generator = np.random.default_rng(seed)
    for split, count in counts.items():
        for name, colour in COLOURS.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                shape = (int(generator.integers(30, 60)), int(generator.integers(30, 60)), 3)
                noise = generator.normal(0, 60, shape) + np.array(colour)
                picture = Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8))
                picture.save(folder / f"{number:03}.png")
    return root


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tiny tensors are slower on several threads, much slower if the machine has other work."""
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training, 9 validation and 6 test pictures of three classes."""
    return write_pictures(tmp_path_factory.mktemp("pictures"), {"train": 8, "val": 3, "test": 2})


@pytest.fixture
def words(pictures: Path, tmp_path: Path) -> dict[str, Any]:
    """Options of a small, fast run that uses everything random that there is."""
    return {
        "data": str(pictures),
        "model": "mobilenet_v2",
        "width": 0.1,
        "resolution": 32,
        "epochs": 3,
        "batch": 8,
        "warmup_epochs": 1.0,
        "dropout": 0.2,
        "drop_path": 0.2,
        "randaugment": 3,
        "mixup": 0.2,
        "cutmix": 0.5,
        "amp": "none",
        "device": "cpu",
        "threads": 1,
        "workers": 1,
        "project": str(tmp_path / "runs"),
    }

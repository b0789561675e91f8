"""Folders of made-up identities: a pattern each, with noise, in grey PGM files of two sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_identities(root: Path, identities: int, pictures: int = 4, *, first: int = 0, prefix: str = "p") -> Path:
    """ROOT/<prefix>00/0.pgm and so on; identity number N looks the same whatever folder it is written to."""
    for number in range(first, first + identities):
        generator = np.random.default_rng(number)
        pattern = Image.fromarray(generator.integers(30, 226, (4, 4)).astype(np.uint8))
        folder = root / f"{prefix}{number:02}"
        folder.mkdir(parents=True)
        for picture in range(pictures):
            side = 36 + 8 * (picture % 2)
            values = np.asarray(pattern.resize((side, side), Image.Resampling.BICUBIC), np.float64)
            noisy = values + generator.normal(0, 25, values.shape)
            Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(folder / f"{picture}.pgm")
    return root


def write_splits(root: Path, train: int = 8, val: int = 4, test: int = 4, pictures: int = 4) -> Path:
    """ROOT/{train,val,test}/<identity>; nobody is in two of them."""
    first = 0
    for split, count in (("train", train), ("val", val), ("test", test)):
        write_identities(root / split, count, pictures, first=first)
        first += count
    return root

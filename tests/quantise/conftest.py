"""Pictures that the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from harmed import CLASSES
from PIL import Image


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """180 pictures: classes/<x, y, z>/*.png; the same in a flat folder."""
    root = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    (root / "flat").mkdir()
    for name in CLASSES:
        (root / "classes" / name).mkdir(parents=True)
        for number in range(60):
            coarse = generator.integers(0, 256, (2, 2, 3), dtype=np.uint8)
            picture = Image.fromarray(coarse).resize((20, 18))
            picture.save(root / "classes" / name / f"{number}.png")
            picture.save(root / "flat" / f"{name}{number}.png")
    return root

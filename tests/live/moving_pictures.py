"""What is in the films that the tests make."""

from __future__ import annotations

import numpy as np


def pictures(count: int, size: tuple[int, int]) -> list[np.ndarray]:
    """A rectangle that moves over grey: uint8 (height, width, 3)."""
    width, height = size
    found = []
    for number in range(count):
        pixels = np.full((height, width, 3), 90, np.uint8)
        left = number * 2 % max(1, width - width // 4)
        pixels[height // 4 : height // 2, left : left + width // 4] = 220, 40 + number % 100, 30
        found.append(pixels)
    return found

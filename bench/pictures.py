"""Pictures a second and core, from JPEG bytes to a network's input: Pillow and numpy as peers use them, and ours.

    python bench/pictures.py [--folder PICTURES] [--count 24] [--rounds 12] [--size 224] [--json]

The pictures are photographs from `--folder` (default: ../shared/data, else gradients and noise), 500 × 375 pixels,
JPEG quality 90. All rows do the same job on the same picture in turn, A B A B, on one core; a cell is the minimum
and the median over all pictures of the fastest round. The last column is the whole of Pillow's time over ours.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, features

from mobilenet.pictures import native_pass
from mobilenet.pictures.decode import decode_image
from mobilenet.pictures.preprocess import PRESETS, Preprocessing

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
WIDTH, HEIGHT = 500, 375
PHOTOGRAPHS = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


def pictures(folder: Path, count: int) -> tuple[list[bytes], str]:
    """JPEG files of 500 × 375, and what they are made of."""
    paths = sorted(path for kind in ("*.jpg", "*.jpeg", "*.png", "*.bmp") for path in folder.rglob(kind))
    paths = paths[:: max(1, len(paths) // count)][:count]
    if paths:
        images = [decode_image(path).resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS) for path in paths]
        return [as_jpeg(image) for image in images], f"{len(images)} photographs of {folder}"
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    gradient = np.stack([rows * 255 / HEIGHT, columns * 255 / WIDTH, (rows + columns) % 256], axis=2)
    noisy = [np.clip(gradient + random.normal(0, 12, gradient.shape), 0, 255) for _ in range(count)]
    return [as_jpeg(Image.fromarray(pixels.astype(np.uint8))) for pixels in noisy], f"{count} noisy gradients"


def as_jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def pillow(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def pillow_cropped(data: bytes, size: int) -> Image.Image:
    image = pillow(data)
    larger = round(size / 0.875)
    scale = larger / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def pillow_and_numpy(data: bytes, size: int) -> np.ndarray:
    """What the examples of onnxruntime and of torchvision's models do: resize, crop, normalise, channels first."""
    values = np.asarray(pillow_cropped(data, size), dtype=np.float32) / 255
    return np.ascontiguousarray(((values - MEAN) / STD).transpose(2, 0, 1))[np.newaxis]


def jobs(rule: Preprocessing) -> dict[str, Callable[[bytes], object]]:
    size = rule.height
    reduced = Preprocessing(**{**rule.to_dict(), "reduced_decoding": True})
    return {
        "Pillow: decode": pillow,
        "Pillow: decode, resize, crop": lambda data: pillow_cropped(data, size),
        "Pillow + numpy: to float": lambda data: pillow_and_numpy(data, size),
        "mobilenet: decode": decode_image,
        "mobilenet: to pixels": rule.pixels,
        "mobilenet: to int8": lambda data: rule.quanta(data, 0.0186, -14, "int8"),
        "mobilenet: to float": rule,
        "mobilenet: to float, reduced decoding": reduced,
    }


def measure(files: list[bytes], rule: Preprocessing, rounds: int) -> list[dict[str, object]]:
    rows = jobs(rule)
    times = {name: np.full(len(files), np.inf) for name in rows}
    for _ in range(rounds):
        for place, data in enumerate(files):
            for name, job in rows.items():
                start = time.perf_counter()
                job(data)
                times[name][place] = min(times[name][place], time.perf_counter() - start)
    whole = float(np.median(times["Pillow + numpy: to float"]))
    return [
        {
            "job": name,
            "min_ms": 1e3 * float(spent.min()),
            "median_ms": 1e3 * float(np.median(spent)),
            "pictures_a_second": 1 / float(spent.mean()),
            "ratio": whole / float(np.median(spent)),
        }
        for name, spent in times.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=PHOTOGRAPHS)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    files, what = pictures(options.folder, options.count)
    result = measure(files, PRESETS["imagenet"](options.size, options.size), options.rounds)
    if options.json:
        print(json.dumps(result))
        return
    built = "native pass" if native_pass.engine() else "no native pass: the engine is not built"
    print(f"{what}, {WIDTH} × {HEIGHT}, {sum(map(len, files)) / len(files) / 1024:.0f} KB on average, one core")
    print(f"Pillow {PIL.__version__}, libjpeg-turbo {features.version('libjpeg_turbo')}, {built}\n")
    print(f"| {'job':<38} | min ms | median ms | pictures/s | ratio |\n| {'-' * 38} | ---: | ---: | ---: | ---: |")
    for row in result:
        spent = f"{row['min_ms']:6.3f} | {row['median_ms']:9.3f} | {row['pictures_a_second']:10.0f}"
        print(f"| {row['job']:<38} | {spent} | {row['ratio']:5.2f} |")


if __name__ == "__main__":
    main()

"""From JPEG files to labels: pictures a second on one processor, beside Pillow and onnxruntime.

    python bench/file_to_label.py [--pictures FOLDER --count 64 --rounds 8 --write docs/results.md]

The pictures are those of a folder, or of scikit-learn's two photographs, brought to 500 x 375 pixels. Ours is
`model.predict`; the peer's is what its users write: Pillow decodes, crops and resizes, numpy normalises, and
onnxruntime runs the int8 network. Both take turns.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

import mobilenet
from mobilenet.bench.network import Network, reduced
from mobilenet.bench.tables import markdown, processor, update_section
from mobilenet.bench.timing import in_turns, pinned
from mobilenet.quantise.random import random_quantised_model

SIZE = (500, 375)
QUALITY = 90


def main() -> None:
    words = arguments()
    with tempfile.TemporaryDirectory() as folder, pinned(1):
        files = write_pictures(words, Path(folder))
        calls = {"mobilenet": ours(words, Path(folder), files), "Pillow + onnxruntime": peer(words, files)}
        times = in_turns(calls, rounds=words.rounds, calls_per_round=1)
    best = {name: len(files) / spent.minimum * 1e3 for name, spent in times.items()}
    usual = {name: len(files) / spent.median * 1e3 for name, spent in times.items()}
    text = report(words, best, usual, len(files))
    print(text)
    if words.write:
        update_section(words.write, "file_to_label", text)


def arguments() -> argparse.Namespace:
    """The words of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="mobilenet_v2")
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--pictures", type=Path, help="a folder of photographs, searched with its subfolders")
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--write", type=Path, help="a Markdown file whose section is to be replaced")
    return parser.parse_args()


def photographs(folder: Path | None, count: int) -> list[Image.Image]:
    """Real pictures, since noise and flat colour decode at other speeds."""
    if folder is None:
        from sklearn.datasets import load_sample_images

        images = [Image.fromarray(pixels) for pixels in load_sample_images().images]
        shifts = range((count + len(images) - 1) // len(images))
        boxes = [(2 * s % 100, s % 40, 2 * s % 100 + 520, s % 40 + 380) for s in shifts]
        return [image.crop(box) for box in boxes for image in images][:count]
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not found:
        raise SystemExit(f"{folder} holds no pictures")
    return [Image.open(found[i * len(found) // count]).convert("RGB") for i in range(min(count, len(found)))]


def write_pictures(words: argparse.Namespace, folder: Path) -> list[str]:
    """The JPEG files that are to be read."""
    files = []
    for number, image in enumerate(photographs(words.pictures, words.count)):
        files.append(str(folder / f"{number:04d}.jpg"))
        image.resize(SIZE, Image.Resampling.BICUBIC).save(files[-1], quality=QUALITY)
    return files


def ours(words: argparse.Namespace, folder: Path, files: list[str]) -> Callable[[], list[str]]:
    """Labels by `model.predict`."""
    model = random_quantised_model(words.name, resolution=words.resolution)[1]
    model.save(folder / "model.safetensors")
    loaded = mobilenet.load(folder / "model.safetensors")
    return lambda: [str(result.label) for result in loaded.predict(files)]


def peer(words: argparse.Namespace, files: list[str]) -> Callable[[], list[int]]:
    """Classes by Pillow, numpy and onnxruntime."""
    model = random_quantised_model(words.name, resolution=words.resolution)[0]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    data = Network(words.name, reduced(model)).onnx_int8
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    rule = model.preprocessing
    assert rule is not None
    scale, shift = 1 / np.float32(rule.std), -np.float32(rule.mean) / np.float32(rule.std)

    def label(file: str) -> int:
        image = Image.open(file).convert("RGB")
        side = min(image.size) * rule.crop_fraction
        left, top = (image.width - side) / 2, (image.height - side) / 2
        window = (left, top, left + side, top + side)
        image = image.resize((rule.width, rule.height), Image.Resampling.BILINEAR, box=window)
        x = np.asarray(image, np.float32) * scale + shift
        return int(session.run(None, {name: np.ascontiguousarray(x.transpose(2, 0, 1))[None]})[0].argmax())

    return lambda: [label(file) for file in files]


def report(words: argparse.Namespace, best: dict[str, float], usual: dict[str, float], count: int) -> str:
    """The section of docs/results.md."""
    ratio = best["mobilenet"] / best["Pillow + onnxruntime"]
    lines = [[name, f"{best[name]:.1f}", f"{usual[name]:.1f}"] for name in best]
    return (
        f"## From file to label\n\n"
        f"`python bench/file_to_label.py` on {time.strftime('%Y-%m-%d')}, {processor()}: {count} JPEGs of "
        f"{SIZE[0]} × {SIZE[1]}, {words.name} int8 at {words.resolution}, one processor; "
        f"Pillow {version('pillow')}, onnxruntime {version('onnxruntime')}. "
        f"Ours reads {ratio:.2f} times as many pictures a second.\n\n"
        + markdown(("", "pictures/s, best", "pictures/s, median"), lines)
    )


if __name__ == "__main__":
    main()

"""From the start of a process to its first answer: time and memory, beside other runtimes and beside the least.

    python bench/startup.py [--name mobilenet_v2 --precision int8 --picture FILE --rounds 15 --write FILE]

Each candidate is a Python program of its own that opens one picture, prepares it and prints the best class; "numpy
and Pillow" only imports the two and decodes. They take turns on one processor; memory is the largest that the
process had (VmHWM), which it tells itself. Modules come from bytecode, as those of an installed package do.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from mobilenet.bench.network import Network, find_network
from mobilenet.bench.tables import markdown, processor, update_section
from mobilenet.bench.timing import pinned
from mobilenet.files.model_file import write_model_file
from mobilenet.quantise.random import random_model, random_quantised_model

BASE = "numpy and Pillow"
TELL_MEMORY = """
for line in open("/proc/self/status"):
    if line.startswith("VmHWM"):
        print("memory", line.split()[1])
"""
DECODE = """
import numpy as np
from PIL import Image
image = Image.open({picture!r}).convert("RGB")
"""
# What each peer's user writes: the middle of the picture, at the network's size, in the range -1 to 1.
PREPARE = """
side = min(image.size) * 0.875
left, top = (image.width - side) / 2, (image.height - side) / 2
image = image.resize(({size}, {size}), Image.BILINEAR, box=(left, top, left + side, top + side))
x = (np.asarray(image, np.float32) / 127.5 - 1)[None]
"""
PROGRAMS = {
    BASE: (None, DECODE + "np.asarray(image)"),
    "mobilenet": (
        "mobilenet",
        "import mobilenet\nprint(mobilenet.load({model!r}).predict({picture!r}).label)",
    ),
    "onnxruntime": (
        "onnxruntime",
        DECODE + PREPARE + "import onnxruntime\n"
        "options = onnxruntime.SessionOptions()\noptions.intra_op_num_threads = 1\n"
        "session = onnxruntime.InferenceSession({onnx!r}, options, providers=['CPUExecutionProvider'])\n"
        "x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))\n"
        "print(session.run(None, {{session.get_inputs()[0].name: x}})[0].argmax())",
    ),
    "litert": (
        "ai_edge_litert",
        DECODE + PREPARE + "from ai_edge_litert.interpreter import Interpreter\n"
        "runtime = Interpreter({tflite!r}, num_threads=1)\nruntime.allocate_tensors()\n"
        "runtime.set_tensor(runtime.get_input_details()[0]['index'], x)\nruntime.invoke()\n"
        "print(runtime.get_tensor(runtime.get_output_details()[0]['index']).argmax())",
    ),
}
PACKAGES = {"mobilenet": "mobilenet", "onnxruntime": "onnxruntime", "litert": "ai-edge-litert"}


@dataclass
class Spent:
    """Of one program: milliseconds and megabytes of every run."""

    milliseconds: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)


def main() -> None:
    words = arguments()
    with tempfile.TemporaryDirectory() as folder:
        programs = write_files(words, Path(folder))
        with pinned(1):
            spent = measure(programs, words.rounds)
    text = report(words, spent)
    print(text)
    if words.write:
        update_section(words.write, "startup", text)


def arguments() -> argparse.Namespace:
    """The words of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="mobilenet_v2")
    parser.add_argument("--precision", default="int8", choices=["fp32", "int8"])
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--picture", type=Path, help="a JPEG; default: one of 500 x 375 pixels made here")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--write", type=Path, help="a Markdown file whose section is to be replaced")
    return parser.parse_args()


def write_files(words: argparse.Namespace, folder: Path) -> dict[str, str]:
    """The files that the programs read; returns the programs that can run here."""
    int8 = words.precision == "int8"
    options = {"resolution": words.resolution}
    model = random_quantised_model(words.name, **options)[1] if int8 else random_model(words.name, **options)
    write_model_file(model, folder / "model.safetensors")
    picture = words.picture.resolve() if words.picture else made_picture(folder / "picture.jpg")
    network = find_network(words.name, resolution=words.resolution)
    places = {"model": str(folder / "model.safetensors"), "picture": str(picture), "size": words.resolution}
    for kind in ("onnx", "tflite"):
        (folder / f"model.{kind}").write_bytes(form(network, kind, int8))
        places[kind] = str(folder / f"model.{kind}")
    return {
        name: text.format(**places) + TELL_MEMORY
        for name, (module, text) in PROGRAMS.items()
        if module is None or find_spec(module)
    }


def form(network: Network, kind: str, int8: bool) -> bytes:
    """The network in a peer's file."""
    data: bytes = getattr(network, f"{kind}_int8" if int8 else kind)
    return data


def made_picture(path: Path) -> Path:
    """A JPEG of 500 x 375 pixels with shapes and some noise, about as large as a photograph's."""
    rows, columns = np.mgrid[:375, :500]
    waves = [np.sin(rows / (9 + 7 * c)) * np.cos(columns / (13 - 3 * c)) for c in range(3)]
    noise = np.random.default_rng(0).normal(0, 8, (375, 500, 3))
    pixels = np.clip(127 + 90 * np.stack(waves, -1) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path, quality=90)
    return path


def measure(programs: dict[str, str], rounds: int) -> dict[str, Spent]:
    """Runs every program in turn; the first round warms the files and compiles the modules, and is not counted."""
    spent = {name: Spent() for name in programs}
    with tempfile.TemporaryDirectory() as bytecode:
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": bytecode}
        for turn in range(rounds + 1):
            for name, program in programs.items():
                milliseconds, megabytes = run(name, program, environment)
                if turn:
                    spent[name].milliseconds.append(milliseconds)
                    spent[name].megabytes.append(megabytes)
    return spent


def run(name: str, program: str, environment: dict[str, str]) -> tuple[float, float]:
    """One run's milliseconds and megabytes."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment
    )
    elapsed = 1e3 * (time.perf_counter() - start)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    return elapsed, int(done.stdout.split("memory")[-1].split()[0]) / 1e3


def report(words: argparse.Namespace, spent: dict[str, Spent]) -> str:
    """The section of docs/results.md."""
    base = spent[BASE]
    lines = []
    for name, own in spent.items():
        package = PACKAGES.get(name)
        lines.append(
            [
                f"{name} {version(package)}" if package else name,
                f"{min(own.milliseconds):.1f}",
                f"{median(own.milliseconds):.1f}",
                f"{min(own.milliseconds) / min(base.milliseconds):.2f}",
                f"{median(own.megabytes):.1f}",
                f"{median(own.megabytes) - median(base.megabytes):+.1f}",
            ]
        )
    header = ("program", "min ms", "median ms", f"to {BASE}", "peak MB", "MB above")
    return (
        f"## From the start of a process to its first answer\n\n"
        f"`python bench/startup.py --precision {words.precision}` on {time.strftime('%Y-%m-%d')}, {processor()}: "
        f"{words.name} at {words.resolution}, from the start of a process to its first answer, one processor, "
        f"{words.rounds} rounds.\n\n{markdown(header, lines)}"
    )


if __name__ == "__main__":
    main()

"""The engine in WebAssembly beside onnxruntime-web, in node, one thread, in turns: a table and JSON.

    python bench/web.py [--names mobilenet_v2,mobilenet_v3_large --precisions fp32,int8 --rounds 8 --calls 8]
        [--relaxed] [--json] [--write FILE]

Needs node, npm and make with emscripten (see native/web/Makefile), or --engine, a folder where the module has been
built, and --ort, one where `npm install onnxruntime-web` has been run. int8 is our own quantisation and
onnxruntime's (QDQ, by channel), each with float32 input and output. --relaxed times mobilenet-relaxed.wasm, too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from mobilenet.bench.network import find_network
from mobilenet.bench.tables import markdown, processor, update_section
from mobilenet.bench.timing import pinned

ROOT = Path(__file__).resolve().parent.parent
RELAXED_FLAG = "--experimental-wasm-relaxed-simd"  # of node 20; later ones need none and may not know it
HEADER = ("network", "precision", "runtime", "least ms", "median ms", "ratio", "difference")


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        engine = arguments.engine or build(folder / "engine", relaxed=arguments.relaxed)
        ort = installed(arguments.ort or install(folder / "ort"))
        plan = {
            "engine": str(engine.resolve()),
            "ort": ort.as_uri(),
            "relaxed": arguments.relaxed,
            "rounds": arguments.rounds,
            "calls": arguments.calls,
            "cases": [
                case(folder, network, precision, arguments.resolution)
                for network in arguments.names.split(",")
                for precision in arguments.precisions.split(",")
            ],
        }
        rows = run(folder, plan)
    module = (engine / "mobilenet.wasm").stat().st_size if arguments.engine else None
    table = markdown(HEADER, [cells(row) for row in rows])
    size = f", module of {module / 1024:.0f} KiB" if module else ""
    text = f"WebAssembly in node, one thread, {processor()}{size}.\n\n{table}"
    if arguments.write:
        update_section(arguments.write, "web", text)
    sys.stdout.write(json.dumps(rows, indent=1) + "\n" if arguments.json else text)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--names", default="mobilenet_v2,mobilenet_v3_large")
    parser.add_argument("--precisions", default="fp32,int8")
    parser.add_argument("--resolution", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--calls", type=int, default=8, help="of each runtime in a round")
    parser.add_argument(
        "--relaxed", action="store_true", help="time the build with relaxed vector instructions, too"
    )
    parser.add_argument("--engine", type=Path, help="folder of mobilenet.mjs and mobilenet.wasm")
    parser.add_argument("--ort", type=Path, help="folder with node_modules/onnxruntime-web")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--write", type=Path, help="document whose section 'web' is replaced")
    return parser.parse_args()


def build(folder: Path, *, relaxed: bool) -> Path:
    goals = ["all", "relaxed"] if relaxed else ["all"]
    call(["make", "-s", "-C", str(ROOT / "native" / "web"), f"OUT={folder}", *goals])
    return folder


def install(folder: Path) -> Path:
    folder.mkdir()
    call(["npm", "install", "--silent", "--prefix", str(folder), "onnxruntime-web"])
    return folder


def installed(folder: Path) -> Path:
    path = folder.resolve() / "node_modules" / "onnxruntime-web" / "dist" / "ort.wasm.min.mjs"
    if not path.is_file():
        raise SystemExit(f"{path} is not there: run 'npm install onnxruntime-web' in {folder}")
    return path


def case(folder: Path, name: str, precision: str, resolution: int | None) -> dict[str, Any]:
    """The files of one network in one precision."""
    network = find_network(name, resolution=resolution)
    files = {
        "model": network.model_file(precision),
        "onnx": network.onnx_int8 if precision == "int8" else network.onnx,
        "input": network.batch.tobytes(),
    }
    paths = {}
    for kind, content in files.items():
        paths[kind] = str(folder / f"{name}-{precision}.{kind}")
        Path(paths[kind]).write_bytes(content)
    return {"name": name, "precision": precision, "shape": network.batch.shape[1:], **paths}


def run(folder: Path, plan: dict[str, Any]) -> list[dict[str, Any]]:
    path = folder / "plan.json"
    path.write_text(json.dumps(plan), encoding="utf-8")
    flags = [RELAXED_FLAG] if plan["relaxed"] else []
    with pinned(1):
        rows: list[dict[str, Any]] = json.loads(call(["node", *flags, str(ROOT / "bench" / "web.mjs"), str(path)]))
    return rows


def call(words: list[str]) -> str:
    if shutil.which(words[0]) is None:
        raise SystemExit(f"{words[0]} is not installed")
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def cells(row: dict[str, Any]) -> list[str]:
    return [
        row["network"],
        row["precision"],
        " ".join(filter(None, (row["runtime"], row["version"]))),
        f"{row['min_ms']:.2f}",
        f"{row['median_ms']:.2f}",
        f"{row['ratio_to_mobilenet']:.2f}",
        f"{row['difference']:.1e}",
    ]


if __name__ == "__main__":
    main()

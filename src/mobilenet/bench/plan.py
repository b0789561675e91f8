"""What the engine would do with a network: its plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mobilenet
from mobilenet.bench.ceiling import operations_per_second
from mobilenet.bench.network import PRECISIONS, find_network
from mobilenet.bench.ours import open_engine, plan, run_precision
from mobilenet.errors import ArgumentError
from mobilenet.files.contents import ModelContents
from mobilenet.files.model_file import encode
from mobilenet.run.engine import Engine

ROUNDS = 20  # of timing each step


def find_plan(
    name: str, *, precision: str | None = None, threads: int | None = None, resolution: int | None = None
) -> dict[str, Any]:
    """The engine's plan for a model file, as it is, or for a family member with random weights.

    Each step has its "ms" on one thread, and the plan "peak_operations_per_second" of one processor.

    Args:
        name: as for `network.find_network`.
        precision: "fp32", "bf16" or "int8"; default: int8 for a quantised file, otherwise fp32. A float network
            is quantised on random pictures for int8.
        threads: default: the engine's own.
        resolution: side of the picture; default: the model's own.

    Raises:
        ArgumentError: an unknown name or precision.
        ModelFileError: the file cannot be read.
    """
    precision = usual_precision(name) if precision is None else precision
    if precision not in PRECISIONS:
        raise ArgumentError(f"unknown precision '{precision}'; accepted are {', '.join(PRECISIONS)}")
    if not Path(name).is_file() or (precision == "int8") != (usual_precision(name) == "int8"):
        return _timed(open_engine(find_network(name, resolution=resolution), precision, threads), precision, None)
    engine = Engine(encode(mobilenet.load(name)), precision=run_precision(precision), threads=threads)
    return _timed(engine, precision, resolution)


def _timed(engine: Engine, precision: str, resolution: int | None) -> dict[str, Any]:
    found = plan(engine, resolution, rounds=ROUNDS)
    return {**found, "peak_operations_per_second": operations_per_second(precision, 1)}


def usual_precision(name: str) -> str:
    """int8 for a quantised file; fp32 for a float one and for a name."""
    return "int8" if Path(name).is_file() and is_quantised(mobilenet.load(name)) else "fp32"


def is_quantised(contents: ModelContents) -> bool:
    """Whether any value of the network is an integer of a scale."""
    return any(kind.integer for kind in contents.graph.types.values())

"""Our engine as one of the runtimes that are timed."""

from __future__ import annotations

from typing import Any

import numpy as np

from mobilenet.bench.network import Network
from mobilenet.bench.runtimes import Prepared, Setting
from mobilenet.run.engine import Engine


def prepare(network: Network, setting: Setting) -> Prepared:
    """The engine with the model's file; an int8 network takes and gives float32, as its peers do."""
    engine = open_engine(network, setting.precision, setting.threads)
    output = next(iter(network.contents.graph.outputs))

    def run() -> np.ndarray:
        result: np.ndarray = engine.run(network.batch)[output]
        return result

    return Prepared(run, plan(engine))


def open_engine(network: Network, precision: str, threads: int | None) -> Engine:
    """An engine for this network; threads None means as many as it takes by itself."""
    return Engine(network.model_file(precision), precision=run_precision(precision), threads=threads)


def run_precision(precision: str) -> str:
    """What the engine is told: of float layers, since integers are exact in any."""
    return "fp32" if precision == "int8" else precision


def plan(engine: Engine, resolution: int | None = None, *, rounds: int = 0) -> dict[str, Any]:
    """What the engine will do, step by step; see docs/engine.md and `Engine.plan`."""
    side = resolution or 0
    return engine.plan(side, side, rounds=rounds)

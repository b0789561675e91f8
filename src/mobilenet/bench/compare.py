"""Times a network in our engine and in its peers, in one run."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mobilenet.bench.ceiling import operations_per_second
from mobilenet.bench.network import PRECISIONS, Network
from mobilenet.bench.runtimes import RUNTIMES, Prepared, Runtime, Setting, Unavailable
from mobilenet.bench.timing import Times, in_turns, pinned
from mobilenet.errors import ArgumentError, MobilenetError
from mobilenet.run import reference

OURS = RUNTIMES["mobilenet"]
# How far an answer may lie from the float reference, as a share of its length, to be this network's at all.
LARGEST_ERROR = {"fp32": 0.01, "bf16": 0.5, "int8": 0.9}


@dataclass(frozen=True)
class Row:
    """What was measured of one runtime, or why nothing was.

    Attributes:
        runtime, version: empty version if it is not installed.
        precision: "fp32", "bf16" or "int8".
        threads: how many it was given.
        min_ms, median_ms: of one batch.
        ratio_to_mobilenet: its minimum over ours: above 1, ours is faster.
        ceiling_share: the network's arithmetic over what the processor could have done in that time.
        peak_activation_bytes: that a run needs beside the weights, where the runtime tells.
        error: distance of its answer from the float reference's, over the reference's length.
        reason: why it was not timed; empty if it was.
    """

    runtime: str
    version: str
    precision: str
    threads: int
    min_ms: float | None = None
    median_ms: float | None = None
    ratio_to_mobilenet: float | None = None
    ceiling_share: float | None = None
    peak_activation_bytes: int | None = None
    error: float | None = None
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def compare(
    network: Network,
    precision: str,
    *,
    threads: int = 1,
    peers: Iterable[Runtime] = (),
    peer_precisions: Sequence[str] = (),
    rounds: int = 8,
) -> list[Row]:
    """A row for our engine, then one for each peer.

    Args:
        network: what runs.
        precision: of our engine and the peers.
        threads: for each runtime, on as many processors.
        peers: see `runtimes.find_runtimes`.
        peer_precisions: precisions in which peers are timed instead, each in a row of its own: an int8 network's
            fastest peer can be a float one.
        rounds: how many turns each runtime gets, of 8 calls each.

    Raises:
        ArgumentError: an unknown precision, or more threads than processors.
        MobilenetError: our engine cannot run the network. A peer that cannot has a row that says why.
    """
    for name in (precision, *peer_precisions):
        if name not in PRECISIONS:
            raise ArgumentError(f"unknown precision '{name}'; accepted are {', '.join(PRECISIONS)}")
    wanted = [(OURS, precision), *((peer, each) for peer in peers for each in peer_precisions or (precision,))]
    expected = next(iter(reference.run(*network.float_graph, network.batch).values()))
    prepared: dict[str, Prepared] = {}
    rows: dict[str, Row] = {}
    with tempfile.TemporaryDirectory() as folder, pinned(threads), _prints_aside():
        for runtime, each in wanted:
            key = f"{runtime.name}-{each}"
            setting = Setting(each, threads, Path(folder, key))
            setting.folder.mkdir()
            rows[key] = _prepare(runtime, network, setting, expected, key, prepared)
        times = in_turns({key: ready.run for key, ready in prepared.items()}, rounds=rounds)
    ours = times[f"{OURS.name}-{precision}"]
    return [
        _timed(row, network, times[key], ours, prepared[key]) if key in times else row for key, row in rows.items()
    ]


@contextmanager
def _prints_aside() -> Iterator[None]:
    """What native code prints goes to standard error: standard output is the caller's, who may want JSON there."""
    sys.stdout.flush()
    own = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(own, 1)
        os.close(own)


def _prepare(
    runtime: Runtime,
    network: Network,
    setting: Setting,
    expected: np.ndarray,
    key: str,
    prepared: dict[str, Prepared],
) -> Row:
    """The runtime's row before it is timed; if it can be, what to time is left in `prepared`."""
    row = Row(runtime.name, runtime.version, setting.precision, setting.threads)
    if not runtime.installed:
        return replace(row, reason=f"not installed: pip install 'mobilenet[{runtime.extra}]'")
    if setting.precision not in runtime.precisions:
        return replace(row, reason=f"has no {setting.precision} here")
    try:
        ready = runtime.prepare(network, setting)
        error = _error(runtime, ready.run(), expected)
    except Unavailable as reason:
        return replace(row, reason=str(reason))
    except Exception as reason:  # whatever a peer raises is a line of the table
        if runtime is OURS:
            raise
        return replace(row, reason=_in_short(reason))
    if not error <= LARGEST_ERROR[setting.precision]:
        if runtime is OURS:
            raise MobilenetError(f"the engine's {setting.precision} answer is {error:.3g} off the reference's")
        return replace(row, error=_finite(error), reason=f"gives another answer ({error:.3g} off)")
    prepared[key] = ready
    return replace(row, error=error)


def _error(runtime: Runtime, found: np.ndarray, expected: np.ndarray) -> float:
    found, expected = np.asarray(found, np.float64), expected.astype(np.float64)
    if found.ndim == 4 and runtime.order == "nchw":
        found = found.transpose(0, 2, 3, 1)
    length = float(np.linalg.norm(expected)) or 1.0
    return float(np.linalg.norm(found.reshape(expected.shape) - expected)) / length


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _in_short(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else ""
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__


def _timed(row: Row, network: Network, times: Times, ours: Times, ready: Prepared) -> Row:
    macs = network.batch_size * network.macs
    ceiling = operations_per_second(row.precision, row.threads)
    return replace(
        row,
        min_ms=times.minimum,
        median_ms=times.median,
        ratio_to_mobilenet=times.minimum / ours.minimum,
        ceiling_share=None if ceiling is None else 2 * macs / (times.minimum / 1e3) / ceiling,
        peak_activation_bytes=None if ready.plan is None else activation_bytes(ready.plan),
    )


def activation_bytes(plan: Mapping[str, Any]) -> int:
    """The most that is alive at once beside the weights: picture, activations, what a thread keeps for itself."""
    return int(plan.get("peak_activation_bytes", 0))


def best_peer(rows: Iterable[Row]) -> Row | None:
    """The fastest row of a peer, if any peer was timed."""
    timed = [row for row in rows if row.runtime != OURS.name and row.min_ms is not None]
    return min(timed, key=lambda row: row.min_ms or 0.0, default=None)

"""Times several things in turns, A B A B, on as many processors as they may use."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

from mobilenet.errors import ArgumentError

WARM_CALLS = 5
PAUSE_SECONDS = 0.002  # lets the threads of the one before go to sleep


@dataclass(frozen=True)
class Times:
    """Of one runtime: milliseconds of every counted call."""

    milliseconds: tuple[float, ...]

    @property
    def minimum(self) -> float:
        """What the machine can do when nothing disturbs it."""
        return min(self.milliseconds)

    @property
    def median(self) -> float:
        """What is usual."""
        return median(self.milliseconds)


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Binds this thread, and those that it starts within, to the first `threads` processors that it may use.

    Where the system has no such call nothing is bound.

    Raises:
        ArgumentError: there are not as many processors, or `threads` is below 1.
    """
    if threads < 1:
        raise ArgumentError(f"threads is {threads}: at least 1 is needed")
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    if threads > len(allowed):
        raise ArgumentError(f"threads is {threads}, but this process may use only {len(allowed)} processors")
    os.sched_setaffinity(0, sorted(allowed)[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def in_turns(
    calls: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 8,
    calls_per_round: int = 8,
) -> dict[str, Times]:
    """How long each call takes, measured so that whatever disturbs the machine disturbs all alike.

    Each round gives every call its turn: one that is not counted, which brings its data back into the caches, then
    those that are. The order is reversed in every other round.

    Args:
        calls: name -> what is timed.
        rounds: how many turns each gets.
        calls_per_round: counted calls of one turn.

    Raises:
        ArgumentError: rounds or calls_per_round is below 1.
    """
    if min(rounds, calls_per_round) < 1:
        raise ArgumentError(f"{rounds} rounds of {calls_per_round} calls: at least 1 of each is needed")
    for call in calls.values():
        for _ in range(WARM_CALLS):
            call()
    spent: dict[str, list[float]] = {name: [] for name in calls}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(rounds):
            for name in list(calls)[:: 1 if turn % 2 == 0 else -1]:
                time.sleep(PAUSE_SECONDS)
                spent[name] += _timed(calls[name], calls_per_round)
    finally:
        if collecting:
            gc.enable()
    return {name: Times(tuple(values)) for name, values in spent.items()}


def _timed(call: Callable[[], object], times: int) -> list[float]:
    call()
    spent = []
    for _ in range(times):
        start = time.perf_counter_ns()
        call()
        spent.append((time.perf_counter_ns() - start) / 1e6)
    return spent

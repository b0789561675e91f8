"""What the processor could do at most: the multiply-accumulates of a loop that only computes."""

from __future__ import annotations

from functools import cache


@cache
def operations_per_second(precision: str, threads: int) -> float | None:
    """Operations (a multiply-accumulate is two) a second on `threads` processors.

    Measured once in each process by the native engine, with its best instruction set; None if this
    processor has no kernel of this precision.
    """
    from mobilenet import _engine

    try:
        return _engine.peak(precision) * threads
    except _engine.Failure:
        return None

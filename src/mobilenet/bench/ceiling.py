"""What the processor could do at most: the multiply-accumulates of a loop that only computes."""

from __future__ import annotations

from functools import cache


@cache
def operations_per_second(precision: str, threads: int) -> float | None:
    """Operations (a multiply-accumulate is two) a second on `threads` processors.

    Measured once in each process by the native engine, with its best instruction set; None if this build of the
    engine cannot measure it.
    """
    try:
        from mobilenet import _engine
    except ImportError:
        return None
    measure = getattr(_engine, "peak", None)
    return None if measure is None else float(measure(precision)) * threads

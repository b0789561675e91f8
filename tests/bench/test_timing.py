"""Turns, warm-up and binding to processors; nothing here depends on how fast the machine is."""

from __future__ import annotations

import gc
import os
import threading

import pytest

from mobilenet.bench.timing import WARM_CALLS, Times, in_turns, pinned
from mobilenet.errors import ArgumentError

needs_affinity = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system cannot bind processes"
)


def test_calls_take_turns_in_both_orders_and_each_turn_has_one_call_that_is_not_counted() -> None:
    calls: list[str] = []
    times = in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3, calls_per_round=2)
    assert calls[: 2 * WARM_CALLS] == ["a"] * WARM_CALLS + ["b"] * WARM_CALLS
    turn = {name: [name] * 3 for name in "ab"}
    assert calls[2 * WARM_CALLS :] == turn["a"] + turn["b"] + turn["b"] + turn["a"] + turn["a"] + turn["b"]
    assert {name: len(found.milliseconds) for name, found in times.items()} == {"a": 6, "b": 6}
    assert all(value >= 0 for found in times.values() for value in found.milliseconds)


def test_minimum_and_median() -> None:
    times = Times((3.0, 1.0, 10.0, 2.0))
    assert (times.minimum, times.median) == (1.0, 2.5)


def test_the_collector_rests_while_calls_are_timed_and_then_goes_on_even_after_an_error() -> None:
    states: list[bool] = []
    in_turns({"a": lambda: states.append(gc.isenabled())}, rounds=1, calls_per_round=2)
    assert states[WARM_CALLS:] == [False] * 3 and gc.isenabled()

    left = [WARM_CALLS]

    def fails_when_timed() -> None:
        if not left[0]:
            raise RuntimeError
        left[0] -= 1

    with pytest.raises(RuntimeError):
        in_turns({"a": fails_when_timed}, rounds=1)
    assert gc.isenabled()


@pytest.mark.parametrize(("rounds", "calls"), [(0, 8), (8, 0), (-1, 8)])
def test_no_rounds_or_calls_is_an_error(rounds: int, calls: int) -> None:
    with pytest.raises(ArgumentError, match="at least 1"):
        in_turns({"a": lambda: None}, rounds=rounds, calls_per_round=calls)


@needs_affinity
def test_pinned_binds_threads_that_start_within_and_lets_go_afterwards() -> None:
    before = os.sched_getaffinity(0)
    seen: list[set[int]] = []
    with pinned(1):
        assert os.sched_getaffinity(0) == {min(before)}
        thread = threading.Thread(target=lambda: seen.append(os.sched_getaffinity(0)))
        thread.start()
        thread.join()
    assert seen == [{min(before)}]
    assert os.sched_getaffinity(0) == before


@needs_affinity
@pytest.mark.parametrize("threads", [0, -1, 100_000])
def test_more_threads_than_processors_or_none_is_an_error(threads: int) -> None:
    before = os.sched_getaffinity(0)
    with pytest.raises(ArgumentError, match=f"threads is {threads}"), pinned(threads):
        pass
    assert os.sched_getaffinity(0) == before

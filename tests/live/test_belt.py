"""Belts between threads: order, room, what falls off, errors behind what was made, and stopping."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from mobilenet.live.belt import Belt, Line, Stopped


def test_things_arrive_in_order_and_no_more_than_the_capacity_wait() -> None:
    line = Line()
    first = line.stage("first", range(1000), capacity=3)
    second = line.stage("second", (number * 2 for number in first), capacity=2)
    assert list(second) == list(range(0, 2000, 2))
    assert first.most <= 3 and second.most <= 2 and first.dropped == second.dropped == 0


def test_where_the_newest_counts_the_oldest_falls_off() -> None:
    belt: Belt[int] = Belt(2, newest=True)
    for number in range(10):
        belt.put(number)
    belt.end()
    assert (list(belt), belt.dropped, belt.most) == ([8, 9], 8, 2)


def test_an_error_comes_behind_what_was_made_before_it() -> None:
    def failing() -> Iterator[int]:
        yield from range(5)
        raise ValueError("broken")

    line, found = Line(), []
    last = line.stage("second", iter(line.stage("first", failing(), capacity=9)), capacity=9)
    with pytest.raises(ValueError, match="broken"):
        for number in last:
            found.append(number)  # noqa: PERF402
    assert found == [0, 1, 2, 3, 4]
    line.stop()


def test_stopping_wakes_a_stage_that_waits_for_room_and_closes_it() -> None:
    closed, full = threading.Event(), threading.Event()

    def endless() -> Iterator[int]:
        try:
            for number in range(10**9):
                if number == 2:  # for which there is no room
                    full.set()
                yield number
        finally:
            closed.set()

    line = Line()
    line.stage("endless", endless(), capacity=2)
    assert full.wait(10)
    line.stop()
    assert closed.wait(10) and line.stopping.is_set()
    assert not any(thread.name == "mobilenet-endless" for thread in threading.enumerate())


def test_stopping_wakes_whoever_waits_for_things() -> None:
    def silent() -> Iterator[int]:
        line.stopping.wait(60)
        yield from ()

    line = Line()
    belt = line.stage("silent", silent(), capacity=2)
    threading.Timer(0.05, line.stop).start()
    with pytest.raises(Stopped):
        next(iter(belt))

"""Threads that hand things to each other: each stage is an iterator, run ahead by a thread, behind a queue.

A `Belt` carries things from one stage to the next and never holds more than a few. When it is full, whoever puts
things on waits; or, where the newest counts, the oldest thing falls off and is counted. An error of a stage
travels on the belts behind what was made before it, so that the last reader has everything that was finished and
then the error. Stopping a `Line` wakes every stage, whether it waits for things or for room.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

# Waits are cut into pieces of so many seconds: where a lock cannot be interrupted (Windows), Ctrl-C comes between.
_PATIENCE = 1.0


class Stopped(Exception):  # noqa: N818 (it is no error)
    """The line was stopped while a stage waited."""


class Belt(Generic[T]):
    """A queue of at most `capacity` things from one thread to another.

    Attributes:
        dropped: how many things fell off because newer ones came, so far.
        most: the most things that were on it at once, so far.
    """

    def __init__(self, capacity: int, *, newest: bool = False) -> None:
        self.dropped = self.most = 0
        self._capacity, self._newest = capacity, newest
        self._things: deque[T] = deque()
        self._change = threading.Condition()
        self._ended = self._stopped = False
        self._error: BaseException | None = None

    def put(self, thing: T) -> None:
        """Puts one thing on; waits for room, or lets the oldest fall off. Raises `Stopped`."""
        with self._change:
            if self._newest and len(self._things) >= self._capacity:
                self._things.popleft()
                self.dropped += 1
            while len(self._things) >= self._capacity and not self._stopped:
                self._change.wait(_PATIENCE)
            if self._stopped:
                raise Stopped
            self._things.append(thing)
            self.most = max(self.most, len(self._things))
            self._change.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """Nothing follows; or this error does."""
        with self._change:
            self._ended, self._error = True, error
            self._change.notify_all()

    def stop(self) -> None:
        """Wakes both sides: what is on the belt is let go, and nobody waits any more."""
        with self._change:
            self._stopped = True
            self._things.clear()
            self._change.notify_all()

    def __iter__(self) -> Iterator[T]:
        """Things in the order in which they were put on; then raises the error of `end`, or `Stopped`."""
        while True:
            with self._change:
                while not (self._things or self._ended or self._stopped):
                    self._change.wait(_PATIENCE)
                if self._stopped:
                    raise Stopped
                if not self._things:
                    if self._error is not None:
                        raise self._error
                    return
                thing = self._things.popleft()
                self._change.notify_all()
            yield thing


class Line:
    """Stages one behind the other.

    Attributes:
        belts: name of a stage -> the belt behind it.
        stopping: is set when the line is stopped; whoever pauses waits for this instead of sleeping.
    """

    def __init__(self) -> None:
        self.belts: dict[str, Belt[object]] = {}
        self.stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def stage(self, name: str, things: Iterable[T], *, capacity: int, newest: bool = False) -> Belt[T]:
        """Runs an iterator in a thread of its own; what it gives comes on the belt.

        Args:
            name: of the thread.
            things: what is made here, usually of what is on the belt before.
            capacity: how many may wait on the belt.
            newest: when it is full the oldest falls off, rather than that this stage waits.
        """
        belt: Belt[T] = Belt(capacity, newest=newest)
        self.belts[name] = belt  # type: ignore[assignment]
        thread = threading.Thread(target=_run, args=(iter(things), belt), name=f"mobilenet-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()
        return belt

    def stop(self, patience: float = 10.0) -> None:
        """Stops all stages and waits for their threads, so many seconds in all.

        A thread that waits inside a system call, for a camera that gives nothing, is left behind: it is a daemon,
        and ends when that call does.
        """
        self.stopping.set()
        for belt in self.belts.values():
            belt.stop()
        for thread in reversed(self._threads):  # the last first: it closes what is written
            thread.join(patience if thread is self._threads[-1] else min(patience, 1.0))


def _run(things: Iterator[T], belt: Belt[T]) -> None:
    try:
        try:
            for thing in things:
                belt.put(thing)
        finally:
            close: Callable[[], None] | None = getattr(things, "close", None)
            if close is not None:
                close()
    except Stopped:
        belt.end()
    except BaseException as error:  # noqa: BLE001 - it is raised by whoever reads the belt
        belt.end(error)
    else:
        belt.end()

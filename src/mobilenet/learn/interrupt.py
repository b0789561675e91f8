"""Leaving on SIGTERM and Ctrl-C: at the next safe point with the state saved, and in any case within seconds."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

PATIENCE_SECONDS = 4.0  # until a process that reaches no safe point is left as it is


class Stopped(Exception):  # noqa: N818 (it is no error)
    """A safe point was reached after a signal; what was learnt can be saved."""


class StopSignals:
    """Watches for SIGTERM and SIGINT while it is entered.

    Python runs a signal handler only between two byte codes, which may be seconds away while torch is computing.
    The byte that `signal.set_wakeup_fd` sends comes at once, so a thread waits for that and, if no safe point is
    reached in time, ends the process: the last state on the disk is whole anyway.

    Attributes:
        signal: number of the signal that came, 0 if none.
        farewell: what is printed if the process must be left without another save.
    """

    def __init__(self, farewell: str = "", patience: float = PATIENCE_SECONDS) -> None:
        self.signal = 0
        self.farewell = farewell
        self._patience = patience
        self._done = threading.Event()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread may set handlers: whoever runs us in a thread handles signals
        self._wake, self._bell = socket.socketpair()
        self._bell.setblocking(False)
        self._previous_wakeup = signal.set_wakeup_fd(self._bell.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._handle)
        threading.Thread(target=self._watch, daemon=True, name="stop-signals").start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if self._previous:
            signal.set_wakeup_fd(self._previous_wakeup)
            for number, handler in self._previous.items():
                signal.signal(number, handler)
            self._bell.close()

    def check(self) -> None:
        """A safe point: raises `Stopped` if a signal came."""
        if self.signal:
            raise Stopped

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.signal = number

    def _watch(self) -> None:
        with self._wake:
            while numbers := self._wake.recv(16):
                wanted = [n for n in numbers if n in (signal.SIGTERM, signal.SIGINT)]
                if wanted and not self._done.wait(self._patience):
                    leave_now(128 + wanted[0], self.farewell)


def leave_now(status: int, message: str, leave: Callable[[int], None] = os._exit) -> None:
    """Ends the process at once, without the clean-up that might wait for a computation."""
    sys.stderr.write(f"\n{message}\n")
    sys.stderr.flush()
    leave(status)

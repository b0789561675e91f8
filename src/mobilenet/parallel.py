"""Work on many things at once, with the answers in the order of the things."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(
    work: Callable[[T], R], items: Iterator[T], *, workers: int, ahead: Callable[[T], bool]
) -> Iterator[R]:
    """work(item) for each item, by several threads.

    At most twice as many items as there are workers are taken before their answer is asked for, and none after an
    item that `ahead` says no to: what is taken stays in memory. An exception comes where the answer would have
    come; one of `items` itself comes after the answers to what was before it.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="mobilenet")
    waiting: deque[Future[R]] = deque()
    failure: Exception | None = None
    try:
        while True:
            try:
                item = next(items)
            except StopIteration:
                break
            except Exception as error:  # noqa: BLE001 - it is raised below, in its place
                failure = error
                break
            waiting.append(pool.submit(work, item))
            while len(waiting) > (2 * workers if ahead(item) else 0):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
        if failure is not None:
            raise failure
    finally:
        pool.shutdown(cancel_futures=True)

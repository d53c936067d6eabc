"""Work made ahead in a second thread, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 2


def made_ahead(make: Callable[[T], R], items: Iterable[T], count: int = AHEAD) -> Generator[R, None, None]:
    """Yield make(item) for each item, in order, while a second thread makes the next `count` ones.

    What `make` raises is raised here, at the item it was raised for. Close the generator (`contextlib.closing`) to
    leave early: what is in the making is finished, the rest is dropped, and the thread ends.
    """
    worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead")
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(worker.submit(make, item))
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        worker.shutdown(wait=True, cancel_futures=True)

"""Work that would make the window stutter (decoding, encoding, disks), done in one thread, in order.

What is to happen with a result is said beforehand and runs on the main thread, when the loop asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class Jobs:
    """A queue of calls. `inline` does each at once, for tests."""

    def __init__(self, inline: bool = False) -> None:
        self._pool = None if inline else ThreadPoolExecutor(1, "genie-play jobs")
        self._waiting: deque[tuple[Future[Any], Callable[[Any], None], Callable[[Exception], None]]] = deque()

    def start(self, work: Callable[[], T], done: Callable[[T], None], failed: Callable[[Exception], None]) -> None:
        """Do `work` in the thread; `done` or `failed` is called by a later `poll`."""
        if self._pool is not None:
            future = self._pool.submit(work)
        else:
            future = Future()
            try:
                future.set_result(work())
            except Exception as error:
                future.set_exception(error)
        self._waiting.append((future, done, failed))

    @property
    def busy(self) -> bool:
        """Something is not done yet."""
        return bool(self._waiting)

    def poll(self) -> None:
        """Hand over what is ready, in the order in which it was asked for."""
        while self._waiting and self._waiting[0][0].done():
            future, done, failed = self._waiting.popleft()
            error = future.exception()
            if error is None:
                done(future.result())
            elif isinstance(error, Exception):
                failed(error)
            else:
                raise error

    def close(self) -> None:
        """Wait for what was begun: a recording that is being written is worth it."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        self.poll()

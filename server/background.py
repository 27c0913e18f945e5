"""Opening a version beside searches: at low priority, and of several workers one at a time."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from .telemetry import PEERS

__all__ = ["let_searches_go_first", "one_worker_at_a_time", "patiently"]

NICENESS = 10

Result = TypeVar("Result")


def let_searches_go_first() -> None:
    """Lowers the priority of the thread that calls it, where the system has one for threads (Linux)."""
    with contextlib.suppress(AttributeError, OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def patiently(function: Callable[..., Result], *arguments: object) -> Result:
    """`function(*arguments)` at low priority: in a thread of its own, for a thread may not raise its again.

    Threads that it starts inherit the priority, so it should start none that searches are to use.
    """
    with ThreadPoolExecutor(1, "earshot-opening", let_searches_go_first) as pool:
        return pool.submit(function, *arguments).result()


@contextlib.contextmanager
def one_worker_at_a_time() -> Iterator[None]:
    """Within the block no other worker of this server is in such a block; one that dies is in none."""
    folder = os.environ.get(PEERS)
    if folder is None:
        yield
        return
    import fcntl  # where there is none there are no workers either

    with Path(folder, "opening").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

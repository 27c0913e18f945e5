"""What every job does around its own work: an index that is there, and time by step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from earshot.index import Store

__all__ = ["existing", "timed"]


@contextmanager
def existing(store: Store, name: str) -> Iterator[None]:
    """The index is there, made now if need be, and not left behind empty by a job that failed."""
    if name in store.indexes():
        yield
        return
    store.create(name)
    try:
        yield
    except BaseException:
        store.delete(name)
        raise


@contextmanager
def timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Writes down how long the block took."""
    began = time.perf_counter()
    try:
        yield
    finally:
        seconds[step] = round(time.perf_counter() - began, 3)

"""What every job does around its own work: an index that is there, and time by step."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from earshot.index import IndexConfig, Store

__all__ = ["arguments", "existing", "timed"]


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


def arguments(config: IndexConfig, said: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `Index.build`: what the call says, or else the index's config, or else what is usual."""
    found = {name: value for name, value in said.items() if value is not None}
    asked = {name: getattr(config, name) for name in usual if getattr(config, name) is not None}
    return {**usual, **asked, **found}


@contextmanager
def timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Writes down how long the block took."""
    began = time.perf_counter()
    try:
        yield
    finally:
        seconds[step] = round(time.perf_counter() - began, 3)
